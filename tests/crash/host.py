"""A worker process of the killing tests: `python -m tests.crash.host '{"redis": ..., "ledger": ..., "lease": 1.0}'`.

It runs the jobs of `app.py` with a short lease, and writes into the ledger what a test wants to know of the worker:

    lost     a lease was lost; `n` is how many of its jobs were running
    rescued  a job of a dead owner was given back here

When the test's end of its standard input closes, it leaves at once: nothing outlives a test that died.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

from pillion.events import JobRescued, LeaseLost
from pillion.setup import Setup
from pillion.worker import Worker
from tests.crash.app import open_ledger


def main(options: dict[str, Any]) -> int:
    threading.Thread(target=leave_with_the_test, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S")
    ledger = open_ledger(Path(options.pop("ledger")))
    setup = Setup(**options)
    setup.events.subscribe(LeaseLost, lambda lost: ledger.note("lost", owner=lost.owner, n=lost.running))
    setup.events.subscribe(JobRescued, lambda saved: ledger.note("rescued", saved.jid or "-", saved.owner))
    return Worker(setup).run()


def leave_with_the_test() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))

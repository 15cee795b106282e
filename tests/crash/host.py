"""A worker process of the killing tests, as `processes.py` forks it: `main({"ledger": ..., "redis": ...})`.

It runs the jobs of `app.py` and `mix.py` and writes into the ledger what a test wants to know of the worker:

    lost     a lease was lost; `n` is how many of its jobs were running
    rescued  a job of a dead owner was given back here

With `processes` it is `pillion worker --processes N` instead, whose zygote imports `mix.py`.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import pillion.cli.app
from pillion.setup import Setup
from pillion.worker.supervisor import restarts
from pillion.worker.worker import Worker
from tests.crash import mix, sabotage
from tests.crash.app import open_ledger
from tests.crash.processes import environment

LONG_LIFE = 0.3


def main(options: dict[str, Any]) -> int:
    """Run a worker, or a supervisor of several, until told to stop; returns the exit code."""
    if "processes" in options:
        return supervise(options)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S")
    sabotage.apply_asked()
    open_ledger(Path(options.pop("ledger")))
    setup = Setup(**options)
    mix.watch(setup)
    return Worker(setup).run()


def supervise(options: dict[str, Any]) -> int:
    """Be the supervisor. Its zygote is a fresh interpreter, and hears of everything through the environment.

    Here every process dies again and again, so one that lived for a moment counts as one that can.
    """
    restarts.LONG_LIFE = LONG_LIFE
    os.environ[mix.LEDGER] = options.pop("ledger")
    os.environ.update(environment(options))
    sys.argv = ["pillion", "worker", "tests.crash.mix"]
    return pillion.cli.app.run(sys.argv[1:])

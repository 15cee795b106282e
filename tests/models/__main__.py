"""The models' long run: `python -m tests.models` takes the explorer to wider bounds and the machine through the night.

`--histories 20000` is how many histories of the state machine there are, 0 for none.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from hypothesis import settings

from tests.models.bounds import NIGHT
from tests.models.explorer import explore
from tests.models.test_machine import COMMON, histories
from tests.servers import Server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.models", description=__doc__)
    parser.add_argument("--histories", type=int, default=2_000)
    parser.add_argument("--only", default="", help="bounds of the explorer whose name holds this")
    options = parser.parse_args()
    os.nice(10)
    for name, bounds in NIGHT.items():
        if options.only in name:
            began = time.monotonic()
            print(f"{name}: {explore(bounds):,} states, {time.monotonic() - began:.0f} s", flush=True)
    if options.histories:
        _histories(options.histories)
    return 0


def _histories(count: int) -> None:
    server = Server("valkey")
    try:
        server.start()
        histories(server, None, settings(COMMON, max_examples=count))
        print(f"{count:,} histories of the state machine, nothing found")
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())

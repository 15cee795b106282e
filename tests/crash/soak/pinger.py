"""How late the machine itself is: `python -m tests.crash.soak.pinger FOLDER`, until TERM.

A process that only sleeps for ten milliseconds, again and again, and notes by how much it wakes up too late, every ten
seconds in one line: `late <p50> <p99>`, in milliseconds. A job's start takes half a dozen such awakenings.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.crash.soak import journal
from tests.crash.soak.slopes import percentile

NAP = 0.01
EVERY = 10.0


def main(folder: Path) -> None:
    pings = journal.Journal(folder / journal.PINGS)
    while True:
        late = []
        until = time.monotonic() + EVERY
        while (at := time.monotonic()) < until:
            time.sleep(NAP)
            late.append((time.monotonic() - at - NAP) * 1000)
        pings.note("late", *(f"{percentile(late, share):.3f}" for share in (0.5, 0.99)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

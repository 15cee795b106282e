"""Facts in plain files that no fault of the soak reaches: one line each, written by whoever knows.

A line is appended by one `write`, so a process that is killed leaves it whole or not at all. Times are of the boot
clock, which all processes share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

RUNS, PUSHES, FAULTS, VITALS, PINGS = "runs", "pushes", "faults", "vitals", "pings"
SAMPLES, STANDING, FACTS = "samples.jsonl", "standing.json", "facts.json"


def now() -> float:
    """Seconds of the boot clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Journal:
    """Appends to the file at `path`."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def note(self, what: str, *words: object) -> None:
        """Append one fact: a word, the time, and the rest."""
        os.write(self._descriptor, f"{' '.join(map(str, (what, f'{now():.6f}', *words)))}\n".encode())

    def close(self) -> None:
        os.close(self._descriptor)


def read(path: Path) -> Iterator[list[str]]:
    """The facts so far, as words."""
    if path.exists():
        with path.open() as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield line.split()

"""The ledger: which process ran which job and when, in a plain file that no fault of a test reaches.

Jobs and workers write to it, one line for each fact; the test that started them reads it. A line is appended by one
`write`, so a process that is killed leaves it whole or not at all. Times are of the boot clock, which all processes
share.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Set
from pathlib import Path
from typing import NamedTuple

from pillion import RunningJob


class Fact(NamedTuple):
    """One line.

    Attributes:
        what: `start`, `end`, `fail` or `later` of a run, or a word of the worker's own (see `host.py`).
        jid: the job, "-" where the fact is not about one.
        owner, n: the fencing token of the run.
        attempt: 1 for the first run, 2 for the first retry.
        pid: who wrote it.
        at: when, in seconds of the boot clock.
    """

    what: str
    jid: str
    owner: str
    n: int
    attempt: int
    pid: int
    at: float


def now() -> float:
    """Seconds of the boot clock, which is the same in every process of this machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Ledger:
    """Appends facts to the file at `path`, and reads what everybody appended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._facts: list[Fact] = []
        self._by_jid: defaultdict[str, list[Fact]] = defaultdict(list)
        self._by_what: defaultdict[str, list[Fact]] = defaultdict(list)
        self._jids: defaultdict[str, set[str]] = defaultdict(set)
        self._offset = 0
        self._descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600)

    def note(self, what: str, jid: str = "-", owner: str = "-", n: int = 0, attempt: int = 0) -> None:
        """Append one fact."""
        line = f"{what} {jid} {owner} {n} {attempt} {os.getpid()} {now():.6f}\n"
        os.write(self._descriptor, line.encode())

    def note_run(self, what: str, run: RunningJob) -> None:
        """Append a fact about a run."""
        owner, n = run.token
        self.note(what, run.jid, owner, n, run.attempt)

    def facts(self, what: str | None = None, jid: str | None = None, since: float = 0.0) -> list[Fact]:
        """Everything noted so far, in the order of writing; only these facts, this job, this time where given."""
        self._read()
        known = self._facts
        if jid is not None:
            known = self._by_jid.get(jid, [])
        elif what is not None:
            known = self._by_what.get(what, [])
        return [fact for fact in known if what in (None, fact.what) and fact.at >= since]

    def jids(self, what: str) -> Set[str]:
        """The jobs that have this fact; the set grows as more is read."""
        self._read()
        return self._jids[what]

    def count(self, what: str) -> Counter[str]:
        """How often each jid has this fact."""
        return Counter(fact.jid for fact in self.facts(what))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _read(self) -> None:
        for fact in self._fresh():
            self._facts.append(fact)
            self._by_jid[fact.jid].append(fact)
            self._by_what[fact.what].append(fact)
            self._jids[fact.what].add(fact.jid)

    def _fresh(self) -> Iterator[Fact]:
        lines = self._unread().splitlines(keepends=True)
        for line in lines:
            if line.endswith(b"\n"):
                self._offset += len(line)
                what, jid, owner, n, attempt, pid, at = line.decode().split()
                yield Fact(what, jid, owner, int(n), int(attempt), int(pid), float(at))

    def _unread(self) -> bytes:
        size = os.fstat(self._descriptor).st_size - self._offset
        return os.pread(self._descriptor, size, self._offset) if size else b""

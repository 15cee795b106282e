"""The account of a soak: every accepted job, what became of it, and why some ran more than once.

A run is a *repetition* if the same attempt of its job had begun before. What explains it is one of

- a fault of a process that ran it: killed while it did, or just after; or frozen meanwhile, or just before;
- a fault of the server or the connections between the beginning of the first run and shortly after its end.

With `appendfsync everysec` a server that is killed may forget what it confirmed in its last two seconds: while one
fsync takes long, it answers before it writes. Such jobs are counted by themselves.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.crash.soak import journal

OF_A_PROCESS = frozenset({"kill-child", "kill-async", "stop-child", "stop-async", "stop-sheltered"})
OF_THE_SERVER = frozenset({"stall", "reset", "drop", "kill-redis", "client-kill"})
JUST = 2.0
"""Seconds that a fault is felt after it was healed, and a run after its end: until its outcome is written."""

FORGETS = 2.0
END = float("inf")


@dataclass(frozen=True)
class Fault:
    """One fault; `to` is when it was healed, `pid` its victim, 0 for none."""

    kind: str
    at: float
    to: float
    pid: int = 0


@dataclass
class Run:
    """One run; it ended at `to`, if it did."""

    attempt: int
    at: float
    pid: int
    to: float = END


@dataclass
class Job:
    """What is known of a job: when it was accepted, its runs, and whether one of them ended well."""

    accepted: float | None = None
    maybe: bool = False
    done: bool = False
    runs: list[Run] = field(default_factory=list)


@dataclass(frozen=True)
class Account:
    """What a soak came to.

    Attributes:
        accepted, maybe: jobs whose push was confirmed, and pushes without an answer.
        maybe_ran: how many of those ran.
        refused: jobs that were refused while the server was away.
        runs, repeated: runs that began; jobs of which an attempt began more than once.
        lost: accepted jobs that neither ran to their end nor stand anywhere.
        forgotten: the same, where the server was killed within two seconds of its answer.
        foreign: jobs that ran and that nobody pushed.
        unexplained: jobs with a repetition that no fault explains.
    """

    accepted: int
    maybe: int
    maybe_ran: int
    refused: int
    runs: int
    repeated: int
    lost: list[str]
    forgotten: list[str]
    foreign: list[str]
    unexplained: list[str]


def draw_up(folder: Path) -> Account:
    """Compare what was accepted with what ran and what stands in Redis."""
    jobs, refused = jobs_of(folder)
    faults = faults_of(folder)
    places: dict[str, list[str]] = json.loads((folder / journal.STANDING).read_text())
    standing = {jid for place in places.values() for jid in place}
    missing = {jid for jid, job in jobs.items() if job.accepted is not None and not job.done} - standing
    downs = sorted(fault.at for fault in faults if fault.kind == "kill-redis")
    forgotten = {jid for jid in missing if _was_forgotten(jobs[jid], downs)}
    repeated = {jid: found for jid, job in jobs.items() if (found := repetitions(job))}
    unanswered = [job for job in jobs.values() if job.maybe and job.accepted is None]
    return Account(
        accepted=sum(job.accepted is not None for job in jobs.values()),
        maybe=len(unanswered),
        maybe_ran=sum(bool(job.runs) for job in unanswered),
        refused=refused,
        runs=sum(len(job.runs) for job in jobs.values()),
        repeated=len(repeated),
        lost=sorted(missing - forgotten),
        forgotten=sorted(forgotten),
        foreign=sorted(jid for jid, job in jobs.items() if job.accepted is None and not job.maybe),
        unexplained=sorted(
            jid for jid, found in repeated.items() if not all(explained(*each, faults) for each in found)
        ),
    )


def faults_of(folder: Path) -> list[Fault]:
    """The faults of a run, in order. One that was not healed counts until the end."""
    begun: dict[str, tuple[str, float, int]] = {}
    over: dict[str, float] = {}
    for what, at, *words in journal.read(folder / journal.FAULTS):
        if what == "begin":
            begun[words[0]] = (words[1], float(at), int(words[2]))
        elif what == "over":
            over[words[0]] = float(at)
    return [Fault(kind, at, over.get(number, END), pid) for number, (kind, at, pid) in begun.items()]


def jobs_of(folder: Path) -> tuple[dict[str, Job], int]:
    """All jobs by jid, and how many were refused."""
    jobs: dict[str, Job] = defaultdict(Job)
    refused = 0
    for what, at, *words in journal.read(folder / journal.PUSHES):
        if what == "refused":
            refused += int(words[0])
        elif what == "accepted":
            for jid in words:
                jobs[jid].accepted = float(at)
        else:
            for jid in words:
                jobs[jid].maybe = True
    for what, at, jid, attempt, pid, *_ in journal.read(folder / journal.RUNS):
        job = jobs[jid]
        if what == "start":
            job.runs.append(Run(int(attempt), float(at), int(pid)))
            continue
        job.done |= what == "end"
        for run in job.runs:
            if (run.attempt, run.pid, run.to) == (int(attempt), int(pid), END):
                run.to = float(at)
    return jobs, refused


def repetitions(job: Job) -> list[tuple[Run, Run]]:
    """Each run of an attempt with the next one of the same attempt."""
    if len(job.runs) < 2:
        return []
    ordered = sorted(job.runs, key=lambda run: (run.attempt, run.at))
    return [(one, other) for one, other in pairwise(ordered) if one.attempt == other.attempt]


def explained(one: Run, again: Run, faults: Sequence[Fault]) -> bool:
    """Whether a fault explains that a job ran again."""
    for fault in faults:
        if fault.kind in OF_A_PROCESS:
            runs = [run for run in (one, again) if run.pid == fault.pid]
        else:
            runs = [one] if fault.kind in OF_THE_SERVER else []
        if any(fault.at <= min(run.to, max(one.at, again.at)) + JUST and fault.to + JUST >= run.at for run in runs):
            return True
    return False


def _was_forgotten(job: Job, downs: list[float]) -> bool:
    """Whether the server was killed just after it had confirmed this job."""
    assert job.accepted is not None
    i = bisect_left(downs, job.accepted - 0.1)
    return i < len(downs) and downs[i] - job.accepted < FORGETS and not job.runs

"""The account of a trial: what was accepted, what ran, what is missing, what ran twice and why, how long it took.

Which second runs are explained. A process that a fault killed or froze (a *hit*) may have been running a job, or have
ended it without having been able to say so: such a job runs again, as often as it was in such hands. Everything else
that runs twice is an error.

Recovery. The clock starts with the fault (a kill) or with its end (an outage). Every job that was pushed before and was
not finished, and is not running in hands that go on, has to start (again); the last of these starts is the recovery. A
job that failed or snoozed is due later and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.crash.bed import LEASE
from tests.crash.chaosbed import ChaosBed
from tests.crash.ledger import Fact
from tests.crash.state import State

CLOSED = ("end", "fail", "later")
UNSAID = 0.25
"""How long an outcome may stand in its process before the server has it, in seconds: a step or two."""


@dataclass(frozen=True)
class Run:
    """One run of a job. `ended` and `word` are None where nobody saw its end."""

    jid: str
    attempt: int
    pid: int
    started: float
    ended: float | None
    word: str | None


@dataclass(frozen=True)
class Account:
    """What a trial came to.

    Attributes:
        state: the server after quiescence, or after patience was over.
        lost: accepted jobs that neither ran to their end nor stand anywhere.
        stranded: jobs that stand somewhere and should not, any more.
        foreign: jobs that started and that nobody pushed in this trial.
        extra: jid -> how many runs it had more than it needed.
        unexplained: those among them that the fault does not explain, and how many.
        recovery: seconds, None where nothing was in flight.
    """

    state: State
    lost: set[str]
    stranded: set[str]
    foreign: set[str]
    extra: dict[str, int]
    unexplained: dict[str, int]
    recovery: float | None


def draw_up(bed: ChaosBed, state: State) -> Account:
    """Compare what was pushed in this trial with what ran and what stands in the server."""
    accepted, ended = set(bed.pushed.accepted), bed.ledger.jids("end")
    known = accepted | bed.pushed.unknown
    runs = runs_of(bed.ledger.facts(since=bed.began))
    extra = {jid: more for jid in known if (more := surplus(runs.get(jid, ()))) > 0}
    hits = hits_of(bed)
    explained = {jid: more for jid in extra if (more := sum(was_hit(run, hits) for run in runs[jid]))}
    explained |= {jid: extra[jid] for jid in extra.keys() & bed.touched}
    return Account(
        state=state,
        lost=accepted - ended - state.where.keys(),
        stranded=state.waiting | (known & state.where.keys() - state.dead),
        foreign=runs.keys() - known,
        extra=extra,
        unexplained={jid: more for jid in extra if (more := extra[jid] - explained.get(jid, 0)) > 0},
        recovery=recovery(bed, runs),
    )


def hits_of(bed: ChaosBed) -> dict[int, float]:
    """The processes that were touched (by the fault, a deadly job, the loss of their lease), and since when."""
    hits = {hit.pid: hit.since for hit in reversed(bed.hits)}
    for fact in bed.ledger.facts("deadly", since=bed.began):
        hits.setdefault(fact.pid, fact.at)
    for fact in bed.ledger.facts("lost", since=bed.began):
        hits.setdefault(fact.pid, bed.began)
    return {pid: unsaid_since(bed, since) for pid, since in hits.items()}


def unsaid_since(bed: ChaosBed, moment: float) -> float:
    """From when on outcomes may stand in a process that was hit at this moment: while the server was away none left."""
    away = [down for down, up in bed.outages if down <= moment <= up + LEASE]
    return min([moment, *away]) - UNSAID


def runs_of(facts: Sequence[Fact]) -> dict[str, list[Run]]:
    """The runs of each job that started, in the order of their starts."""
    ends = {(fact.jid, fact.owner, fact.n, fact.pid): fact for fact in facts if fact.what in CLOSED}
    runs: dict[str, list[Run]] = {}
    for fact in facts:
        if fact.what == "start":
            end = ends.get((fact.jid, fact.owner, fact.n, fact.pid))
            run = Run(fact.jid, fact.attempt, fact.pid, fact.at, end and end.at, end and end.what)
            runs.setdefault(fact.jid, []).append(run)
    return runs


def surplus(runs: Sequence[Run]) -> int:
    """How many of these runs were not called for: one is, and one more after each attempt that failed or snoozed."""
    failed = {run.attempt for run in runs if run.word == "fail"}
    return len(runs) - 1 - len(failed) - any(run.word == "later" for run in runs)


def was_hit(run: Run, hits: dict[int, float]) -> bool:
    """Whether the fault met this run before its outcome was written. `hits` says from when on that may be."""
    return run.pid in hits and (run.ended is None or run.ended >= hits[run.pid])


def recovery(bed: ChaosBed, runs: dict[str, list[Run]]) -> float | None:
    """Seconds from the mark until all that was in flight had started again."""
    mark = bed.marked
    if mark is None:
        return None
    waits = [wait_of(runs.get(jid, []), mark) for jid in bed.pushed.before(mark)]
    found = [wait for wait in waits if wait is not None]
    return max(found) if found else None


def wait_of(runs: Sequence[Run], mark: float) -> float | None:
    """How long after the mark a job started again; None if it did not have to, 0 if it was running in good hands."""
    before = [run for run in runs if run.started < mark]
    after = [run for run in runs if run.started >= mark]
    if before and before[-1].ended is not None:
        return None
    return after[0].started - mark if after else None

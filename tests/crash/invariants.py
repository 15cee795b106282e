"""The invariants, each with its own check and its own words. The numbers are those of the published page.

    I1   every accepted job has run to its end, or stands in `retry`, `schedule` or `dead` with its reason
    I2   none is lost: accepted = done + standing somewhere; looked at all the time, not only at the end
    I3   nothing runs that nobody pushed
    I4   a second run only of what was in hands that the fault touched; nobody who was not touched loses a lease
    I5   at any time a job stands in one place, in one pair of hands
    I6   what was fenced changes nothing: no claim runs twice, and no second copy appears (that is I4 and I5)
    I8   when all is done nothing is left: no claim, tray, index, lease
    I11  recovery within lease + reap interval + 2 s
    I12  after the fault every worker goes on: it has renewed its lease since, and none ended by itself

I7, I9 and I10 are about at-most-once queues, batches and periodic jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tests.crash.state import State

if TYPE_CHECKING:
    from tests.crash.account import Account
    from tests.crash.chaosbed import ChaosBed

LATE = 0.3
"""A machine that is so late (seconds) may cost a process its lease of one second."""

SHOWN = 5


def seen_wrong(bed: ChaosBed, state: State, known: Iterable[str]) -> Iterator[str]:
    """What one look at the server shows to be wrong. `known` had been accepted before it."""
    twice = {jid: places for jid, places in state.where.items() if len(places) > 1}
    if twice:
        yield f"I5: in two places at once: {some(twice)}"
    ended = bed.ledger.jids("end")
    gone = [jid for jid in known if jid not in state.where and jid not in ended and jid not in bed.gone]
    if gone:
        yield f"I2: nowhere, though accepted and not done: {some(told(bed, jid) for jid in gone)}"
    silent = [jid for jid, reason in state.reasons.items() if not reason]
    if silent:
        yield f"I1: failed without a reason: {some(silent)}"


def found_wrong(bed: ChaosBed, account: Account) -> Iterator[str]:
    """What the account of a trial shows to be wrong."""
    if account.lost:
        yield f"I2: lost: {some(told(bed, jid) for jid in account.lost)}"
    if account.stranded:
        yield f"I1: stranded: {some(f'{told(bed, jid)} {account.state.where.get(jid)}' for jid in account.stranded)}"
    if account.foreign:
        yield f"I3: ran, and nobody pushed it: {some(told(bed, jid) for jid in account.foreign)}"
    if account.unexplained:
        yield f"I4: ran again for no reason: {some(told(bed, jid) for jid in account.unexplained)}"
    yield from fenced_wrongly(bed)
    yield from ran_twice_as_one_claim(bed)
    yield from left_over(account.state)
    if account.recovery is not None and account.recovery > bed.bound + bed.late:
        yield f"I11: recovery took {account.recovery:.2f} s, bound {bed.bound:.2f} s (machine late by {bed.late:.2f} s)"


def fenced_wrongly(bed: ChaosBed) -> Iterator[str]:
    """Processes that lost their lease though the fault did not touch them."""
    lost = {fact.pid for fact in bed.ledger.facts("lost", since=bed.began)} - bed.hit_pids()
    if lost and bed.late < LATE:
        yield f"I4: fenced, though alive and not touched: {sorted(lost)}"


def ran_twice_as_one_claim(bed: ChaosBed) -> Iterator[str]:
    """Claims that were started twice."""
    starts = Counter((fact.jid, fact.owner, fact.n) for fact in bed.ledger.facts("start", since=bed.began))
    twice = [claim for claim, count in starts.items() if count > 1]
    if twice:
        yield f"I6: one claim ran twice: {some(twice)}"


def left_over(state: State) -> Iterator[str]:
    """Keys of Pillion's own that live and idle workers do not have."""
    extra = sorted(set(state.keys) - set(expected_keys(state)))
    if extra:
        yield f"I8: left over: {some(extra)}"


def expected_keys(state: State) -> list[str]:
    """The keys of Pillion's own that live workers have while they are idle."""
    fixed = ["pillion:lease", "pillion:pulse"] if state.leases else []
    return sorted([*(f"pillion:inf:{owner}" for owner in state.leases), *fixed])


def told(bed: ChaosBed, jid: str) -> str:
    """A job and its story, as the ledger has it: times are seconds since the trial began."""
    facts = bed.ledger.facts(jid=jid)
    story = ", ".join(f"{fact.what} {fact.at - bed.began:+.3f} by {fact.pid} #{fact.n}" for fact in facts)
    pushed = bed.pushed.accepted.get(jid)
    return f"{jid} (pushed {'?' if pushed is None else f'{pushed - bed.began:+.3f}'}; {story or 'never started'})"


def some(things: Iterable[object]) -> str:
    """The first few of them."""
    listed = [str(thing) for thing in things]
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return "; ".join(listed[:SHOWN]) + more

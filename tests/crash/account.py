"""The account of a chaos run: what was accepted, what ran, what is missing, and how long each rescue took.

Recovery. A kill strands the jobs in the victim's slots. Each is *recovered* by its next start, or by the next kill that
strands it again, whose clock runs from there. Two figures are drawn from that:

- *raw*: from the kill to the last recovery;
- *from trust*: a reaper waits until the lease is over, and, by the outage amnesty, until it has itself been healthy
  for a whole lease. So this clock starts one lease before a reaper could act, never before the kill. It has a bound,
  lease + reap interval + 2 s, which the first reaper that stays healthy for so long must keep.

A reaper that is killed or cut off earlier owes nothing, whatever it had begun: a kill whose jobs were recovered while
no reaper was free to act has no second figure. Its bound is that of the next reaper that does stay healthy.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tests.crash.bed import LEASE, Bed
from tests.crash.chaos import Kill, Pushed
from tests.crash.ledger import Fact

REAP_INTERVAL = LEASE / 4 * 1.2
SLACK = 2.0
BOUND = LEASE + REAP_INTERVAL + SLACK
PILL_COUNT = 3


@dataclass(frozen=True)
class Span:
    """A time during which some reaper was free to act."""

    start: float
    end: float


@dataclass(frozen=True)
class Recovery:
    """How long one kill's jobs took to start again, in seconds. `late` are the jids that exceeded the bound."""

    raw: float
    from_trust: float | None
    late: tuple[str, ...]


@dataclass(frozen=True)
class Account:
    """What a run came to.

    Attributes:
        lost: accepted jobs that neither ran to their end nor stand anywhere.
        foreign: jobs that ran and that nobody pushed.
        unexplained: jobs that ran more often than kills can explain, and how often.
        innocent: jobs that were buried as pills without having run alone in two kills after a first one.
        again: how many jobs ran more than once.
        buried: how many were buried as pills.
        unknown_ran: how many of the pushes without an answer had been executed.
    """

    lost: set[str]
    foreign: set[str]
    unexplained: dict[str, int]
    innocent: set[str]
    again: int
    buried: int
    unknown_ran: int
    recoveries: list[Recovery]

    def figures(self) -> str:
        """The recoveries in one line."""
        raw = [recovery.raw for recovery in self.recoveries]
        trusted = [recovery.from_trust for recovery in self.recoveries if recovery.from_trust is not None]
        late = sum(bool(recovery.late) for recovery in self.recoveries)
        return (
            f"recovery of {len(raw)} kills that stranded jobs: raw {spread(raw)}; {len(trusted)} of them counted from "
            f"a healthy reaper {spread(trusted)}; bound {BOUND:.2f} s, late {late}"
        )


def draw_up(bed: Bed, pushed: Sequence[Pushed], kills: Sequence[Kill], end: float) -> Account:
    """Compare what was accepted with what ran and what stands in Redis; `end` is when all was quiet."""
    accepted = {jid for each in pushed for jid in each.accepted}
    unknown = {jid for each in pushed for jid in each.unknown}
    standing = bed.standing()
    done = bed.ledger.count("end").keys()
    stranded = Counter(jid for kill in kills for jid in kill.stranded)
    marked = Counter(jid for kill in kills for jid in kill.marked)
    buried = set(standing.get("dead", []))
    runs = Counter((fact.jid, fact.attempt) for fact in bed.ledger.facts("start"))
    extra: Counter[str] = Counter()
    for (jid, _), count in runs.items():
        extra[jid] += count - 1
    return Account(
        lost=accepted - done - {jid for place in standing.values() for jid in place},
        foreign=done - accepted - unknown,
        unexplained={jid: count for jid, count in extra.items() if count > stranded[jid]},
        innocent={jid for jid in buried if stranded[jid] < PILL_COUNT or marked[jid] < PILL_COUNT - 1},
        again=sum(1 for count in extra.values() if count),
        buried=len(buried),
        unknown_ran=len(unknown & done),
        recoveries=recoveries(bed.ledger.facts(), kills, buried, end),
    )


def recoveries(facts: Sequence[Fact], kills: Sequence[Kill], buried: set[str], end: float) -> list[Recovery]:
    """The recovery of each kill that stranded anything but buried pills."""
    starts = defaultdict(list)
    for fact in facts:
        if fact.what == "start":
            starts[fact.jid].append(fact.at)
    spans = trust(facts, kills, end)
    found = []
    for i, kill in enumerate(kills):
        again = {jid: later.at for later in reversed(kills[i + 1 :]) for jid in later.stranded}
        moments = {jid: min(first_after(starts[jid], kill.at), again.get(jid, end)) for jid in kill.stranded - buried}
        if moments:
            found.append(judge(kill, moments, spans))
    return found


def trust(facts: Iterable[Fact], kills: Iterable[Kill], end: float) -> list[Span]:
    """When a reaper was free to act: from one lease after its worker's trouble ended, until the next or its death."""
    died = {kill.pid: kill.at for kill in kills}
    since: dict[int, float] = {}
    spans = []
    for fact in facts:
        if fact.what in ("trust", "doubt"):
            if fact.pid in since:
                spans.append(Span(since.pop(fact.pid) + LEASE, fact.at))
            if fact.what == "trust":
                since[fact.pid] = fact.at
    spans += [Span(start + LEASE, died.get(pid, end)) for pid, start in since.items()]
    return sorted((span for span in spans if span.end > span.start), key=lambda span: span.start)


def judge(kill: Kill, moments: Mapping[str, float], spans: Sequence[Span]) -> Recovery:
    """One kill's recovery, given when each of its jobs was recovered."""
    able = [Span(max(span.start, kill.at + LEASE), span.end) for span in spans if span.end > kill.at + LEASE]
    last = max(moments.values())
    lasting = [span.start for span in able if span.end >= last >= span.start]
    kept = [span.start for span in able if span.end - span.start >= REAP_INTERVAL + SLACK]
    deadline = min(kept, default=float("inf")) + REAP_INTERVAL + SLACK
    return Recovery(
        raw=last - kill.at,
        from_trust=LEASE + last - min(lasting) if lasting else None,
        late=tuple(jid for jid, moment in moments.items() if moment > deadline),
    )


def first_after(times: Sequence[float], moment: float) -> float:
    """The first of these ascending times after `moment`; endless if there is none."""
    i = bisect_right(times, moment)
    return times[i] if i < len(times) else float("inf")


def spread(values: Sequence[float]) -> str:
    """Median and maximum."""
    return f"median {median(values):.2f} s, max {max(values):.2f} s" if values else "none"

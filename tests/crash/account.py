"""The account of a chaos run: what was accepted, what ran, what is missing, and how long each rescue took.

Recovery. A kill strands the jobs in the victim's trays. Each is *recovered* by its next start, or by the next kill that
strands it again, whose clock runs from there. Two figures are drawn from that:

- *raw*: from the kill to the last recovery;
- *served*: the longest stretch of that with the server alive. This one has the bound, lease + reap interval + 2 s: from
  the kill, and anew from each return of a server that was killed meanwhile, since then nobody's lease stands any more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
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
class Recovery:
    """How long one kill's jobs took to start again, in seconds: in all, and at most with the server alive."""

    raw: float
    served: float


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
        alive = [recovery.raw for recovery in self.recoveries if recovery.raw == recovery.served]
        others = [recovery for recovery in self.recoveries if recovery.raw != recovery.served]
        return (
            f"recovery of {len(self.recoveries)} kills that stranded jobs, bound {BOUND:.2f} s: {len(alive)} with the "
            f"server alive: {spread(alive)}; {len(others)} with it dead meanwhile: "
            f"{spread([each.served for each in others])} (with its dead time {spread([each.raw for each in others])})"
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
    outages = outages_of(facts)
    found = []
    for i, kill in enumerate(kills):
        again = {jid: later.at for later in reversed(kills[i + 1 :]) for jid in later.stranded}
        moments = [min(first_after(starts[jid], kill.at), again.get(jid, end)) for jid in kill.stranded - buried]
        if moments:
            last = max(moments)
            found.append(Recovery(last - kill.at, longest_served(kill.at, last, outages)))
    return found


def longest_served(start: float, end: float, outages: Iterable[tuple[float, float]]) -> float:
    """The longest stretch between two moments in which the server was alive."""
    longest = 0.0
    for down, up in outages:
        if down < end and up > start:
            longest = max(longest, down - start)
            start = up
    return max(longest, end - start)


def outages_of(facts: Iterable[Fact]) -> list[tuple[float, float]]:
    """From when to when the server was dead."""
    downs, ups = ([fact.at for fact in facts if fact.what == what] for what in ("down", "up"))
    return list(zip(downs, ups, strict=True))


def first_after(times: Sequence[float], moment: float) -> float:
    """The first of these ascending times after `moment`; endless if there is none."""
    i = bisect_right(times, moment)
    return times[i] if i < len(times) else float("inf")


def spread(values: Sequence[float]) -> str:
    """Median and maximum."""
    return f"median {median(values):.2f} s, max {max(values):.2f} s" if values else "none"

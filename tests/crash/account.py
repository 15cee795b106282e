"""The account of a chaos run: what was accepted, what ran, what is missing, and how long each rescue took.

Recovery. A kill at time t strands the jobs in the victim's slots. Each of them is *recovered* by its next start, or by the
next kill that strands it again, whose clock then runs. Two figures are drawn from that:

- *raw*: from the kill to the last recovery;
- *from trust*: the reaper is bound to wait until the lease is over, and, by the outage amnesty, until it has itself been
  healthy for a whole lease. So this clock starts at the later of the kill and one lease before a reaper had earned
  trust. The bound, lease + reap interval + 2 s, holds for this figure, with respect to the first reaper that kept its
  trust for the whole of that time: a reaper that is killed or cut off meanwhile owes nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from tests.crash.bed import LEASE, Bed
from tests.crash.chaos import Kill
from tests.crash.ledger import Fact

REAP_INTERVAL = LEASE / 4 * 1.2
SLACK = 2.0
BOUND = LEASE + REAP_INTERVAL + SLACK


@dataclass(frozen=True)
class Recovery:
    """How long one kill's jobs took to start again, in seconds. `late` names what exceeded the bound."""

    raw: float
    from_trust: float
    late: tuple[str, ...]


def recoveries(bed: Bed, kills: Sequence[Kill], buried: Iterable[str], end: float) -> list[Recovery]:
    """The recovery of each kill that stranded anything; the pills that were buried are left out."""
    starts = times_by_jid(bed.ledger.facts("start"))
    trusted = trust(bed.ledger.facts(), kills, end)
    left_out = set(buried)
    found = []
    for i, kill in enumerate(kills):
        again = {jid: min([k.at for k in kills[i + 1 :] if jid in k.stranded], default=None) for jid in kill.stranded}
        ends = {
            jid: first_after(starts[jid], kill.at, again[jid]) for jid in kill.stranded - left_out if jid
        }
        if ends:
            found.append(judge(kill, ends, trusted))
    return found


def times_by_jid(facts: Iterable[Fact]) -> dict[str, list[float]]:
    """When each jid had these facts, in order."""
    times: dict[str, list[float]] = defaultdict(list)
    for fact in facts:
        times[fact.jid].append(fact.at)
    return {jid: sorted(each) for jid, each in times.items()} | defaultdict(list)


def first_after(times: Sequence[float], moment: float, other: float | None) -> float | None:
    """The first of these times after `moment`, or `other` if that comes first."""
    i = bisect_right(times, moment)
    candidates = [*times[i : i + 1], *([other] if other is not None else [])]
    return min(candidates, default=None)

"""What is wrong, since when, and what to press: one sentence about a snapshot, by plain rules (`rules.py`).

Pure: `judge` looks at a `Snapshot` and at the verdict before, and at nothing else. The worst finding is told; when all
is well the sentence says just that. What a rule finds is told once it has lasted two minutes, and for five more after
it was last seen the verdict says that it is over, so nothing flickers. Who judges keeps the last verdict:

    verdict = judge(Overview().read(), verdict)

Without one, as on a command line, what holds now is told at once. A verdict that is lost costs two minutes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from pillion.api.overview import Snapshot
from pillion.api.rules import RULES, TARGET, Action, Finding, Level, findings

__all__ = ["FINE", "TARGET", "Action", "Level", "Verdict", "judge"]

FINE = "All queues are on target."
TELL_AFTER = 120.0
KEEP_FOR = 300.0

_ORDER = {rule.__name__: place for place, rule in enumerate(RULES)}


class Held(msgspec.Struct, frozen=True):
    """A finding over time: first and last seen (epoch seconds), and whether it has been told."""

    finding: Finding
    first: float
    last: float
    told: bool


class Verdict(msgspec.Struct, frozen=True):
    """The judgement.

    Attributes:
        level: `ok`, `notice` (look when you can), `alarm` (look now).
        sentence: cause and effect in plain words.
        since: when it began, epoch seconds; None when all is well.
        action: what to press, if there is anything.
        link: the page that shows it, relative to the dashboard: `queues/mailers`; "" when all is well.
        rule: which rule spoke; "" when all is well, `over` where it is over.
        values: the figures of the sentence.
        seen: what is held against whom, told or not yet; for the next `judge`.
    """

    level: Level
    sentence: str
    since: float | None = None
    action: Action | None = None
    link: str = ""
    rule: str = ""
    values: Mapping[str, Any] = {}
    seen: Mapping[str, Held] = {}


def judge(snapshot: Snapshot, previous: Verdict | None = None, targets: Mapping[str, float] | None = None) -> Verdict:
    """The verdict about a snapshot.

    Args:
        previous: the one before; None tells at once what holds now.
        targets: how many seconds a job may wait, by queue; 60 for the others.
    """
    seen = _held(snapshot, previous, targets or {})
    told = sorted((held for held in seen.values() if held.told), key=lambda held: _badness(held, snapshot.at))
    if not told:
        return Verdict("ok", FINE, seen=seen)
    worst = told[0]
    finding = worst.finding
    if worst.last < snapshot.at:
        end = datetime.fromtimestamp(worst.last, UTC)
        sentence = f"{finding.past[0].upper()}{finding.past[1:]} until {end:%H:%M} UTC; that is over."
        values = {"past": finding.rule, "until": worst.last, **finding.values}
        return Verdict("notice", sentence, worst.first, None, finding.link, "over", values, seen)
    return Verdict(
        *(finding.level, finding.sentence, worst.first, finding.action),
        *(finding.link, finding.rule, finding.values, seen),
    )


def _held(snapshot: Snapshot, previous: Verdict | None, targets: Mapping[str, float]) -> dict[str, Held]:
    now, before = snapshot.at, previous.seen if previous is not None else {}
    found: dict[str, Held] = {}
    for finding in findings(snapshot, targets):
        name = f"{finding.rule}:{finding.subject}"
        old = before.get(name)
        first = min(now if old is None else old.first, now if finding.since is None else finding.since)
        told = previous is None or now - first >= TELL_AFTER or (old is not None and old.told)
        found[name] = Held(finding, first, now, told)
    over = {name: old for name, old in before.items() if old.told and now - old.last < KEEP_FOR}
    return over | found


def _badness(held: Held, now: float) -> tuple[bool, bool, int, float]:
    """What sorts the worst first: what holds, alarms, the order of the rules, the heaviest."""
    finding = held.finding
    return held.last < now, finding.level != "alarm", _ORDER[finding.rule], -finding.weight

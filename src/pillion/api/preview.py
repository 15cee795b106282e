"""What an operation would do, before it is started: how many jobs, five of them, how old, of which queues, and whether
it can be undone. It reads only, at most a budget of jobs, and says whether it has counted all."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import msgspec

from pillion.api import parked
from pillion.api.aim import Aim
from pillion.api.faces import Face, Plan
from pillion.api.operation import UNDOABLE, Verb
from pillion.api.places import LOOK_AT, Place, Standing, places_of
from pillion.api.query import Query
from pillion.api.search import Hit, spoken
from pillion.api.selection import Selection
from pillion.api.sets import SortedEntry
from pillion.store.operations import MOST_REFS

SAMPLES = 5
SAMPLED = 200


class Preview(msgspec.Struct, frozen=True):
    """What an operation would do, by now.

    Attributes:
        verb: which.
        filter: the canonical text of the query, or how many are marked.
        count: how many jobs.
        exact: whether all were counted; else there are at least `count`, and `searched` of `total` were looked at.
        samples: five of them.
        oldest, newest: the earliest and the latest of the times of those that were looked at (pushed; due; died).
        queues: how many by queue, of those that were looked at, the largest first.
        undoable: whether it can be undone for ten minutes.
        reason: why not, one sentence; "" where it can.
    """

    verb: Verb
    filter: str
    count: int
    exact: bool
    samples: list[Hit]
    oldest: datetime | None
    newest: datetime | None
    queues: dict[str, int]
    undoable: bool
    reason: str
    searched: int
    total: int


class Previewing(Face):
    """Makes a preview."""

    def plan_of(self, aim: Aim, budget: int) -> Plan[Preview]:
        """Look at the jobs that are meant."""
        seen = _Seen()
        if aim.marked is not None:
            return (yield from self._of_marked(aim, seen))
        query = aim.query or Query()
        places = yield from places_of(query, self.client, aim.states)
        places = [(place, size) for place, size in places if aim.verb != "move" or place.queue != aim.to]
        total, searched = sum(size for _, size in places), 0
        whole = query.is_whole and not (aim.to and aim.states != ("queued",))
        for place, _ in places:
            most = min(budget - searched, SAMPLED) if whole else budget - searched
            searched += yield from self._through(place, query, most, aim.to, seen)
        count = total if whole else seen.count
        exact = whole or searched >= total
        return (yield from self._made(aim, seen, count, exact, searched, total))

    def _through(self, place: Place, query: Query, budget: int, to: str, seen: _Seen) -> Plan[int]:
        """Look at the jobs of a place up to a budget; returns how many those were."""
        now, cursor = self.config.clock.now(), None
        looked = 0
        while looked < budget:
            part = yield from place.plan_part(cursor, needle=query.needle, look_at=min(LOOK_AT, budget - looked))
            looked += part.looked
            for job in part.jobs:
                if query.matches(place.state, job, now) and job.queue != to:
                    seen.add(place.state, job)
            cursor = part.next
            if cursor is None:
                break
        return looked

    def _of_marked(self, aim: Aim, seen: _Seen) -> Plan[Preview]:
        marked = aim.marked or Selection(())
        for name in marked.places:
            place, refs = Place.named(name, self.client), marked.in_place(name)
            for start in range(0, len(refs), MOST_REFS):
                jobs = yield from place.plan_marked(refs[start : start + MOST_REFS])
                for job in jobs:
                    seen.add(place.state, job)
        return (yield from self._made(aim, seen, seen.count, True, len(marked.refs), len(marked.refs)))

    def _made(self, aim: Aim, seen: _Seen, count: int, exact: bool, searched: int, total: int) -> Plan[Preview]:
        reason = yield from self._reason(aim.verb, count * seen.bytes / max(1, seen.count))
        return Preview(
            verb=aim.verb,
            filter=aim.filter,
            count=count,
            exact=exact,
            samples=seen.samples,
            oldest=_moment(seen.oldest),
            newest=_moment(seen.newest),
            queues=dict(seen.queues.most_common()),
            undoable=not reason,
            reason=reason,
            searched=searched,
            total=total,
        )

    def _reason(self, verb: Verb, size: float) -> Plan[str]:
        """Why it cannot be undone."""
        if verb not in UNDOABLE:
            return f"A {verb} cannot be undone."
        room = yield from parked.plan_room(self)
        if size <= room:
            return ""
        return f"These jobs weigh about {spoken(int(size))} bytes, and at most {spoken(room)} are kept for an undo now."


class _Seen:
    """What the jobs that are meant have in common."""

    def __init__(self) -> None:
        self.count = self.bytes = 0
        self.samples: list[Hit] = []
        self.oldest = self.newest = 0.0
        self.queues: Counter[str] = Counter()

    def add(self, state: str, job: Standing) -> None:
        self.count += 1
        self.bytes += len(job.value)
        self.queues[job.queue or ""] += 1
        if len(self.samples) < SAMPLES:
            self.samples.append(Hit(state, job))
        when = _when(job)
        if when:
            self.oldest = min(self.oldest or when, when)
            self.newest = max(self.newest, when)


def _when(job: Standing) -> float:
    """When a queued job was pushed, or the score of an entry; 0.0 where that is not known."""
    if isinstance(job, SortedEntry):
        return job.score
    made = job.enqueued_at or job.created_at
    return made.timestamp() if made else 0.0


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < 253_402_300_800 else None

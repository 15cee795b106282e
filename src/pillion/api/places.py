"""The places where jobs stand, as one kind of thing: how many are in it, a part of a walk through it, and its cursor.

What `search.py` and `operations.py` walk through. A `Cursor` is where a walk stands; it is short, whatever the jobs
weigh, because it keeps a digest of the last one's bytes instead of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from pillion.api.entry import OneSet
from pillion.api.faces import Face, Plan, ask, names
from pillion.api.queue import Queue, QueuedJob
from pillion.api.record import JobRecord, plain_text
from pillion.api.selection import Ref
from pillion.api.sets import DeadSet, RetrySet, ScheduledSet, SortedEntry
from pillion.api.terms import Query
from pillion.client import Client
from pillion.store import operations, reads
from pillion.store.reads import Place as At
from pillion.store.reads import Spot

SETS: dict[str, type[DeadSet | RetrySet | ScheduledSet]] = {
    "retry": RetrySet,
    "scheduled": ScheduledSet,
    "dead": DeadSet,
}
LOOK_AT = 2_000
MOST = 500

Standing: TypeAlias = QueuedJob | SortedEntry


class Cursor(msgspec.Struct, frozen=True):
    """Where a walk through one place stands: after the job at `n` (place in a queue, rank in a set)."""

    n: int
    score: float = 0.0
    digest: str = ""


class Part(msgspec.Struct, frozen=True):
    """A part of a walk.

    Attributes:
        jobs: those whose bytes hold the text that was looked for.
        after: the last one that was looked at, where to go on; None at the end.
        looked: how many were looked at.
        ranks, last: where each of them stands, and the last one that was looked at.
    """

    jobs: list[Standing]
    after: At | Spot | None
    looked: int
    ranks: list[int]
    last: int

    @property
    def next(self) -> Cursor | None:
        """Where to go on, in short."""
        if self.after is None:
            return None
        score = self.after.score if isinstance(self.after, Spot) else 0.0
        return Cursor(self.last, score, reads.digest(self.after.raw))

    def cursor(self, i: int) -> Cursor:
        """To go on right after the `i`th of them."""
        job = self.jobs[i]
        score = 0.0 if isinstance(job, QueuedJob) else job.score
        return Cursor(self.ranks[i], score, reads.digest(job.value))

    def looked_to(self, i: int) -> int:
        """How many were looked at up to the `i`th of them."""
        return self.looked - abs(self.last - self.ranks[i])


class Place(Face):
    """A queue, or one of the three sets."""

    def __init__(self, state: str, queue: str = "", client: Client | None = None) -> None:
        super().__init__(client)
        self.state = state
        self.queue = queue

    @property
    def name(self) -> str:
        """`dead`, or `queued:mailers`."""
        return f"{self.state}:{self.queue}" if self.state == "queued" else self.state

    @classmethod
    def named(cls, name: str, client: Client | None = None) -> Place:
        """The place of this name."""
        state, _, queue = name.partition(":")
        return cls(state, queue, client)

    @property
    def key(self) -> str:
        return self.keys.queue(self.queue) if self.state == "queued" else self.set.key

    @property
    def set(self) -> OneSet:
        """It as a set."""
        return SETS[self.state](self.client)

    def plan_part(
        self,
        after: Cursor | At | Spot | None,
        *,
        most: int = MOST,
        needle: bytes = b"",
        up: bool = False,
        look_at: int = LOOK_AT,
    ) -> Plan[Part]:
        """The next jobs whose bytes hold `needle` (A to Z made small), at most 1 MB. O(looked at), one exchange or two.

        A queue is walked from its newest job to its oldest; a set from the highest score down or, with `up`, the other
        way. After a `Cursor`, whose entry is gone, entries of one score may be missed; after a `Spot` none are.
        """
        jobs: list[Standing]
        if self.state == "queued":
            at = yield from self._place_of(after)
            places = yield from ask(
                reads.sift_queue(self.key, at, most=most, containing=needle, folded=True, look_at=look_at)
            )
            jobs = [QueuedJob(Queue(self.queue, self.client), place) for place in places.found]
            return Part(jobs, places.after, places.looked, places.ranks, places.rank)
        start = yield from self._spot_of(after, up)
        spots = yield from ask(
            reads.sift_set(self.key, start, most=most, up=up, containing=needle, folded=True, look_at=look_at)
        )
        jobs = [SortedEntry(SETS[self.state](self.client), spot) for spot in spots.found]
        return Part(jobs, spots.after, spots.looked, spots.ranks, spots.rank)

    def plan_marked(self, refs: Sequence[Ref]) -> Plan[list[Standing]]:
        """The marked jobs that still stand here, or at most 500 places from there; each once. O(refs), one exchange."""
        picked = yield from ask(operations.pick(self.key, [(ref.at, plain_text(ref.jid)) for ref in refs]))
        jobs: dict[tuple[float, bytes], Standing] = {}
        for ref, some in zip(refs, picked, strict=True):
            for at, raw in some:
                if (at, raw) not in jobs and JobRecord(raw).jid == ref.jid:
                    jobs[at, raw] = self._standing(at, raw)
                    break
        return list(jobs.values())

    def _standing(self, at: float, raw: bytes) -> Standing:
        if self.state == "queued":
            return QueuedJob(Queue(self.queue, self.client), At(int(at), raw))
        return SortedEntry(SETS[self.state](self.client), Spot(at, raw))

    def _place_of(self, after: Cursor | At | Spot | None) -> Plan[At | None]:
        if isinstance(after, Cursor):
            return (yield from ask(reads.locate_place(self.key, after.n, after.digest)))
        return after if isinstance(after, At) else None

    def _spot_of(self, after: Cursor | At | Spot | None, up: bool) -> Plan[Spot | None]:
        if isinstance(after, Cursor):
            return (yield from ask(reads.locate_spot(self.key, after.n, after.score, after.digest, up=up)))
        return after if isinstance(after, Spot) else None


def places_of(query: Query, client: Client, states: tuple[str, ...]) -> Plan[list[tuple[Place, int]]]:
    """Where the jobs of a query can stand, of some states, each with how many are there. O(queues), two exchanges.

    A queue that has no jobs is left out.
    """
    face = Face(client)
    found: list[Place] = []
    for state in states:
        if state == "queued":
            listed = yield from names(face.keys.queues)
            found += [Place("queued", name, client) for name in listed if query.has_queue(name)]
        elif state in SETS:
            found.append(Place(state, "", client))
    sizes = yield from ask(reads.ask([("LLEN" if each.queue else "ZCARD", each.key) for each in found]))
    counted = [(place, int(size or 0)) for place, size in zip(found, sizes, strict=True)]
    return [(place, size) for place, size in counted if size or place.state in SETS]

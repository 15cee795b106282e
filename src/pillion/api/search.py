"""Searching all states for the jobs that a query means, page by page, and saying how much was looked at.

Redis has no index of jobs, so a search is a walk: only through the places that the `state:` and `queue:` terms allow,
newest first (of the schedule: what is due next first), and the server passes over what cannot match where a term gives
it a text to look for. Each page looks at a bounded number of jobs and may be empty without being the last. It reads
only. A job that moves from one place to another meanwhile may be found twice, or missed."""

from __future__ import annotations

import base64
import binascii

import msgspec

from pillion.api.faces import Face, Plan, faces
from pillion.api.places import LOOK_AT, Cursor, Place, Standing, places_of
from pillion.api.query import STATES, Query, Term, parse
from pillion.api.queue import QueuedJob
from pillion.api.record import JobRecord
from pillion.api.selection import Ref
from pillion.api.work import Work, WorkSet
from pillion.client import Client
from pillion.errors import UsageError

MOST = 500
UP = {"scheduled"}


class Hit(msgspec.Struct, frozen=True):
    """A job that a search has found.

    Attributes:
        state: where: `running`, `queued`, `retry`, `scheduled` or `dead`.
        record: a `Work`, a `QueuedJob` or a `SortedEntry`, with its verbs.
    """

    state: str
    record: Standing | Work

    @property
    def job(self) -> JobRecord:
        """The job itself, also of one that runs."""
        return self.record.job if isinstance(self.record, Work) else self.record

    @property
    def ref(self) -> Ref | None:
        """To mark it with; None of one that runs, which nobody can move."""
        if isinstance(self.record, Work):
            return None
        if isinstance(self.record, QueuedJob):
            return Ref(self.state, self.record.queue or "", float(self.record.position), self.record.jid)
        return Ref(self.state, "", self.record.score, self.record.jid)


class Found(msgspec.Struct, frozen=True):
    """One page of a search.

    Attributes:
        hits: what was found; may be none although there is more.
        searched: how many jobs were looked at, all pages up to this one together.
        total: how many there are to look at.
        next: where to go on, for the `after` of the next page: a short text that fits into an address; None at the end.
    """

    hits: list[Hit]
    searched: int
    total: int
    next: str | None

    @property
    def complete(self) -> bool:
        """Whether everything was looked at."""
        return self.next is None

    def sentence(self) -> str:
        """How much was looked at, for people: "searched the newest 100,000 of 2.1 M"."""
        if self.complete:
            return f"searched all {spoken(self.searched)}"
        return f"searched the newest {spoken(self.searched)} of {spoken(max(self.total, self.searched))}"


def spoken(count: int) -> str:
    """A number for people: 99,999 in full, then `2.1 M`."""
    return f"{count:,}" if count < 1_000_000 else f"{count / 1_000_000:.1f} M"


class _Token(msgspec.Struct, frozen=True, array_like=True):
    """What the `next` of a page holds: the place, where in it, how many ran and how many were looked at so far."""

    place: str
    running: int
    searched: int
    n: int = -1
    score: float = 0.0
    digest: str = ""

    @classmethod
    def read(cls, text: str) -> _Token:
        """Raises UsageError for what is none."""
        try:
            raw = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
            found = msgspec.msgpack.decode(raw, type=cls)
            _rank(found.place)
        except (ValueError, binascii.Error, msgspec.MsgspecError):
            raise UsageError(f"expected the `next` of a page of this search, got {text!r:.40}; begin anew") from None
        return found

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).rstrip(b"=").decode()

    @property
    def cursor(self) -> Cursor | None:
        return None if self.n < 0 else Cursor(self.n, self.score, self.digest)


def _rank(name: str) -> tuple[int, str]:
    """Where a place comes in the order of a search."""
    state, _, queue = name.partition(":")
    return STATES.index(state), queue


class Search(Face):
    """The jobs that a query, or its text, means."""

    def __init__(self, query: Query | str, client: Client | None = None) -> None:
        """Raises QuerySyntax."""
        super().__init__(client)
        self.query = parse(query) if isinstance(query, str) else query

    def __repr__(self) -> str:
        return f"Search({str(self.query)!r})"

    def plan_page(self, after: str | None = None, most: int = 50, budget: int = 10_000) -> Plan[Found]:
        """The next hits after `after`, the `next` of the page before. O(budget): it looks at about so many jobs.

        The first page also looks at all that runs. `most` is 500 at most. Raises UsageError where `after` is no cursor.
        """
        token = None if after is None else _Token.read(after)
        now = self.config.clock.now()
        counted = yield from places_of(self.query, self.client, self.query.states)
        hits, running = yield from self._running(now, token)
        walk = _Walk(self.query, now, max(1, min(most, MOST)), budget, hits, token.searched if token else running)
        rest = yield from walk.go([place for place, _ in counted], token)
        total = running + sum(size for _, size in counted)
        after = None if rest is None else str(msgspec.structs.replace(rest, running=running))
        return Found(hits, walk.searched, max(total, walk.searched), after)

    page, apage = faces(plan_page)

    def plan_job(self, jid: str) -> Plan[Hit | None]:
        """The job with this jid that the query means, wherever it is, or None. O(all jobs), 2,000 per exchange."""
        wanted = Search(Query((*self.query.terms, Term("jid", (jid,)))), self.client)
        after: str | None = None
        while True:
            found = yield from wanted.plan_page(after, 1)
            if found.hits:
                return found.hits[0]
            after = found.next
            if after is None:
                return None

    job, ajob = faces(plan_job)

    def _running(self, now: float, token: _Token | None) -> Plan[tuple[list[Hit], int]]:
        """What runs, on the first page, and how many that is."""
        if token is not None or "running" not in self.query.states:
            return [], token.running if token else 0
        works = yield from WorkSet(self.client).plan_all()
        return [Hit("running", work) for work in works if self.query.matches("running", work, now)], len(works)


class _Walk:
    """The walk of one page: through the places in their order, until there are enough hits or the budget is used up."""

    def __init__(self, query: Query, now: float, most: int, budget: int, hits: list[Hit], searched: int) -> None:
        self._query = query
        self._now = now
        self._most = most
        self._left = budget
        self._hits = hits
        self._needle = query.needle
        self.searched = searched

    def go(self, places: list[Place], token: _Token | None) -> Plan[_Token | None]:
        """Add to the hits; returns where to go on."""
        for place in places:
            cursor = None
            if token is not None:
                if _rank(place.name) < _rank(token.place):
                    continue
                cursor = token.cursor if place.name == token.place else None
            rest = yield from self._through(place, cursor)
            if rest is not None:
                return rest
        return None

    def _through(self, place: Place, cursor: Cursor | None) -> Plan[_Token | None]:
        while True:
            if self._left <= 0 or len(self._hits) >= self._most:
                return self._token(place, cursor)
            part = yield from place.plan_part(
                cursor, needle=self._needle, up=place.state in UP, look_at=min(LOOK_AT, self._left)
            )
            for i, job in enumerate(part.jobs):
                if self._query.matches(place.state, job, self._now):
                    self._hits.append(Hit(place.state, job))
                    if len(self._hits) >= self._most and (part.next or i + 1 < len(part.jobs)):
                        self.searched += part.looked_to(i)
                        return self._token(place, part.cursor(i))
            self.searched += part.looked
            self._left -= part.looked
            cursor = part.next
            if cursor is None:
                return None

    def _token(self, place: Place, cursor: Cursor | None) -> _Token:
        if cursor is None:
            return _Token(place.name, 0, self.searched)
        return _Token(place.name, 0, self.searched, cursor.n, cursor.score, cursor.digest)

"""An entry of a sorted set, and the set that it stands in: what `moving.py` and `bulk.py` know of `sets.py`."""

from __future__ import annotations

from datetime import UTC, datetime

from pillion.api.faces import Face
from pillion.api.record import JobRecord
from pillion.client import Client
from pillion.store.reads import Spot


class OneSet(Face):
    """One of `schedule`, `retry` and `dead`."""

    name = ""

    @property
    def key(self) -> str:
        """The key of the set."""
        key: str = getattr(self.keys, self.name)
        return key


class Entry(JobRecord):
    """A job in a set, and its score."""

    def __init__(self, owner: OneSet, spot: Spot) -> None:
        super().__init__(spot.raw, clock=owner.config.clock)
        self._owner = owner
        self._score = spot.score

    @property
    def client(self) -> Client:
        return self._owner.client

    @property
    def score(self) -> float:
        """The time it stands at, epoch seconds."""
        return self._score

    @property
    def spot(self) -> Spot:
        """Where it stands, for `page(after=...)`."""
        return Spot(self._score, self.value)

    @property
    def at(self) -> datetime:
        """The time it stands at (UTC): due, or died."""
        return datetime.fromtimestamp(self._score, UTC)

    @property
    def id(self) -> str:
        """`score|jid`, which `fetch(score, jid)` finds again as long as it stands there."""
        return f"{self._score!r}|{self.jid}"

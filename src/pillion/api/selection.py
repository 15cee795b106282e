"""Jobs that a person has marked on a page, as values that fit into a form: `Ref` names one, `Selection` many.

A `Ref` says where a job stood when the page was made; `operations.py` looks for it there and a little around, and acts
only on the very job. Nothing here talks to Redis."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from pillion.errors import UsageError

MOST = 1_000
PLACES = ("queued", "scheduled", "retry", "dead")
MAX_REF = 1_000


class Ref(msgspec.Struct, frozen=True):
    """Where one job stands; `str(ref)` is text for a form or an address, and `Ref.parse` reads it.

    Attributes:
        state: `queued`, `scheduled`, `retry` or `dead`.
        queue: of a queued job, else "".
        at: its score in a set, or its place in the queue counted from the oldest job.
        jid: its id.
    """

    state: str
    queue: str
    at: float
    jid: str

    def __str__(self) -> str:
        return "|".join((self.state, self.queue, repr(self.at), self.jid))

    @property
    def place(self) -> str:
        """The name of the place where it stands: `dead`, `queued:mailers`."""
        return f"{self.state}:{self.queue}" if self.queue else self.state

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Raises UsageError for what is no reference."""
        try:
            state, queue, at, jid = text.split("|", 3)
            found = cls(state, queue, float(at), jid)
        except ValueError:
            raise _no_ref(text) from None
        good = state in PLACES and (state == "queued") == bool(queue) and math.isfinite(found.at)
        if not good or len(text) > MAX_REF or (state == "queued" and found.at < 1):
            raise _no_ref(text)
        return found


def _no_ref(text: str) -> UsageError:
    return UsageError(f"expected a job as `state|queue|at|jid`, got {text!r:.60}; take it from `Hit.ref`")


class Selection(msgspec.Struct, frozen=True):
    """At most 1,000 marked jobs; `str(selection)` says how many, for people."""

    refs: tuple[Ref, ...]

    def __str__(self) -> str:
        return "1 marked job" if len(self.refs) == 1 else f"{len(self.refs):,} marked jobs"

    @property
    def places(self) -> list[str]:
        """The names of the places where they stand, each once."""
        return list(dict.fromkeys(ref.place for ref in self.refs))

    def in_place(self, name: str) -> list[Ref]:
        """Those of one place, in the order in which it is walked: newest first in a queue, up by score in a set."""
        these = [ref for ref in self.refs if ref.place == name]
        return sorted(these, key=lambda ref: -ref.at if ref.queue else ref.at)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Selection:
        """Of texts as `str(ref)` gives them. Raises UsageError for what is no reference, or for too many or none."""
        refs = tuple(dict.fromkeys(map(Ref.parse, texts)))
        if not 0 < len(refs) <= MOST:
            raise UsageError(f"expected 1 to {MOST:,} marked jobs, got {len(refs):,}; use a query for more")
        return cls(refs)

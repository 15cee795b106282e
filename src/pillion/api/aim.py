"""What an operation is aimed at: the verb, the jobs that are meant, and what else the verb needs; checked once.

`preview.py` and `operations.py` ask here, so that what was previewed is what is started. Nothing here talks to
Redis."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

import msgspec

from pillion.api.operation import VERBS, Verb
from pillion.api.query import Query, parse
from pillion.api.selection import Selection
from pillion.due import check_moment
from pillion.errors import UsageError
from pillion.payload import check_queue

Target: TypeAlias = Query | Selection | str
"""A query, its text, or what a person has marked."""


class Aim(msgspec.Struct, frozen=True):
    """A verb and the jobs that it is for.

    Attributes:
        query: the jobs meant; None where they are marked one by one.
        marked: the marked ones; None where there is a query.
        states: where the jobs can be.
        to: of `move`, the queue.
        at: of `reschedule`, the time in epoch seconds.
    """

    verb: Verb
    query: Query | None
    marked: Selection | None
    states: tuple[str, ...]
    to: str = ""
    at: float = 0.0

    @property
    def filter(self) -> str:
        """Which jobs, for people."""
        return str(self.query if self.query is not None else self.marked)


def aimed(verb: Verb, target: Target, to: str | None, at: float | datetime | None) -> Aim:
    """Check all of it. Raises UsageError for what does not fit together, QuerySyntax and PayloadError."""
    if verb not in VERBS:
        raise UsageError(f"expected a verb, one of {', '.join(VERBS)}, got {verb!r:.40}")
    if (to is not None) != (verb == "move") or (at is not None) != (verb == "reschedule"):
        raise UsageError(f"expected `to=` with move, `at=` with reschedule and neither else, got {verb} with others")
    if to is not None:
        check_queue(to)
    moment = 0.0 if at is None else check_moment("a job", at)
    query, marked = (None, target) if isinstance(target, Selection) else (_query(target), None)
    states = query.states if query is not None else tuple({ref.state for ref in marked.refs} if marked else ())
    fitting = tuple(state for state in states if state in VERBS[verb])
    if not fitting or (marked is not None and len(fitting) < len(states)):
        got = ", ".join(states) or "no state"
        raise UsageError(f"expected jobs that are {' or '.join(VERBS[verb])} for {verb}, got {got}")
    if verb == "clear" and (query is None or not query.is_whole):
        raise UsageError(
            f"expected whole places to clear, got {query or marked}; write only state: and queue:, or delete"
        )
    return Aim(verb, query, marked, fitting, to or "", moment)


def _query(target: Query | str) -> Query:
    query = parse(target) if isinstance(target, str) else target
    if not query.terms:
        raise UsageError("expected at least one term, got an empty query; write `state:dead` to mean all that are dead")
    return query

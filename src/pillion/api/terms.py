"""What a search looks for, as values: a `Query` is a row of `Term`s, all of which must hold.

`query.py` reads them from a text, `matching.py` says what each means, `search.py` walks with them and `operations.py`
acts. Nothing here talks to Redis or raises for what a stored job holds."""

from __future__ import annotations

import re

import msgspec

from pillion.api import matching
from pillion.api.record import JobRecord
from pillion.api.work import Work
from pillion.clock import SystemClock

STATES = ("running", "queued", "retry", "scheduled", "dead")
"""Where a job can be, in the order in which a search looks there."""

WAITING = ("running", "queued")
_BARE = re.compile(r'[^\s",:*-][^\s",:]*')


class Term(msgspec.Struct, frozen=True):
    """One condition.

    Attributes:
        field: `state`, `queue`, `class`, `jid`, `error`, `args`, `tag`, `cause`, `wait`, `age`, `since`, or `text`.
        values: of which one must be met.
        path: of `args.path.to:value`, the steps; empty for all arguments.
        negated: none may be met.
    """

    field: str
    values: tuple[str, ...]
    path: tuple[str, ...] = ()
    negated: bool = False

    def __str__(self) -> str:
        """The term as `parse` reads it."""
        minus = "-" * self.negated
        if self.field == "text":
            return minus + quoted(self.values[0])
        name = ".".join((self.field, *(quoted(step, ".:") for step in self.path)))
        return f"{minus}{name}:{','.join(quoted(value) for value in self.values)}"


def quoted(word: str, beside: str = "") -> str:
    """A word as it stands in a query, in quotes where it would else be read as something else."""
    plain = _BARE.fullmatch(word.replace("*", "x")) if not beside else None
    if plain or (beside and word and not re.search(rf'[\s",{beside}]', word)):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class Query(msgspec.Struct, frozen=True):
    """Which jobs are meant: those that meet every term; without terms all. `str(query)` gives its canonical text."""

    terms: tuple[Term, ...] = ()

    def __str__(self) -> str:
        return " ".join(map(str, self.terms))

    @property
    def states(self) -> tuple[str, ...]:
        """Where its jobs can be, of `STATES`."""
        allowed = list(STATES)
        for term in self.terms:
            if term.field == "state":
                allowed = [state for state in allowed if (state in term.values) != term.negated]
            elif term.field == "wait" and not term.negated:
                allowed = [state for state in allowed if state in WAITING]
        return tuple(allowed)

    @property
    def is_whole(self) -> bool:
        """Whether it means whole places: only `state` terms, and `queue` terms with `state:queued`."""
        fields = {term.field for term in self.terms}
        return fields <= {"state"} or (fields == {"state", "queue"} and self.states == ("queued",))

    @property
    def reads_arguments(self) -> bool:
        """Whether its answer tells something of arguments: not for those who may not see them."""
        return any(term.field in ("args", "text") for term in self.terms)

    @property
    def needle(self) -> bytes:
        """A text that the bytes of every job it means hold, capitals made small; b"" where there is none."""
        needles = [matching.needle(term.field, term.path, term.values[0]) for term in self.terms if is_one(term)]
        return max(needles, key=len, default=b"")

    def has_queue(self, name: str) -> bool:
        """Whether its jobs can be in, or meant for, this queue."""
        terms = [term for term in self.terms if term.field == "queue"]
        return all(any(matching.like(value, name) for value in term.values) != term.negated for term in terms)

    def matches(self, state: str, job: JobRecord | Work, now: float | None = None) -> bool:
        """Whether a job that is in `state` is meant. `now` (epoch seconds) is what ages are reckoned from."""
        moment = SystemClock().now() if now is None else now
        subject = matching.Subject(state, job, moment)
        return all(
            any(matching.meets(subject, term.field, term.path, value) for value in term.values) != term.negated
            for term in self.terms
        )


def is_one(term: Term) -> bool:
    """Whether every job meant meets this one value."""
    return not term.negated and len(term.values) == 1

"""An operation as a value, and its record in Redis as `advance.py` and `operations.py` read it.

The record is a hash of texts that scripts add to. Whoever finds one that another release has written differently reads
what it knows: a number that is none counts as 0. Nothing here talks to Redis."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, cast

import msgspec

from pillion.api.bulk import Fault
from pillion.api.query import Query, parse
from pillion.api.selection import Ref, Selection
from pillion.store.operations import Record
from pillion.store.reads import Place, Spot

Verb: TypeAlias = Literal["retry", "requeue", "kill", "delete", "clear", "move", "reschedule"]
State: TypeAlias = Literal["running", "paused", "stopped", "done", "failed", "undoing", "undone"]

VERBS: dict[Verb, tuple[str, ...]] = {
    "retry": ("retry", "scheduled", "dead"),
    "requeue": ("retry", "scheduled", "dead"),
    "kill": ("queued", "retry", "scheduled"),
    "delete": ("queued", "retry", "scheduled", "dead"),
    "clear": ("queued", "retry", "scheduled", "dead"),
    "move": ("queued", "retry", "scheduled", "dead"),
    "reschedule": ("retry", "scheduled"),
}
"""The states of the jobs that each verb can be applied to."""

UNDOABLE: tuple[Verb, ...] = ("kill", "delete", "clear", "move")
OPEN: tuple[State, ...] = ("running", "undoing")


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation as it stands.

    Attributes:
        id: 24 hex digits.
        verb, filter, by: what, on which jobs, for whom.
        options: `to`, `at`, as text.
        state: `running` and `undoing` wait for a driver; `paused` for a person; the others are over.
        began, ended: when (UTC).
        total: jobs to look at.
        looked: jobs looked at.
        moved: they are where they were meant to go.
        stopped: client middleware stopped them, which removed them.
        gone: somebody else was faster.
        failed: they could not be moved, and stay; `faults` tells of the first 20.
        newer: left alone, because they came after the start.
        restored: brought back by `undo`; `lost` could not be: somebody has moved them since.
        undo_until: until when it can be undone; None where it cannot (any more).
        undo_reason: why not, one sentence.
        error: why it failed as a whole.
        rate: most jobs per second; 0 for no limit.
        wait: seconds until the next batch may be made.
        busy: somebody drives it just now.
    """

    id: str
    verb: Verb
    filter: str
    by: str
    options: dict[str, str]
    state: State
    began: datetime
    ended: datetime | None = None
    total: int = 0
    looked: int = 0
    moved: int = 0
    stopped: int = 0
    gone: int = 0
    failed: int = 0
    newer: int = 0
    restored: int = 0
    lost: int = 0
    faults: tuple[Fault, ...] = ()
    undo_until: datetime | None = None
    undo_reason: str = ""
    error: str = ""
    rate: float = 0.0
    wait: float = 0.0
    busy: bool = False

    @property
    def is_open(self) -> bool:
        """Whether a driver has to go on with it."""
        return self.state in OPEN

    @property
    def fraction(self) -> float:
        """How far it is, 0.0 to 1.0; of an undo, how far that is."""
        if self.state in ("done", "undone"):
            return 1.0
        if self.state == "undoing":
            return min(1.0, (self.restored + self.lost) / max(1, self.moved))
        return min(1.0, self.looked / max(1, self.total))

    def result(self) -> str:
        """What has become of its jobs, in words: "moved 17, gone 1"."""
        names = ("restored", "lost") if self.restored or self.lost else ("moved", "stopped", "gone", "failed", "newer")
        counts = [(name, int(getattr(self, name))) for name in names]
        return ", ".join(f"{name} {count:,}" for name, count in counts if count or name == names[0])


class Section(msgspec.Struct, frozen=True, array_like=True):
    """A place that an operation goes through: its name, how many were there at the start, and where that ended.

    `top` is the highest score of a set, or the digest of the newest job of a queue.
    """

    name: str
    count: int
    top: str = ""


class Row:
    """The record of an operation."""

    def __init__(self, operation: str, record: Record) -> None:
        self.id = operation
        self.fields = record.fields
        self.now = record.now

    def number(self, name: str) -> int:
        """A field that is a number."""
        text = self.fields.get(name, "")
        return int(text) if text.lstrip("-").isdecimal() else 0

    def real(self, name: str) -> float:
        """A field that may have a fraction."""
        try:
            return float(self.fields.get(name, ""))
        except ValueError:
            return 0.0

    def text(self, name: str) -> str:
        return self.fields.get(name, "")

    @property
    def verb(self) -> Verb:
        return cast(Verb, self.text("verb"))

    @property
    def query(self) -> Query:
        """The jobs meant; nothing of a selection."""
        return parse(self.text("query"))

    @property
    def marked(self) -> Selection:
        """The marked jobs; none where there is a query."""
        return Selection(tuple(Ref.parse(each) for each in _json(self.text("refs"), list[str])))

    @property
    def sections(self) -> list[Section]:
        found: list[Section] = _json(self.text("sections"), list[Section])
        return found

    @property
    def section(self) -> int:
        """The number of the one that it is in."""
        return self.number("section")

    @property
    def after(self) -> Place | Spot | None:
        """Where in that, after which job; None at its start."""
        found = _json(self.text("after"), list[str])
        if len(found) < 2:
            return None
        raw = base64.b64decode(found[1])
        return Place(int(found[0]), raw) if found[0].isdecimal() else Spot(float(found[0]), raw)

    @property
    def faults(self) -> list[Fault]:
        found: list[Fault] = _json(self.text("faults"), list[Fault])
        return found

    @property
    def parks(self) -> bool:
        """Whether what it takes away is kept for an undo."""
        return self.text("parking") == "1"

    @property
    def is_open(self) -> bool:
        return self.text("state") in OPEN

    @property
    def wait(self) -> float:
        """Seconds until the next batch may be made."""
        return max(0.0, self.number("ready") / 1000 - self.now)

    def operation(self) -> Operation:
        """As people see it."""
        until = self.number("undo_until") / 1000
        undo_until = datetime.fromtimestamp(until, UTC) if until > self.now else None
        options = {name: self.text(name) for name in ("to", "at") if self.text(name)}
        counts: Any = {name: self.number(name) for name in COUNTS}
        return Operation(
            id=self.id,
            verb=self.verb,
            filter=self.text("filter"),
            by=self.text("by"),
            options=options,
            state=cast(State, self.text("state")),
            began=datetime.fromtimestamp(self.real("began"), UTC),
            ended=datetime.fromtimestamp(self.real("ended"), UTC) if self.text("ended") else None,
            faults=tuple(self.faults),
            undo_until=undo_until,
            undo_reason=self._undo_reason(undo_until),
            error=self.text("error"),
            rate=self.real("rate"),
            wait=self.wait,
            busy=self.number("until") / 1000 > self.now,
            **counts,
        )

    def _undo_reason(self, until: datetime | None) -> str:
        if until is not None:
            return ""
        if self.verb not in UNDOABLE:
            return "What was put into a queue cannot be taken back." if self.verb != "reschedule" else NO_TIME
        if self.text("too_large"):
            return "Its jobs weigh more than is kept for an undo."
        if self.text("state") == "undone":
            return "It was undone."
        return "" if self.text("state") in ("running", "paused") else "Nothing of it is kept (any more)."


NO_TIME = "The times before are not kept."
COUNTS = ("total", "looked", "moved", "stopped", "gone", "failed", "newer", "restored", "lost")


def _json(text: str, kind: Any) -> Any:
    """A field that holds JSON; what is empty has nothing."""
    return msgspec.json.decode(text or "[]", type=kind)


def after_text(after: Place | Spot | None) -> str:
    """Where a walk stands as the record has it: a place is a whole number, a score has a point."""
    if after is None:
        return ""
    where = str(after.n) if isinstance(after, Place) else repr(after.score)
    return msgspec.json.encode([where, base64.b64encode(after.raw).decode()]).decode()

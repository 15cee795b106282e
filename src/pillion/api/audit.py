"""Who did what: the newest 10,000 actions of people, in a capped stream.

`operations.py` notes the start and the end of every operation by itself; whoever offers another action (pausing a
queue, quieting a process) notes it here. Notes hold filters and figures, never arguments of jobs. Nothing follows from
a note: one that could not be written is lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from pillion.api.advance import noted
from pillion.api.faces import Face, Page, Plan, ask, faces
from pillion.errors import UsageError
from pillion.store import operations

MOST_NAME = 200
MOST_TEXT = 2_000


class Note(msgspec.Struct, frozen=True):
    """One action.

    Attributes:
        id: its place in the stream, for `page(after=...)`.
        at: when (UTC), by the server's clock.
        by: who.
        verb: `retry`, `delete`, `pause`, `quiet`, ...
        filter: which: the canonical text of a query, a queue's name, ...
        count: how many jobs, None where none are concerned.
        result: what became of it, in words.
        operation: the id of the operation, which may still be undone; "" where there is none.
    """

    id: str
    at: datetime
    by: str
    verb: str
    filter: str
    count: int | None
    result: str
    operation: str


class Audit(Face):
    """The log of actions."""

    def plan_note(
        self,
        verb: str,
        *,
        by: str,
        filter: str = "",  # noqa: A002 - as the field is called
        count: int | None = None,
        result: str = "done",
        operation: str = "",
    ) -> Plan[str]:
        """Note an action; returns its id. O(1). Long texts are cut."""
        note = noted(by[:MOST_NAME], verb[:MOST_NAME], filter[:MOST_TEXT], count, result[:MOST_TEXT], operation)
        return (yield from ask(operations.note(self.keys, note)))

    note, anote = faces(plan_note)

    def plan_page(self, after: str | None = None, most: int = 50) -> Plan[Page[Note, str]]:
        """The next notes, newest first, after `after`, the `next` of the page before. O(most).

        Raises UsageError where `after` is no id of a note.
        """
        if after is not None and not re.fullmatch(r"\d{1,20}-\d{1,20}", after):
            raise UsageError(f"expected the `next` of a page of the audit, got {after!r:.40}; begin anew")
        found = yield from ask(operations.notes(self.keys, after, most))
        notes = [_note(name, fields) for name, fields in found]
        return Page(notes, notes[-1].id if len(notes) == most else None)

    page, apage = faces(plan_page)


def _note(name: str, fields: Mapping[str, str]) -> Note:
    count = fields.get("count", "")
    return Note(
        id=name,
        at=datetime.fromtimestamp(int(name.partition("-")[0]) / 1000, UTC),
        by=fields.get("by", ""),
        verb=fields.get("verb", ""),
        filter=fields.get("filter", ""),
        count=int(count) if count.isdecimal() else None,
        result=fields.get("result", ""),
        operation=fields.get("operation", ""),
    )

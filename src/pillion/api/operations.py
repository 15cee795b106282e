"""Doing one thing to all jobs that a query means: preview, start, advance in batches, pause, stop, undo.

An operation is a record in Redis that outlives whoever drives it. `advance` takes a lease on it (the server's clock),
and each batch is one script that checks the lease, moves at most 200 jobs by their exact bytes, writes each new place
before the old one is left, and notes how far it came. So a driver may die between any two exchanges and another goes
on; what was done is not done twice. It walks a snapshot: what comes, or fails again, after the start is left alone.

What is deleted, cleared, killed or moved is parked for ten minutes after the end, and `undo` puts it back: byte by
byte, with its score. Jobs of a queue come back to the end that workers take from, in their order. What somebody has
taken, retried or deleted meanwhile is not brought back a second time. Death handlers hear of nothing that an operation
kills."""

from __future__ import annotations

from datetime import datetime

import msgspec

from pillion.api.advance import Advance, found, noted
from pillion.api.aim import Aim, Target, aimed
from pillion.api.faces import Face, Plan, ask, faces
from pillion.api.operation import UNDOABLE, VERBS, Operation, Row, Section, State, Verb
from pillion.api.parked import plan_room
from pillion.api.places import Place, places_of
from pillion.api.preview import Preview, Previewing
from pillion.api.query import Query
from pillion.errors import UsageError
from pillion.store import operations, reads
from pillion.store.keys import OPERATION_TTL, UNDO_TTL
from pillion.store.operations import Change

__all__ = ["UNDOABLE", "VERBS", "Operation", "Operations", "Preview", "State", "Target", "Verb"]

BUDGET = 20_000
MOST_RATE = 1_000_000.0
MOST_NAME = 200


class Operations(Face):
    """Operations: `start` one, `drive` it (or let an `Operator` do it), read how far it is.

    retry       retry, dead, scheduled -> their queue now, without using up a retry
    requeue     retry, dead, scheduled -> their queue now, as if they were due
    kill        queued, retry, scheduled -> dead
    delete      queued, retry, scheduled, dead -> gone
    clear       the same for whole places at once: only `state:` terms, and `queue:` terms with `state:queued`
    move        queued, retry, scheduled, dead -> meant for the queue `to`; queued ones go to its head, in their order
    reschedule  retry, scheduled -> the time `at`, all of them
    """

    def plan_preview(
        self,
        verb: Verb,
        target: Target,
        *,
        to: str | None = None,
        at: float | datetime | None = None,
        budget: int = BUDGET,
    ) -> Plan[Preview]:
        """What `start` with the same arguments would do now. O(budget) jobs are looked at, O(places) for whole places.

        Raises UsageError for a verb that does not fit the jobs meant, and QuerySyntax.
        """
        return (yield from Previewing(self.client).plan_of(aimed(verb, target, to, at), budget))

    preview, apreview = faces(plan_preview)

    def plan_start(
        self,
        verb: Verb,
        target: Target,
        *,
        by: str,
        to: str | None = None,
        at: float | datetime | None = None,
        rate: float = 0.0,
        undo: bool = True,
    ) -> Plan[Operation]:
        """Write down an operation and its snapshot; nothing has moved yet: somebody must `advance` it. O(queues).

        `rate` are most jobs per second, 0 for no limit; without `undo` nothing is parked. Raises UsageError and
        QuerySyntax; Ambiguous where the reply was lost: look at `recent` before you start it again.
        """
        aim = aimed(verb, target, to, at)
        if not 0 <= rate <= MOST_RATE:
            raise UsageError(f"expected a rate of 0 to {MOST_RATE:,.0f} jobs per second, got {rate!r:.40}")
        began, name = self.config.clock.now(), self.config.new_jid()
        sections = yield from self._snapshot(aim)
        parks = undo and verb in UNDOABLE
        room = (yield from plan_room(self)) if parks else 0
        fields = {
            "verb": verb,
            "filter": aim.filter,
            "by": by[:MOST_NAME],
            "state": "running",
            "began": repr(began),
            "query": str(aim.query) if aim.query is not None else "",
            "refs": _refs(aim),
            "to": aim.to,
            "at": repr(aim.at) if verb == "reschedule" else "",
            "sections": msgspec.json.encode(sections).decode(),
            "section": "0",
            "after": "",
            "left": str(sections[0].count if sections else 0),
            "total": str(sum(section.count for section in sections)),
            "rate": repr(rate),
            "step": "0",
            "parking": str(int(parks)),
            "room": str(room),
        }
        note = noted(by[:MOST_NAME], verb, aim.filter, None, "started", name)
        yield from ask(operations.begin(self.keys, name, fields, began, note))
        started = yield from self.plan_read(name)
        assert started is not None  # noqa: S101 - it lives for days
        return started

    start, astart = faces(plan_start)

    def plan_advance(self, operation: str, *, batches: int = 1, seconds: float | None = None) -> Plan[Operation]:
        """Go on with an operation for some batches, or else for so many seconds; returns how far it is then.

        A batch is at most 200 jobs of 2,000 that are looked at. Does nothing while somebody else drives it (`busy`), it
        has to `wait` for its rate, or it is not open. O(2,000) per batch. Raises UsageError where there is none.
        """
        return (yield from Advance(operation, self.client).plan_go(batches, seconds))

    advance, aadvance = faces(plan_advance)

    def plan_read(self, operation: str) -> Plan[Operation | None]:
        """How far it is; None where there is none of this id, or none any more. O(1)."""
        [record] = yield from ask(operations.look(self.keys, [operation]))
        return Row(operation, record).operation() if record.fields else None

    read, aread = faces(plan_read)

    def plan_recent(self, most: int = 50) -> Plan[list[Operation]]:
        """The newest operations of the last 7 days, newest first. O(most), two exchanges."""
        listed = yield from ask(operations.recent(self.keys, most))
        records = yield from ask(operations.look(self.keys, listed))
        rows = [Row(name, record) for name, record in zip(listed, records, strict=True) if record.fields]
        return [row.operation() for row in rows]

    recent, arecent = faces(plan_recent)

    def plan_open(self) -> Plan[list[str]]:
        """The ids of those that wait for a driver. O(open)."""
        return (yield from ask(operations.waiting(self.keys)))

    open, aopen = faces(plan_open)

    def plan_pause(self, operation: str) -> Plan[Operation]:
        """Let nobody go on with it until `resume`. A batch that is under way ends. Raises UsageError. O(1)."""
        return (yield from self._change(operation, Change(states=("running",), state="paused")))

    pause, apause = faces(plan_pause)

    def plan_resume(self, operation: str) -> Plan[Operation]:
        """Let it go on. Raises UsageError. O(1)."""
        return (yield from self._change(operation, Change(states=("paused",), state="running")))

    resume, aresume = faces(plan_resume)

    def plan_stop(self, operation: str, *, by: str = "") -> Plan[Operation]:
        """End it where it stands; what was done can be undone. Raises UsageError. O(1)."""
        row = yield from self._row(operation)
        told = row.operation()
        note = noted(by or told.by, told.verb, told.filter, told.moved, f"stopped: {told.result()}", operation)
        wanted = Change(
            states=("running", "paused"),
            state="stopped",
            keep=UNDO_TTL if row.parks else 0,
            sets={"ended": repr(self.config.clock.now())},
            note=note,
        )
        return (yield from self._change(operation, wanted))

    stop, astop = faces(plan_stop)

    def plan_undo(self, operation: str, *, by: str = "") -> Plan[Operation]:
        """Begin to bring back what it moved; drive it as before. O(1).

        Raises UsageError where that cannot be (any more).
        """
        row = yield from self._row(operation)
        told = row.operation()
        if told.verb not in UNDOABLE:
            raise UsageError(f"expected an operation that can be undone ({', '.join(UNDOABLE)}), got a {told.verb}")
        wanted = Change(
            states=("done", "stopped", "failed"),
            state="undoing",
            keep=OPERATION_TTL,
            needs_parked=True,
            sets={"error": ""},
            note=noted(by or told.by, told.verb, told.filter, told.moved, "undo started", operation),
        )
        return (yield from self._change(operation, wanted))

    undo, aundo = faces(plan_undo)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _snapshot(self, aim: Aim) -> Plan[list[Section]]:
        """The places that it goes through, with how many jobs are there and the highest score."""
        if aim.marked is not None:
            return [Section(name, len(aim.marked.in_place(name))) for name in aim.marked.places]
        sections: list[Section] = []
        for place, size in (yield from places_of(aim.query or Query(), self.client, aim.states)):
            if not size or (aim.verb == "move" and place.queue == aim.to):
                continue
            sections.append(Section(place.name, size, (yield from self._top(place))))
        return sections

    def _top(self, place: Place) -> Plan[str]:
        """Where the snapshot ends: the highest score of a set, the digest of the newest job of a queue."""
        if place.queue:
            newest, _ = yield from ask(reads.queue_page(place.key, most=1))
            return reads.digest(newest[0].raw) if newest else ""
        _, score = yield from ask(reads.highest(place.key))
        return repr(score or 0.0)

    def _row(self, operation: str) -> Plan[Row]:
        [record] = yield from ask(operations.look(self.keys, [operation]))
        return found(operation, record)

    def _change(self, operation: str, wanted: Change) -> Plan[Operation]:
        """A change that a person asks for. Raises UsageError where the operation is not such that it can be made."""
        row = yield from self._row(operation)
        sections = len(row.sections) if row.verb == "clear" else 0
        record = yield from ask(operations.change(self.keys, operation, sections, wanted))
        told = found(operation, record).operation()
        if record.status == "GONE":
            raise UsageError(f"expected jobs that can be brought back, got none: {told.undo_reason or 'nothing moved'}")
        if record.status != "OK" and told.state != wanted.state:
            raise UsageError(
                f"expected an operation that is {' or '.join(wanted.states)}, got one that is {told.state}"
            )
        return told


def _refs(aim: Aim) -> str:
    return msgspec.json.encode([str(ref) for ref in aim.marked.refs]).decode() if aim.marked else ""

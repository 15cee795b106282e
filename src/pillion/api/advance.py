"""One batch of an operation after the other: what `Operations.advance` does while it holds the lease.

Each batch reads a part of a walk, decides in this process what becomes of each job (client middleware sees what goes
to a queue), and sends one script that moves them and notes how far it came. Between any two exchanges a driver may die:
the record says where the next one has to go on, and no batch is carried out twice. Nothing is kept in this process's
memory but the words of faults, of which a crash may lose the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from pillion.api import moving, parked
from pillion.api.bulk import MOST_FAULTS, Fault
from pillion.api.entry import Entry
from pillion.api.faces import Face, Plan, ask
from pillion.api.operation import UNDOABLE, Operation, Row, Section, after_text
from pillion.api.places import SETS, Place, Standing
from pillion.api.queue import QueuedJob
from pillion.api.sets import SortedEntry
from pillion.client import Client
from pillion.errors import Refused, UsageError
from pillion.store import operations, reads
from pillion.store.keys import OPERATION_TTL, UNDO_TTL
from pillion.store.operations import MOST_REFS, Change, Limits, QueueMove, Record, SetMove, Turn
from pillion.store.ops import MAX_BATCH, Move
from pillion.store.reads import Place as At
from pillion.store.reads import Spot

MOST_BACK = 100


class Advance(Face):
    """A driver of one operation."""

    def __init__(self, operation: str, client: Client | None = None) -> None:
        super().__init__(client)
        self._id = operation
        self._driver = self.config.new_jid()
        self._faults: list[Fault] = []

    def plan_go(self, batches: int, seconds: float | None) -> Plan[Operation]:
        """Take the lease, go on, give the lease back. Raises UsageError where there is no such operation."""
        steady = self.config.clock.steady
        until = None if seconds is None else steady() + seconds
        record = yield from ask(operations.take_turn(self.keys, self._id, self._driver))
        row = found(self._id, record)
        if record.status != "OURS":
            return msgspec.structs.replace(row.operation(), busy=record.status == "BUSY")
        self._faults = row.faults
        while True:
            record = yield from self._batch(row)
            row = found(self._id, record)
            batches -= 1
            over = record.status != "OK" or not row.is_open
            if over or row.wait or (batches <= 0 if until is None else steady() >= until):
                break
        if not over:
            row = found(self._id, (yield from self._change(row, row.text("state"), {"until": "0"})))
        return row.operation()

    def _batch(self, row: Row) -> Plan[Record]:
        """The next batch, of whatever kind. Where a key is of the wrong type, the operation as a whole has failed."""
        try:
            record = yield from self._step(row)
        except Refused as error:
            if "WRONGTYPE" not in str(error):
                raise
            return (yield from self._fail(row, str(error)))
        if record.status == "WRONG":
            return (yield from self._fail(row, "a key that it needs is of another type than Pillion's"))
        if record.status == "DONE":  # the reply of the batch before was lost
            record = msgspec.structs.replace(record, status="OK")
        return record

    def _step(self, row: Row) -> Plan[Record]:
        if row.text("state") == "undoing":
            return (yield from (self._unclear(row) if row.verb == "clear" else self._undo(row)))
        if row.section >= len(row.sections):
            return (yield from self._finish(row))
        if row.verb == "clear":
            return (yield from self._clear(row))
        if row.text("refs"):
            return (yield from self._marked(row))
        return (yield from self._walked(row))

    # --- a walk -------------------------------------------------------------------------------------------------------

    def _walked(self, row: Row) -> Plan[Record]:
        """The next part of the snapshot: up by score, or from the newest to the oldest job that waited at the start."""
        section, query = row.sections[row.section], row.query
        place = Place.named(section.name, self.client)
        after = row.after
        if after is None and place.state == "queued":
            newest = yield from ask(reads.locate_place(place.key, section.count, section.top))
            after = At(newest.n + 1, b"")
        part = yield from place.plan_part(after, most=MAX_BATCH, needle=query.needle, up=True)
        inside = [job for job in part.jobs if _is_below(job, section.top)]
        wanted = [job for job in inside if query.matches(place.state, job, row.real("began"))]
        old = [job for job in wanted if job.touched_at() <= row.real("began")]
        left = row.number("left")
        chosen = [job for job in old if not _is_there(row, job)][:left]
        over = len(inside) < len(part.jobs) or left <= len(chosen)
        sets = _position(row, None if over else part.after, len(chosen))
        adds = {"looked": part.looked, "newer": len(wanted) - len(old)}
        return (yield from self._move(row, place, chosen, sets, adds))

    def _marked(self, row: Row) -> Plan[Record]:
        """The next of the marked jobs of one place."""
        place = Place.named(row.sections[row.section].name, self.client)
        refs = row.marked.in_place(place.name)
        done = row.after
        start = done.n if isinstance(done, At) else 0
        these = refs[start : start + MOST_REFS]
        jobs = yield from place.plan_marked(these)
        after = At(start + len(these), b"") if start + len(these) < len(refs) else None
        adds = {"looked": len(these), "gone": len(these) - len(jobs)}
        return (yield from self._move(row, place, jobs, _position(row, after), adds))

    def _move(
        self, row: Row, place: Place, jobs: Sequence[Standing], sets: dict[str, str], adds: dict[str, int]
    ) -> Plan[Record]:
        """Send a batch, and note what failed."""
        if place.state == "queued":
            return (yield from self._move_in_queue(row, place, jobs, sets, adds))
        if row.verb == "kill":
            yield from ask(reads.count(self.keys.dead))
        entries, moves = list[Entry](), list[SetMove]()
        for entry in [job for job in jobs if isinstance(job, Entry)]:
            try:
                moves.append(self._decide(row, place, entry))
                entries.append(entry)
            except Exception as error:
                self._faults.append(Fault(entry.jid, str(error) or type(error).__name__))
        adds["failed"] = len(jobs) - len(moves)
        turn = self._turn(row, sets, adds)
        record = yield from ask(
            operations.move_in_set(self.keys, place.key, turn, moves, self._limits(), OPERATION_TTL)
        )
        self._faults += [Fault(entries[i].jid, words) for i, words in record.faults]
        return record

    def _decide(self, row: Row, place: Place, entry: Entry) -> SetMove:
        """What becomes of an entry. Raises what a middleware raises, and BadPayload."""
        owner, verb = SETS[place.state](self.client), row.verb
        if verb in ("retry", "requeue"):
            move = moving.to_queue(owner, entry, by_hand=verb == "retry")
            return SetMove(move, "moved" if move.verb == "push" else "stopped")
        header = parked.header(place.name, repr(entry.score)) if row.parks else b""
        decide: dict[str, Callable[[], Move]] = {
            "delete": lambda: moving.away(entry),
            "kill": lambda: moving.to_dead(owner, entry),
            "reschedule": lambda: moving.to_time(entry, row.real("at")),
            "move": lambda: Move(
                entry.value, entry.score, "swap", entry.score, parked.meant_for(entry.value, row.text("to"))
            ),
        }
        return SetMove(decide[verb](), "moved", header if verb in UNDOABLE else b"")

    def _move_in_queue(
        self, row: Row, place: Place, jobs: Sequence[Standing], sets: dict[str, str], adds: dict[str, int]
    ) -> Plan[Record]:
        to = row.text("to")
        moves = [
            QueueMove(
                job.position,
                job.value,
                parked.meant_for(job.value, to) if row.verb == "move" else b"",
                parked.header(place.name, str(job.position)) if row.parks else b"",
            )
            for job in sorted((job for job in jobs if isinstance(job, QueuedJob)), key=lambda job: -job.position)
        ]
        op = operations.move_in_queue(
            self.keys,
            place.queue,
            self._turn(row, sets, adds),
            moves,
            verb={"delete": "drop", "kill": "dead"}.get(row.verb, row.verb),
            to=to,
            at=self.config.clock.now(),
            limits=self._limits(),
            keep=OPERATION_TTL,
        )
        return (yield from ask(op))

    # --- whole places -------------------------------------------------------------------------------------------------

    def _clear(self, row: Row) -> Plan[Record]:
        section = row.sections[row.section]
        place = Place.named(section.name, self.client)
        turn = self._turn(row, _position(row), {"looked": section.count})
        return (yield from ask(operations.clear(self.keys, place.key, place.queue, turn, row.section, OPERATION_TTL)))

    def _unclear(self, row: Row) -> Plan[Record]:
        n = row.number("unclear")
        if n >= len(row.sections):
            return (yield from self._finish_undo(row))
        place = Place.named(row.sections[n].name, self.client)
        turn = self._turn(row, {}, {})
        return (yield from ask(operations.unclear(self.keys, place.key, place.queue, turn, n, MAX_BATCH)))

    # --- back ---------------------------------------------------------------------------------------------------------

    def _undo(self, row: Row) -> Plan[Record]:
        """Put the next parked jobs back, in the order in which they were parked."""
        first, _ = yield from ask(reads.queue_page(self.keys.parked(self._id), most=MOST_BACK))
        if not first:
            return (yield from self._finish_undo(row))
        to = row.text("to")
        jobs = [parked.unparked(self, copy.raw, row.verb, to) for copy in first]
        return (yield from ask(operations.put_back(self.keys, self._turn(row, {}, {}), jobs, to)))

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _finish(self, row: Row) -> Plan[Record]:
        return (yield from self._end(row, "done", UNDO_TTL if row.parks else 0))

    def _finish_undo(self, row: Row) -> Plan[Record]:
        return (yield from self._end(row, "undone", 0))

    def _fail(self, row: Row, words: str) -> Plan[Record]:
        return (yield from self._end(row, "failed", UNDO_TTL if row.parks else 0, words))

    def _end(self, row: Row, state: str, keep: int, error: str = "") -> Plan[Record]:
        sets = {"ended": repr(self.config.clock.now()), "error": error}
        told = row.operation()
        result = f"{state}: {error or told.result()}"
        count = told.restored if state == "undone" else told.moved
        note = noted(row.text("by"), row.verb, row.text("filter"), count, result, self._id)
        return (yield from self._change(row, state, sets, keep, note))

    def _change(
        self, row: Row, state: str, sets: dict[str, str], keep: int | None = None, note: dict[str, str] | None = None
    ) -> Plan[Record]:
        wanted = Change(
            states=(row.text("state"),),
            state=state,
            driver=self._driver,
            keep=keep,
            sets={**sets, **self._told()},
            note=note or {},
        )
        return (yield from ask(operations.change(self.keys, self._id, _cleared(row), wanted)))

    def _turn(self, row: Row, sets: dict[str, str], adds: dict[str, int]) -> Turn:
        return Turn(self._id, self._driver, row.text("step"), {**sets, **self._told()}, adds)

    def _told(self) -> dict[str, str]:
        return {"faults": msgspec.json.encode(self._faults[:MOST_FAULTS]).decode()}

    def _limits(self) -> Limits:
        config = self.config
        return Limits(config.dead_max_jobs, config.clock.now() - config.dead_timeout_in_seconds)


def found(operation: str, record: Record) -> Row:
    """The row of a record. Raises UsageError where there is none."""
    if record.status == "NONE" or not record.fields:
        raise UsageError(
            f"expected the id of an operation of the last 7 days, got {operation!r:.40}; see `Operations().recent()`"
        )
    return Row(operation, record)


def noted(by: str, verb: str, filter: str, count: int | None, result: str, operation: str) -> dict[str, str]:  # noqa: A002
    """A note for the audit as it is kept."""
    shown = "" if count is None else str(count)
    return {"by": by, "verb": verb, "filter": filter, "count": shown, "result": result, "operation": operation}


def _is_below(job: Standing, top: str) -> bool:
    """Whether an entry belongs to the snapshot by its score; in a queue the snapshot is where the walk begins."""
    return isinstance(job, QueuedJob) or job.score <= float(top or "inf")


def _is_there(row: Row, job: Standing) -> bool:
    """Whether a job is where this operation would put it: it was so before, or was put there by it."""
    if row.verb == "move":
        return job.queue == row.text("to")
    return row.verb == "reschedule" and isinstance(job, SortedEntry) and job.score == row.real("at")


def _position(row: Row, after: At | Spot | None = None, taken: int = 0) -> dict[str, str]:
    """How far a batch comes: on in this place, or to the start of the next."""
    if after is not None:
        return {"after": after_text(after), "left": str(row.number("left") - taken)}
    rest: list[Section] = row.sections[row.section + 1 :]
    return {"section": str(row.section + 1), "after": "", "left": str(rest[0].count if rest else 0)}


def _cleared(row: Row) -> int:
    return len(row.sections) if row.verb == "clear" else 0

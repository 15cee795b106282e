"""What operations of people ask of Redis: a record, its lease, a batch, an undo, and the audit.

Ops, as those of `ops.py`, for `api/operations.py`. Each batch is one script that checks whose turn it is and writes
down how far it came together with what it moved, so it may be sent again: the second time it finds itself done. A crash
leaves an operation between two batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pillion.store.keys import MAX_NOTES, MAX_OPERATIONS, OPERATION_TTL, Keyspace
from pillion.store.op import Command, Op, Word, call, text
from pillion.store.ops import Move, batch

LEASE_MS = 20_000
MOST_REFS = 100


class Record(msgspec.Struct, frozen=True):
    """An operation as it stands in Redis, and what came of asking.

    Attributes:
        status: `OK` and `OURS`: done, or may go on; else why nothing was done.
        now: the server's clock, epoch seconds.
        fields: as they stand now; empty where there is no operation.
        faults: of a batch, (number of the move, the server's error).
    """

    status: str
    now: float
    fields: dict[str, str]
    faults: tuple[tuple[int, str], ...] = ()


def _record(reply: Any) -> Record:
    status, now, flat, *more = reply
    faults = tuple((int(i) - 1, text(words)) for i, words in _pairs(more[0])) if more else ()
    return Record(text(status), now / 1000, {text(name): text(value) for name, value in _pairs(flat)}, faults)


def _pairs(flat: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


class Turn(msgspec.Struct, frozen=True):
    """Who carries out which batch of which operation, and what to note along with it: fields to set, and to add to."""

    operation: str
    driver: str
    step: str
    sets: Mapping[str, str]
    adds: Mapping[str, int]

    def words(self) -> list[Word]:
        """As `turn.note` takes it."""
        sets = [word for pair in self.sets.items() for word in pair]
        adds = [word for pair in self.adds.items() if pair[1] for word in pair]
        return [LEASE_MS, OPERATION_TTL, len(self.sets), *sets, len(adds) // 2, *adds]


class Limits(msgspec.Struct, frozen=True):
    """The caps of the dead set: how many, and from when on (epoch seconds)."""

    most: int
    before: float


# --- the record -------------------------------------------------------------------------------------------------------


def begin(keys: Keyspace, id: str, fields: Mapping[str, str], began: float, note: Mapping[str, str]) -> Op[Any]:  # noqa: A002
    """Write down an operation, open, and note it in the audit. Not safe: a second one might take back what was done."""
    key = keys.operation(id)
    pairs = [word for pair in fields.items() for word in pair]
    commands: list[Command] = [
        ("HSET", key, *pairs),
        ("EXPIRE", key, OPERATION_TTL),
        ("ZADD", keys.operations, repr(began), id),
        ("ZREMRANGEBYSCORE", keys.operations, "-inf", repr(began - OPERATION_TTL)),
        ("ZREMRANGEBYRANK", keys.operations, 0, -MAX_OPERATIONS - 1),
        ("SADD", keys.open_operations, id),
        note_command(keys, note),
    ]
    return batch(commands)


def note_command(keys: Keyspace, note: Mapping[str, str]) -> Command:
    """Add a note to the audit."""
    return ("XADD", keys.audit, "MAXLEN", "~", MAX_NOTES, "*", *(word for pair in note.items() for word in pair))


def take_turn(keys: Keyspace, operation: str, driver: str) -> Op[Record]:
    """Take the lease. `OURS`, or `NONE`, `OVER`, `BUSY`, `WAIT`."""
    return call("operation_turn", (keys.operation(operation),), (driver, LEASE_MS), _record)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Into which state to bring an operation.

    Attributes:
        states: it may be in.
        state: the new one.
        driver: who drives it; "" for a person.
        keep: s that parked jobs are kept from now on; 0 drops them, None leaves them.
        needs_parked: nothing is done where nothing is parked any more.
        sets: fields to set.
        note: for the audit; none where it is empty.
    """

    states: tuple[str, ...]
    state: str
    driver: str = ""
    keep: int | None = None
    needs_parked: bool = False
    sets: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    note: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])


def change(keys: Keyspace, operation: str, places: int, wanted: Change) -> Op[Record]:
    """Bring an operation into another state. `OK`, or `NONE`, `OVER`, `LOST`, `GONE`."""
    cleared = [keys.cleared(operation, n) for n in range(places)]
    names = (keys.operation(operation), keys.open_operations, keys.audit, keys.parked(operation), *cleared)
    args: list[Word] = [wanted.driver, " ".join(wanted.states), wanted.state, operation]
    args += ("" if wanted.keep is None else wanted.keep, int(wanted.needs_parked), OPERATION_TTL, MAX_NOTES)
    args += (len(wanted.sets), *(word for pair in wanted.sets.items() for word in pair))
    args += [word for pair in wanted.note.items() for word in pair]
    return call("operation_change", names, args, _record)


# --- batches ----------------------------------------------------------------------------------------------------------


class SetMove(msgspec.Struct, frozen=True):
    """A move of an entry, what to count it as, and what stands before it in its parked copy: b"" to park none."""

    move: Move
    counter: str = "moved"
    header: bytes = b""


def move_in_set(
    keys: Keyspace, source: str, turn: Turn, moves: Sequence[SetMove], limits: Limits, keep: int
) -> Op[Record]:
    """One batch on a set. `OK`, or `LOST`, `DONE`, `OVER`."""
    names: list[Word] = [keys.operation(turn.operation), source, keys.dead, keys.queues, keys.parked(turn.operation)]
    args: list[Word] = [turn.driver, turn.step, limits.most, repr(limits.before), keep, *turn.words()]
    for each in moves:
        move = each.move
        names.append(keys.queue(move.queue) if move.verb == "push" else keys.dead)
        args += (move.member, repr(move.score), move.verb, repr(move.at), move.payload, move.queue)
        args += (each.counter, each.header)
    return call("operation_set", names, args, _record)


class QueueMove(msgspec.Struct, frozen=True):
    """A job to take out of a queue: its place and bytes, those it is given elsewhere, and the header of its copy."""

    n: int
    raw: bytes
    other: bytes = b""
    header: bytes = b""


def move_in_queue(
    keys: Keyspace,
    queue: str,
    turn: Turn,
    moves: Sequence[QueueMove],
    *,
    verb: str,
    to: str,
    at: float,
    limits: Limits,
    keep: int,
) -> Op[Record]:
    """One batch on the queue `queue` (a name): `drop`, `dead` (with the score `at`) or `move` (to the queue `to`).

    `OK`, or `WRONG`, `LOST`, `DONE`, `OVER`.
    """
    target = keys.queue(to) if verb == "move" else keys.dead
    names = (
        keys.operation(turn.operation),
        keys.queue(queue),
        keys.dead,
        keys.queues,
        keys.parked(turn.operation),
        target,
    )
    args: list[Word] = [
        turn.driver,
        turn.step,
        limits.most,
        repr(limits.before),
        keep,
        verb,
        repr(at),
        to,
        *turn.words(),
    ]
    for each in moves:
        args += (each.n, each.raw, each.other, each.header)
    return call("operation_queue", names, args, _record)


def clear(keys: Keyspace, key: str, queue: str, turn: Turn, n: int, keep: int) -> Op[Record]:
    """Empty the `n`th place of an operation; `queue` is its name, "" for a set. `OK`, or `WRONG`, `LOST`, ..."""
    names = (keys.operation(turn.operation), key, keys.cleared(turn.operation, n), keys.queues)
    return call("operation_clear", names, (turn.driver, turn.step, queue, keep, *turn.words()), _record)


class Return(msgspec.Struct, frozen=True):
    """A parked job to put back: its copy, how long its header is, how, where (key; name of a queue), and its score.

    `other` are the bytes that it was given where the operation moved it.
    """

    copy: bytes
    header: int
    kind: str
    home: str
    queue: str
    score: str
    other: bytes = b""


def put_back(keys: Keyspace, turn: Turn, jobs: Sequence[Return], to: str) -> Op[Record]:
    """One batch of an undo; `to` is the queue that jobs were moved to. `OK`, or `WRONG`, `LOST`, `DONE`, `OVER`."""
    names: list[Word] = [keys.operation(turn.operation), keys.parked(turn.operation), keys.dead, keys.queues]
    names.append(keys.queue(to) if to else keys.dead)
    args: list[Word] = [turn.driver, turn.step, *turn.words()]
    for job in jobs:
        names.append(job.home)
        args += (job.copy, job.header, job.kind, job.queue, job.score, job.other)
    return call("operation_undo", names, args, _record)


def unclear(keys: Keyspace, key: str, queue: str, turn: Turn, n: int, most: int) -> Op[Record]:
    """Put the `n`th place that was cleared back, or at most so many of its jobs. `OK`, or `WRONG`, `LOST`, ..."""
    names = (keys.operation(turn.operation), keys.cleared(turn.operation, n), key, keys.queues)
    return call("operation_unclear", names, (turn.driver, turn.step, queue, most, *turn.words()), _record)


def pick(key: str, marks: Sequence[tuple[float, str]]) -> Op[list[list[tuple[float, bytes]]]]:
    """For each (place or score, text it must hold) the jobs that may be meant, with where they stand."""
    args: list[Word] = [word for at, needle in marks for word in (repr(at), needle)]

    def parse(reply: Any) -> list[list[tuple[float, bytes]]]:
        return [[(float(at), raw) for at, raw in _pairs(some)] for some in reply]

    return call("pick", (key,), args, parse)


# --- the audit --------------------------------------------------------------------------------------------------------


def look(keys: Keyspace, operations: Sequence[str]) -> Op[list[Record]]:
    """Operations as they stand; `OK`, or `NONE` where there is none of an id."""
    commands: list[Command] = [("HGETALL", keys.operation(each)) for each in operations]

    def parse(replies: Sequence[Any]) -> list[Record]:
        *rows, (seconds, micros) = replies
        now = int(seconds) * 1000 + int(micros) // 1000
        return [_record(("OK" if row else "NONE", now, _flat(row))) for row in rows]

    return Op("operations", (*commands, ("TIME",)), parse, safe=True)


def _flat(row: Any) -> Sequence[Any]:
    """What HGETALL answered, as the server sends it or as a mapping."""
    return [word for pair in row.items() for word in pair] if isinstance(row, dict) else row


def recent(keys: Keyspace, most: int) -> Op[list[str]]:
    """The ids of the newest operations, newest first."""
    words = ("ZRANGE", keys.operations, 0, most - 1, "REV")
    return Op("recent", (words,), lambda replies: [text(each) for each in replies[0]], safe=True)


def waiting(keys: Keyspace) -> Op[list[str]]:
    """The ids of those that wait for a driver."""
    words = ("SMEMBERS", keys.open_operations)
    return Op("waiting", (words,), lambda replies: sorted(text(each) for each in replies[0]), safe=True)


def forget(keys: Keyspace, operation: str) -> Op[Any]:
    """Strike one off those that wait, whose record is gone."""
    return Op("forget", (("SREM", keys.open_operations, operation),), lambda replies: replies[0], safe=True)


def note(keys: Keyspace, fields: Mapping[str, str]) -> Op[str]:
    """Add a note to the audit; its id."""
    return Op("note", (note_command(keys, fields),), lambda replies: text(replies[0]))


def notes(keys: Keyspace, before: str | None, most: int) -> Op[list[tuple[str, dict[str, str]]]]:
    """The newest notes before one, with their ids, newest first."""
    start = "+" if before is None else f"({before}"

    def parse(replies: Sequence[Any]) -> list[tuple[str, dict[str, str]]]:
        return [(text(id), {text(name): text(value) for name, value in _pairs(flat)}) for id, flat in replies[0]]  # noqa: A001

    return Op("notes", (("XREVRANGE", keys.audit, start, "-", "COUNT", most),), parse, safe=True)

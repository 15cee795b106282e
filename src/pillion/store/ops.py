"""Every question Pillion asks Redis, as a value: an `Op` says what to send and how to read the answer.

Ops are built by floors 3 and up and executed by `connection.py`, in either colour. They do no I/O, read no clock and
keep no state. `safe` says whether an op may be sent twice when its reply was lost: true for reads and for scripts
that act only on what is still there, never for a plain push. `now` is for tests: without it scripts read the server's
clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pillion.store.keys import ONCE_TTL, Keyspace
from pillion.store.op import Command, Op, Word, call, command, moment, permitted, pipeline, text, told
from pillion.types import Dead, Done, Requeue, Retry, Settlement, Snooze

__all__ = ["Command", "Op", "Word", "command", "pipeline", "text"]

MAX_BATCH = 200
TRAY = 256
"""The numbers that a tray has for its claims; `lua/shared/trays.lua` counts the same way. At least MAX_BATCH."""

MAX_CLAIM_BYTES = 1_000_000


# -- pushing ---------------------------------------------------------------------------------------------------------


class Parcel(msgspec.Struct, frozen=True, gc=False):
    """An encoded job on its way to Redis: to `queue` now, or to the schedule set for `at` (epoch seconds)."""

    jid: str
    queue: str
    raw: bytes
    at: float | None = None


def push(keys: Keyspace, parcels: Sequence[Parcel], *, replicas: int = 0, wait_ms: int = 0) -> Op[int | None]:
    """Push jobs in one pipeline: `SADD queues`, `LPUSH` per queue, `ZADD schedule` for those that are for later.

    Not atomic, as Sidekiq's is not, and never sent twice. With `replicas` a WAIT follows and its answer is the result.
    """
    commands = push_commands(keys, parcels)
    if replicas:
        commands.append(("WAIT", replicas, wait_ms))
    return Op("push", tuple(commands), lambda replies: int(replies[-1]) if replicas else None)


def push_commands(keys: Keyspace, parcels: Sequence[Parcel]) -> list[Command]:
    """The commands of `push`. Jobs for one queue share one LPUSH, in order, so the first is taken first."""
    if len(parcels) == 1 and parcels[0].at is None:
        [parcel] = parcels
        return [("SADD", keys.queues, parcel.queue), ("LPUSH", keys.queue(parcel.queue), parcel.raw)]
    commands: list[Command] = []
    groups = parcel_groups(parcels)
    if queues := [name for name in groups if name is not None]:
        commands.append(("SADD", keys.queues, *queues))
    for name, group in groups.items():
        if name is not None:
            commands.append(("LPUSH", keys.queue(name), *(parcel.raw for parcel in group)))
        else:
            pairs = [(repr(float(parcel.at or 0.0)), parcel.raw) for parcel in group]
            commands.append(("ZADD", keys.schedule, *(word for pair in pairs for word in pair)))
    return commands


def parcel_groups(parcels: Sequence[Parcel]) -> dict[str | None, list[Parcel]]:
    """Parcels by the command that carries them, in sending order: by queue, and under None those for the schedule."""
    groups: dict[str | None, list[Parcel]] = {}
    for parcel in parcels:
        groups.setdefault(parcel.queue if parcel.at is None else None, []).append(parcel)
    return groups


def push_once(keys: Keyspace, parcels: Sequence[Parcel]) -> Op[list[bool | str]]:
    """Push jobs whose jid was not pushed so in the last ten minutes; safe. True: taken, False: known, or the error."""
    names: list[str] = [keys.queues, keys.schedule]
    args: list[Word] = [ONCE_TTL]
    for parcel in parcels:
        names += (keys.once(parcel.jid), keys.queue(parcel.queue))
        args += (parcel.queue, "" if parcel.at is None else repr(float(parcel.at)), parcel.raw)
    return call("push_once", names, args, lambda reply: [r == 1 if isinstance(r, int) else text(r) for r in reply])


# -- owning and stepping ---------------------------------------------------------------------------------------------


class Owner(msgspec.Struct, frozen=True):
    """The right to hold claims: a name, and the generation of the connection that speaks for it."""

    name: str
    generation: int = 1


class Stepped(msgspec.Struct, frozen=True, gc=False):
    """What a step did.

    Attributes:
        missed: settled claims that were no longer held; their outcome was not written.
        errors: (claim or queue, the server's error) for what could not be written or read; those claims are still held.
        suspects: how many jids are under suspicion just now, 0 when nothing was claimed.
        claims: (n, queue name, payload) in the order of claiming.
    """

    missed: tuple[int, ...]
    errors: tuple[tuple[str, str], ...]
    suspects: int
    claims: list[tuple[int, str, bytes]]


HELD = ord("1")
FENCED, STALE = "FENCED", "STALE"


class Want(msgspec.Struct, frozen=True, gc=False):
    """What a step should claim: at most `count` jobs, from `queues` in this order, (name, most of it) each.

    What comes from the first queue that has any stands in the tray `tray`, from the second one in the next, and so on.
    """

    count: int
    tray: int
    queues: tuple[tuple[str, int], ...]


def claim_number(tray: int, position: int) -> int:
    """The number of the claim at a position of a tray; numbers rise in the order of claiming."""
    return tray * TRAY + position


def tray_of(n: int) -> int:
    """The tray in which claim `n` stands."""
    return n // TRAY


def join(keys: Keyspace, owner: str, lease_ms: int, concurrency: int, now: float | None = None) -> Op[bool]:
    """Take a lease. False means the name is spent: take another. A lost reply leaves an empty owner to be reaped."""
    names = (keys.lease, keys.fenced, keys.index(owner), keys.pulse)
    return call("join", names, (owner, lease_ms, moment(now, 1000), concurrency), lambda reply: reply == 1, safe=False)


def step(
    keys: Keyspace,
    owner: Owner,
    lease_ms: int,
    settled: Sequence[Settlement],
    want: Want,
    *,
    dead_max: int,
    dead_timeout: float,
    now: float | None = None,
    wake: bool = False,
) -> Op[Stepped | str]:
    """Renew, settle and claim in one script. The result may be FENCED or STALE instead: then nothing happened.

    With `wake`, the connection is told of the next change to one of the queues if nothing was found (client tracking).
    Never sent twice: after a lost reply, `resync` tells what is held.
    """
    done, others = _sort(settled)
    trays = _by_tray(done, others)
    names: list[Word] = [keys.lease, keys.index(owner.name), keys.paused, keys.suspects, keys.pulse]
    args: list[Word] = [owner.name, owner.generation, lease_ms, moment(now, 1000), want.count, MAX_CLAIM_BYTES]
    args += (want.tray, len(want.queues), len(trays), len(others), sum(len(item.effects) for item in settled))
    args += (dead_max, dead_timeout)
    for name, share in want.queues:
        names.append(keys.queue(name))
        args += (name, share)
    for tray, positions in trays.items():
        names.append(keys.tray(owner.name, tray))
        args += (tray, bytes(positions))
    for item in others:
        destination, verb, score, payload = _writing(keys, item)
        names.append(destination)
        args += (item.claim.n, verb, score, payload)
    names += [keys.tray(owner.name, want.tray + i) for i in range(len(want.queues))]
    for item in settled:
        for effect in item.effects:
            names += effect.keys
            args += (item.claim.n, effect.name, len(effect.keys), len(effect.args), *effect.args)
    op = call("step", names, args, lambda reply: _stepped(reply, want), safe=False)
    if not wake:
        return op
    parse = op.parse
    return Op(op.name, (("CLIENT", "CACHING", "YES"), *op.commands), lambda replies: parse(replies[1:]), op.script)


def _sort(settled: Sequence[Settlement]) -> tuple[list[Settlement], list[Settlement]]:
    """Done claims, and the others; those that go back to a queue come newest first, so the oldest ends at its head."""
    done = [item for item in settled if isinstance(item.outcome, Done)]
    others = [item for item in settled if not isinstance(item.outcome, Done)]
    others.sort(key=lambda item: item.claim.n, reverse=True)
    return done, others


def _by_tray(done: Iterable[Settlement], others: Iterable[Settlement]) -> dict[int, bytearray]:
    """The trays of settled claims, each with the positions of those that are Done."""
    trays: dict[int, bytearray] = {}
    for item in done:
        tray, position = divmod(item.claim.n, TRAY)
        if tray not in trays:
            trays[tray] = bytearray()
        trays[tray].append(position)
    for item in others:
        trays.setdefault(tray_of(item.claim.n), bytearray())
    return trays


def _writing(keys: Keyspace, item: Settlement) -> tuple[str, str, str, bytes]:
    """What an outcome writes: (destination, verb, score, payload)."""
    outcome = item.outcome
    if isinstance(outcome, Retry):
        return keys.retry, "zset", repr(outcome.at), outcome.payload
    if isinstance(outcome, Snooze):
        return keys.schedule, "zset", repr(outcome.at), outcome.payload
    if isinstance(outcome, Dead):
        return keys.dead, "dead", repr(outcome.at), outcome.payload
    if isinstance(outcome, Requeue):
        return keys.queue(item.claim.queue), "requeue", "", b""
    return keys.dead, "drop", "", b""


def _stepped(reply: Any, want: Want) -> Stepped | str:
    if isinstance(reply, bytes):
        return reply.decode()
    missed, errors, suspects, flat = reply
    return Stepped(
        missed=tuple(missed),
        errors=tuple((text(subject), text(error)) for subject, error in errors),
        suspects=suspects,
        claims=_claimed(flat, want),
    )


def _claimed(flat: Sequence[Any], want: Want) -> list[tuple[int, str, bytes]]:
    """The claims of a reply that names the queue's place and the payload of each."""
    free: dict[int, int] = {}
    claims = []
    for i in range(0, len(flat), 2):
        place = flat[i] - 1
        n = free.get(place) or claim_number(want.tray + len(free), 0)
        claims.append((n, want.queues[place][0], flat[i + 1]))
        free[place] = n + 1
    return claims


class Held(msgspec.Struct, frozen=True):
    """What the server says an owner holds: its generation, and each claim with its source queue."""

    generation: int
    claims: dict[int, str]


def resync(keys: Keyspace, owner: str, lease_ms: int, now: float | None = None) -> Op[Held | str]:
    """Raise the generation and read the index. FENCED if the lease is gone. Safe: each time raises it again."""
    names = (keys.lease, keys.index(owner), keys.pulse)
    return call("resync", names, (owner, lease_ms, moment(now, 1000)), _held)


def _held(reply: Any) -> Held | str:
    if isinstance(reply, bytes):
        return reply.decode()
    generation, fields = reply
    return Held(generation, index_claims(dict(zip(fields[::2], fields[1::2], strict=True))))


def index_claims(fields: Mapping[bytes, bytes]) -> dict[int, str]:
    """The claims among an index's fields, in the order of claiming: number -> queue name."""
    claims: dict[int, str] = {}
    for field in sorted((field for field in fields if field.isdigit()), key=int):
        states, _, queue = fields[field].partition(b" ")
        first, name = claim_number(int(field), 0), text(queue)
        claims |= {first + i: name for i, state in enumerate(states) if state == HELD}
    return claims


def index_marks(fields: Mapping[bytes, bytes]) -> set[int]:
    """The claims of an index whose suspect was started alone."""
    return {int(field[2:]) for field in fields if field.startswith(b"s:")}


def held_payloads(keys: Keyspace, owner: str, numbers: Sequence[int]) -> Op[list[bytes | None]]:
    """The payloads of an owner's claims, None where there is none."""
    places = [divmod(n, TRAY) for n in numbers]
    return pipeline("held_payloads", [("LINDEX", keys.tray(owner, tray), position) for tray, position in places])


def index(keys: Keyspace, owner: str) -> Op[dict[bytes, bytes]]:
    """An owner's whole index, as the reaper reads it."""
    return Op("index", (("HGETALL", keys.index(owner)),), lambda replies: _mapping(replies[0]), safe=True)


def _mapping(reply: Any) -> dict[bytes, bytes]:
    return dict(reply) if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def mark(keys: Keyspace, owner: Owner, n: int, before: int | None = None) -> Op[bool]:
    """Note that a suspect is about to run, and take the mark off `before`. False: the claim is no longer ours."""
    names = (keys.lease, keys.index(owner.name))
    args = (owner.name, n, tray_of(n), "" if before is None else before)
    return call("mark", names, args, lambda reply: reply == 1)


def leave(keys: Keyspace, owner: str) -> Op[bool]:
    """Give the lease back. False if claims are left; a reaper returns them when the lease has run out."""
    return call("leave", (keys.lease, keys.index(owner), keys.pulse), (owner,), lambda reply: reply == 1)


def suspicion(keys: Keyspace, jids: Sequence[str]) -> Op[list[bool]]:
    """Which of these jids were taken along by a crash lately."""
    op = ("ZMSCORE", keys.suspects, *jids)
    return Op("suspicion", (op,), lambda replies: [score is not None for score in replies[0]], safe=True)


def absolve(keys: Keyspace, owner: Owner, n: int, jid: str) -> Op[list[Any]]:
    """A suspect ran to an outcome: forget its crashes, and its mark."""
    unmark = ("HDEL", keys.index(owner.name), f"s:{n}")
    return pipeline("absolve", [("ZREM", keys.suspects, jid), ("DEL", keys.rescued(jid)), unmark])


# -- what is due -----------------------------------------------------------------------------------------------------


def due(source: str, most: int = MAX_BATCH, now: float | None = None) -> Op[tuple[float, list[tuple[bytes, float]]]]:
    """Members of the set `source` whose time has come: the server's now (s), and (member, score) oldest first."""
    return call("due", (source,), (moment(now, 1), most), _due)


def _due(reply: Any) -> tuple[float, list[tuple[bytes, float]]]:
    now, *flat = reply
    return float(now), [(flat[i], float(flat[i + 1])) for i in range(0, len(flat), 2)]


class Move(msgspec.Struct, frozen=True, gc=False):
    """What to do with one due member: `push` it, try it `later`, bury it (`dead`) or `drop` it.

    `at` is the new score for later and dead, and for a push that the server refuses; `queue` has no prefix.
    """

    member: bytes
    score: float
    verb: str
    at: float
    payload: bytes = b""
    queue: str = ""


def promote(
    keys: Keyspace, source: str, moves: Sequence[Move], *, dead_max: int, dead_timeout: float, now: float
) -> Op[list[bool | str]]:
    """Carry out moves, each only if its member still stands there with its score.

    Per move: True, False where somebody was faster, or the server's error.
    """
    names: list[Word] = [source, keys.dead, keys.queues]
    args: list[Word] = [dead_max, dead_timeout, repr(now)]
    for move in moves:
        names.append(keys.queue(move.queue) if move.verb == "push" else keys.dead)
        args += (move.member, repr(move.score), move.verb, repr(move.at), move.payload, move.queue)
    return call("promote", names, args, lambda reply: [r == 1 if isinstance(r, int) else text(r) for r in reply])


# -- being seen ------------------------------------------------------------------------------------------------------


def batch(commands: Sequence[Command], *, safe: bool = False, strict: bool = False) -> Op[list[Any]]:
    """Plain single-key commands in one script that runs although memory is full; an error comes back as a `Refusal`.

    With `strict` it is raised, as Refused, if this user may not do it at all; the other commands have been run.
    """
    names: list[Word] = []
    args: list[Word] = []
    for verb, key, *rest in commands:
        names.append(key)
        args += (verb, len(rest), *rest)

    def parse(reply: Any) -> list[Any]:
        pairs = zip(commands, reply, strict=True)
        return [permitted(words[0], each) if strict else told(each) for words, each in pairs]

    return call("batch", names, args, parse, safe=safe)


def info(section: str) -> Op[dict[str, str]]:
    """One section of the server's INFO, as text by name."""
    return Op("info", (("INFO", section),), lambda replies: _info(text(replies[0])), safe=True)


def _info(body: str) -> dict[str, str]:
    lines = (line for line in body.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in (line.partition(":") for line in lines)}

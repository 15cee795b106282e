"""What readers of queues, sets and rows ask of Redis: pages that stay in place, scans, and many keys at once.

Ops, as those of `ops.py`, for the API and through it for every page and command that shows something. They only read,
so they may be sent again and a crash leaves nothing behind. Each is bounded, by entries and by bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import hiredis
import msgspec

from pillion.store.op import Command, Op, Word, call, command, text

MOST_BYTES = 1_000_000
MOST_LOOKED_AT = 2_000


class Place(msgspec.Struct, frozen=True):
    """Where a walk through a queue stands: after the job that was the `n`th, counted from the oldest, and its bytes."""

    n: int
    raw: bytes


class Spot(msgspec.Struct, frozen=True):
    """Where a walk through a set stands: after the entry with this score and these bytes."""

    score: float
    raw: bytes


def queue_page(
    queue: str,
    after: Place | None = None,
    *,
    most: int = 50,
    up: bool = False,
    containing: str | bytes = "",
    look_at: int = MOST_LOOKED_AT,
) -> Op[tuple[list[Place], Place | None]]:
    """The next jobs of the list `queue`, and where to go on, None at the end.

    From the newest to the oldest, with `up` the other way; only those whose bytes contain a text, if there is one: then
    a page may be empty and not be the last.
    """
    start: tuple[Word, Word] = ("", "") if after is None else (after.n, after.raw)
    args = (1 if up else -1, *start, most, look_at, MOST_BYTES, containing)
    return call("queue_page", (queue,), args, _queue_page)


def _queue_page(reply: Any) -> tuple[list[Place], Place | None]:
    n, raw, *flat = reply
    found = [Place(int(flat[i]), flat[i + 1]) for i in range(0, len(flat), 2)]
    return found, Place(int(n), raw) if n else None


def set_page(
    key: str, after: Spot | None = None, *, most: int = 50, up: bool = False
) -> Op[tuple[list[Spot], Spot | None]]:
    """The next entries of the sorted set `key`, and where to go on, None at the end.

    From the highest score to the lowest, with `up` the other way.
    """
    start: tuple[Word, Word] = ("", "") if after is None else (repr(after.score), after.raw)

    def parse(reply: Any) -> tuple[list[Spot], Spot | None]:
        more, *flat = reply
        found = _spots(flat)
        return found, found[-1] if found and more else None

    return call("set_page", (key,), (1 if up else -1, *start, most, MOST_BYTES), parse)


def at_score(key: str, low: float, high: float) -> Op[list[Spot]]:
    """The entries of a sorted set between two scores, both included."""
    words = ("ZRANGE", key, repr(low), repr(high), "BYSCORE", "WITHSCORES")
    return Op("at_score", (words,), lambda replies: _spots(_flat(replies[0])), safe=True)


def highest(key: str) -> Op[tuple[int, float | None]]:
    """How many entries a sorted set has, and its highest score."""
    commands: tuple[Command, ...] = (("ZCARD", key), ("ZRANGE", key, 0, 0, "REV", "WITHSCORES"))

    def parse(replies: Sequence[Any]) -> tuple[int, float | None]:
        top = _flat(replies[1])
        return int(replies[0]), float(top[1]) if top else None

    return Op("highest", commands, parse, safe=True)


def scan_set(key: str, cursor: int, match: str, most: int) -> Op[tuple[int, list[Spot]]]:
    """One round of ZSCAN: the next cursor, 0 at the end, and entries, which may come twice over several rounds."""
    words = ("ZSCAN", key, cursor, "MATCH", match, "COUNT", most)
    return Op("scan", (words,), lambda replies: (int(replies[0][0]), _spots(replies[0][1])), safe=True)


def ask(commands: Iterable[Command]) -> Op[list[Any]]:
    """Plain reads of one key each, in one exchange; where the server refused one, its answer is a `Refusal`."""
    names: list[Word] = []
    args: list[Word] = []
    for verb, key, *rest in commands:
        names.append(key)
        args += (verb, len(rest), *rest)
    return call("ask", names, args, lambda reply: [_told(each) for each in reply])


def scan_names(key: str, cursor: int = 0, most: int = 1_000) -> Op[tuple[int, list[str]]]:
    """One round of SSCAN over a set of names; a key that is no set has none."""

    def parse(reply: Any) -> tuple[int, list[str]]:
        cursor, found = _told(reply[0]) or (0, ())
        return int(cursor), [text(name) for name in found]

    return call("ask", (key,), ("SSCAN", 3, cursor, "COUNT", most), parse)


class Refusal(str):
    """What the server said instead of an answer, such as WRONGTYPE. It is false: `answer or 0` reads as expected."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


def length(key: str) -> Op[int]:
    """How many jobs a list has."""
    return command("LLEN", key)


def count(key: str) -> Op[int]:
    """How many entries a sorted set has."""
    return command("ZCARD", key)


def members(key: str) -> Op[int]:
    """How many names a set has."""
    return command("SCARD", key)


def oldest(queue: str) -> Op[bytes | None]:
    """The job of a list that is taken next."""
    return command("LINDEX", queue, -1)


def member(key: str, name: str) -> Op[bool]:
    """Whether a name is in a set."""
    return command("SISMEMBER", key, name)


def mapping(reply: Any) -> dict[bytes, bytes]:
    """What HGETALL answered inside a script, as a mapping; empty where it was refused."""
    return {} if isinstance(reply, Refusal) else dict(zip(reply[::2], reply[1::2], strict=True))


def _told(reply: Any) -> Any:
    return Refusal(reply) if isinstance(reply, hiredis.ReplyError) else reply


def _spots(flat: Sequence[Any]) -> list[Spot]:
    return [Spot(float(flat[i + 1]), flat[i]) for i in range(0, len(flat), 2)]


def _flat(reply: Sequence[Any]) -> list[Any]:
    """Members and scores in one row; outside of scripts the server answers in pairs."""
    return [word for pair in reply for word in pair] if reply and isinstance(reply[0], list) else list(reply)

"""What readers of queues, sets and rows ask of Redis: pages that stay in place, scans, and many keys at once.

Ops, as those of `ops.py`, for the API and through it for every page and command that shows something. They only read,
so they may be sent again and a crash leaves nothing behind. Each is bounded, by entries and by bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from pillion.store.op import Command, Op, Refusal, Word, call, command, permitted, text

T = TypeVar("T")

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


class Sifted(msgspec.Struct, Generic[T], frozen=True):
    """A part of a walk that passes over what it is not looking for.

    Attributes:
        found: what it looks for.
        ranks: in a set how many come before each in the walk, in a queue its place.
        after: where to go on; None at the end.
        looked: how many it looked at.
        rank: of the last of those.
    """

    found: list[T]
    ranks: list[int]
    after: T | None
    looked: int
    rank: int


def digest(raw: bytes) -> str:
    """What a cursor keeps of a job's bytes."""
    import hashlib  # noqa: PLC0415 - as in scripts.py: it loads OpenSSL

    return hashlib.sha1(raw, usedforsecurity=False).hexdigest()[:16]


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
    sifted = sift_queue(queue, after, most=most, up=up, containing=containing, look_at=look_at)
    return _paired(sifted)


def sift_queue(
    queue: str,
    after: Place | None = None,
    *,
    most: int = 50,
    up: bool = False,
    containing: str | bytes = "",
    folded: bool = False,
    look_at: int = MOST_LOOKED_AT,
) -> Op[Sifted[Place]]:
    """`queue_page`, and how many were looked at. `folded`: the text is in small letters, and A to Z count as a to z."""
    start: tuple[Word, Word] = ("", "") if after is None else (after.n, after.raw)
    args = (1 if up else -1, *start, most, look_at, MOST_BYTES, containing, int(folded))

    def parse(reply: Any) -> Sifted[Place]:
        n, raw, looked, *flat = reply
        found = [Place(int(flat[i]), flat[i + 1]) for i in range(0, len(flat), 2)]
        return Sifted(found, [place.n for place in found], Place(int(n), raw) if n else None, int(looked), int(n) or 1)

    return call("queue_page", (queue,), args, parse)


def set_page(
    key: str, after: Spot | None = None, *, most: int = 50, up: bool = False
) -> Op[tuple[list[Spot], Spot | None]]:
    """The next entries of the sorted set `key`, and where to go on, None at the end.

    From the highest score to the lowest, with `up` the other way.
    """
    sifted = sift_set(key, after, most=most, up=up, look_at=most)
    return _paired(sifted)


def sift_set(
    key: str,
    after: Spot | None = None,
    *,
    most: int = 50,
    up: bool = False,
    containing: str | bytes = "",
    folded: bool = False,
    look_at: int = MOST_LOOKED_AT,
) -> Op[Sifted[Spot]]:
    """`set_page` of those entries whose bytes contain a text, and how many were looked at; see `sift_queue`."""
    start: tuple[Word, Word] = ("", "") if after is None else (repr(after.score), after.raw)

    def parse(reply: Any) -> Sifted[Spot]:
        more, looked, rank, raw, score, *flat = reply
        after = Spot(float(score), raw) if more and looked else None
        found = [Spot(float(flat[i + 1]), flat[i]) for i in range(0, len(flat), 3)]
        return Sifted(found, [int(each) for each in flat[2::3]], after, int(looked), int(rank))

    args = (1 if up else -1, *start, most, MOST_BYTES, look_at, containing, int(folded))
    return call("set_page", (key,), args, parse)


def _paired(sifting: Op[Sifted[T]]) -> Op[tuple[list[T], T | None]]:
    """The same question, answered by what was found and where to go on."""

    def parse(replies: Sequence[Any]) -> tuple[list[T], T | None]:
        sifted = sifting.parse(replies)
        return sifted.found, sifted.after

    return Op(sifting.name, sifting.commands, parse, sifting.script, sifting.safe)


def locate_place(queue: str, n: int, digest: str) -> Op[Place]:
    """The job that stood at place `n`, by the `digest` of its bytes, for a walk towards older ones."""
    return call("locate", (queue,), (-1, n, digest, ""), lambda reply: Place(int(reply[0]), reply[1]))


def locate_spot(key: str, rank: int, score: float, digest: str, *, up: bool) -> Op[Spot | None]:
    """The entry that stood at this rank of a walk, or one after which it can go on; None where it begins anew."""

    def parse(reply: Any) -> Spot | None:
        return Spot(float(reply[0]), reply[1]) if reply[0] else None

    return call("locate", (key,), (1 if up else -1, rank, digest, repr(score)), parse)


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
    """Plain reads of one key each, in one exchange; where the server refused one, its answer is a `Refusal`.

    What this user may not read is no emptiness: then the whole is Refused.
    """
    names: list[Word] = []
    args: list[Word] = []
    asked: list[Word] = []
    for verb, key, *rest in commands:
        asked.append(verb)
        names.append(key)
        args += (verb, len(rest), *rest)
    return call("ask", names, args, lambda reply: [permitted(*each) for each in zip(asked, reply, strict=True)])


def scan_names(key: str, cursor: int = 0, most: int = 1_000) -> Op[tuple[int, list[str]]]:
    """One round of SSCAN over a set of names; a key that is no set has none."""

    def parse(reply: Any) -> tuple[int, list[str]]:
        cursor, found = permitted("SSCAN", reply[0]) or (0, ())
        return int(cursor), [text(name) for name in found]

    return call("ask", (key,), ("SSCAN", 3, cursor, "COUNT", most), parse)


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


def _spots(flat: Sequence[Any]) -> list[Spot]:
    return [Spot(float(flat[i + 1]), flat[i]) for i in range(0, len(flat), 2)]


def _flat(reply: Sequence[Any]) -> list[Any]:
    """Members and scores in one row; outside of scripts the server answers in pairs."""
    return [word for pair in reply for word in pair] if reply and isinstance(reply[0], list) else list(reply)

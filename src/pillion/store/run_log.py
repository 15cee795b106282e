"""The run log in Redis: how runs are packed, and the ops that append and page.

Workers append (`worker/run_log.py`), the API reads (`api/runs.py`). There are two logs, of runs that failed and of
those that went well, so that a storm of one kind drops none of the other; each has half of the bytes. Runs stand in
chunks of about 4 KB, which a server searches at the speed of memory. Appending may be refused and lost, and is never
sent twice; reading is safe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from pillion.store.keys import RUNS_TTL, Keyspace
from pillion.store.op import Op, Word, call, text
from pillion.store.reads import ask

State: TypeAlias = Literal["done", "failed"]
STATES: tuple[State, ...] = ("done", "failed")

CHUNK_BYTES = 4_000
LOOK_BYTES = 4_000_000
PAGE_BYTES = 256_000


class Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A run as it is stored: times in whole milliseconds since the epoch, durations in microseconds."""

    jid: str
    klass: str
    queue: str
    attempt: int
    began: int
    micros: int
    wait: int | None
    outcome: str
    error_class: str | None
    error_message: str | None
    stands_for: int = 1


class Chunk(msgspec.Struct, array_like=True, frozen=True):
    """Runs of one owner, in the order in which they were settled."""

    owner: str
    rows: list[Row]


class Stored(msgspec.Struct, frozen=True):
    """A chunk and its id in the log."""

    id: str
    chunk: Chunk


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Chunk).decode


def pack(rows: Mapping[str, Sequence[Row]]) -> Iterator[bytes]:
    """Runs by owner, as chunks."""
    for owner, mine in rows.items():
        part: list[Row] = []
        room = CHUNK_BYTES
        for row in mine:
            part.append(row)
            room -= len(_encode(row))
            if room <= 0:
                yield _encode(Chunk(owner, part))
                part, room = [], CHUNK_BYTES
        if part:
            yield _encode(Chunk(owner, part))


def append(keys: Keyspace, state: State, chunks: Iterable[bytes], most_bytes: int) -> Op[int]:
    """Add chunks to the log of a state and keep it within its bytes. Returns how many stand there."""
    args: tuple[Word, ...] = (state, most_bytes, RUNS_TTL, *chunks)
    return call("log_runs", (keys.runs(state), keys.run_sizes), args, int, safe=False)


def page(
    keys: Keyspace, state: State, at: str = "", containing: str = "", *, most_bytes: int = PAGE_BYTES
) -> Op[tuple[list[Stored], str | None]]:
    """Chunks from the id `at` on (the newest), newest first, and where to go on, None at the end.

    With `containing` only those in which that text stands as a value. What cannot be read is passed over.
    """
    needle = _encode(containing) if containing else b""

    def parse(reply: Any) -> tuple[list[Stored], str | None]:
        after, *flat = reply
        found = [_stored(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
        return [each for each in found if each is not None], text(after) or None

    return call("log_page", (keys.runs(state),), (at, LOOK_BYTES, most_bytes, needle), parse)


def sizes(keys: Keyspace) -> Op[list[Any]]:
    """Bytes of both logs in the order of `STATES`, then the oldest chunk of each."""
    oldest = [("XRANGE", keys.runs(state), "-", "+", "COUNT", 1) for state in STATES]
    return ask([("HMGET", keys.run_sizes, *STATES), *oldest])


def _stored(number: bytes, raw: bytes) -> Stored | None:
    try:
        return Stored(text(number), _decode(raw))
    except msgspec.MsgspecError:
        return None

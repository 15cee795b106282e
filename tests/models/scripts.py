"""The scripts as lists of writes, for the explorer: a script either runs whole or stops at an error after any write.

Each function performs its writes on a `Shard` in the order of the Lua file and yields after each, so that whoever runs
it can stop there: Redis does not take back what a script has written. `WRITES` says which commands of the Lua files
these are; a test compares the two. Time is counted in ticks: two to a lease, or one where the pulse is left out.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

HALF = 1
STOPPED = "STOPPED"
SURE = "sure"
"""After this write the script cannot stop: the next one is to a key that it has just read as what it should be."""

Writes: TypeAlias = Generator[str | None, None, Any]
Faults: TypeAlias = frozenset[str]

WRITES = {
    "join": ["HSET g", "ZADD lease"],
    "step": ["ZADD lease", "RPUSH queue", "ZADD destination", "ZREMRANGEBYSCORE", "ZREMRANGEBYRANK", "HSET index",
             "HDEL index", "LMOVE queue"],
    "resync": ["ZADD lease", "HINCRBY g"],
    "fence": ["ZADD fenced", "ZADD salvage", "ZREM lease", "DEL pulse", "ZREMRANGEBYSCORE"],
    "salvage": ["ZREMRANGEBYSCORE", "RPUSH queue", "INCR", "EXPIRE", "ZADD suspects", "ZADD dead", "ZREMRANGEBYSCORE",
                "ZREMRANGEBYRANK", "DEL counter", "ZREM suspects", "DEL index", "ZREM salvage"],
    "shared/pulse": ["HSET last", "HSET last"],
    "shared/trays": ["LSET", "HSET index", "HDEL index", "UNLINK trays"],
}  # fmt: skip
"""The write commands of each script in the order of its text; what a word after the verb says is for people."""


@dataclass
class Holder:
    """What Redis knows of one owner: ticks its lease still has (None: no lease), generation (0: no index), claims.

    A slot is a tray for one claim. Only its first payload is one that the index names.
    """

    lease: int | None = None
    generation: int = 0
    index: set[int] = field(default_factory=set)
    slots: dict[int, tuple[int, ...]] = field(default_factory=dict)
    fenced: bool = False
    salvage: bool = False


@dataclass
class Shard:
    """All keys that the scripts touch, and how long a `lease` is.

    `gap` and `run` are ticks since the pulse's `last` and `since`. Without a pulse whoever is late may be fenced at any
    time, which allows everything that can happen with it, and more.
    """

    queue: list[int]
    retry: set[int]
    done: set[int]
    holders: dict[str, Holder]
    gap: int = HALF + 1
    run: int = 0
    lease: int = 2
    faults: Faults = frozenset()

    def beat(self) -> None:
        if self.lease < 2:
            return
        if self.gap > HALF:
            self.run = 0
        self.gap = 0

    @property
    def steady(self) -> bool:
        return self.lease < 2 or "no pulse" in self.faults or (self.gap <= HALF and self.run >= self.lease)


def join(shard: Shard, owner: str) -> Writes:
    holder = shard.holders[owner]
    if holder.fenced or holder.generation:
        return 0
    holder.generation = 1
    yield
    holder.lease = shard.lease
    yield
    shard.beat()
    yield
    return 1


def step(
    shard: Shard, owner: str, generation: int, settled: tuple[tuple[int, str, int], ...], want: int, first: int
) -> Writes:
    """`settled` holds (slot, "done", "retry" or "requeue", job)."""
    holder, faults = shard.holders[owner], shard.faults
    if (holder.lease is None and "no fencing" not in faults) or not holder.generation:
        return "FENCED"
    if generation < holder.generation and "no generation" not in faults:
        return "STALE"
    if holder.lease is not None:
        holder.lease = shard.lease
    yield
    shard.beat()
    yield
    yield from _settle(shard, holder, settled)
    claimed = []
    while want > len(claimed) and shard.queue:
        n = first + len(claimed)
        claimed.append(n)
        yield from _claim(shard, holder, n)
    return tuple((n, holder.slots[n][-1]) for n in claimed)


def _settle(shard: Shard, holder: Holder, settled: tuple[tuple[int, str, int], ...]) -> Writes:
    faults = shard.faults
    held = [item for item in settled if item[0] in holder.index or "no index check" in faults]
    if held and "old place first" in faults:
        yield from _remove(holder, held)
    for n, verb, job in held:
        if verb == "retry":
            shard.retry.add(job)
            yield
        elif verb == "requeue":
            shard.queue += holder.slots.get(n, ())[:1]
            yield SURE
    for _, verb, job in held:
        if verb == "done":
            shard.done.add(job)  # no write: the job is known to have ended when its slot goes
    if held and "old place first" not in faults:
        yield from _remove(holder, held)


def _remove(holder: Holder, held: list[tuple[int, str, int]]) -> Writes:
    holder.index -= {n for n, _, _ in held}
    yield
    for n, _, _ in held:
        holder.slots.pop(n, None)
    yield


def _claim(shard: Shard, holder: Holder, n: int) -> Writes:
    faults = shard.faults
    if "pop before the index" in faults:
        job = shard.queue.pop()
        yield
        holder.index.add(n)
        holder.slots[n] = (*holder.slots.get(n, ()), job)
        yield
        return
    if "index last" not in faults:
        holder.index.add(n)
        yield
    job = shard.queue.pop()
    holder.slots[n] = (*holder.slots.get(n, ()), job)
    yield
    if "index last" in faults:
        holder.index.add(n)
        yield


def resync(shard: Shard, owner: str) -> Writes:
    holder = shard.holders[owner]
    if holder.lease is None or not holder.generation:
        return "FENCED"
    holder.lease = shard.lease
    yield
    shard.beat()
    yield
    holder.generation += 1
    yield
    return holder.generation, tuple(sorted((n, holder.slots.get(n, (0,))[0]) for n in holder.index))


def fence(shard: Shard, owner: str) -> Writes:
    holder, faults = shard.holders[owner], shard.faults
    if holder.lease is None:
        return int(holder.salvage)
    if holder.lease > 0 or not shard.steady:
        return 0
    if "lease goes first" in faults:
        holder.lease = None
        yield
    holder.fenced = True
    yield
    if "the fenced are forgotten" not in faults:
        holder.salvage = True
        yield SURE
    holder.lease = None
    yield
    return 1


def salvage(shard: Shard, owner: str, numbers: tuple[int, ...]) -> Writes:
    holder = shard.holders[owner]
    moved = [n for n in numbers if n in holder.index]
    for n in moved:
        shard.queue += holder.slots.get(n, ())[:1]
        yield SURE
    if moved:
        holder.index -= set(moved)
        yield
        for n in moved:
            holder.slots.pop(n, None)
        yield
    if holder.index:
        return 0
    if holder.generation:
        holder.generation = 0
        yield
    holder.salvage = False
    yield
    return 1


def carry_out(writes: Writes, stop: int | None) -> Any:
    """Run a script to its end, or to its `stop`-th write; its reply, or STOPPED. A `stop` beyond its end is its end."""
    done = 0
    try:
        while stop is None or done < stop:
            done += next(writes) is not SURE
    except StopIteration as end:
        return end.value
    return STOPPED

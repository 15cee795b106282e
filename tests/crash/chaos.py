"""Chaos: producers that push, and killers that kill, each in a thread of its own, at moments that a seed decides.

A killer draws the pauses between two kills from an even spread, so that its moments have nothing to do with what the
victims are doing. All that happens is kept in lists for `account.py`, which draws up the account afterwards.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import redis

from pillion.errors import MaybeEnqueued, PartlyEnqueued, PoolTimeout, Refused, StoreError, Unavailable
from tests.crash.app import Flaky, Quick, QuickAsync
from tests.crash.bed import Bed, Process
from tests.crash.ledger import now
from tests.waiting import wait_until

CLASSES = (Quick, QuickAsync)
FLAKY_SHARE = 0.03
ONCE_SHARE = 0.1
MS = (5, 20)
PAUSE_WHEN_DOWN = 0.05
QUEUES = ("default", "other")
OPTIONS: dict[str, Any] = {"concurrency": 4, "queues": list(QUEUES)}


@dataclass(frozen=True)
class Kill:
    """A worker's end: its process, when, the jobs in its trays, and which of them were marked as suspects that run."""

    pid: int
    at: float
    stranded: frozenset[str]
    marked: frozenset[str]


@dataclass(frozen=True)
class Remains:
    """What a dead worker left in Redis."""

    had_lease: bool
    jids: frozenset[str]
    marked: frozenset[str]


@dataclass
class Pushed:
    """What became of the pushes, by jid."""

    accepted: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    unsent: int = 0


class Thread(threading.Thread):
    """A thread of the chaos; `check` raises what ended it."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(name=getattr(work, "__qualname__", "chaos"), daemon=True)
        self._work = work
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # told by `check`
            self.error = error

    def check(self) -> None:
        if self.error is not None:
            raise AssertionError(f"the {self.name} thread ended") from self.error


class Producer:
    """Pushes `count` jobs over about `seconds`, one by one and in bulk, sync or async; see `pushed` afterwards."""

    def __init__(self, bed: Bed, count: int, seconds: float, rng: random.Random, *, use_asyncio: bool) -> None:
        self.pushed = Pushed()
        self._client = bed.client
        self._count = count
        self._pause = seconds / (count / 30)
        self._rng = rng
        self._asyncio = use_asyncio
        self._over = threading.Event()

    def work(self) -> None:
        if self._asyncio:
            asyncio.run(self._push_and_close())
        else:
            finish(self._push_all())

    def end(self) -> None:
        """Push nothing more."""
        self._over.set()

    async def _push_and_close(self) -> None:
        await self._push_all()
        await self._client.setup.astore.close()

    async def _push_all(self) -> None:
        while not self._over.is_set() and (left := self._count - len(self.pushed.accepted)) > 0:
            size = min(self._rng.choice((1, 1, 20, 68)), left)
            await self._push(size)
            await self._sleep(self._rng.uniform(0, 2 * self._pause * size / 30))

    async def _push(self, size: int) -> None:
        """Push `size` jobs of one class and note what became of them."""
        early = len(self.pushed.accepted) < 0.8 * self._count
        flaky = early and self._rng.random() < FLAKY_SHARE
        item: dict[str, Any] = {
            "class": Flaky if flaky else self._rng.choice(CLASSES),
            "queue": self._rng.choice(QUEUES),
            "args": [[self._rng.uniform(*MS)] for _ in range(size)],
        }
        once = self._rng.random() < ONCE_SHARE
        try:
            if self._asyncio:
                jids = await self._client.apush_bulk(item, once=once)
            else:
                jids = self._client.push_bulk(item, once=once)
            assert isinstance(jids, list)
            self.pushed.accepted.update(jid for jid in jids if jid)
        except MaybeEnqueued as maybe:
            self.pushed.accepted.update(maybe.confirmed)
            self.pushed.unknown.update(maybe.unknown)
        except PartlyEnqueued as partly:
            self.pushed.accepted.update(partly.confirmed)
            self.pushed.unsent += len(partly.unsent)
        except (Unavailable, PoolTimeout, Refused):
            self.pushed.unsent += size
            await self._sleep(PAUSE_WHEN_DOWN)

    async def _sleep(self, seconds: float) -> None:
        if self._asyncio:
            await asyncio.sleep(seconds)
        else:
            self._over.wait(seconds)


def finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that awaits nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("the coroutine waits for something")


class WorkerKiller:
    """Kills one of two workers, puts a new one in its place at once, and lets it come to work before the next kill.

    `kills` are those of workers that held a lease; the others had just lost it to an outage.
    """

    def __init__(self, bed: Bed, count: int, seconds: float, rng: random.Random, over: threading.Event) -> None:
        self.kills: list[Kill] = []
        self.early = 0
        self.workers = [bed.start_ready(**OPTIONS), bed.start_ready(**OPTIONS)]
        self._bed = bed
        self._count = count
        self._pause = seconds / count
        self._rng = rng
        self._over = over

    def work(self) -> None:
        while len(self.kills) < self._count and not self._over.wait(self._rng.uniform(0, 2 * self._pause)):
            self._kill(self._rng.randrange(2))

    def _at_work(self, worker: Process) -> bool:
        try:
            return bool(self._bed.owners(worker.pid))
        except redis.RedisError:
            return self._over.is_set()

    def _kill(self, i: int) -> None:
        victim, survivor = self.workers[i], self.workers[1 - i]
        wait_until(lambda: self._at_work(survivor), timeout=30, what="the other worker to be at work")
        assert victim.code is None, f"worker {victim.pid} ended by itself with {victim.code}\n{victim.said()[-3000:]}"
        victim.kill()
        at = now()
        self.workers[i] = self._bed.start(**OPTIONS)
        remains = wait_until(lambda: self._remains(victim), timeout=10, what="the server to come back")
        assert remains is not None
        if remains.had_lease:
            self.kills.append(Kill(victim.pid, at, remains.jids, remains.marked))
            for jid in remains.jids or {"-"}:
                self._bed.ledger.note("stranded", jid, owner=f"{at:.6f}", n=victim.pid)
        else:
            self.early += 1

    def _remains(self, victim: Process) -> Remains | None:
        """What the victim left; None while the server is down."""
        try:
            bed, pid = self._bed, victim.pid
            held = frozenset(bed.held_by(pid))
            return Remains(bool(bed.owners(pid)), held, frozenset(bed.marked_by(pid)))
        except (redis.RedisError, StoreError):
            return None


class RedisKiller:
    """Kills the server, leaves it dead for up to `longest` seconds, and brings it back."""

    def __init__(
        self, bed: Bed, count: int, seconds: float, longest: float, rng: random.Random, over: threading.Event
    ) -> None:
        self.outages: list[tuple[float, float]] = []
        self._server = bed.server
        self._note = bed.ledger.note
        self._count = count
        self._pause = seconds / count
        self._longest = longest
        self._rng = rng
        self._over = over

    def work(self) -> None:
        while len(self.outages) < self._count and not self._over.wait(self._rng.uniform(0, 2 * self._pause)):
            self._server.kill()
            self._note("down")
            down = now()
            self._over.wait(self._rng.uniform(0, self._longest))
            self._server.restart()
            self._note("up")
            self.outages.append((down, now()))

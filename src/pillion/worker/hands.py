"""The hands of one capsule: its threads, its share of the event loop, and one token for each job that may run at once.

A capsule has one fetcher with its executor per shard, and all of them put their claims into these hands. Claims start
in the order in which they came, whatever shard they are from; a job of either colour runs only with a *token*.

Who claims how much: a fetcher asks for `room` first. What the others hold or have asked for is taken off, and one that
found no room is *hungry*: the others leave it its share from then on, and it is woken when a job ends. So no shard
starves beside a busy one, and together they never claim more than the capsule can run (but for measured prefetch).

Threads are started on demand and live as long as the worker. They are daemons: a job that never ends cannot keep the
process alive."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Protocol

from pillion.config import Capsule
from pillion.errors import Shutdown
from pillion.registry import Registry
from pillion.worker.loop import LoopThread
from pillion.worker.title import name_thread

log = logging.getLogger("pillion")

MAX_THREADS = 64
FORKED = 70
"""The exit code of a child that a job has forked and let come back."""


class Owned(Protocol):
    """What the hands know of an executor."""

    @property
    def held(self) -> int:
        """How many of its claims are running or waiting to."""
        ...

    def run(self, n: int) -> None:
        """Run claim `n` in this thread, if nobody has taken it back."""
        ...

    def run_on_loop(self, n: int) -> bool:
        """Start claim `n` as a task of the running loop, which gives its token back. False: there is nothing to run."""
        ...

    def wake_fetcher(self) -> None:
        """There is room again."""
        ...


class Hands:
    """Shared by the executors of one capsule."""

    def __init__(self, capsule: Capsule, registry: Registry, loop: LoopThread) -> None:
        self.capsule = capsule
        self.loop = loop
        self.hungry: set[Owned] = set()
        self._registry = registry
        self._executors: list[Owned] = []
        self._asked: dict[Owned, int] = {}
        self._lock = threading.Lock()
        self._inbox: SimpleQueue[tuple[Owned, int] | None] = SimpleQueue()
        self._loop_inbox: deque[tuple[Owned, int]] = deque()
        self._loop_starved = False
        self._tokens: SimpleQueue[None] = SimpleQueue()
        for _ in range(capsule.concurrency):
            self._tokens.put(None)
        self._most_threads = capsule.threads or min(capsule.concurrency, MAX_THREADS)
        self.threads: list[threading.Thread] = []
        self.ended = False

    def join(self, executor: Owned) -> None:
        """Let an executor use these hands."""
        self._executors.append(executor)
        self._asked[executor] = 0

    @property
    def slots(self) -> int:
        """How many jobs can run at once: no more than there are threads, unless some of them may be async."""
        concurrency = self.capsule.concurrency
        return concurrency if self._registry.has_async else min(concurrency, self._most_threads)

    @property
    def held(self) -> int:
        """How many claims of all executors are running or waiting to."""
        return sum(executor.held for executor in self._executors)

    @property
    def alone(self) -> bool:
        """Whether one executor has these hands to itself, so that nobody else can take the room it has found."""
        return len(self._executors) == 1

    # -- how much to claim -----------------------------------------------------------------------------------------

    def room(self, executor: Owned, ahead: int) -> int:
        """How many claims this executor may take now, `ahead` of them beyond what can run at once."""
        if self.alone:
            return max(self.slots + ahead - executor.held, 0)
        return self._free(executor, ahead)

    def ask(self, executor: Owned, ahead: int) -> int:
        """The same, and keep it reserved until it is `answered`. Who finds no room is hungry from now on."""
        if self.alone:
            return self.room(executor, ahead)
        with self._lock:
            room = self._asked[executor] = self._free(executor, ahead)
            if not room and executor.held < self._share():
                self.hungry.add(executor)
            return room

    def answered(self, executor: Owned, *, well: bool) -> None:
        """What this executor had asked for has come, or not: it holds what it holds. Not `well`: its server is away."""
        if self.alone:
            return
        with self._lock:
            asked, self._asked[executor] = self._asked[executor], 0
            sated = executor in self.hungry and (asked > 0 or not well)
            self.hungry -= {executor} if sated else set()
            left = bool(self.hungry) and asked > 0 and self.held + sum(self._asked.values()) < self.slots
        if sated or left:
            self.feed_the_hungry()

    def _free(self, executor: Owned, ahead: int) -> int:
        others = sum(other.held + self._asked[other] for other in self._executors if other is not executor)
        spared = 0 if executor in self.hungry else self._share() * len(self.hungry)
        free = self.slots - max(others, spared) - executor.held
        return max(free + (0 if spared else ahead), 0)

    def _share(self) -> int:
        return max(self.slots // len(self._executors), 1)

    def feed_the_hungry(self) -> None:
        """There may be room for those that found none."""
        for executor in list(self.hungry):
            executor.wake_fetcher()

    # -- work ------------------------------------------------------------------------------------------------------

    def put(self, executor: Owned, numbers: Sequence[int]) -> None:
        """Have threads run these claims. More of them are started first, if there is work for them."""
        self._start_threads(len(numbers))
        for n in numbers:
            self._inbox.put((executor, n))

    def put_on_loop(self, executor: Owned, numbers: Sequence[int]) -> None:
        """Have the loop run these claims."""
        self._loop_inbox.extend((executor, n) for n in numbers)
        self.loop.call(self._pump)

    def _start_threads(self, count: int) -> None:
        missing = min(self._most_threads, self.held) - len(self.threads)
        for _ in range(min(missing, count)):
            name = f"pillion.{self.capsule.name}.{len(self.threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # those there are go on; what nobody starts is given back, and tried again
                log.error("%s could not be started: %s", name, error)
                return
            self.threads.append(thread)

    def release(self) -> None:
        """Give a token back."""
        self._tokens.put(None)
        if self._loop_starved:
            self._loop_starved = False
            self.loop.call(self._pump)

    def release_on_loop(self) -> None:
        """The same, of a job on the loop: what waits for it there begins at once."""
        self._tokens.put(None)
        if self._loop_inbox:
            self._pump()

    def end(self) -> None:
        """Let idle threads go; those in a job end after it."""
        self.ended = True
        for _ in self.threads:
            self._inbox.put(None)

    def _work(self) -> None:
        name_thread()
        here = os.getpid()
        while True:
            try:
                if not self._work_once(here):
                    return
            except Shutdown:  # raised late, between two jobs: the claim it was meant for is back in its queue
                if self.ended:
                    return
            except Exception:
                log.exception("pillion.%s: a job thread met an error of its own; going on", self.capsule.name)

    def _work_once(self, here: int) -> bool:
        work = self._inbox.get()
        if work is None:
            return False
        self._tokens.get()
        try:
            executor, n = work
            executor.run(n)
        finally:
            if os.getpid() != here:  # a child that the job forked and let come back: it must not go on as a worker
                os._exit(FORKED)
            self.release()
        return True

    def _pump(self) -> None:
        """On the loop: start what waits for it while there are tokens."""
        while self._loop_inbox:
            try:
                self._tokens.get_nowait()
            except Empty:
                self._loop_starved = True
                if self._tokens.empty():
                    return
                continue  # one came back before anybody could see that we wait for it
            executor, n = self._loop_inbox.popleft()
            if not executor.run_on_loop(n):
                self.release()

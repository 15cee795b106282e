"""Runs one capsule's claims: sync jobs on threads, async jobs on the process's event loop, both within one concurrency.

    fetcher -- dispatch(claims) --> unstarted --> threads | loop --> finished --> fetcher

The fetcher hands claims in and takes `finished` out. An unstarted claim stands in one dict; whoever pops its number
has it, an executor to start it or the fetcher to give it back, never both. A *token* per running job counts both
colours; whoever holds none waits. Executors write to the fetcher's wake descriptor only when it has said that it
sleeps.

Threads are started on demand and live as long as the worker. They are daemons: a job that never ends cannot keep the
process alive. A crash leaves every claim in its slot.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue

from pillion.clock import Clock
from pillion.config import Capsule
from pillion.errors import Shutdown
from pillion.registry import Registry
from pillion.types import Claim
from pillion.worker.loop import LoopThread
from pillion.worker.runner import REQUEUE, Finished, Run, Runner

log = logging.getLogger("pillion")

MAX_THREADS = 64


class Executor:
    """The hands of one capsule.

    Attributes:
        unstarted: claims that were dispatched and not begun, by number, oldest first.
        running: runs under way, by number.
        finished: outcomes for the fetcher to settle.
        asleep, wake_below: whether the fetcher sleeps, and how few unstarted claims are a reason to wake it.
        valid_until: the steady time after which nothing may be started, because the lease could be gone.
    """

    def __init__(self, capsule: Capsule, runner: Runner, registry: Registry, loop: LoopThread, clock: Clock) -> None:
        self.capsule = capsule
        self.unstarted: dict[int, Claim] = {}
        self.running: dict[int, Run] = {}
        self.finished: deque[Finished] = deque()
        self.valid_until = float("-inf")
        self.wake: Callable[[], None] = _nobody_sleeps
        self.asleep = False
        self.wake_below = 0
        self._runner = runner
        self._registry = registry
        self._steady = clock.steady
        self._loop = loop
        self._inbox: SimpleQueue[int | None] = SimpleQueue()
        self._loop_inbox: deque[int] = deque()
        self._loop_starved = False
        self._tokens: SimpleQueue[None] = SimpleQueue()
        for _ in range(capsule.concurrency):
            self._tokens.put(None)
        self._most_threads = capsule.threads or min(capsule.concurrency, MAX_THREADS)
        self._threads: list[threading.Thread] = []
        self._ended = False

    def dispatch(self, claims: Iterable[Claim], is_async: Callable[[bytes], bool]) -> None:
        """Take claims over, in order; each goes to the threads or to the loop."""
        loop_bound = False
        sync_count = 0
        for claim in claims:
            self.unstarted[claim.n] = claim
            if is_async(claim.raw):
                self._loop_inbox.append(claim.n)
                loop_bound = True
            else:
                self._inbox.put(claim.n)
                sync_count += 1
        if sync_count:
            self._need_threads(sync_count)
        if loop_bound:
            self._loop.call(self._pump)

    def take_back(self, numbers: Iterable[int]) -> list[Claim]:
        """Claims among `numbers` that nobody has begun; they will not be begun any more."""
        popped = (self.unstarted.pop(n, None) for n in numbers)
        return [claim for claim in popped if claim is not None]

    @property
    def slots(self) -> int:
        """How many jobs can run at once: no more than there are threads, unless some of them may be async."""
        concurrency = self.capsule.concurrency
        return concurrency if self._registry.has_async else min(concurrency, self._most_threads)

    @property
    def busy(self) -> int:
        """How many jobs are running."""
        return len(self.running)

    @property
    def held(self) -> int:
        """How many claims are running or waiting to."""
        return len(self.running) + len(self.unstarted)

    def interrupt(self) -> None:
        """Raise `Shutdown` in every job thread and cancel every task. The claims must have been given back before."""
        for run in list(self.running.values()):
            if run.task is not None:
                self._loop.call(run.task.cancel)
            elif run.thread:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(run.thread), ctypes.py_object(Shutdown))

    def end(self) -> None:
        """Let idle threads go; those in a job end after it."""
        self._ended = True
        for _ in self._threads:
            self._inbox.put(None)

    def stuck(self) -> list[str]:
        """Names of the threads that still run a job."""
        busy = {run.thread for run in list(self.running.values()) if run.task is None}
        return [thread.name for thread in self._threads if thread.ident in busy and thread.is_alive()]

    def _need_threads(self, count: int) -> None:
        missing = min(self._most_threads, len(self.unstarted) + len(self.running)) - len(self._threads)
        for _ in range(min(missing, count)):
            name = f"pillion.{self.capsule.name}.{len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # those there are go on; what nobody starts is given back, and tried again
                log.error("%s could not be started: %s", name, error)
                return
            self._threads.append(thread)

    def _work(self) -> None:
        while True:
            try:
                if not self._work_once():
                    return
            except Shutdown:  # raised late, between two jobs: the claim it was meant for is back in its queue
                if self._ended:
                    return
            except Exception:
                log.exception("pillion.%s: a job thread met an error of its own; going on", self.capsule.name)

    def _work_once(self) -> bool:
        n = self._inbox.get()
        if n is None:
            return False
        self._tokens.get()
        try:
            claim = self.unstarted.pop(n, None)
            if claim is not None:
                self._run(claim)
        finally:
            self._release()
        return True

    def _run(self, claim: Claim) -> None:
        run = self._begin(claim)
        if run is None:
            return
        run.thread = threading.get_ident()
        self.running[claim.n] = run
        result, error = self._runner.perform(run)
        self._finish(run, result, error)

    async def _arun(self, run: Run) -> None:
        try:
            result, error = await self._runner.aperform(run)
            self._finish(run, result, error)
        finally:
            self._release()

    def _begin(self, claim: Claim) -> Run | None:
        started = self._steady()
        if started > self.valid_until:
            self._hand_over(Finished(claim, REQUEUE))
            return None
        run = self._runner.begin(claim, started)
        if isinstance(run, Finished):
            self._hand_over(run)
            return None
        return run

    def _finish(self, run: Run, result: object, error: BaseException | None) -> None:
        finished = self._runner.finish(run, result, error)
        self.finished.append(finished)
        self.running.pop(run.claim.n, None)
        if self.asleep and len(self.unstarted) <= self.wake_below:
            self.wake()

    def _hand_over(self, finished: Finished) -> None:
        self.finished.append(finished)
        if self.asleep:
            self.wake()

    def _release(self) -> None:
        self._tokens.put(None)
        if self._loop_starved:
            self._loop_starved = False
            self._loop.call(self._pump)

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
            claim = self.unstarted.pop(self._loop_inbox.popleft(), None)
            run = self._begin(claim) if claim is not None else None
            if run is None:
                self._release()
                continue
            run.thread = threading.get_ident()
            run.task = self._loop.task(self._arun(run))
            self.running[run.claim.n] = run


def _nobody_sleeps() -> None:
    return None

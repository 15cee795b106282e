"""Runs the claims of one fetcher, with the hands of its capsule.

    fetcher -- take(claims), start() --> unstarted --> threads | loop --> finished --> fetcher

The fetcher hands claims in and takes `finished` out. An unstarted claim stands in one dict; whoever pops its number
has it, the hands to start it or the fetcher to give it back, never both. The fetcher's wake descriptor is written only
when it has said that it sleeps. A crash leaves every claim in its tray.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable

from pillion.clock import Clock
from pillion.errors import Shutdown
from pillion.types import Claim
from pillion.worker.hands import Hands
from pillion.worker.runner import REQUEUE, Finished, Run, Runner

log = logging.getLogger("pillion")


class Executor:
    """What one fetcher has in hand.

    Attributes:
        unstarted: claims that were dispatched and not begun, by number, oldest first.
        running: runs under way, by number.
        finished: outcomes for the fetcher to settle.
        asleep, wake_below: whether the fetcher sleeps, and how few unstarted claims are a reason to wake it.
        valid_until: the steady time after which nothing may be started, because the lease could be gone.
    """

    def __init__(self, hands: Hands, runner: Runner, clock: Clock) -> None:
        self.hands = hands
        self.capsule = hands.capsule
        self.unstarted: dict[int, Claim] = {}
        self.running: dict[int, Run] = {}
        self.finished: deque[Finished] = deque()
        self.valid_until = float("-inf")
        self.wake: Callable[[], None] = _nobody_sleeps
        self.asleep = False
        self.wake_below = 0
        self.runner = runner
        self._steady = clock.steady
        self._taken: list[Claim] = []
        self._begun: set[int] = set()
        hands.join(self)

    def take(self, claims: Iterable[Claim]) -> None:
        """Take claims over, in order. They count as held; `start` hands them out."""
        for claim in claims:
            self.unstarted[claim.n] = claim
            self._taken.append(claim)

    def start(self, is_async: Callable[[bytes], bool]) -> None:
        """Give what was taken to the threads or to the loop, in order.

        Best done right before the caller waits: a thread that wakes up needs the interpreter, which the caller holds.
        """
        if not self._taken:
            return
        taken, self._taken = self._taken, []
        for_threads: list[int] = []
        for_loop: list[int] = []
        for claim in taken:
            (for_loop if is_async(claim.raw) else for_threads).append(claim.n)
        if for_loop:
            self.hands.put_on_loop(self, for_loop)
        if for_threads:
            self.hands.put(self, for_threads)

    def take_back(self, numbers: Iterable[int]) -> list[Claim]:
        """Claims among `numbers` that nobody has begun; they will not be begun any more."""
        popped = (self.unstarted.pop(n, None) for n in numbers)
        return [claim for claim in popped if claim is not None]

    @property
    def busy(self) -> int:
        """How many jobs are running."""
        return len(self.running)

    @property
    def held(self) -> int:
        """How many claims are running or waiting to."""
        return len(self.running) + len(self.unstarted)

    @property
    def in_hand(self) -> list[int]:
        """The claims that wait to start, begin, run, or have an outcome that nobody has fetched.

        Read in the order in which a claim goes through them, so that none slips by.
        """
        return [*self.unstarted, *self._begun, *self.running, *(item.claim.n for item in list(self.finished))]

    def interrupt(self) -> None:
        """Raise `Shutdown` in every job thread and cancel every task. The claims must have been given back before."""
        for run in list(self.running.values()):
            if run.task is not None:
                self.hands.loop.call(run.task.cancel)
            elif run.thread:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(run.thread), ctypes.py_object(Shutdown))

    def end(self) -> None:
        """Let idle threads go; those in a job end after it."""
        self.hands.end()

    def stuck(self) -> list[str]:
        """Names of the threads that still run a job of ours."""
        busy = {run.thread for run in list(self.running.values()) if run.task is None}
        return [thread.name for thread in self.hands.threads if thread.ident in busy and thread.is_alive()]

    # -- for the hands ---------------------------------------------------------------------------------------------

    def run(self, n: int) -> None:
        """Run a claim in this thread, if nobody has taken it back."""
        self._begun.add(n)
        try:
            if (claim := self.unstarted.pop(n, None)) is not None:
                self._run_here(claim)
        finally:
            self._begun.discard(n)

    def _run_here(self, claim: Claim) -> None:
        try:
            if run := self._begin(claim):
                run.thread = threading.get_ident()
                self.running[claim.n] = run
                result, error = self.runner.perform(run)
                self._finish(run, result, error)
        except Exception as error:
            self._fail(claim, error)

    def run_on_loop(self, n: int) -> bool:
        """Start a claim as a task of the running loop, which gives its token back. False: there is nothing to run."""
        self._begun.add(n)
        try:
            claim = self.unstarted.pop(n, None)
            return claim is not None and self._start_here(claim)
        finally:
            self._begun.discard(n)

    def _start_here(self, claim: Claim) -> bool:
        try:
            run = self._begin(claim)
        except Exception as error:
            self._fail(claim, error)
            return False
        if run is None:
            return False
        run.thread = threading.get_ident()
        run.task = self.hands.loop.task(self._arun(run))
        self.running[claim.n] = run  # which keeps the task alive
        return True

    def wake_fetcher(self) -> None:
        """There is room again. One that is about to fall asleep hears it, too."""
        self.wake()

    async def _arun(self, run: Run) -> None:
        try:
            result, error = await self.runner.aperform(run)
            self._finish(run, result, error)
        except Exception as error:
            self._fail(run.claim, error)
        finally:
            self.hands.release_on_loop()

    def _begin(self, claim: Claim) -> Run | None:
        started = self._steady()
        if started > self.valid_until:
            self._hand_over(Finished(claim, REQUEUE))
            return None
        run = self.runner.begin(claim, started)
        if isinstance(run, Finished):
            self._hand_over(run)
            return None
        return run

    def _finish(self, run: Run, result: object, error: BaseException | None) -> None:
        finished = self.runner.finish(run, result, error)
        self.finished.append(finished)
        self.running.pop(run.claim.n, None)
        if self.asleep and len(self.unstarted) <= self.wake_below:
            self._wake_once()
        if self.hands.hungry:
            self.hands.feed_the_hungry()

    def _fail(self, claim: Claim, error: Exception) -> None:
        """An error of our own, with the job or about it, is the job's failure: else nobody would ever settle it."""
        log.error("an error of Pillion's own about a claim from %s", claim.queue, exc_info=error)
        if claim.n not in (item.claim.n for item in list(self.finished)):
            self._hand_over(self.runner.fail(claim, error))
        self.running.pop(claim.n, None)

    def _hand_over(self, finished: Finished) -> None:
        self.finished.append(finished)
        if self.asleep:
            self._wake_once()

    def _wake_once(self) -> None:
        """Wake the fetcher; who ends a job before it is up need not do so again, nor spoil its next sleep."""
        self.asleep = False
        self.wake()


def _nobody_sleeps() -> None:
    return None

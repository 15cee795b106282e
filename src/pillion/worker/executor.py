"""Runs the claims of one fetcher, with the hands of its capsule.

    fetcher -- dispatch(claims) --> unstarted --> threads | loop --> finished --> fetcher

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
        hands.join(self)

    def dispatch(self, claims: Iterable[Claim], is_async: Callable[[bytes], bool]) -> None:
        """Take claims over, in order; each goes to the threads or to the loop."""
        hands = self.hands
        loop_bound = False
        sync_count = 0
        for claim in claims:
            self.unstarted[claim.n] = claim
            if is_async(claim.raw):
                hands.put_on_loop(self, claim.n)
                loop_bound = True
            else:
                hands.put(self, claim.n)
                sync_count += 1
        if sync_count:
            hands.need_threads(sync_count)
        if loop_bound:
            hands.pump()

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
        claim = self.unstarted.pop(n, None)
        run = self._begin(claim) if claim is not None else None
        if run is None:
            return
        run.thread = threading.get_ident()
        self.running[n] = run
        result, error = self.runner.perform(run)
        self._finish(run, result, error)

    def run_on_loop(self, n: int) -> bool:
        """Start a claim as a task of the running loop, which gives its token back. False: there is nothing to run."""
        claim = self.unstarted.pop(n, None)
        run = self._begin(claim) if claim is not None else None
        if run is None:
            return False
        run.thread = threading.get_ident()
        run.task = self.hands.loop.task(self._arun(run))
        self.running[n] = run  # which keeps the task alive
        return True

    def wake_fetcher(self) -> None:
        """There is room again. One that is about to fall asleep hears it, too."""
        self.wake()

    async def _arun(self, run: Run) -> None:
        try:
            result, error = await self.runner.aperform(run)
            self._finish(run, result, error)
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

"""How far ahead a fetcher may claim, and how long it may keep what nobody has started.

Prefetch is measured, never blind: it covers about 20 ms of work at the rate at which jobs ended lately, so it is
large for jobs of microseconds and nothing for jobs of seconds. A claim that has waited longer than a quarter of a
second was a wrong guess: it goes back to the head of its queue, where another process may take it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from pillion.clock import Clock
from pillion.types import Claim
from pillion.worker.executor import Executor

SECONDS_AHEAD = 0.020
MOST_AHEAD = 400
MAX_AGE = 0.250
MEMORY = 0.1
"""Seconds over which the rate is an average. By time and not by looks: these come in bunches, just when jobs end."""
MIN_INTERVAL = 0.0005


class Pace:
    """Measures one executor."""

    def __init__(self, executor: Executor, clock: Clock) -> None:
        self._executor = executor
        self._steady = clock.steady
        self._rate = 0.0
        self._ended = 0
        self._since = clock.steady()
        self._batches: deque[tuple[float, int]] = deque()
        self._dispatched = 0

    def dispatched(self, claims: Sequence[Claim]) -> None:
        """Note that these claims were handed to the executor."""
        if claims:
            self._dispatched += len(claims)
            self._batches.append((self._steady(), claims[-1].n))

    def prefetch(self) -> int:
        """How many claims may wait beyond the free slots."""
        now = self._steady()
        interval = now - self._since
        if interval >= MIN_INTERVAL:
            ended = self._dispatched - self._executor.held
            rate = max(ended - self._ended, 0) / interval
            self._rate += (1 - math.exp(-interval / MEMORY)) * (rate - self._rate)
            self._ended, self._since = ended, now
        return min(int(self._rate * SECONDS_AHEAD), MOST_AHEAD)

    def overdue(self) -> list[int]:
        """Numbers of claims that have waited too long. Guessing starts anew after that."""
        now, last = self._steady(), 0
        while self._batches and now - self._batches[0][0] > MAX_AGE:
            last = self._batches.popleft()[1]
        late = [n for n in list(self._executor.unstarted) if n <= last]
        if late:
            self._rate = 0.0
        return late

    def patience(self) -> float:
        """Seconds until the oldest unstarted claim is overdue; endless without one."""
        oldest = min(list(self._executor.unstarted), default=None)
        while self._batches and oldest is not None and self._batches[0][1] < oldest:
            self._batches.popleft()  # all begun: its age is no reason to look
        if oldest is None or not self._batches:
            return float("inf")
        return max(self._batches[0][0] + MAX_AGE - self._steady(), 0.001)

    def has_work_in_hand(self) -> bool:
        """Whether the executor can go on for a while without new claims."""
        return len(self._executor.unstarted) > self._executor.capsule.concurrency

"""When to start a process again that died: at once the first time, then after growing pauses. A pure decision."""

from __future__ import annotations

FIRST = 1.0
LONGEST = 30.0
LONG_LIFE = 60.0


class Restarts:
    """The restarts of one place. Times are steady seconds.

    The first death is answered at once, for it is most likely an accident, and capacity is missing. Deaths that follow
    each other wait 1 s, 2 s, 4 s, ... up to 30 s. Who lived for a minute has shown that it can.
    """

    def __init__(self) -> None:
        self._deaths = 0
        self._not_before = float("-inf")

    def died(self, lived: float, now: float) -> float:
        """Note a death after so many seconds of life; returns the pause before the next start."""
        if lived >= LONG_LIFE:
            self._deaths = 0
        pause = 0.0 if self._deaths == 0 else min(FIRST * 2 ** (self._deaths - 1), LONGEST)
        self._deaths = min(self._deaths + 1, 10)
        self._not_before = now + pause
        return pause

    def may_start(self, now: float) -> bool:
        """Whether the pause is over."""
        return now >= self._not_before

"""Time, as the house reads it: wall seconds for records, steady seconds for deadlines.

Everything that asks for the time takes a `Clock`, so tests drive it. Leases, due checks and limiter windows use the
*server's* clock inside their scripts; this one never decides who owns a job.
"""

from __future__ import annotations

import time
from typing import Protocol

_STEADY = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


class Clock(Protocol):
    """Two readings, both in seconds."""

    def now(self) -> float:
        """Seconds since the epoch, as the host's wall clock has it."""
        ...

    def steady(self) -> float:
        """Seconds on a clock that never jumps and, on Linux, keeps counting while the host sleeps."""
        ...


class SystemClock:
    """The host's own clocks."""

    def now(self) -> float:
        return time.time()

    def steady(self) -> float:
        return time.monotonic() if _STEADY is None else time.clock_gettime(_STEADY)

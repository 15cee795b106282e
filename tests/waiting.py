"""Waiting for something that another process does, bounded and with a message that helps.

Use it only across processes, where there is no event to wait on: `wait_until(lambda: client.llen("queue:a") == 0,
what="queue a to drain")`. Inside one process wait on an event, or drive the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.05


def wait_until(fn: Callable[[], T], timeout: float = 10.0, what: str = "the condition") -> T:
    """Call `fn` until it gives something true, and return that.

    Raises AssertionError after `timeout` seconds, with the last answer of `fn`. What `fn` raises passes through: a
    condition that may fail for a while says so itself, by returning False.
    """
    deadline = time.monotonic() + timeout
    pause = FIRST_PAUSE
    while not (answer := fn()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; the last answer was {answer!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
    return answer

"""A crash suspect runs alone. The gate makes sure of it over all capsules of a process.

A job that was running when its process died may have killed it. The next process runs each such *suspect* with
nothing else in flight, so that a second crash convicts the right job. Who holds the gate is the only fetcher that may
start anything. All waiting is bounded: a suspect beside a job of many hours starts in company after a while, and the
others go on beside a suspect that takes long. That is safe for them, because a rescue counts only the suspect that was
marked as started."""

from __future__ import annotations

import threading
from collections.abc import Callable

PATIENCE = 10.0


class Gate:
    """At most one holder; everybody else starts nothing meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: object | None = None
        self._since = 0.0
        self._counts: list[Callable[[], int]] = []

    def add(self, held: Callable[[], int]) -> None:
        """Let the gate ask how many claims a capsule has in flight."""
        self._counts.append(held)

    def take(self, who: object, now: float) -> bool:
        """Hold the gate, or go on holding it. False while somebody else does."""
        with self._lock:
            if self._holder is None:
                self._holder, self._since = who, now
            return self._holder is who

    def clear(self, now: float, besides: int = 0) -> bool:
        """Whether the holder may start: nothing is in flight but `besides` others, or patience has run out."""
        return sum(count() for count in self._counts) <= besides or now - self._since > PATIENCE

    def free(self, who: object) -> None:
        """Let go of the gate if held."""
        with self._lock:
            if self._holder is who:
                self._holder = None

    def shuts_out(self, who: object) -> bool:
        """Whether somebody else holds the gate."""
        return self._holder is not None and self._holder is not who

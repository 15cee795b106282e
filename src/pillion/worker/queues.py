"""In which order, and with what share, a step looks at a capsule's queues.

Strict: always in the order given, each taking all it can. Random and weighted: a new order for every step, a queue's
chance of being first in proportion to its weight, as Sidekiq does per fetch. Since one step claims many jobs, a
queue's part of it is capped by its weight while others have jobs too; what they leave, it may take."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pillion.config import Capsule, Config


class QueueOrder:
    """Gives the (name, share) pairs of each step."""

    def __init__(self, capsule: Capsule, config: Config) -> None:
        self._queues = list(dict.fromkeys(capsule.queues))
        self._strict = capsule.mode == "strict"
        self._weights = [max(weight, 1) for _, weight in self._queues]
        self._rng = config.rng

    @property
    def names(self) -> Sequence[str]:
        return [name for name, _ in self._queues]

    def next(self, want: int) -> tuple[tuple[str, int], ...]:
        """The queues for a step that wants `want` jobs."""
        if self._strict or len(self._queues) == 1:
            return tuple((name, want) for name, _ in self._queues)
        total = sum(self._weights)
        # Keys u**(1/w) sorted down are a weighted shuffle (Efraimidis and Spirakis, 2006).
        keyed = [
            (self._rng.random() ** (1 / weight), name, math.ceil(want * weight / total))
            for (name, _), weight in zip(self._queues, self._weights, strict=True)
        ]
        return tuple((name, share) for _, name, share in sorted(keyed, reverse=True))

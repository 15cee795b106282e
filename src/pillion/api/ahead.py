"""When scheduled jobs are due: how many in each stretch of the hours to come, for the chart of a dashboard.

It only counts, by the set's order; no job is read."""

from __future__ import annotations

from pillion.api.faces import Face, Plan, ask, faces
from pillion.api.stats import number
from pillion.errors import UsageError
from pillion.store import reads

MOST_BUCKETS = 500


class Ahead(Face):
    """What is due next."""

    def plan_read(self, hours: float = 24, buckets: int = 96) -> Plan[list[int]]:
        """How many scheduled jobs are due in each of some equal parts of the next `hours`; late ones are in the first.

        O(buckets * log N), one exchange. Raises UsageError for no time, or fewer than 1 or more than 500 parts.
        """
        if hours <= 0 or not 1 <= buckets <= MOST_BUCKETS:
            raise UsageError(f"expected hours above 0 and 1 to {MOST_BUCKETS} buckets, got {hours!r} and {buckets!r}")
        now, step = self.config.clock.now(), hours * 3600 / buckets
        edges = ["-inf", *(f"({now + i * step!r}" for i in range(1, buckets)), f"({now + hours * 3600!r}"]
        lows = [edges[0], *(edge[1:] for edge in edges[1:-1])]
        asked = [("ZCOUNT", self.keys.schedule, low, high) for low, high in zip(lows, edges[1:], strict=True)]
        return [number(answer) for answer in (yield from ask(reads.ask(asked)))]

    read, aread = faces(plan_read)

"""The figures of the whole: totals, sizes, days. What a dashboard's first page shows.

The counters are Sidekiq's, so Ruby's dashboard shows the same figures; they are as old as the last beat of each
process, 10 s at most. All of this only reads, but for `reset`. A key of the wrong type counts as nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, TypeAlias

import msgspec

from pillion.api.faces import Face, Plan, ask, faces, names
from pillion.api.queue import Queues, QueueSummary
from pillion.api.record import JobRecord
from pillion.client import Client
from pillion.errors import UsageError
from pillion.store import reads, repair
from pillion.store.op import Command

Counter: TypeAlias = Literal["processed", "failed"]
COUNTERS: tuple[Counter, ...] = ("processed", "failed")
MOST_DAYS = 5 * 365


class Figures(msgspec.Struct, frozen=True):
    """What `Stats.read` found, all of one moment.

    Attributes:
        processed: runs that ended since the counter was last reset, failed ones included.
        failed: those of them that failed.
        scheduled_size, retry_size, dead_size: entries of the three sets.
        enqueued: jobs that wait in all queues; what workers have claimed is not among them.
        processes_size: worker processes on the list.
        workers_size: jobs that run, as the processes last said.
        default_queue_latency: seconds since the oldest job in `default` was pushed.
        queues: how many jobs wait in each queue, the largest first.
    """

    processed: int
    failed: int
    scheduled_size: int
    retry_size: int
    dead_size: int
    enqueued: int
    processes_size: int
    workers_size: int
    default_queue_latency: float
    queues: dict[str, int]


class Stats(Face):
    """The figures of everything on one server: `Stats().read().processed`."""

    def plan_read(self) -> Plan[Figures]:
        """All figures at once. O(queues + processes), in three exchanges up to 1,000 of each.

        In Sidekiq the object is made of the quick half; the sum of the queues and what runs cost further exchanges.
        """
        processes = yield from names(self.keys.processes)
        queues = yield from names(self.keys.queues)
        answers = yield from ask(reads.ask(self._questions(processes, queues)))
        processed, failed, scheduled, retries, dead, oldest = answers[:6]
        busy, sizes = answers[6 : 6 + len(processes)], [number(size) for size in answers[6 + len(processes) :]]
        latency = JobRecord(oldest, clock=self.config.clock).latency if isinstance(oldest, bytes) else 0.0
        return Figures(
            processed=number(processed),
            failed=number(failed),
            scheduled_size=number(scheduled),
            retry_size=number(retries),
            dead_size=number(dead),
            enqueued=sum(sizes),
            processes_size=len(processes),
            workers_size=sum(number(count) for count in busy),
            default_queue_latency=latency,
            queues=dict(sorted(zip(queues, sizes, strict=True), key=lambda item: -item[1])),
        )

    read, aread = faces(plan_read)

    def plan_queues(self) -> Plan[dict[str, int]]:
        """How many jobs wait in each queue, the largest first. O(queues), two exchanges."""
        return (yield from Queues(self.client).plan_sizes())

    queues, aqueues = faces(plan_queues)

    def plan_queue_summaries(self) -> Plan[list[QueueSummary]]:
        """Each queue at a glance: size, latency, paused; the largest first. O(queues), two exchanges."""
        return (yield from Queues(self.client).plan_summaries())

    queue_summaries, aqueue_summaries = faces(plan_queue_summaries)

    def plan_reset(self, *counters: Counter) -> Plan[None]:
        """Set `processed` and `failed`, or only those named, to zero; the days keep theirs. O(1). Raises UsageError."""
        for name in counters:
            if name not in COUNTERS:
                raise UsageError(f"expected one of {', '.join(COUNTERS)}, got {name!r:.40}")
        yield from ask(repair.reset(self.keys, counters or COUNTERS))

    reset, areset = faces(plan_reset)

    def _questions(self, processes: list[str], queues: list[str]) -> list[Command]:
        keys = self.keys
        return [
            *(("GET", keys.stat(name)) for name in COUNTERS),
            *(("ZCARD", key) for key in (keys.schedule, keys.retry, keys.dead)),
            ("LINDEX", keys.queue("default"), -1),
            *(("HGET", keys.process(name), "busy") for name in processes),
            *(("LLEN", keys.queue(name)) for name in queues),
        ]


class History(Face):
    """The counters of the last days, newest first, zeros for gaps: `History(30).processed()["2026-01-31"]`.

    Days are UTC's. Raises UsageError for fewer than 1 or more than 1,825 days: the counters live for five years.
    """

    def __init__(self, days: int, start: date | None = None, client: Client | None = None) -> None:
        super().__init__(client)
        if type(days) is not int or not 1 <= days <= MOST_DAYS:
            raise UsageError(f"expected 1 to {MOST_DAYS} days, got {days!r:.40}; the counters of a day live five years")
        self._days = days
        self._start = start

    def plan_processed(self) -> Plan[dict[str, int]]:
        """Runs that ended, by day (`YYYY-MM-DD`). O(days), one exchange."""
        return (yield from self._counts("processed"))

    processed, aprocessed = faces(plan_processed)

    def plan_failed(self) -> Plan[dict[str, int]]:
        """Runs that failed, by day (`YYYY-MM-DD`). O(days), one exchange."""
        return (yield from self._counts("failed"))

    failed, afailed = faces(plan_failed)

    def _counts(self, counter: Counter) -> Plan[dict[str, int]]:
        first = self._start or datetime.fromtimestamp(self.config.clock.now(), UTC).date()
        days = [(first - timedelta(days=n)).isoformat() for n in range(self._days)]
        answers = yield from ask(reads.ask([("GET", self.keys.stat(counter, day)) for day in days]))
        return dict(zip(days, map(number, answers), strict=True))


def number(answer: Any) -> int:
    """A counter as the server has it; 0 for none, and for what is no number."""
    try:
        return int(answer or 0)
    except (TypeError, ValueError):
        return 0

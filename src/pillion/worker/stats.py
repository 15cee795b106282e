"""Counting what was settled, in Sidekiq's keys: totals, days, metrics per minute and ten minutes, histograms.

Fetchers add, the heartbeat flushes. Counts are kept in memory between two beats; if a flush fails they are put back
(Sidekiq loses them), if the process dies they are lost, which is why nothing depends on them.

Layout after Sidekiq 8.1: `stat:*`; hashes `j|YYMMDD|H:MM` and `j|YYMMDD|H:M` with fields `<class>|p`, `|f`, `|ms`; and
`h|<class>-D-H:M`, a bitfield of 26 saturating u16 counters. They carry the minute of the flush. With `wire` "7" and "6"
a minute and its histogram stand under the names of 7.x instead, never under both: readers add the two up.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

from pillion.config import Wire
from pillion.store.keys import MINUTE_TTL, STAT_TTL, TEN_MINUTES_TTL, Keyspace
from pillion.store.ops import Command
from pillion.types import Requeue, Snooze
from pillion.worker.runner import Finished

# Upper bounds in ms; a time belongs to the first bound strictly greater, the last slot takes the rest.
BOUNDS = (
    *(20, 30, 45, 65, 100, 150, 225, 335, 500, 750, 1_100, 1_700, 2_500, 3_800, 5_750, 8_500, 13_000, 20_000),
    *(30_000, 45_000, 65_000, 100_000, 150_000, 225_000, 335_000),
)


class Counts:
    """What happened since the last flush."""

    __slots__ = ("failed", "metrics", "processed", "slots")

    def __init__(self) -> None:
        self.processed = 0
        self.failed = 0
        self.metrics: Counter[str] = Counter()
        self.slots: Counter[tuple[str, int]] = Counter()

    def merge(self, other: Counts) -> None:
        self.processed += other.processed
        self.failed += other.failed
        self.metrics += other.metrics
        self.slots += other.slots


class Stats:
    """The counters of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()

    def add(self, settled: Iterable[Finished]) -> None:
        """Count settled jobs. What was put back or snoozed is no attempt; what never ran has no time."""
        with self._lock:
            counts = self._counts
            for item in settled:
                if type(item.outcome) is Requeue:
                    continue
                counts.processed += 1
                failed = item.failure is not None or item.rejected is not None
                counts.failed += failed
                if item.name and "|" not in item.name and type(item.outcome) is not Snooze:
                    _measure(counts, item, failed)

    def take(self) -> Counts:
        """Everything counted so far; it starts from zero again."""
        with self._lock:
            taken, self._counts = self._counts, Counts()
            return taken

    def put_back(self, counts: Counts) -> None:
        """Return what could not be flushed."""
        with self._lock:
            self._counts.merge(counts)


def _measure(counts: Counts, item: Finished, failed: bool) -> None:
    name, metrics = item.name, counts.metrics
    metrics[f"{name}|p"] += 1
    if failed:
        metrics[f"{name}|f"] += 1
        return
    ms = item.elapsed * 1000
    metrics[f"{name}|ms"] += round(ms)
    counts.slots[name, bisect_right(BOUNDS, ms)] += 1


def flush_commands(keys: Keyspace, counts: Counts, now: float, wire: Wire = "8") -> list[Command]:
    """The commands that add `counts` to Redis at the time `now` (epoch seconds), under the names of `wire`."""
    if not counts.processed:
        return []
    moment = datetime.fromtimestamp(now, UTC)
    classes = _histograms(keys, counts, moment, wire) + _minutes(keys, counts, moment, wire)
    return _totals(keys, counts, moment) + classes


def _totals(keys: Keyspace, counts: Counts, moment: datetime) -> list[Command]:
    commands: list[Command] = []
    for counter, n in (("processed", counts.processed), ("failed", counts.failed)):
        day = keys.stat(counter, moment.strftime("%Y-%m-%d"))
        commands += [("INCRBY", keys.stat(counter), n), ("INCRBY", day, n), ("EXPIRE", day, STAT_TTL)]
    return commands


def _histograms(keys: Keyspace, counts: Counts, moment: datetime, wire: Wire) -> list[Command]:
    commands: list[Command] = []
    for name in dict.fromkeys(name for name, _ in counts.slots):
        if wire == "8":
            key = keys.histogram(name, moment.day, moment.hour, moment.minute)
        else:
            key = keys.old_histogram(name, f"{moment:%d}", f"{moment:%H}", moment.minute)
        slots = [(slot, n) for (other, slot), n in counts.slots.items() if other == name]
        words = [word for slot, n in slots for word in ("INCRBY", "u16", f"#{slot}", n)]
        commands += [("BITFIELD", key, "OVERFLOW", "SAT", *words), ("EXPIRE", key, MINUTE_TTL)]
    return commands


def _minutes(keys: Keyspace, counts: Counts, moment: datetime, wire: Wire) -> list[Command]:
    """Tens of minutes are 8's alone: 7 looks for none, and longer times are read from them."""
    date, label = f"{moment:%y%m%d}", f"{moment.hour}:{moment.minute:02}"
    old = keys.minute(f"{moment:%Y%m%d}", f"{moment.hour}:{moment.minute}")
    minute = keys.minute(date, label) if wire == "8" else old
    commands: list[Command] = []
    for key, ttl in ((keys.minute(date, label[:-1]), TEN_MINUTES_TTL), (minute, MINUTE_TTL)):
        commands += [("HINCRBY", key, field, n) for field, n in counts.metrics.items()]
        if counts.metrics:
            commands.append(("EXPIRE", key, ttl))
    return commands

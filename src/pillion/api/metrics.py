"""How often each job class ran, how often it failed and how long it took, by the minute or by ten.

Sidekiq's metrics and their meaning: `Metrics().top_jobs(hours=8)` over all classes, `Metrics().for_job("HardWorker")`
with histograms. Runs are counted in the minute of the beat that reported them. Failed runs have no time, so averages
divide by the others. Sidekiq 7 named minutes and histograms otherwise; both names are read and added up. Minutes live
for 8 hours, tens of minutes for three days. All times are UTC. This only reads, in two or three exchanges; Sidekiq
reads each minute's histogram in one of its own."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

import msgspec

from pillion.api.deploy import Deploy
from pillion.api.faces import Face, Plan, ask, faces
from pillion.api.stats import number
from pillion.store import reads
from pillion.store.op import Command, text

Granularity: TypeAlias = Literal["minutely", "hourly"]

DEFAULT_MINUTES = 60
MOST_MINUTES = 480
MOST_HOURS = 72
LABELS = (
    *("20ms", "30ms", "45ms", "65ms", "100ms", "150ms", "225ms", "335ms", "500ms", "750ms", "1.1s", "1.7s", "2.5s"),
    *("3.8s", "5.75s", "8.5s", "13s", "20s", "30s", "45s", "65s", "100s", "150s", "225s", "335s", "Slow"),
)
"""What the slots of a histogram are called, from the fastest on: the time that a run took less than."""

_SLOTS = tuple(word for slot in range(len(LABELS)) for word in ("GET", "u16", f"#{slot}"))
_SPAN: dict[Granularity, int] = {"minutely": 60, "hourly": 600}


class Mark(msgspec.Struct, frozen=True):
    """A deploy: when, what, and the bucket of the chart it falls into."""

    time: datetime
    label: str
    bucket: str


class Sums(dict[str, float]):
    """Figures by name; one that is missing reads as 0, and stays missing."""

    def __missing__(self, name: str) -> float:
        return 0.0


class JobResult:
    """The figures of one class. Metrics are `p` runs, `f` failures, `ms` and `s` time; buckets ISO 8601 times.

    Attributes:
        series: metric -> bucket -> figure; a bucket without runs is missing.
        hist: bucket -> runs per slot of the histogram, slowest first (`LABELS` reversed); by minutes only.
        totals: metric -> figure over the whole time.
    """

    def __init__(self) -> None:
        self.series: dict[str, Sums] = {}
        self.hist: dict[str, list[int]] = {}
        self.totals = Sums()

    def add(self, metric: str, bucket: str, value: float) -> None:
        """Count more of a metric; of `ms` also the seconds."""
        self.totals[metric] += value
        self.series.setdefault(metric, Sums())[bucket] += value
        if metric == "ms":
            self.add("s", bucket, value / 1000)

    def total_avg(self, metric: str = "ms") -> float:
        """The metric per run that did not fail; 0 without any."""
        return _per(self.totals[metric], self.totals["p"] - self.totals["f"])

    def series_avg(self, metric: str = "ms") -> dict[str, float]:
        """The same for each bucket of the metric."""
        none = Sums()
        figures, runs, failures = (self.series.get(name, none) for name in (metric, "p", "f"))
        return {bucket: _per(value, runs[bucket] - failures[bucket]) for bucket, value in figures.items()}


class Result(msgspec.Struct):
    """The answer to a question.

    Attributes:
        granularity: `minutely` or `hourly` (six buckets of ten minutes an hour).
        starts_at, ends_at: the time asked about (UTC).
        job_results: the figures by class.
        marks: deploys of that time, in its order.
    """

    granularity: Granularity
    starts_at: datetime
    ends_at: datetime
    job_results: dict[str, JobResult]
    marks: list[Mark]


class Metrics(Face):
    """Questions about how jobs ran."""

    def plan_top_jobs(
        self, class_filter: str | re.Pattern[str] | None = None, minutes: int | None = None, hours: int | None = None
    ) -> Plan[Result]:
        """The figures of all classes, or those whose name matches: a text in it, or a pattern found in it.

        The last `minutes` (60, at most 480; more reads as 60) by the minute, or the last `hours` (at most 72; more
        reads as 72) by ten minutes. O(buckets * classes), two exchanges.
        """
        span, times, starts_at = self._buckets(minutes, hours)
        asked = [("HGETALL", key) for time in times for key in self._minutes(span, time)]
        answers = yield from ask(reads.ask(asked))
        each = len(asked) // len(times)
        results: defaultdict[str, JobResult] = defaultdict(JobResult)
        for i, answer in enumerate(answers):
            bucket = bucket_of(times[i // each], span)
            for field, value in reads.mapping(answer).items():
                name, _, metric = text(field).partition("|")
                if metric and _matches(class_filter, name):
                    results[name].add(metric, bucket, number(value))
        return (yield from self._result(span, times[0], starts_at, dict(results)))

    top_jobs, atop_jobs = faces(plan_top_jobs)

    def plan_for_job(self, name: str, minutes: int | None = None, hours: int | None = None) -> Plan[Result]:
        """The figures of one class, by minutes with a histogram for each. Times as for `top_jobs`.

        O(buckets), three exchanges; a minute's histogram is 26 counters that end at 65,535.
        """
        span, times, starts_at = self._buckets(minutes, hours)
        fields = [f"{name}|{metric}" for metric in ("ms", "p", "f")]
        asked = [("HMGET", key, *fields) for time in times for key in self._minutes(span, time)]
        answers = yield from ask(reads.ask(asked))
        each, result = len(asked) // len(times), JobResult()
        for i, answer in enumerate(answers):
            for metric, value in zip(("ms", "p", "f"), answer or (), strict=False):
                if value is not None:
                    result.add(metric, bucket_of(times[i // each], span), number(value))
        if span == "minutely":
            result.hist = yield from self._histograms(name, times)
        return (yield from self._result(span, times[0], starts_at, {name: result}))

    for_job, afor_job = faces(plan_for_job)

    def _buckets(self, minutes: int | None, hours: int | None) -> tuple[Granularity, list[datetime], datetime]:
        """The granularity, a time in each bucket from now back, and the time before the first."""
        span: Granularity = "hourly" if hours and hours > 0 else "minutely"
        minutes = minutes if minutes and 0 < minutes <= MOST_MINUTES else DEFAULT_MINUTES
        count = min(hours, MOST_HOURS) * 6 if hours and hours > 0 else minutes
        now = datetime.fromtimestamp(self.config.clock.now(), UTC)
        step = timedelta(seconds=_SPAN[span])
        return span, [now - step * n for n in range(count)], now - step * count

    def _minutes(self, span: Granularity, time: datetime) -> Iterable[str]:
        """Where the figures of a bucket stand: for ten minutes in one place, for a minute also in Sidekiq 7's."""
        label = f"{time.hour}:{time.minute:02}"
        if span == "hourly":
            return (self.keys.minute(f"{time:%y%m%d}", label[:-1]),)
        old = self.keys.minute(f"{time:%Y%m%d}", f"{time.hour}:{time.minute}")
        return (self.keys.minute(f"{time:%y%m%d}", label), old)

    def _histograms(self, name: str, times: list[datetime]) -> Plan[dict[str, list[int]]]:
        keys, asked = self.keys, list[Command]()
        for time in times:
            asked.append(("BITFIELD_RO", keys.histogram(name, time.day, time.hour, time.minute), *_SLOTS))
            asked.append(("BITFIELD_RO", keys.old_histogram(name, f"{time:%d}", f"{time:%H}", time.minute), *_SLOTS))
        answers = yield from ask(reads.ask(asked))
        none = [0] * len(LABELS)
        pairs = [(answers[2 * i] or none, answers[2 * i + 1] or none) for i in range(len(times))]
        return {
            bucket_of(time, "minutely"): [new + old for new, old in zip(*pair, strict=True)][::-1]
            for time, pair in zip(times, pairs, strict=True)
        }

    def _result(
        self, span: Granularity, ends_at: datetime, starts_at: datetime, results: dict[str, JobResult]
    ) -> Plan[Result]:
        days = [starts_at.date() + timedelta(days=n) for n in range((ends_at.date() - starts_at.date()).days + 1)]
        found: dict[str, str] = {}
        for of_a_day in (yield from Deploy(self.client).plan_fetch_days(days)):
            found |= of_a_day
        marks = [
            Mark(time, label, bucket_of(time, span)) for time, label in _times(found) if starts_at <= time <= ends_at
        ]
        return Result(span, starts_at, ends_at, results, marks)


def bucket_of(time: datetime, span: Granularity) -> str:
    """The bucket of a chart that a time falls into: its beginning as ISO 8601."""
    seconds = int(time.timestamp())
    return f"{datetime.fromtimestamp(seconds - seconds % _SPAN[span], UTC):%Y-%m-%dT%H:%M:%SZ}"


def _times(marks: Mapping[str, str]) -> list[tuple[datetime, str]]:
    """Marks by their time, without those that have none that can be read."""
    found = []
    for stamp, label in marks.items():
        try:
            time = datetime.fromisoformat(stamp)
        except ValueError:
            continue
        found.append((time if time.tzinfo else time.replace(tzinfo=UTC), label))
    return sorted(found)


def _matches(wanted: str | re.Pattern[str] | None, name: str) -> bool:
    if wanted is None:
        return True
    return wanted in name if isinstance(wanted, str) else wanted.search(name) is not None


def _per(value: float, count: float) -> float:
    return value / count if count else 0.0

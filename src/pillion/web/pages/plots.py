"""Series over time, as both kinds of charts need them: figures for the page's script, and SVG before any script.

Used by the pages that show metrics. A `Plot` is plain data; the macro `ui.plot` draws it, with a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from pillion.api import Mark, Result
from pillion.api.metrics import bucket_of
from pillion.api.overview import Minute
from pillion.web import charts

LABELS_BELOW = 6


class Plot(msgspec.Struct, frozen=True):
    """Runs and failures over time.

    Attributes:
        times: when each bucket began, epoch seconds, oldest first.
        runs, failed: per bucket; failed ones are among the runs.
        marks: deploys: (when, label).
        names: how a bucket is called in the table and on hover.
        daily: buckets are days.
    """

    times: list[float]
    runs: list[float]
    failed: list[float]
    marks: list[tuple[float, str]]
    names: list[str]
    daily: bool = False

    @property
    def data(self) -> str:
        """For the script."""
        marks = [[int(at), label] for at, label in self.marks]
        return charts.data({"t": [int(at) for at in self.times], "r": self.runs, "f": self.failed, "m": marks})

    @property
    def axis(self) -> list[tuple[float, str]]:
        """Labels below the chart, from left to right."""
        step = max(1, len(self.times) // LABELS_BELOW)
        last = max(1, len(self.times) - 1)
        return [(i / last, _below(self.names[i], self.daily)) for i in range(0, len(self.times), step)]

    @property
    def placed(self) -> list[charts.Mark]:
        """The marks by their place."""
        if len(self.times) < 2:
            return []
        first, span = self.times[0], self.times[-1] - self.times[0]
        return [charts.Mark((at - first) / span, label) for at, label in self.marks]

    @property
    def rows(self) -> list[tuple[str, float, float]]:
        """For the table, newest first, without what is empty."""
        found = zip(self.names, self.runs, self.failed, strict=True)
        return [(name, runs, failed) for name, runs, failed in found if runs or failed][::-1]


def of_minutes(minutes: Sequence[Minute], marks: Iterable[Mark]) -> Plot:
    """The throughput of the first page."""
    return Plot(
        [minute.at for minute in minutes],
        [float(minute.runs) for minute in minutes],
        [float(minute.failed) for minute in minutes],
        [(mark.time.timestamp(), mark.label) for mark in marks],
        [f"{datetime.fromtimestamp(minute.at, UTC):%H:%M}" for minute in minutes],
    )


def of_days(processed: Mapping[str, int], failed: Mapping[str, int]) -> Plot:
    """The history: counters by day, newest first as `History` gives them."""
    days = [*processed][::-1]
    times = [datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() for day in days]
    runs, failures = [float(processed[day]) for day in days], [float(failed.get(day, 0)) for day in days]
    return Plot(times, runs, failures, [], days, daily=True)


def buckets_of(result: Result) -> list[datetime]:
    """Every bucket of a metrics answer, oldest first."""
    step = timedelta(seconds=60 if result.granularity == "minutely" else 600)
    found, at = [], result.starts_at + step
    while at <= result.ends_at - step:  # the last is not over
        found.append(at)
        at += step
    return found


def of_result(result: Result, names: Iterable[str] | None = None) -> Plot:
    """All classes of a metrics answer together, or some of them."""
    times = buckets_of(result)
    keys = [bucket_of(time, result.granularity) for time in times]
    chosen = [result.job_results[name] for name in (names or result.job_results) if name in result.job_results]
    runs, failed = _sums(chosen, "p", keys), _sums(chosen, "f", keys)
    marks = [(mark.time.timestamp(), mark.label) for mark in result.marks]
    return Plot([time.timestamp() for time in times], runs, failed, marks, [key[11:16] for key in keys])


def _sums(results: Sequence[Any], metric: str, keys: Sequence[str]) -> list[float]:
    series = [result.series[metric] for result in results if metric in result.series]
    return [sum(each.get(key, 0.0) for each in series) for key in keys]


def _below(name: str, daily: bool) -> str:
    return name[5:] if daily else name

"""Job classes: how often each ran and failed and how long it took; and one of them with its heat map."""

from __future__ import annotations

from typing import Any

import msgspec

from pillion import registry
from pillion.api import LABELS, JobResult, Metrics, Result
from pillion.api.causes import Causes
from pillion.api.runs import Runs
from pillion.web.context import Page, View
from pillion.web.pages.base import answers, several
from pillion.web.pages.plots import buckets_of, of_result

PERIODS = {"1h": 60, "2h": 120, "4h": 240, "8h": 480, "24h": 24, "48h": 48, "72h": 72}
MINUTELY = ("1h", "2h", "4h", "8h")
COLUMNS = 96
FEWEST_ROWS = 12
RECENT = 15
BUDGET = 1_000  # failed jobs that are looked at for causes
ORDERS = {
    "time": lambda row: -row.seconds,
    "runs": lambda row: -row.runs,
    "failed": lambda row: -row.failed,
    "average": lambda row: -row.average,
    "name": lambda row: row.name,
}


class ClassRow(msgspec.Struct, frozen=True):
    """A class in the table.

    Attributes:
        name: as on the wire; of a Rails job the real one.
        runs, failed: in the period; failed ones are among the runs.
        seconds: how long all of them took.
        average: seconds per run that did not fail.
        share: of the time of all classes.
        series: runs over time.
    """

    name: str
    runs: float
    failed: float
    seconds: float
    average: float
    share: float
    series: list[float]


async def classes(view: View) -> Page:
    """`/classes`"""
    period = _period(view)
    wanted, order = view.text("name", most=200), view.text("by", "time", most=10)
    result = _together(await answers(view, lambda client: Metrics(client).atop_jobs(wanted or None, **_asked(period))))
    plot = of_result(result)
    whole = sum(found.totals["s"] for found in result.job_results.values()) or 1.0
    rows = [_row(name, found, whole, result) for name, found in result.job_results.items()]
    return view.page(
        "classes.html",
        ("chart", "list"),
        rows=sorted(rows, key=ORDERS.get(order, ORDERS["time"])),
        plot=plot,
        period=period,
        periods=[(name, name) for name in PERIODS],
        by=order,
        wanted=wanted,
        styles=("uplot.min.css",),
        scripts=("idiomorph.min.js", "uplot.min.js", "pillion.js"),
    )


async def klass(view: View) -> Page:
    """`/classes/NAME`"""
    name, period = view.segment("name"), _period(view)
    result = _together(await answers(view, lambda client: Metrics(client).afor_job(name, **_asked(period))))
    found = result.job_results.get(name, JobResult())
    definition = registry.default.get(name)
    found_causes = await answers(view, lambda client: Causes(client).aread(budget=BUDGET))
    causes = [cause for some in found_causes for cause in some if cause.klass == name]
    recent = (await several(view).aruns_page(most=RECENT, klass=name)).value
    return view.page(
        "class.html",
        ("chart",),
        title=name,
        name=name,
        found=found,
        plot=of_result(result),
        heat=_heat(result, found) if found.hist else None,
        usual=await Runs(view.client).apercentiles(name),
        causes=causes,
        recent=[each.value for each in recent.entries],
        definition=definition,
        period=period,
        periods=[(each, each) for each in PERIODS],
        styles=("uplot.min.css",),
        scripts=("idiomorph.min.js", "uplot.min.js", "pillion.js"),
    )


def _period(view: View) -> str:
    period = view.text("period", "1h", most=10)
    return period if period in PERIODS else "1h"


def _asked(period: str) -> dict[str, Any]:
    return {"minutes" if period in MINUTELY else "hours": PERIODS[period]}


def _row(name: str, found: JobResult, whole: float, result: Result) -> ClassRow:
    plot = of_result(result, [name])
    return ClassRow(
        name,
        found.totals["p"],
        found.totals["f"],
        found.totals["s"],
        found.total_avg("s"),
        found.totals["s"] / whole,
        plot.runs,
    )


def _heat(result: Result, found: JobResult) -> dict[str, Any]:
    """The heat map's columns, thinned, the histogram of all, and their labels."""
    buckets = [f"{at:%Y-%m-%dT%H:%M}" for at in buckets_of(result)]
    columns = {bucket[:16]: slots[::-1] for bucket, slots in found.hist.items()}
    empty = [0] * len(LABELS)
    every = [columns.get(bucket, empty) for bucket in buckets]
    step = max(1, -(-len(every) // COLUMNS))
    thinned = [[sum(slot) for slot in zip(*every[i : i + step], strict=True)] for i in range(0, len(every), step)]
    totals = [sum(slot) for slot in zip(*every, strict=True)] if every else empty
    names = [bucket[11:16] for bucket in buckets[::step]]
    count = max(1, len(names))
    axis = [(i / count, names[i]) for i in range(0, len(names), max(1, count // 6))]
    used = [i for i, count in enumerate(totals) if count] or [0]
    low, high = max(0, used[0] - 2), max(used[-1] + 3, used[0] + FEWEST_ROWS)
    cut = [column[low:high] for column in thinned]
    return {"columns": cut, "names": names, "axis": axis, "rows": LABELS[low:high], "all": LABELS, "totals": totals}


def _together(results: list[Result]) -> Result:
    """The answers of several shards as one."""
    first, *others = results
    for other in others:
        for name, found in other.job_results.items():
            into = first.job_results.setdefault(name, JobResult())
            for metric in ("p", "f", "ms"):
                for bucket, value in found.series.get(metric, {}).items():
                    into.add(metric, bucket, value)
            for bucket, slots in found.hist.items():
                old = into.hist.get(bucket, [0] * len(slots))
                into.hist[bucket] = [a + b for a, b in zip(old, slots, strict=True)]
    return first

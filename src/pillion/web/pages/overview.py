"""The first page: what is wrong in one sentence, six figures, throughput, queues, causes, what runs longest.

One read (`Overview`) per shard and view; the verdict before it is kept per dashboard, so that the sentence does not
flicker. It is lost with the process, and made again by the next look."""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

import msgspec

from pillion.api import Figures, History
from pillion.api.overview import Minute, QueueNow, Snapshot
from pillion.api.verdict import Verdict, judge
from pillion.client import Client
from pillion.web.context import Page, View
from pillion.web.pages.base import answers, several
from pillion.web.pages.plots import Plot, of_days, of_minutes
from pillion.web.pages.verdicts import sentence_of
from pillion.web.site import Site

FRAGMENTS = ("now",)
DAYS = (7, 30, 90, 180)
RECENT = 5
WORST_FIRST = ("alarm", "notice", "ok")

_before: WeakKeyDictionary[Site, dict[str, tuple[Snapshot, Verdict]]] = WeakKeyDictionary()


class Rate(msgspec.Struct, frozen=True):
    """Runs and failures per minute over the last full minutes, the share that failed, and the line of the last hour."""

    done: float
    failed: float
    share: float | None
    runs: list[float]


async def overview(view: View) -> Page:
    """`/`"""
    snapshots, verdict = await look(view)
    snapshot = together(snapshots)
    days = view.number("days", 30, 1, DAYS[-1])
    return view.page(
        "overview.html",
        FRAGMENTS,
        snapshot=snapshot,
        figures=snapshot.figures,
        verdict=verdict,
        sentence=sentence_of(view, verdict),
        action_label=_label(view, verdict),
        worst=worst_queue(snapshot.queues),
        rate=rate_of(snapshot.throughput),
        plot=of_minutes(snapshot.throughput[:-1], snapshot.marks),  # the last minute is not over
        history=await _history(view, days) if view.fragment is None else None,
        days=days,
        choices=[(each, view.words.many("count.days", each)) for each in DAYS],
        styles=("uplot.min.css",),
        scripts=("idiomorph.min.js", "uplot.min.js", "pillion.js"),
    )


async def look(view: View) -> tuple[dict[str, Snapshot], Verdict]:
    """A snapshot of each shard that is shown, and the worst verdict of them."""
    kept = _before.setdefault(view.site, {})
    snapshots = (await several(view).aoverview({name: snapshot for name, (snapshot, _) in kept.items()})).value
    for name, snapshot in snapshots.items():
        kept[name] = (snapshot, judge(snapshot, kept[name][1] if name in kept else None))
    verdicts = sorted((kept[name][1] for name in snapshots), key=lambda each: WORST_FIRST.index(each.level))
    return snapshots, verdicts[0]


def _label(view: View, verdict: Verdict) -> str:
    """What its button says."""
    if verdict.action is None:
        return ""
    key = f"act.{verdict.action.verb}"
    return f"{view.t(key)} {verdict.action.target}" if view.words.has(key) else verdict.action.label


def worst_queue(queues: list[QueueNow]) -> QueueNow | None:
    """The queue whose oldest job has waited longest; None where nothing waits."""
    waiting = [queue for queue in queues if queue.size and not queue.fault]
    return max(waiting, key=lambda queue: queue.latency, default=None)


def rate_of(minutes: list[Minute]) -> Rate:
    """The last five full minutes, and the whole hour as a line."""
    last = minutes[-RECENT - 1 : -1] or minutes
    runs, failed = sum(minute.runs for minute in last), sum(minute.failed for minute in last)
    count = max(1, len(last))
    share = failed / runs if runs else None
    return Rate((runs - failed) / count, failed / count, share, [float(minute.runs) for minute in minutes[:-1]])


async def _history(view: View, days: int) -> Plot:
    """The counters by day, all shards together."""
    processed, failed = dict[str, int](), dict[str, int]()
    for done, bad in await answers(view, lambda client: _days(client, days)):
        for into, found in ((processed, done), (failed, bad)):
            for day, count in found.items():
                into[day] = into.get(day, 0) + count
    return of_days(processed, failed)


async def _days(client: Client, days: int) -> tuple[dict[str, int], dict[str, int]]:
    history = History(days, client=client)
    return await history.aprocessed(), await history.afailed()


def together(snapshots: Mapping[str, Snapshot]) -> Snapshot:
    """The snapshots of several shards as one: sums, and lists one after the other."""
    first, *others = snapshots.values()
    if not others:
        return first
    every = [first, *others]
    queues = sorted((queue for each in every for queue in each.queues), key=lambda queue: -queue.size)
    return msgspec.structs.replace(
        first,
        figures=_figures([each.figures for each in every]),
        queues=queues,
        processes=[process for each in every for process in each.processes],
        causes=sorted((cause for each in every for cause in each.causes), key=lambda cause: -cause.count)[:5],
        longest=sorted((run for each in every for run in each.longest), key=lambda run: -run.seconds)[:5],
        throughput=_minutes([each.throughput for each in every]),
    )


def _minutes(several_of: list[list[Minute]]) -> list[Minute]:
    sums: dict[float, tuple[int, int]] = {}
    for minute in (minute for minutes in several_of for minute in minutes):
        runs, failed = sums.get(minute.at, (0, 0))
        sums[minute.at] = (runs + minute.runs, failed + minute.failed)
    return [Minute(at, runs, failed) for at, (runs, failed) in sorted(sums.items())]


def _figures(every: list[Figures]) -> Figures:
    queues: dict[str, int] = {}
    for figures in every:
        for name, size in figures.queues.items():
            queues[name] = queues.get(name, 0) + size
    summed = "processed failed scheduled_size retry_size dead_size enqueued processes_size workers_size".split()
    sums = {name: sum(getattr(figures, name) for figures in every) for name in summed}
    latency = max(figures.default_queue_latency for figures in every)
    return Figures(**sums, default_queue_latency=latency, queues=queues)

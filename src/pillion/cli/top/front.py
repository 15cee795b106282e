"""The first place of `pillion top`, drawn: the verdict, figures, the last hour, queues, causes, what runs longest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

from pillion.api.overview import Snapshot
from pillion.api.stats import Figures
from pillion.api.verdict import Verdict
from pillion.cli import draw

GOOD, WARN, BAD = "bold #7fb069", "bold #d9a441", "bold #d1605e"
BARS = " ▁▂▃▄▅▆▇█"
STYLES = {"ok": GOOD, "notice": WARN, "alarm": BAD}
MARKS = {"ok": "●", "notice": "▲", "alarm": "■"}
FEW = 5
TILES = (
    ("running", "workers_size"),
    ("queued", "enqueued"),
    ("retries", "retry_size"),
    ("scheduled", "scheduled_size"),
    ("dead", "dead_size"),
    ("processed", "processed"),
    ("failed", "failed"),
)


def bars(values: Sequence[float], most: float = 0.0) -> str:
    """A line of blocks, one for each value, the highest full."""
    top = max([*values, most, 1.0])
    return "".join(BARS[min(8, -(-int(value * 8) // int(top)) if value else 0)] for value in values)


def short(value: float) -> str:
    """`18,412`, from 100,000 on `412k` and `71.3M`."""
    if value < 100_000:
        return draw.number(value)
    return f"{value / 1e3:.0f}k" if value < 1e6 else f"{value / 1e6:.1f}M"


def front(snapshots: Mapping[str, Snapshot], figures: Figures, verdict: Verdict, width: int) -> Text:
    """All of it, for a screen of this width."""
    page = Text(no_wrap=True, overflow="ellipsis")
    _verdict(page, verdict, width)
    _tiles(page, figures, width)
    _hour(page, list(snapshots.values()), width)
    _queues(page, snapshots, width)
    _causes(page, snapshots, width)
    _longest(page, snapshots, width)
    return page


def _verdict(page: Text, verdict: Verdict, width: int) -> None:
    page.append(f"{MARKS[verdict.level]} ", STYLES[verdict.level])
    page.append(f"{draw.safe(verdict.sentence, width - 4)}\n", "bold")
    if verdict.action is not None:
        command = f": {verdict.action.command}" if verdict.action.command else ""
        page.append(f"  {draw.safe(verdict.action.label + command, width - 4)}\n", "dim")
    page.append("\n")


def _tiles(page: Text, figures: Figures, width: int) -> None:
    each = max(9, min(16, (width - 2) // len(TILES)))
    for name, _ in TILES:
        page.append(name.ljust(each), "dim")
    page.append("\n")
    for name, field in TILES:
        value = getattr(figures, field)
        style = BAD if name == "dead" and value else WARN if name == "retries" and value else "bold"
        page.append(short(value).ljust(each), style)
    page.append("\n\n")


def _hour(page: Text, snapshots: list[Snapshot], width: int) -> None:
    """A bar for each minute of the last hour, all shards together."""
    columns = list(zip(*(snapshot.throughput for snapshot in snapshots), strict=False))[-max(10, min(60, width - 20)) :]
    runs = [float(sum(minute.runs for minute in column)) for column in columns]
    failed = [float(sum(minute.failed for minute in column)) for column in columns]
    page.append(f"{'runs a minute':<15}", "dim").append(bars(runs), GOOD.removeprefix("bold "))
    page.append(f" {short(runs[-2] if len(runs) > 1 else 0.0)}\n")
    page.append(f"{'failed':<15}", "dim").append(bars(failed), BAD.removeprefix("bold "))
    page.append(f" {short(failed[-2] if len(failed) > 1 else 0.0)}\n\n")


def _section(page: Text, heads: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[str], width: int) -> None:
    lines = draw.table(heads, rows, right).splitlines()
    page.append(f"{lines[0][:width]}\n", "dim")
    for line in lines[1:]:
        page.append(f"{line[: width - 1]}\n")
    page.append("\n")


def _queues(page: Text, snapshots: Mapping[str, Snapshot], width: int) -> None:
    found = sorted((each for snapshot in snapshots.values() for each in snapshot.queues), key=lambda each: -each.size)
    rows = [
        (
            *(draw.safe(each.name, 24), draw.number(each.size), draw.span(each.latency), each.processes, each.slots),
            draw.NONE if each.growth is None else f"{each.growth:+.1f}/s",
            each.fault or ("paused" if each.paused else ""),
        )
        for each in found[:FEW]
    ]
    heads = ("QUEUE", "SIZE", "LATENCY", "PROCS", "SLOTS", "GROWS", "STATE")
    _section(page, heads, rows, ("SIZE", "LATENCY", "PROCS", "SLOTS", "GROWS"), width)


def _causes(page: Text, snapshots: Mapping[str, Snapshot], width: int) -> None:
    found = sorted((each for snapshot in snapshots.values() for each in snapshot.causes), key=lambda each: -each.count)
    rows = [
        (draw.number(each.count), draw.safe(each.klass, 24), draw.safe(f"{each.error_class}: {each.message}", 90))
        for each in found[:FEW]
    ]
    if rows:
        _section(page, ("JOBS", "FAILING", "BECAUSE"), rows, ("JOBS",), width)


def _longest(page: Text, snapshots: Mapping[str, Snapshot], width: int) -> None:
    found = sorted((each for shard in snapshots.values() for each in shard.longest), key=lambda each: -each.seconds)
    rows = [
        (
            *(draw.span(each.seconds), draw.span(each.usual.run.p95) if each.usual.run else draw.NONE),
            *(draw.safe(each.klass, 30), draw.safe(each.work.queue, 20), draw.safe(each.work.process_id, 30)),
        )
        for each in found[:FEW]
    ]
    if rows:
        _section(page, ("RUNS FOR", "USUALLY", "CLASS", "QUEUE", "PROCESS"), rows, ("RUNS FOR", "USUALLY"), width)

"""What a person sees of the census: a live view on a terminal, plain lines elsewhere, and tables at the end.

Nothing here talks to Redis. `run.py` takes a `Snapshot` several times a second and hands it to `watcher()`.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

BARS = " ▁▂▃▄▅▆▇█"
WINDOW = 1.0
"""Seconds over which the rate is measured."""

console = Console(highlight=False)


@dataclass(frozen=True)
class Snapshot:
    """How far the census is. `at` is seconds since its first push; `queues` has the jobs waiting in each queue."""

    at: float
    total: int
    counted: int
    queues: Mapping[str, int]
    scheduled: int
    retrying: int
    next_retry: float | None
    dead: int


class Watcher(Protocol):
    def show(self, now: Snapshot) -> None: ...


@contextmanager
def watcher() -> Generator[Watcher]:
    """The view for this stdout, for as long as the block lasts."""
    if not sys.stdout.isatty():
        yield PlainLines()
        return
    with Live(console=console, transient=True, refresh_per_second=12) as live:
        yield LiveView(live)


class Pace:
    """Modules per second over the last second, and what it was before."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._history: deque[float] = deque(maxlen=48)

    def add(self, now: Snapshot) -> float:
        self._seen.append((now.at, now.counted))
        while now.at - self._seen[0][0] > WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = (now.counted - before) / (now.at - since) if now.at > since else 0.0
        self._history.append(rate)
        return rate

    def sparkline(self) -> str:
        highest = max(self._history, default=0) or 1
        return "".join(BARS[round(rate / highest * (len(BARS) - 1))] for rate in self._history)


class LiveView:
    """Redraws one block on the terminal."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._pace = Pace()

    def show(self, now: Snapshot) -> None:
        rate = self._pace.add(now)
        self._live.update(self._draw(now, rate))

    def _draw(self, now: Snapshot, rate: float) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim")
        grid.add_column(justify="right", style="bold")
        grid.add_column()
        grid.add_row("counted", f"{now.counted:,}", ProgressBar(now.total, now.counted, width=48))
        grid.add_row("per second", f"{rate:,.0f}", Text(self._pace.sparkline(), style="green"))
        for name, waiting in now.queues.items():
            grid.add_row(f"queue {name}", f"{waiting:,}", "waiting")
        grid.add_row("scheduled", str(now.scheduled), "the summary, until all is counted")
        grid.add_row("retry", Text(str(now.retrying), style="yellow" if now.retrying else ""), _when(now.next_retry))
        grid.add_row("dead", Text(str(now.dead), style="red" if now.dead else ""), "given up")
        return Group(Text(f"census of the standard library, {now.at:.1f} s", style="bold"), grid)


class PlainLines:
    """One line whenever a second has passed, for logs and pipes."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._next = 0.0

    def show(self, now: Snapshot) -> None:
        rate = self._pace.add(now)
        if now.at < self._next:
            return
        self._next = now.at + 1
        waiting = ", ".join(f"{name} {count}" for name, count in now.queues.items())
        print(
            f"{now.at:5.1f} s  {now.counted} of {now.total} counted  {rate:.0f}/s  waiting: {waiting}  "
            f"scheduled {now.scheduled}  retry {now.retrying}  dead {now.dead}",
            flush=True,
        )


def _when(seconds: float | None) -> str:
    return "" if seconds is None else f"the next in {max(seconds, 0):.0f} s"


# --- the end ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What came out.

    Attributes:
        modules: what each module's job noted, by the module's name.
        totals: what the summary job noted.
        fates: of each file that was trouble: its name, the error, the attempts, and where it ended.
        elapsed: seconds from the first push to the summary.
    """

    modules: Mapping[str, Mapping[str, Any]]
    totals: Mapping[str, int]
    fates: Sequence[tuple[str, str, int, str]]
    elapsed: float


def report(result: Result) -> None:
    """Print the tables and the totals."""
    by_functions = sorted(result.modules.items(), key=lambda item: -item[1]["functions"])[:8]
    by_length = sorted(result.modules.items(), key=lambda item: -item[1]["length"])[:5]
    columns = ("functions", "classes", "branches", "lines")
    rows = [(name, *(found[column] for column in columns)) for name, found in by_functions]
    longest = [(f"{name}.{found['longest']}", found["length"]) for name, found in by_length]
    table("Most functions", ("module", *columns), rows)
    table("Longest functions, one per module", ("function", "lines"), longest)
    table("Trouble, and what became of it", ("file", "error", "attempts", "now"), result.fates)
    console.print()
    totals = result.totals
    say(
        f"{totals['modules']:,} files: {totals['lines']:,} lines, {totals['classes']:,} classes, "
        f"{totals['functions']:,} functions, {totals['branches']:,} branches, {totals['bytes'] / 1e6:.1f} MB"
    )
    say(pace(list(result.modules.values())))
    say(f"{result.elapsed:.1f} s from the first push to the summary, which waited for the retries")


def pace(found: Sequence[Mapping[str, Any]]) -> str:
    """Jobs per second, by the times that the jobs noted: from the first one's start to the last one's end."""
    took = max(each["finished"] for each in found) - min(each["started"] for each in found)
    cpu = sum(each["cpu"] for each in found)
    rate = len(found) / took
    return f"{len(found):,} modules in {took:.2f} s: {rate:,.0f} jobs/s in one process; parsing took {cpu:.2f} s of CPU"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; numbers stand right, with thousands apart."""
    drawn = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim", padding=(0, 2))
    for heading, cell in zip(columns, rows[0], strict=True):
        drawn.add_column(heading, justify="right" if isinstance(cell, int) else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in row))
    console.print()
    console.print(drawn)


def say(line: str) -> None:
    """Print a line as it is, however long."""
    console.print(Text(line), soft_wrap=True)

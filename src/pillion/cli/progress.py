"""How far something is, on stderr: a bar on a terminal where rich is installed, else a line every five seconds.

What ends within a second shows nothing."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from pillion.cli import draw, say

if TYPE_CHECKING:
    from pillion.clock import Clock

PATIENCE = 1.0
A_LINE = 5.0


class Progress:
    """`with Progress("retry", clock) as bar: bar.show(done, total)`; `show` may be called as often as one likes."""

    def __init__(self, what: str, clock: Clock) -> None:
        self._what = what
        self._clock = clock
        self._began = clock.steady()
        self._next = self._began + PATIENCE
        self._bar: Any = None
        self._task: Any = None
        self._drawn = say.on_terminal()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, total: int) -> None:
        """So much of so much."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
            return
        now = self._clock.steady()
        if now < self._next or done >= total:
            return
        if self._drawn and self._begin(done, total):
            return
        self._next = now + A_LINE
        say.note(line(self._what, done, total, now - self._began))

    def _begin(self, done: int, total: int) -> bool:
        """Draw a bar; False where there is nothing to draw with."""
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
        except ImportError:
            self._drawn = False
            return False
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task(self._what, completed=done, total=total)
        self._bar.start()
        return True


def line(what: str, done: int, total: int, seconds: float) -> str:
    """`retry: 4,200 of 10,000 (42 %), 1,900/s, 3.1 s left`."""
    rate = done / seconds if seconds > 0 else 0.0
    left = f", {draw.span((total - done) / rate)} left" if rate and total > done else ""
    return f"{what}: {done:,} of {total:,} ({done / max(1, total):.0%}), {draw.number(rate)}/s{left}".replace("%", " %")

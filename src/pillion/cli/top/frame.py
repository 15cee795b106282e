"""The screen of `pillion top` without its keys: the frame, the list, and looking again every two seconds.

One look at a time, and none while rows are marked or something is being read or asked. Where Redis does not answer it
says so, keeps what it showed, and looks again. `app.py` adds what the keys do."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual.app import App, ComposeResult, ScreenStackError
from textual.containers import VerticalScroll
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.theme import Theme
from textual.widgets import DataTable, Input, Static

from pillion.api.query import QuerySyntax
from pillion.api.several import Cursors, Several
from pillion.api.verdict import Verdict, judge
from pillion.cli import draw
from pillion.cli.status import LEVELS
from pillion.cli.top.doing import Doing
from pillion.cli.top.front import BAD, WARN, front
from pillion.cli.top.places import PLACES, RIGHT, Listing, Place, Row, now_of
from pillion.errors import StoreError, UsageError

CALM = Theme(
    name="pillion",
    primary="#7aa2c8",
    secondary="#8aa398",
    accent="#7aa2c8",
    success="#7fb069",
    warning="#d9a441",
    error="#d1605e",
    background="#14171b",
    surface="#14171b",
    panel="#1d2228",
    dark=True,
)
HINTS = "/ filter  x mark  Enter open  r retry  K kill  D delete  ? help  q quit"
LOOKS = "/ filter  Enter open  ] more  : go  ? help  q quit"
HINTS_OF = {
    "Overview": "1 … 9 places  : go  ? help  q quit",
    "Queues": "/ filter  Enter its jobs  p pause or resume  ? help  q quit",
    "Running": "/ filter  Enter open  s show stack  c copy id  ? help  q quit",
    "Failures": "/ filter  Enter its jobs  R retry all of it  ? help  q quit",
    "Workers": "/ filter  s show stacks  Q quiet  S stop  ? help  q quit",
}
GONE = (NoMatches, ScreenStackError)
"""There is no screen any more: it ends just now."""
WIDE = 92
STATES = {"dead": BAD, "retry": WARN, "paused": WARN, "quiet": WARN, "unserved": BAD}
TO_READ = 6.0
"""Seconds that what became of an act stays, unless a person goes on."""


class Frame(App[None]):
    """The frame, and what it shows."""

    CSS_PATH = "top.tcss"

    def __init__(self, several: Several, *, read_only: bool = False, every: float = 2.0) -> None:
        super().__init__()
        self.several = several
        self.read_only = read_only
        self.every = every
        self.doing = Doing(several)
        self.place: Place = PLACES[0]
        self.words: dict[str, str] = {}
        self.listing = Listing([])
        self.marked: dict[str, Row] = {}
        self.all_marked = False
        self.after: Cursors | None = None
        self.looks = 0
        self._clock = next(iter(several.clients.values())).setup.config.clock
        self._read_by = 0.0
        self._before: dict[str, Any] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._shown: Place | None = None

    # --- the screen ---------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield Static(id="places")
        with VerticalScroll(id="front"):
            yield Static(id="page")
        yield DataTable(id="table", cursor_type="row", zebra_stripes=False)
        yield Static(id="note")
        yield Input(id="line", select_on_focus=False)
        yield Static(id="hints")

    def on_mount(self) -> None:
        self.register_theme(CALM)
        self.theme = CALM.name
        self.table.cursor_foreground_priority = "renderable"
        self._draw_frame()
        self.set_interval(self.every, self._tick)
        self.action_look()

    async def on_unmount(self) -> None:
        for client in self.several.clients.values():
            await client.aclose()

    @property
    def _base(self) -> Screen[Any]:
        """The screen of the frame, whatever stands in front of it."""
        if not self.screen_stack:
            raise ScreenStackError("the terminal is being closed")
        return self.screen_stack[0]

    @property
    def table(self) -> DataTable[Text]:
        """The list."""
        return self._base.query_one("#table", DataTable)

    @property
    def line(self) -> Input:
        """Where filters and jumps are typed."""
        return self._base.query_one("#line", Input)

    @property
    def filter(self) -> str:
        """The filter of this place."""
        return self.words.get(self.place.name, "")

    def say(self, text: str, style: str = "dim") -> None:
        """A sentence in the line below the list; what looking again says there waits until it has been read."""
        self._read_by = self._clock.steady() + TO_READ
        self._write(text, style)

    def heard(self) -> None:
        """The sentence has been read: a person has gone on."""
        self._read_by = 0.0

    def _murmur(self, text: str, style: str = "dim") -> None:
        """What looking again says."""
        if self._clock.steady() >= self._read_by:
            self._write(text, style)

    def _write(self, text: str, style: str) -> None:
        self._base.query_one("#note", Static).update(Text(text, style, no_wrap=True, overflow="ellipsis"))

    def _draw_frame(self) -> None:
        """The line of places, and the hints."""
        bar = Text(no_wrap=True)
        for n, place in enumerate(PLACES):
            here = place is self.place
            bar.append(f" {n + 1} ", "bold" if here else "dim").append(
                place.name if self.size.width >= WIDE else place.short, "bold reverse" if here else ""
            )
        self._base.query_one("#places", Static).update(bar)
        hints = HINTS_OF.get(self.place.name, LOOKS if self.read_only else HINTS)
        self._base.query_one("#hints", Static).update(
            Text(f"{'read-only  ' if self.read_only else ''}{hints}", "dim", no_wrap=True)
        )
        front_page = self.place.fetch is None
        self._base.query_one("#front").display = front_page
        self.table.display = not front_page
        self.line.display = False
        if not front_page and self.focused is not self.table:
            self.table.focus()

    def on_resize(self) -> None:
        self._draw_frame()

    # --- looking ------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        busy = any(worker.group == "look" and worker.is_running for worker in self.workers)
        if not busy and not self.marked and not self.all_marked and len(self.screen_stack) == 1:
            self.action_look()

    def action_look(self) -> None:
        look: Any = self._look  # called by the worker, so one that never begins leaves no coroutine behind
        self.run_worker(look, group="look", exclusive=True)

    async def _look(self) -> None:
        place = self.place
        try:
            if place.fetch is None:
                await self._look_at_front()
            else:
                listing = await place.fetch(self.several, self.filter, self.after)
                if place is self.place:
                    self._fill(listing)
        except GONE:
            return
        except QuerySyntax as error:
            self.say(f"filter: {error.reason}", BAD)
        except StoreError as error:
            self._write(f"Redis does not answer, looking again: {draw.safe(error)}", BAD)
        except UsageError as error:
            self.after = None
            self.say(draw.safe(error), BAD)
        self.looks += 1

    async def _look_at_front(self) -> None:
        found = await self.several.aoverview(self._before)
        self._before = found.value
        self._verdicts = {name: judge(each, self._verdicts.get(name)) for name, each in found.value.items()}
        worst = max(self._verdicts.values(), key=lambda verdict: LEVELS.index(verdict.level))
        figures = (await self.several.astats()).value
        self._base.query_one("#page", Static).update(front(found.value, figures, worst, self.size.width - 2))
        server = next(iter(found.value.values())).server
        where = f"{server.store} {server.version}, {draw.size(server.memory)}, connections {server.connections}"
        self._murmur(_away(found.away) or f"{where}   {draw.moment(now_of(self.several))}")

    def _fill(self, listing: Listing) -> None:
        """Show a listing: cell by cell where the rows are the same, so that cursor and scroll stay."""
        seen: dict[str, Row] = {}
        for row in listing.rows:
            key = row.key if row.key not in seen else f"{row.key}#{len(seen)}"
            seen[key] = row._replace(key=key)
        table, heads = self.table, self.place.heads
        here = self.row.key if self.row is not None and self._shown is self.place else None
        at, scroll = table.cursor_row, table.scroll_y
        same = self._shown is self.place and [row.key for row in self.listing.rows] == [*seen]
        self.listing = listing._replace(rows=[*seen.values()])
        if same:
            for i, row in enumerate(self.listing.rows):
                for j, cell in enumerate(self._cells(row)):
                    if table.get_cell_at((i, j)) != cell:  # type: ignore[arg-type]
                        table.update_cell_at((i, j), cell)  # type: ignore[arg-type]
        else:
            fresh = self._shown is not self.place
            table.clear(columns=True)
            for head in (" ", *heads):
                table.add_column(Text(head, "dim", justify="right" if head in RIGHT else "left"))
            for row in self.listing.rows:
                table.add_row(*self._cells(row), key=row.key)
            keys = [*seen]
            table.move_cursor(row=keys.index(here) if here in seen else 0 if fresh else at, animate=False)
            if not fresh:
                table.scroll_to(y=scroll, animate=False)
        self._shown = self.place
        self._note()

    def _cells(self, row: Row) -> list[Text]:
        mark = "●" if self.all_marked or row.key in self.marked else " "
        cells = [
            Text(cell, _style(head, cell), justify="right" if head in RIGHT else "left", no_wrap=True)
            for head, cell in zip(self.place.heads, row.cells, strict=True)
        ]
        return [Text(mark, WARN), *cells]

    def _note(self) -> None:
        """What stands below the list: how much this is, the filter, the marks."""
        parts = [_away(self.listing.away) or self.listing.note]
        if self.filter:
            parts.append(f"filter: {self.filter}")
        if self.all_marked:
            parts.append("all that match are marked; Esc ends it")
        elif self.marked:
            parts.append(f"{len(self.marked)} marked, the list stands still; Esc ends it")
        if self.after is not None:
            parts.append("[ first page")
        if self.listing.after is not None:
            parts.append("] more")
        self._murmur("   ".join(parts), WARN if self.marked or self.all_marked else "dim")

    @property
    def row(self) -> Row | None:
        """Where the cursor is."""
        rows, at = self.listing.rows, self.table.cursor_row
        return rows[at] if self.place.fetch is not None and 0 <= at < len(rows) else None


def _style(head: str, cell: str) -> str:
    if head == "STATE":
        return STATES.get(cell, "")
    return "dim" if head in ("JID", "ERROR", "PROCESS") else ""


def _away(away: Any) -> str:
    return f"left out: {', '.join(f'shard {name}' for name in away)}" if away else ""

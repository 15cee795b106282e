"""`pillion top`: what each key does, on the screen that `frame.py` draws.

Every act goes the same way as on the dashboard's pages: preview, confirmation, operation, result, undo."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Input

from pillion.api.operation import VERBS, Verb
from pillion.api.query import QuerySyntax, parse
from pillion.api.search import Hit
from pillion.api.selection import Selection
from pillion.api.stacks import Stacks
from pillion.api.terms import Term
from pillion.api.work import Work
from pillion.cli import draw
from pillion.cli.acting import MANY
from pillion.cli.job import described
from pillion.cli.top.asking import HELP, Confirm, Reading
from pillion.cli.top.doing import Targets
from pillion.cli.top.frame import GONE, Frame
from pillion.cli.top.front import BAD, GOOD
from pillion.cli.top.places import PLACES, Row, now_of
from pillion.cli.workers import stack_lines
from pillion.errors import PillionError

JUMPS = {"q": "queue", "j": "jid", "c": "class", "t": "tag"}


class Top(Frame):
    """The terminal dashboard."""

    TITLE = "pillion"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(n + 1), f"go({n})", place.name, show=False) for n, place in enumerate(PLACES)),
        Binding("slash", "filter", "filter"),
        Binding("colon", "jump", "go"),
        Binding("x,space", "mark", "mark"),
        Binding("A", "mark_all", "mark all that match"),
        Binding("escape", "leave", "back", show=False),
        Binding("r", "act('retry')", "retry"),
        Binding("R", "act_all('retry')", "retry all that match"),
        Binding("K", "act('kill')", "kill"),
        Binding("D", "act('delete')", "delete"),
        Binding("u", "undo", "undo"),
        Binding("p", "pause", "pause or resume"),
        Binding("s", "stack", "show stack"),
        Binding("Q", "signal('quiet')", "quiet"),
        Binding("S", "signal('stop')", "stop"),
        Binding("c", "copy", "copy id"),
        Binding("right_square_bracket", "page(1)", "next page"),
        Binding("left_square_bracket", "page(0)", "first page"),
        Binding("f5", "look", "look now"),
        Binding("question_mark", "help", "help"),
        Binding("q", "quit", "quit"),
    ]
    CHANGES: ClassVar[set[str]] = {"act", "act_all", "undo", "pause", "signal", "mark", "mark_all"}

    # --- going about --------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - Textual's
        """Nothing changes anything with `--read-only`, and no key of ours works behind a question."""
        return not (self.read_only and action in self.CHANGES)

    def action_go(self, number: int, words: str | None = None) -> None:
        self.heard()
        self.place = PLACES[number]
        if words is not None:
            self.words[self.place.name] = words
        self._unmark()
        self.after = None
        self._draw_frame()
        self.action_look()

    def _unmark(self) -> None:
        self.heard()
        self.marked, self.all_marked = {}, False

    def action_filter(self) -> None:
        if self.place.fetch is not None:
            self._type("filter ", self.filter)

    def action_jump(self) -> None:
        self._type(":", "")

    def _type(self, what: str, value: str) -> None:
        self.line.border_title = what
        self.line.value = value
        self.line.placeholder = {":": "a place, q QUEUE, j JID, c CLASS, t TAG"}.get(what, "")
        self.line.display = True
        self.line.cursor_position = len(value)
        self.line.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input is not self.line:
            return
        value, what = event.value.strip(), str(self.line.border_title)
        if what == ":":
            self._jump(value)
        elif self._fits(value):
            self.words[self.place.name] = value
            self.action_go(PLACES.index(self.place))

    def _fits(self, words: str) -> bool:
        """Whether a filter can be read here; if not, says why and leaves it to be mended."""
        try:
            if self.place.searches:
                parse(words)
        except QuerySyntax as error:
            self.say(f"filter: {error.reason}", BAD)
            return False
        return True

    def _jump(self, words: str) -> None:
        verb, _, rest = words.partition(" ")
        if verb in JUMPS and rest:
            self.action_go(3, str(Term(JUMPS[verb], (rest.strip(),))))
            return
        names = [n for n, place in enumerate(PLACES) if words and place.name.casefold().startswith(words.casefold())]
        if not names:
            self.line.display = False
            self._draw_frame()
            self.say(f"there is no place {words!r}; a place, q QUEUE, j JID, c CLASS, t TAG", BAD)
            return
        self.action_go(names[0])

    def action_leave(self) -> None:
        if self.line.display:
            self._draw_frame()
        elif self.marked or self.all_marked:
            self._unmark()
            self._fill(self.listing)
        elif self.filter:
            self.action_go(PLACES.index(self.place), "")
        else:
            self.action_go(0)

    def action_page(self, forward: int) -> None:
        if forward and self.listing.after is None:
            return
        self.after = self.listing.after if forward else None
        self._unmark()
        self.action_look()

    def action_help(self) -> None:
        self.push_screen(Reading("keys", HELP))

    def action_copy(self) -> None:
        row = self.row
        if row is not None:
            found = _id_of(row)
            self.copy_to_clipboard(found)
            self.say(f"copied {found}")

    # --- marking and opening ------------------------------------------------------------------------------------------

    def action_mark(self) -> None:
        row = self.row
        if row is None or not isinstance(row.item, Hit):
            return
        self.heard()
        if row.key in self.marked:
            del self.marked[row.key]
        else:
            self.marked[row.key] = row
        self.all_marked = False
        self._fill(self.listing)
        self.table.action_cursor_down()

    def action_mark_all(self) -> None:
        if self.place.searches and self.place.name != "Running":
            self.heard()
            self.marked, self.all_marked = {}, not self.all_marked
            self._fill(self.listing)

    def on_data_table_row_selected(self) -> None:
        row = self.row
        if row is None:
            return
        match self.place.name:
            case "Queues":
                self.action_go(3, f"state:queued {Term('queue', (row.item.name,))}")
            case "Failures":
                self.action_go(3, f"state:dead,retry cause:{row.item.id}")
            case "Workers":
                self.action_stack()
            case _:
                self._run(self._open(row))

    async def _open(self, row: Row) -> None:
        from pillion.api.runs import Runs

        hit = Hit("running", row.item) if isinstance(row.item, Work) else row.item
        runs = await Runs(self.several.client_of(row.shard)).aof_job(hit.job.jid, hit.job.created_at)
        shard = row.shard if len(self.several.names) > 1 else None
        self.push_screen(Reading(hit.job.display_class, described(hit, runs, None, now_of(self.several), shard).text))

    def action_stack(self) -> None:
        row = self.row
        if row is not None and self.place.name in ("Running", "Workers"):
            self.say("asking the worker ...")
            self._run(self._stack(row))

    async def _stack(self, row: Row) -> None:
        working = isinstance(row.item, Work)
        identity, jid = (row.item.process_id, row.item.job.jid) if working else (row.item.identity, None)
        answer = await Stacks(self.several.client_of(row.shard)).ashow(identity, jid)
        if answer is None:
            self.say(f"{draw.safe(identity)} does not answer: it is gone, hangs, or is Ruby's", BAD)
            return
        self.heard()
        self.push_screen(Reading(f"what {draw.safe(identity)} is doing", "\n".join(stack_lines(answer))))

    # --- acting -------------------------------------------------------------------------------------------------------

    def action_act(self, verb: Verb) -> None:
        self._act(verb, self._targets())

    def action_act_all(self, verb: Verb) -> None:
        row = self.row
        if self.place.name == "Failures" and row is not None:
            self._act(verb, self._everywhere(f"state:dead,retry cause:{row.item.id}"))
        elif self.place.searches and self.place.name != "Running":
            self._act(verb, self._everywhere(self._whole(verb)))

    def _whole(self, verb: Verb) -> str:
        """The query of all that match here; of a place with all states, only those that the verb is for."""
        words = self.place.query(self.filter)
        return words or f"state:{','.join(VERBS[verb])}"

    def _everywhere(self, words: str) -> Targets:
        return {shard: parse(words) for shard in self.several.names}

    def _targets(self) -> Targets:
        """All that match, or the marked ones, or the one under the cursor."""
        if self.all_marked:
            return self._everywhere(self.place.query(self.filter) or "state:queued,retry,scheduled,dead")
        rows = list(self.marked.values()) or ([self.row] if self.row is not None else [])
        refs: dict[str, list[Any]] = {}
        for row in rows:
            if isinstance(row.item, Hit) and row.item.ref is not None:
                refs.setdefault(row.shard, []).append(row.item.ref)
        return {shard: Selection(tuple(some)) for shard, some in refs.items()}

    def _act(self, verb: Verb, targets: Targets) -> None:
        if targets:
            self._run(self._confirmed(verb, targets))

    async def _confirmed(self, verb: Verb, targets: Targets) -> None:
        """Preview, question, operation, result."""
        previews = await self.doing.previews(verb, targets)
        count = sum(preview.count for preview in previews.values())
        if not count:
            self.say(f"nothing to {verb}")
            return
        many = count if verb == "delete" or count > MANY else None
        told = self.doing.told(previews, now_of(self.several))
        if not await self.push_screen_wait(Confirm(f"{verb} {count:,}", told, many)):
            self.say("nothing was done")
            return
        wanted = {shard: target for shard, target in targets.items() if previews[shard].count}
        await self._told(self.doing.start(verb, wanted, self.say))

    async def _told(self, deed: Awaitable[str]) -> None:
        """Do something, look again, and leave what became of it below the list."""
        result = await deed
        self._unmark()
        self.after = None
        await self._look()
        self.say(f"{result}{'   u undoes it' if self.doing.last else ''}", GOOD)

    def action_undo(self) -> None:
        if self.doing.last:
            self._run(self._told(self.doing.undo(self.say)))
        else:
            self.say("nothing to undo; older operations: pillion undo")

    def action_pause(self) -> None:
        row = self.row
        if row is not None and self.place.name == "Queues":
            self._run(self._told(self.doing.switch(row.item.name, row.item.paused)))

    def action_signal(self, verb: str) -> None:
        row = self.row
        if row is not None and self.place.name == "Workers":
            self._run(self._signal(row, verb))

    async def _signal(self, row: Row, verb: str) -> None:
        text = "It takes no new jobs." if verb == "quiet" else "It ends its jobs, or gives them back, and stops."
        if await self.push_screen_wait(Confirm(f"{verb} {draw.safe(row.item.identity)}", text)):
            await self._told(self.doing.signal(row.item, verb))

    def _run(self, deed: Awaitable[None]) -> None:
        """In the background; what a person can do about an error is said."""

        async def guarded() -> None:
            try:
                await deed
            except GONE:
                return
            except PillionError as error:
                self.say(draw.safe(error), BAD)

        work: Any = guarded
        self.run_worker(work, group="act")


def _id_of(row: Row) -> str:
    item = row.item
    if isinstance(item, Hit | Work):
        return item.job.jid
    return str(getattr(item, "identity", None) or getattr(item, "name", None) or item.id)

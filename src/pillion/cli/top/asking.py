"""What stands in front of `pillion top` for a moment: a text to read, and a question to confirm."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

HELP = """\
1 to 9  a place                 x, space  mark a row
/       filter                  A         mean all that match
:       go: q mailers, j JID    r         retry
Enter   open                    R         retry all that match
Esc     back, or unmark         K         kill: to the dead set
] [     more, first page        D         delete
c       copy the id             u         undo the last of these
s       show the stack          p         pause or resume a queue
F5      look again now          Q S       quiet or stop a worker
?       this                    q         leave

The filter of jobs is the search language, such as
  class:Send* error:"timed out" queue:mailers since:2h
Elsewhere it is a text, with ! in front what has it not.

Capital letters mean it, and ask first. A list stands still
while rows are marked."""


class Reading(ModalScreen[None]):
    """A text, to be scrolled; Esc closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "dismiss_it", "back"),
        Binding("j,down", "scroll(1)", show=False),
        Binding("k,up", "scroll(-1)", show=False),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self.title_text = title
        self.text = text

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="box") as box:
            box.border_title = Text(self.title_text)
            box.border_subtitle = "Esc back"
            yield Static(Text(self.text), id="text")

    def action_dismiss_it(self) -> None:
        self.dismiss()

    def action_scroll(self, lines: int) -> None:
        self.query_one("#box").scroll_relative(y=lines, animate=False)


class Confirm(ModalScreen[bool]):
    """A preview and a question: Enter does it, or where `count` is given that number and Enter. Esc does not."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "refuse", "no")]

    def __init__(self, title: str, text: str, count: int | None = None) -> None:
        super().__init__()
        self.title_text = title
        self.text = text
        self.count = count

    def compose(self) -> ComposeResult:
        with Vertical(id="box") as box:
            box.border_title = Text(self.title_text)
            box.border_subtitle = "Esc: no"
            with VerticalScroll(id="preview"):
                yield Static(Text(self.text, no_wrap=True), id="text")
            wanted = "Enter: yes" if self.count is None else f"type {self.count} and Enter"
            yield Input(placeholder=wanted, id="sure")

    def on_mount(self) -> None:
        self.query_one("#sure", Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        typed = event.value.replace(",", "").strip()
        if self.count is None or typed == str(self.count):
            self.dismiss(True)
            return
        event.input.value = ""
        event.input.placeholder = f"that is not {self.count}; type it, or Esc"

    def action_refuse(self) -> None:
        self.dismiss(False)

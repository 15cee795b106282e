"""Talking to a person on stderr; stdout is for data. Colour only on a terminal, and never with NO_COLOR."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

STYLES = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}


def on_terminal() -> bool:
    """Whether a person reads stderr."""
    return sys.stderr is not None and sys.stderr.isatty()


def styled(text: str, style: str, *, colour: bool) -> str:
    """The text in a colour, if there is colour."""
    return f"\033[{STYLES[style]}m{text}\033[0m" if colour else text


def wants_colour(terminal: bool) -> bool:
    """Whether to write colour to something that is, or is not, a terminal."""
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def error(sentence: str, cures: Iterable[str] = ()) -> None:
    """Say what went wrong, and below it what to do, one cure per line."""
    _say("error", "red", sentence, cures)


def warning(sentence: str, cures: Iterable[str] = ()) -> None:
    """Say what is odd but does not stop anything."""
    _say("warning", "yellow", sentence, cures)


def note(sentence: str) -> None:
    """Say something on a line of its own."""
    print(sentence, file=sys.stderr, flush=True)


def _say(level: str, style: str, sentence: str, cures: Iterable[str]) -> None:
    head = styled(f"{level}:", style, colour=wants_colour(on_terminal()))
    lines = [f"{head} {sentence}", *(f"  help: {cure}" for cure in cures)]
    print("\n".join(lines), file=sys.stderr, flush=True)

"""What the commands that look have in common: which server and shards, JSON or columns, once or again and again.

None of them imports the user's app. With several shards they show all of them together, or the one of `--shard`; one
that does not answer is named on stderr, and the exit code is 1."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from pillion.cli import say
from pillion.cli.exits import Exit
from pillion.cli.settings import ENVIRONMENT, FILE, JSON, use

if TYPE_CHECKING:
    from pillion.api.query import Query
    from pillion.api.several import Merged, Several

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

REDIS = click.option("-r", "--redis", "address", metavar="URL", help="Which Redis; otherwise as configured.")
SHARD = click.option("--shard", metavar="NAME", help="One of several shards; otherwise all of them together.")
WATCH = click.option("-w", "--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
EVERY = 2.0
CLEAR = "\033[H\033[2J\033[3J"


NEGATED = re.compile(r"-[a-z]+[.:]")


class Searching(click.Command):
    """A command whose words are a query: `-class:Report` is a term of it, and no row of short options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" not in args:
            terms = [word for word in args if NEGATED.match(word)]
            args = [*(word for word in args if not NEGATED.match(word)), "--", *terms]
        return super().parse_args(ctx, args)


class View(NamedTuple):
    """What a command shows: as data, as text, and with which exit code. `aside` goes to stderr."""

    data: Any
    text: str
    code: int = Exit.DONE
    aside: str = ""


def server_options(fn: F) -> F:
    """Add the options that say where to look."""
    for option in (FILE, ENVIRONMENT, SHARD, REDIS):
        fn = option(fn)
    return fn


def reading_options(fn: F) -> F:
    """Add those of a command that only looks."""
    for option in (FILE, ENVIRONMENT, SHARD, REDIS, WATCH, JSON):
        fn = option(fn)
    return fn


def several_of(options: Mapping[str, Any]) -> Several:
    """The shards that `server_options` mean. Raises UsageError for one that there is not."""
    from pillion.api.several import Several
    from pillion.client import Client

    setup = use(file=options["file"], environment=options["environment"])
    if options["address"] is not None:
        setup.configure(options["address"])
    found = Several.of(Client(setup=setup))
    return found.pick(options["shard"]) if options["shard"] is not None else found


def read_query(words: Sequence[str]) -> Query:
    """The query that words of the command line say. Raises QuerySyntax, after it has shown where."""
    from pillion.api.query import QuerySyntax, parse

    try:
        return parse(" ".join(words))
    except QuerySyntax as error:
        say.note(error.pointer())
        raise


def answered(merged: Merged[T]) -> tuple[T, int]:
    """What the shards said, and the exit code: 1 where one is away, which is told."""
    for name, error in merged.away.items():
        say.warning(f"shard {name} is left out: {error}")
    return merged.value, Exit.UNHEALTHY if merged.away else Exit.DONE


def show(options: Mapping[str, Any], look: Callable[[], View]) -> int:
    """Show what `look` sees, once or with `--watch` until Ctrl-C; returns the exit code."""
    if not options["watch"]:
        view = look()
        click.echo(as_json(view.data) if options["as_json"] else view.text)
        if view.aside:
            say.note(view.aside)
        return view.code
    from pillion import setup

    screen, never = sys.stdout.isatty(), threading.Event()
    while True:
        view = look()
        if options["as_json"]:
            click.echo(as_json(view.data, indent=0))
        else:
            now = setup.default.config.clock.now()
            click.echo(f"{CLEAR if screen else ''}{view.text}\n\n{_footer(now)}")
        sys.stdout.flush()
        never.wait(EVERY)


def _footer(now: float) -> str:
    from pillion.cli.draw import moment

    return f"{moment(now)}   every {EVERY:g} s, Ctrl-C ends"


def as_json(data: Any, indent: int = 2) -> str:
    """As JSON: with an indent for one answer, in one line for many."""
    import msgspec

    raw = msgspec.json.encode(data, enc_hook=str)
    return (msgspec.json.format(raw, indent=indent) if indent else raw).decode()

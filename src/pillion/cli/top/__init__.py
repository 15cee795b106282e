"""`pillion top`: the dashboard in a terminal, with Textual (the extra `top`).

The same places as the pages, read through `pillion.api` every two seconds. `places.py` says what stands where,
`front.py` draws the first one, `app.py` holds the screen and the keys, `asking.py` the questions in front of it, and
`doing.py` acts, through operations and only after a confirmation. It keeps nothing: what it started goes on in Redis
when it ends."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import click

from pillion.cli import say
from pillion.cli.exits import Exit
from pillion.cli.looking import server_options, several_of


@click.command("top")
@click.option("--read-only", is_flag=True, help="Look only: no key changes anything.")
@server_options
def command(read_only: bool, **options: Any) -> int:
    """Show the dashboard in this terminal. `?` lists the keys."""
    if find_spec("textual") is None:
        say.error("`pillion top` needs textual, which is not installed", ["pip install 'pillion[top]'"])
        return Exit.USAGE
    from pillion.cli.top.app import Top

    several = several_of(options)
    for client in several.clients.values():
        client.store.settings  # noqa: B018 - what is wrong with the address is told before the screen is taken
    Top(several, read_only=read_only).run()
    return Exit.DONE

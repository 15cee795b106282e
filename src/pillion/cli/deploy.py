"""`pillion deploy [LABEL]`: mark a deploy, so that charts show when it was. For the script that deploys.

Every machine of a deploy may run it: within a minute the first mark stands, and the others say so and are no failure.
"""

from __future__ import annotations

from pathlib import Path

import click

from pillion.cli import say
from pillion.cli.exits import Exit
from pillion.cli.settings import ENVIRONMENT, FILE, use


@click.command("deploy")
@click.argument("label", required=False)
@ENVIRONMENT
@FILE
def command(label: str | None, environment: str | None, file: Path | None) -> int:
    """Mark a deploy with LABEL, or with the last commit of the git checkout here."""
    from pillion.api.deploy import Deploy, last_commit
    from pillion.client import Client

    label = last_commit() if label is None else label
    setup = use(file=file, environment=environment)
    if Deploy(Client(setup=setup)).mark(label):
        say.note(f"marked the deploy: {label}")
    else:
        say.note(f"not marked: this minute has a mark already, or {label!r} was marked a moment ago")
    return Exit.DONE

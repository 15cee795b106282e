"""`pillion undo [ID]`: bring back what a delete, kill or move took away, for ten minutes; without ID, list those."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pillion.cli import draw, say
from pillion.cli.acting import find, finish, operation_data, who
from pillion.cli.exits import Exit
from pillion.cli.looking import as_json, server_options, several_of
from pillion.cli.settings import JSON

if TYPE_CHECKING:
    from pillion.api.several import Several


@click.command("undo")
@click.argument("operation", required=False, metavar="[ID]")
@click.option("--by", metavar="NAME", help="Who does it, for the audit; otherwise user@host.")
@JSON
@server_options
def command(operation: str | None, **options: Any) -> int:
    """Bring back what an operation took away. Without ID, show the operations of the last seven days."""
    from pillion.api.operations import Operations

    several = several_of(options)
    if operation is None:
        return _list(several, options["as_json"])
    client, found = find(several, operation)
    if found.state != "undoing":
        Operations(client).undo(operation, by=who(options))
    return finish("undo", [(client, operation)], options["as_json"])


def _list(several: Several, as_json_: bool) -> int:
    from pillion.api.operations import Operations

    found = [each for client in several.clients.values() for each in Operations(client).recent()]
    if as_json_:
        click.echo(as_json([operation_data(each) for each in found]))
        return Exit.DONE
    now = next(iter(several.clients.values())).setup.config.clock.now()
    rows = [
        (
            *(each.id, draw.ago(each.began, now), each.by, each.verb, each.state, each.result()),
            f"until {each.undo_until:%H:%M} UTC" if each.undo_until else "",
            draw.safe(each.filter, 60),
        )
        for each in sorted(found, key=lambda each: each.began, reverse=True)
    ]
    click.echo(draw.table(("OPERATION", "BEGAN", "BY", "VERB", "STATE", "RESULT", "UNDO", "FILTER"), rows))
    if not rows:
        say.note("no operation in the last seven days")
    return Exit.DONE

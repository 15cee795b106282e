"""`pillion failures`: what is dead or retrying, grouped by its cause. It only reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from pillion.cli import draw
from pillion.cli.looking import View, answered, reading_options, several_of, show

if TYPE_CHECKING:
    from pillion.api.several import Several

ID = 8
LONGEST = 60


@click.command("failures")
@click.option("--days", metavar="N", type=click.FloatRange(0), help="Only what failed in the last N days.")
@click.option("-n", "--most", metavar="N", default=20, show_default=True, type=click.IntRange(1, 1_000))
@reading_options
def command(days: float | None, most: int, **options: Any) -> int:
    """Show why jobs fail: class, exception and message, the most frequent first.

    \b
    pillion jobs cause:ID                   shows the jobs of one
    pillion retry 'cause:ID state:dead'     retries them
    """
    several = several_of(options)
    return show(options, lambda: look(several, days, most))


def look(several: Several, days: float | None, most: int) -> View:
    """The causes of all shards."""
    causes, code = answered(several.causes(days, most))
    now = several.clients[several.names[0]].setup.config.clock.now()
    rows = [
        (
            *(draw.number(each.count), draw.number(each.dead), draw.number(each.retrying)),
            *(draw.ago(each.last_seen, now), each.id[:ID], each.klass, f"{each.error_class}: {each.message}"[:LONGEST]),
            f"since {each.since_deploy}" if each.since_deploy else "",
        )
        for each in causes
    ]
    right = ("JOBS", "DEAD", "RETRY", "LAST")
    text = draw.table(("JOBS", "DEAD", "RETRY", "LAST", "CAUSE", "CLASS", "ERROR", "DEPLOY"), rows, right=right)
    hint = f"the jobs of one: pillion jobs cause:{causes[0].id[:ID]}" if causes else ""
    return View(msgspec.to_builtins(causes), text if causes else "nothing is dead or retrying", code, hint)

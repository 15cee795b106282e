"""`pillion health`: is anything wrong? One sentence and an exit code, for probes and scripts. It only reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pillion.cli.exits import Exit
from pillion.cli.looking import View, answered, reading_options, several_of, show
from pillion.cli.status import LEVELS, verdict_data, verdict_of, verdict_text

if TYPE_CHECKING:
    from pillion.api.several import Several


@click.command("health")
@click.option("--strict", is_flag=True, help="Let a notice fail, too.")
@reading_options
def command(strict: bool, **options: Any) -> int:
    """Say what is wrong, and what to do.

    Exit code 0: nothing; 1: something must be looked at now; 3: Redis cannot be reached.
    """
    several = several_of(options)
    return show(options, lambda: look(several, strict))


def look(several: Several, strict: bool) -> View:
    """The verdict."""
    snapshots, code = answered(several.overview())
    verdict = verdict_of(snapshots)
    wrong = LEVELS.index(verdict.level) >= (1 if strict else 2)
    return View(verdict_data(verdict), verdict_text(verdict), Exit.UNHEALTHY if wrong else code)

"""`pillion queues`: how much waits in each queue, since when, and who serves it. It only reads."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from pillion.cli.looking import View, answered, reading_options, several_of, show
from pillion.cli.status import queue_data, queue_table

if TYPE_CHECKING:
    from pillion.api.processes import Process
    from pillion.api.several import Several


@click.command("queues")
@click.argument("name", nargs=-1, metavar="[NAME...]")
@reading_options
def command(name: tuple[str, ...], **options: Any) -> int:
    """Show the queues, the largest first; NAME may hold a * for any text."""
    several = several_of(options)
    return show(options, lambda: look(several, name))


def look(several: Several, patterns: tuple[str, ...]) -> View:
    """The queues of these names; all without any."""
    queues, code = answered(several.queue_summaries())
    found = [each for each in queues if not patterns or any(fnmatchcase(each.name, pattern) for pattern in patterns)]
    processes, _ = answered(several.processes())
    served = serving([each.value for each in processes])
    data = [{**queue_data(each), **_served(served.get(each.name, (0, 0)))} for each in found]
    aside = "" if found else "no queue of this name" if patterns else "no queue was ever pushed to"
    return View(data, queue_table(found, served), code, aside)


def _served(by: tuple[int, int]) -> dict[str, int]:
    return {"processes": by[0], "slots": by[1]}


def serving(processes: list[Process]) -> dict[str, tuple[int, int]]:
    """For each queue how many processes take from it, and how many jobs these can run at once."""
    found: dict[str, tuple[int, int]] = {}
    for each in processes:
        for queue in () if each.stopping else each.queues:
            count, slots = found.get(queue, (0, 0))
            found[queue] = count + 1, slots + each.concurrency
    return found

"""`pillion move SELECTOR --to QUEUE`: let other workers have them."""

from __future__ import annotations

import click

from pillion.cli.acting import changing

command = changing(
    "move",
    """Move queued jobs to another queue; those that wait elsewhere go there when they are due.

    \b
    pillion move queue:default class:Report --to reports
    """,
    click.option("--to", metavar="QUEUE", help="The queue that they are meant for."),
)

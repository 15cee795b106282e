"""`pillion jobs [QUERY]`: search the jobs wherever they are, and say how much was looked at. It only reads.

The search language is that of the dashboard, so a query can be pasted from one to the other. Arguments are shown only
when asked for, and never obeyed: what a job holds was written by anyone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pillion.cli import draw
from pillion.cli.looking import Searching, View, answered, read_query, reading_options, several_of, show

if TYPE_CHECKING:
    from pillion.api.query import Query
    from pillion.api.search import Hit
    from pillion.api.several import Several

BUDGET = 100_000
A_STEP = 10_000
LONGEST_DETAIL = 60


@click.command("jobs", cls=Searching)
@click.argument("query", nargs=-1, metavar="[QUERY...]")
@click.option("-n", "--most", metavar="N", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option(
    "--budget", metavar="N", default=BUDGET, show_default=True, type=click.IntRange(1), help="Jobs to look at."
)
@click.option("--args", "show_args", is_flag=True, help="Show arguments instead of errors.")
@reading_options
def command(query: tuple[str, ...], most: int, budget: int, show_args: bool, **options: Any) -> int:
    """Find the jobs that QUERY means, newest first, in all places.

    \b
    pillion jobs state:dead queue:mailers 'class:Send*' -n 20
    pillion jobs 'error:"timed out" since:2h'
    """
    from pillion.cli.progress import Progress

    wanted, several = read_query(query), several_of(options)
    if options["watch"]:
        return show(options, lambda: look(several, wanted, most, budget, show_args))
    with Progress("searching", several.clients[several.names[0]].setup.config.clock) as bar:
        view = look(several, wanted, most, budget, show_args, bar)
    return show(options, lambda: view)


def look(several: Several, query: Query, most: int, budget: int, show_args: bool, bar: Any = None) -> View:
    """Pages of the search until there are enough, all is looked at, or the budget is used up."""
    hits: list[tuple[str, Hit]] = []
    after, code, searched, total = None, 0, 0, 0
    while True:
        page, away = answered(several.search_page(query, after, most - len(hits), A_STEP))
        code = max(code, away)
        hits += [(each.shard, each.value) for each in page.entries]
        searched, after = max(searched, page.searched), page.next  # a shard that is through does not count again
        total = max(total, page.total, searched)
        if bar is not None:
            bar.show(searched, min(total, budget))
        if after is None or len(hits) >= most or searched >= budget:
            break
    now = several.clients[several.names[0]].setup.config.clock.now()
    alone = len(several.names) == 1
    found = hits[:most]
    data: dict[str, Any] = {"jobs": [hit_data(hit, None if alone else shard) for shard, hit in found]}
    data |= {"searched": searched, "total": total, "complete": after is None}
    text = hit_table([hit for _, hit in found], now, show_args) if found else "no job found"
    return View(data, text, code, _sentence(searched, total, after is None))


def _sentence(searched: int, total: int, complete: bool) -> str:
    from pillion.api.search import Found

    return Found([], searched, total, None if complete else "more").sentence()


def hit_table(hits: list[Hit], now: float, show_args: bool = False) -> str:
    """Jobs, one a line."""
    detail = "ARGS" if show_args else "ERROR"
    rows = [
        (
            *(hit.state, hit.job.queue or "", hit.job.display_class, hit.job.jid),
            draw.ago(time_of(hit), now),
            draw.safe(arguments(hit) if show_args else error_of(hit), LONGEST_DETAIL),
        )
        for hit in hits
    ]
    return draw.table(("STATE", "QUEUE", "CLASS", "JID", "TIME", detail), rows, right=("TIME",))


def arguments(hit: Hit) -> str:
    """The arguments as people know them, as JSON without its brackets."""
    from pillion.cli.looking import as_json

    return as_json(hit.job.display_args, indent=0)[1:-1]


def error_of(hit: Hit) -> str:
    """Exception and message of the last failure; "" where there was none."""
    job = hit.job
    return f"{job.error_class}: {job.error_message or ''}" if job.error_class else ""


def time_of(hit: Hit) -> float | None:
    """When it began, was pushed, died, or is due, by where it is."""
    from pillion.api.sets import SortedEntry
    from pillion.api.work import Work

    record = hit.record
    if isinstance(record, Work):
        return record.run_at.timestamp()
    if isinstance(record, SortedEntry):
        return record.score
    made = record.enqueued_at or record.created_at
    return made.timestamp() if made else None


def hit_data(hit: Hit, shard: str | None = None) -> dict[str, Any]:
    """A job for programs: where it is, and all its fields as they are stored."""
    place = {} if shard is None else {"shard": shard}
    return {**place, "state": hit.state, "queue": hit.job.queue, "at": time_of(hit), "job": hit.job.item}

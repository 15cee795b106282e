"""Jobs, Scheduled, Retries and Dead: lists of jobs with search and bulk actions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pillion.api.ahead import Ahead
from pillion.web.context import Page, View
from pillion.web.pages.base import answers, several
from pillion.web.pages.listing import Listing, search

VERBS = {
    "queued": ("delete", "kill", "move"),
    "scheduled": ("requeue", "reschedule", "move", "delete", "kill"),
    "retry": ("retry", "reschedule", "move", "kill", "delete"),
    "dead": ("retry", "move", "delete"),
    "": ("retry", "kill", "delete", "move"),
}
HOURS = 24
BUCKETS = 96


async def jobs(view: View) -> Page:
    """`/jobs`: everything that a search finds, in whatever state."""
    found = await search(view)
    return _list(view, "jobs.html", found, "")


async def retries(view: View) -> Page:
    """`/retries`"""
    figures = (await several(view).astats()).value
    found = await search(view, "state:retry")
    return _list(view, "set.html", found, "retry", figures=figures, size=figures.retry_size)


async def dead(view: View) -> Page:
    """`/dead`"""
    figures = (await several(view).astats()).value
    found = await search(view, "state:dead")
    return _list(view, "set.html", found, "dead", figures=figures, size=figures.dead_size)


async def scheduled(view: View) -> Page:
    """`/scheduled`: the next jobs, and when those of a day are due."""
    figures = (await several(view).astats()).value
    found = await search(view, "state:scheduled")
    due = await _due(view) if view.fragment is None else None
    return _list(view, "set.html", found, "scheduled", figures=figures, size=figures.scheduled_size, due=due)


def _list(view: View, template: str, found: Listing, state: str, **data: Any) -> Page:
    whole: dict[str, Any] = {"figures": None, "size": None, "due": None, **data}
    return view.page(
        template,
        ("list",),
        listing=found,
        state=state,
        verbs=VERBS[state],
        query_text=found.text if template == "jobs.html" else "",
        **whole,
    )


async def _due(view: View) -> dict[str, Any]:
    """How many jobs are due in each quarter of an hour of the next day; a spike is a quarter far above the others."""
    counts = [0] * BUCKETS
    for found in await answers(view, lambda client: Ahead(client).aread(hours=HOURS, buckets=BUCKETS)):
        counts = [a + b for a, b in zip(counts, found, strict=True)]
    step = HOURS * 3600 / BUCKETS
    starts = [datetime.fromtimestamp(view.now + i * step, UTC) for i in range(BUCKETS)]
    names = [f"{at:%H:%M}: {count:,}" for at, count in zip(starts, counts, strict=True)]
    axis = [(i / BUCKETS, f"{starts[i]:%H:%M}") for i in range(0, BUCKETS, BUCKETS // 8)]
    return {"counts": counts, "names": names, "axis": axis, "sum": sum(counts)}

"""Workers: every process, Pillion's and Ruby's, what it says of itself, and what it can be asked for."""

from __future__ import annotations

from pillion.api import ProcessSet
from pillion.web.context import Page, View
from pillion.web.pages.base import answers, part, several

OLDEST_SIDEKIQ = 5


async def workers(view: View) -> Page:
    """`/workers`"""
    found = (await several(view).aprocesses()).value
    processes = sorted((each.value for each in found), key=lambda process: process.identity)
    led = await answers(view, lambda client: ProcessSet(clean=False, client=client).aleader())
    busy, slots = sum(each.busy for each in processes), sum(each.concurrency for each in processes)
    return view.page(
        "workers.html",
        ("facts", "list"),
        processes=part(view, processes),
        leaders={*led} - {""},
        busy=busy,
        slots=slots,
        rss=sum(each.rss for each in processes) * 1024,
        versions=sorted({each.version for each in processes if each.version and not is_sidekiq(each.version)}),
        is_sidekiq=is_sidekiq,
    )


def is_sidekiq(version: str) -> bool:
    """Whether a process of that version is Ruby's: Sidekiq's rows have been read since 6, and Pillion is far below."""
    major = version.partition(".")[0]
    return major.isdigit() and int(major) >= OLDEST_SIDEKIQ

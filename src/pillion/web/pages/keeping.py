"""Audit, operations and Settings: who did what, how far it is, what can still be undone, and how the pages look."""

from __future__ import annotations

from pillion.api.audit import Audit
from pillion.api.operations import Operation, Operations
from pillion.api.overview import Overview
from pillion.api.runs import Runs
from pillion.web.context import NotThere, Page, View
from pillion.web.words import LANGUAGES

MOST = 50


async def audit(view: View) -> Page:
    """`/audit`: what people did, newest first, and the operations that still run or can be undone."""
    page = await Audit(view.client).apage(view.text("after", most=100) or None, most=MOST)
    recent = await Operations(view.client).arecent() if view.fragment is None else []
    return view.page(
        "audit.html",
        ("list",),
        notes=page.entries,
        next=page.next,
        operations=[each for each in recent if each.is_open or can_undo(each, view.now)],
    )


async def operation(view: View) -> Page:
    """`/operations/ID`: how far one is; it goes on whatever becomes of the page."""
    number = view.segment("id")
    for client in view.clients:
        found = await Operations(client).aread(number)
        if found is not None:
            undo = can_undo(found, view.now)
            return view.page("operation.html", ("progress",), operation=found, can_undo=undo)
    raise NotThere(view.t("operation.gone"))


async def settings(view: View) -> Page:
    """`/settings`: language, theme, time and density of this browser; what Redis holds for us."""
    return view.page(
        "settings.html",
        server=await Overview(view.client).aserver(),
        log=await Runs(view.client).asize(),
        languages=LANGUAGES,
        config=view.client.setup.config,
    )


def can_undo(found: Operation, now: float) -> bool:
    """Whether the button for it is drawn."""
    over = found.state in ("done", "stopped", "paused")
    return over and found.undo_until is not None and found.undo_until.timestamp() > now

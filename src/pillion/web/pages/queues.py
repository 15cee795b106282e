"""Queues and one queue: how many wait and how long, who serves it, what stands in it."""

from __future__ import annotations

import base64
from collections import defaultdict
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from pillion.api import Process, Queue
from pillion.api.audit import Audit, Note
from pillion.api.overview import QueueNow
from pillion.api.selection import Ref
from pillion.errors import UsageError
from pillion.store.reads import Place
from pillion.web.context import BadInput, Page, View
from pillion.web.pages.base import part, several
from pillion.web.pages.jobs import VERBS
from pillion.web.pages.listing import LONGEST_CURSOR, MOST, Listing, Row, search
from pillion.web.site import Site

LONGEST_PLACE = 1_500
NOTES = 200
LOOK_EVERY = 10.0
LEAST_APART, MOST_APART = 0.5, 120.0

_before: WeakKeyDictionary[Site, dict[str | None, tuple[float, dict[str, int]]]] = WeakKeyDictionary()


async def queues(view: View) -> Page:
    """`/queues`"""
    found, _ = await _now(view)
    wanted = view.text("name", most=200)
    shown = [queue for queue in found if wanted.lower() in queue.name.lower()]
    order = view.text("by", "size", most=10)
    key: Any = {"name": lambda queue: queue.name, "wait": lambda queue: -queue.latency}.get(order)
    rows = part(view, sorted(shown, key=key) if key else shown)
    return view.page("queues.html", ("list",), found=rows, by=order, wanted=wanted)


async def queue(view: View) -> Page:
    """`/queues/NAME`: its jobs, newest or oldest first, and what can be done."""
    name = view.segment("name")
    every, processes = await _now(view)
    served = [process for process in processes if name in process.queues]
    oldest = view.text("order", most=10) == "oldest"
    fixed = f"state:queued queue:{msgspec.json.encode(name).decode()}"
    found = await _oldest(view, name) if oldest else await search(view, fixed)
    summary = next((each for each in every if each.name == name), None)
    if summary is None:
        paused = await Queue(name, view.client).ais_paused()
        summary = QueueNow(name, 0, 0.0, paused, None, len(served), _slots(served), None)
    return view.page(
        "queue.html",
        ("facts", "list"),
        title=name,
        name=name,
        queue=summary,
        paused_by=await _pauser(view, name) if summary.paused else None,
        served=served,
        listing=found,
        oldest=oldest,
        state="queued",
        verbs=VERBS["queued"],
    )


async def _now(view: View) -> tuple[list[QueueNow], list[Process]]:
    """Every queue, the largest first, who serves it, and how it grew since the last look."""
    many = several(view)
    summaries = (await many.aqueue_summaries()).value
    processes = [each.value for each in (await many.aprocesses()).value]
    kept = _before.setdefault(view.site, {})
    at, sizes = kept.get(view.shard, (0.0, {}))
    apart = view.now - at
    if apart > LOOK_EVERY:
        kept[view.shard] = (view.now, {each.name: each.size for each in summaries})
    served: defaultdict[str, list[int]] = defaultdict(list)
    for process in processes:
        for name in process.queues if not process.stopping else ():
            served[name].append(process.concurrency)
    found: list[QueueNow] = []
    for each in summaries:
        slots = served[each.name]
        known = LEAST_APART < apart < MOST_APART and each.name in sizes
        growth = (each.size - sizes[each.name]) / apart if known else None
        known_of = (each.name, each.size, each.latency, each.paused, each.fault)
        found.append(QueueNow(*known_of, len(slots), sum(slots), growth))
    return found, processes


async def _pauser(view: View, name: str) -> Note | None:
    """Who paused it last, as far as the newest notes tell."""
    page = await Audit(view.client).apage(most=NOTES)
    return next((note for note in page.entries if note.verb == "pause" and note.filter == name), None)


def _slots(processes: list[Process]) -> int:
    return sum(process.concurrency for process in processes)


async def _oldest(view: View, name: str) -> Listing:
    """A page from the end that workers take from."""
    after = _place(view.text("after", most=LONGEST_CURSOR))
    page = await Queue(name, view.client).apage(after, most=MOST, oldest_first=True)
    rows = [Row("queued", job, str(Ref("queued", name, job.position, job.jid)), None, None) for job in page.entries]
    return Listing(rows, "", None, next=_cursor(page.next))


def _cursor(place: Place | None) -> str | None:
    if place is None or len(place.raw) > LONGEST_PLACE:
        return None
    return base64.urlsafe_b64encode(f"{place.n}|".encode() + place.raw).decode()


def _place(text: str) -> Place | None:
    if not text:
        return None
    try:
        n, _, raw = base64.urlsafe_b64decode(text).partition(b"|")
        return Place(int(n), raw)
    except (ValueError, UsageError):
        raise BadInput("expected the cursor of a page of this queue; go back to its first page") from None

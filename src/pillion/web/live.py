"""What keeps open pages up to date: one stream of names per tab, and one poller per process for all of them.

The poller looks at Redis once a second, only at what some tab watches, and compares; a topic that changed is put on the
list of every tab that watches it. A tab's list is a set of names, so a slow reader costs nothing and missing one is
harmless: the page fetches the fragment with its ETag. With the last tab the poller ends. Under WSGI there is no stream:
pages ask for their fragments by themselves. Nothing here is kept; a crash ends the streams, and browsers come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import suppress
from typing import TypeAlias
from weakref import WeakKeyDictionary

from starlette.responses import PlainTextResponse, Response, StreamingResponse

from pillion.api import ProcessSet, Stats
from pillion.api.operations import Operations
from pillion.client import Client
from pillion.errors import PillionError
from pillion.web.context import BadInput, View
from pillion.web.site import Site

EVERY = 1.0
COMMENT_EVERY = 15.0
LIVES = 600.0
"""Seconds after which a stream ends and the browser opens a new one: roles change, and proxies tire."""
BROWSERS_WAIT = 3000
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
GONE, BACK = "gone", "back"

Marks: TypeAlias = Mapping[str, Hashable]


async def _figures(client: Client) -> Marks:
    found = await Stats(client).aread()
    sizes = found.scheduled_size, found.retry_size, found.dead_size
    return {
        "figures": (found.processed, found.failed, found.enqueued, found.workers_size, found.processes_size, *sizes),
        "scheduled": (found.scheduled_size, found.processed),
        "retries": (found.retry_size, found.failed),
        "dead": found.dead_size,
        "causes": (found.retry_size, found.dead_size),
    }


async def _queues(client: Client) -> Marks:
    found = await Stats(client).aqueue_summaries()
    return {"queues": tuple((each.name, each.size, int(each.latency), each.paused) for each in found)}


async def _processes(client: Client) -> Marks:
    found = await ProcessSet(clean=False, client=client).aall()
    rows = tuple((each.identity, each.busy, each.beat, each.stopping) for each in found)
    return {"running": rows, "workers": rows}


async def _operations(client: Client) -> Marks:
    found = await Operations(client).arecent(10)
    return {"operations": tuple((each.id, each.state, each.looked, each.restored) for each in found)}


async def _time(client: Client) -> Marks:
    return {"verdict": int(client.setup.config.clock.now() // 5)}


SOURCES: Mapping[Callable[[Client], Awaitable[Marks]], tuple[str, ...]] = {
    _figures: ("figures", "scheduled", "retries", "dead", "causes"),
    _queues: ("queues",),
    _processes: ("running", "workers"),
    _operations: ("operations",),
    _time: ("verdict",),
}
TOPICS = frozenset(topic for topics in SOURCES.values() for topic in topics)


class Tab:
    """One stream: what it watches, and what has changed since it last looked."""

    def __init__(self, topics: frozenset[str]) -> None:
        self.topics = topics
        self._changed: set[str] = set()
        self._bell = asyncio.Event()

    def tell(self, topics: set[str]) -> None:
        """These have changed."""
        if topics:
            self._changed |= topics
            self._bell.set()

    async def wait(self, seconds: float) -> list[str]:
        """What has changed, sorted; nothing after so many seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._bell.wait(), seconds)
        found, self._changed = sorted(self._changed), set()
        self._bell.clear()
        return found


class Poller:
    """Looks once a second for all tabs of one event loop. `rounds` counts how often it has."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._task: asyncio.Task[None] | None = None
        self.tabs: set[Tab] = set()
        self.rounds = 0

    def join(self, tab: Tab) -> None:
        """Look for this tab as well."""
        self.tabs.add(tab)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def leave(self, tab: Tab) -> None:
        """Look for it no more; with the last one, look no more."""
        self.tabs.discard(tab)
        if not self.tabs and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        before: dict[str, Hashable] = {}
        gone = False
        while True:
            wanted = frozenset[str]().union(*(tab.topics for tab in self.tabs))
            try:
                async with asyncio.timeout(self._site.options.patience):
                    now = await self._look(wanted)
            except (PillionError, TimeoutError):
                if not gone:
                    self._tell_all({GONE})
                gone = True
            else:
                if gone:
                    self._tell_all({BACK})
                gone = False
                changed = {topic for topic, mark in now.items() if topic in before and before[topic] != mark}
                before |= now
                for tab in self.tabs:
                    tab.tell(changed & tab.topics)
            self.rounds += 1
            await asyncio.sleep(EVERY)

    def _tell_all(self, words: set[str]) -> None:
        for tab in self.tabs:
            tab.tell(words)

    async def _look(self, wanted: frozenset[str]) -> dict[str, Hashable]:
        """The marks of what is watched: a topic's is another when its page would be."""
        found: dict[str, list[Hashable]] = {}
        for client in self._site.clients.values():
            for source, topics in SOURCES.items():
                if wanted & set(topics):
                    for topic, mark in (await source(client)).items():
                        found.setdefault(topic, []).append(mark)
        return {topic: tuple(marks) for topic, marks in found.items()}


class Live:
    """The streams of one dashboard."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, Poller] = WeakKeyDictionary()

    def answer(self, view: View) -> Response:
        """`GET /events?topics=queues,running`: the stream, or why not."""
        if view.live == "poll":
            return PlainTextResponse("there are no streams under WSGI; ask for the fragments\n", 501)
        topics = frozenset(each for each in view.text("topics").split(",") if each)
        if not topics or topics - TOPICS:
            raise BadInput(f"expected topics of {', '.join(sorted(TOPICS))}")
        if sum(len(poller.tabs) for poller in self._pollers.values()) >= self._site.options.tabs:
            return PlainTextResponse(
                f"expected at most {self._site.options.tabs} open pages\n", 503, {"retry-after": "60"}
            )
        if view.request.method == "HEAD":
            return Response(headers=HEADERS, media_type="text/event-stream")
        poller = self._pollers.setdefault(asyncio.get_running_loop(), Poller(self._site))
        tab = Tab(topics)
        poller.join(tab)  # before the stream begins, so that the next one is counted with it
        return Stream(poller, tab, self._words(tab))

    async def _words(self, tab: Tab) -> AsyncIterator[str]:
        clock = self._site.clock
        ends = clock.steady() + LIVES
        yield f"retry: {BROWSERS_WAIT}\n\n"
        while clock.steady() < ends:
            changed = await tab.wait(COMMENT_EVERY)
            yield "".join(f"event: patch\ndata: {topic}\n\n" for topic in changed) or ": still here\n\n"


class Stream(StreamingResponse):
    """The response; whichever way it ends, its tab leaves."""

    def __init__(self, poller: Poller, tab: Tab, words: AsyncIterator[str]) -> None:
        super().__init__(words, headers=HEADERS, media_type="text/event-stream")
        self._poller, self._tab = poller, tab

    async def __call__(self, *call: object) -> None:
        try:
            await super().__call__(*call)  # type: ignore[arg-type]
        finally:
            self._poller.leave(self._tab)

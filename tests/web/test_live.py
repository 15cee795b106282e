"""Streams: names of what has changed, one poller for all of them, and an end to both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pillion import Client
from pillion.web import live
from tests.servers import Server
from tests.web.conftest import Visit
from tests.web.visitor import Visitor

PATIENCE = 20


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY", 0.02)


async def start_of(messages: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        return await anext(messages)


async def said(messages: AsyncIterator[dict[str, Any]], words: str) -> str:
    """What the stream has said once it has said this."""
    found = ""
    async with asyncio.timeout(PATIENCE):
        async for message in messages:
            found += message.get("body", b"").decode()
            if words in found:
                return found
    raise AssertionError(f"the stream ended after {found!r}")


async def looked(client: Client, visitor: Visitor) -> None:
    """Once the poller has looked at least once, so that it has something to compare with."""
    poller = next(iter(live_of(visitor)._pollers.values()))
    async with asyncio.timeout(PATIENCE):
        while not poller.rounds:  # noqa: ASYNC110 - the poller counts and tells nobody
            await asyncio.sleep(0.005)


def live_of(visitor: Visitor) -> Any:
    return visitor.app.live


@pytest.mark.rule("web.poll", instead=True)
def test_a_change_is_told_by_its_name(visit: Visit, client: Client) -> None:
    visitor = visit()

    async def story() -> None:
        async with visitor.sent(visitor.stream("/events?topics=queues,dead")) as messages:
            start = await start_of(messages)
            assert start["status"] == 200
            headers = {name.decode(): value.decode() for name, value in start["headers"]}
            assert headers["content-type"].startswith("text/event-stream")
            assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
            await looked(client, visitor)
            await client.apush({"class": "Web::Live", "args": ["<secret>"]})
            told = await said(messages, "data: queues")
            assert told.startswith("retry: 3000\n\n")
            assert told.endswith("event: patch\ndata: queues\n\n")
            assert "dead" not in told
            assert "secret" not in told

    visitor.runner.run(story())


def test_one_poller_serves_all_tabs_and_ends_with_the_last(visit: Visit, client: Client) -> None:
    visitor = visit()

    async def story() -> None:
        first, second = (visitor.sent(visitor.stream(f"/events?topics={topic}")) for topic in ("queues", "figures"))
        async with first as one, second as two:
            await start_of(one)
            await start_of(two)
            [poller] = live_of(visitor)._pollers.values()
            await looked(client, visitor)
            await client.apush({"class": "Web::Live", "args": []})
            assert "figures" not in await said(one, "data: queues")
            assert "queues" not in await said(two, "data: figures")
            assert len(poller.tabs) == 2
        assert poller.tabs == set()
        assert poller._task is None

    visitor.runner.run(story())


def test_there_are_only_so_many_tabs(visit: Visit) -> None:
    visitor = visit(tabs=2)

    async def story() -> None:
        first, second, third, fourth = (visitor.sent(visitor.stream("/events?topics=verdict")) for _ in range(4))
        async with first as one:
            assert (await start_of(one))["status"] == 200
            async with second as two, third as three:
                assert (await start_of(two))["status"] == 200
                refused = await start_of(three)
                assert refused["status"] == 503
                assert b"retry-after" in dict(refused["headers"])
        async with fourth as one:
            assert (await start_of(one))["status"] == 200

    visitor.runner.run(story())


def test_a_stream_ends_by_itself(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LIVES", 0.05)
    monkeypatch.setattr(live, "COMMENT_EVERY", 0.02)
    visitor = visit()

    async def story() -> str:
        found = ""
        async with visitor.sent(visitor.stream("/events?topics=dead")) as messages, asyncio.timeout(PATIENCE):
            async for message in messages:
                found += message.get("body", b"").decode()
        return found

    assert ": still here\n\n" in visitor.runner.run(story())


def test_it_says_that_redis_is_gone_and_back(visit: Visit, own_server: Server) -> None:
    client = Client(own_server.url)
    visitor = visit(shown=client)

    async def story() -> None:
        async with visitor.sent(visitor.stream("/events?topics=dead")) as messages:
            await start_of(messages)
            await looked(client, visitor)
            own_server.kill()
            await said(messages, "data: gone")
            own_server.restart()
            await said(messages, "data: back")
        await client.aclose()

    visitor.runner.run(story())
    client.close()


@pytest.mark.parametrize("topics", ["", "nonsense", "queues,nonsense", "queues%0adata: x"])
def test_unknown_topics_are_refused(visit: Visit, topics: str) -> None:
    assert visit().get(f"/events?topics={topics}").status == 400


def test_a_slow_reader_holds_up_nobody_and_keeps_little() -> None:
    async def story() -> None:
        tab = live.Tab(frozenset({"queues"}))
        for _ in range(10_000):
            tab.tell({"queues"})
        assert await tab.wait(1) == ["queues"]
        assert await tab.wait(0.01) == []

    asyncio.run(story())

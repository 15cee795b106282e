"""What the tests of the API share: an API in both colours on one server, a clock that stands, and a look from outside.

say       speaks a verb in its colour: `say(queue.size)` is `queue.size()`, or `await queue.asize()`
client    pushes to the shared server, on the clock below
clock     stands at `NOW` until a test moves it
look      a redis-py client
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
import redis

from pillion import Client, Setup
from pillion.registry import Registry
from tests.servers import Server

NOW = 1_795_347_780.0
"""2026-11-22 11:43:00 UTC."""


class Clock:
    """Time that a test moves."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def steady(self) -> float:
        return self.at


class Say:
    """One of the two colours of every verb."""

    def __init__(self, colour: str) -> None:
        self.colour = colour
        self.runner = asyncio.Runner()

    def __call__(self, verb: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self.colour == "sync":
            return verb(*args, **options)
        twin = getattr(verb.__self__, f"a{verb.__name__}")  # type: ignore[attr-defined]
        return self.runner.run(twin(*args, **options))

    def walk(self, through: Any) -> list[Any]:
        """Everything that `for`, or `async for`, goes through."""
        if self.colour == "sync":
            return list(through)

        async def collect() -> list[Any]:
            return [each async for each in through]

        return self.runner.run(collect())

    def each(self, through: Any, act: Callable[[Any], None]) -> list[Any]:
        """The same, acting on each before the next one is asked for."""
        if self.colour == "sync":
            found = []
            for each in through:
                found.append(each)
                act(each)
            return found

        async def collect() -> list[Any]:
            found = []
            async for each in through:
                found.append(each)
                act(each)
            return found

        return self.runner.run(collect())


@pytest.fixture(params=["sync", "async"])
def say(request: pytest.FixtureRequest) -> Iterator[Say]:
    say = Say(request.param)
    yield say
    say.runner.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


NewClient: TypeAlias = Callable[..., Client]


@pytest.fixture
def new_client(server: Server, clock: Clock) -> Iterator[NewClient]:
    """Makes clients with options of their own."""
    made: list[Client] = []

    def make(**options: Any) -> Client:
        made.append(Client(setup=Setup(**{"redis": server.url, "registry": Registry(), "clock": clock, **options})))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def client(new_client: NewClient) -> Client:
    return new_client()


@pytest.fixture
def look(server: Server) -> redis.Redis:
    return server.client()


def job(jid: str, *args: Any, **fields: Any) -> bytes:
    """The bytes of a stored job."""
    return json.dumps({"class": "Plain", "args": list(args), "jid": jid, "queue": "default", **fields}).encode()

"""What the tests of the sending side share: both colours behind one face, and a relay in front of the server.

face          a client of the shared server, once blocking and once from asyncio
new_face      a factory for more of them, on any address
own_face      the same for `own_server`
relay         a loopback port in front of `own_server`, see `relay.py`
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import pytest

from pillion.client import Client
from pillion.registry import Registry
from pillion.setup import Setup
from pillion.store.ops import Op
from tests.servers import Server
from tests.store.relay import Relay

Colour: TypeAlias = Literal["sync", "async"]


class Face:
    """One client in one colour, asked in the same words. `runner` is the event loop of the asyncio one."""

    def __init__(self, colour: Colour, redis: Any, **options: Any) -> None:
        self.colour = colour
        self.setup = Setup(redis, registry=Registry(), **options)
        self.client = Client(setup=self.setup)
        self.runner = asyncio.Runner()

    def push(self, item: dict[str, Any], **options: Any) -> str | None:
        if self.colour == "sync":
            return self.client.push(item, **options)
        return self.runner.run(self.client.apush(item, **options))

    def push_bulk(self, item: dict[str, Any], **options: Any) -> Any:
        if self.colour == "sync":
            return self.client.push_bulk(item, **options)
        return self.runner.run(self.client.apush_bulk(item, **options))

    def run(self, op: Op[Any]) -> Any:
        """Run an op on the store of this colour."""
        if self.colour == "sync":
            return self.setup.store.run(op)
        return self.runner.run(self.setup.astore.run(op))

    def close(self) -> None:
        self.client.close()
        self.runner.close()


NewFace: TypeAlias = Callable[..., Face]


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> Colour:
    """Blocking or asyncio."""
    chosen: Colour = request.param
    return chosen


@pytest.fixture
def new_face(colour: Colour) -> Iterator[NewFace]:
    """Makes faces that live as long as the test."""
    made: list[Face] = []

    def make(redis: Any, **options: Any) -> Face:
        made.append(Face(colour, redis, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def face(new_face: NewFace, server: Server) -> Face:
    return new_face(server.url)


@pytest.fixture
def own_face(new_face: NewFace, own_server: Server) -> Face:
    return new_face(own_server.url)


@pytest.fixture
def relay(own_server: Server) -> Iterator[Relay]:
    relay = Relay(str(own_server.socket_path))
    yield relay
    relay.close()

"""Ruby's side and ours. Ruby's processes are shared by a module's tests; its worker looks for due jobs as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests import leaks
from tests.conftest import Ruby
from tests.interop.bare import Bare
from tests.interop.sides import Console, Pillion, Sidekiq
from tests.servers import Server


@pytest.fixture(scope="module")
def console(session_server: Server, ruby: Ruby) -> Iterator[Console]:
    """Ruby's client and API."""
    console = Console(ruby, session_server)
    yield console
    console.close()


@pytest.fixture(scope="module")
def sidekiq(session_server: Server, ruby: Ruby) -> Iterator[Sidekiq]:
    """Ruby's worker, for the queues `ruby` and `both`."""
    sidekiq = Sidekiq(ruby, session_server, "ruby", "both")
    yield sidekiq
    sidekiq.close()


@pytest.fixture
def pillion(server: Server) -> Iterator[Pillion]:
    """Our clients and workers. What they leave behind of their own keys fails the test."""
    pillion = Pillion(server)
    yield pillion
    pillion.close()
    leaks.check(server)


@pytest.fixture
def client(server: Server) -> redis.Redis:
    """What the test itself looks with."""
    return server.client()


@pytest.fixture
def bare(server: Server) -> Iterator[Bare]:
    """A connection without a client library."""
    bare = Bare(server)
    yield bare
    bare.close()

"""The web servers are asked about Pillion's connections, which one kind of Redis counts as well as the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from pillion import Client
from pillion.web import dashboard
from tests.servers import Kind, Server
from tests.web.visitor import Visitor


@pytest.fixture(scope="session")
def kind() -> Kind:
    """Valkey alone."""
    return "valkey"


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """The client that the dashboard looks through."""
    client = Client(server.url)
    yield client
    client.close()


Visit: TypeAlias = Callable[..., Visitor]


@pytest.fixture
def visit(client: Client) -> Iterator[Visit]:
    """`visit(role="viewer", hosts=..., ...)`: a browser in front of a dashboard; an admin's unless it says otherwise.

    `app` is an application instead of a dashboard of its own, `shown` what it shows instead of `client`; `host`,
    `root`, `scheme` and `address` are the browser's.
    """
    runner = asyncio.Runner()

    def open_page(
        *, role: str | None = "admin", auth: Any = None, app: Any = None, shown: Any = None, **options: Any
    ) -> Visitor:
        browser = {name: options.pop(name) for name in ("host", "root", "scheme", "address") if name in options}
        asked = auth or (lambda _: role)
        return Visitor(app or dashboard(shown or client, auth=asked, **options), runner, **browser)

    yield open_page
    runner.run(client.aclose())
    runner.close()

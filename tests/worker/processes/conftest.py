"""Servers for tests that are about processes: one kind is enough, unless a test asks for `server`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import leaks
from tests.servers import Server


@pytest.fixture
def one_server() -> Iterator[Server]:
    """A Valkey of the test's own, whose keys are checked at the end."""
    server = Server("valkey").start()
    try:
        yield server
        leaks.check(server)
    finally:
        server.close()

"""A worker's harness for tests of single rules; what it leaves behind of our own keys fails the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pillion import registry
from tests import leaks
from tests.servers import Server
from tests.worker.harness import Harness, harness


@pytest.fixture(autouse=True)
def names_of_this_test_only() -> Iterator[None]:
    with registry.default.restored():
        yield


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    with harness(server) as bed:
        yield bed
    leaks.check(server)

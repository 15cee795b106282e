"""The web servers are asked about Pillion's connections, which one kind of Redis counts as well as the other."""

from __future__ import annotations

import pytest

from tests.servers import Kind


@pytest.fixture(scope="session")
def kind() -> Kind:
    """Valkey alone."""
    return "valkey"

"""Fixtures of the killing tests: a bed with a server that may be killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.bed import Bed
from tests.servers import Server


@pytest.fixture
def bed(own_server: Server, tmp_path: Path) -> Iterator[Bed]:
    """A server of this test's own, every acknowledged write on disk, and no worker yet."""
    made = Bed(own_server, tmp_path)
    try:
        yield made
    finally:
        made.close()

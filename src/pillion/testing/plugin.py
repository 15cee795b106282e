"""Fixtures for pytest, there as soon as Pillion is installed.

    def test_signup(pillion_fake):
        signup("bob@example.org")
        assert len(pillion_fake.of(WelcomeMail)) == 1

`pillion_worker` starts a server of its own and a real worker on it, and points the default setup there for the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from pillion.testing import Collected
    from pillion.testing.live import LiveWorker


@pytest.fixture
def pillion_fake() -> Iterator[Collected]:
    """Collects the jobs that the test pushes."""
    from pillion import testing  # noqa: PLC0415 - pytest loads this file in every project

    with testing.fake() as jobs:
        yield jobs


@pytest.fixture
def pillion_inline() -> Iterator[None]:
    """Runs each job that the test pushes at once."""
    from pillion import testing  # noqa: PLC0415

    with testing.inline():
        yield


@pytest.fixture
def pillion_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveWorker]:
    """A real worker of the default setup on a real server, both gone after the test."""
    from pillion.testing.live import live_worker  # noqa: PLC0415

    folder: Path = tmp_path_factory.mktemp("pillion")
    with live_worker(folder) as worker:
        yield worker

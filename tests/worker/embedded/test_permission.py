"""Who may have an embedded server: never production, and not a process that nobody watches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pillion import embedded
from pillion.errors import ConfigError
from tests.worker.embedded.projects import PRELUDE, Project


@pytest.mark.parametrize("environment", ["production", "Production", " production\n"])
def test_production_is_refused_whatever_else_is_said(project: Project, environment: str) -> None:
    project.folder.mkdir()
    with pytest.raises(ConfigError, match="not for production"):
        project.ensure(environment=environment)
    assert not (project.folder / "data").exists()


def test_without_a_terminal_nothing_is_created(project: Project) -> None:
    code = """
try: embedded.ensure(root)
except embedded.ConfigError as error: say(error)
"""
    said = project.user(code).hear()
    for cure in (
        "set REDIS_URL=redis://",
        "pip install 'pillion[dev]'",
        "install a server",
        "REDIS_URL=redis://localhost:6379",
    ):
        assert cure in said
    assert not project.folder.exists()


def test_without_a_terminal_an_existing_folder_is_permission(project: Project) -> None:
    project.folder.mkdir()
    user = project.user("say(embedded.ensure(root)); wait()")
    assert user.hear().startswith("unix://")


def test_a_terminal_is_permission(project: Project) -> None:
    ours, theirs = os.openpty()
    try:
        words = [sys.executable, "-c", PRELUDE + "embedded.ensure(root)", os.fspath(project.root)]
        subprocess.run(words, stdin=theirs, capture_output=True, check=True, timeout=30)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (project.folder / "data" / "VERSION").exists()


def test_create_false_refuses_a_new_folder(project: Project) -> None:
    with pytest.raises(ConfigError, match="REDIS_URL"):
        project.ensure(create=False)
    assert not project.folder.exists()


@pytest.mark.parametrize("marker", ["pyproject.toml", ".git"])
def test_root_is_the_nearest_folder_with_a_marker(tmp_path: Path, marker: str) -> None:
    inner = tmp_path / "outer" / "inner"
    deep = inner / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "outer" / "pyproject.toml").touch()
    (inner / marker).touch()
    assert embedded.find_root(deep) == inner
    assert embedded.find_root(tmp_path / "outer") == tmp_path / "outer"


def test_root_is_the_working_directory_without_any_marker(tmp_path: Path) -> None:
    assert embedded.find_root(tmp_path) == tmp_path

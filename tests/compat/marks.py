"""Which test proves which rule: the `rule` markers of the whole suite, by way of pytest's own collection.

`collect` must run in a fresh process, as it imports every test; `python -m tests.compat.marks` prints what it finds.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
QUIETLY = ("--collect-only", "-qq", "-p", "no:cacheprovider")


class Mark(NamedTuple):
    """A test that is marked with a rule.

    Attributes:
        rule: the rule's id.
        test: `tests/unit/test_retry.py::test_name`, without parameters.
        instead: it shows what Pillion does where it differs.
    """

    rule: str
    test: str
    instead: bool


class Collector:
    """The pytest plugin that gathers them."""

    def __init__(self) -> None:
        self.marks: set[Mark] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, Any, Any]:
        """Let test modules define jobs as they like: two of them may use one name."""
        from pillion import registry

        with registry.default.restored():
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Before anything is deselected."""
        for item in items:
            test = item.nodeid.partition("[")[0]
            for marker in item.iter_markers("rule"):
                instead = dict(marker.kwargs).pop("instead", False)
                if not marker.args or marker.kwargs.keys() - {"instead"}:
                    raise pytest.UsageError(f'{test}: expected @pytest.mark.rule("id", ..., instead=True or not)')
                self.marks |= {Mark(str(rule), test, bool(instead)) for rule in marker.args}


def collect() -> list[Mark]:
    """Every mark of the suite, sorted. Raises RuntimeError with pytest's words where a test cannot be collected."""
    collector, said = Collector(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = pytest.main([*QUIETLY, "--rootdir", str(ROOT), str(ROOT / "tests")], plugins=[collector])
    if code != pytest.ExitCode.OK:
        raise RuntimeError(f"the tests could not be collected:\n{said.getvalue()[-4000:]}")
    return sorted(collector.marks)


def collect_elsewhere() -> list[Mark]:
    """`collect` in a process of its own, for callers that run inside pytest."""
    words = [sys.executable, "-m", "tests.compat.marks"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-4000:])
    return [Mark(*mark) for mark in json.loads(done.stdout)]


if __name__ == "__main__":
    json.dump(collect(), sys.stdout)

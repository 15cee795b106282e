"""mypy and pyright read job calls as we mean them: right calls pass, and every wrong one is reported on its line.

The calls stand in `tests/typing`: nothing may be reported in `right.py`, in `wrong.py` exactly what is marked `# E:`.
They are checked in a folder of their own, as a user's code is: against the installed package, without our settings.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

CALLS = Path(__file__).parents[1] / "typing"
WRONG = (CALLS / "wrong.py").read_text().splitlines()
EXPECTED = {number: text.partition("# E: ")[2] for number, text in enumerate(WRONG, 1) if "# E: " in text}

Reports: TypeAlias = dict[str, dict[int, str]]
"""file -> line -> what was said about it."""


def mypy(folder: Path) -> Reports:
    out = run(folder, "mypy", "--strict", "--no-error-summary", "right.py", "wrong.py")
    reports: Reports = {}
    for file, line, words in re.findall(r"^(.+?):(\d+): error: (.*)$", out, re.MULTILINE):
        reports.setdefault(file, {})[int(line)] = words
    return reports


def pyright(folder: Path) -> Reports:
    report = json.loads(run(folder, "pyright", "--pythonpath", sys.executable, "--outputjson", "right.py", "wrong.py"))
    assert report["summary"]["filesAnalyzed"] == 2
    reports: Reports = {}
    for each in report["generalDiagnostics"]:
        line = each["range"]["start"]["line"] + 1
        reports.setdefault(Path(each["file"]).name, {})[line] = each["message"]
    return reports


def run(folder: Path, tool: str, *args: str) -> str:
    """What the tool prints about the calls; it must find fault with some."""
    for source in CALLS.glob("*.py"):
        shutil.copy(source, folder)
    done = subprocess.run(
        [sys.executable, "-m", tool, *args], cwd=folder, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("checker", [mypy, pyright], ids=["mypy", "pyright"])
def test_right_calls_pass_and_each_wrong_one_is_reported(checker: Callable[[Path], Reports], tmp_path: Path) -> None:
    reports = checker(tmp_path)
    told = reports.pop("wrong.py")
    assert reports == {}
    missed = {line: EXPECTED[line] for line in EXPECTED.keys() - told.keys()}
    assert missed == {}
    unexpected = {line: told[line] for line in told.keys() - EXPECTED.keys()}
    assert unexpected == {}


def test_there_are_wrong_calls_of_every_verb() -> None:
    marked = " ".join(line for line in WRONG if "# E: " in line)
    for verb in ("async", "in", "at", "bulk", "inline"):
        assert f".perform_{verb}(" in marked
        assert f".aperform_{verb}(" in marked
    for verb in ("enqueue", "enqueue_to", "enqueue_in", "enqueue_to_in"):
        assert f".{verb}(" in marked
        assert f".a{verb}(" in marked
    assert len(EXPECTED) > 30

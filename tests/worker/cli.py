"""Running `pillion` as a person does: a process of its own, in a folder of its own, with a clean environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

OURS = ("PILLION_", "REDIS_", "APP_ENV", "NO_COLOR")


class Said(NamedTuple):
    """What a finished command said, and its exit code."""

    code: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without anything that configures Pillion, and with `variables`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**clean, "PYTHONDONTWRITEBYTECODE": "1", **variables}


def pillion(*words: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 30) -> Said:
    """Run `pillion` with these words to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "pillion", *words],
        cwd=cwd,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write files, by their path below `folder`, and return the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder

"""The command line: `pillion worker`, `dev`, `push`, `config`, `doctor`. This file is what `pillion` starts.

Each command is a small function in a file of its own, found by name when it is called, and imports what it needs when
it runs: `pillion --version` and `pillion --help` load no Redis client. `exits.py` lists the exit codes and `trouble.py`
turns errors into sentences, in one place for all commands.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (this process's own by default) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["-V"], ["--version"]):
        from pillion.cli.version import show_version

        return show_version()
    from pillion.cli.app import run

    return run(words)

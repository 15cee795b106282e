"""`pillion --version`: one line, before anything else is loaded."""

from __future__ import annotations

from pillion.version import __version__


def show_version() -> int:
    """Print `pillion X.Y.Z`."""
    print(f"pillion {__version__}")
    return 0

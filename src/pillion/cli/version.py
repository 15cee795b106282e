"""`pillion --version`: one line, before anything else is loaded."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """Pillion's version as it is installed; "unknown" where it runs from a bare source tree."""
    try:
        return version("pillion")
    except PackageNotFoundError:
        return "unknown"


def show_version() -> int:
    """Print `pillion X.Y.Z`."""
    print(f"pillion {installed_version()}")
    return 0

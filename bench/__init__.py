"""The benchmark: Pillion beside other job systems, on one server in one run: `make bench`, `python -m bench --help`."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]

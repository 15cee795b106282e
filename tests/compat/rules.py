"""The rules: what Sidekiq does, one sentence each, and where Pillion differs or is not that far. See `rules.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("rules.toml")
HEADINGS = "areas"


@dataclass(frozen=True)
class Rule:
    """One thing that Sidekiq does.

    Attributes:
        id: `<area>.<name>`, as markers write it.
        rule: what it does.
        differs: why Pillion does otherwise, or None.
        later: what has to be built first, or None.
    """

    id: str
    rule: str
    differs: str | None = None
    later: str | None = None

    @property
    def area(self) -> str:
        return self.id.partition(".")[0]


def load(text: str | None = None) -> tuple[dict[str, Rule], dict[str, str]]:
    """The rules by their ids and the headings by their areas, both in the order of the page.

    Raises ValueError for an area without heading or without rules, and TypeError for a key that no rule has.
    """
    tables: dict[str, Mapping[str, Mapping[str, str]]] = tomllib.loads(FILE.read_text() if text is None else text)
    headings: dict[str, str] = dict(tables.pop(HEADINGS))  # type: ignore[arg-type]
    if headings.keys() != tables.keys():
        raise ValueError(f"areas with only rules or only a heading: {sorted(headings.keys() ^ tables.keys())}")
    rules = [Rule(f"{area}.{name}", **fields) for area in headings for name, fields in tables[area].items()]
    return {rule.id: rule for rule in rules}, headings

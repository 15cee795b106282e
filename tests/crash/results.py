"""The results of a campaign: a JSON file that grows block by block, so that an interrupted run goes on where it was.

A figure stands in it as it was measured: nothing is averaged away. Recovery times are kept in hundredths of a second.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pillion
from tests.crash.fault import Score
from tests.servers import Kind, binary_of

PUBLISHED = Path(__file__).parents[2] / "docs" / "reliability" / "results.json"
MOST_STORIES = 20


@dataclass
class Row:
    """What all trials of one fault came to.

    Attributes:
        n: how many trials.
        blocks: the numbers of the blocks that were played.
        accepted: jobs that were pushed and confirmed.
        lost, stranded, again, excused: see `Score`.
        broken: trials in which something was wrong.
        recoveries: hundredths of a second -> in how many trials.
        stories: plan and words of trials in which something was wrong.
    """

    n: int = 0
    blocks: list[int] = field(default_factory=list)
    accepted: int = 0
    lost: int = 0
    stranded: int = 0
    again: int = 0
    excused: int = 0
    broken: int = 0
    recoveries: dict[str, int] = field(default_factory=dict)
    stories: list[str] = field(default_factory=list)

    def add(self, score: Score) -> None:
        """One more trial."""
        self.n += 1
        self.accepted += score.accepted
        self.lost += len(score.lost)
        self.stranded += len(score.stranded)
        self.again += score.again
        self.excused += score.excused
        if score.recovery is not None:
            key = str(round(score.recovery * 100))
            self.recoveries[key] = self.recoveries.get(key, 0) + 1
        if score.wrong:
            self.broken += 1
            self.stories = [*self.stories, "\n".join([score.plan, *score.wrong])][:MOST_STORIES]

    def merge(self, other: Row) -> None:
        """Take over the trials of another row."""
        for name in ("n", "accepted", "lost", "stranded", "again", "excused", "broken"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.blocks = sorted({*self.blocks, *other.blocks})
        for key, count in other.recoveries.items():
            self.recoveries[key] = self.recoveries.get(key, 0) + count
        self.stories = [*self.stories, *other.stories][:MOST_STORIES]

    @property
    def median(self) -> float | None:
        """The median recovery in seconds."""
        times = list(self._times())
        return times[len(times) // 2] if times else None

    @property
    def longest(self) -> float | None:
        """The longest recovery in seconds."""
        return max(self._times(), default=None)

    def _times(self) -> Iterator[float]:
        for key in sorted(self.recoveries, key=int):
            yield from [int(key) / 100] * self.recoveries[key]


@dataclass
class Results:
    """A campaign. `versions` are of what was tested, `seeds` those that were used."""

    rows: dict[str, Row] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def row(self, fault: str) -> Row:
        return self.rows.setdefault(fault, Row())

    def merge(self, fault: str, row: Row, seed: int) -> None:
        """Take over a block."""
        self.row(fault).merge(row)
        self.seeds = sorted({*self.seeds, seed})


def load(path: Path) -> Results:
    """The results in a file; none where there is no file."""
    if not path.exists():
        return Results()
    read: dict[str, Any] = json.loads(path.read_text())
    rows = {name: Row(**row) for name, row in read["rows"].items()}
    return Results(rows, read["seeds"], read["versions"])


def save(results: Results, path: Path) -> None:
    """Write them; a crash leaves the file as it was before, or as it is after."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(results), indent=1, sort_keys=True) + "\n")
    draft.replace(path)


def versions(servers: Iterable[Kind]) -> dict[str, str]:
    """What is being tested, and on what."""
    return {
        "pillion": pillion.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores",
        "servers": ", ".join(version_of(kind) for kind in servers),
    }


def version_of(kind: Kind) -> str:
    """A server's name and version."""
    said = subprocess.run([binary_of(kind), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\S+)", said)
    return f"{kind} {found[1] if found else said.strip()}"

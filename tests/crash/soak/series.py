"""What the samples of a soak say over time: a series for each figure of each process, role and server, and its verdict.

A process that lives long enough has lines of its own. The battered ones are replaced again and again, so their roles
have lines as well, through the mean of whoever was there: what one generation hands to the next shows there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.crash.soak import journal
from tests.crash.soak.slopes import Point, Slope, slope

MB = 1024.0 * 1024.0
MOST = 1.0
"""MB per hour."""

FIGURES = {"rss": "RSS (MB)", "anon": "private memory (MB)", "fds": "descriptors", "threads": "threads"}
MEMORY = ("rss", "anon", "memory")
TOLD = ("blocks", "waiting", "dead")
"""Told, not judged: memory is judged itself, the others depend on what was pushed."""

Sample = dict[str, Any]
Series = dict[str, list[Point]]


def lines(
    samples: Sequence[Sample], folder: Path, began: float, warm_up: float, block: float
) -> Iterator[dict[str, Any]]:
    """A verdict on every series that is long enough, from means of `block` seconds.

    The first `warm_up` seconds of the run count for nothing, nor do those of each process.
    """
    late = [sample for sample in samples if sample["at"] >= began + warm_up]
    roles = {each["pid"]: each["role"] for sample in samples for each in sample["processes"]}
    by_pid = by_process(samples)
    for pid, figures in vitals(folder).items():
        by_pid[pid] = {**by_pid.get(pid, {}), **figures}
    by_pid = {pid: {name: warm(points, warm_up) for name, points in each.items()} for pid, each in by_pid.items()}
    for pid, figures in sorted(by_pid.items(), key=lambda item: (roles.get(item[0], ""), item[0])):
        yield from judged(f"{roles.get(pid, '?')} {pid}", figures, block)
    for role, figures in sorted(by_role(late).items()):
        yield from judged(f"all of {role}", figures, block)
    yield from judged("server", of_server(late), block)


def judged(who: str, series: Series, block: float) -> Iterator[dict[str, Any]]:
    """A line for each series that has a slope."""
    for name, points in series.items():
        found = slope(points, block)
        if found is not None:
            yield {
                "what": f"{who}: {FIGURES.get(name, name)}",
                "who": who,
                "figure": name,
                "found": asdict(found),
                "passed": name in TOLD or is_flat(name, found),
            }


def is_flat(name: str, found: Slope) -> bool:
    """Memory: not surely more than 1 MB an hour. Counts: not surely growing, or by less than one in all that time."""
    if name in MEMORY:
        return found.low < MOST
    return found.low <= 0 or found.value * found.hours < 1


def by_process(samples: Sequence[Sample]) -> dict[int, Series]:
    """Series by pid."""
    found: dict[int, Series] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        for each in sample["processes"]:
            for name in FIGURES:
                found[each["pid"]][name].append((sample["at"], scaled(name, each[name])))
    return found


def by_role(samples: Sequence[Sample]) -> dict[str, Series]:
    """Series of the mean of a battered role's processes."""
    found: dict[str, Series] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        roles = defaultdict(list)
        for each in sample["processes"]:
            roles[each["role"]].append(each)
        for role, members in roles.items():
            if "battered" in role:
                for name in FIGURES:
                    mean = sum(each[name] for each in members) / len(members)
                    found[role][name].append((sample["at"], scaled(name, mean)))
    return found


def of_server(samples: Sequence[Sample]) -> Series:
    """Series of the server's figures: its memory without the scheduled jobs, its keys without those that expire late.

    Those are the metrics, and one counter for each job that a crash took along.
    """
    found: Series = defaultdict(list)
    for sample in samples:
        at, server = sample["at"], sample["redis"]
        if server is None:
            continue
        for name in ("clients", "scripts", "tracked", "waiting", "dead", "lease"):
            if server.get(name) is not None:
                found[name].append((at, server[name]))
        if "families" in server:
            found["memory"].append((at, (server["memory"] - server["schedule_bytes"]) / MB))
            found["keys"].append((at, sum(n for kind, n in server["families"].items() if not kind.endswith("*"))))
    return found


def warm(points: list[Point], warm_up: float) -> list[Point]:
    """Without the first seconds."""
    return [point for point in points if point[0] >= points[0][0] + warm_up]


def vitals(folder: Path) -> dict[int, Series]:
    """Blocks of memory and asyncio tasks by pid, as the processes themselves counted them."""
    found: dict[int, Series] = defaultdict(lambda: defaultdict(list))
    for what, at, pid, value in journal.read(folder / journal.VITALS):
        found[int(pid)][what].append((float(at), float(value)))
    return found


def scaled(name: str, value: float) -> float:
    return value / MB if name in MEMORY else value

"""How many cores this process may use, which is not how many the machine has: affinity and cgroup quotas count.

Asked by the zygote for `--processes auto`. A quota of 2.5 cores makes 2: a third process would only take turns with the
others. It is never less than 1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Whole cores that this process may keep busy."""
    return max(1, int(min([float(_allowed()), *_quotas(root, membership)])))


def wanted(processes: int | str | None) -> int:
    """How many processes the option `processes` means here."""
    return processes if isinstance(processes, int) else usable() if processes == "auto" else 1


def _allowed() -> int:
    """Cores that the scheduler may put this process on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path, membership: Path) -> Iterator[float]:
    """The quotas of this process's cgroup and those above it, in cores; version 2 of cgroups, then version 1."""
    for folder in _folders(root, _paths(membership)):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        yield from _cores(quota, period)
    for name in ("cpu", "cpu,cpuacct"):
        folder = root / name
        yield from _cores(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _paths(membership: Path) -> list[str]:
    lines = [line.split(":", 2) for line in _read(membership).splitlines()]
    return [line[2] for line in lines if len(line) == 3 and line[1] == ""]


def _folders(root: Path, paths: list[str]) -> Iterator[Path]:
    """A cgroup's folder and every one above it up to the root, which in a container is the container's own."""
    yield root
    for path in paths:
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for length in range(1, len(parts) + 1):
            yield root.joinpath(*parts[:length])


def _cores(quota: str, period: str) -> Iterator[float]:
    if quota.isdigit() and period.isdigit() and int(quota) and int(period):
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""

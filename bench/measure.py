"""What is read from outside while a peer runs: its marks, its CPU and its memory, over all its processes.

A peer is started in a session of its own, so whatever it starts belongs to it; its CPU is user and system time of all
of them as the kernel accounts it, with that of children that have ended.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
STOP_PATIENCE = 2.0


class TooSlow(Exception):
    """A mark did not come in time, or the peer ended before it."""


class Processes:
    """A peer's commands and everything they start."""

    def __init__(self, commands: Sequence[Sequence[str]], environment: dict[str, str], log: Path) -> None:
        self.begun = time.time_ns()
        with log.open("wb") as file:
            self._children = [
                subprocess.Popen(
                    words, env=environment, cwd=log.parent, start_new_session=True, stdout=file, stderr=file
                )
                for words in commands
            ]
        self._sessions = {str(child.pid) for child in self._children}

    def is_alive(self) -> bool:
        return all(child.poll() is None for child in self._children)

    def cpu(self) -> float:
        """Seconds of user and system time so far."""
        return sum(sum(map(int, fields[11:15])) for _, fields in self._all()) / TICKS

    def rss(self) -> float:
        """Resident memory now, in MB, summed over all processes."""
        pages = 0
        for pid, _ in self._all():
            try:
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except OSError:
                continue
        return pages * PAGE / 1e6

    def stop(self) -> None:
        """End them in order if they will, else by force."""
        deadline = time.monotonic() + STOP_PATIENCE
        for child in self._children:
            child.terminate()
        while self._all() and time.monotonic() < deadline:
            self.is_alive()
            time.sleep(0.02)
        for pid, _ in self._all():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for child in self._children:
            child.wait()

    def _all(self) -> list[tuple[int, list[str]]]:
        """Pid and fields of `/proc/<pid>/stat` from the state on, for each living process of our sessions."""
        stats = ((path.name, _stat(path)) for path in Path("/proc").iterdir() if path.name.isdigit())
        return [
            (int(name), fields) for name, fields in stats if fields and fields[3] in self._sessions and fields[0] != "Z"
        ]


def _stat(process: Path) -> list[str] | None:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


@dataclass
class Marks:
    """The named pipe into which jobs write who they are and when."""

    path: Path
    latencies: list[float] = field(default_factory=list)
    _came: dict[str, int] = field(default_factory=dict)
    _rest: bytes = b""

    def __post_init__(self) -> None:
        os.mkfifo(self.path)
        self._file = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def clear(self) -> None:
        """Forget what came so far."""
        self._read()
        self.latencies.clear()
        self._came.clear()

    def wait(self, tag: str, patience: float, alive: Callable[[], bool]) -> int:
        """The time (ns since 1970) at which the job `tag` ran. Raises TooSlow."""
        deadline = time.monotonic() + patience
        while tag not in self._came:
            if time.monotonic() > deadline or not alive():
                raise TooSlow(f"no `{tag}` after {patience:.0f} s" if alive() else f"it ended before `{tag}`")
            self._read(0.2)
        return self._came.pop(tag)

    def collect(self, count: int, patience: float, alive: Callable[[], bool]) -> list[float]:
        """Wait for so many latencies, in ms, and return them. Raises TooSlow."""
        deadline = time.monotonic() + patience
        while len(self.latencies) < count:
            if time.monotonic() > deadline or not alive():
                raise TooSlow(f"{len(self.latencies)} of {count} latencies after {patience:.0f} s")
            self._read(0.2)
        return self.latencies[:count]

    def _read(self, seconds: float = 0) -> None:
        if not select.select([self._file], [], [], seconds)[0]:
            return
        *lines, self._rest = (self._rest + os.read(self._file, 65_536)).split(b"\n")
        for line in lines:
            tag, _, value = line.decode().partition(" ")
            if tag == "lat":
                self.latencies.append(float(value))
            else:
                self._came[tag] = int(value)

    def close(self) -> None:
        os.close(self._file)

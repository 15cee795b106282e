"""Worker processes of the killing tests, forked from a warm server of `multiprocessing`: each costs milliseconds.

A `Process` is one that we started and may kill, freeze and wait for. All of it goes through a descriptor of the process
(pidfd), never its number: a number may belong to somebody else a moment later. A `Pid` is a process that another one
started (a supervisor's zygote and its workers). What is forked here ends when the process that started it does.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
PRELOAD = ["tests.crash.warm"]
PR_SET_PDEATHSIG = 1

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOAD)


class Pid:
    """A process by its descriptor. `log` is the file it writes to."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        self._descriptor = os.pidfd_open(pid)

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet; a zombie has."""
        return not select.select([self._descriptor], [], [], 0)[0]

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone. Harmless if it is already."""
        self.signal(signal.SIGKILL)
        self.gone()

    def pause(self) -> None:
        """SIGSTOP; returns when it has stopped."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: state_of(self.pid) in "TZX", what=f"process {self.pid} to stand still")

    def resume(self) -> None:
        """SIGCONT; harmless if it was not paused."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if self.alive:
            try:
                signal.pidfd_send_signal(self._descriptor, number)
            except ProcessLookupError:
                return

    def gone(self, timeout: float = 20) -> None:
        """Wait until it has ended."""
        if not select.select([self._descriptor], [], [], timeout)[0]:
            raise AssertionError(f"process {self.pid} has not ended in {timeout:g} s\n{self.said()[-3000:]}")

    def said(self) -> str:
        """What it wrote to its log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def close(self) -> None:
        """Forget the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __repr__(self) -> str:
        return f"<process {self.pid}>"


class Process(Pid):
    """One that we started: a worker with these options of `Setup`, or a supervisor of `processes` of them."""

    def __init__(self, options: dict[str, Any], log: Path) -> None:
        self._process = _context.Process(target=run, args=(options, str(log), os.getpid()))
        self._process.start()
        assert self._process.pid is not None
        super().__init__(self._process.pid, log)

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.exitcode

    @property
    def alive(self) -> bool:
        return super().alive or self.code is None

    def stop(self, timeout: float = 20) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = 20) -> int:
        """Wait until it ends; returns the exit code."""
        self._process.join(timeout)
        assert self.code is not None, f"process {self.pid} has not ended in {timeout:g} s\n{self.said()[-3000:]}"
        return self.code

    def gone(self, timeout: float = 20) -> None:
        self.wait(timeout)

    def family(self) -> list[int]:
        """Zygotes and workers of a supervisor, oldest first."""
        return list(descendants(self.pid))


def run(options: dict[str, Any], log: str, parent: int) -> None:
    """What a forked process does."""
    die_with_the_parent()
    descriptor = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(ROOT)
    from tests.crash import host

    code = 70
    try:
        code = host.main(options)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def die_with_the_parent() -> None:
    """The server of `multiprocessing` ends when the process that made it does, and this one with it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants(pid: int) -> Iterator[int]:
    """Children and theirs, of a process that may be ending."""
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, words):
        yield child
        yield from descendants(child)


def state_of(pid: int) -> str:
    """The kernel's letter for a process: R, S, T for stopped, Z for a zombie; X where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "X"
    return stat.rpartition(")")[2].split()[0]


def alive(pid: int) -> bool:
    """Whether a process of that id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def environment(options: dict[str, Any]) -> dict[str, str]:
    """Options of `Setup` as the variables that a command line reads."""
    flat = {f"redis_{name}": value for name, value in options.get("redis", {}).items()}
    flat |= {name: value for name, value in options.items() if name != "redis"}
    return {f"PILLION_{name.upper()}": spelled(value) for name, value in flat.items()}


def spelled(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value)
    return value if isinstance(value, str) else json.dumps(value)

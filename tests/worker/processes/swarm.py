"""`pillion worker --processes N` in a folder of its own, and what a test wants to know about its processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pillion import Client
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.cli import Running, running, write

APP = """
import os
import pathlib
import threading
import pillion

VERSION = "v1"


class SwarmTouch(pillion.Job):
    def perform(self, name):
        pathlib.Path(name).write_text(f"{VERSION} {os.getpid()}")


class SwarmHold(pillion.Job):
    def perform(self, name):
        with open(f"{name}.starts", "a") as starts:
            starts.write(f"{os.getpid()}\\n")
        go = pathlib.Path(f"{name}.go")
        while not go.exists():
            threading.Event().wait(0.005)
        pathlib.Path(f"{name}.done").touch()
"""
COMPLETE = "worker processes are running"
RUNS = "pillion is running"


class Swarm:
    """A supervisor under test, its folder and its server."""

    def __init__(self, command: Running, folder: Path, server: Server) -> None:
        self.command = command
        self.folder = folder
        self.server = server
        self.redis = server.client()
        self.client = Client(server.url)

    @property
    def pid(self) -> int:
        return self.command.process.pid

    @property
    def heard(self) -> str:
        return self.command.heard

    def complete(self) -> list[int]:
        """Wait until all run; their process ids."""
        self.command.wait_for(COMPLETE)
        return self.pids()

    def pids(self) -> list[int]:
        """The worker processes that dashboards see."""
        return sorted(int(name.split(b":")[1]) for name in self.redis.smembers("processes"))

    def zygote(self) -> int:
        """The only child of the supervisor while no zygote was killed."""
        [pid] = children_of(self.pid)
        return pid

    def push(self, name: str, *args: str) -> None:
        assert self.client.push({"class": name, "args": list(args)})

    def hold(self, name: str) -> int:
        """Push a job that runs until it is let go; the process that runs it."""
        self.push("SwarmHold", name)
        return wait_until(lambda: self.starts(name), what=f"{name} to start")[0]

    def starts(self, name: str) -> list[int]:
        """Which processes have started this job, in order."""
        path = self.folder / f"{name}.starts"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def let_go(self, name: str) -> None:
        (self.folder / f"{name}.go").touch()

    def is_done(self, name: str) -> bool:
        return (self.folder / f"{name}.done").exists()

    def finish(self, name: str) -> None:
        """Let a job run to its end."""
        self.let_go(name)
        self.until(lambda: self.is_done(name), f"{name} to end")

    def until(self, done: object, what: str) -> None:
        wait_until(done, timeout=20, what=f"{what}\n{self.heard[-3000:]}")  # type: ignore[arg-type]

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        return self.command.stop(number)

    def leases(self) -> list[bytes]:
        return list(self.redis.zrange("pillion:lease", 0, -1))


@contextmanager
def swarm(
    server: Server, folder: Path, *words: str, app: str = APP, env: Mapping[str, str] | None = None
) -> Iterator[Swarm]:
    """A supervisor with the words behind `pillion worker app`; whatever happens, all its processes are gone at the end.

    The lease is an hour: nothing comes back because it ran out.
    """
    write(folder, {"app.py": app})
    full = {"REDIS_URL": server.url, "PILLION_LEASE": "3600", "PILLION_LOG_FORMAT": "pretty", **(env or {})}
    with running("worker", "app", *words, cwd=folder, env=full) as command:
        it = Swarm(command, folder, server)
        family: set[int] = set()
        try:
            yield it
        finally:
            family = set(it.pids()) | set(children_of(it.pid))
            if command.process.poll() is None:
                command.end()
            for pid in family:
                end(pid, folder)
            it.client.setup.store.close()


def children_of(pid: int) -> list[int]:
    """The processes whose parent this one is."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def end(pid: int, folder: Path) -> None:
    """Kill what a failed test has left: a process that still runs in the test's own folder."""
    try:
        if Path(f"/proc/{pid}/cwd").samefile(folder):
            os.kill(pid, signal.SIGKILL)
    except OSError:
        return


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def sockets_of(pid: int) -> int:
    """How many sockets a process has open."""
    return sum(str(path.readlink()).startswith("socket:") for path in Path(f"/proc/{pid}/fd").iterdir())

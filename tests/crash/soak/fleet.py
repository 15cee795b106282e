"""The processes of the soak: starts them, starts again what faults ended, and finds out who is who.

Members by name: `producer-sync`, `producer-async`, and the workers `group-battered`, `group-sheltered`,
`async-battered`, `async-sheltered`. Each leads a session of its own, which is how the processes that a supervisor
starts are found in /proc. Beside them run the server, the proxy and the pinger. All are ended by their ids.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.crash.soak import journal
from tests.servers import Server, free_port
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]
MODULE = [sys.executable, "-m"]
PILLION = [*MODULE, "pillion", "worker", "tests.crash.soak.app"]
GROUP = ["--processes", "2", "-c", "6", "-q", "critical,4", "-q", "default,2", "-q", "mixed,2", "-q", "low,1"]
ASYNC = ["-c", "10", "-q", "aio,2", "-q", "mixed,1"]
WORKERS = {
    "group-battered": [*PILLION, *GROUP],
    "group-sheltered": [*PILLION, *GROUP],
    "async-battered": [*PILLION, *ASYNC],
    "async-sheltered": [*PILLION, *ASYNC],
}
PRODUCERS = {f"producer-{colour}": [*MODULE, "tests.crash.soak.producer", colour] for colour in ("sync", "async")}
PROCESSES = 6
STOP = 40.0


class Seen(NamedTuple):
    """A process as /proc shows it."""

    pid: int
    role: str


class Member:
    """One command, which is started again whenever it ended."""

    def __init__(self, name: str, words: list[str], folder: Path, env: dict[str, str]) -> None:
        self.name, self._words, self._env = name, words, env
        self._log = folder / f"{name}.log"
        self.codes: list[int] = []
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._words,
                cwd=ROOT,
                env={**os.environ, **self._env, "PILLION_TAG": self.name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def revive(self) -> int | None:
        """Start it again if it has ended; the exit code then."""
        code = self.process.poll()
        if code is not None:
            self.codes.append(code)
            self.process = self._start()
        return code

    def end(self) -> int:
        """Wait for the end it was told to come to, and KILL what does not; the exit code."""
        try:
            return self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait(STOP)

    def kill(self) -> None:
        """SIGKILL to everything in its session."""
        for pid in session_of(self.pid):
            signal_to(pid, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()

    def processes(self) -> Iterator[Seen]:
        """What runs of it, by role."""
        for pid in session_of(self.pid):
            title = title_of(pid)
            if not self.name.startswith("group"):
                yield Seen(pid, self.name)
            elif pid == self.pid:
                yield Seen(pid, f"{self.name}-supervisor")
            elif "busy]" in title:
                yield Seen(pid, f"{self.name}-child")
            elif "zygote" in title and parent_of(pid) == self.pid:
                yield Seen(pid, f"{self.name}-zygote")


class Fleet:
    """Everything that runs. `plan` is what the app and the producers read from SOAK."""

    def __init__(self, folder: Path, options: dict[str, Any], producers: dict[str, Any]) -> None:
        self.folder = folder
        self.faults = journal.Journal(folder / journal.FAULTS)
        self.server = Server("redis").start(aof="everysec")
        self.port = free_port()
        self._pinger = subprocess.Popen([*MODULE, "tests.crash.soak.pinger", str(folder)], cwd=ROOT)
        self._proxy = self._start_proxy()
        options = {**options, "redis": {"url": f"redis://127.0.0.1:{self.port}/0", **options["redis"]}}
        plan = {"folder": str(folder), "options": options, "producers": producers}
        self._env = {"SOAK": json.dumps(plan), "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        self.members = {name: Member(name, words, folder, self._env) for name, words in WORKERS.items()}

    def _start_proxy(self) -> subprocess.Popen[str]:
        words = [*MODULE, "tests.crash.soak.proxy", str(self.port), str(self.server.socket_path)]
        proxy = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert proxy.stdout is not None
        assert proxy.stdout.readline() == "ready\n"
        return proxy

    def produce(self) -> None:
        """Start the producers."""
        for name, words in PRODUCERS.items():
            self.members[name] = Member(name, words, self.folder, self._env)

    def order(self, line: str) -> None:
        """Tell the proxy what to do."""
        assert self._proxy.stdin is not None
        self._proxy.stdin.write(f"{line}\n")
        self._proxy.stdin.flush()

    def keep(self) -> None:
        """Start again what ended."""
        for member in self.members.values():
            code = member.revive()
            if code is not None:
                self.faults.note("ended", member.name, code)

    def seen(self) -> list[Seen]:
        """All processes, the server and the proxy included."""
        found = [seen for member in self.members.values() for seen in member.processes()]
        if self.server.alive():
            found.append(Seen(self.server.pid, "redis"))
        return [*found, Seen(self._proxy.pid, "proxy")]

    def pids(self, role: str) -> list[int]:
        return [seen.pid for seen in self.seen() if seen.role == role]

    def up(self) -> bool:
        """Whether every worker process has a row in Redis."""
        with self.server.client() as client:
            return int(client.scard("processes")) >= PROCESSES

    def wait_until_up(self) -> None:
        wait_until(self.up, timeout=60, what="the workers to be there")

    def stop(self, kind: str) -> dict[str, int]:
        """Stop all members whose name begins so, and forget them; their exit codes."""
        members = [self.members.pop(name) for name in list(self.members) if name.startswith(kind)]
        try:
            for member in members:
                member.process.send_signal(signal.SIGTERM)
            return {member.name: member.end() for member in members}
        finally:
            for member in members:
                member.kill()

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for member in self.members.values():
            member.kill()
        for helper in (self._proxy, self._pinger):
            helper.kill()
            helper.wait()
        for pipe in (self._proxy.stdin, self._proxy.stdout):
            assert pipe is not None
            pipe.close()
        self.server.close()
        self.faults.close()


def session_of(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            state, _, session = stat_of(int(entry.name))
            if session == leader and state not in "ZX":
                found.append(int(entry.name))
    return sorted(found)


def stat_of(pid: int) -> tuple[str, int, int]:
    """State, parent and session; X where it is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0, 0
    return words[0], int(words[1]), int(words[3])


def parent_of(pid: int) -> int:
    return stat_of(pid)[1]


def title_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def signal_to(pid: int, number: signal.Signals) -> bool:
    """Whether it was there to hear it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def pause(pid: int, seconds: float) -> None:
    """SIGSTOP, and SIGCONT after that time."""
    if signal_to(pid, signal.SIGSTOP):
        time.sleep(seconds)
        signal_to(pid, signal.SIGCONT)

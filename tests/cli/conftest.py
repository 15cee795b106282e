"""What the tests of the command line share: a shop's Redis whose ages do not change while a test runs, and `say`.

say     runs `pillion` with these words against the server: `say("queues")` -> (code, out, err)
shop    fills the server with a few jobs of each state, days old
asked   the same command with a person at a terminal, who types
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import redis

from tests.servers import Kind, Server
from tests.worker.cli import PILLION, Said, environment, pillion

DAY, HOUR = 86_400.0, 3_600.0
WORKER = "host-1:4100:0000000425d4"
Say: TypeAlias = Callable[..., Said]


@pytest.fixture(scope="session")
def kind() -> Kind:
    """Valkey alone: the commands only call the API, which is tested on both."""
    return "valkey"


@pytest.fixture
def look(server: Server) -> redis.Redis:
    return server.client()


@pytest.fixture
def say(server: Server, tmp_path: Path) -> Say:
    return lambda *words, **options: pillion(*words, cwd=tmp_path, env={"REDIS_URL": server.url}, **options)


@pytest.fixture
def asked(server: Server, tmp_path: Path) -> Say:
    """`asked("delete", "state:dead", typed="4")`."""

    def run(*words: str, typed: str) -> Said:
        ours, theirs = pty.openpty()
        try:
            command = subprocess.Popen(
                [*PILLION, *words],
                cwd=tmp_path,
                env=environment(REDIS_URL=server.url),
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            os.close(theirs)
            os.write(ours, f"{typed}\n".encode())
            out, err = command.communicate(timeout=30)
            return Said(command.returncode, out, err)
        finally:
            os.close(ours)

    return run


def job(n: int, klass: str, queue: str, made: float, **fields: Any) -> bytes:
    """A stored job with the jid 000...n."""
    fields = {"enqueued_at": int(made * 1000), **fields}
    made_at = {"created_at": int(made * 1000)}
    return json.dumps({"class": klass, "args": [n], "queue": queue, "jid": f"{n:024}", **made_at, **fields}).encode()


@pytest.fixture
def shop(look: redis.Redis) -> float:
    """The time it was filled at. Ages lie half an hour beside every change of their words."""
    now = time.time()
    made = now - 3 * DAY - 4.5 * HOUR
    failure = {"error_class": "TimeoutError", "error_message": "timed out after 30 s", "retry_count": 2}
    failed = {**failure, "failed_at": int(made * 1000), "retried_at": int(made * 1000)}
    look.sadd("queues", "default", "mailers", "reports")
    look.lpush("queue:mailers", *(job(n, "SendDigest", "mailers", made) for n in range(1, 4)))
    look.lpush("queue:default", job(4, "Resize", "default", made))
    look.zadd("schedule", {job(5, "Resize", "default", made): now + 2 * DAY + 4.5 * HOUR})
    look.zadd("retry", {job(6, "SendDigest", "mailers", made, **failed): now + 5.5 * HOUR})
    for n in range(7, 11):
        look.zadd("dead", {job(n, "SendDigest", "mailers", made, **failed): now - (n + 0.5) * HOUR})
    look.zadd("dead", {job(11, "Charge", "default", made, **{**failed, "error_class": "CardError"}): made})
    look.sadd("paused", "reports")
    look.mset({"stat:processed": 71_322, "stat:failed": 402})
    info = {"hostname": "host-1", "pid": 4100, "started_at": made, "tag": "shop", "concurrency": 5, "version": "0.1.0"}
    weights = {"default": {"concurrency": 5, "mode": "weighted", "weights": {"mailers": 2, "default": 1}}}
    row = {"info": json.dumps({**info, "capsules": weights}), "concurrency": 5, "busy": 1, "quiet": "false"}
    look.sadd("processes", WORKER)
    look.hset(WORKER, mapping={**row, "beat": made, "rss": 61_440, "rtt_us": 200})
    work = {"queue": "mailers", "payload": job(12, "SendDigest", "mailers", made).decode(), "run_at": int(made)}
    look.hset(f"{WORKER}:work", "3k3z", json.dumps(work))
    return now

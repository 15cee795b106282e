"""A real worker in this process, on a real server: what the tests of the engine have in common."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from pillion.client import Client
from pillion.config import Capsule
from pillion.setup import Setup
from pillion.worker import Worker
from tests.servers import Server
from tests.waiting import wait_until


class Harness:
    """A setup, a client and as many embedded workers as a test starts; all are stopped at the end.

    `redis` says how they reach the server, where that is not by its own address.
    """

    def __init__(self, server: Server, *, redis: Any = None, **options: Any) -> None:
        options.setdefault("lease", 2.0)
        options.setdefault("heartbeat", 0.2)
        options.setdefault("poll_interval_average", 0.1)
        options.setdefault("capsules", (Capsule(concurrency=3),))
        self.server = server
        self.setup = Setup(redis or server.url, **options)
        self.client = Client(setup=self.setup)
        self.redis: redis.Redis = server.client()
        self.workers: list[Worker] = []

    def start(self) -> Worker:
        worker = Worker(self.setup, embedded=True)
        self.workers.append(worker)
        worker.start()
        return worker

    def push(self, name: str, *args: Any, **fields: Any) -> str:
        jid = self.client.push({"class": name, "args": list(args), **fields})
        assert jid is not None
        return jid

    def raw(self, payload: bytes | str, queue: str = "default") -> None:
        """Put bytes into a queue as a foreign client would."""
        self.redis.lpush(f"queue:{queue}", payload)

    def members(self, key: str) -> list[dict[str, Any]]:
        """The decoded members of a sorted set."""
        return [json.loads(member) for member in self.redis.zrange(key, 0, -1)]

    def waiting(self, queue: str = "default") -> list[dict[str, Any]]:
        """The decoded jobs of a queue, the next one first."""
        return [json.loads(raw) for raw in self.redis.lrange(f"queue:{queue}", 0, -1)[::-1]]

    def settled(self, count: int) -> None:
        """Wait until `count` jobs have been processed in all, failures included."""
        wait_until(lambda: int(self.redis.get("stat:processed") or 0) >= count, what=f"{count} jobs processed")

    def close(self) -> None:
        for worker in self.workers:
            worker.stop(timeout=1)
        self.setup.store.close()


@contextmanager
def harness(server: Server, **options: Any) -> Iterator[Harness]:
    bed = Harness(server, **options)
    try:
        yield bed
    finally:
        bed.close()

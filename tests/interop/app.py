"""The Python half of these tests: the jobs of `jobs.rb` for Pillion, in this process or in `pillion worker app.py`.

Every run is noted in the Redis list `ledger`. Import it through `sides.py`, so that its names stay out of other tests.
"""

from __future__ import annotations

import json
import os

import redis

import pillion

LONGEST_WAIT = 4
MOST_LOOKS = 400


class Book:
    """Where runs are noted. A worker process takes it from the environment, a test opens it."""

    client: redis.Redis

    def open(self, client: redis.Redis) -> None:
        self.client = client

    def note(self, job: pillion.Job, *args: object) -> None:
        line = {"side": "python", "jid": job.jid, "class": type(job).__name__, "args": args}
        self.client.rpush("ledger", json.dumps(line))


book = Book()
if "REDIS_URL" in os.environ:
    book.open(redis.Redis.from_url(os.environ["REDIS_URL"]))


class HardWorker(pillion.Job):
    def perform(self, name: str, count: int) -> None:
        book.note(self, name, count)


class Flaky(pillion.Job, retry=3, backtrace=5):
    """Fails on the sides that its arguments name."""

    def perform(self, *sides: str) -> None:
        book.note(self, *sides)
        if "python" in sides:
            raise ValueError("python said no")


class Shared(pillion.Job):
    """Opens the other side's gate and goes through its own: no side can run all of them alone."""

    def perform(self, n: int) -> None:
        book.client.lpush("gate:ruby", "open")
        book.client.blpop(["gate:python"], timeout=LONGEST_WAIT)
        book.client.lpush("gate:python", "open")
        book.note(self, n)


class Held(pillion.Job, retry=False):
    """Runs until a test pushes to the list `release`, or the worker has to leave."""

    def perform(self, label: str) -> None:
        book.note(self, label)
        for _ in range(MOST_LOOKS):
            if book.client.blpop(["release"], timeout=0.05):
                return

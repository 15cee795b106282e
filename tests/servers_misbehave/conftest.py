"""A server that a test may bring to its knees, and workers on it that must get up again.

diary      what the jobs did, empty at the beginning
new_bed    a factory of harnesses with a short lease, on `own_server` or on another one
bed        one on `own_server`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from pillion.events import LeaseLost, StoreBack, StoreDown
from pillion.store import rescue
from tests.servers import Server
from tests.servers_misbehave import jobs
from tests.waiting import wait_until
from tests.worker.harness import Harness

LEASE = 1.0
TIMEOUT = 0.3

NewBed: TypeAlias = Callable[..., "Bed"]


class Bed(Harness):
    """A harness that hears of trouble.

    Attributes:
        heard: the events of trouble, in order: `StoreDown`, `StoreBack`, `LeaseLost`.
    """

    def __init__(self, server: Server, url: str | None = None, **options: Any) -> None:
        options.setdefault("lease", LEASE)
        options.setdefault("rng", jobs.NoJitter())
        redis = {"url": url or server.url, "timeout": TIMEOUT, "connect_timeout": TIMEOUT}
        super().__init__(server, redis=redis, **options)
        self.heard: list[object] = []
        for event in (StoreDown, StoreBack, LeaseLost):
            self.setup.events.subscribe(event, self.heard.append)

    def send(self, job: type, count: int = 1) -> set[str]:
        """Push so many jobs; their jids."""
        return {self.client.push({"class": job, "args": []}) or "" for _ in range(count)}

    def times(self, event: type) -> int:
        """How often this event was heard."""
        return sum(isinstance(each, event) for each in list(self.heard))

    def until(self, done: Callable[[], Any], what: str, timeout: float = 15) -> Any:
        """Wait for something that a worker has to bring about."""
        return wait_until(done, timeout=timeout, what=f"{what}; heard {self.heard}")

    def until_ended(self, jids: set[str], timeout: float = 15) -> None:
        """Wait until each of these jobs has run to its end."""
        left = lambda: jids - jobs.diary.count("end").keys()  # noqa: E731
        self.until(lambda: not left(), f"the jobs to end ({len(left())} of {len(jids)} are left)", timeout)

    def until_started(self, jids: set[str]) -> None:
        """Wait until each of these jobs has begun."""
        self.until(lambda: jids <= jobs.diary.count("start").keys(), "the jobs to start")

    def until_works(self) -> None:
        """Wait until a new job runs."""
        self.until_ended(self.send(jobs.Errand))

    def until_outlasted(self) -> None:
        """Wait until every lease that there is has run out by the server's clock. It must answer reads."""
        leases = self.redis.zrange("pillion:lease", 0, -1, withscores=True)
        last = max(score for _, score in leases)

        def over() -> bool:
            seconds, micros = self.redis.time()
            return bool(seconds * 1000 + micros / 1000 > last)

        self.until(over, "the leases to run out")

    def until_steady(self) -> None:
        """Wait until reapers may fence whoever has not renewed since the trouble."""
        op = rescue.lapsed(self.setup.store.keys, int(self.setup.config.lease * 1000))
        self.until(lambda: self.setup.store.run(op).steady, "the reapers to be free to act")
        lapsed = self.setup.store.run(op)
        self.until(lambda: not self.setup.store.run(op).expired, f"{lapsed} to be settled")

    def owners(self) -> list[str]:
        """Who has a lease, by name."""
        return sorted(name.decode() for name in self.redis.zrange("pillion:lease", 0, -1))


@pytest.fixture
def diary() -> Iterator[jobs.Diary]:
    jobs.diary.clear()
    yield jobs.diary
    jobs.diary.go.set()


@pytest.fixture
def new_bed(diary: jobs.Diary) -> Iterator[NewBed]:
    made: list[Bed] = []

    def make(server: Server, url: str | None = None, **options: Any) -> Bed:
        made.append(Bed(server, url, **options))
        return made[-1]

    yield make
    diary.go.set()
    for each in made:
        each.close()


@pytest.fixture
def bed(own_server: Server, new_bed: NewBed) -> Bed:
    return new_bed(own_server)

"""What the tests of shards share: a cluster for the session, two servers of different kinds, a worker on several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from pillion.client import Client
from pillion.config import Capsule
from pillion.registry import Registry
from pillion.setup import Setup
from pillion.worker import Worker
from tests.servers import Kind, Server, missing, redis_binary
from tests.shards.clusters import Cluster

LEASE = 2.0


@pytest.fixture(scope="session")
def session_cluster(kind: Kind) -> Iterator[Cluster]:
    """One cluster of this kind for the session. Tests ask for `cluster`."""
    cluster = Cluster(kind)
    try:
        yield cluster.start()
    finally:
        cluster.close()


@pytest.fixture
def cluster(session_cluster: Cluster) -> Iterator[Cluster]:
    """A whole, empty cluster; nodes may be killed, and are brought back."""
    session_cluster.heal()
    session_cluster.empty()
    yield session_cluster
    for node in session_cluster.nodes:
        node.close_clients()


@pytest.fixture
def two_servers() -> Iterator[dict[str, Server]]:
    """Shard `a` on Valkey and shard `b` on Redis, each keeping what it acknowledged."""
    if redis_binary() is None:
        missing("no redis-server on PATH (Debian: apt-get install redis-server).")
    servers = {"a": Server("valkey"), "b": Server("redis")}
    try:
        yield {name: server.start(aof="always") for name, server in servers.items()}
    finally:
        for server in servers.values():
            server.close()


class Bed:
    """A setup over several shards, a client for each, and as many workers as a test starts."""

    def __init__(self, shards: dict[str, Any], **options: Any) -> None:
        usual = {"lease": LEASE, "heartbeat": 0.2, "poll_interval_average": 0.1, "capsules": (Capsule(concurrency=3),)}
        self.setup = Setup(registry=Registry(), shards=shards, **{**usual, **options})
        self.client = Client(setup=self.setup)
        self.to = {name: Client(setup=self.setup, shard=name) for name in shards}
        self.workers: list[Worker] = []

    def job(self, fn: Callable[..., Any], name: str) -> None:
        """Define a job of this setup alone."""
        from pillion.define import define_function

        self.setup.registry.register(define_function(fn, name, (), {}, {}))

    def start(self) -> Worker:
        self.workers.append(Worker(self.setup, embedded=True))
        self.workers[-1].start()
        return self.workers[-1]

    def push(self, shard: str, name: str, *args: Any, **fields: Any) -> str:
        jid = self.to[shard].push({"class": name, "args": list(args), **fields})
        assert jid is not None
        return jid

    def close(self) -> None:
        for worker in self.workers:
            worker.stop(timeout=1)
        for shard in self.setup.shards:
            shard.close()


NewBed: TypeAlias = Callable[..., Bed]


@pytest.fixture
def new_bed() -> Iterator[NewBed]:
    """Makes beds that live as long as the test."""
    made: list[Bed] = []

    def make(shards: dict[str, Any], **options: Any) -> Bed:
        made.append(Bed(shards, **options))
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            each.close()

"""A primary is killed under load, in a cluster and behind a Sentinel: producers and workers follow without restart."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
import redis

from pillion.client import Client
from pillion.config import Capsule
from pillion.errors import MaybeEnqueued, Refused, Unavailable
from tests.conftest import NewServer
from tests.servers import Kind, Server
from tests.shards.clusters import TAGS, Cluster
from tests.shards.conftest import NewBed
from tests.store.sentinels import MASTER, Sentinel
from tests.waiting import wait_until

HASTY = {"connect_timeout": 1.0, "timeout": 1.0}
BEFORE, AFTER = 100, 60


class Load:
    """One producer for each client, and what became of each of its jobs."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self.acknowledged: dict[str, list[int]] = {name: [] for name in clients}
        self.troubles: Counter[str] = Counter()
        self.ran: dict[str, Counter[int]] = {name: Counter() for name in clients}
        self._clients = clients
        self._lock = threading.Lock()
        self._enough = threading.Event()

    def run(self, name: str, number: int) -> None:
        """The job."""
        with self._lock:
            self.ran[name][number] += 1

    @contextmanager
    def on(self) -> Iterator[None]:
        """Push, up to two hundred jobs a second and shard, until the block ends."""
        threads = [threading.Thread(target=self._produce, args=each) for each in self._clients.items()]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._enough.set()
            for thread in threads:
                thread.join(20)

    def _produce(self, name: str, client: Client) -> None:
        number = 0
        while not self._enough.wait(0.005):
            number += 1
            try:
                client.push({"class": "ShardLoad", "args": [name, number]})
            except (Unavailable, Refused, MaybeEnqueued) as error:
                self.troubles[f"{name}: {type(error).__name__}"] += 1
            else:
                self.acknowledged[name].append(number)

    def have(self, count: int, beyond: Mapping[str, int] | None = None) -> None:
        """Wait until so many more jobs of every shard were acknowledged."""
        start = beyond or {}
        more = {name: start.get(name, 0) + count for name in self.acknowledged}
        wait_until(lambda: all(len(self.acknowledged[name]) >= more[name] for name in more), 30, f"pushes ({self!r})")

    def counts(self) -> dict[str, int]:
        """How many jobs of each shard were acknowledged so far."""
        return {name: len(numbers) for name, numbers in self.acknowledged.items()}

    def lost(self, name: str) -> list[int]:
        """Acknowledged jobs that did not run."""
        return [number for number in list(self.acknowledged[name]) if number not in self.ran[name]]

    def twice(self, name: str) -> int:
        """Jobs that ran more than once."""
        return sum(count > 1 for count in self.ran[name].values())

    def account(self, name: str, lost: int) -> str:
        """The figures for the log of the tests."""
        pushed, ran = len(self.acknowledged[name]), len(self.ran[name])
        return f"{name}: {pushed} acknowledged, {ran} ran, {lost} lost, {self.twice(name)} twice"

    def __repr__(self) -> str:
        return f"<Load {self.counts()} {dict(self.troubles)}>"


def test_a_primary_of_a_cluster_is_killed_under_load(
    cluster: Cluster, new_bed: NewBed, figures: Callable[[str], None]
) -> None:
    nodes = [f"127.0.0.1:{node.port}" for node in cluster.nodes]
    shards = {f"s{i}": {"cluster": nodes[:2], "prefix": tag, **HASTY} for i, tag in enumerate(TAGS)}
    bed = new_bed(shards, capsules=(Capsule(concurrency=6),), lease=5.0)
    load = Load(bed.to)
    bed.job(load.run, "ShardLoad")
    worker = bed.start()
    victim, heir = cluster.owner("{s1}"), cluster.replica("{s1}")
    with load.on():
        load.have(BEFORE)
        victim.kill()
        wait_until(lambda: cluster.ask(heir, "ROLE")[0] == "master", 20, "the replica to take over")
        taken = load.counts()
        load.have(AFTER, beyond=taken)
    for name in ("s0", "s2"):
        wait_until(lambda name=name: not load.lost(name), 20, f"every job of {name}")
        figures(f"  {load.account(name, 0)}")
        assert load.twice(name) == 0, "a job of another shard ran twice"
    later = load.acknowledged["s1"][taken["s1"] :]
    wait_until(lambda: all(number in load.ran["s1"] for number in later), 20, "what the heir acknowledged")
    wait_until(lambda: cluster.ask(heir, "LLEN", "{s1}queue:default") == 0, 20, "the queue to run empty")
    lost = len(load.lost("s1"))
    figures(
        f"  {load.account('s1', lost)}, {taken['s1']} before the replica took over; pushes met {dict(load.troubles)}"
    )
    assert lost <= len(load.acknowledged["s1"]) - len(later)
    assert len(later) >= AFTER
    wait_until(lambda: cluster.ask(heir, "SMEMBERS", "{s1}processes") == [worker.identity], what="its row at the heir")


def is_primary(server: Server) -> bool:
    try:
        return bool(server.info("replication")["role"] == "master")
    except redis.ConnectionError:  # a server that is promoted hangs up on its clients
        return False


@pytest.fixture
def watched(kind: Kind, new_server: NewServer) -> Iterator[Sentinel]:
    """A Sentinel with a primary and a replica."""
    primary, replica = new_server("--repl-diskless-sync-delay", "0"), new_server()
    replica.client().replicaof("127.0.0.1", primary.port)
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up", what="the replica to follow")
    sentinel = Sentinel(kind, primary)
    sentinel.servers = primary, replica  # type: ignore[attr-defined]
    try:
        sentinel.start().wait_for_replica()
        yield sentinel
    finally:
        sentinel.close()


def test_a_primary_behind_a_sentinel_is_killed_under_load(
    watched: Sentinel, new_bed: NewBed, figures: Callable[[str], None]
) -> None:
    primary, heir = watched.servers  # type: ignore[attr-defined]
    bed = new_bed({"only": {"sentinels": [watched.address], "master": MASTER, **HASTY}})
    load = Load(bed.to)
    bed.job(load.run, "ShardLoad")
    worker = bed.start()
    with load.on():
        load.have(BEFORE)
        primary.kill()
        wait_until(lambda: is_primary(heir), 20, "the replica to take over")
        taken = load.counts()
        load.have(AFTER, beyond=taken)
    later = load.acknowledged["only"][taken["only"] :]
    wait_until(lambda: all(number in load.ran["only"] for number in later), 20, "what the heir acknowledged")
    wait_until(lambda: heir.client().llen("queue:default") == 0, 20, "the queue to run empty")
    figures(f"  {load.account('only', len(load.lost('only')))}; pushes met {dict(load.troubles)}")
    assert len(load.lost("only")) <= taken["only"]
    wait_until(lambda: heir.client().smembers("processes") == {worker.identity.encode()}, what="its row at the heir")

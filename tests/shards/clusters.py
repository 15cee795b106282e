"""A real Redis Cluster for the tests: three primaries and a replica of each, on loopback ports.

It is put together with the server's own commands. The slots are dealt so that the shards `{s0}`, `{s1}` and `{s2}` are
on three primaries. A node may be killed; `heal` brings it back as a replica and waits until the cluster is whole."""

from __future__ import annotations

from typing import Any

import redis

from pillion.sharding import slot_of
from tests.servers import Kind, Server, free_port
from tests.waiting import wait_until

TAGS = ("{s0}", "{s1}", "{s2}")
SLOTS = 16_384
NODE_TIMEOUT = 1000
OPTIONS = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT), "--repl-diskless-sync-delay", "0")
PATIENCE = 20.0


class Cluster:
    """Six nodes. `options` are further options of each."""

    def __init__(self, kind: Kind, *options: str) -> None:
        self.nodes = [Server(kind) for _ in range(2 * len(TAGS))]
        self._options = options
        self._password: str | None = None

    def start(self, count: int | None = None) -> Cluster:
        """Start it and wait until it is whole; with `count`, so many nodes, without replicas."""
        self.nodes = self.nodes[:count]
        for number, node in enumerate(self.nodes):
            node.start(*OPTIONS, "--cluster-port", str(free_port()), *self._options)
            self.ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        first, *others = self.nodes
        bus = int(self.ask(first, "CONFIG", "GET", "cluster-port")[1])
        for node in others:
            self.ask(node, "CLUSTER", "MEET", "127.0.0.1", first.port, bus)
        primaries, replicas = self.nodes[: len(TAGS)], self.nodes[len(TAGS) :]
        for node, (low, high) in zip(primaries, ranges(len(primaries)), strict=True):
            self.ask(node, "CLUSTER", "ADDSLOTSRANGE", low, high)
        wait_until(
            lambda: all(self._knows(node) == len(self.nodes) for node in self.nodes), PATIENCE, "the nodes to meet"
        )
        for node, primary in zip(replicas, primaries, strict=False):
            name = self.ask(primary, "CLUSTER", "MYID")
            wait_until(lambda node=node, name=name: self._follows(node, name), PATIENCE, "a replica to follow")
        return self.wait()

    def guard(self, password: str) -> None:
        """Let nobody in without this password."""
        for node in self.nodes:
            self.ask(node, "CONFIG", "SET", "masterauth", password, "requirepass", password)
        self._password = password

    def wait(self) -> Cluster:
        """Until every node that lives calls it whole, and every replica follows its primary."""
        wait_until(self._is_whole, PATIENCE, "a whole cluster")
        return self

    def heal(self) -> None:
        """Bring killed nodes back, and wait until all is well."""
        for node in self.nodes:
            if not node.alive():
                node.restart()
        self.wait()

    def owner(self, tag: str) -> Server:
        """The node that holds a shard, as the living ones see it."""
        port = next(self.owners(node)[TAGS.index(tag)] for node in self.nodes if node.alive())
        return next(node for node in self.nodes if node.port == port)

    def replica(self, tag: str) -> Server:
        """The replica of a shard's owner."""
        owner = self.owner(tag)
        name = self.ask(owner, "CLUSTER", "MYID")
        lines = wait_until(lambda: self.ask(owner, "CLUSTER", "REPLICAS", name), PATIENCE, "its replica to be known")
        port = int(lines[0].split()[1].partition("@")[0].rpartition(":")[2])
        return next(node for node in self.nodes if node.port == port)

    def ask(self, node: Server, *words: object) -> Any:
        """One command on one node."""
        with node.client(decode_responses=True, password=self._password, protocol=2) as client:
            client.response_callbacks.clear()
            return client.execute_command(*words)

    def empty(self) -> None:
        """Remove all jobs."""
        for node in self.nodes:
            if self.ask(node, "ROLE")[0] == "master":
                self.ask(node, "FLUSHALL")

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def _knows(self, node: Server) -> int:
        return len([line for line in self.ask(node, "CLUSTER", "NODES").splitlines() if "handshake" not in line])

    def _follows(self, node: Server, primary: str) -> bool:
        try:
            return bool(self.ask(node, "CLUSTER", "REPLICATE", primary))
        except redis.ResponseError:  # it has not heard of its primary's slots yet
            return False

    def _is_whole(self) -> bool:
        living = [node for node in self.nodes if node.alive()]
        roles = [self.ask(node, "ROLE") for node in living]
        follow = all(role[0] == "master" or role[3] == "connected" for role in roles)
        one_each = sum(role[0] == "master" for role in roles) == min(len(TAGS), len(self.nodes))
        agreed = len({str(self.owners(node)) for node in living}) == 1
        up = all("cluster_state:ok" in self.ask(node, "CLUSTER", "INFO") for node in living)
        return follow and one_each and agreed and up

    def owners(self, node: Server) -> list[int]:
        """The ports of the primaries of all shards, as one node sees it."""
        found = self.ask(node, "CLUSTER", "SLOTS")
        slots = [slot_of(tag) for tag in TAGS]
        return [next((up[1] for low, high, up, *_ in found if low <= slot <= high), 0) for slot in slots]


def ranges(count: int) -> list[tuple[int, int]]:
    """The slots of each of `count` primaries, in the order of the shards that they hold; the last has the rest."""
    slots = sorted((slot_of(tag), tag) for tag in TAGS[:count])
    ends = [slot for slot, _ in slots[:-1]] + [SLOTS - 1]
    dealt = {}
    start = 0
    for (_, tag), end in zip(slots, ends, strict=True):
        dealt[tag] = (start, end)
        start = end + 1
    return [dealt[tag] for tag in TAGS[:count]]

"""Who knows where the server is: the Sentinels that watch it, or the nodes of its cluster.

`address.py` makes a guide from the settings. `dial.py` asks its hosts, one after another, whenever it connects, so a
failover is found out by connecting again. Nothing here opens anything.

What the nodes of a cluster tell of each other is remembered for the whole process. So the cluster is found even when
all nodes that the configuration names have been replaced since, and a new connection knows what an old one has seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import count
from typing import Any, ClassVar, Protocol, TypeAlias

import msgspec

from pillion.store.adapter import Address
from pillion.store.op import Op, command, text

Host: TypeAlias = tuple[str, int]


class Guide(Protocol):
    """What `dial.py` needs of who knows the way.

    Attributes:
        called: what one of its hosts is called, for messages.
        trusted: whether its hosts take the server's own credentials, so that what one denies all would.
    """

    called: ClassVar[str]
    trusted: ClassVar[bool]

    @property
    def like(self) -> Address:
        """What it takes to talk to its hosts, but for host and port."""
        ...

    def hosts(self) -> Sequence[Host]:
        """Whom to ask, in this order."""
        ...

    def question(self) -> Op[Any]:
        """What to ask."""
        ...

    def told(self, asked: Host, answer: Any) -> Host | None:
        """Where the server is, by the answer of one host; None where it does not know."""
        ...


class Sentinels(msgspec.Struct, frozen=True):
    """Whom to ask where the primary `master` is."""

    called: ClassVar[str] = "Sentinel"
    trusted: ClassVar[bool] = False

    known: tuple[Host, ...]
    master: str
    like: Address

    def hosts(self) -> Sequence[Host]:
        return self.known

    def question(self) -> Op[Any]:
        return command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master)

    def told(self, asked: Host, answer: Any) -> Host | None:
        del asked
        return (text(answer[0]), int(answer[1])) if answer else None


class Nodes:
    """The nodes of one cluster that are known: those that were given, and those that an answer has named."""

    def __init__(self, given: Iterable[Host]) -> None:
        self._given = tuple(given)
        self._seen: tuple[Host, ...] = ()
        self._turns = count()

    def in_turn(self) -> tuple[Host, ...]:
        """All of them. Each call begins with another one: a node that is cut off from the others tells old news."""
        known = tuple(dict.fromkeys((*self._seen, *self._given)))
        first = next(self._turns) % len(known)
        return known[first:] + known[:first]

    def saw(self, hosts: Iterable[Host]) -> None:
        """Remember the nodes of an answer instead of those of an older one."""
        self._seen = tuple(hosts)


class Cluster(msgspec.Struct, frozen=True):
    """Whom to ask which node owns `slot`."""

    called: ClassVar[str] = "node"
    trusted: ClassVar[bool] = True

    nodes: Nodes
    slot: int
    like: Address

    def hosts(self) -> Sequence[Host]:
        return self.nodes.in_turn()

    def question(self) -> Op[Any]:
        return command("CLUSTER", "SLOTS")

    def told(self, asked: Host, answer: Any) -> Host | None:
        """Read CLUSTER SLOTS: ranges, each as its first slot, its last, its primary and its replicas."""
        owners = [nodes[0] for first, last, *nodes in answer if first <= self.slot <= last]
        self.nodes.saw(_host(node, asked) for _, _, *nodes in answer for node in nodes)
        return _host(owners[0], asked) if owners else None


@cache
def nodes_of(given: tuple[Host, ...]) -> Nodes:
    """What this process knows of the cluster of these nodes."""
    return Nodes(given)


def _host(node: Sequence[Any], asked: Host) -> Host:
    """A node of an answer. One that does not know its own name is where it was asked."""
    return text(node[0]) if node[0] else asked[0], int(node[1])

"""What lies between us and the server: a slow line, a line that died without a word, a name that leads elsewhere."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pillion.errors import MaybeEnqueued, Unavailable
from pillion.events import LeaseLost, StoreBack, StoreDown
from tests.conftest import NewServer
from tests.line import Line
from tests.servers import Kind, Server, available_kinds
from tests.servers_misbehave.conftest import Bed, NewBed
from tests.servers_misbehave.jobs import Diary, Errand, Falls, Lingers, Stumbles

NAME = "redis.pillion.test"


@pytest.fixture(params=available_kinds()[-1:])
def kind(request: pytest.FixtureRequest) -> Kind:
    """One kind is enough: it is the line that is bad."""
    chosen: Kind = request.param
    return chosen


@pytest.fixture
def line(own_server: Server) -> Iterator[Line]:
    line = Line(str(own_server.socket_path))
    yield line
    line.close()


@pytest.mark.parametrize("bad", ["crumbs", "late", "narrow"])
def test_a_slow_line_costs_time_and_nothing_else(
    line: Line, own_server: Server, new_bed: NewBed, diary: Diary, bad: str
) -> None:
    bed = new_bed(own_server, line.url)
    chance = random.Random(7)
    if bad == "crumbs":
        line.piece = 5
    elif bad == "late":
        line.delay = lambda: chance.uniform(0, 0.02)
    else:
        line.rate = 100_000
    jids = bed.send(Errand, 20) | bed.send(Stumbles, 2)
    dying = bed.send(Falls, 2)
    bed.start()
    bed.until_ended(jids)
    bed.until(lambda: {job["jid"] for job in bed.members("dead")} == dying, "the dead set")
    assert diary.count("start").total() == 20 + 2 * 2 + 2
    assert bed.times(LeaseLost) == 0


def test_a_line_that_died_without_a_word_is_left_for_a_new_one(
    line: Line, own_server: Server, new_bed: NewBed, diary: Diary
) -> None:
    bed = new_bed(own_server, line.url)
    bed.start()
    held = bed.send(Lingers, 2)
    bed.until_started(held)
    owners = bed.owners()
    line.die()
    with pytest.raises(MaybeEnqueued):
        bed.client.push({"class": Errand, "args": []})
    safe = bed.client.push({"class": Errand, "args": []}, once=True) or ""
    diary.go.set()
    bed.until_ended({*held, safe})
    bed.until_works()
    assert bed.owners() == owners
    assert set(diary.count("start").values()) == {1}


class Resolver:
    """`socket.getaddrinfo`, which knows one more name.

    Attributes:
        port: where the name leads on this machine, None where nobody knows it.
        asked: how often.
        free: while it is not set, nobody gets an answer.
    """

    def __init__(self, port: int | None) -> None:
        self.port = port
        self.asked = 0
        self.free = threading.Event()
        self.free.set()
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, *args: Any, **options: Any) -> Any:
        if host != NAME:
            return self._real(host, *args, **options)
        self.asked += 1
        assert self.free.wait(20)
        if self.port is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self._real("127.0.0.1", self.port, *args[1:], **options)


@pytest.fixture
def resolver(own_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver(own_server.port)
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.free.set()


@pytest.fixture
def named(own_server: Server, resolver: Resolver, new_bed: NewBed) -> Bed:
    """A bed that knows its server by name."""
    return new_bed(own_server, f"redis://{NAME}:6379/0")


def test_a_name_that_leads_elsewhere_is_followed_at_the_next_connection(
    named: Bed, resolver: Resolver, new_server: NewServer, own_server: Server
) -> None:
    named.start()
    named.until_works()
    other = new_server()
    resolver.port = other.port
    own_server.kill()
    named.until(lambda: named.times(StoreBack), "the new address to be found")
    named.redis = other.client()
    named.until_works()
    assert len(named.owners()) == 1


def test_a_resolver_that_is_down_is_not_asked_without_end(named: Bed, resolver: Resolver, own_server: Server) -> None:
    named.start()
    named.until_works()
    right, resolver.port = resolver.port, None
    before = resolver.asked
    own_server.restart()
    named.until(lambda: named.times(StoreDown), "the outage to be noticed")
    with pytest.raises(Unavailable, match="name resolution"):
        named.client.push({"class": Errand, "args": []})
    now = named.setup.config.clock.steady
    until = now() + 1.0
    named.until(lambda: now() >= until, "a second to pass")
    assert resolver.asked - before < 60  # four loops, each with pauses of its own
    resolver.port = right
    named.until_works()


def test_a_resolver_that_hangs_keeps_nobody_from_stopping(named: Bed, resolver: Resolver, own_server: Server) -> None:
    worker = named.start()
    named.until_works()
    resolver.free.clear()
    own_server.restart()
    asked = resolver.asked
    named.until(lambda: resolver.asked > asked, "somebody to ask")
    assert worker.stop(timeout=0.1) == []

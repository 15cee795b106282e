"""Whoever goes on with operations for others: the thread of a web process, which outlives a server and can be woken."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import redis

from pillion import Client, Setup
from pillion.api import Operation, Operations, Operator
from pillion.registry import Registry
from tests.api.conftest import NOW, job
from tests.servers import Server
from tests.waiting import wait_until


def fill(look: redis.Redis, count: int = 450) -> None:
    look.zadd("dead", {job(f"j{n}"): NOW + n for n in range(count)})


@pytest.fixture
def operator(client: Client) -> Iterator[Operator]:
    operator = Operator(client)
    yield operator
    assert operator.stop()


def ended(client: Client, operation: Operation) -> bool:
    now = Operations(client).read(operation.id)
    return now is not None and not now.is_open


def test_it_goes_on_with_what_was_left_open(client: Client, look: redis.Redis, operator: Operator) -> None:
    fill(look)
    verbs = Operations(client)
    started = [verbs.start("delete", f"state:dead args:{text}", by="ann") for text in ("a", "b")]
    started.append(verbs.start("delete", "state:dead", by="ann"))
    verbs.advance(started[2].id)
    operator.start()
    operator.start()
    wait_until(lambda: all(ended(client, each) for each in started), what="three operations")
    assert look.zcard("dead") == 0
    later = verbs.start("delete", "state:dead", by="ann")
    operator.wake()
    wait_until(lambda: ended(client, later), what="one that was started while it waited")


def test_it_starts_and_stops_at_will(client: Client, look: redis.Redis, operator: Operator) -> None:
    assert operator.stop()
    operator.start()
    assert operator.stop()
    fill(look)
    started = Operations(client).start("delete", "state:dead", by="ann")
    operator.start()
    wait_until(lambda: ended(client, started), what="the operation")


def test_a_record_that_is_gone_is_struck_off(client: Client, look: redis.Redis, operator: Operator) -> None:
    look.sadd("pillion:operations:open", "gone")
    operator.start()
    wait_until(lambda: not look.exists("pillion:operations:open"), what="the name to be struck off")


def test_one_that_waits_for_its_rate_holds_up_no_other(client: Client, look: redis.Redis, operator: Operator) -> None:
    fill(look)
    verbs = Operations(client)
    slow = verbs.start("delete", "state:dead jid:j1,j2,j3", by="ann", rate=0.001)
    verbs.advance(slow.id)
    fast = verbs.start("delete", "state:dead", by="ann")
    operator.start()
    wait_until(lambda: ended(client, fast), what="the fast one")
    now = verbs.read(slow.id)
    assert now is not None
    assert now.is_open


def test_it_outlives_the_server(own_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    client = Client(setup=Setup(own_server.url, registry=Registry()))
    fill(own_server.client())
    started = Operations(client).start("delete", "state:dead", by="ann")
    own_server.kill()
    operator = Operator(client)
    with caplog.at_level(logging.WARNING, "pillion"):
        operator.start()
        wait_until(lambda: "wait until Redis can be reached" in caplog.text, what="the warning")
        own_server.restart()
        wait_until(lambda: ended(client, started), what="the operation", timeout=20)
        assert operator.stop()
    assert caplog.text.count("wait until Redis") == 1
    client.close()

"""From which queue the next job comes, what an outage looks like, and what capsules leave to each other."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from pillion.config import Capsule, Config
from pillion.events import StoreBack, StoreDown
from pillion.worker.queues import QueueOrder
from tests import leaks
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import harness

ran: SimpleQueue[Any] = SimpleQueue()
never, met = threading.Event(), threading.Event()
beside: list[int] = []
TURNS = 4_000


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    yield
    while not ran.empty():
        ran.get()


@pillion.job(name="compat_notes")
def notes(what: str) -> None:
    ran.put(what)


@pillion.job(name="compat_waits")
def waits() -> None:
    """Ends only by an exception: it waits in small steps, so that one can be raised in between."""
    ran.put("began")
    while not never.wait(0.01):
        pass


@pillion.job(name="compat_meets")
def meets(number: int) -> None:
    """Waits a moment for another one to run beside it."""
    beside.append(number)
    if len(beside) > 1:
        met.set()
    ran.put((number, met.wait(0.1)))
    beside.remove(number)


def firsts(*queues: tuple[str, int]) -> Counter[str]:
    """How often each queue stands first in so many turns; every queue stands in each of them once."""
    order = QueueOrder(Capsule(queues=queues), Config(rng=random.Random(1)))
    turns = [[name for name, _ in order.next(3)] for _ in range(TURNS)]
    assert all(sorted(turn) == sorted(name for name, _ in queues) for turn in turns)
    return Counter(turn[0] for turn in turns)


@pytest.mark.rule("b9.52", "fetch.strict")
def test_strict_queues_stand_in_their_order_in_every_turn() -> None:
    order = QueueOrder(Capsule(queues=(("basic", 0), ("bar", 0), ("zoo", 0))), Config())
    assert {tuple(name for name, _ in order.next(3)) for _ in range(100)} == {("basic", "bar", "zoo")}


@pytest.mark.rule("fetch.weighted")
def test_the_weight_is_the_chance_to_be_first() -> None:
    assert firsts(("high", 3), ("low", 1))["high"] == pytest.approx(TURNS * 3 / 4, rel=0.05)
    even = firsts(("a", 1), ("b", 1), ("c", 1))
    assert [even[name] for name in "abc"] == pytest.approx([TURNS / 3] * 3, rel=0.1)


@pytest.mark.rule("fetch.strict")
def test_a_later_queue_waits_until_the_earlier_one_is_empty(server: Server) -> None:
    queues = (("critical", 0), ("low", 0))
    with harness(server, capsules=(Capsule(concurrency=1, queues=queues),)) as bed:
        for number in range(20):
            bed.push("compat_notes", f"low {number}", queue="low")
            bed.push("compat_notes", f"critical {number}", queue="critical")
        bed.start()
        order = [ran.get(timeout=10) for _ in range(40)]
        assert order == [f"{queue} {number}" for queue, _ in queues for number in range(20)]
    leaks.check(server)


@pytest.mark.rule("fetch.outage")
def test_an_outage_is_told_once_and_its_end_once(own_server: Server) -> None:
    told: SimpleQueue[StoreDown | StoreBack] = SimpleQueue()
    with harness(own_server) as bed:
        bed.setup.events.subscribe(StoreDown, told.put)
        bed.setup.events.subscribe(StoreBack, told.put)
        (fetcher,) = bed.start().fetchers
        bed.push("compat_notes", "before")
        assert ran.get(timeout=10) == "before"
        own_server.kill()
        assert isinstance(told.get(timeout=10), StoreDown)
        attempts: set[float] = set()
        wait_until(lambda: attempts.add(fetcher.last_attempt) or len(attempts) > 3, what="three more attempts")
        own_server.restart()
        back = told.get(timeout=10)
        assert isinstance(back, StoreBack)
        assert back.seconds > 0
        bed.push("compat_notes", "after")
        assert ran.get(timeout=10) == "after"
        assert told.empty()
        bed.redis.flushall()


@pytest.mark.rule("life.capsules-first", "life.capsule")
def test_no_capsule_takes_what_another_gave_back(server: Server) -> None:
    """Two capsules serve one queue. At the stop, the job of the one goes back and the other, idle, must leave it."""
    both = tuple(Capsule(name=name, concurrency=1) for name in ("default", "second"))
    with harness(server, capsules=both) as bed:
        worker = bed.start()
        wait_until(lambda: all(fetcher._came_short for fetcher in worker.fetchers), what="both to be idle")
        jid = bed.push("compat_waits")
        assert ran.get(timeout=10) == "began"
        worker.fetchers.sort(key=lambda fetcher: not fetcher.executor.busy)  # who has it gives back first
        assert worker.stop(timeout=0) == []
        assert [job["jid"] for job in bed.waiting()] == [jid]
        assert ran.empty()
    leaks.check(server)


@pytest.mark.rule("life.capsule", "life.serial")
@pytest.mark.parametrize("queue", ["default", "serial"])
def test_each_capsule_runs_its_own_queues_within_its_own_concurrency(server: Server, queue: str) -> None:
    met.clear()
    capsules = (Capsule(concurrency=3), Capsule(name="serial", concurrency=1, queues=(("serial", 0),)))
    with harness(server, capsules=capsules) as bed:
        for number in range(3):
            bed.push("compat_meets", number, queue=queue)
        bed.start()
        assert {ran.get(timeout=10) for _ in range(3)} == {(number, queue == "default") for number in range(3)}
    leaks.check(server)


@pytest.mark.rule("b9.52", "move.requeue")
def test_a_job_that_is_given_back_restores_the_size_of_its_queue(server: Server) -> None:
    with harness(server, capsules=(Capsule(concurrency=1),)) as bed:
        jids = [bed.push("compat_waits"), bed.push("compat_notes", "never")]
        worker = bed.start()
        assert ran.get(timeout=10) == "began"
        assert worker.stop(timeout=0) == []
        assert [job["jid"] for job in bed.waiting()] == jids
        assert ran.empty()
    leaks.check(server)

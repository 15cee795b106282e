"""Quiet and stop: what is given back, what is interrupted, and in which order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from pillion.config import Capsule
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

log: SimpleQueue[Any] = SimpleQueue()
release = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    while not log.empty():
        log.get()
    release.clear()


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    with harness(server, capsules=(Capsule(concurrency=2),)) as bed:
        yield bed
        release.set()


@pillion.job
def holds(number: int) -> None:
    log.put(f"start {number}")
    try:
        release.wait(20)
    finally:
        log.put(f"cleaned up {number}")
    log.put(f"done {number}")


@pillion.job
def loops(number: int) -> None:
    """Ends only by an exception: it waits in small steps, so that one can be raised in between."""
    log.put(f"start {number}")
    try:
        while not release.wait(0.01):
            pass
    except pillion.Shutdown:
        log.put(("shutdown", pillion.current_job()))
        raise
    finally:
        log.put(f"cleaned up {number}")


@pillion.job
def hides(number: int) -> None:
    """A library in between turns the shutdown into an error of its own."""
    log.put(f"start {number}")
    try:
        while not release.wait(0.01):
            pass
    except pillion.Shutdown as error:
        raise RuntimeError("wrapped by a library") from error


@pillion.job
async def aloops(number: int) -> None:
    log.put(f"start {number}")
    try:
        await asyncio.sleep(20)
    finally:
        log.put(f"cleaned up {number}")


@pillion.job
def polite() -> None:
    current = pillion.current_job()
    assert current is not None
    log.put("start polite")
    while not current.interrupted():
        release.wait(0.01)
    log.put("saw the interruption")


def started(count: int) -> None:
    for _ in range(count):
        assert log.get(timeout=10).startswith("start")


def test_an_idle_worker_stops_at_once(bed: Harness) -> None:
    worker = bed.start()
    wait_until(lambda: bed.redis.zcard("pillion:lease") == 1, what="the lease")
    before = bed.setup.config.clock.steady()
    assert worker.stop() == []
    assert bed.setup.config.clock.steady() - before < 5  # a stuck loop would take far longer than an idle stop
    assert bed.redis.keys("pillion:*") == []
    assert bed.redis.scard("processes") == 0


@pytest.mark.rule("life.quiet")
def test_quiet_gives_back_what_was_not_started_and_lets_the_rest_finish(bed: Harness) -> None:
    worker = bed.start()
    for number in range(5):
        bed.push("holds", number)
    started(2)
    worker.quiet()
    wait_until(lambda: len(bed.waiting()) == 3, what="the unstarted jobs in their queue")
    assert [job["args"][0] for job in bed.waiting()] == [2, 3, 4]
    release.set()
    bed.settled(2)
    bed.push("holds", 9)
    assert worker.stop() == []
    assert [job["args"][0] for job in bed.waiting()] == [2, 3, 4, 9]


@pytest.mark.rule("life.give-back", "life.no-failure", "retry.shutdown", "b9.31")
@pytest.mark.parametrize("name", ["loops", "aloops", "hides"])
def test_at_the_deadline_jobs_go_back_first_and_are_interrupted_then(bed: Harness, name: str) -> None:
    worker = bed.start()
    bed.push(name, 1)
    started(1)
    assert worker.stop(timeout=0) == []
    (job,) = bed.waiting()
    assert (job["class"], job["args"]) == (name, [1])
    assert "retry_count" not in job
    assert not bed.redis.exists("retry", "dead")
    if name != "hides":
        wait_until(
            lambda: not log.empty() and "cleaned up 1" in [log.get() for _ in range(log.qsize())], what="finally"
        )
    assert bed.redis.keys("pillion:inf:*") == []


@pytest.mark.rule("life.give-back")
@pytest.mark.rule("run.counts", instead=True)
def test_what_will_not_end_is_named_and_its_job_is_back_in_the_queue(bed: Harness) -> None:
    worker = bed.start()
    bed.push("holds", 1)  # waits in one long call, where no exception reaches it
    started(1)
    (name,) = worker.stop(timeout=0)
    assert name == "pillion.default.1"
    assert len(bed.waiting()) == 1
    release.set()
    assert bed.redis.get("stat:processed") in (b"0", None)


def test_a_job_that_ends_after_it_was_given_back_settles_nothing(bed: Harness) -> None:
    worker = bed.start()
    bed.push("holds", 1)
    started(1)
    stopper = threading.Thread(target=worker.stop, args=(0,))
    stopper.start()
    wait_until(lambda: len(bed.waiting()) == 1, what="the job back in its queue")
    release.set()
    stopper.join(10)
    assert len(bed.waiting()) == 1
    assert bed.redis.keys("pillion:inf:*") == []


@pytest.mark.rule("run.interrupted")
def test_a_job_can_see_that_it_should_end(bed: Harness) -> None:
    worker = bed.start()
    bed.push("polite")
    started(1)
    worker.quiet()
    assert log.get(timeout=10) == "saw the interruption"
    bed.settled(1)


def test_stopping_twice_and_before_starting_is_harmless(bed: Harness) -> None:
    worker = bed.start()
    assert worker.stop() == worker.stop() == []
    other = pillion.Worker(bed.setup, embedded=True)
    assert other.stop() == []


@pytest.mark.rule("move.bulk-requeue", instead=True)
def test_a_worker_stops_although_redis_is_gone(own_server: Server) -> None:
    with harness(own_server) as bed:
        worker = bed.start()
        bed.push("holds", 1)
        started(1)
        own_server.kill()
        release.set()
        worker.stop(timeout=0.2)
        own_server.restart()
        claims = [key for key in bed.redis.keys("pillion:inf:*") if bed.redis.type(key) == b"list"]
        assert len(claims) == 1  # not lost: it stands in its tray until a reaper gives it back
        bed.redis.flushall()

"""What a strict reader of the engine asked: does a broken neighbour, a full slot or a suspect hold others up?"""

from __future__ import annotations

import gc
import json
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from pillion.config import Capsule
from pillion.registry import Registry, definition_of
from pillion.store import ops, rescue
from pillion.types import Claim
from pillion.worker.runner import REQUEUE, Run
from pillion.worker.tenure import Turned
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

ran: SimpleQueue[Any] = SimpleQueue()


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    while not ran.empty():
        ran.get()


def quickly(count: int, seconds: float = 5.0) -> list[Any]:
    """What the first `count` jobs said, in all within a few seconds."""
    end = time.monotonic() + seconds
    return sorted(ran.get(timeout=max(end - time.monotonic(), 0.001)) for _ in range(count))


@pillion.job
def passes_by(what: Any = None) -> None:
    ran.put(what)


@pillion.job(retry=3)
def breaks_always() -> None:
    raise RuntimeError("as it should")


def test_large_payloads_fill_every_slot(server: Server) -> None:
    """A step carries about 1 MB; the next one follows at once while slots are free."""
    together = threading.Barrier(3, timeout=5)
    with harness(server, lease=60.0) as bed, bed.setup.registry.restored():

        @pillion.job(retry=False)
        def meets_others(_ballast: str) -> None:
            together.wait()
            ran.put("met")

        for _ in range(3):
            bed.push("meets_others", "x" * 1_000_000)
        bed.start()
        assert [ran.get(timeout=10) for _ in range(3)] == ["met"] * 3


def test_a_queue_of_the_wrong_type_does_not_slow_the_others(server: Server) -> None:
    with harness(server, capsules=(Capsule(concurrency=3, queues=(("broken", 0), ("default", 0))),)) as bed:
        bed.redis.set("queue:broken", "surprise")
        for number in range(100):
            bed.push("passes_by", number)
        bed.start()
        assert quickly(100) == list(range(100))


def test_an_outcome_that_cannot_be_written_does_not_slow_the_others(server: Server) -> None:
    with harness(server, poll_interval_average=600) as bed:
        bed.redis.set("retry", "surprise")
        bed.push("breaks_always")
        for number in range(100):
            bed.push("passes_by", number)
        bed.start()
        assert quickly(100) == list(range(100))
        bed.redis.delete("retry")
        wait_until(lambda: bed.redis.zcard("retry") == 1, what="the failed job in the retry set")


def test_outcomes_that_cannot_be_written_do_not_pile_up(server: Server) -> None:
    """Claims without end would fill the memory of both sides while the retry set is broken."""
    with harness(server, poll_interval_average=600) as bed:
        bed.redis.set("retry", "surprise")
        bed.client.push_bulk({"class": "breaks_always", "args": [[]] * 3_000})
        (fetcher,) = bed.start().fetchers
        wait_until(lambda: fetcher.tenure.refused, what="something that cannot be written")
        threading.Event().wait(2.5)
        assert len(fetcher.tenure.mine) < 600
        bed.redis.delete("retry")
        wait_until(lambda: bed.redis.zcard("retry") == 3_000, timeout=20, what="all of them in the retry set")


def test_a_snooze_must_be_a_time() -> None:
    for seconds in (float("nan"), float("inf")):
        with pytest.raises(pillion.PillionError, match="expected"):
            pillion.snooze(seconds)


def test_a_broken_list_of_paused_queues_stops_nobody(server: Server) -> None:
    with harness(server) as bed:
        bed.redis.set("paused", "surprise")
        bed.push("passes_by", 1)
        bed.start()
        assert ran.get(timeout=3) == 1


def claim_all(bed: Harness, owner: str, count: int, mark: int | None = None) -> None:
    """An owner that claims what stands in `default`, perhaps marks one, and dies."""
    run, keys = bed.setup.store.run, bed.setup.store.keys
    assert run(ops.join(keys, owner, 60_000, 5))
    want = ops.Want(count, 1, (("default", count),))
    reply = run(ops.step(keys, ops.Owner(owner), 60_000, [], want, dead_max=9, dead_timeout=9.0))
    assert isinstance(reply, ops.Stepped)
    assert len(reply.claims) == count
    if mark is not None:
        assert run(ops.mark(keys, ops.Owner(owner), ops.claim_number(1, mark)))
    assert run(rescue.fence(keys, owner, None))


def test_a_suspect_that_never_started_is_not_convicted(server: Server) -> None:
    """Design 6: later rescues count only marked suspects. Others waited, perhaps for another capsule's pill."""
    with harness(server) as bed:
        bed.client.push({"class": "passes_by", "args": [1], "jid": "innocent"})
        reaper = pillion.Worker(bed.setup, embedded=True).stations[0].reaper
        for epoch in range(5):
            claim_all(bed, f"dead:1:x/default.{epoch}", 1)
            assert reaper.reap() == 1
        assert bed.redis.zcard("dead") == 0
        assert bed.redis.llen("queue:default") == 1
        assert bed.redis.get("pillion:rescued:innocent") == b"1"


def test_a_suspect_that_was_started_every_time_is_convicted(server: Server) -> None:
    with harness(server) as bed:
        bed.client.push({"class": "passes_by", "args": [1], "jid": "guilty"})
        reaper = pillion.Worker(bed.setup, embedded=True).stations[0].reaper
        for epoch, mark in enumerate((None, 0, 0)):
            claim_all(bed, f"dead:1:x/default.{epoch}", 1, mark)
            assert reaper.reap() == 1
        assert [job["jid"] for job in bed.members("dead")] == ["guilty"]


def test_a_thread_that_could_not_start_is_tried_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    failed: list[str] = []

    def reluctant(thread: threading.Thread) -> None:
        if thread.name.startswith("pillion.default.") and len(failed) < 2:
            failed.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", reluctant)
    with harness(server, capsules=(Capsule(concurrency=1),)) as bed:
        bed.push("passes_by", 1)
        bed.start()
        assert ran.get(timeout=5) == 1
        assert len(failed) == 2


def test_a_suspect_behind_a_full_capsule_is_not_marked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark says that it was started: while every slot is taken it has not been, and would be blamed for others."""
    monkeypatch.setattr("pillion.worker.isolation.PATIENCE", 0.1)
    go = threading.Event()
    with harness(server, capsules=(Capsule(concurrency=1),)) as bed, bed.setup.registry.restored():

        @pillion.job
        def holds_on() -> None:
            ran.put("holds")
            go.wait(20)

        bed.push("holds_on")
        (fetcher,) = bed.start().fetchers
        assert ran.get(timeout=5) == "holds"
        bed.redis.zadd("pillion:suspects", {"s1": 4e9})
        assert fetcher.tenure.owner is not None
        index = f"pillion:inf:{fetcher.tenure.owner.name}"
        suspect = {"class": "passes_by", "args": ["suspect"], "jid": "s1", "queue": "default", "retry": True}
        bed.redis.rpush(f"{index}:50", json.dumps(suspect))
        bed.redis.hset(index, "50", "1 default")
        fetcher.tenure.lose_sight_of([])  # as after a lost reply: it is adopted although there is no room
        fetcher.wake()
        try:
            wait_until(lambda: bool(fetcher._suspects), what="the suspect to be adopted")
            threading.Event().wait(0.5)
            assert bed.redis.hkeys(index).count(b"s:50") == 0
        finally:
            go.set()
        assert ran.get(timeout=5) == "suspect"


def test_sync_jobs_are_not_hoarded_beyond_the_threads(server: Server) -> None:
    """Without async jobs a slot without a thread can run nothing: what it claims bounces, and others cannot have it."""
    go = threading.Event()
    registry = Registry()
    with harness(server, registry=registry, lease=60.0, capsules=(Capsule(concurrency=8, threads=2),)) as bed:

        def holds_on() -> None:
            ran.put("holds")
            go.wait(20)

        registry.register(definition_of(pillion.job(name="holds_without_async")(holds_on)))  # type: ignore[arg-type]
        for _ in range(8):
            bed.push("holds_without_async")
        executor = bed.start().fetchers[0].executor
        try:
            assert [ran.get(timeout=5) for _ in range(2)] == ["holds", "holds"]
            seen = [bed.redis.llen("queue:default") for _ in range(10) if not threading.Event().wait(0.1)]
            assert (seen, executor.hands._inbox.qsize()) == ([6] * 10, 0)
        finally:
            go.set()


def test_a_suspect_does_not_wait_for_an_outcome_that_cannot_be_written(server: Server) -> None:
    """It holds the gate meanwhile, and every other capsule with it."""
    capsules = (Capsule(concurrency=1), Capsule(name="other", concurrency=1, queues=(("other", 0),)))
    with harness(server, capsules=capsules, poll_interval_average=600) as bed:
        bed.redis.set("retry", "surprise")
        bed.push("breaks_always")
        worker = bed.start()
        wait_until(lambda: worker.fetchers[0].tenure.outbox, what="something that cannot be written")
        bed.redis.zadd("pillion:suspects", {"s1": 4e9})
        bed.client.push({"class": "passes_by", "args": ["suspect"], "jid": "s1"})
        wait_until(lambda: bool(worker.fetchers[0]._suspects) or not ran.empty(), what="the suspect to be claimed")
        bed.push("passes_by", "other", queue="other")
        assert {ran.get(timeout=6), ran.get(timeout=6)} == {"suspect", "other"}


def test_a_resync_reads_an_owner_of_many_claims(server: Server) -> None:
    with harness(server) as bed:
        run, keys, count = bed.setup.store.run, bed.setup.store.keys, 4_500
        assert run(ops.join(keys, "o", 60_000, count))
        bed.redis.lpush("queue:default", *("{}" for _ in range(count)))
        for first in range(1, count, 200):
            want = ops.Want(200, first, (("default", 200),))
            run(ops.step(keys, ops.Owner("o"), 60_000, [], want, dead_max=9, dead_timeout=9.0))
        held = run(ops.resync(keys, "o", 60_000))
        assert isinstance(held, ops.Held)
        assert len(held.claims) == count
        run(rescue.fence(keys, "o", None))
        bed.redis.flushall()


def test_a_heartbeat_shows_thousands_of_runs(server: Server) -> None:
    with harness(server) as bed:
        worker = pillion.Worker(bed.setup, embedded=True)
        raw = b'{"class":"passes_by","args":[],"jid":"j","queue":"default"}'
        for n in range(4_500):
            run = Run(Claim("o", n, "default", raw), {}, None, None, 0.0)  # type: ignore[arg-type]
            run.thread = n + 1
            worker.fetchers[0].executor.running[n] = run
        worker.stations[0].heartbeat.beat()
        assert bed.redis.hlen(f"{worker.identity}:work") == 4_500
        worker.stations[0].heartbeat.after()
        assert not bed.redis.exists(worker.identity)


def test_what_a_step_brings_goes_back_where_another_fetcher_took_the_gate_meanwhile(server: Server) -> None:
    with harness(server) as bed:
        (fetcher,) = pillion.Worker(bed.setup, embedded=True).fetchers
        claim = Claim("o", 1, "default", b"{}")
        assert fetcher._suspects._gate.take(object(), 0.0)
        fetcher.tenure.mine.add(1)
        fetcher._start(Turned(claims=[claim]))
        assert [item.outcome for item in fetcher.tenure.outbox.values()] == [REQUEUE]
        assert not fetcher.executor.unstarted


def test_workers_that_come_and_go_leave_no_descriptor_open(server: Server) -> None:
    with harness(server) as bed:
        bed.start().stop()
        bed.workers.clear()
        gc.collect()
        before = len(list(Path("/dev/fd").iterdir()))
        for _ in range(5):
            bed.start().stop()
        bed.workers.clear()
        gc.collect()
        # A pooled connection may be opened once meanwhile; a leak would be at least one descriptor per worker.
        assert len(list(Path("/dev/fd").iterdir())) < before + 5


def test_a_suspect_that_takes_long_does_not_hold_the_others_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pillion.worker.isolation.PATIENCE", 0.3)
    go = threading.Event()
    capsules = (Capsule(concurrency=2), Capsule(name="other", concurrency=1, queues=(("other", 0),)))
    with harness(server, capsules=capsules) as bed, bed.setup.registry.restored():

        @pillion.job
        def holds_on() -> None:
            ran.put("holds")
            go.wait(60)

        bed.redis.zadd("pillion:suspects", {"s1": 4e9})
        bed.client.push({"class": "holds_on", "args": [], "jid": "s1"})
        bed.start()
        try:
            assert ran.get(timeout=5) == "holds"
            bed.push("passes_by", "other", queue="other")
            assert ran.get(timeout=2) == "other"
        finally:
            go.set()


def test_handlers_that_cannot_keep_up_do_not_fill_the_memory(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pillion.worker.announcer.MOST_IN_LINE", 5)
    with harness(server) as bed:
        go, told = threading.Event(), []

        def slow(error: BaseException, context: object, config: object) -> None:
            assert go.wait(20)
            told.append(error)

        bed.setup.error_handlers.append(slow)
        for _ in range(30):
            bed.raw("no json")
        worker = bed.start()
        bed.settled(30)
        wait_until(lambda: "5 calls of handlers and subscribers wait" in caplog.text, what="the line to be full")
        assert worker._announcer.left <= 5
        go.set()
        wait_until(lambda: worker._announcer.left == 0, what="the line to be worked off")
        bed.raw("no json")
        wait_until(lambda: "calls of handlers and subscribers were left out" in caplog.text, what="the count")
        wait_until(lambda: worker._announcer.left == 0 and len(told) in (6, 7), what="five or six, and the next one")
        bed.redis.delete("dead")

"""The loops beside the fetcher: poller, reaper, heartbeat, watchdog, and what an idle fleet costs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from pillion.config import Capsule
from pillion.store import ops
from pillion.types import Claim, Done
from pillion.worker.runner import REQUEUE, Finished
from pillion.worker.service import Service
from pillion.worker.stats import Stats
from pillion.worker.tenure import Turned
from pillion.worker.watchdog import Watchdog, stacks
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

ran: SimpleQueue[Any] = SimpleQueue()


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    while not ran.empty():
        ran.get()
    with harness(server) as bed:
        yield bed


@pillion.job
def arrives(what: str) -> None:
    ran.put(what)


def foreign(name: str, *args: Any, queue: str = "default", **fields: Any) -> str:
    job = {"class": name, "args": list(args), "retry": True, "queue": queue, "jid": f"jid-{name}", "created_at": 1.5}
    return json.dumps(job | fields)


# -- poller --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("b9.56")
def test_due_jobs_move_and_future_ones_stay(bed: Harness) -> None:
    bed.push("arrives", "later", at=bed.setup.config.clock.now() + 3600)
    bed.redis.zadd("schedule", {foreign("arrives", "due"): 1.0})
    bed.redis.zadd("retry", {foreign("arrives", "retried", retry_count=0): 2.0})
    bed.start()
    assert {ran.get(timeout=10), ran.get(timeout=10)} == {"due", "retried"}
    assert len(bed.members("schedule")) == 1
    assert not bed.redis.exists("retry")


@pytest.mark.rule("server.exact", "keys.queues", "move.poll-push", "b9.56")
def test_jobs_of_strangers_move_too_and_keep_their_bytes(bed: Harness) -> None:
    member = '{"class":"Ruby::Stranger","args":[1.0e+20],"queue":"elsewhere","jid":"r1","created_at":1700000000.25}'
    bed.redis.zadd("schedule", {member: 1.0})
    worker = bed.start()
    wait_until(lambda: bed.redis.llen("queue:elsewhere"), what="the stranger's queue")
    (raw,) = bed.redis.lrange("queue:elsewhere", 0, -1)
    assert raw.startswith(member[:-1].encode() + b',"enqueued_at":')
    assert bed.redis.sismember("queues", "elsewhere")
    worker.stop()


@pytest.mark.rule("middleware.again", "b9.57")
def test_client_middleware_runs_again_with_the_class_as_a_name(bed: Harness) -> None:
    told: SimpleQueue[tuple[object, str]] = SimpleQueue()

    class Tenant:
        def __call__(self, job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
            told.put((job_class, queue))
            job.setdefault("tenant", "acme")
            job["queue"] = "moved"
            yield

    bed.setup.client_middleware.add(Tenant)
    bed.redis.zadd("schedule", {foreign("Stranger", 1, queue="low"): 1.0})
    bed.start()
    assert told.get(timeout=10) == ("Stranger", "low")
    wait_until(lambda: bed.redis.llen("queue:moved"), what="the queue that middleware chose")
    (job,) = bed.waiting("moved")
    assert job["tenant"] == "acme"


@pytest.mark.rule("poller.errors")
def test_a_due_job_that_middleware_stops_is_removed_and_one_that_raises_is_tried_later(bed: Harness) -> None:
    reported: SimpleQueue[str] = SimpleQueue()

    class Picky:
        def __call__(self, job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
            if job_class == "Stopped":
                return
            if job_class == "Broken":
                raise RuntimeError("picky middleware broke")
            yield

    bed.setup.client_middleware.add(Picky)
    bed.setup.error_handlers.append(lambda error, context, config: reported.put(str(error)))
    for name in ("Stopped", "Broken"):
        bed.redis.zadd("schedule", {foreign(name): 1.0})
    bed.redis.zadd("schedule", {foreign("arrives", "fine"): 1.0})
    bed.start()
    assert ran.get(timeout=10) == "fine"
    assert reported.get(timeout=10) == "picky middleware broke"
    wait_until(lambda: bed.redis.zcard("schedule") == 1, what="the stopped one gone")
    ((member, score),) = bed.redis.zrange("schedule", 0, -1, withscores=True)
    assert json.loads(member)["class"] == "Broken"
    assert score > bed.setup.config.clock.now() + 50


def test_what_cannot_be_read_goes_to_the_dead_set_and_holds_nothing_up(bed: Harness) -> None:
    bed.redis.zadd("schedule", {"not json": 1.0, foreign("arrives", "fine"): 2.0})
    bed.start()
    assert ran.get(timeout=10) == "fine"
    wait_until(lambda: bed.redis.zrange("dead", 0, -1) == [b"not json"], what="the dead set")


@pytest.mark.rule("poller.errors")
@pytest.mark.parametrize(("broken", "sound"), [("schedule", "retry"), ("retry", "schedule")])
def test_a_set_of_the_wrong_type_is_reported_and_the_other_goes_on(bed: Harness, broken: str, sound: str) -> None:
    bed.redis.set(broken, "surprise")
    bed.redis.zadd(sound, {foreign("arrives", "fine", retry_count=0): 1.0})
    bed.start()
    assert ran.get(timeout=10) == "fine"


@pytest.mark.rule("move.poll", instead=True)
def test_many_pollers_move_each_job_once(bed: Harness) -> None:
    for number in range(500):
        bed.redis.zadd("schedule", {foreign("arrives", number, jid=f"j{number}"): 1.0})
    pollers = [pillion.Worker(bed.setup, embedded=True).stations[0].poller for _ in range(4)]
    threads = [threading.Thread(target=poller.poll) for poller in pollers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(job["args"][0] for job in bed.waiting()) == list(range(500))


@pytest.mark.rule("poller.average", "poller.spread", "b9.55")
def test_the_interval_grows_with_the_fleet_and_spreads(bed: Harness) -> None:
    bed.setup.configure(poll_interval_average=None, average_scheduled_poll_interval=5)
    poller = pillion.Worker(bed.setup, embedded=True).stations[0].poller
    poller.fleet = 3
    assert all(7.5 <= poller.interval() <= 22.5 for _ in range(200))
    poller.fleet = 10
    waits = [poller.interval() for _ in range(400)]
    assert min(waits) < 15
    assert max(waits) > 80
    assert 40 < sum(waits) / len(waits) < 60


# -- rescue --------------------------------------------------------------------------------------------------------


def abandon(bed: Harness, owner: str, *jobs: str, concurrency: int = 10, mark: int | None = None) -> None:
    """Leave claims behind as a process does that was killed long ago."""
    bed.redis.hset(f"pillion:inf:{owner}", mapping={"g": 1, "c": concurrency})
    bed.redis.hset(f"pillion:inf:{owner}", "1", "1" * len(jobs) + " default")
    bed.redis.rpush(f"pillion:inf:{owner}:1", *jobs)
    if mark is not None:
        bed.redis.hset(f"pillion:inf:{owner}", f"s:{ops.claim_number(1, mark)}", 1)
    bed.redis.zadd("pillion:lease", {owner: 1})
    bed.redis.hset("pillion:pulse", mapping={"last": int(time.time() * 1000), "since": 1})


@pytest.mark.rule("feature.super_fetch", "move.fetch", instead=True)
def test_the_jobs_of_the_dead_run_elsewhere(bed: Harness) -> None:
    abandon(bed, "gone:1:x/default.1", foreign("arrives", "a", jid="a"), foreign("arrives", "b", jid="b"))
    bed.start()
    assert [ran.get(timeout=15), ran.get(timeout=15)] == ["a", "b"]
    bed.settled(2)
    assert bed.redis.keys("pillion:inf:gone*") == []
    wait_until(lambda: not bed.redis.exists("pillion:suspects"), what="the suspects absolved")
    assert bed.redis.keys("pillion:rescued:*") == []


def test_nobody_is_fenced_before_he_had_time_to_renew(bed: Harness) -> None:
    """After an outage every lease is over. Who is alive comes back; the dead are found out a lease later."""
    abandon(bed, "gone:1:x/default.1", foreign("arrives", "a"))
    bed.redis.delete("pillion:pulse")
    worker = bed.start()
    worker.stations[0].reaper.reap()
    assert bed.redis.zscore("pillion:lease", "gone:1:x/default.1") == 1  # it could, by the server's clock, but must not
    assert ran.get(timeout=15) == "a"


def test_the_third_crash_makes_a_poison_pill_and_only_that_job(bed: Harness) -> None:
    reaper = pillion.Worker(bed.setup, embedded=True).stations[0].reaper
    pill, neighbour = foreign("arrives", "pill", jid="pill"), foreign("arrives", "n", jid="n")
    for crash in range(3):
        owner = f"gone:{crash}:x/default.1"
        abandon(bed, owner, pill, neighbour, mark=0 if crash else None)
        reaper.reap()
        bed.redis.delete("queue:default")
    (dead,) = bed.members("dead")
    assert dead["jid"] == "pill"
    assert dead["error_class"] == "PoisonPill"
    assert bed.redis.get("pillion:rescued:n") == b"1"
    assert bed.redis.get("pillion:rescued:pill") is None
    bed.redis.delete("pillion:rescued:n", "pillion:suspects")


def test_claims_that_cannot_have_run_are_not_counted(bed: Harness) -> None:
    jobs = [foreign("arrives", n, jid=f"j{n}") for n in range(5)]
    abandon(bed, "gone:1:x/default.1", *jobs, concurrency=2)
    pillion.Worker(bed.setup, embedded=True).stations[0].reaper.reap()
    assert sorted(bed.redis.keys("pillion:rescued:*")) == [b"pillion:rescued:j0", b"pillion:rescued:j1"]
    bed.redis.delete("pillion:rescued:j0", "pillion:rescued:j1", "pillion:suspects")


def test_a_suspect_runs_with_nothing_else_in_flight(server: Server) -> None:
    beside: SimpleQueue[int] = SimpleQueue()
    with harness(server, capsules=(Capsule(concurrency=5),)) as bed:

        @pillion.job(name="Suspect")
        def suspect() -> None:
            (worker,) = bed.workers
            beside.put(worker.fetchers[0].executor.held)

        for n in range(20):
            bed.push("arrives", n)
        bed.redis.lpush("queue:default", foreign("Suspect", jid="s1"))
        bed.redis.zadd("pillion:suspects", {"s1": 4e9})
        bed.start()
        assert beside.get(timeout=15) == 1
        bed.settled(21)
        wait_until(lambda: not bed.redis.exists("pillion:suspects"), what="absolution")


# -- heartbeat -----------------------------------------------------------------------------------------------------


@pytest.mark.rule("life.quiet")
@pytest.mark.rule("process.leave", instead=True)
def test_the_process_row_and_the_work_row(bed: Harness) -> None:
    hold = threading.Event()

    @pillion.job(name="HeldByService")
    def held() -> None:
        hold.wait(10)

    worker = bed.start()
    jid = bed.push("HeldByService")
    row: dict[bytes, bytes] = wait_until(
        lambda: (fields := bed.redis.hgetall(worker.identity)).get(b"busy") == b"1" and fields, what="a busy row"
    )
    info = json.loads(row[b"info"])
    assert info["identity"] == worker.identity
    assert info["capsules"] == {"default": {"concurrency": 3, "mode": "strict", "weights": {"default": 0}}}
    assert row[b"concurrency"] == b"3"
    assert row[b"quiet"] == b"false"
    assert 0 < bed.redis.ttl(worker.identity) <= 60
    ((tid, work),) = bed.redis.hgetall(f"{worker.identity}:work").items()
    assert json.loads(json.loads(work)["payload"])["jid"] == jid
    assert tid
    worker.quiet()
    wait_until(lambda: bed.redis.hget(worker.identity, "quiet") == b"true", what="quiet in the row")
    hold.set()
    worker.stop()
    assert not bed.redis.exists(worker.identity, f"{worker.identity}:work")


@pytest.mark.rule("keys.signals", "process.signal")
def test_signals_from_a_dashboard_reach_the_process_and_garbage_does_not(bed: Harness) -> None:
    worker = pillion.Worker(bed.setup, embedded=True)
    worker.stations[0].heartbeat._embedded = False
    bed.redis.lpush(f"{worker.identity}-signals", "KILL", "TSTP")
    heard = worker._inbox
    worker.stations[0].heartbeat.beat()
    worker.stations[0].heartbeat.beat()
    assert heard.get_nowait() == "TSTP"
    assert heard.empty()
    worker.stations[0].heartbeat.after()


@pytest.mark.rule("process.stats-lost", instead=True)
def test_counters_that_could_not_be_flushed_are_put_back(own_server: Server) -> None:
    with harness(own_server) as bed:
        worker = pillion.Worker(bed.setup, embedded=True)
        stats: Stats = worker.stations[0].stats
        stats._counts.processed = 7
        own_server.kill()
        with pytest.raises(pillion.StoreError):
            worker.stations[0].heartbeat.flush()
        own_server.restart()
        worker.stations[0].heartbeat.flush()
        assert bed.redis.get("stat:processed") == b"7"


@pytest.mark.rule("process.prune", "b9.47")
def test_dead_processes_are_struck_off_the_list(bed: Harness) -> None:
    bed.redis.sadd("processes", "ghost:1:x")
    worker = pillion.Worker(bed.setup, embedded=True)
    worker.stations[0].heartbeat.beat()
    assert bed.redis.smembers("processes") == {worker.identity.encode()}
    worker.stations[0].heartbeat.after()


# -- watchdog and services -----------------------------------------------------------------------------------------


def test_a_stuck_fetcher_loses_its_connection(bed: Harness) -> None:
    worker = bed.start()
    fetcher = worker.fetchers[0]
    wait_until(lambda: fetcher.tenure.session.is_open, what="a connection")
    watchdog = Watchdog([fetcher], lease=0.6, clock=bed.setup.config.clock, embedded=True)
    watchdog.look(fetcher)
    assert watchdog._dropped == set()
    fetcher.last_attempt -= 10
    watchdog.look(fetcher)
    assert watchdog._dropped == {fetcher.name}
    bed.push("arrives", "after the drop")
    assert ran.get(timeout=10) == "after the drop"


def test_the_stacks_of_all_threads_are_told() -> None:
    assert "test_the_stacks_of_all_threads_are_told" in stacks()


def test_services_start_and_stop_in_any_order_from_any_thread() -> None:
    class Turns(Service):
        name = "turns"

        def turn(self) -> float:
            return 0.0

    for _ in range(20):
        service = Turns()
        calls = [service.start, service.stop, service.start, service.stop] * 5
        threads = [threading.Thread(target=call) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        service.stop()
        assert service.join(5)


def test_a_turn_that_raises_does_not_end_its_loop() -> None:
    turned = threading.Semaphore(0)

    class Broken(Service):
        name = "broken"

        def turn(self) -> float:
            turned.release()
            raise RuntimeError("a broken turn")

        def wait(self, seconds: float) -> None:
            super().wait(min(seconds, 0.001))

    service = Broken()
    service.start()
    assert all(turned.acquire(timeout=5) for _ in range(3))
    service.stop()
    assert service.join(5)


# -- the price of idling -------------------------------------------------------------------------------------------


def test_ten_idle_workers_make_fewer_than_twenty_steps_a_second(server: Server, figures: Callable[[str], None]) -> None:
    with harness(server, lease=60.0, heartbeat=10.0, poll_interval_average=10.0) as bed:
        for _ in range(10):
            bed.start()
        wait_until(lambda: bed.redis.zcard("pillion:lease") == 10, what="ten leases")

        def steps() -> int:
            stats: dict[str, Any] = bed.redis.info("commandstats")
            return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))

        def now() -> float:
            seconds, micros = bed.redis.time()
            return float(seconds) + micros / 1e6

        wait_until(lambda: all(worker.fetchers[0]._came_short for worker in bed.workers), what="all idle")
        before, start = steps(), now()
        wait_until(lambda: now() - start > 3, what="three seconds of the server's time")
        rate = (steps() - before) / (now() - start)
        figures(f"  ten idle workers: {rate:.1f} scripts a second together")
        assert rate < 20
        bed.push("arrives", "wake up")
        assert ran.get(timeout=10) == "wake up"


def test_ops_that_tests_drive_by_their_own_clock_agree_with_the_servers(bed: Harness) -> None:
    bed.redis.zadd("schedule", {"a": 100.0, "b": 200.0})
    now, members = bed.setup.store.run(ops.due("schedule", now=150.0))
    assert (now, members) == (150.0, [(b"a", 100.0)])
    assert len(bed.setup.store.run(ops.due("schedule"))[1]) == 2


def test_a_fetcher_does_not_rest_while_outcomes_wait_to_be_written(bed: Harness) -> None:
    fetcher = pillion.Worker(bed.setup, embedded=True).fetchers[0]
    fetcher._came_short = True
    assert fetcher._may_rest(Turned(), wake=True, was_held_back=False)
    fetcher.tenure.outbox[1] = Finished(Claim("o", 1, "default", b""), Done())
    assert not fetcher._may_rest(Turned(), wake=True, was_held_back=False)


def test_a_due_job_for_a_queue_that_only_ruby_would_name_so_moves_and_one_without_a_queue_is_buried(
    bed: Harness,
) -> None:
    bed.redis.zadd("schedule", {foreign("Ruby", queue="my queue/2"): 1.0, foreign("Lost", queue=""): 2.0})
    bed.start()
    wait_until(lambda: bed.redis.llen("queue:my queue/2"), what="Ruby's queue")
    wait_until(lambda: [job["class"] for job in bed.members("dead")] == ["Lost"], what="the dead set")


def test_more_than_one_batch_of_due_jobs_moves_in_one_look(bed: Harness) -> None:
    bed.redis.zadd("schedule", {foreign("Many", number, jid=f"m{number}", queue="many"): 1.0 for number in range(1001)})
    assert pillion.Worker(bed.setup, embedded=True).stations[0].poller.poll() == 1001
    assert bed.redis.llen("queue:many") == 1001


def test_nothing_is_started_once_the_lease_could_be_gone(bed: Harness) -> None:
    executor = pillion.Worker(bed.setup, embedded=True).fetchers[0].executor
    claim = Claim("o", 1, "default", foreign("arrives", "too late").encode())
    executor.valid_until = bed.setup.config.clock.steady() - 0.001
    executor.take([claim])
    executor.start(lambda raw: False)
    wait_until(lambda: executor.finished, what="the claim to come back")
    assert executor.finished.popleft().outcome is REQUEUE
    executor.valid_until = bed.setup.config.clock.steady() + 60
    executor.take([Claim("o", 2, "default", foreign("arrives", "in time").encode())])
    executor.start(lambda raw: False)
    assert ran.get(timeout=10) == "in time"
    executor.end()

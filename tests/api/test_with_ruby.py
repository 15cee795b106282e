"""Ruby's API and ours on one Redis see the same, and what one moves the other finds. Sidekiq 6.4, the wire "6"."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
import redis

import pillion
from pillion import Client, Setup, Worker
from pillion.api import (
    DeadSet,
    History,
    JobSet,
    ProcessSet,
    Queue,
    Queues,
    RetrySet,
    ScheduledSet,
    SortedEntry,
    Stats,
    WorkSet,
)
from pillion.registry import Registry
from tests.api.conftest import job
from tests.conftest import Ruby
from tests.interop.sides import Console
from tests.servers import Server
from tests.waiting import wait_until

SETS: dict[str, type[JobSet]] = {"ScheduledSet": ScheduledSet, "RetrySet": RetrySet, "DeadSet": DeadSet}


class ApiFails(pillion.Job, retry=0):
    def perform(self) -> None:
        raise ValueError("no")


class ApiWaits(pillion.Job, queue="busy", retry=False):
    def perform(self, label: str) -> None:
        with redis.Redis.from_url(label) as look:
            wait_until(lambda: look.exists("release"), what="the test to let it go")


@pytest.fixture(scope="module")
def console(session_server: Server, ruby: Ruby) -> Iterator[Console]:
    console = Console(ruby, session_server)
    yield console
    console.close()


@pytest.fixture
def ours(server: Server) -> Iterator[Client]:
    """Our side, in the form that Sidekiq 6 reads."""
    client = Client(setup=Setup(server.url, wire="6", registry=Registry()))
    yield client
    client.close()


def stocked(look: redis.Redis, client: Client) -> None:
    """Jobs everywhere, some of each side's making, some of nobody's."""
    now = time.time()
    client.push_bulk({"class": "HardWorker", "args": [[f"{n}", n] for n in range(70)]})
    client.push({"class": "HardWorker", "args": ["é/<>", 1], "queue": "mail"})
    look.lpush("queue:mail", b'{ "class":"Odd", "args":[1.0e+20], "jid":"odd", "enqueued_at": 1.5 }')
    for n in range(120):
        look.zadd("retry", {job(f"r{n:03}", n, retry_count=n % 3, error_class="E", failed_at=now): now + 1_000 + n})
        look.zadd("schedule", {job(f"s{n:03}", n): now + 1_000 + n // 7})
    look.zadd("dead", {job("d1"): now - 10, job("d2"): now - 10, job("d3"): now - 5})
    look.mset({"stat:processed": 41, "stat:failed": 5, "stat:processed:2012-12-26": 4, "stat:failed:2012-12-25": 1})


@pytest.mark.rule("api.ruby")
def test_both_see_the_same_figures(console: Console, ours: Client, look: redis.Redis) -> None:
    stocked(look, ours)
    names = "processed failed scheduled_size retry_size dead_size processes_size workers_size enqueued".split()
    theirs = console("Sidekiq::Stats.new.then { |all| args.to_h { [_1, all.public_send(_1)] } }", *names)
    found = Stats(ours).read()
    assert {name: getattr(found, name) for name in names} == theirs
    assert theirs["enqueued"] == 72
    assert list(found.queues.items()) == list(console("Sidekiq::Stats.new.queues").items())
    assert found.default_queue_latency == pytest.approx(console("Sidekiq::Stats.new.default_queue_latency"), abs=5)
    for queue in Queues(ours):
        assert queue.size() == console("Sidekiq::Queue.new(args[0]).size", queue.name)
        assert queue.latency() == pytest.approx(console("Sidekiq::Queue.new(args[0]).latency", queue.name), abs=5)
    days = console('Sidekiq::Stats::History.new(3, Date.parse("2012-12-26")).then { [_1.processed, _1.failed] }')
    history = History(3, date(2012, 12, 26), ours)
    assert [list(found.items()) for found in (history.processed(), history.failed())] == [
        list(day.items()) for day in days
    ]


@pytest.mark.rule("api.ruby", "api.set-each")
def test_both_list_the_same_in_the_same_order(console: Console, ours: Client, look: redis.Redis) -> None:
    stocked(look, ours)
    for name in ("default", "mail"):
        shown = "[_1.jid, _1.klass, _1.args, _1.queue, _1.tags, _1.value]"
        theirs = console(f"Sidekiq::Queue.new(args[0]).map {{ {shown} }}", name)
        assert [row(each) for each in Queue(name, ours)] == theirs
    for name, kind in SETS.items():
        theirs = console(f"Sidekiq::{name}.new.map {{ [_1.jid, _1.score, _1.error?, _1.value] }}")
        assert [[each.jid, each.score, each.is_error, each.value.decode()] for each in kind(ours)] == theirs
        assert kind(ours).size() == console(f"Sidekiq::{name}.new.size")
        found = {each.jid for each in kind(ours).scan('"jid": "r00')}
        assert found == set(console(f"Sidekiq::{name}.new.scan(args[0]).map(&:jid)", '"jid": "r00'))


def row(record: Any) -> list[Any]:
    return [record.jid, record.klass, record.args, record.queue, record.tags, record.value.decode()]


@pytest.mark.rule("api.ruby", "api.retry", "api.add-to-queue", "api.entry-kill")
@pytest.mark.parametrize("verb", ["retry", "add_to_queue", "kill", "delete"])
def test_what_one_does_to_an_entry_the_other_would_have_done(
    console: Console, ours: Client, look: redis.Redis, verb: str
) -> None:
    """The same job twice; each side moves one. Ruby writes JSON anew, so fields are compared."""
    now = time.time()
    fields = {"class": "HardWorker", "retry": True, "retry_count": 2, "created_at": now - 50, "own": {"é": [1.5]}}
    for jid in ("theirs", "ours", "stays"):
        look.zadd("retry", {job(jid, "bob", 5, **fields): now + 500})
    console(f"Sidekiq::RetrySet.new.find_job(args[0]).{verb}", "theirs")
    entry = RetrySet(ours).find_job("ours")
    assert isinstance(entry, SortedEntry)
    assert getattr(entry, verb)() is True
    assert look.zrange("retry", 0, -1) == [job("stays", "bob", 5, **fields)]
    found = {}
    for place in ("queue:default", "dead"):
        raws = look.lrange(place, 0, -1) if place.startswith("queue") else look.zrange(place, 0, -1)
        found |= {(stored := json.loads(raw)).pop("jid"): (place, stored) for raw in raws}
    assert found.keys() == (set() if verb == "delete" else {"theirs", "ours"})
    if found:
        assert abs(found["theirs"][1].pop("enqueued_at", now) - found["ours"][1].pop("enqueued_at", now)) < 30
        assert found["theirs"] == found["ours"]


def test_ruby_finds_what_we_rescheduled_and_killed(console: Console, ours: Client, look: redis.Redis) -> None:
    stocked(look, ours)
    at = int(time.time()) + 5_000
    entry = RetrySet(ours).find_job("r007")
    assert entry is not None
    assert entry.reschedule(at)
    assert console("Sidekiq::RetrySet.new.fetch(args[0]).map(&:jid)", at) == ["r007"]
    assert RetrySet(ours).kill_all().moved == 120
    assert console("Sidekiq::DeadSet.new.size") == 123
    assert console("Sidekiq::RetrySet.new.size") == 0
    console("Sidekiq::DeadSet.new.retry_all")
    assert DeadSet(ours).size() == 0
    assert Queue(client=ours).size() == 193


def test_each_clears_what_the_other_filled(console: Console, ours: Client, look: redis.Redis) -> None:
    stocked(look, ours)
    assert Queue("mail", ours).clear() == 2
    assert console("Sidekiq::Queue.all.map(&:name)") == ["default"]
    console("Sidekiq::Queue.new.clear")
    assert Stats(ours).read().queues == {}
    Stats(ours).reset("failed")
    assert console("Sidekiq::Stats.new.then { [_1.processed, _1.failed] }") == [41, 0]
    console("Sidekiq::Stats.new.reset")
    assert Stats(ours).read().processed == 0


@pytest.mark.rule("api.ruby", "api.process-row")
def test_both_see_the_same_processes_and_runs(console: Console, server: Server, look: redis.Redis) -> None:
    setup = Setup(
        server.url, wire="6", heartbeat=0.1, queues=["busy", "default"], concurrency=3, tag="shop", labels=["l"]
    )
    client, worker = Client(setup=setup), Worker(setup, embedded=True)
    worker.start()
    try:
        jid = ApiWaits.set(client=client).perform_async(server.url)
        work = wait_until(lambda: WorkSet(client).find_work(str(jid)), what="the run")
        names = ["hostname", "pid", "tag", "concurrency", "queues", "labels", "quiet", "identity", "started_at"]
        [process] = ProcessSet(client=client)
        assert console("Sidekiq::ProcessSet.new.map { |row| args.map { row[_1] } }", *names) == [
            [process[name] if name != "queues" else process.queues for name in names]
        ]
        totals = console("Sidekiq::ProcessSet.new.then { [_1.size, _1.total_concurrency, _1.leader] }")
        processes = ProcessSet(client=client)
        assert totals == [processes.size(), processes.total_concurrency(), processes.leader()] == [1, 3, ""]
        [[identity, thread, run]] = console("Sidekiq::Workers.new.map { [_1, _2, _3] }")
        assert (identity, thread, run["queue"]) == (work.process_id, work.thread_id, work.queue)
        assert (run["payload"]["jid"], run["run_at"]) == (work.job.jid, int(work.run_at.timestamp()))
        assert WorkSet(client).size() == console("Sidekiq::Workers.new.size") == 1
    finally:
        look.set("release", 1)
        assert worker.stop(5) == []
        client.close()


@pytest.mark.rule("api.ruby", "api.process-signal")
def test_our_signals_are_where_ruby_puts_its_own(console: Console, ours: Client, look: redis.Redis) -> None:
    look.sadd("processes", "vm:1:a")
    look.hset("vm:1:a", mapping={"info": json.dumps({"identity": "vm:1:a", "concurrency": 1}), "busy": 0, "beat": 1})
    [process] = ProcessSet(client=ours)
    process.quiet()
    process.dump_threads()
    process.stop()
    mine, lives = look.lrange("vm:1:a-signals", 0, -1), look.ttl("vm:1:a-signals")
    look.delete("vm:1:a-signals")
    console("Sidekiq::ProcessSet.new(false).first.then { _1.quiet!; _1.dump_threads; _1.stop! }")
    assert look.lrange("vm:1:a-signals", 0, -1) == mine
    assert look.ttl("vm:1:a-signals") == lives == 60


WRAPPER = "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper"


@pytest.mark.rule("api.ruby", "api.display")
@pytest.mark.parametrize(
    "fields",
    [
        {"args": [1, {"k": "v"}]},
        {"args": [1, "secret"], "encrypt": True},
        {"args": [1], "display_class": "Shown"},
        {"class": WRAPPER, "wrapped": "Charge", "args": [{"arguments": [1, ["x"]]}]},
        {
            "class": WRAPPER,
            "wrapped": "ActionMailer::DeliveryJob",
            "args": [{"arguments": ["UserMailer", "welcome", "deliver_now", 1, "x"]}],
        },
    ],
)
def test_both_show_a_job_the_same_way(
    console: Console, ours: Client, look: redis.Redis, fields: dict[str, Any]
) -> None:
    look.lpush("queue:default", json.dumps({"class": "Plain", "jid": "j", "queue": "default", **fields}))
    [record] = Queue(client=ours)
    theirs = console("Sidekiq::Queue.new.first.then { [_1.display_class, _1.display_args] }")
    assert [record.display_class, record.display_args] == theirs


def test_ruby_reads_what_failed_here_as_we_do(console: Console, server: Server, look: redis.Redis) -> None:
    setup = Setup(server.url, wire="6", queues=["default"])
    client, worker = Client(setup=setup), Worker(setup, embedded=True)
    worker.start()
    try:
        ApiFails.set(client=client, backtrace=3).perform_async()
        wait_until(lambda: look.zcard("dead"), what="the job in the dead set")
    finally:
        assert worker.stop(5) == []
    [entry] = DeadSet(client)
    shown = "[_1.jid, _1.score, _1.error_backtrace, _1.created_at.to_f, _1['error_class'], _1['failed_at']]"
    [theirs] = console(f"Sidekiq::DeadSet.new.map {{ {shown} }}")
    assert entry.created_at is not None
    mine = [entry.jid, entry.score, entry.error_backtrace, entry.created_at.timestamp(), entry.error_class]
    assert [*mine, entry["failed_at"]] == [theirs[0], theirs[1], theirs[2], pytest.approx(theirs[3]), *theirs[4:]]
    client.close()

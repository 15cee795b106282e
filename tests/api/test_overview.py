"""Everything of the first page in one read: what a worker and a server show together."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

import pillion
from pillion import Client
from pillion.api import Deploy, Queue
from pillion.api.overview import Overview, Snapshot
from pillion.config import Capsule
from pillion.store import run_log
from pillion.store.run_log import Row
from tests.api.conftest import NOW, Clock, NewClient, Say, job
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import harness


def enter(look: redis.Redis, identity: str, capsules: dict[str, Any], quiet: str = "false", **info: Any) -> None:
    """A process with its row."""
    look.sadd("processes", identity)
    row = {"concurrency": 7, "busy": 2, "beat": NOW - 4.5, "quiet": quiet}
    look.hset(identity, mapping={**row, "info": json.dumps({"capsules": capsules, **info})})


def capsule(concurrency: int, *queues: str) -> dict[str, Any]:
    return {"concurrency": concurrency, "mode": "strict", "weights": dict.fromkeys(queues, 0)}


def test_an_empty_server(say: Say, client: Client) -> None:
    found: Snapshot = say(Overview(client).read)
    assert (found.at, found.busy, found.slots, found.figures.enqueued) == (NOW, 0, 0, 0)
    assert (found.queues, found.processes, found.causes, found.longest, found.marks) == ([], [], [], [], [])
    assert (len(found.throughput), found.classes) == (60, [])
    assert {(minute.runs, minute.failed) for minute in found.throughput} == {(0, 0)}
    assert [point.at for point in found.trail] == [NOW]


def test_queues_and_who_serves_them(say: Say, client: Client, look: redis.Redis) -> None:
    look.sadd("queues", "mailers", "low", "lost")
    look.lpush("queue:mailers", job("a", enqueued_at=NOW - 30), job("b", enqueued_at=NOW))
    look.set("queue:lost", "text")
    say(Queue("low", client).pause)
    enter(look, "vm:1:a", {"default": capsule(5, "mailers", "low"), "own": capsule(2, "low")})
    enter(look, "vm:2:b", {}, queues=["mailers"])
    enter(look, "vm:3:c", {"default": capsule(5, "mailers")}, quiet="true")
    found: Snapshot = say(Overview(client).read)
    assert [(queue.name, queue.size, queue.latency, queue.paused) for queue in found.queues] == [
        ("mailers", 2, 30.0, False),
        ("lost", 0, 0.0, False),
        ("low", 0, 0.0, True),
    ]
    assert {queue.name: (queue.processes, queue.slots) for queue in found.queues} == {
        "mailers": (2, 12),
        "low": (1, 7),
        "lost": (0, 0),
    }
    assert [queue.growth for queue in found.queues] == [None] * 3
    assert next(queue for queue in found.queues if queue.name == "lost").fault
    assert [(each.identity, each.stopping) for each in found.processes] == [
        ("vm:1:a", False),
        ("vm:2:b", False),
        ("vm:3:c", True),
    ]
    assert (found.busy, found.slots) == (6, 21)


def test_growth_is_told_over_the_last_two_minutes(say: Say, client: Client, look: redis.Redis, clock: Clock) -> None:
    look.sadd("queues", "mailers")
    sizes, before = {0: 100, 3: 100, 10: 90, 60: 50, 130: 24}, None
    growth, clear_in = {}, {}
    for seconds, size in sizes.items():
        clock.at = NOW + seconds
        look.delete("queue:mailers")
        look.lpush("queue:mailers", *(job(f"j{n}") for n in range(size)))
        before = say(Overview(client).read, before)
        growth[seconds], clear_in[seconds] = before.queues[0].growth, before.queues[0].clear_in
    # 130 s later the first two points are forgotten: it is (24 - 90) / 120.
    assert growth == {0: None, 3: None, 10: -1.0, 60: pytest.approx(-50 / 60), 130: pytest.approx(-66 / 120)}
    assert (clear_in[0], clear_in[10], clear_in[60]) == (None, 90.0, pytest.approx(60.0))
    assert before is not None
    assert [point.at - NOW for point in before.trail] == [10, 60, 130]


def test_a_look_every_second_keeps_a_point_every_ten(say: Say, client: Client, clock: Clock) -> None:
    before = None
    for seconds in range(200):
        clock.at = NOW + seconds
        before = say(Overview(client).read, before)
    assert before is not None
    assert len(before.trail) <= 14
    assert before.trail[-1].at - before.trail[0].at >= 110


def test_runs_of_the_last_hour_by_minute_with_deploys(say: Say, client: Client, look: redis.Redis) -> None:
    look.hset("j|261122|11:42", mapping={"Mailer|p": 8, "Mailer|f": 2, "Mailer|ms": 600, "Report|p": 1})
    look.hset("j|261122|10:50", mapping={"Mailer|p": 5, "Mailer|ms": 50})
    look.hset("j|261122|10:20", mapping={"Mailer|p": 99})
    say(Deploy(client).mark, "v42", NOW - 600)
    say(Deploy(client).mark, "old", NOW - 6_000)
    found: Snapshot = say(Overview(client).read)
    busy = {minute.at - NOW: (minute.runs, minute.failed) for minute in found.throughput if minute.runs}
    assert busy == {-60: (9, 2), -53 * 60: (5, 0)}
    assert [minute.at for minute in found.throughput] == [NOW - 60 * n for n in reversed(range(60))]
    mailer = next(each for each in found.classes if each.klass == "Mailer")
    assert mailer.minutes == [(NOW - 53 * 60, 5, 0, 50.0), (NOW - 60, 8, 2, 600.0)]
    assert [mark.label for mark in found.marks] == ["v42"]


def test_what_runs_longest_beside_what_is_usual(say: Say, client: Client, look: redis.Redis) -> None:
    enter(look, "vm:1:a", {"default": capsule(9, "default")})
    wrapped = job("w", wrapped="RealOne", **{"class": "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper"})
    for n in range(6):
        row = {"queue": "default", "payload": job(f"j{n}").decode(), "run_at": int(NOW - 10 * n)}
        look.hset("vm:1:a:work", f"t{n}", json.dumps(row))
    row = {"queue": "default", "payload": wrapped.decode(), "run_at": int(NOW - 600)}
    look.hset("vm:1:a:work", "t9", json.dumps(row))
    usual = [Row(f"r{n}", "Plain", "default", 1, 1, 25_000_000, None, "done", None, None) for n in range(3)]
    for raw in run_log.pack({"vm:1:a/default.1": usual}):
        client.store.run(run_log.append(client.store.keys, "done", [raw], 1_000_000))
    found: Snapshot = say(Overview(client).read)
    assert [(run.klass, run.seconds) for run in found.longest] == [
        ("RealOne", 600.0),
        ("Plain", 50.0),
        ("Plain", 40.0),
        ("Plain", 30.0),
        ("Plain", 20.0),
    ]
    assert [run.share for run in found.longest] == [None, 2.0, 1.6, 1.2, 0.8]


def test_failures_by_their_cause(say: Say, client: Client, look: redis.Redis) -> None:
    for n in range(3):
        failed = job(f"j{n}", error_class="SMTPServerDisconnected", error_message=f"{n} is gone", failed_at=NOW - 60)
        look.zadd("dead" if n else "retry", {failed: NOW - n})
    found: Snapshot = say(Overview(client).read)
    [cause] = found.causes
    assert (cause.error_class, cause.dead, cause.retrying) == ("SMTPServerDisconnected", 2, 1)


def test_the_server_tells_about_itself(say: Say, client: Client, look: redis.Redis, server: Server) -> None:
    facts = say(Overview(client).server)
    info = look.info()
    assert facts.store == ("Valkey" if "valkey_version" in info else "Redis")
    assert facts.version == info.get("valkey_version", info["redis_version"])
    assert facts.redis_version == info["redis_version"]
    assert facts.connections >= 1
    assert facts.peak >= facts.memory > 100_000
    assert (facts.limit, facts.policy) == (info["maxmemory"], info["maxmemory_policy"])


def test_a_server_that_does_not_tell(
    say: Say, new_client: NewClient, look: redis.Redis, server: Server, request: pytest.FixtureRequest
) -> None:
    look.execute_command("ACL", "SETUSER", "mute", "on", ">pw", "~*", "&*", "+@all", "-info")
    request.addfinalizer(lambda: look.execute_command("ACL", "DELUSER", "mute"))
    client = new_client(redis=server.tcp_url.replace("://", "://mute:pw@"))
    facts = say(Overview(client).server)
    assert (facts.store, facts.version, facts.memory, facts.limit, facts.policy) == ("", "", 0, 0, "")
    assert say(Overview(client).read).at == NOW


@pillion.job(name="OverviewHeld")
def held(what: str) -> None:
    """Does nothing."""


def test_a_living_worker_is_seen(server: Server) -> None:
    with harness(server, capsules=(Capsule(concurrency=3), Capsule(name="own", queues=(("reports", 0),)))) as bed:
        worker = bed.start()
        bed.push("OverviewHeld", "x")
        bed.settled(1)
        overview = Overview(bed.client)
        found = wait_until(
            lambda: (snapshot := overview.read()).classes and snapshot.processes and snapshot, what="a beat"
        )
        [process] = found.processes
        assert (process.identity, process.concurrency) == (worker.identity, 8)
        assert {queue.name: (queue.processes, queue.slots) for queue in found.queues} == {"default": (1, 3)}
        assert sum(minute.runs for minute in found.throughput) == 1

"""One worker, two independent servers: what is shared between their shards, and what is each one's own."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from pillion.config import Capsule
from pillion.errors import PartlyEnqueued, Unavailable
from pillion.events import StoreBack, StoreDown
from pillion.store import ops
from pillion.store.ops import Owner, Want
from pillion.worker.executor import Executor
from tests.servers import Server
from tests.shards.conftest import LEASE, Bed, NewBed
from tests.waiting import wait_until

HASTY = {"connect_timeout": 0.5, "timeout": 0.5}


@pytest.fixture
def bed(two_servers: dict[str, Server], new_bed: NewBed) -> Bed:
    return new_bed({name: server.url for name, server in two_servers.items()})


class Turnstile:
    """A job that tells that it runs, and goes on when it is let."""

    def __init__(self, bed: Bed) -> None:
        self.inside: list[str] = []
        self.passed: list[str] = []
        self.most = 0
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(0)
        bed.job(self.run, "ShardTurnstile")

    def run(self, name: str) -> None:
        with self._lock:
            self.inside.append(name)
            self.most = max(self.most, len(self.inside))
        assert self._turns.acquire(timeout=30)
        with self._lock:
            self.inside.remove(name)
            self.passed.append(name)

    def let(self, count: int) -> None:
        self._turns.release(count)


def number(server: Server, key: str) -> int:
    return int(server.client().get(key) or 0)


def test_jobs_of_all_shards_run_within_one_concurrency(two_servers: dict[str, Server], bed: Bed) -> None:
    gate = Turnstile(bed)
    for shard in bed.to:
        for _ in range(6):
            bed.push(shard, "ShardTurnstile", shard)
    worker = bed.start()
    wait_until(lambda: len(gate.inside) == 3, what="three jobs to run")
    wait_until(lambda: set(gate.inside) == {"a", "b"} or not gate.let(1), what="jobs of both shards side by side")
    gate.let(12)
    wait_until(lambda: len(gate.passed) == 12, what="all jobs")
    assert gate.most == 3
    assert sorted(gate.passed) == ["a"] * 6 + ["b"] * 6
    for name, server in two_servers.items():
        wait_until(lambda server=server: number(server, "stat:processed") == 6, what=f"the counters of {name}")
    worker.stop()
    assert [server.client().llen("queue:default") for server in two_servers.values()] == [0, 0]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_busy_shard_does_not_starve_the_other(
    two_servers: dict[str, Server], new_bed: NewBed, concurrency: int
) -> None:
    urls = {name: server.url for name, server in two_servers.items()}
    bed = new_bed(urls, capsules=(Capsule(concurrency=concurrency),))
    gate = Turnstile(bed)
    bed.to["a"].push_bulk({"class": "ShardTurnstile", "args": [["a"]] * 300})
    bed.start()
    wait_until(lambda: len(gate.inside) == concurrency, what="a to fill the capsule")
    bed.push("b", "ShardTurnstile", "b")
    for count in range(1, 60):
        gate.let(1)
        wait_until(lambda count=count: len(gate.passed) >= count, what="a job to pass")
        if "b" in gate.passed:
            break
    assert "b" in gate.passed, "a job of b waited for sixty of a"
    gate.let(300)
    wait_until(lambda: len(gate.passed) == 301, what="the rest")


def test_stopping_gives_every_job_back_to_its_own_shard(two_servers: dict[str, Server], bed: Bed) -> None:
    gate = Turnstile(bed)
    mine = {shard: {bed.push(shard, "ShardTurnstile", shard) for _ in range(2)} for shard in bed.to}
    worker = bed.start()
    wait_until(lambda: len(gate.inside) == 3, what="three jobs to run")
    worker.quiet()
    for shard in bed.to:
        mine[shard].add(bed.push(shard, "ShardTurnstile", shard))
    threading.Timer(0.2, gate.let, [6]).start()  # Shutdown reaches a thread when it comes back from waiting
    worker.stop(timeout=0)
    for name, server in two_servers.items():
        waiting = {json.loads(raw)["jid"] for raw in server.client().lrange("queue:default", 0, -1)}
        assert waiting == mine[name]
        assert server.client().zcard("pillion:lease") == server.client().scard("processes") == 0


def test_each_shard_shows_the_process_and_what_it_runs_from_there(two_servers: dict[str, Server], bed: Bed) -> None:
    gate = Turnstile(bed)
    jids = {shard: bed.push(shard, "ShardTurnstile", shard) for shard in bed.to}
    worker = bed.start()
    identity = worker.identity
    for name, server in two_servers.items():
        client = server.client()
        assert wait_until(lambda client=client: client.smembers("processes")) == {identity.encode()}
        wait_until(lambda client=client: client.hget(identity, "busy") == b"1", what=f"the row at {name}")
        (row,) = client.hvals(f"{identity}:work")
        assert json.loads(json.loads(row)["payload"])["jid"] == jids[name]
        owners = [owner.decode() for owner in client.zrange("pillion:lease", 0, -1)]
        assert [owner.rpartition(".")[0] for owner in owners] == [f"{identity}/default@{name}"]
    gate.let(2)


def test_what_fails_or_is_due_later_stays_on_its_shard(two_servers: dict[str, Server], bed: Bed) -> None:
    ran: list[str] = []

    def perform(name: str) -> None:
        ran.append(name)
        if ran.count(name) == 1:
            raise ValueError(name)

    bed.job(perform, "ShardFails")
    bed.push("b", "ShardFails", "now")
    bed.push("b", "ShardFails", "later", at=bed.setup.config.clock.now() + 0.3)
    bed.start()
    ours, others = two_servers["b"].client(), two_servers["a"].client()
    wait_until(lambda: ours.zcard("retry") == 2, what="both to fail once")
    for member in ours.zrange("retry", 0, -1):
        ours.zadd("retry", {member: 1})
    wait_until(lambda: sorted(ran) == ["later", "later", "now", "now"], what="both retries")
    wait_until(lambda: number(two_servers["b"], "stat:processed") == 4)
    assert number(two_servers["b"], "stat:failed") == 2
    assert not others.exists("retry", "schedule", "queue:default", "stat:processed")


def test_the_dead_are_rescued_at_every_shard(two_servers: dict[str, Server], bed: Bed) -> None:
    ran: list[str] = []
    bed.job(ran.append, "ShardRescued")
    for shard in bed.setup.shards:
        bed.push(shard.name, "ShardRescued", shard.name)
        store = shard.store
        assert store.run(ops.join(store.keys, "gone.1", 200, 1))
        want = Want(1, 1, (("default", 1),))
        step = ops.step(store.keys, Owner("gone.1"), 200, [], want, dead_max=9, dead_timeout=9.0, wake=False)
        assert len(store.run(step).claims) == 1  # type: ignore[union-attr]
        assert two_servers[shard.name].client().llen("queue:default") == 0
    bed.start()
    wait_until(lambda: sorted(ran) == ["a", "b"], timeout=10 * LEASE, what="both jobs of the dead owners")


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_shard_that_is_away_holds_up_none_of_the_others(
    two_servers: dict[str, Server], new_bed: NewBed, how: str
) -> None:
    bed = new_bed({name: {"url": server.url, **HASTY} for name, server in two_servers.items()})
    ran: list[str] = []
    down, back = threading.Event(), threading.Event()
    bed.job(ran.append, "ShardAway")
    bed.setup.events.subscribe(StoreDown, lambda _: down.set())
    bed.setup.events.subscribe(StoreBack, lambda _: back.set())
    worker = bed.start()
    away = two_servers["b"]
    before = bed.push("b", "ShardAway", "b")
    wait_until(lambda: ran == ["b"], what=f"{before} to run")
    away.kill() if how == "killed" else away.pause()
    assert down.wait(10)
    asked = note_asks(worker.stations[1].fetchers[0].executor)
    attempts = attempts_of(worker)
    for round_ in range(3):  # each while another attempt to reach b is under way
        seen = attempts()
        wait_until(lambda seen=seen: attempts() != seen, what="an attempt to end")
        for _ in range(5):
            bed.push("a", "ShardAway", f"a{round_}")
        wait_until(lambda round_=round_: ran.count(f"a{round_}") == 5, what="the jobs of a")
    assert asked == []
    assert not back.is_set()
    away.restart() if how == "killed" else away.resume()
    assert back.wait(20)
    bed.push("b", "ShardAway", "b")
    wait_until(lambda: ran.count("b") == 2, what="b to go on")


def test_nobody_waits_for_the_suspect_of_a_shard_that_is_away(two_servers: dict[str, Server], new_bed: NewBed) -> None:
    bed = new_bed({name: {"url": server.url, **HASTY} for name, server in two_servers.items()})
    gate = Turnstile(bed)
    worker = bed.start()
    bed.push("a", "ShardTurnstile", "long")
    wait_until(lambda: gate.inside == ["long"], what="a job to run, beside which no suspect may start")
    jid = "5" * 24
    two_servers["b"].client().zadd("pillion:suspects", {jid: 4_000_000_000})
    bed.to["b"].push({"class": "ShardTurnstile", "args": ["suspect"], "jid": jid})
    ours = worker.stations[0].fetchers[0]
    wait_until(lambda: ours._suspects.shut_out, what="the suspect of b to have the gate")
    two_servers["b"].kill()
    bed.push("a", "ShardTurnstile", "next")
    wait_until(lambda: gate.inside == ["long", "next"], timeout=5, what="a to go on")
    two_servers["b"].restart()
    gate.let(3)
    wait_until(lambda: len(gate.passed) == 3, what="the suspect to run after all")


def note_asks(executor: Executor) -> list[Executor]:
    """Every time this executor reserves room from now on."""
    asked: list[Executor] = []
    hands: Any = executor.hands
    ask = hands.ask

    def noting(who: Executor, ahead: int) -> int:
        if who is executor:
            asked.append(who)
        return int(ask(who, ahead))

    hands.ask = noting
    return asked


def attempts_of(worker: Any) -> Any:
    return lambda: worker.stations[1].fetchers[0].last_attempt


# --- pushing ----------------------------------------------------------------------------------------------------------


def test_a_bulk_push_goes_to_all_shards_in_one_round_trip_each(two_servers: dict[str, Server], bed: Bed) -> None:
    jids = bed.client.push_bulk({"class": "ShardBulk", "args": [[number] for number in range(200)]})
    found = {}
    for name, server in two_servers.items():
        found[name] = [json.loads(raw)["jid"] for raw in server.client().lrange("queue:default", 0, -1)]
        calls = server.info("commandstats")["cmdstat_lpush"]["calls"]
        assert calls == 1
        assert 50 < len(found[name]) < 150
    assert sorted(found["a"] + found["b"]) == sorted(jids)


@pytest.mark.parametrize("options", [{}, {"once": True}, {"durability": "replicated"}], ids=str)
def test_the_jobs_of_a_shard_that_is_down_are_told_and_the_others_are_in(
    two_servers: dict[str, Server], new_bed: NewBed, options: dict[str, Any]
) -> None:
    bed = new_bed({name: {"url": server.url, **HASTY} for name, server in two_servers.items()})
    two_servers["a"].kill()
    with pytest.raises(PartlyEnqueued) as caught:
        bed.client.push_bulk({"class": "ShardDown", "args": [[number] for number in range(40)]}, **options)
    there = [json.loads(raw)["jid"] for raw in two_servers["b"].client().lrange("queue:default", 0, -1)]
    assert sorted(caught.value.confirmed) == sorted(there)
    assert len(there) + len(caught.value.unsent) == 40
    assert 5 < len(there) < 35
    two_servers["b"].kill()
    with pytest.raises(Unavailable) as nobody:
        bed.client.push_bulk({"class": "ShardDown", "args": [[1], [2], [3], [4], [5], [6], [7], [8]]}, **options)
    assert nobody.value.__cause__ is not nobody.value
    assert "cannot reach Redis" in str(nobody.value)


def test_once_meets_its_first_on_the_same_shard(two_servers: dict[str, Server], bed: Bed) -> None:
    for number in range(10):
        for _ in range(2):
            bed.client.push({"class": "ShardOnce", "args": [], "jid": f"{number:024x}"}, once=True)
    assert sum(server.client().llen("queue:default") for server in two_servers.values()) == 10

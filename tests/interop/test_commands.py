"""The exact commands and keys, as the server sees them: a push, a schedule, a bulk push, a heartbeat, the counters.

What is expected here is Sidekiq 8.1's own, as recorded from it, and never computed by the code that is tested.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import pillion as package
from pillion import Client
from pillion.store.ops import command
from tests.interop.bare import Command, monitored
from tests.interop.sides import Pillion, app
from tests.servers import Server
from tests.waiting import wait_until

GOLDEN = Path(__file__).parents[1] / "golden"
PUSHED, AT = 1795347718.276, 1795347818.2780578
JID = "0475b259651ef5988f1bc7ee"

ROW = ["info", "concurrency", "busy", "beat", "rtt_us", "quiet", "rss"]
STAT_TTL, MINUTE_TTL, TEN_MINUTES_TTL, PROCESS_TTL = 157_680_000, 28_800, 259_200, 60


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes()[:-1]


class Clock:
    """Wall time stands at `time`; steady time goes on, and can be moved ahead."""

    def __init__(self, seconds: float) -> None:
        self.time = seconds
        self.ahead = 0.0

    def now(self) -> float:
        return self.time

    def steady(self) -> float:
        return time.monotonic() + self.ahead


def jids() -> Iterator[str]:
    """The jid of the recorded push, then others."""
    yield JID
    yield from (f"{n:024x}" for n in range(100))


@pytest.fixture
def ours(pillion: Pillion) -> Client:
    """A client at the time of the recorded samples, with a connection that has said its hello."""
    names = jids()
    client = pillion.client(clock=Clock(PUSHED), new_jid=lambda: next(names))
    client.setup.store.run(command("PING"))
    return client


# --- pushing ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("push.one", "keys.queues", "fields.queue", "fields.enqueued_at", "client.push")
def test_one_job_is_sadd_then_lpush(server: Server, ours: Client) -> None:
    with monitored(server) as heard:
        ours.push({"args": [1, "é/<>", None, 1.5, {"k": [True]}], "class": "OkJob"})
        assert heard() == [
            [b"SADD", b"queues", b"default"],
            [b"LPUSH", b"queue:default", golden("sidekiq-8.1-push")],
        ]


@pytest.mark.rule("push.later", "keys.schedule", "server.scores", "fields.at", "b9.20")
def test_one_job_for_later_is_zadd(server: Server, ours: Client) -> None:
    payload = golden("sidekiq-8.1-schedule").replace(b"37965df7cf20c624448f2c79", JID.encode())
    payload = payload.replace(b"1795347718278", b"1795347718276")
    with monitored(server) as heard:
        ours.push({"class": "OkJob", "args": [1], "at": AT})
        assert heard() == [[b"ZADD", b"schedule", b"1795347818.2780578", payload]]


@pytest.mark.rule("client.in", "fields.at", "b9.19")
@pytest.mark.parametrize("at", [PUSHED, PUSHED - 1, 0])
def test_what_is_due_already_is_pushed_at_once(at: float, server: Server, ours: Client) -> None:
    with monitored(server) as heard:
        ours.push({"class": "OkJob", "args": [1], "at": at})
        _, [*_, payload] = commands = heard()
    assert [words[0] for words in commands] == [b"SADD", b"LPUSH"]
    assert "at" not in json.loads(payload)


@pytest.mark.rule("push.bulk")
def test_a_bulk_push_is_one_sadd_and_one_lpush_per_batch(server: Server, ours: Client) -> None:
    with monitored(server) as heard:
        pushed = ours.push_bulk({"class": "OkJob", "args": [[n] for n in range(5)], "queue": "bulk", "batch_size": 2})
        commands = heard()
    assert [words[:2] for words in commands] == [[b"SADD", b"queues"], [b"LPUSH", b"queue:bulk"]] * 3
    jobs = [json.loads(word) for words in commands[1::2] for word in words[2:]]
    assert [len(words) - 2 for words in commands] == [1, 2, 1, 2, 1, 1]
    assert [(job["jid"], job["args"]) for job in jobs] == [(jid, [n]) for n, jid in enumerate(pushed)]  # type: ignore[arg-type]
    assert all(job["created_at"] == job["enqueued_at"] == 1795347718276 for job in jobs)


@pytest.mark.rule("push.bulk-later", "fields.enqueued_at", "b9.20")
def test_a_bulk_push_for_later_is_one_zadd_with_many_members(server: Server, ours: Client) -> None:
    with monitored(server) as heard:
        ours.push_bulk({"class": "OkJob", "args": [[0], [1], [2]], "at": [AT, AT + 1, AT + 2]})
        [[verb, key, *pairs]] = heard()
    assert (verb, key, pairs[::2]) == (
        b"ZADD",
        b"schedule",
        [b"1795347818.2780578", b"1795347819.2780578", b"1795347820.2780578"],
    )
    assert [json.loads(member)["args"] for member in pairs[1::2]] == [[0], [1], [2]]
    assert not any(name in json.loads(member) for member in pairs[1::2] for name in ("at", "enqueued_at"))


@pytest.mark.rule("push.bulk-queues", "middleware.client", "b9.9")
def test_a_bulk_push_whose_middleware_picks_queues_is_one_lpush_per_queue(server: Server, ours: Client) -> None:
    def spread(job_class: object, job: dict[str, Any], queue: str, store: object) -> Iterator[None]:
        job["queue"] = "even" if job["args"][0] % 2 == 0 else "odd"
        yield

    ours.setup.client_middleware.add(spread)
    with monitored(server) as heard:
        ours.push_bulk({"class": "OkJob", "args": [[n] for n in range(4)]})
        sadd, even, odd = heard()
    assert sadd == [b"SADD", b"queues", b"even", b"odd"]
    assert (even[:2], [json.loads(word)["args"] for word in even[2:]]) == ([b"LPUSH", b"queue:even"], [[0], [2]])
    assert (odd[:2], [json.loads(word)["args"] for word in odd[2:]]) == ([b"LPUSH", b"queue:odd"], [[1], [3]])


# --- the heartbeat ----------------------------------------------------------------------------------------------------


def ttl(client: redis.Redis, key: str, limit: int) -> bool:
    """Whether a key expires, and was told to within the last few seconds."""
    return limit - 10 < client.ttl(key) <= limit


@pytest.mark.rule(
    "keys.processes",
    "keys.process",
    "keys.work",
    "keys.workers",
    "process.identity",
    "process.thread",
    "process.work",
    "process.fields",
    "process.info",
    "process.info-old",
    "process.entry",
    "time.scores",
    "b9.54",
)
@pytest.mark.parametrize("wire", ["8", "7", "6"])
def test_a_working_process_is_seen_in_three_keys(wire: str, pillion: Pillion, client: redis.Redis) -> None:
    worker = pillion.work("critical,3", "default,1", wire=wire, heartbeat=0.05, tag="app", concurrency=2)
    identity = worker.identity
    assert re.fullmatch(re.escape(f"{socket.gethostname()}:{os.getpid()}:") + "[0-9a-f]{12}", identity)
    jid = app.Held.set(client=Client(setup=worker.setup)).perform_async("held")
    wait_until(lambda: client.hget(identity, "busy") == b"1", what="the job in the row")

    assert client.smembers("processes") == {identity.encode()}
    assert client.ttl("processes") == -1
    row = {name.decode(): value.decode() for name, value in client.hgetall(identity).items()}
    assert ttl(client, identity, PROCESS_TTL)
    assert sorted(row) == sorted(ROW)
    assert (row["concurrency"], row["busy"], row["quiet"]) == ("2", "1", "false")
    assert re.fullmatch(r"\d{10}\.\d+", row["beat"])
    assert re.fullmatch(r"\d+", row["rtt_us"])
    assert int(row["rss"]) > 1_000
    assert_info(json.loads(row["info"]), identity)

    works = [f"{identity}:work", f"{identity}:workers"] if wire == "6" else [f"{identity}:work"]
    assert sorted(client.keys(f"{identity}:*")) == sorted(name.encode() for name in works)
    raw = client.lindex(next(iter(client.scan_iter("pillion:inf:*", _type="list"))), 0)
    for key in works:
        assert ttl(client, key, PROCESS_TTL)
        [(thread, entry)] = client.hgetall(key).items()
        assert re.fullmatch(rb"[0-9a-z]+", thread)
        assert list(json.loads(entry)) == ["queue", "payload", "run_at"]
        assert json.loads(entry)["queue"] == "default"
        assert json.loads(entry)["payload"].encode() == raw
        assert json.loads(raw)["jid"] == jid
        assert type(json.loads(entry)["run_at"]) is int
        assert abs(json.loads(entry)["run_at"] - time.time()) < 30
    client.lpush("release", "now")
    wait_until(lambda: not client.exists(*works), what="the work to be taken down")
    assert worker.stop(5) == []
    assert client.exists("processes", identity, *works) == 0


def assert_info(info: dict[str, Any], identity: str) -> None:
    """The `info` field has what Sidekiq 8.1 writes, plus the `concurrency` that 6 and 7 read there."""
    started_at = info.pop("started_at")
    assert type(started_at) is float
    assert abs(started_at - time.time()) < 30
    assert info == {
        "hostname": socket.gethostname(),
        "pid": os.getpid(),
        "tag": "app",
        "concurrency": 2,
        "capsules": {
            "default": {"concurrency": 2, "mode": "weighted", "weights": {"critical": 3, "default": 1}},
        },
        "queues": ["critical", "default"],
        "weights": [{"critical": 3, "default": 1}],
        "labels": [],
        "identity": identity,
        "version": package.__version__,
        "embedded": True,
    }


@pytest.mark.rule("keys.signals", "process.row", "process.work", "process.fields")
def test_a_beat_is_sidekiqs_commands(server: Server, pillion: Pillion, client: redis.Redis) -> None:
    """Of an idle worker: take the work down, PING, then the row; with SCARD for the size of the fleet."""
    worker = pillion.work("default", heartbeat=0.05)
    identity = worker.identity.encode()
    wait_until(lambda: client.exists(identity), what="the first beat")
    with monitored(server) as heard:
        seen: list[Command] = []
        wait_until(lambda: sum(words == [b"PING"] for words in seen.extend(heard()) or seen) >= 3, what="two beats")
    beat = [words for words in seen if words == [b"PING"] or any(identity in word for word in words)]
    beat = [words for words in beat if words[0] not in (b"EVALSHA", b"EVAL") and b"pillion:" not in b" ".join(words)]
    start = beat.index([b"PING"])
    shown = beat[start : start + 7]
    assert [words[:2] if words[0] == b"HSET" else words for words in shown] == [
        [b"PING"],
        [b"UNLINK", identity + b":work"],
        [b"SADD", b"processes", identity],
        [b"EXISTS", identity],
        [b"HSET", identity],
        [b"EXPIRE", identity, b"60"],
        [b"RPOP", identity + b"-signals"],
    ]
    assert [name.decode() for name in shown[4][2::2]] == ROW


# --- counters ---------------------------------------------------------------------------------------------------------

NOON = 1795347748.0  # 2026-11-22 11:42:28 UTC


@pytest.mark.rule(
    "keys.stat",
    "keys.minutes",
    "keys.histogram",
    "process.stats",
    "metrics.done",
    "metrics.failed",
    "metrics.flush",
    "metrics.order",
)
def test_counters_and_metrics_have_sidekiqs_commands_keys_and_ttls(
    server: Server, pillion: Pillion, client: redis.Redis
) -> None:
    """They are counted in memory until the next beat; here that is the last one, at the end."""
    clock = Clock(NOON)

    def slowly(job: object, payload: dict[str, Any], queue: str) -> Iterator[None]:
        yield
        clock.ahead += 6

    worker = pillion.work("default", around=slowly, clock=clock, heartbeat=30, concurrency=1)
    wait_until(lambda: client.exists(worker.identity), what="the first beat")
    ours = Client(setup=worker.setup)
    for _ in range(2):
        app.HardWorker.set(client=ours).perform_async("bob", 5)
    app.Flaky.set(client=ours, retry=0).perform_async("python")
    wait_until(lambda: client.zcard("dead"), what="three jobs")
    assert client.keys("stat:*") == []
    with monitored(server) as heard:
        assert worker.stop(5) == []
        flushed = [words for words in heard() if COUNTER.match(b" ".join(words[1:2]))]
    assert [re.sub(rb"12\d\d\d", b"12xxx", b" ".join(words)).decode() for words in flushed] == FLUSHED.splitlines()

    totals = {"stat:processed": b"3", "stat:failed": b"1"}
    assert counters(client) == {
        **{key: (count, -1) for key, count in totals.items()},
        **{f"{key}:2026-11-22": (count, STAT_TTL) for key, count in totals.items()},
        "j|261122|11:42": (METRICS, MINUTE_TTL),
        "j|261122|11:4": (METRICS, TEN_MINUTES_TTL),
        "h|HardWorker-22-11:42": ([0] * 15 + [2] + [0] * 10, MINUTE_TTL),
    }


COUNTER = re.compile(rb"(stat:|j\||h\|)")
FLUSHED = """\
INCRBY stat:processed 3
INCRBY stat:processed:2026-11-22 3
EXPIRE stat:processed:2026-11-22 157680000
INCRBY stat:failed 1
INCRBY stat:failed:2026-11-22 1
EXPIRE stat:failed:2026-11-22 157680000
BITFIELD h|HardWorker-22-11:42 OVERFLOW SAT INCRBY u16 #15 2
EXPIRE h|HardWorker-22-11:42 28800
HINCRBY j|261122|11:4 HardWorker|p 2
HINCRBY j|261122|11:4 HardWorker|ms 12xxx
HINCRBY j|261122|11:4 Flaky|p 1
HINCRBY j|261122|11:4 Flaky|f 1
EXPIRE j|261122|11:4 259200
HINCRBY j|261122|11:42 HardWorker|p 2
HINCRBY j|261122|11:42 HardWorker|ms 12xxx
HINCRBY j|261122|11:42 Flaky|p 1
HINCRBY j|261122|11:42 Flaky|f 1
EXPIRE j|261122|11:42 28800
"""
METRICS = {b"HardWorker|p": 2, b"HardWorker|ms": 12, b"Flaky|p": 1, b"Flaky|f": 1}


def counters(client: redis.Redis) -> dict[str, tuple[Any, int]]:
    """Every key of the counters with its value (times in whole seconds) and the TTL that it was given, or -1."""
    found = {}
    for key in (key.decode() for pattern in ("stat:*", "j|*", "h|*") for key in client.keys(pattern)):
        limits = (STAT_TTL, TEN_MINUTES_TTL, MINUTE_TTL)
        given = [limit for limit in limits if limit - 30 < client.ttl(key) <= limit]
        found[key] = (VALUE[key[0]](client, key), given[0] if given else client.ttl(key))
    return found


def metrics(client: redis.Redis, key: str) -> dict[bytes, int]:
    return {name: int(n) // (1000 if name.endswith(b"|ms") else 1) for name, n in client.hgetall(key).items()}


def histogram(client: redis.Redis, key: str) -> list[int]:
    """All 26 slots, and that there is no 27th."""
    assert client.strlen(key) <= 26 * 2
    reads = [word for slot in range(26) for word in ("GET", "u16", f"#{slot}")]
    return list(client.execute_command("BITFIELD_RO", key, *reads))


VALUE = {"s": lambda client, key: client.get(key), "j": metrics, "h": histogram}

"""A client in another language that knows nothing but the wire: its own key order, float times, SADD, LPUSH, ZADD.

It stands for a client for mruby that keeps one connection over many requests of a web server.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from pillion import Client
from tests.interop.bare import Bare
from tests.interop.sides import Pillion, app, ledger, make_due, wait_for_member, wait_for_runs
from tests.waiting import wait_until

GOLDEN = (Path(__file__).parents[1] / "golden" / "mruby-push.json").read_bytes()[:-1]
SCHEDULED = GOLDEN[: GOLDEN.index(b',"enqueued_at"')] + b"}"
JID = "5f0e1d2c3b4a59687786a5b4"
ENQUEUED_AT = re.compile(rb'"enqueued_at":[\d.]+')

Run = tuple[str, str, list[Any]]


def runs(client: redis.Redis, count: int) -> list[Run]:
    """(class, jid, arguments) of each run, once there are so many."""
    return [(run["class"], run["jid"], run["args"]) for run in wait_for_runs(client, count)]


def test_the_golden_payload_has_the_clients_key_order() -> None:
    order = ["class", "args", "retry", "queue", "jid", "created_at"]
    assert list(json.loads(GOLDEN)) == [*order, "enqueued_at"]
    assert list(json.loads(SCHEDULED)) == order
    assert type(json.loads(GOLDEN)["created_at"]) is float


@pytest.mark.rule("fields.least", "keys.queue")
def test_what_it_pushes_is_run(bare: Bare, pillion: Pillion, client: redis.Redis) -> None:
    pillion.work("default")
    assert bare.call("SADD", "queues", "default") == 1
    assert bare.call("LPUSH", "queue:default", GOLDEN) == 1
    assert runs(client, 1) == [("HardWorker", JID, ["bob", 5])]
    wait_until(lambda: bare.call("KEYS", "queue:*") == [], what="the queue to be gone")


def test_it_pushes_over_one_connection_while_jobs_run(bare: Bare, pillion: Pillion, client: redis.Redis) -> None:
    worker = pillion.work("default", concurrency=1)
    me = bare.call("CLIENT", "ID")
    for request in range(50):
        bare.call("SADD", "queues", "default")
        payload = GOLDEN.replace(b'["bob",5]', b'["bob",%d]' % request).replace(JID.encode(), b"%024x" % request)
        bare.call("LPUSH", "queue:default", payload)
    assert runs(client, 50) == [("HardWorker", f"{n:024x}", ["bob", n]) for n in range(50)]
    assert bare.call("CLIENT", "ID") == me
    assert worker.stop(5) == []
    assert [key for key in bare.call("KEYS", "*pillion:*") if not key.startswith(b"pillion:runs")] == []


def test_it_schedules_by_hand_and_pillion_promotes(bare: Bare, pillion: Pillion, client: redis.Redis) -> None:
    pillion.work("default")
    assert bare.call("ZADD", "schedule", repr(time.time() + 300), SCHEDULED) == 1
    due = SCHEDULED.replace(JID.encode(), b"000000000000000000000001")
    assert bare.call("ZADD", "schedule", repr(time.time() - 0.5), due) == 1
    assert runs(client, 1) == [("HardWorker", "000000000000000000000001", ["bob", 5])]
    assert bare.call("ZRANGE", "schedule", "0", "-1") == [SCHEDULED]

    make_due(client, "schedule")
    assert runs(client, 2)[1] == ("HardWorker", JID, ["bob", 5])
    assert bare.call("SMEMBERS", "queues") == [b"default"]


@pytest.mark.rule("fields.enqueued_at", "fields.unknown", "move.poll-push")
@pytest.mark.parametrize("wire", ["8", "7", "6"])
def test_promotion_adds_the_time_and_leaves_every_other_byte(
    wire: str, bare: Bare, pillion: Pillion, client: redis.Redis
) -> None:
    odd = (
        SCHEDULED.replace(b"default", b"unserved")[:-1]
        + rb',"odd":{"a":1.0e+20,"b":[12345678901234567890,"\u00e9\/"]}}'
    )
    pillion.work("default", wire=wire)
    bare.call("ZADD", "schedule", repr(time.time()), odd)
    wait_until(lambda: bare.call("LLEN", "queue:unserved"), what="the job to be promoted")
    [promoted] = bare.call("LRANGE", "queue:unserved", "0", "-1")
    assert ENQUEUED_AT.sub(b'"enqueued_at":0', promoted) == odd[:-1] + b',"enqueued_at":0}'
    assert type(json.loads(promoted)["enqueued_at"]) is (int if wire == "8" else float)


FAILING = GOLDEN.replace(b'"HardWorker","args":["bob",5]', b'"Flaky","args":["python",1.0e+20,"\\u00e9\\/"]')


@pytest.mark.rule("fields.unknown", "fields.failed_at")
@pytest.mark.parametrize("wire", ["8", "7", "6"])
def test_what_fails_is_retried_and_keeps_its_other_bytes(
    wire: str, bare: Bare, pillion: Pillion, client: redis.Redis
) -> None:
    pillion.work("default", wire=wire)
    bare.call("LPUSH", "queue:default", FAILING)
    first, _ = wait_for_member(client, "retry")
    assert first.startswith(FAILING[:-1] + b',"error_message":"python said no","error_class":"ValueError","failed_at":')
    assert json.loads(first)["retry_count"] == 0

    make_due(client, "retry")
    wait_for_runs(client, 2)
    second, _ = wait_for_member(client, "retry")
    before, after = fields(first), fields(second)
    assert json.loads(second)["retry_count"] == 1
    assert list(after) == [*before, "retried_at"]
    assert {name for name in before if before[name] != after[name]} == {"enqueued_at", "retry_count"}

    healed = second.replace(b'["python",', b'["nobody",')
    client.zrem("retry", second)
    bare.call("LPUSH", "queue:default", healed)
    assert runs(client, 3)[2] == ("Flaky", JID, ["nobody", 1e20, "é/"])
    wait_until(lambda: client.keys("retry") == client.keys("queue:*") == [], what="the job to be done")


def fields(raw: bytes) -> dict[str, bytes]:
    """The exact bytes of each field."""
    return {name: bytes(value) for name, value in msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).items()}


def test_the_same_job_pushed_from_python(bare: Bare, pillion: Pillion, client: redis.Redis) -> None:
    """`HardWorker.perform_async('bob', 5)` writes what the foreign client does, but for the key order."""
    worker = pillion.work("default", wire="7")
    hard_worker = app.HardWorker.set(client=Client(setup=worker.setup))
    jid = hard_worker.perform_async("bob", 5)
    assert runs(client, 1) == [("HardWorker", jid, ["bob", 5])]
    assert worker.stop(5) == []

    hard_worker.perform_async("bob", 5)
    [ours] = bare.call("LRANGE", "queue:default", "0", "-1")
    shape = {name: type(value) for name, value in json.loads(GOLDEN).items()}
    assert {name: type(value) for name, value in json.loads(ours).items()} == shape
    same = ("class", "args", "retry", "queue")
    assert {name: fields(ours)[name] for name in same} == {name: fields(GOLDEN)[name] for name in same}


@pytest.mark.rule("keys.queues", "fields.at")
def test_a_job_for_in_five_minutes_runs_in_five_minutes(bare: Bare, pillion: Pillion, client: redis.Redis) -> None:
    """One client pushed 200 seconds ago by its clock, the other 301: only the job of the latter is due by now."""
    waiting = app.HardWorker.set(client=pillion.client(clock=Behind(200))).perform_in(300, "not yet", 1)
    jid = app.HardWorker.set(client=pillion.client(clock=Behind(301))).perform_in(300, "bob", 5)
    scores = dict(zip(*[iter(bare.call("ZRANGE", "schedule", "0", "-1", "WITHSCORES"))] * 2, strict=True))
    assert {json.loads(member)["jid"] for member in scores} == {waiting, jid}
    assert all("at" not in json.loads(member) and "enqueued_at" not in json.loads(member) for member in scores)
    assert bare.call("EXISTS", "queues") == 0

    worker = pillion.work("default")
    assert runs(client, 1) == [("HardWorker", jid, ["bob", 5])]
    assert len(ledger(client)) == 1
    make_due(client, "schedule")
    assert runs(client, 2)[1] == ("HardWorker", waiting, ["not yet", 1])
    assert worker.stop(5) == []


class Behind:
    """A clock that is so many seconds behind."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self) -> float:
        return time.time() - self._seconds

    def steady(self) -> float:
        return time.monotonic()

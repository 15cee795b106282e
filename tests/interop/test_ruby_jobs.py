"""Ruby's Sidekiq and Pillion on one Redis: each runs, retries and promotes what the other pushed, and each job once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
import pytest
import redis

from pillion import Client
from pillion.payload import read_time
from pillion.retry import unpack_backtrace
from tests.interop.sides import Console, Pillion, Sidekiq, app, ledger, make_due, wait_for_member, wait_for_runs
from tests.waiting import wait_until

ROWS = [["bulk", n] for n in range(20)]
ARGS = ["é/<>😀", 2**53]
WIRES = pytest.mark.parametrize("wire", ["8", "7", "6"])


def runs(client: redis.Redis, count: int) -> list[tuple[str, str, list[Any]]]:
    """(side, jid, arguments) of each run, once there are so many."""
    return [(run["side"], run["jid"], run["args"]) for run in wait_for_runs(client, count)]


# --- now, later, in bulk ----------------------------------------------------------------------------------------------


def test_ruby_pushes_and_pillion_runs(console: Console, pillion: Pillion, client: redis.Redis) -> None:
    jid = console("HardWorker.set('queue' => 'python').perform_async(*args)", *ARGS)
    pillion.work("python")
    assert runs(client, 1) == [("python", jid, ARGS)]


def test_ruby_pushes_for_later_and_pillion_runs(console: Console, pillion: Pillion, client: redis.Redis) -> None:
    pillion.work("python")
    jid = console("HardWorker.set('queue' => 'python').perform_in(300, *args)", *ARGS)
    assert ledger(client) == []
    make_due(client, "schedule")
    assert runs(client, 1) == [("python", jid, ARGS)]


def test_ruby_pushes_in_bulk_and_pillion_runs(console: Console, pillion: Pillion, client: redis.Redis) -> None:
    jids = console("Sidekiq::Client.push_bulk('class' => 'HardWorker', 'queue' => 'python', 'args' => args)", *ROWS)
    pillion.work("python", concurrency=1)
    assert runs(client, 20) == [("python", jid, row) for jid, row in zip(jids, ROWS, strict=True)]


@pytest.mark.rule("time.mixed")
@WIRES
def test_pillion_pushes_and_ruby_runs(wire: str, sidekiq: Sidekiq, pillion: Pillion, client: redis.Redis) -> None:
    job = app.HardWorker.set(queue="ruby", client=pillion.client(wire=wire))
    assert runs_of_ruby(client, [(job.perform_async("é/<>😀", 2**53), ARGS)])


@WIRES
def test_pillion_pushes_for_later_and_ruby_runs(
    wire: str, sidekiq: Sidekiq, pillion: Pillion, client: redis.Redis
) -> None:
    job = app.HardWorker.set(queue="ruby", client=pillion.client(wire=wire))
    jid = job.perform_in(300, "later", 1)
    assert ledger(client) == []
    make_due(client, "schedule")
    assert runs_of_ruby(client, [(jid, ["later", 1])])


@WIRES
def test_pillion_pushes_in_bulk_and_ruby_runs(
    wire: str, sidekiq: Sidekiq, pillion: Pillion, client: redis.Redis
) -> None:
    jids = app.HardWorker.set(queue="ruby", client=pillion.client(wire=wire)).perform_bulk(ROWS)
    assert runs_of_ruby(client, list(zip(jids, ROWS, strict=True)))


def runs_of_ruby(client: redis.Redis, expected: list[tuple[Any, list[Any]]]) -> bool:
    """Whether Ruby ran exactly these, in any order, as it has two threads."""
    found = {(side, jid): args for side, jid, args in runs(client, len(expected))}
    return found == {("ruby", jid): args for jid, args in expected}


# --- promoting --------------------------------------------------------------------------------------------------------


@WIRES
def test_rubys_poller_promotes_what_pillion_scheduled(
    wire: str, sidekiq: Sidekiq, pillion: Pillion, client: redis.Redis
) -> None:
    jid = app.HardWorker.set(queue="python", client=pillion.client(wire=wire)).perform_in(300, "later", 1)
    make_due(client, "schedule")
    wait_until(lambda: client.llen("queue:python"), what="Ruby to promote it")
    assert client.sismember("queues", "python")
    assert type(json.loads(client.lindex("queue:python", 0))["enqueued_at"]) is float
    pillion.work("python")
    assert runs(client, 1) == [("python", jid, ["later", 1])]


@pytest.mark.rule("move.poll-push", "server.exact")
@WIRES
def test_pillions_poller_promotes_what_ruby_scheduled(
    wire: str, sidekiq: Sidekiq, console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    jid = console("HardWorker.set('queue' => 'elsewhere').perform_in(300, 'later', 1)")
    [before] = client.zrange("schedule", 0, -1)
    with sidekiq.frozen():
        pillion.work("python", wire=wire)
        make_due(client, "schedule")
        wait_until(lambda: client.llen("queue:elsewhere"), what="Pillion to promote it")
    promoted = client.lindex("queue:elsewhere", 0)
    assert promoted.startswith(before[:-1] + b',"enqueued_at":')
    assert type(json.loads(promoted)["enqueued_at"]) is (int if wire == "8" else float)
    assert client.sismember("queues", "elsewhere")
    client.rename("queue:elsewhere", "queue:ruby")
    assert runs(client, 1) == [("ruby", jid, ["later", 1])]


# --- retrying ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("fields.retry_queue")
@WIRES
def test_pillion_retries_what_failed_in_ruby(
    wire: str, sidekiq: Sidekiq, console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    options = {"queue": "ruby", "retry_queue": "python", "customer": 1.0e20}
    jid = console("Flaky.set(args[0]).perform_async('ruby')", options)
    member, _ = wait_for_member(client, "retry")
    failed = json.loads(member)
    assert (failed["retry_count"], failed["queue"], failed["error_class"]) == (0, "python", "ArgumentError")
    assert unpack_backtrace(failed["error_backtrace"])[0].endswith("in `perform'")

    worker = pillion.work("python", wire=wire)
    make_due(client, "retry")
    assert runs(client, 2) == [("ruby", jid, ["ruby"]), ("python", jid, ["ruby"])]
    assert worker.stop(5) == []
    assert (client.zcard("retry"), client.zcard("dead"), client.llen("queue:python")) == (0, 0, 0)


@WIRES
def test_ruby_retries_what_failed_in_pillion(
    wire: str, sidekiq: Sidekiq, console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    worker = pillion.work("python", wire=wire)
    job = app.Flaky.set(queue="python", retry_queue="ruby", client=Client(setup=worker.setup))
    jid = job.perform_async("python")
    member, _ = wait_for_member(client, "retry")
    failed = json.loads(member)
    assert (failed["retry_count"], failed["queue"], failed["error_class"]) == (0, "ruby", "ValueError")
    assert console("Sidekiq::RetrySet.new.map { [_1.jid, _1['error_message']] }") == [[jid, "python said no"]]
    assert console("Sidekiq::RetrySet.new.first.error_backtrace.first").endswith(":in Flaky.perform")

    make_due(client, "retry")
    assert runs(client, 2) == [("python", jid, ["python"]), ("ruby", jid, ["python"])]
    wait_until(lambda: client.zcard("retry") == client.llen("queue:ruby") == 0, what="the job to be done")
    assert client.zcard("dead") == 0


@pytest.mark.rule("fields.failed_at", "retry.delay")
@WIRES
@pytest.mark.parametrize("first", ["ruby", "python"])
def test_a_job_that_fails_on_both_sides_counts_on_and_dies_where_its_retries_end(
    wire: str, first: str, sidekiq: Sidekiq, console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    """Three retries, each on the other side; the attempts are handed over as a poller does it, ahead of time."""
    worker = pillion.work("python", wire=wire)
    job = app.Flaky.set(queue=first, client=Client(setup=worker.setup))
    jid = job.perform_async("ruby", "python")
    pushed = "created_at", "args", "jid", "class", "retry", "backtrace"
    turns = ["ruby", "python", "ruby", "python"] if first == "ruby" else ["python", "ruby", "python", "ruby"]
    earlier: dict[str, Any] = {}
    for count, side in enumerate(turns):
        member, score = wait_for_member(client, "dead" if count == 3 else "retry")
        failed = json.loads(member)
        assert (failed["retry_count"], failed["queue"]) == (count, side)
        assert failed["error_message"] == f"{side} said no"
        assert failed["error_class"] == ("ArgumentError" if side == "ruby" else "ValueError")
        assert_later(failed, earlier, score, died=count == 3)
        assert {key: failed[key] for key in pushed} == {key: (earlier or failed)[key] for key in pushed}
        assert unpack_backtrace(failed["error_backtrace"])
        assert len(console("Sidekiq::JobSet.new(args[0]).first.error_backtrace", "dead" if count == 3 else "retry"))
        earlier = failed
        if count < 3:
            client.zrem("retry", member)
            client.lpush(f"queue:{turns[count + 1]}", member)
    assert runs(client, 4) == [(side, jid, ["ruby", "python"]) for side in turns]
    assert console("Sidekiq::DeadSet.new.map(&:jid)") == [jid]


def assert_later(failed: dict[str, Any], earlier: dict[str, Any], score: float, *, died: bool) -> None:
    """The times of a failure: the first one stays to the byte, the latest one moves on, the score follows it."""
    failed_at, retried_at = read_time(failed["failed_at"]), read_time(failed.get("retried_at"))
    assert failed_at is not None
    if not earlier:
        assert "retried_at" not in failed
    else:
        assert msgspec.json.encode(failed["failed_at"]) == msgspec.json.encode(earlier["failed_at"])
        assert retried_at is not None
        assert retried_at >= (read_time(earlier.get("retried_at")) or failed_at) - 0.001  # milliseconds are cut
    count, latest = failed["retry_count"], retried_at or failed_at
    wait = 0 if died else count**4 + 15
    assert wait <= score - latest + 0.01 <= wait + (1 if died else 10 * (count + 1) + 1)


# --- one queue --------------------------------------------------------------------------------------------------------


def test_both_consume_one_queue_and_each_job_runs_once(
    sidekiq: Sidekiq, console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    rows = [[n] for n in range(300)]
    worker = pillion.work("both")
    shared = app.Shared.set(queue="both", client=Client(setup=worker.setup))
    jids = shared.perform_bulk(rows[:75])
    jids += console("Sidekiq::Client.push_bulk('class' => 'Shared', 'queue' => 'both', 'args' => args)", *rows[75:225])
    jids += shared.perform_bulk(rows[225:])
    assert len(set(jids)) == 300

    wait_until(lambda: len({run["jid"] for run in ledger(client)}) == 300, timeout=30, what="300 jobs")
    assert worker.stop(10) == []
    assert client.llen("queue:both") == 0
    assert Counter(run["jid"] for run in ledger(client)) == Counter(jids)
    assert [run["args"] for run in sorted(ledger(client), key=lambda run: run["args"])] == rows
    assert {run["side"] for run in ledger(client)} == {"ruby", "python"}


def test_an_idle_ruby_is_served_before_an_idle_pillion(sidekiq: Sidekiq, pillion: Pillion, client: redis.Redis) -> None:
    """Its threads wait in BRPOP, which Redis serves at the push; we are told that there is something, and look."""
    worker = pillion.work("both")
    job = app.HardWorker.set(queue="both", client=Client(setup=worker.setup))
    for n in range(40):
        job.perform_async("one", n)
        wait_for_runs(client, n + 1)
    sides = Counter(run["side"] for run in ledger(client))
    assert sides["ruby"] > sides["python"]


@pytest.mark.rule("move.requeue")
def test_ruby_runs_what_pillion_had_to_give_back(sidekiq: Sidekiq, pillion: Pillion, client: redis.Redis) -> None:
    worker = pillion.work("python", wire="7")
    jid = app.Held.set(queue="python", client=Client(setup=worker.setup)).perform_async("held")
    wait_for_runs(client, 1)
    assert client.llen("queue:python") == 0
    assert worker.stop(0) == []
    client.rename("queue:python", "queue:ruby")
    assert runs(client, 2) == [("python", jid, ["held"]), ("ruby", jid, ["held"])]
    wait_until(lambda: client.llen("queue:ruby") == 0, what="Ruby to take it")
    assert (client.zcard("retry"), client.zcard("dead")) == (0, 0)

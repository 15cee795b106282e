"""Ruby's API at work on Pillion's jobs while our worker runs: each job runs or is taken away, never both or neither."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from pillion import Client
from tests.interop.sides import Console, Pillion, app, ledger, make_due, wait_for_member, wait_for_runs
from tests.waiting import wait_until

COUNT = 300
OPEN_GATE = "Sidekiq.redis { |redis| redis.lpush('begun', [1, 1]) }"


class Gate:
    """Server middleware that lets nothing through before Ruby has begun."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._open = False

    def __call__(self, job: object, payload: dict[str, Any], queue: str) -> Iterator[None]:
        if not self._open:
            assert self._client.blpop(["begun"], timeout=4), "Ruby did not begin"
            self._open = True
        yield


def ran(client: redis.Redis) -> Counter[str]:
    """How often each jid has run."""
    return Counter(run["jid"] for run in ledger(client))


def settle(client: redis.Redis, jids: list[str | None], gone: list[str]) -> None:
    """Wait until each job has run or is gone; then nothing has run twice, or although it was taken away."""
    wanted = set(jids) - set(gone)
    wait_until(lambda: wanted <= ran(client).keys(), timeout=20, what=f"the {len(wanted)} others to run")
    assert set(gone) <= set(jids)
    assert ran(client) == dict.fromkeys(wanted, 1)


# --- a queue that is being worked off ---------------------------------------------------------------------------------


def test_ruby_deletes_from_a_queue_that_we_work_off(console: Console, pillion: Pillion, client: redis.Redis) -> None:
    jids = app.HardWorker.set(client=pillion.client(wire="6"), queue="python").perform_bulk(
        [("x", n) for n in range(COUNT)]
    )
    pillion.work("python", around=Gate(client), wire="6")
    gone = console(
        "Sidekiq::Queue.new('python').each_with_index.map { |job, i| "
        f"{OPEN_GATE} if i == 5; [job.jid, job.delete] }}.select(&:last).map(&:first)"
    )
    settle(client, jids, gone)
    assert gone
    assert ran(client)
    assert client.llen("queue:python") == 0


def test_ruby_finds_a_job_that_waits_behind_one_that_runs(
    console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    worker = pillion.work("python", wire="6", concurrency=1)
    ours = Client(setup=worker.setup)
    running = app.Held.set(client=ours, queue="python").perform_async("held")
    wait_for_runs(client, 1)
    jids = app.HardWorker.set(client=ours, queue="python").perform_bulk([("waits", n) for n in range(3)])
    assert console("Sidekiq::Queue.new('python').find_job(args[0])", running) is None
    assert console("Sidekiq::Queue.new('python').find_job(args[0]).delete", jids[1]) is True
    assert console("Sidekiq::Queue.new('python').find_job(args[0])", jids[1]) is None
    client.lpush("release", "now")
    settle(client, [running, *jids], [str(jids[1])])


def test_ruby_clears_a_queue_under_a_running_job_and_it_goes_on(
    console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    worker = pillion.work("python", wire="6", concurrency=1)
    ours = Client(setup=worker.setup)
    running = app.Held.set(client=ours, queue="python").perform_async("held")
    wait_for_runs(client, 1)
    app.HardWorker.set(client=ours, queue="python").perform_bulk([("waits", n) for n in range(3)])
    console("Sidekiq::Queue.new('python').clear")
    assert console("Sidekiq::Queue.all.map(&:name)") == []
    assert console("Sidekiq::Queue.new('python').size") == 0
    client.lpush("release", "now")
    later = app.HardWorker.set(client=ours, queue="python").perform_async("later", 1)
    settle(client, [running, later], [])
    assert console("Sidekiq::Queue.all.map(&:name)") == ["python"]


# --- sets from which we promote ---------------------------------------------------------------------------------------


@pytest.mark.rule("move.poll", instead=True)
def test_ruby_deletes_what_is_due_while_we_promote_it(console: Console, pillion: Pillion, client: redis.Redis) -> None:
    ours = pillion.client(wire="6")
    jids = app.HardWorker.set(client=ours, queue="python").perform_bulk(
        [("x", n) for n in range(COUNT)], at=time.time() + 300
    )
    make_due(client, "schedule")
    first = console("Sidekiq::ScheduledSet.new.first(5).map { [_1.jid, _1.delete] }.select(&:last).map(&:first)")
    pillion.work("python", wire="6")
    gone = console("Sidekiq::ScheduledSet.new.map { [_1.jid, _1.delete] }.select(&:last).map(&:first)")
    settle(client, jids, [*first, *gone])
    assert len(first) == 5
    assert client.zcard("schedule") == 0


@pytest.fixture
def failures(pillion: Pillion, client: redis.Redis) -> list[str]:
    """The jids of three jobs that failed in Pillion; its worker runs on."""
    worker = pillion.work("python", wire="6")
    flaky = app.Flaky.set(client=Client(setup=worker.setup), queue="python")
    jids = [str(jid) for jid in flaky.perform_bulk([("python", str(n)) for n in range(3)])]
    wait_until(lambda: client.zcard("retry") == 3, what="three failures")
    return jids


def test_ruby_retries_all_and_we_fail_them_again(console: Console, pillion: Pillion, client: redis.Redis) -> None:
    """They fail into a queue that nobody serves yet: Ruby's `retry_all` goes on as long as it finds any."""
    ours = Client(setup=pillion.work("python", wire="6").setup)
    flaky = app.Flaky.set(client=ours, queue="python", retry_queue="second")
    jids = flaky.perform_bulk([("python", str(n)) for n in range(3)])
    wait_until(lambda: client.zcard("retry") == 3, what="three failures")
    console("Sidekiq::RetrySet.new.retry_all")
    assert (client.zcard("retry"), client.llen("queue:second")) == (0, 3)
    pillion.work("second", wire="6")
    wait_until(lambda: client.zcard("retry") == 3, what="three failures again")
    assert ran(client) == dict.fromkeys(jids, 2)
    assert {json.loads(raw)["retry_count"] for raw in client.zrange("retry", 0, -1)} == {0}


def test_ruby_kills_all_and_brings_one_back(failures: list[str], console: Console, client: redis.Redis) -> None:
    shown = sorted(console("Sidekiq::RetrySet.new.map { [_1.jid, _1.klass, _1['error_class'], _1.queue] }"))
    assert shown == sorted([jid, "Flaky", "ValueError", "python"] for jid in failures)
    console("Sidekiq::RetrySet.new.kill_all")
    assert (client.zcard("retry"), client.zcard("dead")) == (0, 3)
    console("Sidekiq::DeadSet.new.find_job(args[0]).retry", failures[1])
    wait_for_runs(client, 4)
    assert json.loads(wait_for_member(client, "retry")[0])["jid"] == failures[1]
    assert sorted(console("Sidekiq::DeadSet.new.map(&:jid)")) == sorted([failures[0], failures[2]])
    console("Sidekiq::DeadSet.new.clear")
    assert client.exists("dead") == 0


def test_ruby_picks_by_score_and_by_text(failures: list[str], console: Console, client: redis.Redis) -> None:
    """What its Web does: a job's page is found by score and jid, the filter by a piece of the JSON."""
    [score] = [score for raw, score in client.zrange("retry", 0, -1, withscores=True) if failures[0].encode() in raw]
    assert console("Sidekiq::RetrySet.new.fetch(args[0], args[1]).map(&:jid)", score, failures[0]) == [failures[0]]
    assert sorted(console("Sidekiq::RetrySet.new.scan('python said no').map(&:jid)")) == sorted(failures)
    assert console("Sidekiq::RetrySet.new.delete(args[0], args[1])", score, failures[0])
    assert sorted(console("Sidekiq::RetrySet.new.map(&:jid)")) == sorted(failures[1:])


@pytest.mark.rule("server.exact")
def test_ruby_reschedules_what_we_scheduled_and_we_run_it_once(
    console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    ours = pillion.client(wire="6")
    jid = app.HardWorker.set(client=ours, queue="python").perform_in(300, "é/<>", 2**60)
    before, _ = wait_for_member(client, "schedule")
    console("Sidekiq::ScheduledSet.new.find_job(args[0]).reschedule(args[1])", jid, time.time() + 900)
    after, score = wait_for_member(client, "schedule")
    assert after == before
    assert score == pytest.approx(time.time() + 900, abs=30)
    console("Sidekiq::ScheduledSet.new.find_job(args[0]).reschedule(args[1])", jid, time.time() - 1)
    pillion.work("python", wire="6")
    assert [(run["jid"], run["args"]) for run in wait_for_runs(client, 1)] == [(jid, ["é/<>", 2**60])]
    assert client.zcard("schedule") == 0


# --- what runs --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("process.entry", "keys.workers")
def test_workers_show_all_of_a_job_and_the_row_its_memory_and_beat(
    console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    worker = pillion.work("python", wire="6", heartbeat=0.1, tag="shop", labels=["eu", "fast"])
    before = time.time()
    jid = app.Held.set(client=Client(setup=worker.setup), queue="python", tags=["é"]).perform_async("<held>")
    wait_until(lambda: console("Sidekiq::Workers.new.size") == 1, what="our job to be seen")
    [[process, thread, work]] = console("Sidekiq::Workers.new.map { |process, thread, work| [process, thread, work] }")
    assert process == worker.identity
    assert thread
    payload = work["payload"]
    assert (work["queue"], payload["class"], payload["args"], payload["jid"]) == ("python", "Held", ["<held>"], jid)
    assert (payload["tags"], payload["retry"]) == (["é"], False)
    assert int(before) <= work["run_at"] <= time.time()

    row = console("Sidekiq::ProcessSet.new.first.then { [_1.tag, _1.labels, _1['busy'], _1['rss'], _1['beat']] }")
    assert row[:3] == ["shop", ["eu", "fast"], 1]
    assert row[3] == pytest.approx(console("Sidekiq::ProcessSet.new.total_rss_in_kb"), rel=0.2)
    assert row[3] > 10_000
    wait_until(lambda: console("Sidekiq::ProcessSet.new.first['beat']") > row[4], what="the next beat")
    client.lpush("release", "now")

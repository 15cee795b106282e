"""What Ruby's API, and so every Ruby dashboard, sees of Pillion and can do to it. Sidekiq 6.4 reads the wire "6"."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from pillion import Client, Worker
from pillion.payload import read_time
from tests.conftest import Ruby
from tests.interop.sides import (
    HERE,
    Console,
    Pillion,
    Sidekiq,
    app,
    make_due,
    wait_for_member,
    wait_for_runs,
)
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.cli import environment

ROW = "%w[hostname pid tag concurrency queues labels busy quiet identity]"
ROWS = f"Sidekiq::ProcessSet.new.map {{ |row| {ROW}.to_h {{ |name| [name, row[name]] }} }}"
JOB = "[_1.jid, _1.klass, _1.args, _1.queue, _1.tags, _1.created_at.to_f]"


# --- counts and queues ------------------------------------------------------------------------------------------------


@pytest.mark.rule("keys.stat", "metrics.flush")
def test_stats_count_what_pillion_did(console: Console, pillion: Pillion, client: redis.Redis) -> None:
    worker = pillion.work("default", wire="6", heartbeat=0.1)
    ours = Client(setup=worker.setup)
    app.Held.set(client=ours).perform_async("held")
    app.HardWorker.set(client=ours).perform_async("bob", 5)
    app.Flaky.set(client=ours).perform_async("python")
    app.Flaky.set(client=ours, retry=0).perform_async("python")
    app.HardWorker.set(client=ours).perform_in(300, "later", 1)
    app.HardWorker.set(client=ours, queue="unserved").perform_bulk([("waits", n) for n in range(3)])
    names = "processed failed scheduled_size retry_size dead_size processes_size workers_size enqueued"
    expected = [3, 2, 1, 1, 1, 1, 1, 3]

    def counts() -> Any:
        return console("Sidekiq::Stats.new.then { |all| args.map { all.public_send(_1) } }", *names.split())

    wait_until(lambda: counts() == expected, what=f"{names} to be {expected}")
    assert console("Sidekiq::Stats.new.queues") == {"unserved": 3, "default": 0}
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert console("Sidekiq::Stats::History.new(2).processed[args[0]]", today) == 3
    assert console("Sidekiq::Stats::History.new(2).failed[args[0]]", today) == 2
    client.lpush("release", "now")


@pytest.mark.rule("fields.tags", "keys.queue")
def test_queue_shows_jobs_oldest_last_with_their_latency(console: Console, pillion: Pillion) -> None:
    ours = pillion.client(wire="6")
    before = time.time()
    jids = [app.HardWorker.set(client=ours, tags=["é", "slow"]).perform_async("é/<>", n) for n in range(3)]
    shown = console(f"Sidekiq::Queue.new.map {{ {JOB} }}")
    assert [entry[:5] for entry in shown] == [
        [jid, "HardWorker", ["é/<>", n], "default", ["é", "slow"]] for n, jid in reversed(list(enumerate(jids)))
    ]
    assert all(before <= entry[5] <= time.time() for entry in shown)
    assert 0 <= console("Sidekiq::Queue.new.latency") <= time.time() - before
    assert 0 <= console("Sidekiq::Stats.new.default_queue_latency") <= time.time() - before
    assert console("Sidekiq::Queue.all.map(&:name)") == ["default"]


@pytest.mark.rule("server.exact")
def test_ruby_finds_and_deletes_a_queued_job(console: Console, pillion: Pillion, client: redis.Redis) -> None:
    ours = pillion.client(wire="6")
    jids = [app.HardWorker.set(client=ours).perform_async("é/<>\U0001f600", n) for n in range(3)]
    assert console("Sidekiq::Queue.new.find_job(args[0]).delete", jids[1]) is True
    assert console("Sidekiq::Queue.new.map(&:jid)") == [jids[2], jids[0]]
    console("Sidekiq::Queue.new.clear")
    assert client.keys("*") == []


# --- the three sets ---------------------------------------------------------------------------------------------------


@pytest.fixture
def failed(pillion: Pillion, client: redis.Redis) -> str:
    """The jid of a job that failed in Pillion and waits for its retry; no worker runs any more."""
    worker = pillion.work("default", wire="6")
    jid = app.Flaky.set(client=Client(setup=worker.setup), tags=["slow"]).perform_async("python")
    wait_for_member(client, "retry")
    assert worker.stop(5) == []
    assert jid is not None
    return jid


def test_retry_set_shows_the_failure(failed: str, console: Console, client: redis.Redis) -> None:
    member, score = wait_for_member(client, "retry")
    names = ["retry_count", "error_message", "error_class", "failed_at", "queue"]
    job = json.loads(member)
    [shown] = console(
        f"Sidekiq::RetrySet.new.map {{ {JOB} + [_1.at.to_f, _1.error?] + _1.item.values_at(*args) }}", *names
    )
    assert shown[:5] == [failed, "Flaky", ["python"], "default", ["slow"]]
    assert shown[6] == pytest.approx(score)
    assert shown[7:12] == [True, 0, "python said no", "ValueError", job["failed_at"]]
    assert abs(time.time() - job["failed_at"]) < 60


@pytest.mark.rule("backtrace.write", "backtrace.first")
def test_ruby_reads_our_backtrace(failed: str, console: Console) -> None:
    lines = console("Sidekiq::RetrySet.new.first.error_backtrace")
    line = next(n for n, text in enumerate((HERE / "app.py").read_text().splitlines(), 1) if "raise ValueError" in text)
    assert lines[0] == f"{HERE / 'app.py'}:{line}:in Flaky.perform"
    assert len(lines) <= 5


def test_ruby_retries_one_of_our_failures_now(
    failed: str, console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    console("Sidekiq::RetrySet.new.find_job(args[0]).retry", failed)
    assert client.zcard("retry") == 0
    job = json.loads(client.lindex("queue:default", 0))
    assert (job["jid"], job["retry_count"]) == (failed, -1)  # so that this attempt counts for none
    pillion.work("default", wire="6")
    again, _ = wait_for_member(client, "retry")
    assert json.loads(again)["retry_count"] == 0


@pytest.mark.rule("server.exact")
def test_ruby_reschedules_in_place(failed: str, console: Console, client: redis.Redis) -> None:
    """It finds the member by writing its JSON anew, so ours has to be what Ruby writes."""
    before, _ = wait_for_member(client, "retry")
    at = time.time() + 5_000
    console("Sidekiq::RetrySet.new.first.reschedule(args[0])", at)
    after, score = wait_for_member(client, "retry")
    assert after == before
    assert score == pytest.approx(at)


def test_ruby_kills_and_deletes(failed: str, console: Console, client: redis.Redis) -> None:
    before, _ = wait_for_member(client, "retry")
    console("Sidekiq::RetrySet.new.first.kill")
    assert client.zcard("retry") == 0
    assert client.zrange("dead", 0, -1) == [before]
    console("Sidekiq::DeadSet.new.first.delete")
    assert client.zcard("dead") == 0


def test_dead_set_shows_who_died_and_brings_it_back(console: Console, pillion: Pillion, client: redis.Redis) -> None:
    worker = pillion.work("default", wire="6")
    jid = app.Flaky.set(client=Client(setup=worker.setup), retry=0).perform_async("python")
    _, score = wait_for_member(client, "dead")
    [shown] = console(f"Sidekiq::DeadSet.new.map {{ {JOB} + [_1.at.to_f, _1['error_class']] }}")
    assert shown[:4] == [jid, "Flaky", ["python"], "default"]
    assert shown[6:] == [pytest.approx(score), "ValueError"]
    console("Sidekiq::DeadSet.new.retry_all")
    assert [run["jid"] for run in wait_for_runs(client, 2)] == [jid, jid]
    wait_for_member(client, "dead")


def test_scheduled_set_shows_and_pushes_at_once(console: Console, pillion: Pillion, client: redis.Redis) -> None:
    ours = pillion.client(wire="6")
    before = time.time()
    jid = app.HardWorker.set(client=ours).perform_in(300, "later", 1)
    other = app.HardWorker.set(client=ours).perform_in(600, "much later", 2)
    shown = console(f"Sidekiq::ScheduledSet.new.map {{ {JOB} + [_1.at.to_f, _1.enqueued_at] }}")
    assert sorted(entry[0] for entry in shown) == sorted([jid, other])
    [ours_shown] = [entry for entry in shown if entry[0] == jid]
    assert ours_shown[1:4] == ["HardWorker", ["later", 1], "default"]
    assert before + 300 <= ours_shown[6] <= time.time() + 300
    assert ours_shown[7] is None

    console("Sidekiq::ScheduledSet.new.find_job(args[0]).delete", other)
    console("Sidekiq::ScheduledSet.new.find_job(args[0]).add_to_queue", jid)
    assert client.zcard("schedule") == 0
    pillion.work("default")
    assert [run["jid"] for run in wait_for_runs(client, 1)] == [jid]


def test_pillion_runs_what_ruby_put_into_a_set_by_itself(
    console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    job = {"class": "HardWorker", "args": ["by hand", 1], "queue": "python", "jid": "b4a577edbccf1d805744efa9"}
    console("Sidekiq::ScheduledSet.new.schedule(args[0], args[1])", time.time() + 300, job)
    pillion.work("python")
    make_due(client, "schedule")
    assert wait_for_runs(client, 1)[0]["jid"] == job["jid"]


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("keys.process", "process.info-old")
def test_process_set_shows_our_row(console: Console, pillion: Pillion, client: redis.Redis) -> None:
    worker = pillion.work("critical", "default", wire="6", heartbeat=0.1, tag="shop", labels=["fast"], concurrency=3)
    app.Held.set(client=Client(setup=worker.setup)).perform_async("held")
    expected = {
        "hostname": socket.gethostname(),
        "pid": os.getpid(),
        "tag": "shop",
        "concurrency": 3,
        "queues": ["critical", "default"],
        "labels": ["fast"],
        "busy": 1,
        "quiet": "false",
        "identity": worker.identity,
    }
    wait_until(lambda: console(ROWS) == [expected], what="our row with one busy thread")
    assert console("Sidekiq::ProcessSet.new.total_concurrency") == 3
    assert console("Sidekiq::ProcessSet.new.total_rss_in_kb") > 1_000
    assert abs(console("Sidekiq::ProcessSet.new.first['beat']") - time.time()) < 5
    assert abs(console("Sidekiq::ProcessSet.new.first['started_at']") - time.time()) < 30

    worker.quiet()
    wait_until(lambda: console("Sidekiq::ProcessSet.new.first.stopping?"), what="our row to say quiet")
    client.lpush("release", "now")
    assert worker.stop(5) == []
    assert console("Sidekiq::ProcessSet.new.size") == 0


@pytest.mark.rule("keys.workers", "process.thread")
def test_workers_show_what_runs(console: Console, pillion: Pillion, client: redis.Redis) -> None:
    worker = pillion.work("default", wire="6", heartbeat=0.1)
    job = app.Held.set(client=Client(setup=worker.setup))
    jids = [job.perform_async("é"), job.perform_async("b")]
    wait_for_runs(client, 2)
    wait_until(lambda: console("Sidekiq::Workers.new.size") == 2, what="two busy threads")
    shown = console("Sidekiq::Workers.new.map { |process, thread, work| [process, thread, work] }")
    assert sorted(work["payload"]["jid"] for _, _, work in shown) == sorted(map(str, jids))
    assert {process for process, _, _ in shown} == {worker.identity}
    assert len({thread for _, thread, _ in shown}) == 2
    for _, _, work in shown:
        assert (work["queue"], work["payload"]["class"]) == ("default", "Held")
        assert type(work["run_at"]) is int
        assert abs(work["run_at"] - time.time()) < 30
    client.lpush("release", "now", "now")
    wait_until(lambda: console("Sidekiq::Workers.new.to_a") == [], what="nothing to run")


@pytest.fixture
def fresh_sidekiq(ruby: Ruby, server: Server) -> Iterator[Sidekiq]:
    """A worker of Ruby's that has just written its row; it does that every five seconds."""
    sidekiq = Sidekiq(ruby, server, "ruby")
    yield sidekiq
    sidekiq.close()


@pytest.mark.rule("process.prune")
def test_a_fleet_of_both_prunes_only_who_is_gone(
    fresh_sidekiq: Sidekiq, console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    client.sadd("processes", "gone:1:0123456789ab")
    worker = pillion.work("python", heartbeat=0.1)
    wait_until(lambda: not client.sismember("processes", "gone:1:0123456789ab"), what="our pruning")
    wait_until(lambda: len(console(ROWS)) == 2, what="both processes in the list")
    assert {row["pid"] for row in console(ROWS)} == {os.getpid(), fresh_sidekiq.pid}
    assert worker.identity in console("Sidekiq::ProcessSet.new(true).map(&:identity)")


@pytest.fixture
def process(server: Server, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`pillion worker` as people run it."""
    env = environment(REDIS_URL=server.url, PILLION_HEARTBEAT="0.1", PILLION_WIRE="6")
    flags = ["-q", "python", "-c", "2", "-t", "5", "--log-level", "error"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pillion", "worker", str(HERE / "app.py"), *flags],
            cwd=tmp_path,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    yield process
    process.kill()
    process.wait(timeout=20)
    print((tmp_path / "log").read_text())


@pytest.mark.rule("process.signal", "keys.signals")
def test_ruby_quiets_and_stops_our_process(
    process: subprocess.Popen[bytes], console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    def rows() -> list[dict[str, Any]]:
        assert process.poll() is None, "the worker ended"
        return list(console(ROWS))

    [row] = wait_until(rows, timeout=20, what="our process in Ruby's list")
    assert (row["pid"], row["concurrency"], row["queues"]) == (process.pid, 2, ["python"])
    app.HardWorker.set(queue="python", client=pillion.client()).perform_async("bob", 5)
    wait_for_runs(client, 1)

    console("Sidekiq::ProcessSet.new.first.quiet!")
    wait_until(lambda: rows()[0]["quiet"] == "true", what="our process to be quiet")
    app.HardWorker.set(queue="python", client=pillion.client()).perform_async("too late", 1)

    console("Sidekiq::ProcessSet.new.first.stop!")
    assert process.wait(timeout=20) == 0
    assert console("Sidekiq::ProcessSet.new.size") == 0
    assert client.llen("queue:python") == 1
    assert read_time(json.loads(client.lindex("queue:python", 0))["enqueued_at"]) is not None
    wait_for_runs(client, 1)


@pytest.mark.rule("process.signal", "life.embedded")
def test_an_embedded_worker_cannot_be_stopped_by_ruby(console: Console, pillion: Pillion, client: redis.Redis) -> None:
    worker: Worker = pillion.work("python", heartbeat=0.05)
    wait_until(lambda: console("Sidekiq::ProcessSet.new.size"), what="our row")
    console("Sidekiq::ProcessSet.new.first.stop!")
    wait_until(lambda: client.exists(f"{worker.identity}-signals") == 0, what="the signal to be taken")
    app.HardWorker.set(queue="python", client=Client(setup=worker.setup)).perform_async("bob", 5)
    wait_for_runs(client, 1)

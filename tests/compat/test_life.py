"""Single rules about a process: its beats, what it no longer does when quiet, which blocks it runs, its figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pillion
from pillion.config import Config, RedisSettings
from pillion.worker.worker import GRACE
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.cli import environment, running, write
from tests.worker.harness import Harness

JOB = '{"class":"compat_due","args":[1],"queue":"low","jid":"d1","created_at":1700000000.25}'


# --- beats ------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("process.error")
def test_a_beat_that_fails_is_logged_and_the_next_one_comes(bed: Harness, caplog: pytest.LogCaptureFixture) -> None:
    bed.redis.set("processes", "not a set")
    worker = bed.start()
    wait_until(lambda: "heartbeat: the server refused SADD of processes" in caplog.text, what="the failing beat")
    bed.redis.delete("processes")
    wait_until(lambda: bed.redis.sismember("processes", worker.identity), what="a beat that succeeds")


@pytest.mark.rule("b9.47", "keys.cleanup", "process.prune")
def test_processes_are_pruned_once_a_minute_at_most(bed: Harness) -> None:
    heartbeat = pillion.Worker(bed.setup, embedded=True).stations[0].heartbeat
    bed.redis.sadd("processes", "ghost:1:x")
    heartbeat._prune()
    assert bed.redis.smembers("processes") == set()
    assert (bed.redis.get("process_cleanup"), 50 < bed.redis.ttl("process_cleanup") <= 60) == (b"1", True)
    bed.redis.sadd("processes", "ghost:2:x")
    heartbeat._prune()
    assert bed.redis.smembers("processes") == {b"ghost:2:x"}
    bed.redis.delete("process_cleanup")  # as a minute does
    heartbeat._prune()
    assert bed.redis.smembers("processes") == set()


# --- quiet ------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("b9.56", "poller.quiet")
def test_a_quiet_process_moves_nothing_that_is_due(bed: Harness) -> None:
    worker = bed.start()
    bed.redis.zadd("schedule", {JOB: 1.0})
    wait_until(lambda: bed.redis.llen("queue:low") == 1, what="the poller to move a job")
    worker.quiet()
    assert worker.stations[0].poller.join(5)
    bed.redis.zadd("schedule", {JOB: 1.0})
    assert worker.stations[0].poller.poll() == 0
    assert (bed.redis.zcard("schedule"), bed.redis.llen("queue:low")) == (1, 1)


@pytest.mark.rule("b9.56", "retry.place", "move.poll-push")
@pytest.mark.parametrize("source", ["schedule", "retry"])
def test_what_is_due_goes_to_the_back_of_its_queue(bed: Harness, source: str) -> None:
    bed.push("compat_due", "was here first", queue="low")
    bed.redis.zadd(source, {JOB: 1.0})
    before = bed.setup.config.clock.now()
    assert pillion.Worker(bed.setup, embedded=True).stations[0].poller.poll() == 1
    first, due = bed.waiting("low")
    assert (first["args"], due["args"]) == (["was here first"], [1])
    assert due["created_at"] == 1700000000.25
    assert due["enqueued_at"] >= int(before * 1000)


# --- as a process -----------------------------------------------------------------------------------------------------

APP = """
import sys
import pillion

@pillion.configure_server
def server(setup):
    print("the block for servers", file=sys.stderr, flush=True)

@pillion.configure_client
def client(setup):
    print("the block for clients", file=sys.stderr, flush=True)

@pillion.job
def compat_job():
    pass
"""


@pytest.mark.rule("config.blocks")
def test_a_worker_runs_the_block_for_servers_only(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP})
    with running("worker", "app", cwd=tmp_path, env={"REDIS_URL": server.url}) as worker:
        worker.wait_for("is running")
        assert worker.stop() == 0
    assert worker.heard.count("the block for servers") == 1
    assert "the block for clients" not in worker.heard


@pytest.mark.rule("config.blocks")
def test_another_program_runs_the_block_for_clients_once_before_its_first_push(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP})
    code = "import app, sys; print('imported', file=sys.stderr)\nfor _ in 'ab': app.compat_job.perform_async()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(REDIS_URL=server.url),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr.splitlines() == ["imported", "the block for clients"]
    assert server.client().llen("queue:default") == 2


# --- its figures ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("config.defaults", "client.defaults", "life.give-back")
def test_the_defaults_are_sidekiqs() -> None:
    config = Config()
    assert GRACE == 3
    assert (config.concurrency, config.timeout, config.max_retries) == (5, 25, 25)
    assert (config.dead_max_jobs, config.dead_timeout_in_seconds) == (10_000, 180 * 86_400)
    assert (config.heartbeat, config.poll_interval_average, config.average_scheduled_poll_interval) == (10, None, 5)
    assert (config.strict_args, config.default_job_options) == ("raise", {"retry": True, "queue": "default"})
    assert (config.environment, config.labels) == ("development", ())
    assert [capsule.queues for capsule in config.capsules] == [(("default", 0),)]


@pytest.mark.rule("client.pool")
def test_a_pools_figures_are_sidekiqs() -> None:
    settings = RedisSettings()
    assert (settings.pool_size, settings.checkout_timeout, settings.connect_timeout, settings.timeout) == (10, 1, 3, 3)

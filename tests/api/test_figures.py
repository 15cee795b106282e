"""Totals, days, metrics and deploys as people see them."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from pillion import Client, UsageError
from pillion.api import (
    LABELS,
    Deploy,
    Figures,
    History,
    Mark,
    Metrics,
    ProcessSet,
    Queues,
    Result,
    Stats,
    WorkSet,
)
from pillion.store import ops
from pillion.worker.stats import BOUNDS, Counts, flush_commands
from tests.api.conftest import NOW, Clock, Say, job
from tests.servers import Server
from tests.worker.cli import environment, pillion

# --- totals and days --------------------------------------------------------------------------------------------------


@pytest.mark.rule("api.stats")
@pytest.mark.rule("api.stats-slow", instead=True)
def test_all_figures_at_once(say: Say, client: Client, look: redis.Redis) -> None:
    assert say(Stats(client).read) == Figures(0, 0, 0, 0, 0, 0, 0, 0, 0.0, {})
    look.mset({"stat:processed": 7, "stat:failed": 2})
    for key, count in (("schedule", 1), ("retry", 2), ("dead", 3)):
        look.zadd(key, {job(f"{key}{n}"): NOW for n in range(count)})
    look.lpush("queue:default", job("j", enqueued_at=int((NOW - 4) * 1000)))
    look.lpush("queue:mail", *(job(f"m{n}") for n in range(5)))
    look.sadd("queues", "default", "mail")
    look.sadd("processes", "a:1:x", "b:2:y", "gone:3:z")
    look.hset("a:1:x", "busy", 2)
    look.hset("b:2:y", "busy", 3)
    assert say(Stats(client).read) == Figures(
        processed=7,
        failed=2,
        scheduled_size=1,
        retry_size=2,
        dead_size=3,
        enqueued=6,
        processes_size=3,
        workers_size=5,
        default_queue_latency=4.0,
        queues={"mail": 5, "default": 1},
    )


def test_keys_that_others_have_made_something_else_count_as_nothing(
    say: Say, client: Client, look: redis.Redis
) -> None:
    look.lpush("stat:processed", 1)
    look.set("stat:failed", "many")
    look.set("retry", "text")
    look.sadd("queue:default", "x")
    look.sadd("processes", "a:1:x")
    look.set("a:1:x", "text")
    look.zadd("dead", {job("j"): NOW})
    found = say(Stats(client).read)
    assert (found.processed, found.failed, found.retry_size, found.workers_size, found.dead_size) == (0, 0, 0, 0, 1)


def test_lists_that_others_have_made_something_else_are_empty(say: Say, client: Client, look: redis.Redis) -> None:
    look.mset({"queues": "text", "processes": "text", "stat:processed": 3})
    look.lpush("dear-leader", "text")
    look.zadd("retry", {job("j"): NOW})
    found = say(Stats(client).read)
    assert (found.processed, found.retry_size, found.queues, found.processes_size) == (3, 1, {}, 0)
    assert say.walk(Queues(client)) == say.walk(ProcessSet(client=client)) == say.walk(WorkSet(client)) == []
    assert say(ProcessSet(client=client).leader) == ""


def test_many_names_are_all_read(say: Say, client: Client, look: redis.Redis) -> None:
    look.sadd("queues", *(f"q{n}" for n in range(2_500)))
    look.lpush("queue:q7", job("j"))
    found = say(Stats(client).read)
    assert (len(found.queues), next(iter(found.queues.items())), found.enqueued) == (2_500, ("q7", 1), 1)


@pytest.mark.rule("api.reset")
@pytest.mark.parametrize(
    ("named", "left"), [((), [b"0", b"0"]), (("failed",), [b"5", b"0"]), (("failed", "processed"), [b"0", b"0"])]
)
def test_reset(say: Say, client: Client, look: redis.Redis, named: Any, left: list[bytes]) -> None:
    look.mset({"stat:processed": 5, "stat:failed": 5, "stat:failed:2026-11-22": 5})
    say(Stats(client).reset, *named)
    assert look.mget("stat:processed", "stat:failed") == left
    assert look.get("stat:failed:2026-11-22") == b"5"


def test_only_counters_are_reset(say: Say, client: Client, look: redis.Redis) -> None:
    with pytest.raises(UsageError, match="processed, failed"):
        say(Stats(client).reset, "retry")
    assert look.keys() == []


@pytest.mark.rule("b9.46", "api.history")
def test_history_is_newest_first_with_zeros_for_gaps(say: Say, client: Client, look: redis.Redis) -> None:
    look.mset({"stat:processed:2012-12-26": 4, "stat:failed:2012-12-25": 1, "stat:processed:2026-11-22": 9})
    history = History(2, date(2012, 12, 26), client)
    assert list(say(history.processed).items()) == [("2012-12-26", 4), ("2012-12-25", 0)]
    assert list(say(history.failed).items()) == [("2012-12-26", 0), ("2012-12-25", 1)]
    assert say(History(1, client=client).processed) == {"2026-11-22": 9}
    assert len(say(History(1_825, client=client).failed)) == 1_825


@pytest.mark.rule("b9.46")
@pytest.mark.parametrize("days", [0, 1_826, -1, 1.5, True])
def test_a_history_that_nobody_keeps_raises(client: Client, days: Any) -> None:
    with pytest.raises(UsageError, match="1 to 1825 days"):
        History(days, client=client)


# --- metrics ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def metrics(client: Client, clock: Clock) -> Metrics:
    """At 22:03 on 22 July 2022."""
    clock.at = datetime(2022, 7, 22, 22, 3, tzinfo=UTC).timestamp()
    return Metrics(client)


def ran(look: redis.Redis, key: str, name: str, p: int, f: int, ms: int) -> None:
    look.hset(key, mapping={f"{name}|p": p, f"{name}|f": f, f"{name}|ms": ms})


@pytest.mark.rule("api.metrics-top")
def test_top_jobs_by_the_minute(say: Say, metrics: Metrics, look: redis.Redis) -> None:
    ran(look, "j|220722|22:03", "App::FooJob", 4, 1, 3_000)
    ran(look, "j|220722|22:02", "App::FooJob", 2, 0, 500)
    ran(look, "j|220722|22:02", "App::BarJob", 1, 1, 0)
    ran(look, "j|220722|21:04", "App::FooJob", 1, 0, 100)
    ran(look, "j|220722|21:03", "App::FooJob", 100, 0, 100)  # 61 minutes ago
    result: Result = say(metrics.top_jobs)
    assert (result.granularity, result.ends_at) == ("minutely", datetime(2022, 7, 22, 22, 3, tzinfo=UTC))
    assert result.starts_at == datetime(2022, 7, 22, 21, 3, tzinfo=UTC)
    assert set(result.job_results) == {"App::FooJob", "App::BarJob"}
    foo = result.job_results["App::FooJob"]
    assert dict(foo.totals) == {"p": 7, "f": 1, "ms": 3_600, "s": 3.6}
    assert dict(foo.series["p"]) == {"2022-07-22T22:03:00Z": 4, "2022-07-22T22:02:00Z": 2, "2022-07-22T21:04:00Z": 1}


@pytest.mark.rule("b9.61")
def test_top_jobs_by_ten_minutes(say: Say, metrics: Metrics, look: redis.Redis) -> None:
    ran(look, "j|220722|22:0", "App::FooJob", 3, 1, 1_000)
    ran(look, "j|220722|20:2", "App::FooJob", 1, 0, 500)
    ran(look, "j|220722|22:03", "App::FooJob", 99, 0, 99)  # a minute is no part of this
    result = say(metrics.top_jobs, hours=8)
    assert (result.granularity, result.starts_at.hour, result.starts_at.minute) == ("hourly", 14, 3)
    assert dict(result.job_results["App::FooJob"].series["p"]) == {"2022-07-22T22:00:00Z": 3, "2022-07-22T20:20:00Z": 1}


@pytest.mark.rule("api.metrics-average")
def test_averages_divide_by_the_runs_that_did_not_fail(say: Say, metrics: Metrics, look: redis.Redis) -> None:
    ran(look, "j|220722|22:03", "Foo", 4, 1, 3_000)
    ran(look, "j|220722|22:02", "Foo", 2, 2, 0)
    foo = say(metrics.top_jobs).job_results["Foo"]
    assert (foo.total_avg(), foo.total_avg("s")) == (1_000, 1.0)
    assert foo.series_avg() == {"2022-07-22T22:03:00Z": 1_000, "2022-07-22T22:02:00Z": 0}


@pytest.mark.rule("api.metrics-top")
@pytest.mark.parametrize("wanted", ["Foo", re.compile("F.o"), re.compile("^App::F")])
def test_classes_can_be_chosen(say: Say, metrics: Metrics, look: redis.Redis, wanted: Any) -> None:
    for name in ("App::FooJob", "App::BarJob", "Zoo"):
        ran(look, "j|220722|22:03", name, 1, 0, 1)
    assert set(say(metrics.top_jobs, wanted).job_results) == {"App::FooJob"}


@pytest.mark.rule("api.metrics-limits")
@pytest.mark.parametrize(
    ("asked", "minutes"),
    [
        *(({}, 60), ({"minutes": 5}, 5), ({"minutes": 480}, 480), ({"minutes": 481}, 60), ({"minutes": 0}, 60)),
        *(
            ({"hours": 1}, 60),
            ({"hours": 72}, 4_320),
            ({"hours": 73}, 4_320),
            ({"hours": -1}, 60),
            ({"minutes": -1}, 60),
        ),
    ],
)
def test_the_time_asked_about_has_limits(say: Say, metrics: Metrics, asked: dict[str, int], minutes: int) -> None:
    result = say(metrics.for_job, "Foo", **asked)
    assert (result.ends_at - result.starts_at).total_seconds() == minutes * 60


@pytest.mark.rule("api.metrics-job", "metrics.read", "api.metrics-hist")
def test_one_class_with_its_histograms(say: Say, metrics: Metrics, look: redis.Redis) -> None:
    ran(look, "j|220722|22:03", "App::FooJob", 4, 1, 3_000)
    ran(look, "j|220722|22:03", "App::BarJob", 9, 9, 9)
    look.execute_command("BITFIELD", "h|App::FooJob-22-22:3", "SET", "u16", "#0", 2, "SET", "u16", "#25", 65_535)
    result = say(metrics.for_job, "App::FooJob")
    assert list(result.job_results) == ["App::FooJob"]
    foo = result.job_results["App::FooJob"]
    assert dict(foo.totals) == {"p": 4, "f": 1, "ms": 3_000, "s": 3.0}
    assert len(foo.hist) == 60
    assert foo.hist["2022-07-22T22:03:00Z"] == [65_535, *[0] * 24, 2]  # the slowest first
    assert foo.hist["2022-07-22T22:02:00Z"] == [0] * 26
    assert say(metrics.for_job, "App::FooJob", hours=1).job_results["App::FooJob"].hist == {}
    assert dict(say(metrics.for_job, "Nobody").job_results["Nobody"].totals) == {}


@pytest.mark.rule("metrics.read")
def test_each_slot_has_a_label_that_is_its_bound() -> None:
    def shown(ms: int) -> str:
        return f"{ms}ms" if ms < 1_000 else f"{ms / 1000:g}s"

    assert (*map(shown, BOUNDS), "Slow") == LABELS


@pytest.mark.rule("keys.old-metrics")
def test_what_sidekiq_7_wrote_is_added(say: Say, metrics: Metrics, look: redis.Redis) -> None:
    ran(look, "j|220722|22:03", "Foo", 1, 0, 10)
    ran(look, "j|20220722|22:3", "Foo", 2, 1, 30)
    look.execute_command("BITFIELD", "h|Foo-22-22:3", "SET", "u16", "#0", 1)
    look.execute_command("BITFIELD", "Foo-22-22:3", "SET", "u16", "#0", 2)
    foo = say(metrics.for_job, "Foo").job_results["Foo"]
    assert dict(foo.series["p"]) == {"2022-07-22T22:03:00Z": 3}
    assert foo.hist["2022-07-22T22:03:00Z"][-1] == 3
    assert say(metrics.top_jobs).job_results["Foo"].totals["ms"] == 40


@pytest.mark.rule("keys.old-metrics")
@pytest.mark.parametrize("wire", ["8", "7", "6"])
def test_what_our_workers_count_is_read_back_whatever_the_wire(
    say: Say, metrics: Metrics, clock: Clock, wire: Any
) -> None:
    counts = Counts()
    counts.processed = 3
    counts.metrics.update({"Foo|p": 3, "Foo|f": 1, "Foo|ms": 100})
    counts.slots.update({("Foo", 0): 2})
    client = metrics.client
    client.store.run(ops.batch(flush_commands(client.store.keys, counts, clock.at, wire)))
    for result in (say(metrics.top_jobs), say(metrics.for_job, "Foo"), say(metrics.top_jobs, hours=1)):
        assert result.job_results["Foo"].totals == {"p": 3, "f": 1, "ms": 100, "s": 0.1}
    assert say(metrics.for_job, "Foo").job_results["Foo"].hist["2022-07-22T22:03:00Z"] == [*[0] * 25, 2]


def test_metrics_that_others_have_made_something_else_count_as_nothing(
    say: Say, metrics: Metrics, look: redis.Redis
) -> None:
    look.set("j|220722|22:03", "text")
    look.lpush("h|Foo-22-22:3", "x")
    look.hset("j|220722|22:02", mapping={"Foo|p": "many", "odd": 1, "Foo|ms": 5})
    assert dict(say(metrics.top_jobs).job_results["Foo"].totals) == {"p": 0, "ms": 5, "s": 0.005}
    assert sum(say(metrics.for_job, "Foo").job_results["Foo"].hist["2022-07-22T22:03:00Z"]) == 0


# --- deploys ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("b9.62", "keys.marks", "api.deploy")
def test_of_two_marks_in_a_minute_the_first_stays(say: Say, client: Client, clock: Clock, look: redis.Redis) -> None:
    clock.at = NOW + 7.5
    deploy = Deploy(client)
    assert say(deploy.mark, "first") is True
    assert say(deploy.mark, "second") is False
    assert say(deploy.fetch) == {"2026-11-22T11:43:00Z": "first"}
    assert look.hgetall("20261122-marks") == {b"2026-11-22T11:43:00Z": b"first"}
    assert 0 < look.ttl("deploylock-first") <= 60
    assert 7_775_000 < look.ttl("20261122-marks") <= 7_776_000


@pytest.mark.rule("api.deploy")
def test_one_label_is_marked_once_a_minute_however_many_machines_do(
    say: Say, client: Client, clock: Clock, look: redis.Redis
) -> None:
    deploy = Deploy(client)
    clock.at = NOW + 59
    assert say(deploy.mark, "v42") is True
    clock.at += 2  # the next minute by the clock, not a minute later
    assert say(deploy.mark, "v42") is False
    look.delete("deploylock-v42")
    assert say(deploy.mark, "v42") is True
    assert len(say(deploy.fetch)) == 2
    assert say(deploy.fetch, date(2020, 1, 1)) == {}


@pytest.mark.rule("api.metrics-top", "api.deploy")
def test_marks_come_with_the_metrics_of_their_time(say: Say, client: Client, clock: Clock, look: redis.Redis) -> None:
    midnight = datetime(2022, 7, 22, tzinfo=UTC).timestamp()
    clock.at = midnight + 600
    deploy = Deploy(client)
    for label, at in (("late", 300), ("early", -2_000), ("too old", -3_001), ("to come", 660)):
        assert say(deploy.mark, label, midnight + at)
    look.hset("20220722-marks", "no time", "odd")
    marks = say(Metrics(client).top_jobs).marks
    assert [(mark.label, mark.bucket) for mark in marks] == [
        ("early", "2022-07-21T23:26:00Z"),
        ("late", "2022-07-22T00:05:00Z"),
    ]
    assert marks[1] == Mark(datetime(2022, 7, 22, 0, 5, tzinfo=UTC), "late", "2022-07-22T00:05:00Z")
    assert say(Metrics(client).for_job, "Foo", hours=1).marks[1].bucket == "2022-07-22T00:00:00Z"


@pytest.mark.parametrize("label", ["", "  ", "x" * 201])
def test_a_label_must_say_something(say: Say, client: Client, look: redis.Redis, label: str) -> None:
    with pytest.raises(UsageError, match="1 to 200 characters"):
        say(Deploy(client).mark, label)
    assert look.keys() == []


def test_pillion_deploy(server: Server, look: redis.Redis, tmp_path: Path) -> None:
    env = {"REDIS_URL": server.url}
    first = pillion("deploy", "v42", cwd=tmp_path, env=env)
    assert (first.code, first.out, first.err) == (0, "", "marked the deploy: v42\n")
    again = pillion("deploy", "v42", cwd=tmp_path, env=env)
    assert (again.code, "already" in again.err) == (0, True)
    [key] = look.keys("*-marks")
    assert look.hvals(key) == [b"v42"]


@pytest.mark.rule("api.deploy")
def test_without_a_label_it_is_the_last_commit(server: Server, look: redis.Redis, tmp_path: Path) -> None:
    env = {"REDIS_URL": server.url, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    lost = pillion("deploy", cwd=tmp_path, env=env)
    assert lost.code != 0
    assert "expected a label or a git checkout" in lost.err
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "Say hello"]):
        subprocess.run(["git", *words], cwd=tmp_path, env=environment(), check=True, timeout=30)
    assert pillion("deploy", cwd=tmp_path, env=env).code == 0
    [key] = look.keys("*-marks")
    [label] = look.hvals(key)
    assert re.fullmatch(r"[0-9a-f]{7,} Say hello", label.decode())

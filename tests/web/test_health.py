"""What machines ask: health, readiness, Sidekiq's `/stats`, Prometheus' `/metrics`, the need for workers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pillion import Client
from pillion.web.prometheus import HELP
from pillion.web.sidekiq import human
from tests.servers import Server
from tests.web.conftest import Visit

STATS = {
    "sidekiq": "processed failed busy processes enqueued scheduled retries dead default_latency".split(),
    "redis": "redis_version uptime_in_days connected_clients used_memory_human used_memory_peak_human store_name"
    " store_version".split(),
}
SAMPLE = re.compile(r'(pillion_\w+)(?:\{((?:\w+="(?:[^"\\\n]|\\.)*",?)*)\})? ([0-9.e+-]+)')


def push(client: Client, queue: str, count: int = 1) -> None:
    client.push_bulk({"class": "Web::Health", "args": [[number] for number in range(count)], "queue": queue})


# --- health -----------------------------------------------------------------------------------------------------------


def test_the_process_is_alive_whatever_redis_does(visit: Visit, own_server: Server) -> None:
    visitor = visit(role=None, shown=Client(own_server.url))
    own_server.kill()
    assert visitor.get("/healthz").status == 200
    gone = visitor.get("/readyz")
    assert (gone.status, gone.text, gone.header("retry-after")) == (503, "Redis does not answer\n", "2")
    own_server.restart()
    assert visitor.get("/readyz").status == 200
    visitor.runner.run(visitor.app.site.client.aclose())


def test_a_redis_that_hangs_is_not_ready(visit: Visit, own_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pillion.web.health.READY_WITHIN", 0.2)
    visitor = visit(role=None, shown=Client(own_server.url))
    own_server.pause()
    assert visitor.get("/readyz").status == 503
    own_server.resume()
    visitor.runner.run(visitor.app.site.client.aclose())


@pytest.mark.rule("web.health")
def test_head_is_sidekiqs_health_check(visit: Visit, own_server: Server) -> None:
    visitor = visit(shown=Client(own_server.url))
    found = visitor.ask("HEAD", "/")
    assert (found.status, found.body) == (200, b"")
    own_server.kill()
    assert visitor.ask("HEAD", "/").status == 503
    visitor.runner.run(visitor.app.site.client.aclose())


# --- Sidekiq's --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("web.stats")
def test_stats_have_sidekiqs_keys_in_its_order(visit: Visit, client: Client) -> None:
    push(client, "default", 3)
    found = visit(role="viewer").get("/stats")
    assert found.header("content-type") == "application/json"
    assert [*found.json] == ["sidekiq", "redis", "server_utc_time"]
    assert {part: [*found.json[part]] for part in STATS} == STATS
    assert found.json["sidekiq"]["enqueued"] == 3
    assert re.fullmatch(r"\d\d:\d\d:\d\d UTC", found.json["server_utc_time"])


@pytest.mark.rule("web.stats-queues")
def test_its_queues_are_the_largest_first(visit: Visit, client: Client) -> None:
    for count, queue in enumerate(["b", "c", "a"], 1):
        push(client, queue, count)
    assert [*visit().get("/stats/queues").json.items()] == [("a", 3), ("c", 2), ("b", 1)]


def test_its_old_address_leads_to_the_new_one(visit: Visit) -> None:
    found = visit(root="/jobs").get("/dashboard/stats")
    assert (found.status, found.header("location")) == (302, "/jobs/stats")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1_101_005, "1.05M"), (5 << 30, "5.00G")]
)
def test_bytes_are_written_as_redis_writes_them(size: int, text: str) -> None:
    assert human(size) == text


def test_they_are_what_redis_says(visit: Visit, server: Server) -> None:
    found, info = visit().get("/stats").json["redis"], server.info("everything")
    assert found["redis_version"] == info["redis_version"]
    assert found["store_version"] == info.get("valkey_version", info["redis_version"])


# --- Prometheus -------------------------------------------------------------------------------------------------------


def samples(text: str) -> dict[tuple[str, str], float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = [SAMPLE.fullmatch(line) for line in lines]
    assert None not in found, lines
    return {(match[1], match[2] or ""): float(match[3]) for match in found if match}


def test_prometheus_reads_the_cluster_at_once(visit: Visit, client: Client, server: Server) -> None:
    push(client, "mailers", 2)
    redis = server.client()
    redis.mset({"stat:processed": 12, "stat:failed": 5})
    redis.sadd("paused", "mailers")
    found = visit(role="viewer").get("/metrics")
    assert found.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    shown = samples(found.text)
    assert shown["pillion_jobs_finished_total", 'outcome="done"'] == 7
    assert shown["pillion_jobs_finished_total", 'outcome="failed"'] == 5
    assert shown["pillion_queue_jobs", 'queue="mailers",state="queued"'] == 2
    assert shown["pillion_queue_jobs", 'state="dead"'] == 0
    assert shown["pillion_queue_oldest_seconds", 'queue="mailers"'] >= 0
    assert shown["pillion_queue_paused", 'queue="mailers"'] == 1
    assert shown["pillion_workers", ""] == 0
    assert shown["pillion_store_memory_bytes", ""] > 0


def test_every_metric_is_described_once_and_before_it_comes(visit: Visit) -> None:
    text = visit().get("/metrics").text
    for name, (kind, _) in HELP.items():
        assert text.count(f"# TYPE {name} {kind}\n") == text.count(f"# HELP {name} ") == 1
    described = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    shown = [name for name, _ in samples(text)]
    assert [name for name in described if name in shown] == [*dict.fromkeys(shown)]


def test_a_label_may_hold_anything(visit: Visit, server: Server) -> None:
    server.client().sadd("queues", 'a"b\\c\nd} 1')
    found = samples(visit().get("/metrics").text)
    assert found["pillion_queue_jobs", r'queue="a\"b\\c\nd} 1",state="queued"'] == 0


def test_the_metrics_are_for_those_who_are_let_in(visit: Visit) -> None:
    assert visit(role=None).get("/metrics").status == 403


# --- the need for workers ---------------------------------------------------------------------------------------------


def scale(visit: Visit, *queues: str) -> dict[str, Any]:
    found: dict[str, Any] = (
        visit(role="viewer").get(f"/api/v1/scale?{'&'.join(f'queue={name}' for name in queues)}").json
    )
    return found


def test_an_empty_queue_needs_nobody(visit: Visit, client: Client) -> None:
    push(client, "other")
    assert scale(visit, "mailers") == {"value": 0.0, "waiting": 0, "running": 0}


def test_a_job_that_has_just_come_needs_somebody(visit: Visit, client: Client) -> None:
    push(client, "mailers", 2)
    found = scale(visit, "mailers")
    assert found["value"] > 0
    assert (found["waiting"], found["running"]) == (2, 0)


def test_the_longest_wait_of_the_queues_asked_about_counts(visit: Visit, client: Client, server: Server) -> None:
    now = client.setup.config.clock.now()
    for queue, age in (("a", 100), ("b", 300), ("c", 900)):
        job = f'{{"class":"X","args":[],"jid":"{age}","enqueued_at":{int((now - age) * 1000)}}}'
        server.client().lpush(f"queue:{queue}", job)
        server.client().sadd("queues", queue)
    assert 300 <= scale(visit, "a", "b")["value"] < 400
    assert scale(visit)["value"] >= 900
    assert visit().get("/api/v1/scale?queue=c").json["waiting"] == 1


def test_a_running_job_keeps_its_worker(visit: Visit, client: Client, server: Server) -> None:
    redis = server.client()
    redis.sadd("processes", "host:1:x")
    redis.hset("host:1:x", mapping={"info": '{"hostname":"host"}', "busy": 1})
    row = {"queue": "mailers", "run_at": 1, "payload": json.dumps({"class": "X", "args": [], "jid": "1"})}
    redis.hset("host:1:x:work", "t", json.dumps(row))
    assert scale(visit, "mailers")["running"] == 1
    assert scale(visit, "mailers")["value"] > 0
    assert scale(visit, "other")["value"] == 0

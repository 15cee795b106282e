"""Worker processes and what they run, as people see them: rows of every version of Sidekiq, signals, pruning."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

import pillion
from pillion import Client, UsageError, Worker
from pillion.api import ProcessSet, WorkSet
from tests.api.conftest import NOW, NewClient, Say, job
from tests.waiting import wait_until

INFO_8 = {
    "hostname": "vm",
    "started_at": NOW - 60.5,
    "pid": 23985,
    "tag": "app",
    "capsules": {
        "default": {"concurrency": 2, "mode": "weighted", "weights": {"critical": 3, "default": 1}},
        "single": {"concurrency": 1, "mode": "strict", "weights": {"single": 0}},
    },
    "queues": ["critical", "default", "single"],
    "weights": [{"critical": 3, "default": 1}, {"single": 0}],
    "labels": ["fast"],
    "identity": "vm:23985:4bea0fb372db",
    "version": "8.1.7",
    "embedded": False,
}
"""As Sidekiq 8.1.7 wrote it."""

ROW_8 = {"concurrency": 3, "busy": 1, "beat": NOW - 4.5, "rtt_us": 134, "quiet": "false", "rss": 41_000}
INFO_6 = {
    "hostname": "old",
    "pid": 7,
    "tag": "",
    "concurrency": 5,
    "queues": ["default"],
    "labels": [],
    "started_at": NOW,
}


def enter(look: redis.Redis, identity: str, info: Any, **row: Any) -> None:
    """A process with its row."""
    look.sadd("processes", identity)
    look.hset(identity, mapping={"info": json.dumps(info) if isinstance(info, dict) else info, **row})


@pytest.mark.rule("api.process-each", "api.process-row")
def test_a_row_of_sidekiq_8(say: Say, client: Client, look: redis.Redis) -> None:
    enter(look, "vm:23985:4bea0fb372db", INFO_8, **ROW_8)
    [process] = say.walk(ProcessSet(client=client))
    assert (process.identity, process["hostname"], process["pid"]) == ("vm:23985:4bea0fb372db", "vm", 23985)
    assert (process.tag, process.version, process.labels) == ("app", "8.1.7", ["fast"])
    assert (process.concurrency, process.busy, process.rss, process.rtt_us) == (3, 1, 41_000, 134)
    assert (process.beat, process.stopping, process.embedded) == (NOW - 4.5, False, False)
    assert process.started_at == datetime.fromtimestamp(NOW - 60.5, UTC)
    assert process.queues == ["critical", "default", "single"]
    assert process.weights == {"critical": 3, "default": 1, "single": 0}
    assert process.capsules["single"] == {"concurrency": 1, "mode": "strict", "weights": {"single": 0}}
    assert (process["busy"], process["quiet"], process["beat"], process["nothing"]) == (1, "false", NOW - 4.5, None)


@pytest.mark.rule("b9.49")
def test_the_concurrency_of_the_row_wins(say: Say, client: Client, look: redis.Redis) -> None:
    enter(look, "vm:1:a", {**INFO_8, "concurrency": 99}, concurrency=7)
    enter(look, "vm:2:b", INFO_6, busy=2)
    by_row, by_info = say.walk(ProcessSet(client=client))
    assert (by_row.concurrency, by_row["concurrency"]) == (7, 7)
    assert (by_info.concurrency, by_info.queues, by_info.version) == (5, ["default"], "")
    assert say(ProcessSet(client=client).total_concurrency) == 12
    assert say(ProcessSet(client=client).find, "vm:1:a").concurrency == 7


@pytest.mark.rule("api.process-size", "api.process-total")
def test_sums(say: Say, client: Client, look: redis.Redis) -> None:
    enter(look, "vm:1:a", INFO_8, **ROW_8)
    enter(look, "vm:2:b", INFO_8, **{**ROW_8, "rss": 9_000, "busy": 2})
    look.sadd("processes", "gone:3:c")
    processes = ProcessSet(clean=False, client=client)
    assert (say(processes.size), say(processes.total_rss), say(processes.total_concurrency)) == (3, 50_000, 6)
    assert (processes.total_rss_in_kb() if say.colour == "sync" else 50_000) == 50_000
    assert say(WorkSet(client).size) == 3


@pytest.mark.rule("api.process-find")
def test_one_process_by_its_identity(say: Say, client: Client, look: redis.Redis) -> None:
    enter(look, "vm:1:a", INFO_8, **ROW_8)
    look.hset("vm:2:b", "info", json.dumps(INFO_8))  # a row that nobody lists
    look.sadd("processes", "gone:3:c")
    processes = ProcessSet(client=client)
    assert say(processes.find, "vm:1:a").tag == "app"
    assert say(processes.find, "vm:2:b") is None
    assert say(processes.find, "gone:3:c") is None


def test_rows_that_cannot_be_read_spoil_no_other(say: Say, client: Client, look: redis.Redis) -> None:
    enter(look, "a:1:x", b"not json", busy="many", beat="soon")
    look.sadd("processes", "b:2:y")
    look.set("b:2:y", "text")
    enter(look, "c:3:z", {"capsules": {"default": "odd"}, "labels": 7, "queues": "default"})
    enter(look, "d:4:w", INFO_8, **ROW_8)
    odd, odder, good = say.walk(ProcessSet(client=client))
    assert (odd.concurrency, odd.busy, odd.beat, odd.queues, odd.tag, odd.capsules) == (0, 0, 0.0, [], "", {})
    assert (odder.queues, odder.labels) == ([], [])
    assert good.tag == "app"


@pytest.mark.rule("api.process-leader")
def test_who_leads(say: Say, client: Client, look: redis.Redis) -> None:
    enter(look, "vm:1:a", INFO_8, **ROW_8)
    processes = ProcessSet(client=client)
    [process] = say.walk(processes)
    assert (say(processes.leader), say(process.leads)) == ("", False)
    look.set("dear-leader", "vm:1:a")
    assert (say(processes.leader), say(process.leads)) == ("vm:1:a", True)


@pytest.mark.rule("api.process-prune", "b9.47")
def test_who_has_no_row_is_struck_off_once_a_minute(say: Say, client: Client, look: redis.Redis) -> None:
    enter(look, "vm:1:a", INFO_8, **ROW_8)
    look.sadd("processes", "gone:2:b", "gone:3:c")
    assert [process.identity for process in say.walk(ProcessSet(client=client))] == ["vm:1:a"]
    assert look.smembers("processes") == {b"vm:1:a"}
    assert 0 < look.ttl("process_cleanup") <= 60
    look.sadd("processes", "gone:2:b")
    assert say(ProcessSet(client=client).cleanup) == 0
    look.delete("process_cleanup")
    assert say.walk(ProcessSet(clean=False, client=client)) != []
    assert look.scard("processes") == 2
    assert say(ProcessSet(client=client).cleanup) == 1


@pytest.mark.rule("b9.48", "api.process-signal")
def test_signals_wait_a_minute_for_the_next_beat(say: Say, client: Client, look: redis.Redis) -> None:
    enter(look, "vm:1:a", INFO_8, **ROW_8)
    [process] = say.walk(ProcessSet(client=client))
    for verb in (process.quiet, process.dump_threads, process.stop):
        say(verb)
        assert 0 < look.ttl("vm:1:a-signals") <= 60
    assert look.lrange("vm:1:a-signals", 0, -1) == [b"TERM", b"TTIN", b"TSTP"]


@pytest.mark.rule("b9.48", "api.process-signal")
def test_an_embedded_process_cannot_be_stopped_from_outside(say: Say, client: Client, look: redis.Redis) -> None:
    enter(look, "vm:1:a", {**INFO_8, "embedded": True}, **ROW_8)
    [process] = say.walk(ProcessSet(client=client))
    for verb in (process.quiet, process.stop):
        with pytest.raises(UsageError, match="embedded in another program"):
            say(verb)
    say(process.dump_threads)
    assert look.lrange("vm:1:a-signals", 0, -1) == [b"TTIN"]


# --- what runs --------------------------------------------------------------------------------------------------------


def entry(payload: Any, run_at: float = NOW, queue: str = "default") -> str:
    return json.dumps({"queue": queue, "payload": payload, "run_at": run_at})


@pytest.mark.rule("api.workset", "api.work", "process.entry-old")
def test_what_runs_longest_first_whoever_wrote_it(say: Say, client: Client, look: redis.Redis) -> None:
    enter(look, "new:1:a", INFO_8, **ROW_8)
    enter(look, "old:2:b", INFO_6)
    look.hset(
        "new:1:a:work", mapping={"t1": entry(job("text").decode(), NOW - 5), "t2": entry(job("é").decode(), NOW - 90)}
    )
    look.hset("old:2:b:workers", "t1", entry(json.loads(job("nested", 1.5)), NOW - 40, "low"))
    found = say.walk(WorkSet(client))
    assert [(work.process_id, work.thread_id, work.job.jid) for work in found] == [
        ("new:1:a", "t2", "é"),
        ("old:2:b", "t1", "nested"),
        ("new:1:a", "t1", "text"),
    ]
    nested = found[1]
    assert (nested.queue, nested.job.args, nested.job.queue) == ("low", [1.5], "low")
    assert nested.run_at == datetime.fromtimestamp(NOW - 40, UTC)
    assert found[2].payload == job("text")


@pytest.mark.rule("api.find-work")
def test_a_run_is_found_by_the_jid_of_its_job(say: Say, client: Client, look: redis.Redis) -> None:
    enter(look, "vm:1:a", INFO_8, **ROW_8)
    look.hset("vm:1:a:work", mapping={"t1": entry(job("a", "b").decode()), "t2": entry(job("b").decode())})
    assert say(WorkSet(client).find_work, "b").thread_id == "t2"
    assert say(WorkSet(client).find_work, "c") is None


def test_what_is_written_in_both_places_runs_once(say: Say, client: Client, look: redis.Redis) -> None:
    """Pillion does, with `wire="6"`."""
    enter(look, "vm:1:a", INFO_8, **ROW_8)
    for key in ("vm:1:a:work", "vm:1:a:workers"):
        look.hset(key, "t1", entry(job("a").decode()))
    assert [work.job.jid for work in say.walk(WorkSet(client))] == ["a"]


def test_entries_that_cannot_be_read_spoil_no_other(say: Say, client: Client, look: redis.Redis) -> None:
    enter(look, "vm:1:a", INFO_8, **ROW_8)
    enter(look, "vm:2:b", INFO_8, **ROW_8)
    look.hset(
        "vm:1:a:work", mapping={"t1": "not json", "t2": "[]", "t3": entry("not json", NOW - 1), "t4": "{}", "t5": ""}
    )
    look.set("vm:2:b:work", "text")
    found = {work.thread_id: work for work in say.walk(WorkSet(client))}
    assert set(found) == {"t3", "t4"}
    assert found["t3"].job.args == ["not json"]


@pytest.mark.rule("api.workset")
def test_a_worker_of_ours_is_seen_and_told_to_be_quiet(say: Say, new_client: NewClient, look: redis.Redis) -> None:
    class ApiHeld(pillion.Job, retry=False):
        def perform(self) -> None:
            wait_until(lambda: look.exists("release"), what="the test to let it go")

    client = new_client(
        clock=pillion.Config().clock, registry=pillion.registry.default, heartbeat=0.05, queues=["seen"], tag="shop"
    )
    worker = Worker(client.setup, embedded=True)
    worker.start()
    try:
        jid = ApiHeld.set(client=client, queue="seen").perform_async()
        work = wait_until(lambda: say(WorkSet(client).find_work, jid), what="the job among what runs")
        assert (work.process_id, work.queue) == (worker.identity, "seen")
        process = say(ProcessSet(client=client).find, worker.identity)
        assert (process.tag, process.queues, process.embedded, process.busy) == ("shop", ["seen"], True, 1)
    finally:
        look.set("release", 1)
        assert worker.stop(5) == []
    assert say.walk(WorkSet(client)) == []
    assert say(ProcessSet(client=client).size) == 0

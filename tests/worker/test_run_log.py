"""The run log on the worker's side: what is kept, how much, and that it never hurts a job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

import pillion
from pillion.api.runs import Runs
from pillion.config import Config
from pillion.errors import StoreError
from pillion.store import run_log
from pillion.store.run_log import Row
from pillion.types import Claim, Dead, Discard, Outcome, Requeue, Snooze
from pillion.worker.run_log import FAILURES_A_BEAT, MOST_CLASSES, MOST_ROWS, ROWS_A_BEAT, RunLog, _by_owner
from pillion.worker.runner import DONE, Finished
from tests.conftest import NewServer
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

OWNER = "vm:1:abc/default.1"


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    with harness(server) as bed:
        yield bed


@pillion.job(name="LoggedWell")
def well(number: int) -> None:
    """Does nothing."""


@pillion.job(name="LoggedBadly")
def badly() -> None:
    raise ConnectionError("no way to redis://ada:geheim@db:6379, password=hunter2")


@pillion.job(name="LoggedDeath")
def death() -> None:
    raise ValueError("for good")


@pillion.job(name="LoggedLater")
def later() -> Any:
    return pillion.snooze(3600)


@pillion.job(name="LoggedDrop")
def drop() -> Any:
    return pillion.discard("not wanted any more")


def settled(name: str, n: int = 1, outcome: Outcome = DONE, **fields: Any) -> Finished:
    payload = {"class": name, "jid": f"j{n}", "enqueued_at": 1_700_000_000_000}
    return Finished(Claim(OWNER, n, "default", b""), outcome, (), name, 0.25, payload, **fields)


def kept(log: RunLog) -> dict[str, list[Row]]:
    """The rows of every class that the log would write now, whatever became of them."""
    found: dict[str, list[Row]] = {}
    for _, samples in log._due(everything=True):
        for name, sample in samples.items():
            found.setdefault(name, []).extend(row for _, row in sample.kept)
    return found


# -- what a worker writes ------------------------------------------------------------------------------------------


def test_every_kind_of_outcome_is_told(bed: Harness) -> None:
    jids = {name: bed.push(name) for name in ("LoggedBadly", "LoggedLater", "LoggedDrop")}
    jids["LoggedDeath"] = bed.push("LoggedDeath", retry=0)
    jids["LoggedWell"] = bed.push("LoggedWell", 1)
    bed.raw(b"no job at all")
    worker = bed.start()
    bed.settled(6)
    runs = wait_until(lambda: len(found := list(Runs(bed.client))) == 6 and found, what="six runs")
    by_class = {run.klass: run for run in runs}
    assert {name: by_class[name].jid for name in jids} == jids
    assert {name: run.outcome for name, run in by_class.items()} == {
        "LoggedWell": "done",
        "LoggedBadly": "retry",
        "LoggedDeath": "dead",
        "LoggedLater": "snoozed",
        "LoggedDrop": "discarded",
        "": "rejected",
    }
    assert {name for name, run in by_class.items() if run.failed} == {"LoggedBadly", "LoggedDeath", ""}
    assert {(run.identity, run.queue, run.attempt, run.stands_for) for run in runs} == {
        (worker.identity, "default", 1, 1)
    }
    assert by_class[""].error_class == "BadPayload"
    well_run = by_class["LoggedWell"]
    assert well_run.error_class is None
    assert well_run.wait is not None
    now = bed.setup.config.clock.now()
    assert now - 30 < well_run.began <= well_run.ended <= now
    assert 0 <= well_run.wait < 30


def test_secrets_in_messages_are_masked(bed: Harness) -> None:
    bed.push("LoggedBadly")
    bed.start()
    [run] = wait_until(lambda: list(Runs(bed.client)), what="the failed run")
    assert (run.error_class, run.error_message) == (
        "ConnectionError",
        "no way to redis://ada:***@db:6379, password=***",
    )


def test_a_retry_is_another_attempt_of_the_same_job(bed: Harness) -> None:
    jid = bed.push("LoggedBadly", retry_count=3, failed_at=1.5)
    bed.start()
    [run] = wait_until(lambda: list(Runs(bed.client)), what="the failed run")
    assert (run.jid, run.attempt) == (jid, 5)


def test_what_was_put_back_is_no_run(bed: Harness) -> None:
    log = RunLog(Config())
    log.add([settled("Back", outcome=Requeue())])
    assert kept(log) == {}


def test_a_worker_that_ends_writes_what_it_has(server: Server) -> None:
    with harness(server, heartbeat=30.0) as bed:
        worker = bed.start()
        wait_until(lambda: bed.redis.exists(worker.identity), what="the first beat")
        bed.push("LoggedWell", 1)
        wait_until(lambda: not bed.redis.llen("queue:default") and worker.stations[0].runs._done, what="the run")
        assert list(Runs(bed.client)) == []
        worker.stop()
        assert [run.klass for run in Runs(bed.client)] == ["LoggedWell"]


def test_a_claim_whose_payload_was_gone_is_no_run() -> None:
    log = RunLog(Config())
    log.add([Finished(Claim(OWNER, 1, "default", b""), Discard("its payload was gone"))])
    assert kept(log) == {}


def test_whatever_stands_in_a_job_the_fetcher_goes_on(bed: Harness, caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(bed.setup.config)
    claim = Claim(OWNER, 1, "default", b"")
    log.add([Finished(claim, DONE, (), "Odd", 1.0, ["no", "mapping"])])  # type: ignore[arg-type]
    assert [record.getMessage() for record in caplog.records] == ["the run log could not note a run"]
    odd: dict[str, Any] = {"jid": ["x"] * 10_000, "retry_count": 10**30, "enqueued_at": {"a": 1}}
    log.add([Finished(claim, DONE, (), "Odd", 1.0, odd)])
    log.flush(bed.setup.store, everything=True)
    [run] = Runs(bed.client)
    assert (len(run.jid), run.attempt, run.wait) == (256, 1_000_000_002, None)


def test_it_can_be_switched_off(server: Server) -> None:
    with harness(server, run_log=False) as bed:
        bed.push("LoggedWell", 1)
        worker = bed.start()
        bed.settled(1)
        worker.stop()
        assert worker.stations[0].runs is None
        assert bed.redis.keys("pillion:runs*") == []


# -- how much is kept ----------------------------------------------------------------------------------------------


def test_a_sample_is_spread_evenly_and_says_what_it_stands_for() -> None:
    log = RunLog(Config())
    log._share = 10
    log.add(settled("Often", n) for n in range(1, 1_001))
    log.add([settled("Seldom", 7)])
    [(state, samples)] = log._due(everything=True)
    assert state == "done"
    often = [int(row.jid[1:]) for _, row in samples["Often"].kept]
    assert 10 <= len(often) < 20
    steps = {b - a for a, b in pairwise(often)}
    assert steps == {64}
    [row] = [row for _, row in samples["Seldom"].kept]
    assert row.jid == "j7"


def test_the_weights_of_what_is_written_add_up(bed: Harness) -> None:
    log = RunLog(Config())
    log.add(settled("Weighed", n) for n in range(1, 5_001))
    log.flush(bed.setup.store, everything=True)
    runs = list(Runs(bed.client))
    assert len(runs) < 200
    assert sum(run.stands_for for run in runs) == pytest.approx(5_000, rel=0.02)


def test_failures_are_all_kept_until_a_storm() -> None:
    log = RunLog(Config())
    log.add(settled("Stormy", n, Dead(1.0, b""), rejected="broken") for n in range(2 * FAILURES_A_BEAT - 1))
    assert len(kept(log)["Stormy"]) == 2 * FAILURES_A_BEAT - 1
    log.add(settled("Stormy", n, Dead(1.0, b""), rejected="broken") for n in range(10_000))
    assert FAILURES_A_BEAT <= len(kept(log)["Stormy"]) < 2 * FAILURES_A_BEAT


def test_one_beat_never_writes_more_rows_than_a_script_takes_well() -> None:
    log = RunLog(Config())
    for n in range(100):
        log.add(settled(f"Wide{n}", i, Dead(1.0, b""), rejected="broken") for i in range(150))
    [(_, samples)] = log._due(everything=True)
    rows = [row for mine in _by_owner(samples).values() for row in mine]
    assert len(rows) <= MOST_ROWS
    assert {row.klass for row in rows} == {f"Wide{n}" for n in range(100)}
    assert sum(row.stands_for for row in rows) == pytest.approx(15_000, rel=0.1)


def test_names_that_anybody_may_push_do_not_fill_the_memory() -> None:
    log = RunLog(Config())
    log.add(settled(f"Name{n}", n) for n in range(5_000))
    assert len(log._done) <= MOST_CLASSES + 1
    assert len(log._done[""].kept) < 200


def test_a_large_fleet_with_many_classes_gathers_over_several_beats() -> None:
    log = RunLog(Config())
    log.fleet, classes = 10, 30
    beats = 10 * classes // ROWS_A_BEAT
    for beat in range(1, beats + 1):
        log.add(settled(f"Kind{n}", n) for n in range(classes))
        log.add([settled("Bad", 1, Dead(1.0, b""), rejected="broken")])
        due = [state for state, _ in log._due(everything=False)]
        assert due == (["failed"] if beat < beats else ["failed", "done"])
    assert log._share == 1


def test_snoozed_and_dropped_jobs_are_no_failures() -> None:
    log = RunLog(Config())
    log.add([settled("Calm", 1, Snooze(1.0, b"")), settled("Calm", 2, Discard("enough"))])
    [(state, samples)] = log._due(everything=True)
    assert state == "done"
    assert [row.outcome for _, row in samples["Calm"].kept] == ["snoozed", "discarded"]


# -- in Redis ------------------------------------------------------------------------------------------------------


def chunk(size: int = 1_000) -> bytes:
    row = Row("j", "Big", "default", 1, 1, 1, None, "done", "E", "m" * size)
    [raw] = run_log.pack({OWNER: [row]})
    return raw


def test_the_log_stays_within_its_bytes_and_drops_the_oldest(bed: Harness) -> None:
    store, keys = bed.setup.store, bed.setup.store.keys
    for _ in range(100):
        size = store.run(run_log.append(keys, "done", [chunk()] * 3, 50_000))
        assert size <= 50_000
    assert 40 <= bed.redis.xlen("pillion:runs:done") <= 46
    assert bed.redis.memory_usage("pillion:runs:done", samples=0) < 65_000
    assert 0 < bed.redis.ttl("pillion:runs:done") <= 7 * 86_400
    assert bed.redis.hget("pillion:runs", "done") == b"%d" % size


def test_the_failed_have_room_of_their_own(bed: Harness) -> None:
    store, keys = bed.setup.store, bed.setup.store.keys
    store.run(run_log.append(keys, "failed", [chunk()], 50_000))
    store.run(run_log.append(keys, "done", [chunk()] * 200, 50_000))
    assert bed.redis.xlen("pillion:runs:failed") == 1


def test_what_is_a_week_old_goes(bed: Harness) -> None:
    store, keys = bed.setup.store, bed.setup.store.keys
    long_ago = int(bed.setup.config.clock.now() - 8 * 86_400) * 1000
    for n in range(50):
        bed.redis.xadd("pillion:runs:done", {"runs": chunk()}, id=f"{long_ago}-{n}")
    assert store.run(run_log.append(keys, "done", [chunk()], 50_000_000)) < 2_000
    assert bed.redis.xlen("pillion:runs:done") == 1


def test_a_log_that_somebody_deleted_begins_anew(bed: Harness) -> None:
    store, keys = bed.setup.store, bed.setup.store.keys
    before = store.run(run_log.append(keys, "done", [chunk()] * 5, 50_000))
    bed.redis.delete("pillion:runs:done")
    assert store.run(run_log.append(keys, "done", [chunk()], 50_000)) == before // 5


def test_one_chunk_that_is_larger_than_the_log_leaves_nothing(bed: Harness) -> None:
    store, keys = bed.setup.store, bed.setup.store.keys
    assert store.run(run_log.append(keys, "done", [chunk()], 100)) == 0
    assert not bed.redis.exists("pillion:runs:done")


# -- trouble -------------------------------------------------------------------------------------------------------


def test_a_log_of_the_wrong_type_is_told_once_and_jobs_run_on(bed: Harness, caplog: pytest.LogCaptureFixture) -> None:
    bed.redis.set("pillion:runs:done", "somebody else's", ex=60)
    with caplog.at_level(logging.WARNING, "pillion"):
        bed.start()
        for n in range(1, 4):
            bed.push("LoggedWell", n)
            bed.settled(n)
    assert int(bed.redis.get("stat:processed") or 0) == 3
    assert [r.getMessage() for r in caplog.records if "run log" in r.getMessage()][1:] == []


def test_each_trouble_is_told_once(bed: Harness, caplog: pytest.LogCaptureFixture) -> None:
    log, store = RunLog(bed.setup.config), bed.setup.store
    for _ in range(2):
        bed.redis.set("pillion:runs:done", "somebody else's", ex=60)
        for n in range(3):
            log.add([settled("Told", n), settled("Told", n, Dead(1.0, b""), rejected="broken")])
            log.flush(store, everything=True)
        bed.redis.delete("pillion:runs:done")
        log.add([settled("Told", 9)])
        log.flush(store, everything=True)
    assert sum("the run log could not be written" in record.getMessage() for record in caplog.records) == 2
    assert bed.redis.xlen("pillion:runs:failed") == 6


def test_a_server_that_is_full_loses_runs_and_no_job(new_server: NewServer, caplog: pytest.LogCaptureFixture) -> None:
    server = new_server("--maxmemory-policy", "noeviction")
    with harness(server) as bed, caplog.at_level(logging.WARNING, "pillion"):
        worker = bed.start()
        wait_until(lambda: bed.redis.exists(worker.identity), what="the first beat")
        for n in range(20):
            bed.push("LoggedWell", n)
        bed.settled(20)
        wait_until(lambda: not worker.stations[0].runs._done, what="the runs written")
        before = len(list(Runs(bed.client)))
        assert before
        log = worker.stations[0].runs
        bed.redis.config_set("maxmemory", "1mb")
        log.add([settled("Full", 1)])
        wait_until(lambda: log._told, what="the refusal")
        assert len(list(Runs(bed.client))) == before
        bed.redis.config_set("maxmemory", "0")
        log.add([settled("Full", 2)])
        wait_until(lambda: [run.jid for run in Runs(bed.client) if run.klass == "Full"] == ["j2"], what="a new run")
    assert sum("run log" in record.getMessage() for record in caplog.records) == 1


def test_a_server_that_is_away_costs_the_beat_its_runs_only(own_server: Server) -> None:
    with harness(own_server) as bed:
        log = RunLog(bed.setup.config)
        log.add([settled("Away", 1)])
        own_server.kill()
        log.flush(bed.setup.store, everything=True)
        own_server.restart()
        log.add([settled("Away", 2)])
        log.flush(bed.setup.store, everything=True)
        assert [run.jid for run in Runs(bed.client)] == ["j2"]


def test_fetchers_of_several_capsules_may_add_at_once() -> None:
    log = RunLog(Config())
    barrier = threading.Barrier(4)

    def add() -> None:
        barrier.wait(10)
        for n in range(2_000):
            log.add([settled("Shared", n)])

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert log._done["Shared"].seen == 8_000


def test_appending_is_never_sent_twice() -> None:
    keys = pillion.Setup("redis://localhost").store.keys
    assert not run_log.append(keys, "done", [b"[]"], 1).safe
    assert run_log.page(keys, "done").safe


def test_ops_raise_as_others_do(bed: Harness) -> None:
    bed.redis.set("pillion:runs:failed", "text", ex=60)
    with pytest.raises(StoreError):
        bed.setup.store.run(run_log.append(bed.setup.store.keys, "failed", [chunk()], 1_000))

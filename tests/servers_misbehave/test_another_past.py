"""A server that remembers something else than it did: empty, an older backup, a replica that was behind.

What was accepted and is not there any more is lost with the server's memory, and nothing else is. Owners that it does
not know join anew; what it thinks is still to be done runs again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from pillion.events import LeaseLost
from tests.conftest import NewServer
from tests.servers import Server
from tests.servers_misbehave.conftest import Bed, NewBed
from tests.servers_misbehave.jobs import Diary, Errand, Lingers
from tests.store.relay import Relay
from tests.waiting import wait_until


def flushed(server: Server) -> None:
    server.client().flushall()


def restarted(server: Server) -> None:
    """It has no file, and comes back empty."""
    server.restart()


@pytest.mark.parametrize("empty", [flushed, restarted], ids=lambda empty: empty.__name__)
def test_who_lost_everything_with_the_server_joins_anew_and_goes_on(
    new_server: NewServer, new_bed: NewBed, diary: Diary, empty: Callable[[Server], None]
) -> None:
    server = new_server()
    bed = new_bed(server)
    bed.start()
    held = bed.send(Lingers, 2)
    bed.until_started(held)
    (before,) = bed.owners()

    empty(server)
    bed.until(lambda: bed.times(LeaseLost), "the loss to be noticed")
    (lost,) = [each for each in bed.heard if isinstance(each, LeaseLost)]
    assert (lost.owner, lost.running) == (before, 2)
    bed.until_works()
    (after,) = bed.owners()
    assert after != before
    diary.go.set()
    bed.until_ended(held)
    bed.until_works()
    assert not bed.redis.exists("queue:default", "retry", "dead", f"pillion:inf:{before}")
    assert {diary.count("start")[jid] for jid in held} == {1}


def test_an_idle_worker_hears_of_jobs_after_a_flush(bed: Bed) -> None:
    bed.start()
    bed.until_works()
    for _ in range(3):
        bed.redis.flushall()
        bed.until_works()


def test_a_backup_brings_back_what_was_done_since_and_nothing_is_stranded(
    new_server: NewServer, new_bed: NewBed, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker finds its old claims in the backup, which it has long settled: they run again."""
    monkeypatch.setattr("pillion.worker.fetcher.AUDIT_EVERY", 0.3)
    server = new_server()
    bed = new_bed(server)
    bed.start()
    held = bed.send(Lingers, 2)
    bed.until_started(held)
    kept = bed.client.push({"class": Errand, "args": [], "queue": "unserved"})
    bed.redis.save()
    shutil.copy(server.folder / "dump.rdb", server.folder / "backup.rdb")
    diary.go.set()
    bed.until_ended(held)
    lost = bed.client.push({"class": Errand, "args": [], "queue": "unserved"})
    bed.until(lambda: not claims(bed), "what ran to be settled")

    server.kill()
    shutil.copy(server.folder / "backup.rdb", server.folder / "dump.rdb")
    server.restart()
    bed.until(lambda: all(diary.count("end")[jid] == 2 for jid in held), "what the backup holds to run again")
    bed.until_works()
    bed.until(lambda: not claims(bed), "everything to be settled")
    assert [job["jid"] for job in bed.waiting("unserved")] == [kept]
    assert lost not in diary.count("start")
    assert not bed.redis.exists("queue:default", "retry", "dead")


def claims(bed: Bed) -> list[bytes]:
    """The trays that are held by anybody."""
    return [field for owner in bed.owners() for field in bed.redis.hkeys(f"pillion:inf:{owner}") if field.isdigit()]


@pytest.fixture
def replica(new_server: NewServer, own_server: Server) -> Server:
    """A replica of `own_server`."""
    own_server.client().config_set("repl-diskless-sync-delay", "0")
    return new_server("--replicaof", f"127.0.0.1 {own_server.port}")


@pytest.fixture
def relay(own_server: Server) -> Iterator[Relay]:
    relay = Relay(str(own_server.socket_path))
    yield relay
    relay.close()


def fall_behind(server: Server, replica: Server) -> None:
    """Wait until the replica has everything, and cut it off: what comes now it will not know."""
    wait_until(lambda: has_all(server.client(), replica.client()), what="the replica to have everything")
    replica.client().replicaof("NO", "ONE")


def has_all(primary: redis.Redis, replica: redis.Redis) -> bool:
    ours: dict[str, Any] = primary.info("replication")
    theirs: dict[str, Any] = replica.info("replication")
    return theirs["master_link_status"] == "up" and theirs["slave_repl_offset"] == ours["master_repl_offset"]


def fail_over(relay: Relay, server: Server, replica: Server) -> None:
    """The address leads to what was the replica."""
    server.kill()
    relay.server = str(replica.socket_path)
    relay.cut()


def test_a_failover_to_a_replica_that_was_behind_loses_what_it_missed_and_nothing_else(
    own_server: Server, replica: Server, relay: Relay, new_bed: NewBed, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillion.worker.fetcher.AUDIT_EVERY", 0.3)
    bed = new_bed(own_server, relay.url)
    bed.start()
    claimed = bed.send(Lingers, 2)
    bed.until_started(claimed)
    early = bed.client.push({"class": Errand, "args": [], "queue": "unserved"})
    fall_behind(own_server, replica)
    late = bed.client.push({"class": Errand, "args": [], "queue": "unserved"})
    diary.go.set()
    bed.until_ended(claimed)
    between = bed.send(Errand, 5)
    bed.until_ended(between)
    fail_over(relay, own_server, replica)

    bed.redis = replica.client()
    bed.until(lambda: all(diary.count("end")[jid] == 2 for jid in claimed), "what the replica holds to run again")
    bed.until_works()
    bed.until(lambda: not claims(bed), "everything to be settled")
    assert [job["jid"] for job in bed.waiting("unserved")] == [early]
    assert late not in diary.count("start")
    assert {diary.count("start")[jid] for jid in between} == {1}


def test_a_worker_that_the_replica_never_heard_of_is_fenced_and_joins_anew(
    own_server: Server, replica: Server, relay: Relay, new_bed: NewBed, diary: Diary
) -> None:
    bed = new_bed(own_server, relay.url)
    waiting = bed.send(Lingers, 2)
    fall_behind(own_server, replica)
    bed.start()
    bed.until_started(waiting)
    (before,) = bed.owners()
    fail_over(relay, own_server, replica)

    bed.redis = replica.client()
    bed.until(lambda: bed.times(LeaseLost), "the loss to be noticed")
    (lost,) = [each for each in bed.heard if isinstance(each, LeaseLost)]
    assert (lost.owner, lost.running) == (before, 2)
    diary.go.set()
    bed.until(lambda: all(diary.count("end")[jid] == 2 for jid in waiting), "the runs before and after the failover")
    bed.until(lambda: not claims(bed), "everything to be settled")
    assert [name for name in bed.owners() if name == before] == []
    assert not replica.client().exists("queue:default", "retry", "dead")


def test_scripts_that_are_flushed_all_the_time_are_sent_again(bed: Bed, diary: Diary) -> None:
    jids = bed.send(Errand, 200)
    bed.start()
    flushes = 0
    while not jids <= diary.count("end").keys():
        bed.redis.script_flush()
        flushes += 1
        jids |= bed.send(Errand) if flushes < 100 else set()
        jids |= {bed.client.push({"class": Errand, "args": []}, once=True) or ""} if flushes < 100 else set()
    bed.until_ended(jids)
    bed.until(lambda: not claims(bed), "everything to be settled")
    assert set(diary.count("start").values()) == {1}
    assert bed.heard == []

"""Single rules about pushes: what is asked before anything is sent, how, and where each job of a bulk push goes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any

import pytest
import redis

import pillion
from pillion import Client, PayloadError, Setup, testing
from pillion.store import ops
from tests import leaks
from tests.servers import Server
from tests.store.relay import Relay
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

NOW = 1_800_000_000.0


class Elsewhere(pillion.Job, name="compat_elsewhere"):
    """Runs in another program."""


# --- one job ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("check.after-middleware")
def test_arguments_are_checked_as_middleware_left_them_and_not_before(bed: Harness) -> None:
    def change(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
        (given,) = job["args"]
        job["args"] = [given.isoformat() if isinstance(given, date) else datetime.now(UTC)]
        yield

    bed.setup.client_middleware.add(change)
    bed.push("compat_elsewhere", date(2030, 1, 31))
    with pytest.raises(PayloadError, match=r"args\[0\], got a datetime"):
        bed.push("compat_elsewhere", "2030-01-31")
    assert [job["args"] for job in bed.waiting()] == [["2030-01-31"]]


@pytest.mark.rule("check.class", "b9.1")
@pytest.mark.parametrize("what", [dict, object(), 5, None])
def test_what_is_neither_a_job_nor_a_name_is_refused(bed: Harness, what: object) -> None:
    with pytest.raises(PayloadError, match="expected `class` to be a name"):
        bed.client.push({"class": what, "args": []})
    assert bed.redis.keys("*") == []


@pytest.mark.rule("server.resp3")
@pytest.mark.parametrize("given", ["url", "client"])
def test_connections_speak_resp3_whatever_a_given_client_speaks(server: Server, given: str) -> None:
    theirs = redis.Redis(unix_socket_path=str(server.socket_path), protocol=2)
    setup = Setup(server.url if given == "url" else theirs)
    told = setup.store.run(ops.command("CLIENT", "INFO"))
    setup.store.close()
    theirs.close()
    assert "resp=3" in ops.text(told).split()


@pytest.mark.rule("b9.18", "server.transient")
def test_a_push_for_later_that_a_replica_refused_is_repeated_as_it_was(own_server: Server) -> None:
    relay = Relay(str(own_server.socket_path))
    client = Client(relay.url)
    client.push({"class": "compat_elsewhere", "args": [], "at": NOW * 2})  # so that a connection stands
    own_server.client().replicaof("127.0.0.1", 1)
    relay.met = lambda number: own_server.client().replicaof("NO", "ONE")
    relay.asked.clear()
    jid = client.push({"class": "compat_elsewhere", "args": ["é", 1e20], "at": NOW * 2 + 0.25})
    client.close()
    relay.close()
    first, second = (words for words in relay.asked if words[0] == b"ZADD")
    assert first == second
    assert first[2] == b"3600000000.25"
    assert own_server.client().zscore("schedule", first[3]) == NOW * 2 + 0.25
    assert f'"jid":"{jid}"'.encode() in first[3]


@pytest.mark.rule("server.transient")
def test_a_blocking_command_that_was_unblocked_is_asked_again(own_server: Server) -> None:
    setup, admin = Setup(own_server.url), own_server.client()

    def blocked() -> list[str]:
        return [each["id"] for each in admin.client_list() if each["cmd"] == "blpop"]

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(setup.store.run, ops.command("BLPOP", "gate", 10, safe=False))
        (first,) = wait_until(blocked, what="the command to block")
        admin.client_unblock(int(first), error=True)
        wait_until(lambda: blocked() not in ([], [first]), what="the same command on another connection")
        admin.lpush("gate", "open")
        assert asking.result(10) == [b"gate", b"open"]
    setup.store.close()


@pytest.mark.rule("testing.modes")
def test_disabled_pushes_for_real_though_the_process_collects(bed: Harness) -> None:
    try:
        jobs = testing.everywhere("fake")
        with testing.disabled():
            bed.push("compat_elsewhere", "real")
        bed.push("compat_elsewhere", "collected")
    finally:
        testing.everywhere("disabled")
    assert jobs is not None
    assert [job["args"] for job in jobs] == [["collected"]]
    assert [job["args"] for job in bed.waiting()] == [["real"]]


# --- bulk -------------------------------------------------------------------------------------------------------------


class StandingClock:
    def now(self) -> float:
        return NOW

    def steady(self) -> float:
        return 0.0


@pytest.fixture
def still(server: Server) -> Iterator[Harness]:
    """A client at a time that stands."""
    with harness(server, clock=StandingClock()) as bed:
        yield bed
    leaks.check(server)


def push(bed: Harness, rows: Any, **fields: Any) -> Any:
    return bed.client.push_bulk({"class": "compat_elsewhere", "args": rows, **fields})


@pytest.mark.rule("bulk.size")
@pytest.mark.parametrize(("fields", "command", "slices"), [({}, "lpush", 1), ({"at": NOW + 60}, "zadd", 2)])
def test_what_is_for_later_goes_out_a_hundred_at_a_time(
    still: Harness, fields: dict[str, Any], command: str, slices: int
) -> None:
    still.redis.config_resetstat()
    push(still, [[n] for n in range(101)], **fields)
    stats: dict[str, Any] = still.redis.info("commandstats")
    assert stats[f"cmdstat_{command}"]["calls"] == slices


@pytest.mark.rule("push.bulk-first", instead=True)
@pytest.mark.parametrize("first", [NOW + 60, NOW - 60])
def test_each_job_of_a_slice_goes_where_its_own_time_says(still: Harness, first: float) -> None:
    times = [first, 2 * NOW - first]
    push(still, [[at] for at in times], at=times)
    ((later, score),) = still.redis.zrange("schedule", 0, -1, withscores=True)
    (now,) = still.waiting()
    assert (f'"args":[{NOW + 60}]'.encode() in later, score) == (True, NOW + 60)
    assert (now["args"], "at" in now) == ([NOW - 60], False)


@pytest.mark.rule("bulk.at-scalar", instead=True)
def test_a_time_of_60_is_1970_and_pushed_at_once(still: Harness) -> None:
    push(still, [[1]], at=60)
    assert [job["args"] for job in still.waiting()] == [[1]]
    assert not still.redis.exists("schedule")

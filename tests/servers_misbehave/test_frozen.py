"""A server that answers nobody for longer than a lease: everybody's time is over at once, and nobody is robbed.

A server whose process stands still is in `tests/crash/test_pauses.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import pytest
import redis

from pillion.checks import server as checks_of
from pillion.errors import MaybeEnqueued, Refused, Unavailable
from pillion.events import LeaseLost, StoreBack, StoreDown
from tests.servers import Server
from tests.servers_misbehave.conftest import LEASE, Bed, NewBed
from tests.servers_misbehave.jobs import Diary, Errand, Lingers
from tests.waiting import wait_until

LONGER = 1.3 * LEASE
Frozen: TypeAlias = "Callable[[Server], Iterator[None]]"


def paused(server: Server) -> Iterator[None]:
    """It takes no commands of clients (CLIENT PAUSE), which it goes on to do when its time is over."""
    server.client().client_pause(int((LONGER + 0.3) * 1000), all=True)
    yield
    wait_until(lambda: answers(server), what="the pause to end")


def busy(server: Server) -> Iterator[None]:
    """A script of somebody never ends; the server says BUSY to all others."""
    server.client().config_set("busy-reply-threshold", 50)
    endless = threading.Thread(target=run_endlessly, args=(server,))
    endless.start()
    wait_until(lambda: says_busy(server), what="the server to be busy")
    yield
    server.client().script_kill()
    endless.join()


def run_endlessly(server: Server) -> None:
    with pytest.raises(redis.ResponseError, match="killed"):
        server.client(socket_timeout=20).eval("while true do end", 0)


def says_busy(server: Server) -> bool:
    try:
        server.client().ping()
    except redis.RedisError as error:
        return "BUSY" in str(error) or "busy" in str(error)
    return False


def answers(server: Server) -> bool:
    try:
        return bool(server.client(socket_timeout=0.2).ping())
    except redis.RedisError:
        return False


@pytest.mark.parametrize("freeze", [paused, busy], ids=lambda freeze: freeze.__name__)
def test_a_server_that_answers_nobody_for_longer_than_a_lease_robs_nobody(
    own_server: Server, new_bed: NewBed, diary: Diary, freeze: Frozen
) -> None:
    beds = [new_bed(own_server) for _ in range(2)]
    for bed in beds:
        bed.start()
    bed = beds[0]
    held = bed.send(Lingers, 4)
    bed.until_started(held)
    bed.until(lambda: len(bed.owners()) == 2, "both owners")
    bed.until_steady()
    owners, now = bed.owners(), bed.setup.config.clock.steady

    with contextmanager(freeze)(own_server):
        until = now() + LONGER
        with pytest.raises((MaybeEnqueued, Unavailable, Refused)):
            bed.client.push({"class": Errand, "args": []})
        bed.until(lambda: now() >= until, "the leases to run out")
        assert all(each.times(StoreDown) for each in beds)
    diary.go.set()

    bed.until(lambda: all(each.times(StoreBack) for each in beds), "both to come back")
    bed.until_ended(held)
    bed.until_works()
    bed.until_steady()
    assert bed.owners() == owners
    assert [each.times(LeaseLost) for each in beds] == [0, 0]
    assert {diary.count("start")[jid] for jid in held} == {1}


def test_a_busy_server_is_told_apart_from_one_without_scripts(bed: Bed, own_server: Server) -> None:
    with contextmanager(busy)(own_server):
        with pytest.raises(Refused, match=r"BUSY .*stop it with SCRIPT KILL"):
            bed.client.push({"class": Errand, "args": []})
        (found,) = [check for check in checks_of(bed.setup.store.run, bed.setup.config) if check.ok is False]
        assert "takes no commands just now" in found.detail
        assert "SCRIPT KILL" in found.cure

"""A server whose disk is full: it refuses every write, and PING, until it can write its file again.

The limit of file size that the kernel keeps for a process stands for the disk; it can be set on a server that runs.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
import redis

from pillion.checks import server as checks_of
from pillion.errors import Refused
from pillion.events import LeaseLost, StoreBack, StoreDown
from tests.conftest import NewServer
from tests.servers import Server
from tests.servers_misbehave.conftest import NewBed
from tests.servers_misbehave.jobs import Diary, Errand, Lingers
from tests.waiting import wait_until

NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.fixture
def server(new_server: NewServer) -> Iterator[Server]:
    """It writes its file when a second has passed; with "always" it would end itself."""
    server = new_server(aof="everysec")
    yield server
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, NO_LIMIT)


def fill_the_disk(server: Server) -> None:
    """Let its file grow no more, and wait until it has noticed."""
    size = sum(path.stat().st_size for path in server.folder.rglob("*.aof*"))
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (max(size, 1), resource.RLIM_INFINITY))
    wait_until(lambda: says_misconf(server), what="the disk to be full")


def says_misconf(server: Server) -> bool:
    try:
        server.client().set("filler", "x")
    except redis.RedisError as error:
        return "MISCONF" in str(error)
    return False


def make_room(server: Server) -> None:
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, NO_LIMIT)


def test_a_disk_that_is_full_for_longer_than_a_lease_robs_nobody(server: Server, new_bed: NewBed, diary: Diary) -> None:
    bed, other = new_bed(server), new_bed(server)
    bed.start()
    held = bed.send(Lingers, 2)
    bed.until_started(held)
    waiting = bed.send(Errand, 20)
    bed.until_ended(waiting)
    other.start()
    bed.until(lambda: len(bed.owners()) == 2, "both owners")
    owners = bed.owners()

    fill_the_disk(server)
    bed.until(lambda: bed.times(StoreDown) and other.times(StoreDown), "both to notice")
    with pytest.raises(Refused, match=r"MISCONF .*make room on its disk"):
        bed.client.push({"class": Errand, "args": []})
    bed.until_outlasted()
    diary.go.set()
    make_room(server)

    bed.until(lambda: bed.times(StoreBack) and other.times(StoreBack), "both to come back")
    bed.until_ended(held)
    bed.until_works()
    bed.until_steady()
    assert bed.owners() == owners
    assert (bed.times(LeaseLost), other.times(LeaseLost)) == (0, 0)
    assert {diary.count("start")[jid] for jid in held | waiting} == {1}


def test_checks_name_the_disk_and_not_the_scripts(server: Server, new_bed: NewBed) -> None:
    bed = new_bed(server)
    fill_the_disk(server)
    (found,) = [check for check in checks_of(bed.setup.store.run, bed.setup.config) if check.ok is False]
    assert "MISCONF" in found.detail
    assert "disk" in found.cure
    make_room(server)

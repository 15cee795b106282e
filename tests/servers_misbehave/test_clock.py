"""A server whose clock jumps below a living worker: nobody is robbed, and what is due goes by the new time.

The server's clock cannot be set from here. So the scripts are sent in a form that adds the hours and minutes that the
server keeps in a key to what its TIME says; all else is as it is.
"""

from __future__ import annotations

import hashlib
from functools import cache

import msgspec
import pytest

from pillion.events import LeaseLost
from pillion.store import op, scripts
from tests.servers import Server
from tests.servers_misbehave.conftest import Bed, NewBed
from tests.servers_misbehave.jobs import Diary, Errand, Lingers

OFF = "the:clock:is:off"
TIME = "redis.call('TIME')"
SHIFTED = f"(function() local t = {TIME}; return {{t[1] + (redis.call('GET', '{OFF}') or 0), t[2]}} end)()"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts tell the time with the server's fault."""
    real = scripts.script

    @cache
    def shifted(name: str) -> scripts.Script:
        text = real(name).text.replace(TIME, SHIFTED)
        return msgspec.structs.replace(real(name), text=text, sha=hashlib.sha1(text.encode()).hexdigest())

    assert TIME in real("step").text
    monkeypatch.setattr(op, "script", shifted)


@pytest.mark.parametrize("seconds", [3600, -3600], ids=["an hour ahead", "an hour back"])
def test_a_jump_of_the_servers_clock_robs_nobody_and_loses_nothing(
    own_server: Server, clock: None, new_bed: NewBed, diary: Diary, seconds: int
) -> None:
    beds = [new_bed(own_server) for _ in range(2)]
    bed = beds[0]
    for each in beds:
        each.start()
    held = bed.send(Lingers, 4)
    bed.until_started(held)
    bed.until(lambda: len(bed.owners()) == 2, "both owners")
    bed.until_steady()
    owners, before = bed.owners(), leases(bed)

    bed.redis.set(OFF, seconds)
    bed.until(
        lambda: all(abs(leases(bed)[name] - before[name] - seconds * 1000) < 30_000 for name in owners), "renewals"
    )
    bed.until_works()
    bed.until_steady()
    diary.go.set()
    bed.until_ended(held)
    bed.until_works()
    assert bed.owners() == owners
    assert [each.times(LeaseLost) for each in beds] == [0, 0]
    assert {diary.count("start")[jid] for jid in held} == {1}


def test_jobs_become_due_by_the_servers_clock(own_server: Server, clock: None, new_bed: NewBed) -> None:
    bed = new_bed(own_server)
    bed.start()
    bed.until_works()
    due = bed.client.push({"class": Errand, "args": [], "at": bed.setup.config.clock.now() + 3500}) or ""
    bed.until_works()
    assert bed.redis.zcard("schedule") == 1
    bed.redis.set(OFF, 3600)
    bed.until_ended({due})


def leases(bed: Bed) -> dict[str, float]:
    """When each owner's lease ends, ms of the server's clock."""
    return {name.decode(): score for name, score in bed.redis.zrange("pillion:lease", 0, -1, withscores=True)}

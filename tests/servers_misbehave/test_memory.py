"""A server without memory to spare refuses new jobs and nothing else: what stands there can be worked off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from pillion.errors import QueueFull
from pillion.events import StoreDown
from pillion.store import ops
from tests.servers_misbehave.conftest import Bed
from tests.servers_misbehave.jobs import Diary, Errand, Falls, Rests, Sends, Stumbles


@pytest.fixture
def full(bed: Bed) -> Iterator[Bed]:
    """A bed with jobs in it, whose server has no memory left."""
    yield bed
    bed.redis.config_set("maxmemory", "0")


def fill(bed: Bed) -> None:
    bed.redis.config_set("maxmemory-policy", "noeviction")
    bed.redis.config_set("maxmemory", "1mb")
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        bed.redis.set("x", 1)


def test_workers_drain_a_full_server_and_producers_are_told_what_to_do(
    full: Bed, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    ending = full.send(Errand, 300) | full.send(Stumbles, 5) | full.send(Rests, 5)
    dying = full.send(Falls, 5)
    fill(full)
    full.start()
    for once in (False, True):
        with pytest.raises(QueueFull, match=r"memory is full and it takes no new jobs .* let workers drain the queues"):
            full.client.push({"class": Errand, "args": []}, once=once)

    full.until_ended(ending)
    full.until(lambda: {job["jid"] for job in full.members("dead")} == dying, "the dead set")
    assert (diary.count("end").total(), diary.count("start").total()) == (310, 310 + 5 + 5 + 5)
    assert not full.redis.exists("queue:default", "retry", "schedule")
    full.settled(325)
    (row,) = full.redis.smembers("processes")
    beat = full.redis.hget(row, "beat")
    full.until(lambda: full.redis.hget(row, "beat") != beat, "the next beat")
    told = [each for each in caplog.messages if "OOM" in each]
    assert [each for each in told if not each.startswith("the run log")] == []  # a log must not make it worse

    full.redis.config_set("maxmemory", "0")
    full.until_works()
    assert full.times(StoreDown) == 0
    assert len(full.owners()) == 1


def test_a_job_that_cannot_push_is_retried_and_pushes_when_there_is_room(full: Bed, diary: Diary) -> None:
    diary.push = full.client.push
    (jid,) = full.send(Sends)
    fill(full)
    full.start()
    full.until(lambda: full.members("retry"), "the retry")
    assert full.members("retry")[0]["error_class"] == "QueueFull"
    full.redis.config_set("maxmemory", "0")
    full.until(lambda: diary.count("end").total() == 2, "it and what it pushed")
    assert diary.count("end")[jid] == 1


def test_what_the_dead_held_is_rescued_on_a_full_server(full: Bed) -> None:
    """All that recovery writes is allowed without memory: fencing, giving back, counting the crash."""
    run, keys = full.setup.store.run, full.setup.store.keys
    jids = full.send(Errand, 30)
    gone, want = ops.Owner("gone:1:x/default.1"), ops.Want(30, 1, (("default", 30),))
    assert run(ops.join(keys, gone.name, 100, 5))
    reply = run(ops.step(keys, gone, 100, [], want, dead_max=9, dead_timeout=9))
    assert isinstance(reply, ops.Stepped)
    assert len(reply.claims) == 30
    fill(full)
    full.start()
    full.until_ended(jids)
    full.until(lambda: len(full.owners()) == 1, "the dead owner to be forgotten")

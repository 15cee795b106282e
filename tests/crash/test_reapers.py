"""Rescue itself goes wrong: several reapers at once, and reapers that die between their steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from pillion.events import Events
from pillion.setup import Setup
from pillion.store import ops, rescue
from pillion.store.ops import Owner, Stepped, Want
from pillion.store.rescue import Rescue
from pillion.types import Claim, Done, Settlement
from pillion.worker.reaper import Reaper
from tests.crash.app import Quick
from tests.crash.bed import Bed, ended

pytestmark = pytest.mark.chaos

CLAIMS = 450
"""More than two batches of a salvage."""

RULES: dict[str, Any] = {"dead_max": 10_000, "dead_timeout": 1e6}


def reaper(bed: Bed) -> Reaper:
    """A reaper with a store of its own, that somebody else tells when to act."""
    setup = Setup(**bed.options)
    return Reaper(setup.store, setup.config, Events(), lambda job, error: None)


def dead_owner(bed: Bed, name: str, count: int) -> list[str]:
    """An owner that claims `count` fresh jobs and is never heard of again; the jids, oldest first."""
    jids = bed.push_many(Quick, count, 0)
    run, keys = bed.store.run, bed.store.keys
    assert run(ops.join(keys, name, 60_000, 10))
    for first in range(1, count + 1, 200):
        reply = run(ops.step(keys, Owner(name), 60_000, [], Want(200, first, (("default", 200),)), **RULES))
        assert isinstance(reply, Stepped)
    assert list(bed.held(name).values()) == jids
    return jids


def at_once(works: list[Callable[[], int]]) -> list[int]:
    """Do these at the same moment, each in its thread; their results."""
    barrier, results = threading.Barrier(len(works)), [-1] * len(works)

    def work(i: int) -> None:
        barrier.wait()
        results[i] = works[i]()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results


def test_reapers_at_once_give_each_claim_back_once_and_in_order(bed: Bed) -> None:
    reapers = [reaper(bed) for _ in range(4)]
    for n in range(5):
        name = f"dead:{n}:x/default.1"
        jids = dead_owner(bed, name, CLAIMS)
        waiting = bed.push_many(Quick, 3, 0)
        assert bed.store.run(rescue.fence(bed.store.keys, name, None))
        moved = at_once([partial(each.salvage, name) for each in reapers])
        assert (sum(moved), min(moved) >= 0) == (CLAIMS, True)
        assert bed.standing() == {"queue:default": [*reversed(waiting), *reversed(jids)]}
        assert bed.leftovers() == []
        bed.server.reset()


def test_two_workers_reap_and_each_job_runs_once(bed: Bed) -> None:
    jids = dead_owner(bed, "dead:1:x/default.1", CLAIMS)
    workers = [bed.start_ready() for _ in range(2)]
    assert bed.store.run(rescue.fence(bed.store.keys, "dead:1:x/default.1", None))
    bed.until(lambda: ended(bed, jids) and bed.idle(), "the jobs to be done", *workers)
    assert all(bed.ledger.count("start")[jid] == 1 for jid in jids)
    bed.stop_all()


@pytest.mark.parametrize("salvaged", [0, 1, 200, CLAIMS])
def test_what_a_reaper_left_half_done_another_one_finishes(bed: Bed, salvaged: int) -> None:
    """It died after the fence, in the middle of the first batch, after it, or just before it could say so."""
    name, run, keys = "dead:1:x/default.1", bed.store.run, bed.store.keys
    jids = dead_owner(bed, name, CLAIMS)
    assert run(rescue.fence(keys, name, None))
    newest = list(bed.held(name).items())[::-1][:salvaged]
    for first in range(0, salvaged, 200):
        batch = [Rescue(n, "default", jid) for n, jid in newest[first : first + 200]]
        assert len(run(rescue.salvage(keys, name, batch, **RULES))) == len(batch)
    assert reaper(bed).reap() == CLAIMS - salvaged
    assert bed.standing() == {"queue:default": jids[::-1]}
    assert bed.leftovers() == []


def test_an_owner_that_renews_between_the_look_and_the_fence_stays(bed: Bed) -> None:
    name, run, keys = "late:1:x/default.1", bed.store.run, bed.store.keys
    jids = dead_owner(bed, name, 3)
    assert run(rescue.lapsed(keys, 60_000, now=time.time() + 120)).expired == [name]
    assert not run(rescue.fence(keys, name, 60_000))
    done = [Settlement(Claim(name, min(bed.held(name)), "default", b""), Done())]
    assert isinstance(run(ops.step(keys, Owner(name), 60_000, done, Want(0, 4, ()), **RULES)), Stepped)
    assert list(bed.held(name).values()) == jids[1:]


def test_an_idle_worker_that_is_killed_leaves_nothing_behind(bed: Bed) -> None:
    workers = [bed.start_ready() for _ in range(3)]
    for worker in workers[:2]:
        worker.kill()
    bed.until(lambda: bed.leftovers() == bed.leftovers_of(workers[2]), "the dead to be forgotten", workers[2])
    bed.stop_all()


def test_a_join_whose_reply_was_lost_leaves_nothing_behind(bed: Bed) -> None:
    assert bed.store.run(ops.join(bed.store.keys, "nobody:1:x/default.1", 100, 5))
    worker = bed.start_ready()
    bed.until(lambda: bed.leftovers() == bed.leftovers_of(worker), "the owner without a process to go", worker)
    bed.stop_all()

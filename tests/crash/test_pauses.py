"""Processes that stand still for longer than their lease, and go on: what was taken from them stays taken."""

from __future__ import annotations

from typing import Any

import pytest

from pillion.store import rescue
from tests.crash.app import Held, HeldAsync, Quick
from tests.crash.bed import LEASE, Bed, Process, ended
from tests.crash.ledger import now

pytestmark = pytest.mark.chaos


def go(bed: Bed, worker: Process) -> None:
    """Let the jobs that this worker holds come to their end."""
    (bed.folder / f"go-{worker.pid}").touch()


def stood_still(seconds: float) -> Any:
    """A condition that is met so many seconds from now: the one thing to wait for where processes stand still."""
    until = now() + seconds
    return lambda: now() >= until


@pytest.mark.slow
def test_a_worker_stopped_past_its_lease_settles_nothing_that_was_taken_from_it(bed: Bed) -> None:
    paused = bed.start_ready(concurrency=6)
    folder = str(bed.folder)
    jobs = [(Held, 0), (HeldAsync, 0), (Held, paused.pid), (HeldAsync, paused.pid), (Held, 0)]
    jids = {bed.push(job, folder, fails) for job, fails in jobs}
    bed.until(lambda: bed.ledger.count("start").keys() == jids, "the jobs to start", paused)
    [owner] = bed.owners(paused.pid)
    paused.pause()
    heir = bed.start_ready(concurrency=6)
    bed.until(lambda: bed.held_by(heir.pid) == jids, "the other worker to take the jobs", heir)

    paused.resume()
    bed.until(lambda: bed.ledger.facts("lost"), "the loss to be noticed", paused)
    before = bed.standing(), {name: bed.held(name) for name in bed.owners(heir.pid)}
    go(bed, paused)
    bed.until(lambda: zombie_runs(bed, paused) == len(jids), "the old runs to end", paused)
    [again] = bed.until(lambda: bed.owners(paused.pid), "it to join again", paused)
    after_a_job = bed.push(Quick, 1, queue="other")
    later = bed.start_ready(queues=["other"])
    bed.until(lambda: ended(bed, [after_a_job]), "time to pass", later)
    assert (bed.standing(), {name: bed.held(name) for name in bed.owners(heir.pid)}) == before
    assert before[0] == {}

    [lost] = bed.ledger.facts("lost")
    assert (lost.owner, lost.n, lost.pid) == (owner, len(jids), paused.pid)
    assert (owner.rpartition(".")[2], again.rpartition(".")[2]) == ("1", "2")
    go(bed, heir)
    bed.until(bed.idle, "the jobs to be done", heir)
    assert {fact.jid for fact in bed.ledger.facts("end") if fact.pid == heir.pid} == jids
    heir.stop()
    last = bed.push(Quick, 1)
    bed.until(lambda: ended(bed, [last]), "a job under the next epoch", paused)
    [run] = bed.ledger.facts("end", last)
    assert run.owner == again
    bed.stop_all()
    assert bed.processed() == len(jids) + 2


def zombie_runs(bed: Bed, worker: Process) -> int:
    """How many runs of this worker have come to an end, good or bad."""
    return sum(fact.pid == worker.pid for what in ("end", "fail") for fact in bed.ledger.facts(what))


@pytest.mark.slow
def test_when_the_whole_machine_slept_nobody_robs_anybody(bed: Bed) -> None:
    """All leases are over at once, and all their owners alive: the outage amnesty."""
    workers = [bed.start_ready(concurrency=3) for _ in range(2)]
    jids = {bed.push(job, str(bed.folder)) for job in (Held, HeldAsync) * 3}
    bed.until(lambda: bed.ledger.count("start").keys() == jids, "the jobs to start", *workers)
    bed.until(lambda: steady(bed), "the reapers to be free to act", *workers)
    owners = bed.owners()
    for worker in workers:
        worker.pause()
    bed.until(stood_still(1.3 * LEASE), "the leases to run out")
    for worker in workers:
        worker.resume()
        bed.until(stood_still(0.5 * LEASE), "its reaper to look around before the next one wakes up", *workers)
    bed.until(stood_still(1.5 * LEASE), "the reapers to look around again", *workers)
    for worker in workers:
        go(bed, worker)
    bed.until(bed.idle, "the jobs to be done", *workers)
    assert bed.owners() == owners
    assert (bed.ledger.facts("lost"), bed.ledger.facts("rescued")) == ([], [])
    assert all(bed.ledger.count("start")[jid] == 1 for jid in jids)
    bed.stop_all()


def steady(bed: Bed) -> bool:
    """Whether whoever is found expired now would be fenced."""
    return bed.store.run(rescue.lapsed(bed.store.keys, int(LEASE * 1000))).steady


@pytest.mark.slow
def test_an_outage_longer_than_the_lease_makes_nobody_rob_anybody(bed: Bed) -> None:
    workers = [bed.start_ready(concurrency=3) for _ in range(2)]
    jids = {bed.push(job, str(bed.folder)) for job in (Held, HeldAsync) * 3}
    bed.until(lambda: bed.ledger.count("start").keys() == jids, "the jobs to start", *workers)
    bed.until(lambda: steady(bed), "the reapers to be free to act", *workers)
    owners = bed.owners()
    for fault, repair in ((bed.server.kill, bed.server.restart), (bed.server.pause, bed.server.resume)):
        fault()
        bed.until(stood_still(1.3 * LEASE), "the leases to run out", *workers)
        repair()
        bed.until(stood_still(2 * LEASE), "the reapers to look around", *workers)
    for worker in workers:
        go(bed, worker)
    bed.until(bed.idle, "the jobs to be done", *workers)
    assert bed.owners() == owners
    assert all(bed.ledger.count("start")[jid] == 1 for jid in jids)
    bed.stop_all()

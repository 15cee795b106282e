"""The killing proof: many jobs, many kills of workers and of the server at random moments, and not one job lost.

The seed is printed and may be given as CRASH_SEED; it decides every pause and every victim, though not how the machine
schedules. CRASH_JOBS, CRASH_KILLS, CRASH_OUTAGES and CRASH_SECONDS make a longer run of it.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Sequence

import pytest

from tests.crash.account import BOUND, Account, draw_up
from tests.crash.app import Held, HeldAsync
from tests.crash.bed import Bed, ended
from tests.crash.chaos import Producer, RedisKiller, Thread, WorkerKiller
from tests.crash.ledger import now

JOBS = int(os.environ.get("CRASH_JOBS", "20000"))
KILLS = int(os.environ.get("CRASH_KILLS", "50"))
OUTAGES = int(os.environ.get("CRASH_OUTAGES", "10"))
SECONDS = float(os.environ.get("CRASH_SECONDS", "50"))
LONGEST_OUTAGE = 1.8


@pytest.mark.rule("move.fetch", instead=True)
@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(SECONDS + 180)
def test_no_job_is_lost_whoever_is_killed(bed: Bed, figures: Callable[[str], None]) -> None:
    seed = os.environ.get("CRASH_SEED") or str(random.SystemRandom().randrange(10**9))
    over = threading.Event()
    producers = [
        Producer(bed, JOBS // 2, 0.7 * SECONDS, random.Random(f"{seed} {colour}"), use_asyncio=colour == "async")
        for colour in ("sync", "async")
    ]
    workers = WorkerKiller(bed, KILLS, SECONDS, random.Random(f"{seed} workers"), over)
    servers = RedisKiller(bed, OUTAGES, SECONDS, LONGEST_OUTAGE, random.Random(f"{seed} servers"), over)
    began = now()
    works = [*(each.work for each in producers), workers.work, servers.work]
    run([Thread(work) for work in works], over)
    bed.until(bed.idle, "every job to be done", *workers.workers, timeout=60)
    quiet = now()
    account = draw_up(bed, [each.pushed for each in producers], workers.kills, quiet)
    figures(report(seed, bed, producers, workers, servers, account, quiet - began))
    assert (account.lost, account.foreign) == (set(), set())
    assert account.unexplained == {}
    assert account.innocent == set()
    assert [recovery for recovery in account.recoveries if recovery.served > BOUND] == []
    assert (len(workers.kills), len(servers.outages)) == (KILLS, OUTAGES)
    bed.stop_all()


@pytest.mark.slow
@pytest.mark.chaos
def test_when_all_workers_are_killed_at_once_the_next_ones_rescue(bed: Bed, figures: Callable[[str], None]) -> None:
    """Nobody is left who could show that the server was there: the newcomers wait a lease longer, and no more."""
    victims = [bed.start_ready(concurrency=3) for _ in range(2)]
    jids = {bed.push(job, str(bed.folder)) for job in (Held, HeldAsync) * 3}
    bed.until(lambda: bed.ledger.count("start").keys() == jids, "the jobs to start", *victims)
    for victim in victims:
        victim.kill()
    heir = bed.start_ready(concurrency=6)
    joined = now()
    (bed.folder / f"go-{heir.pid}").touch()
    bed.until(lambda: ended(bed, jids), "the jobs to run again", heir)
    last = max(fact.at for fact in bed.ledger.facts("start") if fact.pid == heir.pid)
    figures(f"  all workers killed: recovery {last - joined:.2f} s after the next one joined, bound {BOUND:.2f} s")
    assert last - joined <= BOUND
    bed.stop_all()


def run(threads: Sequence[Thread], over: threading.Event) -> None:
    """Run the chaos until every thread has done its share."""
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS * 2 + 60)
            thread.check()
            assert not thread.is_alive(), f"{thread.name} has not done its share in time"
    finally:
        over.set()
        for thread in threads:
            thread.join(30)


def report(
    seed: str,
    bed: Bed,
    producers: Sequence[Producer],
    workers: WorkerKiller,
    servers: RedisKiller,
    account: Account,
    seconds: float,
) -> str:
    """The figures of the run."""
    pushed = [each.pushed for each in producers]
    accepted, unknown = (sum(len(getattr(each, name)) for each in pushed) for name in ("accepted", "unknown"))
    unsent = sum(each.unsent for each in pushed)
    stranded = sum(len(kill.stranded) for kill in workers.kills)
    lines = (
        f"CRASH_SEED={seed}, {bed.server.kind}, {seconds:.0f} s",
        f"{accepted} jobs accepted, {unknown} unknown ({account.unknown_ran} ran), {unsent} refused",
        f"killed: {len(workers.kills)} workers at work, {workers.early} starting, {len(servers.outages)} servers",
        f"{stranded} jobs stranded, {len(account.lost)} lost, {account.buried} buried as pills",
        f"{account.again} run more than once, {len(account.unexplained)} of them without a kill that explains it",
        account.figures(),
    )
    return "\n".join(f"  {line}" for line in lines)

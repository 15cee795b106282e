"""Jobs that take ten times as long as the lease: renewed all the while, they run once."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.crash.app import Quick, QuickAsync
from tests.crash.bed import LEASE, Bed, Process, ended
from tests.crash.ledger import now

pytestmark = [pytest.mark.chaos, pytest.mark.slow]
LONG = 10 * LEASE
RESTARTS = 3


class Side:
    """A bed with two workers and four long jobs: on threads and on loops, in a full worker and in one with room."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.workers: list[Process] = [bed.start_ready(concurrency=2), bed.start_ready(concurrency=4, queues=["busy"])]
        places = [(job, queue) for job in (Quick, QuickAsync) for queue in ("default", "busy")]
        self.jids = {bed.push(job, LONG * 1000, queue=queue) for job, queue in places}
        bed.until(lambda: bed.ledger.count("start").keys() == self.jids, "the jobs to start", *self.workers)
        self.owners = bed.owners()

    def run_short_ones(self) -> None:
        """Keep the worker that has room busy for a moment."""
        short = self.bed.push_many(Quick, 10, 20, queue="busy")
        self.bed.until(lambda: ended(self.bed, short), "the short ones", *self.workers)

    def check(self) -> None:
        """Each ran once, under its first owner."""
        bed = self.bed
        bed.until(bed.idle, "everything to be settled", *self.workers)
        assert all(bed.ledger.count(what)[jid] == 1 for jid in self.jids for what in ("start", "end"))
        assert bed.ledger.facts("lost") == bed.ledger.facts("rescued") == []
        assert bed.owners() == self.owners
        bed.stop_all()


def test_a_job_of_ten_leases_runs_once(new_bed: Callable[[], Bed]) -> None:
    """On one side nothing else happens; on the other, the server is killed and comes back meanwhile."""
    calm, rough = Side(new_bed()), Side(new_bed())
    began = now()
    kills = [began + LONG * (i + random.random()) / RESTARTS for i in range(RESTARTS)]
    while not (ended(calm.bed, calm.jids) and ended(rough.bed, rough.jids)):
        assert now() - began < 2 * LONG
        if kills and now() >= kills[0]:
            kills.pop(0)
            rough.bed.server.kill()
            rough.bed.server.restart()
        calm.run_short_ones()
        rough.run_short_ones()
    calm.check()
    rough.check()

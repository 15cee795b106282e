"""Worker processes that die, that die with a reply unread, and that stand still for longer than their lease."""

from __future__ import annotations

from random import Random

from tests.crash.bed import LEASE
from tests.crash.chaosbed import ChaosBed, Hit
from tests.crash.fault import Excuse, Fault
from tests.crash.ledger import now
from tests.crash.mix import MixGreedy
from tests.crash.processes import Pid

STAGGER = 1.5


class WorkerCrash(Fault):
    """kill -9 of one worker, of two, of all; of a supervisor's child, of its zygote, of itself, of the whole family."""

    id, title = "T1", "worker killed (`kill -9`): one, two, all; child, zygote, supervisor"
    trials, clock, short = 3000, "inject", True
    _nobody_left = False

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        if bed.supervisor is not None:
            self._kill_of_a_family(bed, rng)
            return
        how = rng.choices(("one", "two", "rescuer", "all"), (70, 12, 12, 6))[0]
        bed.plan(f"{how} killed")
        workers = bed.workers  # one may be missing: a deadly job
        victims = rng.sample(workers, min(len(workers), {"one": 1, "two": 2, "rescuer": 2, "all": 3}[how]))
        for i, victim in enumerate(victims):
            if i and how == "rescuer":
                bed.wait(rng.uniform(0, STAGGER))  # while it gives back the jobs of the first
            bed.kill(victim)
        bed.bound += STAGGER * (how == "rescuer")
        self._nobody_left = how == "all"

    def _kill_of_a_family(self, bed: ChaosBed, rng: Random) -> None:
        how = rng.choices(("child", "zygote", "supervisor", "family"), (82, 6, 6, 6))[0]
        bed.plan(f"{how} killed")
        supervisor = bed.supervisor
        assert supervisor is not None
        if how == "child":
            bed.kill(bed.victim(rng))
            return
        family = bed.family()
        zygotes = [each for each in family if each.pid not in {worker.pid for worker in bed.workers}]
        if how == "zygote":
            for zygote in zygotes:
                bed.kill(zygote)
            return
        for each in family:
            bed.hit(each)  # the children stop by themselves and give back what they run
        bed.kill(supervisor)
        for each in family if how == "family" else ():
            bed.kill(each)
        self._nobody_left = True

    def heal(self, bed: ChaosBed) -> None:
        """Where nobody is left to rescue anybody, the clock starts with the next one's join and runs a lease longer."""
        if self._nobody_left:
            old = {hit.pid for hit in bed.hits}
            bed.replace()
            bed.until(lambda: {worker.pid for worker in bed.workers} - old, "a new worker to join", timeout=60)
            bed.marked = now()
            bed.bound += LEASE
        self._nobody_left = False


class UnreadReply(Fault):
    """A worker stands still, the server hands it jobs that are pushed, and it dies without having read of them."""

    id, title = "T2", "worker killed with a reply of the server unread"
    trials, clock, short = 3000, "inject", True

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        victim = bed.victim(rng)
        seconds = rng.uniform(0, 0.3)
        bed.plan(f"stopped, killed {seconds:.3f} s later")
        bed.pause(victim)
        bed.wait(seconds)
        bed.kill(victim)


class Frozen(Fault):
    """Processes stand still for half a lease up to three and go on; or a job holds the interpreter for two leases."""

    id, title = "T6", "worker frozen for 0.5 to 3 leases, then it goes on"
    trials, short = 1000, True

    def __init__(self) -> None:
        self._frozen: list[Pid] = []
        self._greedy = ""

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        seconds = LEASE * rng.uniform(0.5, 3.0)
        how = rng.choices(("one", "two", "all", "greedy"), (60, 15, 10, 15))[0]
        bed.plan(f"{how} frozen {seconds:.2f} s")
        self._greedy = "none"
        if how == "greedy":
            self._hold_the_interpreter(bed)
            return
        workers = bed.workers
        if bed.supervisor is not None and how != "one":
            workers = [bed.supervisor, *workers]
        self._frozen = rng.sample(workers, {"one": 1, "two": min(2, len(workers)), "all": len(workers)}[how])
        for each in self._frozen:
            bed.pause(each)
        bed.wait(seconds)

    def heal(self, bed: ChaosBed) -> None:
        for each in self._frozen:
            bed.resume(each)
        self._frozen = []

    def excuse(self, bed: ChaosBed) -> Excuse:
        for start in bed.ledger.facts("start", self._greedy):
            bed.hits.append(Hit(start.pid, start.at))  # it goes from hand to hand and costs each its lease
        return Excuse()

    def _hold_the_interpreter(self, bed: ChaosBed) -> None:
        self._greedy = bed.push(MixGreedy, 2 * LEASE * 1000)
        bed.pushed.accept([self._greedy])
        bed.until(lambda: bed.ledger.facts("start", self._greedy), "the greedy job to start")
        bed.wait(2 * LEASE)

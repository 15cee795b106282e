"""The server goes away and comes back with all that it had acknowledged."""

from __future__ import annotations

import signal
from random import Random

from tests.crash.chaosbed import ChaosBed, Hit
from tests.crash.fault import Excuse, Fault


class Restart(Fault):
    """The server is killed or ended, is away for 0.05 to 5 s, and comes back; a worker may stop meanwhile."""

    id, title = "T11", "server restarted or killed, away 0 to 5 s"
    trials, short = 1000, True

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        how = rng.choice(("killed", "ended", "killed twice"))
        seconds = 0.05 * 100 ** rng.random()
        stopping = rng.random() < 0.15
        bed.plan(f"server {how}, away {seconds:.2f} s" + ", a worker stops meanwhile" * stopping)
        told = bed.victim(rng)
        bed.down()
        (bed.server.stop if how == "ended" else bed.server.kill)()
        if stopping:
            bed.hit(told)
            told.signal(signal.SIGTERM)
        bed.wait(seconds)
        if how == "killed twice":
            bed.server.restart()
            bed.wait(rng.uniform(0, 0.2))
            bed.server.kill()

    def excuse(self, bed: ChaosBed) -> Excuse:
        """Two outages within one lease, neither half as long: who missed the moment between them may lose its lease."""
        if "killed twice" in bed.planned():
            for fact in bed.ledger.facts("lost", since=bed.began):
                bed.hits.append(Hit(fact.pid, bed.outages[0][0]))
        return Excuse()

    def heal(self, bed: ChaosBed) -> None:
        bed.server.restart()
        bed.up()

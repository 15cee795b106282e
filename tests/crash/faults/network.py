"""Machines that vanish from the network with their connections open, and cables that carry only one way, or nothing."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from random import Random

from tests.crash.fault import Score
from tests.crash.faults.owners import Played, wait
from tests.crash.ledger import now
from tests.crash.netns import Cable, Way
from tests.crash.stage import LEASE, Stage
from tests.crash.victim import Actor, Held, Quick

WAYS: tuple[Way, ...] = ("to the server", "from the server", "both")
DETECTED = 15.0


class Cabled(Played):
    """One worker in a network of its own, one beside the server."""

    arguments = ("--bind", "0.0.0.0", "--protected-mode", "no")

    @classmethod
    def unable(cls) -> str:
        able = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip")
        return "" if able else "it takes a network namespace, and so root on Linux with iproute2"

    def act(self, stage: Stage, rng: Random, score: Score) -> None:
        cable = Cable()
        try:
            far = {**stage.setup_options["redis"], "url": f"redis://{cable.here}:{stage.server.port}/0"}
            self.part(stage, cable, stage.start_ready(options={"netns": cable.name}, redis=far), rng, score)
        finally:
            cable.close()

    def part(self, stage: Stage, cable: Cable, far: Actor, rng: Random, score: Score) -> None:
        """Play it; `far` is the worker behind the cable."""
        raise NotImplementedError


class Ghost(Cabled):
    """The cable is pulled and the worker killed: the server goes on believing in its connections."""

    id, title, trials, block = "T3", "worker's machine vanishes, the server keeps its connections", 300, 10

    def part(self, stage: Stage, cable: Cable, far: Actor, rng: Random, score: Score) -> None:
        held = set(stage.push(Held, 3, str(stage.folder)))
        stage.until(lambda: held <= stage.started(), "the jobs to start")
        stage.push(Quick, 5, 30)
        near = stage.start_ready()
        stage.let_go(near)
        wait(rng.uniform(0, LEASE / 3))
        cable.pull()
        gone = now()
        far.kill()
        believed = sum(client["addr"].startswith(cable.there) for client in stage.redis.client_list())
        stage.check(believed > 0, "the server has noticed, and it should not have")
        stage.push(Quick, 5, 30)
        stage.until(lambda: held <= stage.ended(), "the jobs to come back")
        first_again = {fact.jid: fact.at for fact in stage.ledger.facts("start") if fact.at > gone}
        score.recovery = max(first_again[jid] for jid in held) - gone
        score.plan = f"{believed} connections that nobody has"
        stage.finish((0, -signal.SIGKILL))


class HalfOpen(Cabled):
    """Packets vanish on one way or on both, for less than a lease or for more; then they arrive again."""

    id, title, trials, block = "T12", "packets vanish one way or both, then arrive again", 300, 10

    def part(self, stage: Stage, cable: Cable, far: Actor, rng: Random, score: Score) -> None:
        way, seconds = rng.choice(WAYS), LEASE * rng.uniform(0.3, 4)
        score.plan = f"{way}, {seconds:.2f} s"
        near = stage.start_ready()
        stage.push(Quick, 20, 30)
        wait(rng.uniform(0, LEASE / 3))
        cable.swallow(way)
        stage.push(Quick, 10, 30)
        wait(seconds)
        cable.restore(way)
        restored = now()
        [last] = stage.push(Quick, 1, 0, queue="other")
        near.tell(signal.SIGTERM)
        stage.until(lambda: not near.is_alive(), "the near worker to leave")
        stage.patience = DETECTED
        stage.until(lambda: last in stage.ended() and stage.is_quiet(), "the far worker to go on")
        [again] = stage.push(Quick, 1, 0)
        stage.until(lambda: again in stage.ended(), "the far worker to take another job")
        score.recovery = next(fact.at for fact in stage.ledger.facts("end", again)) - restored
        stage.finish()

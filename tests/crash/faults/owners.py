"""Leases that are held for long, and names that come twice."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from random import Random
from typing import Any

from tests.crash.fault import Scenario, Score
from tests.crash.ledger import now
from tests.crash.stage import LEASE, Stage
from tests.crash.victim import Held, HeldAsync, Quick
from tests.servers import Kind, Server

LEASES = 10


class Played(Scenario):
    """A scenario on a stage of its own: `act` plays, what it raises is wrong."""

    aof: Any = None
    arguments: tuple[str, ...] = ()

    def play(self, rng: Random, folder: Path, server: Kind) -> Score:
        running = Server(server)
        score = Score()
        try:
            running.start(*self.arguments, aof=self.aof)
            stage = Stage(running, folder / "s")
            try:
                self.act(stage, rng, score)
            except AssertionError as error:
                score.wrong.append(str(error))
            finally:
                score.wrong += stage.faults
                score.accepted, score.again = len(stage.jids), stage.again
                score.lost = sorted(stage.jids - stage.ended())
                stage.close()
        finally:
            running.close()
        return score

    def act(self, stage: Stage, rng: Random, score: Score) -> None:
        """Play it."""
        raise NotImplementedError


class LongJob(Played):
    """Jobs run for ten leases while the server is killed and comes back, once or twice: each runs once."""

    id, title, trials, block = "T5", f"jobs of {LEASES} leases while the server restarts", 300, 10
    aof = "always"

    def act(self, stage: Stage, rng: Random, score: Score) -> None:
        workers = [stage.start_ready(), stage.start_ready()]
        held = [*stage.push(Held, rng.randint(1, 3), str(stage.folder))]
        held += stage.push(HeldAsync, rng.randint(1, 3), str(stage.folder))
        stage.until(lambda: set(held) <= stage.started(), "the jobs to start")
        end = now() + LEASES * LEASE
        restarts = rng.choice((1, 2))
        score.plan = f"{len(held)} jobs, {restarts} restarts"
        for _ in range(restarts):
            wait(rng.uniform(0.5, 3) * LEASE)
            stage.server.kill()
            wait(rng.uniform(0, 2) * LEASE)
            stage.server.restart()
        wait(end - now())
        for worker in workers:
            stage.let_go(worker)
        stage.finish()
        stage.check(stage.again == 0, f"{stage.again} jobs ran again")


class SameName(Played):
    """Two processes with the same host, process id and nonce; the first is killed, frozen, or lives on."""

    id, title, trials, block = "T7", "two processes with the same identity", 300, 25

    def act(self, stage: Stage, rng: Random, score: Score) -> None:
        name = "twin:1:0123456789ab"
        what = rng.choice(("killed", "frozen", "neither"))
        score.plan = f"the first is {what}" if what != "neither" else "both live"
        first = stage.start(options={"identity": name})
        held = set(stage.push(Held, 2, str(stage.folder)))
        stage.until(lambda: held <= stage.started(), "the first to start jobs")
        if what != "neither":
            first.tell(signal.SIGKILL if what == "killed" else signal.SIGSTOP)
        second = stage.start(options={"identity": name})
        stage.push(Quick, 6, 5)
        stage.until(lambda: f"{name}/default.2" in stage.owners(), "the second to take another name")
        wait(rng.uniform(0, 2) * LEASE)
        if what == "frozen":
            first.tell(signal.SIGCONT)
        for process in (first, second):
            stage.let_go(process)
        stage.finish((0, -signal.SIGKILL))
        stage.check(what != "neither" or stage.again == 0, f"{stage.again} jobs ran again")


def wait(seconds: float) -> None:
    """Let time pass."""
    time.sleep(max(seconds, 0.0))

"""T38: every failpoint with every action. One block plays each case once, in an order of its own."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.crash.failpoints import CASES
from tests.crash.fault import Scenario, Score
from tests.crash.scenes import Trial
from tests.servers import Kind, Server

TIMES = 50


class Failpoints(Scenario):
    id, title = "T38", f"{len(CASES)} places between two effects: exit, error, standing still, broken connection"
    trials, block = TIMES * len(CASES), len(CASES)

    def __init__(self) -> None:
        self._cases = list(CASES)
        self._played = 0
        self._server: Server | None = None

    def play(self, rng: Random, folder: Path, server: Kind) -> Score:
        if self._server is None:
            rng.shuffle(self._cases)
            self._server = Server(server).start()
        point, action = self._cases[self._played % len(self._cases)]
        self._played += 1
        return score(Trial(point, action, self._server, folder / "trial", nth=rng.randint(1, point.visits)).play())

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.close()


def score(trial: Trial) -> Score:
    """What a trial came to, for the table."""
    unmet = [] if trial.reached else ["nobody came by"]
    return Score(
        accepted=len(trial.jids),
        again=trial.again,
        wrong=[*trial.faults, *unmet],
        plan=f"{trial.point.name}, {trial.action}, time {trial.nth}",
    )

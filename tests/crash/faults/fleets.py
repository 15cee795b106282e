"""Fleets of several kinds: Ruby beside Python, and an old release beside the new one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

from tests.conftest import Ruby
from tests.crash.fault import Scenario, Score
from tests.crash.faults.owners import Played, wait
from tests.crash.processes import ROOT
from tests.crash.stage import LEASE, Stage
from tests.crash.victim import FailsOnce, Quick, QuickAsync
from tests.interop.crew import End, standing
from tests.interop.test_mixed_fleet import HOME, Fleet, finish, left_by, unexplained, whereabouts
from tests.servers import Kind, Server

OLD = "CRASH_OLD_RELEASE"
"""Names the `src` folder of an earlier release; without it the last commit is the earlier one."""

ASK_VERSION = "print Sidekiq::VERSION"


class Mixed(Scenario):
    """Two workers of Ruby's and two of ours on the same queues; one is killed or stopped. Ruby loses what it held."""

    id, title, trials, block = "T31", "Ruby's Sidekiq and Pillion in one fleet, one of them killed or stopped", 300, 25

    @classmethod
    def unable(cls) -> str:
        return "" if shutil.which("ruby") else "there is no Ruby on PATH (Debian: apt-get install ruby-sidekiq)"

    def __init__(self) -> None:
        self._fleet: Fleet | None = None
        self._server: Server | None = None
        self._accepted: dict[str, str] = {}
        self._ends: list[End] = []
        self._lost: set[str] = set()
        self._folder = ""

    def play(self, rng: Random, folder: Path, server: Kind) -> Score:
        fleet = self._fleet or self._begin(server)
        pushed = self._push(fleet, rng)
        side, kill = rng.choice(("ruby", "python")), rng.random() < 2 / 3
        wait(rng.uniform(0, 0.15))
        seat = fleet.seats[side].pop(0)  # who sits there longest has surely begun to work
        fleet.seats[side].append(seat)
        self._ends.append(seat.end(kill=kill))
        seat.sit()
        finish(fleet, self._accepted, self._ends)
        lost = self._accepted.keys() - fleet.ended() - self._lost
        self._lost |= lost
        score = Score(accepted=len(pushed), excused=len(lost), plan=f"{side} {'killed' if kill else 'stopped'}")
        score.wrong += self._wrong(fleet)
        return score

    def _begin(self, server: Kind) -> Fleet:
        path = shutil.which("ruby")
        assert path, "no ruby on PATH (Debian: apt-get install ruby-sidekiq)"
        said = subprocess.run([path, "-rsidekiq", "-e", ASK_VERSION], capture_output=True, text=True, check=True).stdout
        self._server = Server(server).start()
        ruby = Ruby(path, tuple(int(part) for part in said.split(".")[:3]))
        self._folder = tempfile.mkdtemp(prefix="pillion-mixed-")
        self._fleet = Fleet(self._server, Path(self._folder), ruby)
        return self._fleet

    def _push(self, fleet: Fleet, rng: Random) -> dict[str, str]:
        """A burst from each side: jobs for both, and jobs that only one of them knows."""
        pushed: dict[str, str] = {}
        for push in (fleet.ours.push_bulk, lambda item: fleet.console("Sidekiq::Client.push_bulk(args[0])", item)):
            rows = [[round(rng.uniform(2, 60), 1)] for _ in range(40)]
            name, home = rng.choice(list(HOME.items()))
            for item in (
                {"class": "Steady", "queue": "both", "args": rows},
                {"class": name, "queue": "both", "retry_queue": home, "args": rows[:8]},
            ):
                pushed |= dict.fromkeys(push(item), str(item["class"]))
        self._accepted |= pushed
        return pushed

    def _wrong(self, fleet: Fleet) -> list[str]:
        ends = self._ends
        taken = left_by(ends, fleet, side="ruby", killed=True) | left_by(ends, fleet, side="ruby", killed=False)
        wrong = []
        if self._lost ^ taken:
            wrong.append(f"I2: not what Ruby had in its hands: {whereabouts(self._lost ^ taken, fleet, ends)[:2000]}")
        if found := standing(fleet.client):
            wrong.append(f"I1: still standing: {found}")
        if twice := unexplained(fleet, ends):
            wrong.append(f"I4: began too often: {twice}")
        runs = [(fact.jid, "ruby" if fact.owner == "ruby" else "python") for fact in fleet.ledger.facts("start")]
        if strayed := {jid for jid, side in runs if HOME.get(self._accepted.get(jid, ""), side) != side}:
            wrong.append(f"ran on a side that does not know them: {strayed}")
        return wrong

    def close(self) -> None:
        if self._fleet is not None:
            self._fleet.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._server is not None:
            self._server.close()


class Upgrade(Played):
    """Workers of an earlier release and of this one in a fleet; one is killed, or the server; then the old leave."""

    id, title = "T32", "rolling upgrade: the release before and this one, under kills and restarts"
    trials, block = 300, 10
    aof = "always"

    @classmethod
    def unable(cls) -> str:
        known = OLD in os.environ or (ROOT / ".git").exists()
        return "" if known else f"there is no earlier release here: this is no checkout of git, and {OLD} names none"

    def act(self, stage: Stage, rng: Random, score: Score) -> None:
        source = old_release(stage.folder)
        old = [Old(stage, source), Old(stage, source)]
        new = stage.start_ready()
        for each in old:
            stage.until(lambda pid=each.pid: stage.owners(pid), "the old worker to join")
        self._push(stage, rng)
        what = rng.choice(("old killed", "new killed", "server killed", "old told", "nothing"))
        score.plan = what
        wait(rng.uniform(0, LEASE / 3))
        if what == "server killed":
            stage.server.kill()
            wait(rng.uniform(0, 2) * LEASE)
            stage.server.restart()
        elif what != "nothing":
            victim = new if what == "new killed" else old[0]
            victim.tell(signal.SIGTERM if what == "old told" else signal.SIGKILL)
            victim.join(stage.patience)
        stage.start_ready()
        self._push(stage, rng)
        wait(rng.uniform(0, LEASE / 3))
        for each in old:
            each.tell(signal.SIGTERM)
        for each in old:
            each.join(stage.patience)
            stage.check(each.exitcode in (0, -signal.SIGKILL), f"an old worker ended with {each.exitcode}")
        stage.finish((0, -signal.SIGKILL))
        stage.check(stage.again == 0 or "killed" in what, f"{stage.again} jobs ran again, and nobody was killed")

    @staticmethod
    def _push(stage: Stage, rng: Random) -> None:
        stage.push(Quick, rng.randint(5, 20), 10)
        stage.push(QuickAsync, rng.randint(5, 20), 10)
        stage.push(FailsOnce, 2)


class Old:
    """A worker of the earlier release: a fresh interpreter, with that release before this one on its path."""

    role = "worker"

    def __init__(self, stage: Stage, source: Path) -> None:
        options = {"ledger": str(stage.ledger.path), "setup": stage.setup_options, "point": "", "mutation": ""}
        options |= {"once": False, "doubt": False}
        log = (stage.folder / "log-old").open("ab")
        path = os.pathsep.join((str(source), str(ROOT)))
        words = [sys.executable, "-m", "tests.crash.victim", json.dumps(options)]
        with log:
            env = {**os.environ, "PYTHONPATH": path}
            self._popen = subprocess.Popen(words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self._popen.pid
        stage.processes.append(self)  # type: ignore[arg-type]

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def exitcode(self) -> int | None:
        return self._popen.poll()

    def tell(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()

    def join(self, seconds: float) -> None:
        self._popen.wait(seconds)


def old_release(folder: Path) -> Path:
    """The `src` folder of the release before this one."""
    if OLD in os.environ:
        return Path(os.environ[OLD])
    to = folder / "old"
    to.mkdir()
    packed = subprocess.run(["git", "archive", "HEAD", "src"], cwd=ROOT, capture_output=True, check=False)
    assert packed.returncode == 0, f"no earlier release: {OLD} is not set, and this is no checkout of git"
    subprocess.run(["tar", "-x", "-C", str(to)], input=packed.stdout, check=True)
    return to / "src"

"""The three stories of `docs/interop.md`, run as the first lines of `examples/interop` say, by real programs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.conftest import Ruby
from tests.interop.sides import HERE, make_due
from tests.pages import BY_NAME, ROOT
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.cli import Running, environment, running

STORIES = ROOT / "examples" / "interop"
QUICK = f"-W0 -r{HERE / 'quick.rb'}"


class Scene:
    """A folder of `examples/interop` and a server: what is typed there, in how many terminals."""

    def __init__(self, server: Server, folder: Path, logs: Path) -> None:
        self.client: redis.Redis = server.client()
        self._url = server.url
        self._folder = folder
        self._logs = logs

    def run(self, command: str) -> list[str]:
        """Type a command that ends by itself; the lines that it printed."""
        words, env = self._typed(command)
        done = subprocess.run(words, cwd=self._folder, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    @contextmanager
    def sidekiq(self, command: str) -> Iterator[Path]:
        """Start Ruby's worker, ready for work; gives its log, and ends it in order."""
        words, env = self._typed(command)
        log = self._logs / f"ruby-{len(list(self._logs.iterdir()))}"
        with log.open("wb") as out:
            process = subprocess.Popen(
                words, cwd=self._folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        try:
            wait_until(lambda: self._knows(process, log), timeout=30, what="Ruby's worker to register")
            yield log
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
            process.wait(timeout=20)

    @contextmanager
    def pillion(self, command: str) -> Iterator[Running]:
        """Start our worker, ready for work."""
        program, *words = shlex.split(command)
        assert program == "pillion"
        env = {"REDIS_URL": self._url, "PILLION_POLL_INTERVAL_AVERAGE": "0.1"}
        with running(*words, cwd=self._folder, env=env) as worker:
            worker.wait_for("pillion is running")
            yield worker
            assert worker.stop() == 0

    def _knows(self, process: subprocess.Popen[bytes], log: Path) -> bool:
        assert process.poll() is None, log.read_text()
        return any(f":{process.pid}:".encode() in name for name in self.client.smembers("processes"))

    def _typed(self, command: str) -> tuple[list[str], dict[str, str]]:
        words = shlex.split(command)
        env = environment(REDIS_URL=self._url, RUBYOPT=QUICK)
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        programs = {"python": sys.executable, "sidekiq": shutil.which("sidekiq") or "sidekiq"}
        return [programs.get(words[0], words[0]), *words[1:]], env


@pytest.fixture
def scene(server: Server, ruby: Ruby, tmp_path: Path, request: pytest.FixtureRequest) -> Scene:
    return Scene(server, STORIES / request.param, tmp_path)


def heard(log: Path, words: str, times: int = 1) -> None:
    """Wait until a log of Ruby's has these words so often."""
    wait_until(lambda: log.read_text().count(words) >= times, timeout=20, what=f"{words!r} in {log}")
    assert log.read_text().count(words) == times


story = pytest.mark.parametrize


@story("scene", ["ruby_to_python"], indirect=True)
def test_ruby_pushes_and_python_runs(scene: Scene) -> None:
    jids = scene.run("ruby shop.rb")
    assert len(set(jids)) == 4
    with scene.pillion("pillion worker jobs.py -q python") as worker:
        for line in ("resized cat.png to 320", "resized cow.png to 160", "sent invoice 17, urgent"):
            worker.wait_for(line)
        make_due(scene.client, "schedule")
        worker.wait_for("resized dog.png to 640")
        for jid in jids:
            worker.wait_for(jid)
        assert "Traceback" not in worker.heard
    assert scene.client.exists("queue:python", "schedule", "retry", "dead") == 0


@story("scene", ["python_to_ruby"], indirect=True)
def test_python_pushes_and_ruby_runs(scene: Scene) -> None:
    with scene.sidekiq("sidekiq -r ./report.rb -q ruby") as log:
        jids = scene.run("python order.py")
        heard(log, "made the report of 2026-11 as pdf")
        heard(log, "noted that somebody ordered")
        make_due(scene.client, "schedule")
        heard(log, "made the report of 2026-12 as html")
        assert all(jid in log.read_text() for jid in jids)
    assert scene.client.exists("queue:ruby", "schedule", "retry", "dead") == 0


@pytest.mark.slow
@story("scene", ["moving"], indirect=True)
def test_a_class_moves_to_python_and_back(scene: Scene) -> None:
    client = scene.client
    with scene.sidekiq("sidekiq -r ./app.rb") as log:
        scene.run("ruby app.rb")
        heard(log, "HardWorker in Ruby: now 5")
        heard(log, "OtherWorker in Ruby: stays")
        wait_until(lambda: client.zcard("retry"), what="the job that fails in Ruby")
    scene.run("ruby app.rb")  # while no worker runs: these wait in their queue
    assert (client.llen("queue:default"), client.zcard("schedule"), client.zcard("retry")) == (3, 2, 1)

    with scene.pillion("pillion worker app.py -q python") as python:
        with scene.sidekiq("MOVED=HardWorker sidekiq -r ./app.rb") as log:
            heard(log, "HardWorker in Ruby: now 5")  # what stood in the queue stays where it is
            heard(log, "OtherWorker in Ruby: stays")
            wait_until(lambda: client.zcard("retry") == 2, what="the second failure")
            scene.run("MOVED=HardWorker ruby app.rb")
            python.wait_for("HardWorker in Python: now 5")
            python.wait_for("HardWorker in Python: fails 1000")
            make_due(client, "schedule")
            make_due(client, "retry")
            python.wait_for("HardWorker in Python: later 7", times=3)
            python.wait_for("HardWorker in Python: fails 1000", times=3)
            heard(log, "OtherWorker in Ruby: stays", times=2)
            heard(log, "HardWorker in Ruby", times=1)
        assert client.exists("queue:default", "queue:python", "schedule", "retry", "dead") == 0

        scene.run("MOVED=HardWorker ruby app.rb")
        python.wait_for("HardWorker in Python: now 5", times=2)
        python.wait_for("HardWorker in Python: fails 1000", times=4)
    [waits] = client.zrange("schedule", 0, -1)
    assert json.loads(waits)["queue"] == "python"
    with scene.sidekiq("sidekiq -r ./app.rb") as log:  # Python has left
        make_due(client, "schedule")
        heard(log, "HardWorker in Ruby: later 7")
        heard(log, "OtherWorker in Ruby: stays")
    assert client.exists("queue:default", "queue:python", "schedule", "retry", "dead") == 0


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_page_are_those_of_the_examples() -> None:
    page = BY_NAME["interop.md"]
    typed = [re.sub(r"\s+#.*", "", " ".join(words)) for words in page.commands()]
    said = "\n".join(path.read_text() for path in sorted(STORIES.rglob("*.*")))
    ours = [words for words in typed if words.startswith(("ruby ", "sidekiq ", "python ", "pillion worker", "MOVED="))]
    assert len(ours) >= 8
    assert [words for words in ours if words not in said] == []


def test_the_ruby_of_the_page_is_ruby(ruby: Ruby) -> None:
    blocks = BY_NAME["interop.md"].of("ruby")
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [ruby.path, "-c"], input=block.text, capture_output=True, text=True, timeout=30, check=False, env=os.environ
        )
        assert done.returncode == 0, done.stderr

"""The examples, run as their own first lines say: in a terminal's words, against a real server."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from pillion import Client
from tests.servers import Server, short_folder
from tests.waiting import wait_until
from tests.worker.cli import Running, environment, running

EXAMPLES = Path(__file__).parents[2] / "examples"
CENSUS = EXAMPLES / "stdlib_census" / "run.py"
READY = "pillion is running"


@contextmanager
def worker(server: Server, file: str, *flags: str, **variables: str) -> Iterator[Running]:
    """`pillion worker FILE`, ready for work."""
    env = {"REDIS_URL": server.url, **variables}
    with running("worker", file, *flags, cwd=EXAMPLES, env=env) as started:
        started.wait_for(READY)
        yield started


def python(server: Server, *words: str, typed: str = "") -> str:
    """What a Python program prints while `typed` comes from its keyboard."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=EXAMPLES,
        env=environment(REDIS_URL=server.url),
        input=typed,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    return done.stdout


def jobs_in(server: Server, queue: str = "default") -> list[dict[str, Any]]:
    """The jobs of a queue, the next one to run first."""
    return [json.loads(raw) for raw in reversed(server.client().lrange(f"queue:{queue}", 0, -1))]


# --- por.py -----------------------------------------------------------------------------------------------------------


def test_por_pushes_from_a_prompt_and_runs_in_a_worker(server: Server) -> None:
    jid = python(server, "-i", "por.py", typed='OurWorker.perform_async("like a dog", 0)\n').strip().strip("'")
    [job] = jobs_in(server)
    assert (job["class"], job["args"], job["jid"]) == ("OurWorker", ["like a dog", 0], jid)

    with worker(server, "por.py") as crew:
        crew.wait_for("worked like a dog")
        assert crew.stop() == 0
    assert jid in crew.heard
    assert jobs_in(server) == []


# --- our_worker.py ----------------------------------------------------------------------------------------------------


def push(server: Server, complexity: str) -> str:
    client = Client(server.url)
    jid = client.push({"class": "OurWorker", "args": [complexity]})
    client.setup.store.close()
    assert jid is not None
    return jid


@pytest.mark.rule("life.stop", "life.no-failure")
@pytest.mark.rule("life.deadline", instead=True)
def test_a_hard_job_goes_back_to_its_queue_when_the_worker_stops(server: Server) -> None:
    with worker(server, "our_worker.py", "-t", "1") as crew:
        jid = push(server, "hard")
        crew.wait_for("begins hard")
        began = time.monotonic()
        assert crew.stop() == 0
        assert 1 <= time.monotonic() - began < 10
    [job] = jobs_in(server)
    assert job["jid"] == jid
    assert "retry_count" not in job
    assert "cleans up after hard" in crew.heard
    assert "is done with" not in crew.heard


@pytest.mark.rule("life.quiet")
def test_a_quiet_worker_ends_what_it_has_and_takes_nothing_new(server: Server) -> None:
    with worker(server, "our_worker.py", PILLION_HEARTBEAT="0.1") as crew:
        long = push(server, "super_hard")
        push(server, "easy")
        crew.wait_for("begins super_hard")
        crew.wait_for("begins easy")
        crew.process.send_signal(signal.SIGTSTP)
        crew.wait_for("is done with easy")
        wait_until(lambda: [job["jid"] for job in jobs_in(server)] == [long], what="the long job to give itself back")

        new = push(server, "easy")
        see_beats(server, 5)
        assert crew.stop() == 0
    assert [job["jid"] for job in jobs_in(server)] == [long, new]
    assert crew.heard.count("begins ") == 2
    assert "is done with super_hard" not in crew.heard


def see_beats(server: Server, count: int) -> None:
    """Wait for so many heartbeats of the one worker there is; each of them says that it is quiet."""
    client = server.client()
    [identity] = client.smembers("processes")
    beats = set()

    def enough() -> bool:
        quiet, beat = client.hmget(identity, "quiet", "beat")
        if quiet == b"true":
            beats.add(beat)
        return len(beats) > count

    wait_until(enough, what="beats of a quiet worker")


# --- middleware.py ----------------------------------------------------------------------------------------------------


def test_middleware_carries_the_customer_and_logs_the_error(server: Server) -> None:
    said = python(server, "middleware.py").splitlines()
    assert [job["customer"] for job in jobs_in(server)] == [1, 2]
    assert said[-1] == "in another queue: None, stopped by the middleware"
    assert jobs_in(server, "elsewhere") == []

    with worker(server, "middleware.py") as crew:
        crew.wait_for("customer 1 pays 250")
        crew.wait_for("Invoice of customer 2: -1 is no amount {'foo': 1, 'bar': 2}")
        assert crew.stop() == 0
    [failed] = [json.loads(raw) for raw in server.client().zrange("retry", 0, -1)]
    assert (failed["customer"], failed["error_class"]) == (2, "ValueError")


# --- stdlib_census ----------------------------------------------------------------------------------------------------


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Where the census puts its folder; its path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="pillion-census-", dir=short_folder()))
    yield folder
    shutil.rmtree(folder)


class Census:
    """`run.py` with 60 modules, under way. `crew` is its worker's pid."""

    def __init__(self, scratch: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CENSUS), "--modules", "60"],
            env=environment(TMPDIR=str(scratch), PYTHONUNBUFFERED="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline()
        self.crew = int(self.first.rpartition("pid ")[2])

    def end(self) -> tuple[int, str, str]:
        """Its exit code, the rest of its stdout, and its stderr."""
        out, err = self.process.communicate(timeout=90)
        return self.process.returncode, out, err


@contextmanager
def census(scratch: Path) -> Iterator[Census]:
    started = Census(scratch)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.terminate()
            started.end()


def assert_nothing_is_left(run: Census, scratch: Path) -> None:
    assert list(scratch.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(run.crew, 0)


def test_the_census_counts_everything_and_cleans_up(scratch: Path) -> None:
    with census(scratch) as run:
        code, out, err = run.end()
    assert (code, err) == (0, "")
    assert run.first.startswith("counting 64 files")
    assert fates(out) == {
        "missing.py": ("2", "dead set"),
        "broken.py": ("1", "dead set"),
        "binary.py": ("1", "dead set"),
        "late.py": ("2", "counted"),
    }
    assert "\n61 files: " in out
    assert re.search(r"\n60 modules in \d+\.\d\d s: [\d,]+ jobs/s", out)
    name, *figures = first_row(out, "Most functions")
    assert figures == figures_of(name)
    assert_nothing_is_left(run, scratch)


def fates(out: str) -> dict[str, tuple[str, str]]:
    """Of each file in the table of trouble: the attempts, and where it ended."""
    return {
        name: (tries, end) for name, tries, end in re.findall(r"^  (\w+\.py) .* (\d+) +(\w[\w ]*\w)", out, re.MULTILINE)
    }


def first_row(out: str, title: str) -> list[str]:
    lines = out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(title))
    return lines[at + 2].replace(",", "").split()


def figures_of(module: str) -> list[str]:
    """Functions, classes, branches and lines of a module, counted here."""
    path = Path(sysconfig.get_path("stdlib"), *module.split("."))
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_bytes()
    kinds = [type(node).__name__ for node in ast.walk(ast.parse(source))]
    branches = "If IfExp For AsyncFor While ExceptHandler match_case comprehension".split()
    groups = (["FunctionDef", "AsyncFunctionDef"], ["ClassDef"], branches)
    return [*(str(sum(kind in group for kind in kinds)) for group in groups), str(source.count(b"\n"))]


def test_the_census_draws_on_a_terminal(scratch: Path) -> None:
    ours, theirs = pty.openpty()
    env = environment(TMPDIR=str(scratch), TERM="xterm")
    run = subprocess.Popen([sys.executable, str(CENSUS)], env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        read_until(ours, b"counted", b"queue modules", b"per second", b"the next in")
        run.terminate()
        read_until(ours, b"\x1b[?25h")  # the cursor is shown again
        assert run.wait(30) == 128 + signal.SIGTERM
    finally:
        run.terminate()
        os.close(ours)
    assert list(scratch.iterdir()) == []


def read_until(screen: int, *words: bytes) -> None:
    """Read a terminal until all of `words` were on it; raises OSError where it closes before."""
    drawn = b""
    while not all(each in drawn for each in words):
        drawn += os.read(screen, 4096)


def test_a_census_whose_worker_dies_says_so(scratch: Path) -> None:
    with census(scratch) as run:
        os.kill(run.crew, signal.SIGKILL)
        code, _, err = run.end()
    assert code == 1
    assert err.startswith(f"error: the worker (pid {run.crew}) ended too early, with -9; ")
    assert_nothing_is_left(run, scratch)


def test_a_census_that_comes_out_wrong_says_so(scratch: Path) -> None:
    wrong: Mapping[str, int] = {"modules": 3}
    with census(scratch) as run:
        [socket] = scratch.glob("census-*/.pillion/server.sock")
        with redis.Redis(unix_socket_path=str(socket)) as client:
            wait_until(lambda: client.exists("census:demo:counted"), what="the worker to work")
            client.hset("census:demo:summary", "totals", json.dumps(wrong))
        code, _, err = run.end()
    assert code == 1
    assert err.startswith("error: the census is wrong; modules in the summary: expected 61, got 3; ")
    assert_nothing_is_left(run, scratch)


def test_a_census_that_is_stopped_takes_its_worker_along(scratch: Path) -> None:
    with census(scratch) as run:
        run.process.terminate()
        assert run.end()[0] == 128 + signal.SIGTERM
    assert_nothing_is_left(run, scratch)

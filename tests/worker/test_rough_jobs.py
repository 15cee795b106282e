"""Jobs and middleware that misbehave, and signals to a worker process: contained, or at least never a lost job."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.cli import running, write
from tests.worker.harness import Harness, harness

ran: SimpleQueue[Any] = SimpleQueue()
READY = "is running"


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    while not ran.empty():
        ran.get()
    with harness(server) as bed:
        yield bed


@pillion.job
def rough_next(what: str) -> None:
    ran.put(what)


def deep_group(depth: int) -> BaseExceptionGroup[Exception]:
    group: Any = ValueError("innermost")
    for _ in range(depth):
        group = ExceptionGroup("layer", [group])
    return group  # type: ignore[no-any-return]


@pillion.job
def raises_something(what: str) -> None:
    if what == "recursion":
        raises_something(what)
    raise {
        "group": lambda: deep_group(10_000),
        "huge": lambda: ValueError("x" * 10_000_000),
        "bytes": lambda: ValueError(b"\xc3", "\udcff"),
        "generator exit": GeneratorExit,
        "stop iteration": StopIteration,
        "base": type("Own", (BaseException,), {}),
        "cancelled": asyncio.CancelledError,
    }[what]()


@pillion.job
async def araises(what: str) -> None:
    raise {"exit": SystemExit(1), "cancelled": asyncio.CancelledError(), "stop": StopAsyncIteration()}[what]


@pillion.job
def returns_much() -> list[bytes]:
    return [bytes(1_000_000)] * 50


@pillion.job
def leaves_a_mess(folder: str) -> None:
    """Closes its stdout, changes the folder, blocks a signal, leaves a thread behind that is no daemon."""
    os.chdir(folder)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    threading.Thread(target=threading.Event().wait, args=(0.5,), daemon=False).start()
    with contextlib.redirect_stdout(None):
        print("nowhere")


def survives(bed: Harness) -> None:
    bed.push("rough_next", "after")
    assert ran.get(timeout=10) == "after"


@pytest.mark.parametrize(
    "what", ["recursion", "group", "huge", "bytes", "generator exit", "stop iteration", "base", "cancelled"]
)
def test_any_exception_is_a_failure_with_a_text_that_can_be_stored(bed: Harness, what: str) -> None:
    bed.start()
    bed.push("raises_something", what)
    wait_until(lambda: bed.members("retry"), what="the retry")
    (retry,) = bed.members("retry")
    assert len(retry["error_message"]) <= 10_000
    assert retry["error_class"]
    survives(bed)


@pytest.mark.parametrize("what", ["exit", "cancelled", "stop"])
def test_any_exception_of_an_async_job_is_a_failure_too(bed: Harness, what: str) -> None:
    bed.start()
    bed.push("araises", what)
    wait_until(lambda: bed.members("retry"), what="the retry")
    survives(bed)


def test_a_huge_result_is_ignored(bed: Harness) -> None:
    bed.start()
    bed.push("returns_much")
    bed.settled(1)
    survives(bed)


def test_a_job_that_leaves_a_mess_does_not_stop_the_worker(bed: Harness, tmp_path: Path) -> None:
    here = Path.cwd()
    worker = bed.start()
    try:
        bed.push("leaves_a_mess", str(tmp_path))
        bed.settled(1)
        survives(bed)
        assert worker.stop(timeout=2) == []
    finally:
        os.chdir(here)


@pytest.mark.rule("run.order", "b9.51")
@pytest.mark.parametrize(
    "fault", ["raises before", "raises after", "yields twice", "is no generator", "cannot be made"]
)
def test_middleware_that_breaks_fails_the_job_and_nothing_else(bed: Harness, fault: str) -> None:
    class Faulty:
        def __init__(self) -> None:
            if fault == "cannot be made":
                raise RuntimeError("cannot be made")

        def __call__(self, job: object, payload: dict[str, Any], queue: str) -> Any:
            return None if fault == "is no generator" and payload["args"] == ["hit"] else self.run(payload["args"])

        def run(self, args: list[Any]) -> Iterator[None]:
            if args != ["hit"]:
                yield
                return
            if fault == "raises before":
                raise RuntimeError(fault)
            yield
            if fault == "raises after":
                raise RuntimeError(fault)
            if fault == "yields twice":
                yield

    bed.setup.server_middleware.add(Faulty)
    bed.start()
    bed.push("rough_next", "hit")
    wait_until(lambda: bed.members("retry"), what="the retry")
    (retry,) = bed.members("retry")
    assert retry["error_class"] in ("RuntimeError", "MiddlewareError")
    if fault != "cannot be made":
        while not ran.empty():
            ran.get()
        survives(bed)


def test_async_middleware_attaches_to_async_jobs_only(bed: Harness) -> None:
    class Waits:
        async def __call__(self, job: object, payload: dict[str, Any], queue: str) -> AsyncIterator[None]:
            await asyncio.sleep(0)
            ran.put(f"around {payload['class']}")
            yield

    @pillion.job(name="RoughAsync")
    async def rough_async() -> None:
        ran.put("async job")

    bed.setup.server_middleware.add(Waits)
    bed.start()
    bed.push("rough_next", "sync job")
    assert ran.get(timeout=10) == "sync job"
    bed.push("RoughAsync")
    assert [ran.get(timeout=10), ran.get(timeout=10)] == ["around RoughAsync", "async job"]


def test_a_score_without_end_is_listed_and_never_due(bed: Harness) -> None:
    bed.redis.zadd("schedule", {json.dumps({"class": "rough_next", "args": ["never"], "queue": "default"}): "+inf"})
    bed.start()
    survives(bed)
    bed.settled(1)
    assert bed.redis.zcard("schedule") == 1


def test_a_push_from_a_forked_child_uses_a_connection_of_its_own(bed: Harness) -> None:
    bed.push("rough_next", "parent")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            bed.push("rough_next", "child")
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    bed.push("rough_next", "parent again")
    assert [job["args"][0] for job in bed.waiting()] == ["parent", "child", "parent again"]
    assert len({job["jid"] for job in bed.waiting()}) == 3


APP = """
import threading, pillion

@pillion.job
def holds(seconds):
    threading.Event().wait(seconds)

@pillion.job
def quick(path):
    open(path, "w").write("done")
"""


def push(server: Server, name: str, *args: Any) -> None:
    client = pillion.Client(server.url)
    client.push({"class": name, "args": list(args)})
    client.close()


def test_a_second_int_is_the_deadline_now(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP})
    with running("worker", "app", "-t", "60", cwd=tmp_path, env={"REDIS_URL": server.url}) as worker:
        worker.wait_for(READY)
        push(server, "holds", 30)
        client = server.client()
        wait_until(lambda: client.llen("queue:default") == 0, what="the job to be taken")
        worker.process.send_signal(signal.SIGINT)
        worker.wait_for("stopping")
        assert worker.stop(signal.SIGINT) == 0
    assert client.llen("queue:default") == 1
    assert client.keys("pillion:inf:*") == []


@pytest.mark.rule("config.signals", "life.quiet")
def test_ttin_tells_what_every_thread_does_and_tstp_quiets(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP})
    with running("worker", "app", cwd=tmp_path, env={"REDIS_URL": server.url}) as worker:
        worker.wait_for(READY)
        worker.process.send_signal(signal.SIGTTIN)
        worker.wait_for("pillion.fetcher.default")
        worker.process.send_signal(signal.SIGTSTP)
        worker.wait_for("quiet")
        push(server, "quick", str(tmp_path / "out"))
        client = server.client()
        assert worker.stop() == 0
    assert client.llen("queue:default") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.rule("keys.signals", "process.signal")
def test_the_signal_list_of_a_dashboard_stops_the_process(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP})
    env = {"REDIS_URL": server.url, "PILLION_HEARTBEAT": "0.1"}
    with running("worker", "app", cwd=tmp_path, env=env) as worker:
        worker.wait_for(READY)
        client = server.client()
        (identity,) = wait_until(lambda: client.smembers("processes"), what="the process row")
        client.lpush(identity.decode() + "-signals", "TERM")
        assert worker.process.wait(20) == 0


@pytest.mark.rule("life.embedded")
def test_an_interpreter_that_ends_with_an_embedded_worker_does_not_hang(server: Server) -> None:
    code = f"import pillion; pillion.Worker(pillion.configure({server.url!r}), embedded=True).start(); print('bye')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "bye\n"), done.stderr
    server.client().flushall()

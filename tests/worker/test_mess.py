"""Jobs that make a mess of their process, middleware that keeps nothing, and pushes where nobody expects one.

Each mess is made in a worker process of its own, which must go on and must leave in time.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import pillion
from pillion import Client, Setup
from pillion.registry import Registry
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.cli import environment, running, write
from tests.worker.harness import Harness, harness

APP = """
import os, pathlib, signal, sys, threading
import pillion


@pillion.job
def closes_its_streams():
    os.close(0)
    os.close(1)
    sys.stdout.close()


@pillion.job
def changes_the_folder():
    os.chdir("/")


@pillion.job
def blocks_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})


@pillion.job
def leaves_a_thread():
    threading.Thread(target=threading.Event().wait, daemon=False).start()


@pillion.job
def forks_and_comes_back():
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 70


@pillion.job
def forks_and_ends_the_child():
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    else:
        os._exit(0)


@pillion.job
def leaves_word(path):
    with open(path, "a") as file:
        file.write("here\\n")
"""
MESSES = [
    "closes_its_streams",
    "changes_the_folder",
    "blocks_signals",
    "leaves_a_thread",
    "forks_and_comes_back",
    "forks_and_ends_the_child",
]
READY = "pillion is running"


@pytest.mark.parametrize("isolated", [False, True], ids=["on a thread", "in its own process"])
def test_whatever_jobs_do_to_their_process_it_goes_on_and_leaves_in_time(
    server: Server, tmp_path: Path, isolated: bool
) -> None:
    kept = "@pillion.job(isolation='process')" if isolated else "@pillion.job"
    write(tmp_path, {"mess.py": APP.replace("@pillion.job", kept)})
    word, env = tmp_path / "word", {"REDIS_URL": server.url, "PILLION_CONCURRENCY": "2", "PILLION_TIMEOUT": "5"}
    pushing = Client(setup=Setup(server.url, registry=Registry()))
    with running("worker", "mess", cwd=tmp_path, env=env) as worker:
        worker.wait_for(READY)
        for n, mess in enumerate(MESSES, 1):
            pushing.push({"class": mess, "args": []})
            pushing.push({"class": "leaves_word", "args": [str(word)]})
            wait_until(lambda n=n: word.exists() and word.read_text().count("here") == n, timeout=30, what=mess)
        assert worker.stop() == 0
        assert ("leaving without threads that did not end" in worker.heard) is not isolated
    client = server.client()
    assert not client.exists("queue:default", "retry", "dead")
    assert int(client.get("stat:processed") or 0) == 2 * len(MESSES)
    pushing.close()


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    with harness(server) as bed:
        yield bed


waits = threading.Event()


@pillion.job
async def stays_for_ever() -> None:
    waits.set()
    await asyncio.Event().wait()


class SwallowsCancellation:
    """Async middleware that lets nothing pass."""

    async def __call__(self, job: object, payload: dict[str, Any], queue: str) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            return


def test_middleware_that_swallows_the_cancellation_holds_up_no_stop(bed: Harness) -> None:
    bed.setup.server_middleware.add(SwallowsCancellation)
    worker = bed.start()
    jid = bed.push("stays_for_ever")
    assert waits.wait(10)
    assert worker.stop(timeout=0.1) == []
    assert [job["jid"] for job in bed.waiting()] == [jid]


# --- pushes where nobody expects one ----------------------------------------------------------------------------------


def test_a_client_that_was_closed_pushes_over_a_new_connection(server: Server) -> None:
    client = Client(setup=Setup(server.url, registry=Registry()))
    assert client.push({"class": "Late", "args": []})
    client.close()
    assert client.push({"class": "Late", "args": []})
    client.close()
    assert server.client().llen("queue:default") == 2


def test_a_push_on_a_loop_that_has_ended_is_an_error_and_the_next_loop_pushes(server: Server) -> None:
    client = Client(setup=Setup(server.url, registry=Registry()))

    async def push() -> str | None:
        return await client.apush({"class": "Late", "args": []})

    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(push())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    late = push()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_until_complete(late)
    late.close()
    assert asyncio.run(push())
    assert server.client().llen("queue:default") == 2


def test_a_push_by_a_worker_that_has_stopped_goes_out(bed: Harness) -> None:
    bed.start().stop(timeout=1)
    bed.push("stays_for_ever")
    assert len(bed.waiting()) == 1


AT_EXIT = """
import asyncio, atexit, sys
import pillion

pillion.configure(redis=sys.argv[1])
client = pillion.Client()
atexit.register(lambda: print(client.push({"class": "Late", "args": []}), flush=True))
asyncio.run(client.apush({"class": "Late", "args": []}))
"""


def test_a_push_at_the_interpreters_exit_goes_out(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, server.url],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.strip()) == 24
    assert server.client().llen("queue:default") == 2


@pytest.mark.parametrize(("later", "size"), [(False, 1_000), (True, 100)])
def test_a_generator_of_any_length_is_read_no_further_than_a_batch_ahead(
    server: Server, later: bool, size: int
) -> None:
    client, look = Client(setup=Setup(server.url, registry=Registry())), server.client()
    most = 0

    def rows() -> Iterator[list[int]]:
        nonlocal most
        for n in range(5 * size + 1):
            if n % (size // 4) == 0:
                most = max(most, n - (look.zcard("schedule") if later else look.llen("queue:default")))
            yield [n]

    extra = {"at": 4_000_000_000.0} if later else {}
    assert client.push_bulk({"class": "Late", "args": rows(), **extra}) == 5 * size + 1
    assert most <= size
    client.close()

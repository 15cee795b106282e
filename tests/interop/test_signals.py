"""Signals across: what Ruby's API tells our process, and what the same list of Redis tells Ruby's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from pillion.store import ops
from tests.conftest import Ruby
from tests.interop.sides import HERE, Console, Pillion, Sidekiq, app, wait_for_runs
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.cli import environment

OURS = "Sidekiq::ProcessSet.new.find { _1['version'] }"  # 6.4 writes no version


class Process:
    """`pillion worker app.py` for the queue `python`, with its log."""

    def __init__(self, server: Server, folder: Path, wire: str) -> None:
        self._log = folder / "log"
        flags = ["-q", "python", "-c", "2", "-t", "5"]
        env = environment(REDIS_URL=server.url, PILLION_HEARTBEAT="0.1", PILLION_WIRE=wire)
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "pillion", "worker", str(HERE / "app.py"), *flags],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def said(self) -> str:
        return self._log.read_text()


@pytest.fixture(params=["8", "7", "6"])
def process(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Process]:
    process = Process(server, tmp_path, request.param)
    yield process
    process.popen.kill()
    process.popen.wait(timeout=20)


@pytest.fixture
def beating(server: Server, ruby: Ruby) -> Iterator[Sidekiq]:
    """A worker of Ruby's for the queue `ruby` that beats ten times a second."""
    sidekiq = Sidekiq(ruby, server, "ruby", BEAT_PAUSE="0.1")
    yield sidekiq
    sidekiq.close()


@pytest.mark.rule("process.signal", "keys.signals")
def test_ruby_dumps_quiets_and_stops_our_process_among_others(
    process: Process, console: Console, beating: Sidekiq, pillion: Pillion, client: redis.Redis
) -> None:
    wait_until(lambda: console(f"{OURS} != nil"), timeout=20, what="our process in Ruby's list")
    assert console(f"{OURS}['pid']") == process.popen.pid
    console(f"{OURS}.dump_threads")
    wait_until(lambda: "all threads, as asked by TTIN" in process.said, what="our stacks in the log")
    assert "fetcher" in process.said

    console(f"{OURS}.quiet!")
    wait_until(lambda: console(f"{OURS}.stopping?"), what="our process to be quiet")
    for queue in ("python", "ruby"):
        app.HardWorker.set(queue=queue, client=pillion.client()).perform_async("bob", 5)
    assert [run["side"] for run in wait_for_runs(client, 1)] == ["ruby"]

    console(f"{OURS}.stop!")
    assert process.popen.wait(timeout=20) == 0
    assert console("Sidekiq::ProcessSet.new.map { _1['pid'] }") == [beating.pid]
    assert client.llen("queue:python") == 1
    assert wait_for_runs(client, 1)


def test_we_dump_quiet_and_stop_rubys_process(beating: Sidekiq, pillion: Pillion, client: redis.Redis) -> None:
    """As its API does it: the newest on the left, read from the right, one with each beat, gone after a minute."""
    store = pillion.client().setup.store
    [name] = client.smembers("processes")
    identity, signals = name.decode(), store.keys.signals(name.decode())

    def send(signal: str) -> None:
        store.run(ops.batch([("LPUSH", signals, signal), ("EXPIRE", signals, 60)]))

    send("TTIN")
    wait_until(lambda: "WARN: Thread TID" in beating.said, what="Ruby's backtraces in its log")
    send("TSTP")
    wait_until(lambda: client.hget(identity, "quiet") == b"true", what="Ruby's process to be quiet")
    jid = app.HardWorker.set(queue="ruby", client=pillion.client()).perform_async("bob", 5)
    send("TERM")
    assert beating.wait(20) == 0
    assert client.llen("queue:ruby") == 1
    assert client.smembers("processes") == set()

    pillion.work("ruby")
    assert [(run["side"], run["jid"]) for run in wait_for_runs(client, 1)] == [("python", jid)]


def test_one_list_takes_several_signals_in_their_order(beating: Sidekiq, pillion: Pillion, client: redis.Redis) -> None:
    store = pillion.client().setup.store
    [name] = client.smembers("processes")
    signals = store.keys.signals(name.decode())
    store.run(ops.batch([("LPUSH", signals, "TTIN", "TSTP", "TERM"), ("EXPIRE", signals, 60)]))
    assert beating.wait(20) == 0
    said = beating.said
    assert said.index("WARN: Thread TID") < said.index("no longer accepting new work") < said.rindex("Shutting down")

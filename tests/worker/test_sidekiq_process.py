"""How a worker process shows itself: its row, its title, its threads, to systemd, in logs; and how it hears signals."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from pillion import log as logs
from pillion import registry, testing
from pillion.config import Config
from pillion.log_format import show_attributes
from pillion.setup import Setup
from pillion.worker import Worker, identity
from pillion.worker.systemd import Systemd
from pillion.worker.title import title
from pillion.worker.wakeup import Wakeup
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.cli import running, write
from tests.worker.harness import Harness, harness

seen: SimpleQueue[Any] = SimpleQueue()
READY = "pillion is running"


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    while not seen.empty():
        seen.get()
    with harness(server) as bed:
        yield bed


@pillion.job
def tells(word: str) -> str:
    seen.put((word, threading.current_thread().name))
    return word


@pillion.job
async def atells(word: str) -> None:
    seen.put((word, threading.current_thread().name))


@pillion.job
def logs_a_line() -> None:
    logging.getLogger("shop.test").warning("inside")


@pillion.job
def later(seconds: float) -> object:
    return pillion.snooze(seconds)


# -- the row -----------------------------------------------------------------------------------------------------------


def row_of(bed: Harness, worker: Worker) -> dict[str, Any]:
    raw: Any = wait_until(lambda: bed.redis.hget(worker.identity, "info"), what="the process row")
    info: dict[str, Any] = json.loads(raw)
    return info


@pytest.mark.rule("process.info", "process.identity")
def test_the_row_shows_labels_tag_and_the_dynos_name(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNO", "worker.7")
    with harness(server, tag="shop", labels=("eu", "blue")) as bed:
        worker = bed.start()
        info = row_of(bed, worker)
    assert (info["tag"], info["labels"], info["hostname"], info["embedded"]) == (
        "shop",
        ["eu", "blue"],
        "worker.7",
        True,
    )
    assert worker.identity.startswith(f"worker.7:{os.getpid()}:")


@pytest.mark.rule("config.tag")
@pytest.mark.parametrize(("folder", "expected"), [("shop", "shop"), ("shop/releases/20260101", "shop")])
def test_without_a_tag_the_folder_is_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, expected: str
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / folder)
    assert identity.tag(Config()) == expected


@pytest.mark.rule("process.signal", "life.embedded")
def test_an_embedded_worker_takes_signals_off_its_list_and_obeys_none(bed: Harness) -> None:
    worker = bed.start()
    key = f"{worker.identity}-signals"
    bed.redis.lpush(key, "TSTP", "TERM")
    wait_until(lambda: not bed.redis.exists(key), what="the signals to be taken")
    bed.push("tells", "still here")
    assert seen.get(timeout=10)[0] == "still here"
    assert worker._inbox.empty()
    assert bed.redis.hget(worker.identity, "quiet") == b"false"


@pytest.mark.rule("process.slow")
def test_five_slow_answers_in_a_row_are_warned_about(bed: Harness, caplog: pytest.LogCaptureFixture) -> None:
    heartbeat = Worker(bed.setup, embedded=True).stations[0].heartbeat
    for micros in (60_000, 60_000, 60_000, 60_000, 50_000, 60_000, 60_000, 60_000, 60_000):
        heartbeat._note_rtt(micros)
    assert "Redis is slow" not in caplog.text
    heartbeat._note_rtt(61_000)
    assert caplog.text.count("Redis is slow") == 1
    heartbeat._note_rtt(70_000)
    assert caplog.text.count("Redis is slow") == 1


# -- inside another program --------------------------------------------------------------------------------------------


@pytest.mark.rule("life.embedded", "life.embedded-size")
@pytest.mark.parametrize(("options", "expected"), [({}, 2), ({"concurrency": 7}, 7)], ids=["default", "configured"])
def test_embed_starts_a_worker_that_leaves_the_host_alone(
    server: Server, options: dict[str, Any], expected: int
) -> None:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTSTP)}
    title_before = Path("/proc/self/cmdline").read_bytes()
    setup = Setup(server.url, lease=2.0, heartbeat=0.2)
    worker = pillion.embed(setup=setup, **options)
    try:
        pillion.Client(setup=setup).push({"class": "tells", "args": ["embedded"]})
        assert seen.get(timeout=10)[0] == "embedded"
        shown: Any = wait_until(lambda: server.client().hget(worker.identity, "concurrency"), what="the row")
        assert int(shown) == worker.config.concurrency == expected
        assert {number: signal.getsignal(number) for number in kept} == kept
        assert Path("/proc/self/cmdline").read_bytes() == title_before
    finally:
        assert worker.stop(timeout=2) == []
        setup.store.close()


def test_an_embedded_workers_other_capsules_are_as_configured(server: Server) -> None:
    setup = Setup(server.url, capsules={"serial": {"concurrency": 1, "queues": ["ledger"]}})
    shown = [(capsule.name, capsule.concurrency) for capsule in Worker(setup, embedded=True).config.capsules]
    assert shown == [("default", 2), ("serial", 1)]
    assert Worker(setup).config.concurrency == 6


# -- the process -------------------------------------------------------------------------------------------------------

APP = """
import pathlib, signal
import pillion

def note(word):
    with open("heard.txt", "a") as file:
        file.write(word + "\\n")

signal.signal(signal.SIGTERM, lambda number, frame: note("TERM"))
signal.signal(signal.SIGTSTP, lambda number, frame: note("TSTP"))

@pillion.job
def waits():
    import time
    note("running")
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""


@pytest.mark.rule("config.handlers")
def test_handlers_that_the_app_had_for_signals_are_called_first(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP})
    with running("worker", "app", cwd=tmp_path, env={"REDIS_URL": server.url}) as worker:
        worker.wait_for(READY)
        worker.process.send_signal(signal.SIGTSTP)
        worker.wait_for("quiet: no new jobs are taken")
        assert worker.stop() == 0
    assert (tmp_path / "heard.txt").read_text().split() == ["TSTP", "TERM"]


@pytest.mark.rule("process.signal")
def test_a_dashboards_signals_reach_a_process_of_its_own(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP})
    env = {"REDIS_URL": server.url, "PILLION_HEARTBEAT": "0.1"}
    with running("worker", "app", cwd=tmp_path, env=env) as worker:
        worker.wait_for(READY)
        client = server.client()
        names: Any = wait_until(lambda: client.smembers("processes"), what="the process row")
        (name,) = names
        client.lpush(f"{name.decode()}-signals", "TSTP")
        worker.wait_for("quiet: no new jobs are taken")
        client.lpush(f"{name.decode()}-signals", "TERM")
        assert worker.process.wait(timeout=30) == 0


def test_a_signal_that_comes_just_before_the_main_thread_sleeps_wakes_it() -> None:
    handled = SimpleQueue[int]()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: handled.put(number))
    wakeup = Wakeup()
    try:
        signal.raise_signal(signal.SIGUSR1)
        wakeup.sleep()
        assert handled.get_nowait() == signal.SIGUSR1
        threading.Timer(0.01, wakeup.wake).start()
        wakeup.sleep()
        assert handled.empty()
    finally:
        wakeup.restore()
        signal.signal(signal.SIGUSR1, before)
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.rule("config.title")
def test_the_title_says_what_the_process_does(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("setproctitle")
    write(tmp_path, {"app.py": APP})
    env = {"REDIS_URL": server.url, "PILLION_HEARTBEAT": "0.1"}
    with running("worker", "app", "-g", "shop", "-c", "3", cwd=tmp_path, env=env) as worker:
        worker.wait_for(READY)

        def shows(words: str) -> bool:
            line = Path(f"/proc/{worker.process.pid}/cmdline").read_bytes()
            return line.rstrip(b"\0").decode() == f"pillion {pillion.__version__} shop {words}"

        wait_until(lambda: shows("[0 of 3 busy]"), what="the idle title")
        pillion.Client(server.url).push({"class": "waits", "args": []})
        wait_until(lambda: shows("[1 of 3 busy]"), what="the busy title")
        worker.process.send_signal(signal.SIGTSTP)
        wait_until(lambda: shows("[1 of 3 busy] stopping"), what="the stopping title")
        (tmp_path / "go").touch()
        assert worker.stop() == 0


def test_the_title_leaves_out_what_is_empty() -> None:
    assert title(Config(tag=""), 2, stopping=False) == f"pillion {pillion.__version__} [2 of 5 busy]"


@pytest.mark.rule("life.threads", instead=True)
def test_every_thread_has_a_name_of_ours(bed: Harness) -> None:
    others = {thread.name for thread in threading.enumerate()}
    bed.start()
    bed.push("tells", "sync")
    bed.push("atells", "async")
    names = dict([seen.get(timeout=10), seen.get(timeout=10)])
    assert names == {"sync": "pillion.default.1", "async": "pillion.loop"}
    ours = {thread.name for thread in threading.enumerate()} - others
    assert {"pillion.heartbeat", "pillion.poller", "pillion.fetcher.default"} < ours
    assert all(name.startswith("pillion.") for name in ours)


# -- systemd -----------------------------------------------------------------------------------------------------------


@contextmanager
def notified(address: str) -> Generator[socket.socket]:
    """A socket as systemd listens on, whose messages can be received for ten seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + address[1:] if address.startswith("@") else address)
        sock.settimeout(10)
        yield sock


def address_for(place: str, tmp_path: Path) -> str:
    return f"@pillion-test-{os.getpid()}" if place == "abstract" else str(tmp_path / "notify")


@pytest.mark.rule("tools.systemd")
@pytest.mark.parametrize("place", ["path", "abstract"])
def test_systemd_hears_of_a_workers_life(server: Server, tmp_path: Path, place: str) -> None:
    write(tmp_path, {"app.py": APP})
    address = address_for(place, tmp_path)
    env = {"REDIS_URL": server.url, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"}
    with notified(address) as systemd, running("worker", "app", cwd=tmp_path, env=env) as worker:
        assert set(iter(lambda: systemd.recv(100), b"READY=1")) <= {b"WATCHDOG=1"}
        assert [systemd.recv(100), systemd.recv(100)] == [b"WATCHDOG=1", b"WATCHDOG=1"]
        worker.process.send_signal(signal.SIGTERM)
        said = iter(lambda: systemd.recv(100), b"STOPPING=1")
        assert set(said) <= {b"WATCHDOG=1"}
        assert worker.process.wait(timeout=30) == 0


def test_the_watchdog_is_fed_twice_per_period_and_only_where_it_is_ours(tmp_path: Path) -> None:
    address = address_for("path", tmp_path)
    told = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"}
    with notified(address) as systemd:
        assert Systemd(told).turn() == 15.0
        assert systemd.recv(100) == b"WATCHDOG=1"
    assert Systemd(told).is_watching
    assert Systemd(told | {"WATCHDOG_PID": str(os.getpid())}).is_watching
    assert not Systemd(told | {"WATCHDOG_PID": "1"}).is_watching
    assert not Systemd(told | {"WATCHDOG_USEC": "soon"}).is_watching
    assert not Systemd({"NOTIFY_SOCKET": address}).is_watching
    assert not Systemd({"WATCHDOG_USEC": "30000000"}).is_watching


def test_a_systemd_that_does_not_listen_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for address in (str(tmp_path / "nobody"), "@nobody" * 40, "relative"):
        Systemd({"NOTIFY_SOCKET": address}).ready()
        assert f"could not say READY=1 to {address}" in caplog.text


def test_an_embedded_worker_says_nothing_to_systemd(
    bed: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = address_for("path", tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with notified(address) as systemd:
        bed.start().stop()
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            systemd.recv(100)


# -- metrics -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("metrics.bar", instead=True)
def test_a_name_with_a_bar_is_refused_where_it_is_defined() -> None:
    with pytest.raises(pillion.DefinitionError, match=r"without \|.*got 'a\|b'"), registry.default.restored():

        @pillion.job(name="a|b")
        def refused() -> None: ...

    with pytest.raises(pillion.DefinitionError, match=r"got 'x\|y'"), registry.default.restored():

        class Refused(pillion.Job, aliases=["x|y"]):
            pass


def test_what_was_snoozed_or_put_back_is_no_failure(bed: Harness) -> None:
    bed.start()
    bed.push("later", 300)
    bed.settled(1)
    assert bed.redis.get("stat:failed") == b"0"
    assert not bed.redis.keys("h|later*")
    for key in bed.redis.keys("j|*"):
        assert b"later|p" not in bed.redis.hkeys(key)
    bed.redis.delete("schedule")


# -- testing -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("testing.one")
def test_an_empty_collection_says_so() -> None:
    with testing.fake() as jobs, pytest.raises(pillion.EmptyQueueError, match="expected a pushed job of tells"):
        jobs.perform_one(tells)
    assert issubclass(pillion.EmptyQueueError, pillion.UsageError)


@pytest.mark.rule("testing.hash")
def test_a_job_given_as_a_hash_is_performed_through_the_server_chain() -> None:
    def shouts(instance: Any, job: dict[str, Any], queue: str) -> Generator[None]:
        job["args"][0] += f"! from {queue}"
        yield

    setup = Setup("redis://localhost")
    setup.server_middleware.add(shouts)
    job = {"class": "tells", "args": ["hello"], "queue": "low", "jid": "j1"}
    with testing.fake() as jobs:
        assert jobs.process_job(job, setup) == "hello! from low"
        assert len(jobs) == 0
        with pytest.raises(pillion.UnknownJob):
            jobs.process_job(job | {"class": "Nobody"})
    assert job["args"] == ["hello"]


# -- logs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[StringIO]:
    """What the logger `shop.test` writes, with our filter and formatter."""
    logger, stream = logging.getLogger("shop.test"), StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    handler.addFilter(logs.JobFilter())
    logger.addHandler(handler)
    logger.propagate = False
    yield stream
    logger.removeHandler(handler)
    logger.propagate = True
    show_attributes(("bid", "tags"))


@pytest.mark.rule("log.add")
def test_code_can_add_to_the_context_of_its_lines(lines: StringIO) -> None:
    logger = logging.getLogger("shop.test")
    with pillion.context(tenant="acme", token="s3cret"), pillion.context(order=7):
        logger.warning("inside")
    logger.warning("outside")
    inside, outside = map(json.loads, lines.getvalue().splitlines())
    assert inside["ctx"]["tenant"] == "acme"
    assert inside["ctx"]["order"] == 7
    assert "s3cret" not in lines.getvalue()
    assert "ctx" not in outside


def test_a_jobs_own_context_wins_and_what_the_code_added_stands_beside_it(lines: StringIO) -> None:

    with testing.fake() as jobs, pillion.context(tenant="acme", jid="forged"):
        jid = logs_a_line.perform_async()
        jobs.drain()
    context = json.loads(lines.getvalue())["ctx"]
    assert (context["jid"], context["class"], context["tenant"]) == (jid, "logs_a_line", "acme")


@pytest.mark.rule("log.attributes")
def test_which_fields_of_a_job_are_shown_can_be_chosen(lines: StringIO) -> None:

    job: dict[str, Any] = {"class": "logs_a_line", "args": [], "queue": "q", "jid": "j"}
    job |= {"bid": "b1", "tags": ["x"], "tenant": "acme", "odd": {}}
    with testing.fake() as jobs:
        jobs.process_job(job)
        show_attributes(("tenant", "odd", "missing"))
        jobs.process_job(job)
    default, chosen = (json.loads(line)["ctx"] for line in lines.getvalue().splitlines())
    assert (default["bid"], default["tags"], "tenant" in default) == ("b1", ["x"], False)
    assert {*chosen} == {"jid", "class", "queue", "attempt", "tenant"}
    assert chosen["tenant"] == "acme"


APP_THAT_LOGS = """
import pillion

@pillion.job(retry=0)
def works(what):
    if what == "badly":
        raise ValueError("no luck")
    pillion.setup.default.store  # a job that does something
"""


@pytest.mark.rule("log.skip", "log.choice", "log.lines")
@pytest.mark.parametrize("skip", ["false", "true"])
def test_the_lines_of_jobs_can_be_left_out_but_failures_stay(server: Server, tmp_path: Path, skip: str) -> None:
    write(tmp_path, {"app.py": APP_THAT_LOGS})
    env = {"REDIS_URL": server.url, "PILLION_SKIP_DEFAULT_JOB_LOGGING": skip, "DYNO": "worker.1"}
    client = pillion.Client(server.url)
    client.push({"class": "works", "args": ["well"], "tags": ["t1"], "retry": 0})
    client.push({"class": "works", "args": ["badly"], "retry": 0})
    with running("worker", "app", cwd=tmp_path, env=env) as worker:
        worker.wait_for("ValueError: no luck")
        wait_until(lambda: server.client().zcard("dead") == 1, what="the failed job")
        assert worker.stop() == 0
    assert (": start" in worker.heard) == (": done" in worker.heard) == (skip == "false")
    (line,) = [line for line in worker.heard.splitlines() if READY in line]
    assert line.startswith("INFO  pillion is running")


@pytest.mark.rule("config.debug")
def test_systemds_second_try_is_verbose(tmp_path: Path) -> None:
    from pillion.resolve import resolve

    for value, expected in (("1", True), ("0", False)):
        found = resolve(flags={}, code={}, env={"DEBUG_INVOCATION": value}, cwd=tmp_path)
        assert found.config.verbose is expected

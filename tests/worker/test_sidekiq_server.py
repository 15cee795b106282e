"""What a Sidekiq server does beside running jobs: handlers, moments of its life, its row and title, its options."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from pillion import registry
from pillion.config import Capsule
from pillion.resolve import resolve
from pillion.retry import unpack_backtrace
from pillion.setup import Setup
from pillion.worker import Worker
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

seen: SimpleQueue[Any] = SimpleQueue()


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    while not seen.empty():
        seen.get()
    with harness(server) as bed:
        yield bed


def heard(count: int) -> list[Any]:
    return [seen.get(timeout=10) for _ in range(count)]


@pillion.job
def says(what: str) -> None:
    seen.put(what)


@pillion.job
async def asays(what: str) -> None:
    seen.put(what)


@pillion.job(backtrace=True)
def deep(levels: int) -> None:
    if levels:
        deep(levels - 1)
    raise ValueError("at the bottom")


# -- handlers ----------------------------------------------------------------------------------------------------------


class Ends(pillion.Job, retry=0):
    """A job that fails for good, in the way that its argument says."""

    @staticmethod
    def retry_in(count: int, error: BaseException, job: dict[str, Any]) -> str | None:
        return str(job["args"][0]) if job["args"][0] in ("discard", "kill") else None

    @staticmethod
    def retries_exhausted(job: dict[str, Any], error: BaseException) -> str | None:
        return "discard" if job["args"][0] == "unwanted" else None

    def perform(self, how: str) -> None:
        raise ValueError(how)


TERMINAL: list[tuple[str, dict[str, Any], bool]] = [
    ("exhausted", {"retry": 0}, True),
    ("discard", {"retry": 5}, False),
    ("kill", {"retry": 5}, True),
    ("unwanted", {"retry": 0}, False),
    ("retry is off", {"retry": False}, False),
    ("dead is off", {"retry": 0, "dead": False}, False),
]


@pytest.mark.rule("retry.deaths", "b9.34", "b9.35")
@pytest.mark.parametrize(("how", "fields", "buried"), TERMINAL, ids=[how for how, *_ in TERMINAL])
@pytest.mark.parametrize("colour", ["plain", "async"])
def test_death_handlers_hear_of_every_end(
    bed: Harness, how: str, fields: dict[str, Any], buried: bool, colour: str
) -> None:
    def told(job: dict[str, Any], error: BaseException) -> None:
        seen.put((job["jid"], str(error), "discarded_at" in job, len(bed.members("dead"))))

    async def atold(job: dict[str, Any], error: BaseException) -> None:
        await asyncio.sleep(0)
        seen.put(threading.current_thread().name)
        told(job, error)

    def broken(job: dict[str, Any], error: BaseException) -> None:
        raise RuntimeError("a broken death handler")

    bed.setup.death_handlers += [broken, told if colour == "plain" else atold]
    bed.start()
    jid = bed.push("Ends", how, **fields)
    if colour == "async":
        assert heard(1) == ["pillion.loop"]
    assert heard(1) == [(jid, how, not buried, int(buried))]
    assert not bed.members("retry")


@pytest.mark.parametrize("dead", [True, False])
def test_death_handlers_hear_of_a_poison_pill(bed: Harness, dead: bool) -> None:
    bed.setup.death_handlers.append(lambda job, error: seen.put((job["jid"], job["args"], type(error).__name__)))
    worker = bed.start()
    pill = {"class": "says", "args": ["boom"], "jid": "pill", "queue": "default", "retry": True, "dead": dead}
    owner = "gone:1:x/default.1"
    bed.redis.hset(f"pillion:inf:{owner}", mapping={"g": 1, "c": 1, "1": "1 default", "s:256": 1})
    bed.redis.lpush(f"pillion:inf:{owner}:1", json.dumps(pill))
    bed.redis.set("pillion:rescued:pill", 2, ex=1000)
    bed.redis.zadd("pillion:lease", {owner: 1})
    bed.redis.hset("pillion:pulse", mapping={"last": int(time.time() * 1000), "since": 1})
    worker.stations[0].reaper.reap()
    assert heard(1) == [("pill", ["boom"], "PoisonPill")]
    assert len(bed.members("dead")) == dead


@pytest.mark.rule("retry.handlers")
def test_error_handlers_get_three_arguments_once_the_retry_is_stored(bed: Harness) -> None:
    async def atold(error: BaseException, context: dict[str, Any], config: pillion.Config) -> None:
        await asyncio.sleep(0)
        seen.put((str(error), context["job"]["retry_count"], len(bed.members("retry")), config.max_retries))

    async def broken(error: BaseException, context: object, config: object) -> None:
        raise RuntimeError("a broken error handler")

    bed.setup.error_handlers += [broken, atold]  # type: ignore[list-item]
    bed.setup.configure(max_retries=7)
    bed.start()
    bed.push("deep", 0)
    assert heard(1) == [("at the bottom", 0, 1, 7)]


def test_a_handler_that_never_ends_is_given_up(bed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(error: BaseException, context: object, config: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.put("cancelled")

    monkeypatch.setattr("pillion.worker.hooks.PATIENCE", 0.05)
    bed.setup.error_handlers += [endless, lambda error, context, config: seen.put("the next one")]
    bed.start()
    bed.push("deep", 0)
    assert sorted(heard(2)) == ["cancelled", "the next one"]


# -- moments of its life -----------------------------------------------------------------------------------------------


@pytest.mark.rule("life.events", "life.once", "life.quiet-order", "process.events", "b9.54")
def test_every_moment_comes_in_its_order_and_once(bed: Harness) -> None:
    def note(event: Any, number: int) -> None:
        async def anote() -> None:
            await asyncio.sleep(0)
            seen.put(f"{event} {number}")

        bed.setup.on(event)(anote if number == 1 else lambda: seen.put(f"{event} {number}"))

    for event in ("startup", "quiet", "shutdown", "exit", "heartbeat"):
        note(event, 1)
        note(event, 2)
    beats = threading.Semaphore(0)
    bed.setup.on("beat")(beats.release)
    worker = bed.start()
    assert heard(4) == ["startup 1", "startup 2", "heartbeat 1", "heartbeat 2"]
    assert all(beats.acquire(timeout=10) for _ in range(3))
    assert seen.empty()
    bed.redis.delete(worker.identity)
    assert heard(2) == ["heartbeat 1", "heartbeat 2"]
    worker.start()
    worker.quiet()
    worker.quiet()
    worker.stop()
    worker.stop()
    endings = [f"{event} {n}" for event in ("quiet", "shutdown", "exit") for n in (2, 1)]
    assert heard(6) == endings
    assert seen.empty()


def test_an_async_job_may_quiet_its_worker(bed: Harness) -> None:
    async def aquiet() -> None:
        seen.put("quiet")

    @pillion.job(name="Quiets")
    async def quiets() -> None:
        bed.workers[0].quiet()  # on the loop that is to run what it calls: it must not wait for that
        seen.put("went on")

    bed.setup.on("quiet")(aquiet)
    bed.start()
    bed.push("Quiets")
    assert heard(2) == ["went on", "quiet"]


@pytest.mark.rule("life.boot")
@pytest.mark.parametrize("colour", ["plain", "async"])
def test_what_startup_raises_ends_the_boot(bed: Harness, colour: str) -> None:
    async def abroken() -> None:
        raise RuntimeError("no pool")

    def broken() -> None:
        raise RuntimeError("no pool")

    bed.setup.on("startup")(broken if colour == "plain" else abroken)
    bed.setup.on("startup")(lambda: seen.put("the next one"))
    with pytest.raises(RuntimeError, match="no pool"):
        bed.start()
    assert seen.empty()
    assert not bed.redis.exists("processes", "pillion:lease")
    assert "pillion.loop" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.rule("life.unknown-event")
def test_a_moment_that_nobody_knows_is_refused() -> None:
    with pytest.raises(pillion.ConfigError, match=r"expected one of startup, .* got 'boot'"):
        Setup("redis://localhost").on("boot")  # type: ignore[arg-type]


@pytest.mark.rule("life.events")
def test_an_error_in_another_moment_is_logged_and_the_next_function_called(
    bed: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    bed.setup.on("shutdown")(lambda: seen.put("the next one"))
    bed.setup.on("shutdown")(lambda: 1 / 0)
    bed.start().stop()
    assert heard(1) == ["the next one"]
    assert "a function for shutdown raised and is skipped" in caplog.text


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("backtrace.cleaner", "b9.30")
def test_a_cleaner_goes_over_the_backtrace_before_it_is_cut(server: Server) -> None:
    def cleaner(lines: list[str]) -> list[str]:
        seen.put(len(lines))
        return [line for line in lines if line.endswith("in deep")]

    with harness(server, backtrace_cleaner=cleaner) as bed:
        bed.start()
        bed.push("deep", 150, backtrace=120)
        (job,) = wait_until(lambda: bed.members("retry"), what="the retry")
    lines = unpack_backtrace(job["error_backtrace"])
    assert heard(1)[0] > 151
    assert len(lines) == 100
    assert all(line.endswith("in deep") for line in lines)


def test_a_cleaner_that_raises_is_reported_and_changes_nothing(server: Server) -> None:
    def cleaner(lines: list[str]) -> list[str]:
        raise RuntimeError("a broken cleaner")

    with harness(server, backtrace_cleaner=cleaner) as bed:
        bed.setup.error_handlers.append(lambda error, context, config: seen.put(str(error)))
        bed.start()
        bed.push("deep", 2)
        assert heard(2) == ["a broken cleaner", "at the bottom"]
        (job,) = bed.members("retry")
        assert len(unpack_backtrace(job["error_backtrace"])) >= 3


def define_fresh(word: str, colour: str) -> None:
    """As a module does that is loaded again: the same definition, with another body."""
    if colour == "plain":

        @pillion.job(name="Fresh")
        def fresh() -> None:
            seen.put(word)

    else:

        @pillion.job(name="Fresh")
        async def afresh() -> None:
            seen.put(word)


@pytest.mark.rule("run.reloader")
@pytest.mark.parametrize("colour", ["plain", "async"])
def test_every_run_happens_inside_the_reloader_and_runs_what_it_loaded(server: Server, colour: str) -> None:
    @contextmanager
    def reloader() -> Generator[None]:
        seen.put("before")
        define_fresh("loaded again", colour)
        yield
        seen.put("after")

    with registry.default.restored(), harness(server, reloader=reloader) as bed:
        define_fresh("stale", colour)
        bed.start()
        bed.push("Fresh")
        assert heard(3) == ["before", "loaded again", "after"]


def test_the_reloader_sees_what_the_job_raises_and_may_swallow_it(server: Server) -> None:
    @contextmanager
    def reloader() -> Generator[None]:
        try:
            yield
        except ValueError as error:
            seen.put(str(error))

    with harness(server, reloader=reloader) as bed:
        bed.start()
        bed.push("deep", 0)
        bed.settled(1)
        assert heard(1) == ["at the bottom"]
        assert not bed.members("retry")


@pytest.mark.rule("retry.max")
def test_the_configured_maximum_of_retries_holds(server: Server) -> None:
    with harness(server, max_retries=3) as bed:
        bed.start()
        bed.raw(
            json.dumps({"class": "deep", "args": [0], "jid": "a", "queue": "default", "retry": True, "retry_count": 1})
        )
        bed.raw(
            json.dumps({"class": "deep", "args": [0], "jid": "b", "queue": "default", "retry": True, "retry_count": 2})
        )
        bed.settled(2)
        assert [job["jid"] for job in bed.members("retry")] == ["a"]
        assert [job["jid"] for job in bed.members("dead")] == ["b"]


@pytest.mark.rule("keys.dead", "move.dead", "b9.37")
def test_the_dead_set_is_cut_by_number_and_by_age(server: Server) -> None:
    with harness(server, dead_max_jobs=4, dead_timeout_in_seconds=1000) as bed:
        now = bed.setup.config.clock.now()
        bed.redis.zadd("dead", {"too old": now - 2000, "old": now - 500, "newer": now - 400, "newest": now - 300})
        bed.start()
        bed.push("Ends", "exhausted", retry=0)
        bed.settled(1)
        *others, _ = bed.redis.zrange("dead", 0, -1)
        assert others == [b"newer", b"newest"]  # Sidekiq's command keeps one fewer than it is told


@pytest.mark.rule("poller.average")
def test_the_pause_between_two_looks_goes_by_the_fleet_or_is_configured(server: Server) -> None:
    with harness(server, poll_interval_average=None, average_scheduled_poll_interval=4.0) as bed:
        poller = Worker(bed.setup, embedded=True).stations[0].poller
        poller.fleet = 3
        pauses = [poller.interval() for _ in range(2000)]
        assert 6 <= min(pauses) < 7
        assert 17 < max(pauses) <= 18
    with harness(server, poll_interval_average=2.0) as bed:
        poller = Worker(bed.setup, embedded=True).stations[0].poller
        poller.fleet = 3
        pauses = [poller.interval() for _ in range(2000)]
        assert 1 <= min(pauses) < 1.2
        assert 2.8 < max(pauses) <= 3


@pytest.mark.rule("server.namespace")
@pytest.mark.parametrize(
    "options",
    [{"namespace": "shop"}, {"redis": {"url": "redis://localhost", "namespace": "shop"}}],
    ids=["top", "redis"],
)
def test_a_namespace_is_refused_with_the_cure(options: dict[str, Any]) -> None:
    with pytest.raises(pillion.ConfigError, match=r"namespace.*database of its own.*redis\.prefix"):
        Setup(**options)


@pytest.mark.rule("server.namespace")
@pytest.mark.parametrize("text", ['namespace = "shop"', '[redis]\nurl = "redis://localhost"\nnamespace = "shop"'])
def test_a_namespace_in_a_file_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "pillion.toml").write_text(text)
    line = text.count("\n") + 1
    with pytest.raises(pillion.ConfigError, match=rf"namespace` \(pillion\.toml:{line}\); .*redis\.prefix"):
        resolve(flags={}, code={}, env={}, cwd=tmp_path, file=Path("pillion.toml"))


# -- capsules with chains of their own ---------------------------------------------------------------------------------


class Marks:
    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, *arguments: Any) -> Generator[None]:
        seen.put((self.word, len(arguments)))
        yield


@pillion.job
def pushes_on(queue: str) -> None:
    current = pillion.current_job()
    assert current is not None
    seen.put(("in", current.capsule))
    client: pillion.Client = pushes_on.client  # type: ignore[attr-defined]
    client.push({"class": "Elsewhere", "args": [], "queue": queue})


@pytest.mark.rule("middleware.capsule", instead=True)
def test_a_capsules_own_chains_run_around_its_jobs_and_their_pushes(server: Server) -> None:
    capsules = (Capsule(concurrency=1), Capsule(name="serial", concurrency=1, queues=(("ledger", 0),)))
    with harness(server, capsules=capsules) as bed:
        pushes_on.client = bed.client  # type: ignore[attr-defined]
        bed.setup.server_middleware.add(Marks, "common")
        own = bed.setup.capsule("serial")
        assert bed.setup.capsule("serial") is own
        own.server_middleware.add(Later, "own")
        own.client_middleware.add(Later, "own push")
        bed.setup.server_middleware.add(Late)
        bed.start()
        bed.push("pushes_on", "else", queue="ledger")
        assert heard(4) == [("common", 3), ("own", 3), ("in", "serial"), ("own push", 4)]
        bed.push("pushes_on", "else")
        assert heard(3) == [("common", 3), "late", ("in", "default")]
        bed.settled(2)
        assert seen.empty()


class Later(Marks):
    pass


def Late(*arguments: Any) -> Generator[None]:  # noqa: N802
    seen.put("late")
    yield


def test_chains_for_a_capsule_that_does_not_exist_are_refused(server: Server) -> None:
    with harness(server, capsules=(Capsule(), Capsule(name="serial"))) as bed:
        bed.setup.capsule("serail").server_middleware.add(Marks, "own")
        with pytest.raises(pillion.ConfigError, match=r"`serail`.*did you mean `serial`"):
            bed.start()


# -- the directory, and what is loaded ---------------------------------------------------------------------------------


@pytest.mark.rule("life.directory")
def test_components_are_registered_and_looked_up_by_name() -> None:
    setup = Setup("redis://localhost")
    assert setup.lookup("mailer") is None
    assert setup.lookup("mailer", "none yet") == "none yet"
    mailer = object()
    setup.register("mailer", mailer)
    assert setup.lookup("mailer") is mailer


@pytest.mark.rule("life.directory")
def test_hooks_run_when_a_part_is_loaded_and_at_once_if_it_is() -> None:
    code = """
import pillion
pillion.on_load("worker")(lambda: print("worker"))
pillion.on_load("testing")(lambda: print("testing"))
print("nothing yet", pillion.is_worker())
pillion.Worker
pillion.on_load("worker")(lambda: print("again"))
import pillion.testing
pillion.on_load("api")(lambda: print("api"))
import pillion.api
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.splitlines() == ["nothing yet False", "worker", "again", "testing", "api"]
    with pytest.raises(pillion.ConfigError, match="expected one of worker, api, testing, got 'wroker'"):
        pillion.on_load("wroker")


@pytest.mark.rule("testing.warning")
def test_the_testing_modes_warn_in_a_worker_process() -> None:
    code = "from pillion import setup, is_worker; setup.be_server(); assert is_worker(); import pillion.testing"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stderr
    assert "pillion.testing is loaded in a worker process" in said

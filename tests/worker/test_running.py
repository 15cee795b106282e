"""Jobs run: what user code returns, raises and sees, and what becomes of the job."""

from __future__ import annotations

import asyncio
import contextvars
import json
import sys
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from pillion.config import Capsule
from pillion.events import JobSettled
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


class Greeter(pillion.Job):
    def perform(self, name: str, *, loud: bool = False) -> None:
        current = pillion.current_job()
        assert current is not None
        seen.put((name, loud, self.jid, current.queue, current.attempt))


class Salute(pillion.Job):
    def perform(self, name: str, times: int = 1) -> None: ...


@pillion.job
def trips(kind: str) -> None:
    Salute().perform(*(["a", 1, 2] if kind == "inside" else [None + kind]))  # type: ignore[operator]


@pillion.job
async def agreet(name: str) -> None:
    await asyncio.sleep(0)
    current = pillion.current_job()
    assert current is not None
    seen.put((name, threading.current_thread().name, current.jid))


@pillion.job(retry=3)
def fails(kind: str) -> None:
    raise {"exit": SystemExit(3), "stop": KeyboardInterrupt(), "value": ValueError("no luck"), "odd": Odd()}[kind]


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even the message fails")


@pillion.job
def mutates(args: list[int]) -> None:
    args.append(99)
    raise ValueError("after changing its arguments")


@pillion.job
def asks(what: str) -> object:
    return pillion.snooze(300) if what == "later" else pillion.discard("not needed")


@pillion.job(retry=False)
def gives_up() -> None:
    raise ValueError("once is enough")


@pillion.job(retry=0)
def dies() -> None:
    raise ValueError("straight to the dead set")


@pytest.mark.rule("run.instance")
def test_a_class_and_a_coroutine_run_with_their_context(bed: Harness) -> None:
    jid = Greeter.set(client=bed.client, queue="default").perform_async("bob", loud=True)
    bed.start()
    assert seen.get(timeout=10) == ("bob", True, jid, "default", 1)
    ajid = agreet.set(client=bed.client).perform_async("eve")
    assert seen.get(timeout=10) == ("eve", "pillion.loop", ajid)
    bed.settled(2)
    assert bed.redis.get("stat:failed") in (b"0", None)


@pytest.mark.rule("b9.29")
@pytest.mark.rule("run.thread", instead=True)
@pytest.mark.parametrize("what", ["exit", "stop", "value", "odd"])
def test_whatever_a_job_raises_it_is_retried_and_the_worker_goes_on(bed: Harness, what: str) -> None:
    bed.start()
    bed.push("fails", what, retry=3)
    wait_until(lambda: bed.members("retry"), what="the retry")
    (retry,) = bed.members("retry")
    assert (retry["retry_count"], retry["args"], retry["queue"]) == (0, [what], "default")
    bed.push("Greeter", "still here")
    assert seen.get(timeout=10)[0] == "still here"


@pytest.mark.rule("middleware.changes", "b9.50")
def test_a_retry_has_the_original_arguments(bed: Harness) -> None:
    bed.raw(b'{"class":"mutates","args":[[1, 1.0e+20,12345678901234567890]],"jid":"j1","retry":true,"queue":"default"}')
    bed.start()
    wait_until(lambda: bed.members("retry"), what="the retry")
    (member,) = bed.redis.zrange("retry", 0, -1)
    assert b"[[1, 1.0e+20,12345678901234567890]]" in member


def test_snooze_and_discard_are_no_failures(bed: Harness) -> None:
    later, dropped = bed.push("asks", "later"), bed.push("asks", "never")
    bed.start()
    bed.settled(2)
    (snoozed,) = bed.members("schedule")
    assert snoozed["jid"] == later
    assert "retry_count" not in snoozed
    assert "enqueued_at" not in snoozed
    assert dropped not in {job["jid"] for key in ("retry", "dead", "schedule") for job in bed.members(key)}
    assert bed.redis.get("stat:failed") in (b"0", None)


@pytest.mark.rule("fields.retry", "retry.deaths", "b9.24")
def test_retry_false_leaves_nothing_and_zero_goes_to_the_dead_set(bed: Harness) -> None:
    deaths: SimpleQueue[tuple[str, str]] = SimpleQueue()
    bed.setup.death_handlers.append(lambda job, error: deaths.put((job["class"], str(error))))
    bed.start()
    bed.push("gives_up", retry=False)
    assert deaths.get(timeout=10) == ("gives_up", "once is enough")
    assert not bed.redis.exists("retry", "dead")
    bed.push("dies", retry=0)
    assert deaths.get(timeout=10) == ("dies", "straight to the dead set")
    (dead,) = bed.members("dead")
    assert dead["error_class"] == "ValueError"


@pytest.mark.rule("retry.handlers")
def test_error_handlers_hear_of_a_failure_after_it_is_stored_and_a_raising_one_is_skipped(bed: Harness) -> None:
    heard: SimpleQueue[tuple[str, int]] = SimpleQueue()

    def broken(error: BaseException, context: object, config: object) -> None:
        raise RuntimeError("a broken handler")

    bed.setup.error_handlers.append(broken)
    bed.setup.error_handlers.append(lambda error, context, config: heard.put((str(error), len(bed.members("retry")))))
    bed.start()
    bed.push("fails", "value")
    assert heard.get(timeout=10) == ("no luck", 1)


@pytest.mark.rule("run.order")
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "__main__.x", "../a", "Billing::Charge", "NoSuchJob"])
def test_an_unknown_class_is_retried_and_nothing_is_imported(bed: Harness, name: str) -> None:
    bed.start()
    before = set(sys.modules)
    bed.raw(json.dumps({"class": name, "args": ["echo"], "jid": "j1", "queue": "default", "retry": True}))
    wait_until(lambda: bed.members("retry"), what="the retry")
    (retry,) = bed.members("retry")
    assert retry["error_class"] == "UnknownJob"
    assert name in retry["error_message"]
    assert set(sys.modules) - before <= {"encodings.idna", "stringprep"}


MISFITS = [
    ("Salute", [], "Salute: expected (name: str, times: int = 1), got []; "),
    ("Salute", ["hunter2", 1, 2], "Salute: expected (name: str, times: int = 1), got [str, int, int]; "),
    ("agreet", [1] * 12, f"agreet: expected (name: str), got [{'int, ' * 10}...]; "),
]


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "in middleware"])
@pytest.mark.parametrize(("name", "args", "words"), MISFITS)
def test_arguments_that_do_not_fit_are_told_with_the_signature(
    bed: Harness, name: str, args: list[Any], words: str, wrapped: bool
) -> None:
    class Passes:
        def __call__(self, job: object, payload: dict[str, Any], queue: str) -> Iterator[None]:
            yield

    if wrapped:
        bed.setup.server_middleware.add(Passes)
    bed.start()
    bed.push(name, *args, backtrace=True)
    wait_until(lambda: bed.members("retry"), what="the retry")
    (retry,) = bed.members("retry")
    assert retry["error_class"] == "ArgumentsError"
    assert retry["error_message"] == f"{words}whoever pushed it does not know this signature"


@pytest.mark.parametrize("where", ["inside", "None"])
def test_a_type_error_of_the_job_itself_stays_what_it_is(bed: Harness, where: str) -> None:
    bed.start()
    bed.push("trips", where)
    wait_until(lambda: bed.members("retry"), what="the retry")
    (retry,) = bed.members("retry")
    assert retry["error_class"] == "TypeError"


@pytest.mark.rule("move.malformed", "b9.38")
@pytest.mark.parametrize(
    "raw",
    [b"", b"not json", b'{"class":"A","args":[', b"[]", b"null", b'{"args":[]}', b'{"class":"A"}', b"\x80\x04]\x94.",
     b'{"class":"A","args":[],"jid":"\xff"}', b"[" * 100_000, b'{"class":"A","args":[NaN]}',
     b'{"class":"A","args":{}}'],
)  # fmt: skip
def test_what_can_never_run_goes_to_the_dead_set_untouched(bed: Harness, raw: bytes) -> None:
    bed.start()
    bed.raw(raw)
    wait_until(lambda: bed.redis.zcard("dead"), what="the dead set")
    assert bed.redis.zrange("dead", 0, -1) == [raw]
    bed.push("Greeter", "next")
    assert seen.get(timeout=10)[0] == "next"


@pytest.mark.rule("keys.queues")
def test_the_same_bytes_twice_run_twice(bed: Harness) -> None:
    raw = b'{"class":"Greeter","args":["twin"],"jid":"j1","queue":"default"}'
    bed.raw(raw)
    bed.raw(raw)
    bed.start()
    assert [seen.get(timeout=10)[0] for _ in range(2)] == ["twin", "twin"]
    bed.settled(2)


@pytest.mark.rule("life.serial")
def test_threads_and_tasks_together_stay_within_the_concurrency(server: Server) -> None:
    running, peak, lock = set[int](), [0], threading.Lock()
    gate = threading.Event()

    def enter(number: int) -> None:
        with lock:
            running.add(number)
            peak[0] = max(peak[0], len(running))

    @pillion.job(name="SyncHold")
    def hold(number: int) -> None:
        enter(number)
        gate.wait(5)
        running.discard(number)

    @pillion.job(name="AsyncHold")
    async def ahold(number: int) -> None:
        enter(number)
        await asyncio.to_thread(gate.wait, 5)
        running.discard(number)

    with harness(server, capsules=(Capsule(concurrency=4),)) as bed:
        for number in range(0, 12, 2):
            bed.push("SyncHold", number)
            bed.push("AsyncHold", number + 1)
        bed.start()
        wait_until(lambda: len(running) == 4, what="four jobs at once")
        wait_until(lambda: bed.redis.llen("queue:default") == 8, what="the rest given back or never taken")
        gate.set()
        bed.settled(12)
        assert peak == [4]


@pytest.mark.rule("middleware.server", "middleware.skip", "middleware.changes", "b9.51")
def test_middleware_wraps_both_colours_skips_swallows_and_changes_no_retry(bed: Harness) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")
    order: SimpleQueue[str] = SimpleQueue()

    class Tenant:
        def __call__(self, job: object, payload: dict[str, Any], queue: str) -> Iterator[None]:
            token = tenant.set(payload["args"][0])
            order.put(f"in {tenant.get()}")
            payload["leak"] = True
            try:
                yield
            finally:
                order.put(f"out {tenant.get()}")
                tenant.reset(token)

    class Keeper:
        def __init__(self, skip: str) -> None:
            self.skip = skip

        def __call__(self, job: object, payload: dict[str, Any], queue: str) -> Iterator[None]:
            if payload["args"][0] == self.skip:
                return
            try:
                yield
            except KeyError:
                order.put("swallowed")

    @pillion.job(name="Wrapped")
    def wrapped(what: str) -> None:
        order.put(f"job {tenant.get()}")
        if what != "fine":
            raise KeyError(what) if what == "swallow" else ValueError(what)

    @pillion.job(name="AWrapped")
    async def awrapped(what: str) -> None:
        order.put(f"job {tenant.get()}")

    bed.setup.server_middleware.add(Tenant)
    bed.setup.server_middleware.add(Keeper, skip="skipped")
    bed.start()

    def heard(count: int) -> list[str]:
        return [order.get(timeout=10) for _ in range(count)]

    bed.push("Wrapped", "fine")
    assert heard(3) == ["in fine", "job fine", "out fine"]
    bed.push("AWrapped", "fine")
    assert heard(3) == ["in fine", "job fine", "out fine"]
    bed.push("Wrapped", "skipped")
    assert heard(2) == ["in skipped", "out skipped"]
    bed.push("Wrapped", "swallow")
    assert heard(4) == ["in swallow", "job swallow", "swallowed", "out swallow"]
    bed.push("Wrapped", "raise")
    assert heard(3) == ["in raise", "job raise", "out raise"]
    wait_until(lambda: bed.members("retry"), what="the retry")
    (retry,) = bed.members("retry")
    assert retry["args"] == ["raise"]
    assert "leak" not in retry


def test_context_variables_travel_from_push_to_run_and_through_a_retry(bed: Harness) -> None:
    locale: contextvars.ContextVar[str] = contextvars.ContextVar("locale", default="en")
    bed.setup.carry(locale)

    @pillion.job(name="Localised", retry_in=lambda count, error, job: 0.01, retry=2)
    def localised(*, again: bool) -> None:
        seen.put(locale.get())
        current = pillion.current_job()
        if again and current is not None and current.attempt == 1:
            raise ValueError("again")

    token = locale.set("de")
    localised.set(client=bed.client).perform_async(again=False)
    locale.reset(token)
    bed.start()
    assert seen.get(timeout=10) == "de"


def test_settled_jobs_are_announced_with_what_was_written(bed: Harness) -> None:
    heard: SimpleQueue[JobSettled] = SimpleQueue()
    bed.setup.events.subscribe(JobSettled, heard.put)
    bed.start()
    jid = bed.push("Greeter", "x")
    event = heard.get(timeout=10)
    assert (event.jid, event.name, event.queue, event.attempt, event.error) == (jid, "Greeter", "default", 1, None)
    bed.push("fails", "value")
    failed = heard.get(timeout=10)
    assert isinstance(failed.error, ValueError)
    assert failed.attempt == 1


def test_what_a_job_pushes_goes_where_it_came_from(server: Server) -> None:
    """A worker of another setup than the default one: its jobs push into its Redis, through its chains."""
    ran: SimpleQueue[tuple[str, int]] = SimpleQueue()

    @pillion.job(name="HomeChild")
    def child(n: int) -> None:
        ran.put(("child", n))

    @pillion.job(name="HomeParent")
    def parent() -> None:
        child.perform_async(1)

    @pillion.job(name="HomeAsyncParent")
    async def aparent() -> None:
        await child.aperform_async(2)

    with harness(server) as bed:
        bed.start()
        bed.push("HomeParent")
        assert ran.get(timeout=10) == ("child", 1)
        bed.push("HomeAsyncParent")
        assert ran.get(timeout=10) == ("child", 2)
        bed.settled(4)

"""The chains: order and registration, one yield, what stops, what is swallowed, and who closes the generators."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any, ClassVar

import pytest

import pillion
from pillion import middleware as running
from pillion import registry, testing
from pillion.errors import MiddlewareError, Shutdown
from pillion.middleware import SKIPPED, Chain, Entry, run_async, run_client, run_sync


class Plain:
    def __call__(self, job_instance, job, queue):
        yield


class Other(Plain):
    pass


class Third(Plain):
    pass


class Options:
    def __init__(self, *seen, foo=0, bar=0, **more):
        self.seen, self.foo, self.bar, self.more = seen, foo, bar, more

    def __call__(self, job_instance, job, queue):
        job["options"] = (self.seen, self.foo, self.bar, self.more)
        yield


class Log:
    """Writes its name and what it saw at its yield into the job."""

    def __init__(self, name: str, log: list[Any]) -> None:
        self.name, self.log = name, log

    def __call__(self, job_instance, job, queue):
        self.log.append(f"{self.name} in")
        try:
            got = yield
        except BaseException as error:
            self.log.append((f"{self.name} raised", error))
            raise
        self.log.append((f"{self.name} out", got))


def chain_of(*middlewares: Any, kind: Any = "server") -> tuple[Entry, ...]:
    chain = Chain(kind)
    for each in middlewares:
        chain.add(*each) if isinstance(each, tuple) else chain.add(each)
    return chain.entries


def names(chain: Chain) -> list[str]:
    return [entry.describe() for entry in chain]


Face = Callable[..., Any]


def sync_face(entries: Any, call: Callable[[], Any], *, instance: Any = None, job: Any = None, queue: str = "q") -> Any:
    return run_sync(entries, instance, {} if job is None else job, queue, call)


def async_face(
    entries: Any, call: Callable[[], Any], *, instance: Any = None, job: Any = None, queue: str = "q"
) -> Any:
    async def acall() -> Any:
        await asyncio.sleep(0)
        return call()

    return asyncio.run(run_async(entries, instance, {} if job is None else job, queue, acall))


@pytest.fixture(params=[sync_face, async_face], ids=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Face:
    """`run(entries, call)`: the same server chain around a sync job and around an async one."""
    return request.param


def fails(error: BaseException) -> Callable[[], Any]:
    def call() -> Any:
        raise error

    return call


# Registration


def test_options_that_do_not_fit_the_constructor_are_refused_at_registration() -> None:
    class Two:
        def __init__(self, a, *, b):
            pass

        def __call__(self, job_instance, job, queue):
            yield

    chain = Chain()
    for args, kwargs in [((), {}), ((1,), {}), ((1, 2), {"b": 1}), ((1,), {"b": 1, "c": 2})]:
        with pytest.raises(MiddlewareError, match=r"Two do not fit its constructor: expected \(a, \*, b\)"):
            chain.add(Two, *args, **kwargs)
    assert len(chain) == 0
    chain.add(Two, 1, b=2)
    assert len(chain) == 1


def test_the_refusal_of_options_does_not_show_their_values_by_keyword() -> None:
    with pytest.raises(MiddlewareError) as caught:
        Chain().add(Plain, api_key="hunter2")
    assert "hunter2" not in str(caught.value)


def test_options_that_can_only_be_tried_fail_at_the_first_call_by_name(run: Face) -> None:
    class Unreadable(Plain):
        __signature__ = "not one"

        def __init__(self, a):
            pass

    entries = chain_of(Unreadable)
    with pytest.raises(MiddlewareError, match=r"Unreadable could not be built with the options"):
        run(entries, list)


class NoCall:
    pass


class Coroutine:
    async def __call__(self, job_instance, job, queue):
        pass


class ForClients:
    def __call__(self, job_class, job, queue, pool):
        yield


async def awaiting_client(job_class, job, queue, pool):
    yield


@pytest.mark.parametrize(
    ("kind", "middleware", "message"),
    [
        (None, NoCall, "the class has no __call__"),
        (None, Coroutine, "it is a coroutine"),
        (None, 7, "it cannot be called"),
        ("server", ForClients, r"is called with \(job_instance, job, queue\)"),
        ("client", Plain, r"is called with \(job_class, job, queue, pool\)"),
        ("server", ForClients(), r"is called with \(job_instance, job, queue\)"),
        ("client", awaiting_client, "plain generator"),
    ],
)
def test_what_is_sure_to_fail_is_refused_at_registration(kind: Any, middleware: Any, message: str) -> None:
    chain = Chain(kind)
    for register in (chain.add, chain.prepend, functools.partial(chain.insert_after, Plain)):
        with pytest.raises(MiddlewareError, match=message):
            register(middleware)
    assert len(chain) == 0


def test_only_a_class_takes_options() -> None:
    def bare(job_instance, job, queue):
        yield

    for middleware in (bare, Plain()):
        with pytest.raises(MiddlewareError, match="only a class takes options"):
            Chain().add(middleware, 1)


@pytest.mark.rule("middleware.add")
def test_adding_again_moves_to_the_end_with_the_new_options() -> None:
    chain = Chain()
    chain.add(Options, foo=1)
    chain.add(Plain)
    chain.add(Options, foo=2)
    assert names(chain) == ["Plain", "Options(foo=2)"]


@pytest.mark.rule("middleware.add")
def test_prepending_moves_to_the_front_with_the_new_options() -> None:
    chain = Chain()
    chain.add(Plain)
    chain.add(Options, foo=1)
    chain.prepend(Options, foo=2)
    assert names(chain) == ["Options(foo=2)", "Plain"]


@pytest.mark.rule("middleware.insert")
def test_inserting_before_and_after_an_anchor() -> None:
    chain = Chain()
    chain.add(Plain)
    chain.add(Other)
    chain.insert_before(Other, Options, 1)
    chain.insert_after(Plain, Third)
    assert names(chain) == ["Plain", "Third", "Options(1)", "Other"]


@pytest.mark.rule("middleware.insert")
def test_inserting_without_the_anchor_goes_to_the_front_or_the_end() -> None:
    chain = Chain()
    chain.add(Plain)
    chain.insert_before(Third, Other)
    chain.insert_after(Third, Options)
    assert names(chain) == ["Other", "Plain", "Options"]


@pytest.mark.rule("middleware.insert")
def test_inserting_what_is_there_moves_it_and_keeps_its_options() -> None:
    chain = Chain()
    chain.add(Options, foo=1)
    chain.add(Plain)
    chain.add(Other)
    chain.insert_after(Plain, Options, foo=2)
    assert names(chain) == ["Plain", "Options(foo=1)", "Other"]
    chain.insert_before(Plain, Options, foo=3)
    assert names(chain) == ["Options(foo=1)", "Plain", "Other"]


@pytest.mark.rule("middleware.manage")
def test_removing_clearing_and_asking() -> None:
    chain = Chain()
    assert not chain
    chain.add(Plain)
    chain.add(Other)
    chain.remove(Plain)
    chain.remove(Plain)
    assert (Plain in chain, chain.exists(Plain), Other in chain, chain.exists(Other)) == (False, False, True, True)
    assert (len(chain), bool(chain)) == (1, True)
    chain.clear()
    assert (len(chain), bool(chain), list(chain)) == (0, False, [])


def test_a_bound_method_is_found_again() -> None:
    class Holder:
        def around(self, job_instance, job, queue):
            yield

    holder, chain = Holder(), Chain("server")
    chain.add(holder.around)
    assert holder.around in chain
    chain.remove(holder.around)
    assert not chain


def test_a_copy_goes_its_own_way() -> None:
    chain = Chain("server")
    chain.add(Plain)
    twin = chain.copy()
    twin.add(Other)
    chain.remove(Plain)
    assert (names(chain), names(twin), twin.kind) == ([], ["Plain", "Other"], "server")


def test_changes_do_not_disturb_who_is_reading() -> None:
    chain = Chain()
    for each in (Plain, Other, Third):
        chain.add(each)
    seen = []
    for entry in chain:
        chain.clear()
        chain.add(Options)
        seen.append(entry.middleware)
    assert seen == [Plain, Other, Third]


def test_changes_from_several_threads_are_all_kept() -> None:
    chain = Chain()
    kinds = [[type(f"M{i}_{j}", (Plain,), {}) for j in range(100)] for i in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda row=row: [chain.add(each) for each in row]) for row in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert {entry.middleware for entry in chain} == {each for row in kinds for each in row}


def test_describing_shows_options_but_no_secrets() -> None:
    class Rude:
        def __repr__(self):
            raise ValueError

    chain = Chain()
    assert chain.describe() == "(none)"
    chain.add(Plain)
    chain.add(Options, 1, Rude(), foo="x" * 100, api_key="hunter2", DSN="https://abc@sentry.example/1")
    shown = chain.describe()
    assert shown.startswith("Plain > Options(1, <Rude>, foo='xxx")
    assert "api_key=***, DSN=***" in shown
    assert "hunter2" not in shown
    assert len(shown) < 200


# Around perform


@pytest.mark.rule("middleware.server")
def test_outer_to_inner_and_back_with_the_result_at_the_yield(run: Face) -> None:
    log: list[Any] = []
    entries = chain_of((Log, "a", log))
    entries += chain_of((Log, "b", log))
    assert run(entries, lambda: log.append("job") or 42) == 42
    assert log == ["a in", "b in", "job", ("b out", 42), ("a out", 42)]


def test_a_result_of_none_comes_at_the_yield_too(run: Face) -> None:
    log: list[Any] = []
    assert run(chain_of((Log, "a", log)), lambda: None) is None
    assert log == ["a in", ("a out", None)]


def test_without_middleware_the_result_passes(run: Face) -> None:
    assert run((), lambda: 5) == 5


@pytest.mark.rule("middleware.server")
def test_it_gets_the_instance_the_job_and_the_queue(run: Face) -> None:
    seen = []

    def bare(job_instance, job, queue):
        seen.append((job_instance, job, queue))
        yield

    instance, job = object(), {"jid": "1"}
    run(chain_of(bare), list, instance=instance, job=job, queue="critical")
    assert seen == [(instance, job, "critical")]
    assert seen[0][1] is job


@pytest.mark.rule("middleware.instance")
def test_a_new_instance_per_call_with_its_options(run: Face) -> None:
    made: list[Any] = []

    class Counting(Options):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    entries = chain_of()
    chain = Chain()
    chain.add(Counting, "x", foo=1, other=2)
    entries = chain.entries
    job: dict[str, Any] = {}
    run(entries, list, job=job)
    run(entries, list, job=job)
    assert len({id(each) for each in made}) == 2
    assert job["options"] == (("x",), 1, 0, {"other": 2})


def test_an_object_with_call_is_used_as_it_is(run: Face) -> None:
    class Counter:
        count = 0

        def __call__(self, job_instance, job, queue):
            self.count += 1
            yield

    counter = Counter()
    entries = chain_of(counter)
    run(entries, list)
    run(entries, list)
    assert counter.count == 2


def no_yield(job_instance, job, queue):
    if job is None:
        yield


@pytest.mark.rule("middleware.skip")
def test_not_yielding_skips_the_job_and_what_is_further_in(run: Face) -> None:
    log: list[Any] = []
    entries = chain_of((Log, "a", log)) + chain_of(no_yield) + chain_of((Log, "c", log))
    assert run(entries, lambda: log.append("job")) is SKIPPED
    assert log == ["a in", ("a out", SKIPPED)]
    assert not SKIPPED


def test_the_jobs_exception_is_raised_at_each_yield_and_comes_out(run: Face) -> None:
    log: list[Any] = []
    error = ValueError("no")
    with pytest.raises(ValueError, match="no") as caught:
        run(chain_of((Log, "a", log)) + chain_of((Log, "b", log)), fails(error))
    assert caught.value is error
    assert log == ["a in", "b in", ("b raised", error), ("a raised", error)]


def test_swallowing_it_makes_the_job_done(run: Face) -> None:
    def swallow(job_instance, job, queue):
        with contextlib.suppress(ValueError):
            yield

    log: list[Any] = []
    assert run(chain_of((Log, "a", log)) + chain_of(swallow), fails(ValueError())) is None
    assert log == ["a in", ("a out", None)]


def test_another_exception_takes_its_place(run: Face) -> None:
    def translate(job_instance, job, queue):
        try:
            yield
        except ValueError as error:
            raise KeyError("instead") from error

    log: list[Any] = []
    with pytest.raises(KeyError) as caught:
        run(chain_of((Log, "a", log)) + chain_of(translate), fails(ValueError()))
    assert isinstance(caught.value.__cause__, ValueError)
    assert log == ["a in", ("a raised", caught.value)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_its_own_exception_is_raised_at_the_outer_yields(run: Face, when: str) -> None:
    def raising(job_instance, job, queue):
        if when == "before":
            raise OSError(when)
        yield
        raise OSError(when)

    log: list[Any] = []
    with pytest.raises(OSError, match=when) as caught:
        run(chain_of((Log, "a", log)) + chain_of(raising), lambda: log.append("job"))
    assert log == ["a in", *(["job"] if when == "after" else []), ("a raised", caught.value)]


def two_yields(job_instance, job, queue):
    yield
    yield


def yields_again_after_an_error(job_instance, job, queue):
    try:
        yield
    except ValueError:
        yield


@pytest.mark.parametrize("result", [None, 7])
def test_a_second_yield_is_an_error_that_names_the_middleware(run: Face, result: Any) -> None:
    log: list[Any] = []
    with pytest.raises(
        MiddlewareError, match=r"expected one yield from middleware .*two_yields, got a second"
    ) as caught:
        run(chain_of((Log, "a", log)) + chain_of(two_yields), lambda: result)
    assert log[1:] == [("a raised", caught.value)]


def test_a_second_yield_after_an_error_tells_of_that_error_too(run: Face) -> None:
    error = ValueError()
    with pytest.raises(MiddlewareError, match="yields_again_after_an_error") as caught:
        run(chain_of(yields_again_after_an_error), fails(error))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("call", [list, fails(ValueError())])
@pytest.mark.parametrize("is_async", [False, True])
def test_the_generator_with_a_second_yield_is_closed_and_cannot_swallow_that_it_was(
    call: Callable[[], Any], is_async: bool
) -> None:
    kept: list[Any] = []

    def twice(job_instance, job, queue):
        with contextlib.suppress(ValueError):
            yield
        with contextlib.suppress(Exception):
            yield

    async def atwice(job_instance, job, queue):
        with contextlib.suppress(ValueError):
            yield
        with contextlib.suppress(Exception):
            yield

    def keeping(*args):
        kept.append((atwice if is_async else twice)(*args))
        return kept[-1]

    for face in (async_face,) if is_async else (sync_face, async_face):
        with pytest.raises(MiddlewareError, match="got a second"):
            face(chain_of(keeping), call)
        assert (kept[-1].ag_frame if is_async else kept[-1].gi_frame) is None


def test_a_second_yield_ends_what_comes_finally(run: Face) -> None:
    closed = []

    def twice(job_instance, job, queue):
        try:
            yield
            yield
        finally:
            closed.append(True)

    with pytest.raises(MiddlewareError):
        run(chain_of(twice), list)
    assert closed == [True]


@pytest.mark.parametrize(
    ("middleware", "got"),
    [
        (lambda job_instance, job, queue: None, "NoneType"),
        (lambda job_instance, job, queue: iter([1]), "list_iterator"),
        (lambda job_instance, job, queue: handed_on(Coroutine(), job_instance, job, queue), "coroutine"),
    ],
)
def test_what_is_no_generator_is_an_error_that_says_how_to_write_one(run: Face, middleware: Any, got: str) -> None:
    done: list[Any] = []
    with pytest.raises(MiddlewareError, match=rf"lambda.*calling it gave {got}.*def __call__.*yield"):
        run(chain_of(middleware), lambda: done.append(True))
    assert done == []


def handed_on(middleware, *args):
    return middleware(*args)


def test_a_function_may_hand_on_to_a_generator(run: Face) -> None:
    log: list[Any] = []
    inner = Log("a", log)
    assert run(chain_of(functools.partial(handed_on, inner)), lambda: 1) == 1
    assert log == ["a in", ("a out", 1)]


@pytest.mark.parametrize("error", [StopIteration("s"), StopAsyncIteration("s"), GeneratorExit("s"), SystemExit("s")])
def test_strange_exceptions_of_a_job_come_out_as_they_are(error: BaseException) -> None:
    log: list[Any] = []
    with pytest.raises(type(error)) as caught:
        run_sync(chain_of((Log, "a", log)) + chain_of((Log, "b", log)), None, {}, "q", fails(error))
    assert caught.value is error
    assert log == ["a in", "b in", ("b raised", error), ("a raised", error)]


def test_the_backtrace_of_a_failed_job_holds_no_middleware_that_let_it_pass(run: Face) -> None:
    with pytest.raises(ValueError, match="deep") as caught:
        run(chain_of(Plain, (Log, "a", [])), fails(ValueError("deep")))
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == "call"
    assert "__call__" not in frames


def test_a_failed_job_is_freed_without_the_garbage_collector() -> None:
    class Instance:
        pass

    def swallow(job_instance, job, queue):
        with contextlib.suppress(ValueError):
            yield

    def raises() -> None:
        raise ValueError

    def once(entries: tuple[Entry, ...]) -> weakref.ref[Instance]:
        instance = Instance()
        with contextlib.suppress(ValueError):
            run_sync(entries, instance, {}, "q", raises)
        return weakref.ref(instance)

    gc.collect()
    gc.disable()
    try:
        assert once(chain_of(Plain, (Options, 1)))() is None
        assert once(chain_of(Plain, swallow))() is None
    finally:
        gc.enable()


# Shutdown and cancellation


def swallow_all(job_instance, job, queue):
    with contextlib.suppress(BaseException):
        yield


def test_shutdown_cannot_be_swallowed_and_the_log_names_who_tried(run: Face, caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []
    error = Shutdown()
    with caplog.at_level(logging.WARNING, "pillion"), pytest.raises(Shutdown) as caught:
        run(chain_of((Log, "a", log)) + chain_of(swallow_all), fails(error))
    assert caught.value is error
    assert log == ["a in", ("a raised", error)]
    assert "swallow_all swallowed Shutdown" in caplog.text


def test_cancellation_cannot_be_swallowed_by_a_sync_or_an_async_middleware(caplog: pytest.LogCaptureFixture) -> None:
    async def aswallow_all(job_instance, job, queue):
        with contextlib.suppress(asyncio.CancelledError):
            yield

    async def main() -> None:
        started = asyncio.Event()

        async def forever() -> None:
            started.set()
            await asyncio.Event().wait()

        for culprit in (swallow_all, aswallow_all):
            started.clear()
            task = asyncio.create_task(run_async(chain_of(Plain, culprit), None, {}, "q", forever))
            await started.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert f"{culprit.__name__} swallowed CancelledError" in caplog.text

    asyncio.run(main())


def test_swallowing_anything_else_is_not_logged(run: Face, caplog: pytest.LogCaptureFixture) -> None:
    assert run(chain_of(swallow_all), fails(SystemExit(3))) is None
    assert caplog.text == ""


# Async middleware


class Awaiting:
    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def __call__(self, job_instance, job, queue):
        self.log.append("async in")
        await asyncio.sleep(0)
        try:
            got = yield
        except BaseException as error:
            await asyncio.sleep(0)
            self.log.append(("async raised", error))
            raise
        await asyncio.sleep(0)
        self.log.append(("async out", got))


def test_async_middleware_wraps_async_jobs_and_is_left_out_of_sync_ones() -> None:
    log: list[Any] = []
    entries = chain_of((Log, "a", log)) + chain_of((Awaiting, log)) + chain_of((Log, "c", log))
    assert async_face(entries, lambda: 3) == 3
    assert log == ["a in", "async in", "c in", ("c out", 3), ("async out", 3), ("a out", 3)]
    log.clear()
    assert sync_face(entries, lambda: 3) == 3
    assert log == ["a in", "c in", ("c out", 3), ("a out", 3)]


def test_async_middleware_is_not_even_made_for_sync_jobs() -> None:
    made = []

    class Made(Awaiting):
        def __init__(self) -> None:
            super().__init__([])
            made.append(self)

    sync_face(chain_of(Made), list)
    assert made == []


def test_async_middleware_behind_a_plain_function_is_left_out_of_sync_jobs_too() -> None:
    log: list[Any] = []
    entries = chain_of(functools.partial(handed_on, Awaiting(log)))
    assert sync_face(entries, lambda: 1) == 1
    assert log == []
    assert async_face(entries, lambda: 1) == 1
    assert log == ["async in", ("async out", 1)]


@pytest.mark.parametrize("error", [ValueError(), StopAsyncIteration(), GeneratorExit(), Shutdown()])
def test_an_exception_is_raised_at_an_async_yield(error: BaseException) -> None:
    log: list[Any] = []

    async def call() -> None:
        raise error

    async def main() -> BaseException:
        # Awaited in this very task: `asyncio.run` has its own ideas about a GeneratorExit that leaves a task.
        with pytest.raises(type(error)) as caught:
            await run_async(chain_of((Log, "a", log)) + chain_of((Awaiting, log)), None, {}, "q", call)
        return caught.value

    assert asyncio.run(main()) is error
    assert log == ["a in", "async in", ("async raised", error), ("a raised", error)]


def test_async_middleware_may_skip_swallow_and_must_not_yield_twice() -> None:
    async def skip(job_instance, job, queue):
        if job is None:
            yield

    async def swallow(job_instance, job, queue):
        with contextlib.suppress(ValueError):
            yield

    async def atwice(job_instance, job, queue):
        with contextlib.suppress(ValueError):
            yield
        yield

    log: list[Any] = []
    assert async_face(chain_of((Log, "a", log)) + chain_of(skip), lambda: log.append("job")) is SKIPPED
    assert log == ["a in", ("a out", SKIPPED)]
    assert async_face(chain_of(swallow), fails(ValueError())) is None
    for call in (list, fails(ValueError())):
        with pytest.raises(MiddlewareError, match="atwice, got a second"):
            async_face(chain_of(atwice), call)


# Contexts

current: ContextVar[str] = ContextVar("current", default="nothing")


class Sets:
    """Sets a variable before and resets it after; a reset in a foreign context raises ValueError."""

    started: ClassVar[list[str]] = []
    ended: ClassVar[list[str]] = []

    def __call__(self, job_instance, job, queue):
        token = current.set("the job's")
        self.started.append("sync")
        try:
            yield
        finally:
            current.reset(token)
            self.ended.append(current.get())


class ASets:
    async def __call__(self, job_instance, job, queue):
        token = current.set("the job's, async")
        try:
            yield
        finally:
            await asyncio.sleep(0)
            current.reset(token)
            Sets.ended.append(current.get())


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the variable was after each reset."""
    monkeypatch.setattr(Sets, "ended", [])
    monkeypatch.setattr(Sets, "started", [])
    return Sets.ended


@pytest.mark.parametrize("inner", [(), (two_yields,), (no_yield,), (swallow_all,)])
@pytest.mark.parametrize("error", [None, ValueError(), Shutdown()])
def test_context_variables_are_set_for_the_job_and_reset_after_it(
    run: Face, ended: list[str], inner: tuple[Any, ...], error: BaseException | None
) -> None:
    seen = []

    def call() -> None:
        seen.append(current.get())
        if error:
            raise error

    with contextlib.suppress(ValueError, Shutdown, MiddlewareError):
        run(chain_of(Sets, *inner), call)
    assert seen == ([] if no_yield in inner else ["the job's"])
    assert ended == ["nothing"]


def test_async_and_sync_share_the_context_of_one_task(ended: list[str]) -> None:
    seen: list[str] = []
    async_face(chain_of(Sets, ASets), lambda: seen.append(current.get()))
    assert seen == ["the job's, async"]
    assert ended == ["the job's", "nothing"]


def test_a_cancelled_task_closes_its_generators_in_its_own_context(ended: list[str]) -> None:
    async def main() -> None:
        started = asyncio.Event()

        async def forever() -> None:
            started.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(run_async(chain_of(Sets, ASets), None, {}, "q", forever))
        await started.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert ended == ["the job's", "nothing"]

    asyncio.run(main())


class RaiseAt:
    """Traces every instruction of middleware.py in this thread, and raises Shutdown at the nth one, once."""

    def __init__(self, n: int) -> None:
        self.left = n
        self.file = running.__file__

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename != self.file:
            return None
        frame.f_trace_opcodes = True
        return self.local

    def local(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise Shutdown
        return self.local


@pytest.mark.parametrize(
    ("inner", "call"),
    [((), list), ((), fails(ValueError())), ((swallow_all,), fails(ValueError())), ((no_yield,), list)],
    ids=["done", "failed", "swallowed", "skipped"],
)
def test_a_shutdown_between_any_two_instructions_leaves_no_generator_open(
    ended: list[str], inner: tuple[Any, ...], call: Callable[[], Any]
) -> None:
    class SetsToo(Sets):
        pass

    entries = chain_of(Sets, SetsToo, *inner)
    before = sys.gettrace()
    for n in range(1, 2_000):
        Sets.started.clear()
        ended.clear()
        trace = RaiseAt(n)
        sys.settrace(trace)
        try:
            run_sync(entries, None, {}, "q", call)
        except (Shutdown, ValueError) as error:
            kept = error  # and with it, in its traceback, every frame: nothing below is the work of refcounts
            assert ended == ["the job's", "nothing"][2 - len(Sets.started) :], f"instruction {n}"
            del kept
        finally:
            sys.settrace(before)
        if trace.left > 0:
            break
    assert 100 < n < 2_000
    assert current.get() == "nothing"


# The client's chain


def client_log(name: str, log: list[Any]) -> Any:
    def around(job_class, job, queue, pool):
        log.append((name, job_class, queue, pool))
        got = yield
        log.append((name, got))

    return around


@pytest.mark.rule("middleware.client")
def test_client_middleware_sees_the_call_and_then_the_job_as_the_inner_ones_left_it() -> None:
    def mark(job_class, job, queue, pool):
        job["marked"] = True
        job["queue"] = "other"
        yield

    log: list[Any] = []
    job = {"args": []}
    assert run_client(chain_of(client_log("a", log), mark, kind="client"), "Job", job, "q", "pool") is job
    assert log == [("a", "Job", "q", "pool"), ("a", {"args": [], "marked": True, "queue": "other"})]


def test_changes_after_the_yield_count() -> None:
    def mark(job_class, job, queue, pool):
        yield
        job["marked"] = 1

    assert run_client(chain_of(mark, kind="client"), "Job", {}, "q", None) == {"marked": 1}


def test_a_chain_can_be_given_whole() -> None:
    chain = Chain("client")
    chain.add(ForClients)
    assert run_client(chain, "Job", {"a": 1}, "q", None) == {"a": 1}


def test_without_client_middleware_the_job_passes() -> None:
    job: dict[str, Any] = {}
    assert run_client((), "Job", job, "q", None) is job


def stops(job_class, job, queue, pool):
    return
    yield


def returns_false(job_class, job, queue, pool):
    yield
    return False


@pytest.mark.rule("middleware.stop")
@pytest.mark.parametrize("stopper", [stops, returns_false])
def test_not_yielding_or_returning_false_stops_the_push(stopper: Any) -> None:
    log: list[Any] = []
    inner: list[Any] = []
    entries = chain_of(client_log("a", log), stopper, client_log("c", inner), kind="client")
    assert run_client(entries, "Job", {}, "q", None) is None
    assert log[1:] == [("a", None)]
    assert bool(inner) is (stopper is returns_false)


def test_swallowing_what_another_client_middleware_raised_stops_the_push() -> None:
    def swallow(job_class, job, queue, pool):
        with contextlib.suppress(KeyError):
            yield

    def raising(job_class, job, queue, pool):
        yield
        raise KeyError

    log: list[Any] = []
    assert run_client(chain_of(client_log("a", log), swallow, raising, kind="client"), "Job", {}, "q", None) is None
    assert log[1:] == [("a", None)]
    with pytest.raises(KeyError):
        run_client(chain_of(raising, kind="client"), "Job", {}, "q", None)


@pytest.mark.rule("middleware.client-result", instead=True)
@pytest.mark.parametrize("answer", [True, 0, "no", {"another": "job"}])
def test_returning_anything_else_from_client_middleware_is_an_error(answer: Any) -> None:
    def answers(job_class, job, queue, pool):
        yield
        return answer

    with pytest.raises(MiddlewareError, match=r"answers to return nothing, or False .* change the job in place"):
        run_client(chain_of(answers, kind="client"), "Job", {}, "q", None)


def test_returning_the_job_itself_is_fine() -> None:
    def returns(job_class, job, queue, pool):
        yield
        return job

    job: dict[str, Any] = {}
    assert run_client(chain_of(returns, kind="client"), "Job", job, "q", None) is job


def two_client_yields(option, job_class, job, queue, pool):
    yield
    yield


def hidden_async(*args: Any) -> Any:
    return awaiting_client(*args)


@pytest.mark.parametrize(
    ("middleware", "message"),
    [
        (lambda job_class, job, queue, pool: None, "calling it gave NoneType"),
        (hidden_async, "plain generator, this one is async"),
        (functools.partial(two_client_yields, 1), "got a second"),
    ],
)
def test_a_broken_contract_of_client_middleware_is_told(middleware: Any, message: str) -> None:
    with pytest.raises(MiddlewareError, match=message):
        run_client(chain_of(middleware, kind="client"), "Job", {}, "q", None)


def test_client_middleware_is_closed_where_it_was_opened(ended: list[str]) -> None:
    def sets(job_class, job, queue, pool) -> Iterator[None]:
        yield from Sets()(None, job, queue)

    def raising(job_class, job, queue, pool):
        raise KeyError(current.get())
        yield

    with pytest.raises(KeyError, match="the job's"):
        run_client(chain_of(sets, raising, kind="client"), "Job", {}, "q", None)
    assert ended == ["nothing"]


# --- with whole jobs --------------------------------------------------------------------------------------------------


@pytest.mark.rule("middleware.server")
@pytest.mark.parametrize("is_async", [False, True])
def test_around_a_function_job_it_gets_an_object_that_tells_about_the_run(is_async: bool) -> None:
    seen: list[Any] = []

    def look(job_instance: Any, job: dict[str, Any], queue: str) -> Iterator[None]:
        options = job_instance.options
        seen.append((job_instance.jid, job_instance.name, options, job_instance.interrupted(), queue))
        options["tags"].append("changed")
        yield

    setup = pillion.Setup("redis://nobody.invalid")
    setup.server_middleware.add(look)
    client = pillion.Client(setup=setup)
    with registry.default.restored():
        if is_async:

            @pillion.job(name="Chained", queue="low", retry=3, tags=["a"], team="blue")
            async def job() -> None: ...
        else:

            @pillion.job(name="Chained", queue="low", retry=3, tags=["a"], team="blue")
            def job() -> None: ...

        for _ in range(2):
            job.set(client=client, jid="j1", queue="high").perform_inline()
    options = {"queue": "low", "retry": 3, "tags": ["a", "changed"], "team": "blue"}
    assert seen == [("j1", "Chained", options, False, "high")] * 2  # a copy each, or the second had it twice


@pytest.mark.rule("middleware.stop")
def test_return_false_after_the_yield_stops_single_pushes_and_those_of_a_bulk() -> None:
    def picky(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Generator[None, None, bool | None]:
        yield
        return False if job["args"][0] % 2 else None

    with registry.default.restored():

        @pillion.job(name="Picky")
        def job(number: int) -> None: ...

        setup = pillion.Setup("redis://nobody.invalid")
        setup.client_middleware.add(picky)
        push = job.set(client=pillion.Client(setup=setup))
        with testing.fake() as jobs:
            assert push.perform_async(1) is None
            assert push.perform_async(2) is not None
            assert [jid is None for jid in push.perform_bulk([(3,), (4,), (5,)])] == [True, False, True]
            assert push.perform_inline(7) is None
            assert [each["args"] for each in jobs] == [[2], [4]]

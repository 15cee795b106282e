"""Jobs as people write them: definition, options, and what each verb hands to the client."""

from __future__ import annotations

import abc
import asyncio
import functools
import inspect
import logging
import math
import pickle
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillion import registry
from pillion.config import Config
from pillion.errors import ArgumentsError, ConfigError, DefinitionError, PayloadError, UsageError
from pillion.job import FunctionJob, Job, job
from pillion.running import RunningJob, Signals
from pillion.setter import Setter
from pillion.types import Claim

NOW = 1_800_000_000.0
YEAR = 365 * 86_400
VERBS = ("perform_async", "perform_in", "perform_at", "perform_bulk", "perform_inline")


@pytest.fixture(autouse=True)
def names_of_this_test_only() -> Iterator[None]:
    with registry.default.restored():
        yield


class StoppedClock:
    def now(self) -> float:
        return NOW

    def steady(self) -> float:
        return NOW


class Recorder:
    """A client that keeps what it is asked to push."""

    def __init__(self) -> None:
        self.setup = SimpleNamespace(config=Config(clock=StoppedClock()))
        self.calls: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    @property
    def item(self) -> dict[str, Any]:
        return self.calls[-1][1]

    @property
    def fields(self) -> dict[str, Any]:
        """The last item without what every item has."""
        return {name: value for name, value in self.item.items() if name not in ("class", "args")}

    def push(self, item: Any, **transport: Any) -> str | None:
        return self._keep("push", item, transport, "a-jid")

    def push_bulk(self, item: Any, **transport: Any) -> Any:
        return self._keep("push_bulk", item, transport, ["a-jid"])

    def run_inline(self, item: Any) -> Any:
        return self._keep("run_inline", item, {}, "a result")

    async def apush(self, item: Any, **transport: Any) -> str | None:
        return self.push(item, **transport)

    async def apush_bulk(self, item: Any, **transport: Any) -> Any:
        return self.push_bulk(item, **transport)

    async def arun_inline(self, item: Any) -> Any:
        return self.run_inline(item)

    def _keep(self, verb: str, item: Any, transport: dict[str, Any], answer: Any) -> Any:
        self.calls.append((verb, item, transport))
        return answer


@pytest.fixture
def client() -> Recorder:
    return Recorder()


@pytest.fixture
def worker(client: Recorder) -> Setter[..., Any]:
    """A job class with two parameters, pushing through `client`."""

    class HardWorker(Job, queue="hard", tags=["a"]):
        def perform(self, name: str, count: int = 1) -> None: ...

    return HardWorker.set(client=client)


# Defining


@pytest.mark.rule("client.inherit")
def test_options_are_inherited_and_the_nearest_wins() -> None:
    class Base(Job, queue="base", retry=1, tags=["base"], customer={"id": 1}): ...

    class Child(Base, retry=2):
        def perform(self) -> None: ...

    class Grandchild(Child, queue="grand", customer=None): ...

    assert Child.__pillion__.options == {"queue": "base", "retry": 2, "tags": ["base"], "customer": {"id": 1}}
    assert Grandchild.__pillion__.options == {"queue": "grand", "retry": 2, "tags": ["base"], "customer": None}
    assert Base.__pillion__.options["retry"] == 1


def test_options_of_several_bases_follow_the_method_resolution_order() -> None:
    class Root(Job, queue="root", retry=0): ...

    class Left(Root, queue="left"): ...

    class Right(Root, queue="right", retry=9): ...

    class Both(Left, Right):
        def perform(self) -> None: ...

    assert Both.__pillion__.options == {"queue": "left", "retry": 9}


def test_mixins_may_stand_before_or_after_and_bring_perform() -> None:
    class Performs:
        def perform(self, a: int) -> None: ...

    class Logged:
        audit = False

        def __init_subclass__(cls, audit: bool = False, **rest: Any) -> None:
            cls.audit = audit
            super().__init_subclass__(**rest)

    class Before(Logged, Performs, Job, queue="q", audit=True): ...

    class After(Job, Performs, queue="q"): ...

    assert Before.audit
    for cls in (Before, After):
        assert cls.__pillion__.kind == "class"
        assert cls.__pillion__.options == {"queue": "q"}
        assert cls.__pillion__.bind((), {"a": 1}) == ([1], {})


def test_name_and_aliases_are_not_inherited() -> None:
    class Base(Job, name="Billing::Base", aliases=["Old"]):
        def perform(self) -> None: ...

    class Child(Base): ...

    assert (Child.__pillion__.name, Child.__pillion__.aliases) == ("Child", ())
    assert registry.default.get("Billing::Base") is registry.default.get("Old") is Base.__pillion__


def test_transport_is_inherited_and_never_an_option(client: Recorder) -> None:
    class Base(Job, durability="replicated", client=client): ...

    class Child(Base, once=True, durability=None):
        def perform(self) -> None: ...

    Child.perform_async()
    assert client.calls == [
        ("push", {"class": Child.__pillion__, "args": []}, {"once": True, "durability": None}),
    ]


def test_an_inherited_perform_counts_and_an_abstract_one_does_not() -> None:
    class Abstract(Job, abc.ABC):
        @abc.abstractmethod
        def perform(self) -> None: ...

    class Concrete(Abstract):
        def perform(self) -> None: ...

    class Heir(Concrete): ...

    kinds = [cls.__pillion__.kind for cls in (Abstract, Concrete, Heir)]
    assert kinds == ["stub", "class", "class"]


def test_a_generic_job_class_is_fine() -> None:
    T = TypeVar("T")

    class Export(Job, Generic[T], queue="exports"):
        def perform(self, what: T) -> None: ...

    class ExportText(Export[str]): ...

    assert ExportText.__pillion__.options == {"queue": "exports"}


def sync() -> None: ...


async def coroutine() -> None: ...


@functools.wraps(coroutine)
def wrapper(*args: Any) -> Any:
    return coroutine(*args)


class AsyncCall:
    async def __call__(self) -> None: ...


class SyncCall:
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (sync, False),
        (coroutine, True),
        (wrapper, True),
        (functools.partial(coroutine), True),
        (functools.partial(functools.partial(wrapper)), True),
        (functools.partial(sync), False),
        (AsyncCall(), True),
        (SyncCall(), False),
        (functools.lru_cache(sync), False),
        (len, False),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__) if callable(value) else str(value),
)
def test_what_must_be_awaited_is_known(function: Callable[..., Any], is_async: bool) -> None:
    assert job(name="detected")(function).definition.is_async is is_async
    cls = type("Detected", (Job,), {"perform": staticmethod(function)})
    assert cls.__pillion__.is_async is is_async


def test_an_async_perform_is_known() -> None:
    class Async(Job):
        async def perform(self) -> None: ...

    class Heir(Async): ...

    assert Async.__pillion__.is_async
    assert Heir.__pillion__.is_async


def test_generators_are_refused() -> None:
    with pytest.raises(DefinitionError, match="remove the yield"):

        class Generates(Job):
            def perform(self) -> Iterator[int]:
                yield 1

    with pytest.raises(DefinitionError, match="remove the yield"):

        @job
        async def generates() -> Any:
            yield 1

    assert "Generates" not in registry.default
    assert "generates" not in registry.default


def test_a_lambda_and_other_nameless_callables_need_a_name() -> None:
    for name, nameless in {"a": lambda: None, "b": functools.partial(sync), "c": SyncCall()}.items():
        with pytest.raises(DefinitionError, match=r'test_job.*name="..."'):
            job(nameless)
        assert job(name=name)(nameless).definition.name == name


def test_a_nested_function_is_a_job_with_its_place() -> None:
    @job
    def nested() -> None: ...

    definition = nested.definition
    assert definition.name == "nested"
    assert definition.key == (__file__, "test_a_nested_function_is_a_job_with_its_place.<locals>.nested")
    assert definition.where.startswith(f"{__file__}:")


def test_what_is_no_function_is_refused() -> None:
    class Plain:
        def perform(self) -> None: ...

    with pytest.raises(DefinitionError, match=r"write class Plain\(pillion.Job\)"):
        job(Plain)
    with pytest.raises(DefinitionError, match="expected a function"):
        job(5)  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match="expected a function"):
        job(job(sync))


def test_a_class_that_needs_arguments_to_be_built_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"built without arguments, got __init__\(user: str\)"):

        class Needy(Job):
            def __init__(self, user: str) -> None: ...

            def perform(self) -> None: ...

    class Modest(Job):
        def __init__(self, user: str = "") -> None: ...

        def perform(self) -> None: ...

    assert Modest.__pillion__.kind == "class"


def test_retry_blocks_are_found_on_the_class_and_inherited() -> None:
    class Base(Job):
        @staticmethod
        def retry_in(count: int, error: BaseException, job: dict[str, Any]) -> int:
            return count * 10

        @classmethod
        def retries_exhausted(cls, job: dict[str, Any], error: BaseException) -> str:
            return cls.__name__

    class Child(Base):
        def perform(self) -> None: ...

    definition = Child.__pillion__
    assert definition.retry_in is not None
    assert definition.retry_in(2, ValueError(), {}) == 20
    assert definition.retries_exhausted is not None
    assert definition.retries_exhausted({}, ValueError()) == "Child"


def test_retry_blocks_of_a_function() -> None:
    @job(retry_in=lambda count, error, job: 7, retries_exhausted=print)
    def blocked() -> None: ...

    assert blocked.definition.retry_in is not None
    assert blocked.definition.retry_in(1, ValueError(), {}) == 7
    assert blocked.definition.retries_exhausted is print
    assert job(sync).definition.retry_in is None


def test_a_retry_block_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"called as retry_in\(count, error, job\).*@staticmethod"):

        class Method(Job):
            def retry_in(self, count: int, error: BaseException, job: Any) -> int:
                return 1

    with pytest.raises(DefinitionError, match=r"called as retries_exhausted\(job, error\)"):
        job(retries_exhausted=lambda job, error, more: None)(sync)  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match="no plain function"):
        job(retry_in=coroutine)(sync)  # type: ignore[arg-type]


class Level(StrEnum):
    HIGH = "high"


@pytest.mark.rule("fields.merge", "fields.tags", "fields.unknown")
@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("queue", "critical", "critical"),
        ("queue", Level.HIGH, "high"),
        ("retry", False, False),
        ("retry", 0, 0),
        ("retry_for", timedelta(hours=48), 172_800),
        ("retry_for", 1.5, 1),
        ("retry_queue", "slow", "slow"),
        ("dead", False, False),
        ("backtrace", 10, 10),
        ("backtrace", True, True),
        ("tags", ("a", Level.HIGH), ["a", "high"]),
        ("tags", [], []),
        ("log_level", "DEBUG", "debug"),
        ("customer", {"id": [1, None, 2.5]}, {"id": [1, None, 2.5]}),
        ("bid", "b-1", "b-1"),
        ("expires_in", 60, 60),
    ],
)
def test_options_reach_the_payload_in_their_json_form(name: str, value: Any, stored: Any, client: Recorder) -> None:
    class Optional(Job, **{name: value}):
        def perform(self) -> None: ...

    assert Optional.__pillion__.options == {name: stored}
    assert type(Optional.__pillion__.options[name]) is type(stored)
    job(sync).set(client=client, **{name: value}).perform_async()
    assert client.fields == {name: stored}
    assert type(client.fields[name]) is type(stored)


@pytest.mark.rule("fields.sync", instead=True)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue", ""),
        ("queue", None),
        ("queue", "a b"),
        ("queue", 5),
        ("retry", -1),
        ("retry", 1.5),
        ("retry", "yes"),
        ("retry", None),
        ("retry_for", -1),
        ("retry_for", 1_000_000_001),
        ("retry_for", math.nan),
        ("retry_for", True),
        ("retry_for", "1h"),
        ("retry_queue", "\n"),
        ("dead", 0),
        ("backtrace", -1),
        ("tags", "billing"),
        ("tags", [1]),
        ("log_level", "loud"),
        ("log_level", 10),
        ("customer", object()),
        ("customer", (1, 2)),
        ("customer", {1: "a"}),
        ("customer", math.inf),
        ("when", datetime.now(UTC)),
        ("once", 1),
        ("durability", "fsync"),
        ("client", "redis://localhost"),
        ("pool", object()),
        ("class", "Other"),
        ("args", []),
        ("kwargs", {}),
        ("at", NOW),
        ("created_at", NOW),
        ("retry_count", 1),
        ("ctx", {}),
        ("sync", True),
    ],
)
def test_impossible_options_are_refused_where_they_stand(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"Wrong at .*test_job.py:\d+.*{name}"):
        type("Wrong", (Job,), {}, **{name: value})
    with pytest.raises(ConfigError, match=name):
        job(**{name: value})(sync)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match=f"Fine.*{name}"):
        type("Fine", (Job,), {}).set(**{name: value})
    assert "Wrong" not in registry.default


@pytest.mark.parametrize("name", ["wait", "wait_until", "jid"])
def test_what_belongs_to_one_push_is_no_option_of_a_definition(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' belongs to a push.*set\({name}=...\)"):
        type("Wrong", (Job,), {}, **{name: "5"})


@pytest.mark.parametrize("name", ["name", "aliases", "retry_in", "retries_exhausted"])
def test_what_belongs_to_the_definition_is_no_option_of_a_push(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is not an option.*definition"):
        job(sync).set(**{name: "x"})


def test_middleware_that_changes_a_job_in_place_changes_no_later_job(client: Recorder) -> None:
    class Tagged(Job, tags=["a"]):
        def perform(self) -> None: ...

    setter = Tagged.set(client=client, customer={"ids": [1]})
    setter.perform_async()
    client.item["customer"]["ids"].append(2)
    Tagged.__pillion__.options["tags"].append("b")
    setter.perform_async()
    assert client.fields == {"customer": {"ids": [1]}}
    assert Tagged.__pillion__.options == {"tags": ["a"]}


# Binding


def positional(a: Any, b: Any = "B", c: Any = "C") -> Any:
    return a, b, c


def many_defaults(a: Any = "A", b: Any = "B", c: Any = "C", d: Any = "D", *rest: Any) -> Any:
    return a, b, c, d, rest


def keyword_only(a: Any, *, k: Any, o: Any = "O") -> Any:
    return a, k, o


def optional_keyword(a: Any, b: Any = "B", *, o: Any = "O") -> Any:
    return a, b, o


def everything(a: Any, /, b: Any = "B", *rest: Any, k: Any = "K", **more: Any) -> Any:
    return a, b, rest, k, more


def only_more(**more: Any) -> Any:
    return more


def positional_only(a: Any, b: Any = "B", /, c: Any = "C") -> Any:
    return a, b, c


@pytest.mark.rule("fields.args")
@pytest.mark.parametrize(
    ("function", "args", "kwargs", "bound"),
    [
        (positional, (1,), {}, ([1], {})),
        (positional, (1, 2, 3), {}, ([1, 2, 3], {})),
        (positional, (1,), {"b": 2}, ([1, 2], {})),
        (positional, (1,), {"c": 3}, ([1, "B", 3], {})),
        (positional, (), {"b": 2, "a": 1}, ([1, 2], {})),
        (many_defaults, (), {"b": 2, "d": 4}, (["A", 2, "C", 4], {})),
        (many_defaults, (), {"b": 2, "c": 3}, (["A", 2, 3], {})),
        (many_defaults, (1, 2, 3, 4, 5, 6), {}, ([1, 2, 3, 4, 5, 6], {})),
        (keyword_only, (1,), {"k": 2}, ([1], {"k": 2})),
        (keyword_only, (), {"a": 1, "k": 2, "o": 3}, ([1], {"k": 2, "o": 3})),
        (optional_keyword, (1,), {}, ([1], {})),
        (optional_keyword, (1,), {"o": 3}, ([1], {"o": 3})),
        (everything, (1, 2, 3, 4), {"k": 5, "z": 6, "a": 7}, ([1, 2, 3, 4], {"k": 5, "z": 6, "a": 7})),
        (everything, (1,), {"z": 6}, ([1], {"z": 6})),
        (only_more, (), {"z": 6}, ([], {"z": 6})),
        (positional_only, (1,), {"c": 3}, ([1, "B", 3], {})),
        (print, (1, 2), {}, ([1, 2], {})),
    ],
)
def test_keywords_are_bound_to_positions_and_defaults_fill_the_gaps(
    function: Any, args: Any, kwargs: Any, bound: Any, client: Recorder
) -> None:
    job(function).set(client=client).perform_async(*args, **kwargs)
    assert client.item["args"] == bound[0]
    assert client.item.get("kwargs", {}) == bound[1]
    assert ("kwargs" in client.item) == bool(bound[1])


FUNCTIONS = [positional, many_defaults, keyword_only, optional_keyword, everything, only_more, positional_only]
VALUES = st.integers(0, 9)


@given(
    function=st.sampled_from(FUNCTIONS),
    args=st.lists(VALUES, max_size=4),
    kwargs=st.dictionaries(st.sampled_from(["a", "b", "c", "d", "k", "o", "z"]), VALUES, max_size=4),
)
def test_what_is_bound_means_the_same_call(function: Any, args: list[int], kwargs: dict[str, int]) -> None:
    with registry.default.restored():
        definition = job(function).definition
    try:
        expected = function(*args, **kwargs)
    except TypeError:
        with pytest.raises(ArgumentsError):
            definition.bind(args, kwargs)
    else:
        positions, named = definition.bind(args, kwargs)
        assert function(*positions, **named) == expected


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "got 0 positional: missing a required argument: 'name'"),
        (("a", 1, 2), {}, "got 3 positional: too many positional arguments"),
        (("a",), {"cuont": 1}, "got 1 positional and cuont by keyword: got an unexpected keyword argument 'cuont'"),
        (("a", 1), {"count": 1}, "multiple values for argument 'count'"),
    ],
)
@pytest.mark.parametrize("verb", VERBS)
def test_arguments_that_do_not_fit_fail_at_the_call(
    verb: str, args: Any, kwargs: Any, words: str, worker: Any, client: Recorder
) -> None:
    def call() -> None:
        if verb == "perform_bulk":
            worker.definition.bind(args, kwargs)
        else:
            getattr(worker, verb)(
                *([60] if verb == "perform_in" else [NOW] if verb == "perform_at" else []), *args, **kwargs
            )

    with pytest.raises(ArgumentsError) as caught:
        call()
    assert isinstance(caught.value, TypeError)
    assert "HardWorker: expected (name: str, count: int = 1)" in str(caught.value)
    assert words in str(caught.value)
    assert client.calls == []


def test_a_complaint_shows_no_argument() -> None:
    with pytest.raises(ArgumentsError) as caught:
        job(positional).definition.bind(("hunter2",) * 4, {})
    assert "hunter2" not in str(caught.value)


def test_a_stub_takes_positional_arguments_only(client: Recorder) -> None:
    class Ruby(Job): ...

    setter = Ruby.set(client=client)
    setter.perform_async(1, "two", [3])
    assert client.item["args"] == [1, "two", [3]]
    with pytest.raises(ArgumentsError, match=r"Ruby: expected positional arguments, got b by keyword.*no `perform`"):
        setter.perform_async(1, b=2)


def test_static_and_class_methods_have_no_self_to_leave_out() -> None:
    class Static(Job):
        @staticmethod
        def perform(a: int) -> None: ...

    class Class(Job):
        @classmethod
        def perform(cls, a: int) -> None: ...

    class Anything(Job):
        def perform(*args: Any) -> None: ...

    for cls in (Static, Class):
        assert cls.__pillion__.bind((1,), {}) == ([1], {})
        with pytest.raises(ArgumentsError):
            cls.__pillion__.bind((1, 2), {})
    assert Anything.__pillion__.bind((1, 2), {}) == ([1, 2], {})


# The verbs


def test_each_verb_makes_its_item(worker: Any, client: Recorder) -> None:
    assert worker.perform_async("bob", 5) == "a-jid"
    worker.perform_in(300, "bob")
    worker.perform_at(NOW + 60, "bob")
    assert worker.perform_inline("bob") == "a result"
    assert worker.perform_bulk([("bob", 1), ["eve"]]) == ["a-jid"]

    base = {"class": worker.definition}
    assert client.calls == [
        ("push", {**base, "args": ["bob", 5]}, {}),
        ("push", {**base, "args": ["bob"], "at": NOW + 300}, {}),
        ("push", {**base, "args": ["bob"], "at": NOW + 60}, {}),
        ("run_inline", {**base, "args": ["bob"]}, {}),
        ("push_bulk", {**base, "args": [["bob", 1], ["eve"]]}, {}),
    ]


def shapes(client: Recorder) -> dict[str, Any]:
    """One job as a class, as a function, and as a Setter of each."""

    class Shape(Job, client=client, queue="q"):
        def perform(self, a: int, *, k: int = 0) -> None: ...

    @job(client=client, queue="q")
    def shape(a: int, *, k: int = 0) -> None: ...

    return {"class": Shape, "function": shape, "class set": Shape.set(x=1), "function set": shape.set(x=1)}


CALLS: dict[str, tuple[Any, ...]] = {
    "perform_async": (),
    "perform_in": (timedelta(hours=1),),
    "perform_at": (datetime.fromtimestamp(NOW + 5, UTC),),
    "perform_inline": (),
}


@pytest.mark.parametrize("shape", ["class", "function", "class set", "function set"])
@pytest.mark.parametrize("verb", CALLS)
def test_every_verb_has_an_asyncio_twin_that_makes_the_same_item(verb: str, shape: str, client: Recorder) -> None:
    thing = shapes(client)[shape]
    answer = getattr(thing, verb)(*CALLS[verb], 1, k=2)
    twin: Awaitable[Any] = getattr(thing, f"a{verb}")(*CALLS[verb], 1, k=2)
    assert asyncio.run(within(twin)) == answer
    assert client.calls[0] == client.calls[1]
    assert client.item["args"] == [1]
    assert client.item["kwargs"] == {"k": 2}


@pytest.mark.parametrize("shape", ["class", "function", "class set", "function set"])
def test_bulk_has_an_asyncio_twin_that_makes_the_same_item(shape: str, client: Recorder) -> None:
    thing = shapes(client)[shape]
    plan = {"at": [NOW + 1, NOW + 2], "batch_size": 2}
    answer = thing.perform_bulk([(1,), (2,)], **plan)
    assert asyncio.run(within(thing.aperform_bulk([(1,), (2,)], **plan))) == answer
    assert client.calls[0] == client.calls[1]
    assert client.fields.items() >= plan.items()


async def within(twin: Awaitable[Any]) -> Any:
    return await twin


def test_classes_functions_and_setters_have_the_same_verbs_with_the_same_parameters() -> None:
    names = {"set", "perform_sync", "aperform_sync", *VERBS, *(f"a{verb}" for verb in VERBS)}
    for thing in (Job, Setter, FunctionJob):
        assert {name for name in dir(thing) if "perform_" in name or name == "set"} == names | {"perform_later"}
    for name in names:
        ours, theirs = (list(inspect.signature(getattr(thing, name)).parameters) for thing in (Job, Setter))
        assert ["self", *ours] == theirs
    for verb in VERBS:
        own, twin = (inspect.signature(getattr(Setter, prefix + verb)) for prefix in ("", "a"))
        assert own == twin


def test_job_itself_cannot_be_pushed() -> None:
    with pytest.raises(DefinitionError, match=r"got Job itself; write class HardWorker\(pillion.Job\)"):
        Job.perform_async()


@pytest.mark.rule("fields.pool")
def test_transport_never_reaches_the_payload(worker: Any, client: Recorder) -> None:
    other = Recorder()
    worker.set(once=True, durability="replicated", client=other).perform_async("a")
    worker.set(once=True).perform_bulk([("a",)])
    assert other.calls == [
        ("push", {"class": worker.definition, "args": ["a"]}, {"once": True, "durability": "replicated"})
    ]
    assert client.calls == [("push_bulk", {"class": worker.definition, "args": [["a"]]}, {"once": True})]


@pytest.mark.rule("client.set")
def test_a_setter_is_immutable_and_can_be_used_again(worker: Any, client: Recorder) -> None:
    critical = worker.set(queue="critical", tags=["b"])
    critical.set(queue="low", customer=1).perform_async("a")
    assert client.fields == {"queue": "low", "tags": ["b"], "customer": 1}
    for _ in range(4):
        critical.perform_async("a")
        assert client.fields == {"queue": "critical", "tags": ["b"]}
        assert "jid" not in client.item


@pytest.mark.rule("client.sticky", instead=True)
def test_wait_counts_from_each_push_and_never_sticks_to_other_verbs(client: Recorder) -> None:
    class MovingClock(StoppedClock):
        time = NOW

        def now(self) -> float:
            return self.time

    clock = MovingClock()
    client.setup = SimpleNamespace(config=Config(clock=clock))
    later = job(sync).set(client=client, wait=60)

    later.perform_async()
    assert client.item["at"] == NOW + 60
    clock.time += 1_000
    later.perform_async()
    assert client.item["at"] == NOW + 1_060
    later.perform_in(5)
    assert client.item["at"] == NOW + 1_005
    later.perform_in(-5)
    assert "at" not in client.item
    later.perform_at(NOW)
    assert "at" not in client.item
    later.perform_inline()
    assert "at" not in client.item
    later.perform_async()
    assert client.item["at"] == NOW + 1_060


@pytest.mark.rule("client.wait")
def test_the_last_of_wait_and_wait_until_counts(worker: Any, client: Recorder) -> None:
    worker.set(wait=60).set(wait_until=NOW + 5).perform_async("a")
    assert client.item["at"] == NOW + 5
    worker.set(wait_until=NOW + 5).set(wait=timedelta(minutes=2)).perform_async("a")
    assert client.item["at"] == NOW + 120
    worker.set(wait=60).set(queue="q").perform_async("a")
    assert client.item["at"] == NOW + 60
    worker.set(wait=-60).perform_async("a")
    assert "at" not in client.item
    with pytest.raises(ConfigError, match="wait or wait_until, got both"):
        worker.set(wait=60, wait_until=NOW + 5)


NAIVE = datetime(2027, 1, 15, 8, 0)  # noqa: DTZ001 - this is the mistake


@pytest.mark.rule("client.in", "b9.19")
@pytest.mark.parametrize(
    ("interval", "at"),
    [
        (60, NOW + 60),
        (0.5, NOW + 0.5),
        (timedelta(days=1), NOW + 86_400),
        (0, None),
        (-60, None),
        (timedelta(days=-1), None),
        (NOW + 7, NOW + 7),
        (NOW - 7, None),
        (2_000_000_000, 2_000_000_000.0),
        (999_999_999, PayloadError),
        (1e300, PayloadError),
        (-1e300, PayloadError),
        (10**400, PayloadError),
        (NOW * 1000, PayloadError),
        (math.nan, PayloadError),
        (math.inf, PayloadError),
        (-math.inf, PayloadError),
        (True, PayloadError),
        (None, PayloadError),
        ("60", PayloadError),
        (datetime.fromtimestamp(NOW, UTC), PayloadError),
        (timedelta(days=365 * 11), PayloadError),
        (timedelta.max, PayloadError),
    ],
)
def test_perform_in_and_wait(interval: Any, at: Any, worker: Any, client: Recorder) -> None:
    check_time(lambda: worker.perform_in(interval, "a"), at, client)
    check_time(lambda: worker.set(wait=interval).perform_async("a"), at, client)


@pytest.mark.rule("client.at", "bulk.at-scalar", instead=True)
@pytest.mark.parametrize(
    ("when", "at"),
    [
        (NOW + 60, NOW + 60),
        (2_000_000_000, 2_000_000_000.0),
        (datetime.fromtimestamp(NOW + 60, UTC), NOW + 60),
        (datetime.fromtimestamp(NOW + 60, timezone(timedelta(hours=-9))), NOW + 60),
        (NOW, None),
        (NOW - YEAR, None),
        (60, PayloadError),
        (NOW + 11 * YEAR, PayloadError),
        (NOW * 1000, PayloadError),
        (1e300, PayloadError),
        (math.nan, PayloadError),
        (math.inf, PayloadError),
        (True, PayloadError),
        (None, PayloadError),
        ("2027-01-15", PayloadError),
        (timedelta(hours=1), PayloadError),
        (NAIVE, PayloadError),
        (NAIVE.date(), PayloadError),
        (datetime.max.replace(tzinfo=UTC), PayloadError),
    ],
)
def test_perform_at_and_wait_until_and_bulk(when: Any, at: Any, worker: Any, client: Recorder) -> None:
    check_time(lambda: worker.perform_at(when, "a"), at, client)
    check_time(lambda: worker.set(wait_until=when).perform_async("a"), PayloadError if when is None else at, client)
    if when is not None:
        check_time(lambda: worker.perform_bulk([("a",)], at=when), at, client)


def check_time(push: Callable[[], Any], at: Any, client: Recorder) -> None:
    client.calls.clear()
    if isinstance(at, type):
        with pytest.raises(at, match="expected"):
            push()
        assert client.calls == []
    else:
        push()
        assert client.item.get("at", None) == at
        assert type(client.item.get("at")) is (float if at else type(None))


@pytest.mark.rule("client.at", instead=True)
def test_the_errors_about_times_teach(worker: Any) -> None:
    with pytest.raises(PayloadError, match=r"time zone, got the naive .*datetime.now\(UTC\)"):
        worker.perform_at(NAIVE, "a")
    with pytest.raises(
        PayloadError, match=r"got 60, which is 1970-01-01T00:01:00\+00:00; an interval belongs to perform_in"
    ):
        worker.perform_at(60, "a")
    with pytest.raises(PayloadError, match=r"not milliseconds"):
        worker.perform_at(NOW * 1000, "a")
    assert issubclass(PayloadError, UsageError | ValueError)


def test_a_wrong_wait_fails_where_it_is_set(worker: Any) -> None:
    with pytest.raises(PayloadError):
        worker.set(wait="soon")
    with pytest.raises(PayloadError):
        worker.set(wait_until=NAIVE)


# Bulk


@pytest.mark.rule("bulk.rows")
def test_a_collection_is_bound_before_anything_is_pushed(worker: Any, client: Recorder) -> None:
    with pytest.raises(ArgumentsError, match=r"row 1: HardWorker: expected \(name: str"):
        worker.perform_bulk([("a",), ()])
    with pytest.raises(ArgumentsError, match=r"expected rows of arguments .* got str as row 1"):
        worker.perform_bulk([("a",), "b"])
    with pytest.raises(ArgumentsError, match="row 0"):
        job(keyword_only).set(client=client).perform_bulk([(1,)])
    assert client.calls == []


def test_a_lazy_iterable_is_read_only_as_it_is_consumed(worker: Any, client: Recorder) -> None:
    read = 0

    def rows() -> Iterator[tuple[str]]:
        nonlocal read
        for number in range(10**9):
            read += 1
            yield (str(number),)

    worker.perform_bulk(rows())
    assert read == 0
    args = client.item["args"]
    assert [next(args) for _ in range(3)] == [["0"], ["1"], ["2"]]
    assert read == 3
    with pytest.raises(TypeError):
        len(args)


def test_rows_are_copied(worker: Any, client: Recorder) -> None:
    row = ["a"]
    worker.perform_bulk([row])
    row.append("b")
    assert client.item["args"] == [["a"]]


def test_the_plan_of_a_bulk_push(worker: Any, client: Recorder) -> None:
    rows = [("a",), ("b",)]
    worker.perform_bulk(rows, spread_interval=timedelta(minutes=1), batch_size=50)
    assert client.fields == {"spread_interval": 60.0, "batch_size": 50}
    worker.perform_bulk(rows, at=[datetime.fromtimestamp(NOW + 1, UTC), NOW - 1])
    assert client.fields == {"at": [NOW + 1, NOW - 1]}
    worker.set(wait=60).perform_bulk(rows)
    assert client.fields == {"at": NOW + 60}
    worker.set(wait=60).perform_bulk(rows, at=NOW + 1)
    assert client.fields == {"at": NOW + 1}
    worker.set(wait=60).perform_bulk(rows, spread_interval=10)
    assert client.fields == {"spread_interval": 10.0}
    worker.set(queue="q").perform_bulk([])
    assert client.item["args"] == []
    assert client.fields == {"queue": "q"}
    with pytest.raises(PayloadError):
        worker.perform_bulk(rows, at=[NOW + 1, math.nan])
    with pytest.raises(PayloadError):
        worker.perform_bulk(rows, spread_interval="1m")
    with pytest.raises(TypeError):
        worker.perform_bulk(rows, att=5)


# Running


def running(definition: Any, **fields: Any) -> RunningJob:
    payload = {"class": definition.name, "args": [], "jid": "a-jid", "queue": "default", **fields}
    return RunningJob(Claim("owner", 1, "low", b""), payload, definition, Signals())


@pytest.mark.rule("run.instance")
def test_a_worker_gets_a_new_instance_with_its_context_for_each_run() -> None:
    class Counted(Job):
        def perform(self, a: int) -> tuple[Any, int]:
            return self, a

    run = running(Counted.__pillion__, bid="a-bid")
    one, call = Counted.__pillion__.start(run)
    two, _ = Counted.__pillion__.start(run)

    assert one is not two
    assert call(5) == (one, 5)
    assert one.context is run
    assert (one.jid, one.bid, one.interrupted()) == ("a-jid", "a-bid", False)
    run.signals.stopping = True
    assert one.interrupted()


def test_a_function_runs_with_its_running_job_as_the_instance() -> None:
    @job
    def plain(a: int) -> int:
        return a + 1

    run = running(plain.definition)
    instance, call = plain.definition.start(run)
    assert instance is run
    assert call(1) == 2


def test_perform_can_be_called_without_a_worker() -> None:
    class Alone(Job, name="Mod::Alone"):
        def perform(self, a: int) -> tuple[int, Any, Any, bool, Any]:
            return a, self.jid, self.bid, self.interrupted(), self.context

    assert Alone().perform(5) == (5, None, None, False, None)


def test_the_logger_is_named_after_the_job(caplog: pytest.LogCaptureFixture) -> None:
    class Logs(Job, name="Mod::Logs"):
        def perform(self) -> None:
            self.logger.warning("hello")

    with caplog.at_level(logging.WARNING):
        Logs().perform()
    assert [record.name for record in caplog.records] == ["pillion.job.Mod::Logs"]


def test_a_decorated_function_is_still_a_function(client: Recorder) -> None:
    @job(client=client)
    def add(a: int, b: int = 1) -> int:
        """Adds."""
        return a + b

    @job
    async def aadd(a: int) -> int:
        return a + 1

    assert add(2) == 3
    assert add(2, b=2) == 4
    assert asyncio.run(aadd(1)) == 2
    assert client.calls == []
    assert (add.__name__, add.__doc__, add.__module__) == ("add", "Adds.", __name__)
    assert add.__wrapped__(1, 1) == 2
    assert list(inspect.signature(add).parameters) == ["a", "b"]
    assert repr(add).startswith("<pillion job add at /")
    if sys.version_info >= (3, 12):
        assert inspect.iscoroutinefunction(aadd)


@job(name="module-level")
def module_level(a: int) -> int:
    return a * 2


def test_a_decorated_function_can_be_pickled_as_a_function_can() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, __name__, SimpleNamespace(module_level=module_level))
        assert pickle.loads(pickle.dumps(module_level)) is module_level


def test_nothing_here_imports_redis() -> None:
    code = "import sys, pillion.job, pillion.running, pillion.registry; print('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"

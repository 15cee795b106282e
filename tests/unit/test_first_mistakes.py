"""What newcomers get wrong first is answered with a sentence that says what to write."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

import pillion
from pillion import registry
from pillion.context import RunningJob
from pillion.errors import ConfigError, DefinitionError, PayloadError
from pillion.job import Job, job
from pillion.registry import Registry


@pytest.fixture(autouse=True)
def names_of_this_test_only() -> Iterator[None]:
    with registry.default.restored(empty=True):
        yield


def define(**keywords: Any) -> Any:
    """A job class `Greet` with these class keywords."""

    class Greet(Job, **keywords):
        def perform(self, name: str, times: int = 1) -> None: ...

    return Greet


# Names of options


def test_an_option_of_another_library_is_refused_in_the_class_statement() -> None:
    with pytest.raises(ConfigError) as caught:
        exec("import pillion\nclass X(pillion.Job, retries=3): ...", {"__name__": "bad2", "__file__": "bad2.py"})
    assert str(caught.value) == (
        "X at bad2.py:2: 'retries' is not an option; did you mean 'retry'? "
        "For a key of your own choose a name less like an option's"
    )


def test_a_slip_is_refused_in_set() -> None:
    with pytest.raises(ConfigError) as caught:
        define().set(qeue="x")
    assert str(caught.value) == (
        "Greet: 'qeue' is not an option; did you mean 'queue'? "
        "For a key of your own choose a name less like an option's"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("max_retries", "did you mean 'retry'?"),
        ("tag", "did you mean 'tags'?"),
        ("Queue", "did you mean 'queue'?"),
        ("retry_fro", "did you mean 'retry_for'?"),
        ("bactrace", "did you mean 'backtrace'?"),
        ("loglevel", "did you mean 'log_level'?"),
        ("wait_untill", "did you mean 'wait_until'?"),
        ("alias", "did you mean 'aliases'?"),
        ("countdown", "use perform_in(...), or set(wait=...)."),
        ("delay", "use perform_in(...), or set(wait=...)."),
        ("eta", "use perform_at(...), or set(wait_until=...)."),
        ("priority", "give urgent jobs a queue of their own."),
        ("expires", "pass the time as an argument, and look at it in perform."),
    ],
)
def test_each_near_miss_gets_its_advice(name: str, words: str) -> None:
    for attempt in (define, lambda **given: job(**given)(print), define().set):
        with pytest.raises(ConfigError) as caught:
            attempt(**{name: 5})
        assert f"'{name}' is not an option; {words} For a key" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    "bid cattr client_id customer display_class encrypt expires_in head locale nonce region tenant tenant_id trace_id "
    "unique_for unique_until username wrapped".split(),
)
def test_free_keys_stay_free(name: str) -> None:
    assert define(**{name: 5}).__pillion__.options == {name: 5}


# Names of jobs


def table(*names: str) -> Registry:
    """A registry that has these names."""
    made = Registry()
    for name in names:
        made.register(job(name=name)(lambda: None).definition)
    return made


def test_an_unknown_job_is_told_with_the_names_there_are() -> None:
    assert str(table("slow", "WordCounter", "Save", "Flakey").unknown("CountWords")) == (
        "no job is registered as 'CountWords' in this process (it has Flakey, Save, WordCounter, slow); "
        'if one of these replaced it, give it aliases=["CountWords"], else import the module that defines it'
    )


def test_of_many_names_five_are_shown_and_the_close_one_is_named() -> None:
    assert str(table("WordCounter", *"abcdefg").unknown("WordCuonter")) == (
        "no job is registered as 'WordCuonter' in this process (it has WordCounter, a, b, c, d and 3 more); "
        "did you mean 'WordCounter'? If one of these replaced it, give it aliases=[\"WordCuonter\"], "
        "else import the module that defines it"
    )


def test_where_nothing_is_registered_an_import_is_missing() -> None:
    assert str(Registry().unknown("Save")) == (
        "no job is registered as 'Save' in this process (it has none); import the module that defines it"
    )


# Retry blocks


def test_retry_blocks_may_be_class_keywords_and_are_inherited() -> None:
    class Base(Job, retry_in=lambda count, error, job: count * 10, retries_exhausted=lambda job, error: "discard"): ...

    class Heir(Base):
        def perform(self) -> None: ...

    class Other(Heir, retry_in=lambda count: 1): ...

    definition = Heir.__pillion__
    assert definition.retry_in is not None
    assert definition.retry_in(2, ValueError(), {}) == 20
    assert definition.retries_exhausted is not None
    assert definition.retries_exhausted({}, ValueError()) == "discard"
    assert definition.options == {}
    assert Other.__pillion__.retry_in is not None
    assert Other.__pillion__.retry_in(2, ValueError(), {}) == 1


@pytest.mark.parametrize(
    ("hook", "answer"),
    [
        (lambda: "none", "none"),
        (lambda count: count, 3),
        (lambda count, error: (count, error), (3, "error")),
        (lambda count, error=None, *rest: rest, ({"a": 1},)),
        (lambda *given: len(given), 3),
        (lambda count, *, strict=False: strict, False),
    ],
)
def test_a_retry_block_is_given_as_many_arguments_as_it_takes(hook: Callable[..., Any], answer: Any) -> None:
    class Static(Job):
        retry_in = staticmethod(hook)

    for definition in (define(retry_in=hook).__pillion__, Static.__pillion__, job(retry_in=hook)(print).definition):
        assert definition.retry_in is not None
        assert definition.retry_in(3, "error", {"a": 1}) == answer


def test_a_block_that_is_a_method_is_told_of_staticmethod() -> None:
    with pytest.raises(DefinitionError) as caught:

        class Method(Job):
            def retry_in(self, count: int) -> int:
                return 1

    assert str(caught.value).endswith(
        "expected a function that can be called as retry_in(count, error, job), "
        "got retry_in(self, count: int); in a class make it a @staticmethod"
    )


def test_a_static_method_is_not_told_of_staticmethod() -> None:
    with pytest.raises(DefinitionError) as caught:

        class Static(Job):
            @staticmethod
            def retry_in(a: int, b: int, c: int, d: int) -> int:
                return 1

    assert str(caught.value).endswith(
        "got retry_in(a: int, b: int, c: int, d: int); it may take fewer arguments, the first ones"
    )
    with pytest.raises(DefinitionError, match="got 5, which is no plain function; it may take"):
        define(retry_in=5)


def test_one_retry_block_of_a_kind_is_enough() -> None:
    with pytest.raises(DefinitionError, match="expected one retry_in, got a class keyword and a method; remove one"):

        class Two(Job, retry_in=lambda: 5):
            @staticmethod
            def retry_in() -> int:
                return 1


# The run


@pytest.mark.parametrize(("fields", "attempt"), [({}, 1), ({"retry_count": 0}, 2), ({"retry_count": 4}, 6)])
def test_the_attempt_is_a_number_with_and_without_a_worker(fields: dict[str, int], attempt: int) -> None:
    cls = define()
    assert cls().attempt == 1
    running = RunningJob.inline({"jid": "a", "queue": "default", **fields}, cls.__pillion__)
    assert cls.__pillion__.start(running)[0].attempt == attempt


# Arguments in the wrong place


@pytest.mark.parametrize(
    ("args", "kwargs", "shown"),
    [
        (("x",), {}, '"x"'),
        ((5,), {}, "5"),
        (("x" * 50,), {}, "..."),
        (("hunter2", 2), {}, "..."),
        ((), {"name": "hunter2"}, "..."),
        (([],), {}, "..."),
    ],
)
def test_arguments_to_the_class_belong_to_a_verb(args: Any, kwargs: Any, shown: str) -> None:
    with pytest.raises(TypeError) as caught:
        define()(*args, **kwargs)
    assert str(caught.value) == f"Greet: a job takes no arguments here; write Greet.perform_async({shown})"


def test_a_constructor_of_the_users_own_takes_what_it_takes() -> None:
    class Own(Job):
        def __init__(self, name: str = "nobody") -> None:
            self.name = name

        def perform(self) -> None: ...

    @dataclass
    class Data(Job):
        name: str = "nobody"

        def perform(self) -> None: ...

    class Mixin:
        def __init__(self, name: str = "nobody") -> None:
            self.name = name

    class Mixed(Job, Mixin):
        def perform(self) -> None: ...

    for cls in (Own, Data, Mixed):
        assert (cls("bob").name, cls(name="eve").name, cls().name) == ("bob", "eve", "nobody")
        with pytest.raises(TypeError, match="positional argument"):
            cls("a", "b")  # type: ignore[call-arg]
    assert copy.copy(define()()).attempt == 1


# Times


NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 - what is refused
SPAN = "Greet: expected an interval in seconds or a timedelta, got '5m'; write for example 300"
MOMENT = "Greet: expected a datetime with a time zone, got the naive datetime.datetime(2030, 1, 1, 0, 0), which means"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda greet: greet.perform_in("5m", "bob"), SPAN),
        (lambda greet: greet.set(wait="5m"), SPAN),
        (lambda greet: greet.perform_bulk([("bob",)], spread_interval="5m"), SPAN),
        (lambda greet: greet.perform_at(NAIVE, "bob"), MOMENT),
        (lambda greet: greet.set(wait_until=NAIVE), MOMENT),
        (lambda greet: greet.perform_bulk([("bob",)], at=NAIVE), MOMENT),
        (lambda greet: greet.perform_bulk([("bob",)], at=[NAIVE]), MOMENT),
        (
            lambda greet: greet.perform_in(1e12, "bob"),
            "Greet: expected a time within ten years of now, got 1000000000000",
        ),
    ],
)
def test_a_time_that_is_none_is_told_with_the_job(call: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(PayloadError) as caught:
        call(define(client=pillion.Client()))
    assert str(caught.value).startswith(words)


def test_a_job_is_due_once() -> None:
    with pytest.raises(ConfigError, match=r"^Greet: expected wait or wait_until, got both; a job is due once$"):
        define().set(wait=5, wait_until=5)

"""What newcomers get wrong first is answered with a sentence that says what to write."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import pytest

import pillion
from pillion import registry
from pillion.contrib import current_attributes, i18n
from pillion.errors import ConfigError, DefinitionError, PayloadError, UsageError
from pillion.job import Job, job
from pillion.registry import Registry
from pillion.running import RunningJob


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
        ("que", "did you mean 'queue'?"),
        ("retr", "did you mean 'retry'?"),
        ("tgas", "did you mean 'tags'?"),
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
    "bid cattr client_id customer display_class encrypt expires_in head locale log nonce q queued_by region stag "
    "tenant tenant_id trace_id unique_for unique_until username wrapped".split(),
)
def test_free_keys_stay_free(name: str) -> None:
    assert define(**{name: 5}).__pillion__.options == {name: 5}


# Options that only Ruby's Sidekiq acts on


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "pillion"]


def test_what_pillion_does_not_act_on_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    class ForeignBase(Job, unique_for=600): ...

    assert warnings(caplog) == []  # a stub: Ruby may run it
    ForeignBase.set(encrypt=True)
    assert warnings(caplog) == []

    class ForeignHeir(ForeignBase, encrypt=True, customer=5):
        def perform(self) -> None: ...

    place = ForeignHeir.__pillion__.place
    (said,) = warnings(caplog)
    assert said == (
        f"{place.qualname} at {place.shown}: Pillion itself does not act on unique_for and encrypt: such keys only "
        "travel in the payload, to Ruby's Sidekiq; do it in perform or in middleware, or leave them out"
    )
    ForeignHeir.set(expires_in=5)
    assert len(warnings(caplog)) == 1
    assert ForeignHeir.__pillion__.options == {"unique_for": 600, "encrypt": True, "customer": 5}


@pytest.mark.parametrize("name", ["unique_for", "unique_until", "expires_in", "encrypt"])
def test_a_function_and_a_push_are_warned_of_too(name: str, caplog: pytest.LogCaptureFixture) -> None:
    job(name=f"Foreign::{name}", **{name: 5})(lambda: None)
    plain = job(name=f"ForeignPush::{name}")(lambda: None)
    assert [f"does not act on {name}:" in words for words in warnings(caplog)] == [True]
    pushed = plain.set(**{name: 5})
    assert warnings(caplog)[1].startswith(f"ForeignPush::{name}: Pillion itself does not act on {name}:")
    pushed.set(**{name: 6})
    assert len(warnings(caplog)) == 2


# Options in the wrong place


def test_options_as_an_attribute_are_told_of_keywords() -> None:
    with pytest.raises(DefinitionError) as caught:

        class Attribute(Job):
            sidekiq_options: ClassVar[dict[str, Any]] = {"queue": "low", "retry": 3}

            def perform(self) -> None: ...

    assert str(caught.value).endswith(
        "expected options as keywords of the class, got the attribute sidekiq_options, which nothing reads; "
        "write class Attribute(pillion.Job, queue=..., retry=...)"
    )


@pytest.mark.parametrize("pool", ["nonsense", pillion.RedisSettings(url="nonsense")])
def test_a_pool_that_is_no_address_is_told_with_its_option(pool: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        define().set(pool=pool)
    assert str(caught.value).startswith("pool: expected an address that begins with redis://")
    assert "got nonsense (option of Greet); put redis://" in str(caught.value)
    with pytest.raises(ConfigError, match=r"^pool: .*test_first_mistakes\.py:\d+\);"):
        define(pool=pool)


def test_a_pool_shows_no_password() -> None:
    with pytest.raises(ConfigError, match=r"got bob:\*\*\*@host:6379 "):
        define().set(pool="bob:hunter2@host:6379")


# What is given where something else is meant


def test_the_name_of_a_context_variable_is_no_variable() -> None:
    setup = pillion.Setup()
    for call, owner in (
        (lambda: setup.carry("tenant"), "carry"),  # type: ignore[arg-type]
        (lambda: i18n.persist("tenant", setup=setup), "locale"),  # type: ignore[arg-type]
        (lambda: current_attributes.persist("cattr", "tenant", setup=setup), "cattr"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError) as caught:
            call()
        assert str(caught.value) == (
            f"{owner}: expected the context variable itself, got a str ('tenant'); "
            'make one with ContextVar("name"), and pass that'
        )
    assert not setup.client_middleware.entries
    assert not setup.server_middleware.entries


@pytest.mark.parametrize("seconds", ["1m", None, [], float("nan")])
def test_a_snooze_takes_seconds(seconds: Any) -> None:
    with pytest.raises(UsageError, match=r"^expected a finite number of seconds, got .*snooze\(60\)$"):
        pillion.snooze(seconds)


@pytest.mark.parametrize("kind", ["error_handlers", "death_handlers"])
def test_a_handler_that_cannot_be_called_stops_the_worker_from_being_made(kind: str) -> None:
    setup = pillion.Setup()
    getattr(setup, kind).append("notify")
    with pytest.raises(ConfigError, match=rf"^{kind}: expected functions, got a str \('notify'\); append the function"):
        pillion.Worker(setup)


def test_chains_for_a_capsule_that_is_not_there_stop_the_worker_from_being_made() -> None:
    setup = pillion.Setup()
    setup.capsule("nosuch")
    with pytest.raises(ConfigError, match="capsule `nosuch` has middleware, but there is none of this name"):
        pillion.Worker(setup)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"class": "X"}, "got a dict without `args` (it has class); push {"),
        ({"klass": "X", "args": []}, "got a dict without `class` (it has klass, args); push {"),
        ({}, "got a dict without `class` and `args` (it has nothing); push {"),
        ("X", "got a str; push {"),
    ],
)
def test_a_push_without_a_field_is_told_which(item: Any, words: str) -> None:
    with pytest.raises(PayloadError) as caught:
        pillion.Client().push(item)
    assert str(caught.value).startswith(f"expected a mapping with `class` and `args`, {words}")


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

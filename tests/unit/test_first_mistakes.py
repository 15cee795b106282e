"""What newcomers get wrong first is answered with a sentence that says what to write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pillion import registry
from pillion.errors import ConfigError
from pillion.job import Job, job
from pillion.registry import Registry


@pytest.fixture(autouse=True)
def names_of_this_test_only() -> Iterator[None]:
    with registry.default.restored():
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
        ("timeout", "give what perform calls a timeout of its own."),
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

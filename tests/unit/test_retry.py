"""What becomes of a failed job: Sidekiq 8.1's rules, and payloads that lie."""

from __future__ import annotations

import binascii
import json
import random
import tracemalloc
import zlib
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillion.config import Config, Wire
from pillion.errors import Shutdown
from pillion.payload import decode, encode
from pillion.retry import (
    MAX_DELAY,
    NO_RULES,
    Rules,
    Verdict,
    backtrace,
    decide,
    error_class,
    is_shutdown,
    pack_backtrace,
    unpack_backtrace,
)
from pillion.types import Dead, Discard, Retry

NOW = 1795347748.381
NOW_MS = 1795347748381


class StandingClock:
    def now(self) -> float:
        return NOW

    def steady(self) -> float:
        return 0.0


class NoJitter(random.Random):
    """Chance that always takes the first of its choices, and remembers how many there were."""

    asked: int | None = None

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        self.asked = start
        return 0


FIELDS: dict[str, Any] = {
    "retry": True,
    "queue": "default",
    "class": "A",
    "args": [1],
    "jid": "j",
    "created_at": NOW_MS - 9,
}


def failed(
    error: BaseException | None = None,
    *,
    rules: Rules = NO_RULES,
    options: Mapping[str, Any] | None = None,
    fetched_from: str = "default",
    config: Config | None = None,
    **fields: Any,
) -> Verdict:
    """The verdict on a job with these fields (`...` leaves one out)."""
    payload = {key: value for key, value in {**FIELDS, **fields}.items() if value is not ...}
    config = config or Config(clock=StandingClock(), rng=NoJitter())
    error = error or ValueError("boom")
    verdict = decide(encode(payload), {"from": "the run"}, fetched_from, error, rules, config, options)
    assert verdict.died is not isinstance(verdict.outcome, Retry)
    return verdict


def stored(verdict: Verdict) -> dict[str, Any]:
    """What the verdict writes, which must be the job that handlers get."""
    assert isinstance(verdict.outcome, Retry | Dead)
    written = decode(verdict.outcome.payload)
    assert written == verdict.job
    assert list(written) == list(verdict.job)
    return written


def delay(verdict: Verdict) -> float:
    assert isinstance(verdict.outcome, Retry), verdict
    return round(verdict.outcome.at - NOW, 3)


def raised(error: BaseException) -> BaseException:
    """`error` with a traceback of three frames of this file."""

    def inner() -> None:
        raise error

    def outer() -> None:
        inner()

    try:
        outer()
    except BaseException as caught:
        return caught
    raise AssertionError


# The record


@pytest.mark.rule("fields.retry_count", "fields.failed_at", "b9.23")
def test_the_first_failure_counts_0_and_marks_the_time() -> None:
    assert stored(failed(ValueError("boom"))) == {
        **FIELDS,
        "error_message": "boom",
        "error_class": "ValueError",
        "failed_at": NOW_MS,
        "retry_count": 0,
    }


@pytest.mark.rule("fields.retry_count", "fields.failed_at", "b9.23")
def test_later_failures_count_on_and_keep_the_first_time() -> None:
    job = stored(failed(retry_count=10, failed_at=NOW_MS - 5000, error_message="old", error_class="Old"))
    assert (job["retry_count"], job["failed_at"], job["retried_at"]) == (11, NOW_MS - 5000, NOW_MS)
    assert (job["error_message"], job["error_class"]) == ("boom", "ValueError")


@pytest.mark.rule("time.write")
@pytest.mark.parametrize(("wire", "now"), [("8", NOW_MS), ("7", NOW), ("6", NOW)])
def test_the_wire_decides_the_form_of_times(wire: Wire, now: float) -> None:
    config = Config(clock=StandingClock(), rng=NoJitter(), wire=wire)
    first = stored(failed(config=config))["failed_at"]
    second = stored(failed(config=config, retry_count=0, failed_at=NOW - 5))["retried_at"]
    dropped = failed(config=config, retry=False).job["discarded_at"]
    assert (first, second, dropped) == (now, now, now)
    assert {type(first), type(second), type(dropped)} == {type(now)}


@pytest.mark.rule("server.exact", "fields.unknown")
def test_every_other_field_keeps_its_bytes() -> None:
    raw = (
        rb'{"retry":true, "class":"A","args":[ 1.0e+20, 0.10, 123456789012345678901234567890, "\u00e9\/" ],'
        rb'"queue":"default","jid":"j","extra":{"b" : 1E5},"created_at":1795347748.0}'
    )
    outcome = decide(raw, {}, "default", ValueError("x"), Rules(), Config()).outcome
    assert isinstance(outcome, Retry)
    assert rb'"args":[ 1.0e+20, 0.10, 123456789012345678901234567890, "\u00e9\/" ],' in outcome.payload
    assert rb'"extra":{"b" : 1E5},"created_at":1795347748.0,"error_message":"x"' in outcome.payload


def test_what_the_run_did_to_the_job_is_not_stored() -> None:
    job = decode(encode(FIELDS))
    job["args"].append("spoilt")
    job["retry"] = False
    outcome = decide(encode(FIELDS), job, "default", ValueError(), Rules(), Config()).outcome
    assert isinstance(outcome, Retry)
    assert decode(outcome.payload)["args"] == [1]


@pytest.mark.rule("fields.error_message", "fields.error_class", "b9.29")
@pytest.mark.parametrize(
    ("error", "message", "name"),
    [
        (ValueError("bo\udcc3om"), "bo\ufffdom", "ValueError"),
        (ValueError("x" * 20_000), "x" * 10_000, "ValueError"),
        (type("X" * 999, (Exception,), {})("m"), "m", "X" * 256),
        (
            type("E", (Exception,), {"__str__": lambda self: 1 / 0})(),
            "(the error's own message could not be read)",
            "E",
        ),
        (json.JSONDecodeError("m", "d", 0), "m: line 1 column 1 (char 0)", "JSONDecodeError"),
        (SystemExit(1), "1", "SystemExit"),
        (KeyboardInterrupt(), "", "KeyboardInterrupt"),
        (GeneratorExit("g"), "g", "GeneratorExit"),
        (RecursionError("deep"), "deep", "RecursionError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_any_error_is_recorded_and_retried(error: BaseException, message: str, name: str) -> None:
    job = stored(failed(error))
    assert (job["error_message"], job["error_class"]) == (message, name)
    assert error_class(error) == name


def test_an_exception_group_ten_thousand_deep_is_recorded() -> None:
    error: Exception = ValueError("core")
    for _ in range(10_000):
        error = ExceptionGroup("layer", [error])
    assert stored(failed(error))["error_message"] == "layer (1 sub-exception)"
    assert not is_shutdown(error)
    while isinstance(error, ExceptionGroup):  # unwound one by one, or their deallocation recurses
        error = error.exceptions[0]


# Queue


@pytest.mark.rule("fields.retry_queue", "retry.queue", "b9.32")
@pytest.mark.parametrize(
    ("fields", "options", "queue"),
    [
        ({}, {}, "fetched"),
        ({"queue": "lies"}, {}, "fetched"),
        ({"queue": "a\nb"}, {}, "fetched"),
        ({"queue": ...}, {}, "fetched"),
        ({"retry_queue": "retryx"}, {}, "retryx"),
        ({}, {"retry_queue": "retryx"}, "retryx"),
        ({"retry_queue": "own"}, {"retry_queue": "class"}, "own"),
        *[({"retry_queue": bad}, {}, "fetched") for bad in ("", "a\nb", "*", "../x", "x" * 10_000, 5, [], {}, False)],
    ],
)
def test_a_retry_goes_to_the_retry_queue_or_back_where_it_was_fetched(
    fields: dict[str, Any], options: dict[str, Any], queue: str
) -> None:
    assert stored(failed(fetched_from="fetched", options=options, **fields))["queue"] == queue


# How often


@pytest.mark.rule("fields.retry", "retry.max", "b9.24", "b9.25")
@pytest.mark.parametrize(
    ("retry", "count", "fate"),
    [
        (False, None, Discard),
        (0, None, Dead),
        (1, None, Retry),
        (1, 0, Dead),
        (2, None, Retry),
        (25, 23, Retry),
        (25, 24, Dead),
        (True, 23, Retry),
        (True, 24, Dead),
        (True, 25, Dead),
        # what a payload may not ask for
        (-1, None, Dead),
        (1_000_000_000, 98, Retry),
        (1_000_000_000, 99, Dead),
        (10**60, 99, Dead),
        ("yes", 23, Retry),
        ("yes", 24, Dead),
        ("", 23, Retry),
        ([], 23, Retry),
        ({}, 24, Dead),
        (3.7, 23, Retry),
        (1e9, 24, Dead),
    ],
)
def test_how_often_a_job_is_retried(retry: object, count: int | None, fate: type) -> None:
    assert type(failed(retry=retry, retry_count=... if count is None else count).outcome) is fate


@pytest.mark.parametrize(
    ("count", "next_count"),
    [(None, 0), (-5, 1), ("x", 1), ("3", 1), (True, 1), ([], 1), ({}, 1), (3.7, 4), (0, 1), (-0.5, 1), (7, 8)],
)
def test_a_stored_count_is_made_sense_of(count: object, next_count: int) -> None:
    assert stored(failed(retry_count=count))["retry_count"] == next_count


@pytest.mark.parametrize(
    "count", [25, 1_000_000_000, 10**100, 1e300, 10**4300 - 1], ids=["25", "1e9", "1e100", "1e300", "9s"]
)
def test_a_huge_count_is_exhausted_and_does_not_grow(count: float) -> None:
    verdict = failed(retry_count=count)
    assert isinstance(verdict.outcome, Dead)
    assert stored(verdict)["retry_count"] == min(count, 1_000_000_000) + 1


@pytest.mark.rule("retry.max", "b9.26")
def test_max_retries_is_what_true_means() -> None:
    config = Config(clock=StandingClock(), rng=NoJitter(), max_retries=7)
    fates = [type(failed(config=config, retry_count=count).outcome) for count in [..., *range(7)]]
    assert fates == [Retry] * 7 + [Dead]


@pytest.mark.rule("retry.missing")
@pytest.mark.rule("retry.unknown", instead=True)
@pytest.mark.parametrize(
    ("options", "retry", "count", "fate", "written"),
    [
        ({"retry": 3}, ..., 1, Retry, 3),
        ({"retry": 3}, ..., 2, Dead, 3),
        ({"retry": 3}, None, 2, Dead, 3),
        ({"retry": False}, ..., None, Discard, False),
        ({"retry": 3}, 5, 2, Retry, 5),
        ({"retry": False}, True, None, Retry, True),
        ({"retry": 500}, 500, 400, Retry, 500),
        ({"retry": 500}, 1_000_000, 499, Dead, 1_000_000),
        ({}, ..., 23, Retry, True),
        (None, ..., None, Dead, ...),
        (None, None, None, Dead, None),
    ],
)
def test_what_the_payload_does_not_say_the_definition_does(
    options: dict[str, Any] | None, retry: object, count: int | None, fate: type, written: object
) -> None:
    verdict = failed(options=options, retry=retry, retry_count=... if count is None else count)
    assert type(verdict.outcome) is fate
    assert verdict.job.get("retry", ...) is written or verdict.job.get("retry", ...) == written


def test_the_configurations_defaults_stand_behind_a_known_definition() -> None:
    config = Config(clock=StandingClock(), rng=NoJitter(), default_job_options={"retry": 1, "queue": "q"})
    assert isinstance(failed(config=config, options={}, retry=..., retry_count=0).outcome, Dead)
    assert isinstance(failed(config=config, options={"retry": 2}, retry=..., retry_count=0).outcome, Retry)


# How long


@pytest.mark.rule("fields.retry_for", "retry.budget", "b9.27")
@pytest.mark.parametrize(
    ("retry_for", "ago", "fate"),
    [
        (60, 61, Dead),
        (60, 60, Retry),
        (60, 59, Retry),
        (0, 0.001, Dead),
        (0, 0, Retry),
        (59.5, 60, Dead),
        (-100, 1, Dead),
        (10**15, 999_999_999, Retry),
        (10**15, 1_000_000_001, Dead),
    ],
)
def test_retry_for_is_a_budget_of_time_since_the_first_failure(retry_for: float, ago: float, fate: type) -> None:
    verdict = failed(retry_for=retry_for, retry_count=3, failed_at=round((NOW - ago) * 1000))
    assert type(verdict.outcome) is fate


@pytest.mark.rule("retry.budget", "b9.27")
def test_retry_for_replaces_the_count() -> None:
    config = Config(clock=StandingClock(), rng=NoJitter(), max_retries=2)
    recent = NOW_MS - 10_000
    assert isinstance(failed(config=config, retry_for=3600, retry_count=5, failed_at=recent).outcome, Retry)
    assert isinstance(failed(retry=0, retry_for=3600, retry_count=5, failed_at=recent).outcome, Retry)
    assert isinstance(failed(retry=False, retry_for=3600).outcome, Discard)
    assert isinstance(failed(options={"retry_for": 5}, retry_count=0, failed_at=recent).outcome, Dead)


@pytest.mark.parametrize("form", [(NOW - 61), (NOW_MS - 61_000), str(NOW - 61), int(NOW - 61)])
def test_retry_for_reads_every_form_of_time(form: object) -> None:
    assert isinstance(failed(retry_for=60, retry_count=0, failed_at=form).outcome, Dead)


@pytest.mark.parametrize("failed_at", [..., None, "soon", -1, [], 0])
def test_an_unusable_first_time_begins_anew(failed_at: object) -> None:
    job = stored(failed(retry_for=60, retry_count=5, failed_at=failed_at))
    assert (job["failed_at"], job["retried_at"], job["retry_count"]) == (NOW_MS, NOW_MS, 6)


@pytest.mark.parametrize("retry_for", ["1h", [], {}, True, None])
def test_a_retry_for_that_is_no_time_leaves_the_count_in_charge(retry_for: object) -> None:
    assert isinstance(failed(retry_for=retry_for, retry_count=24, failed_at=1).outcome, Dead)
    assert isinstance(failed(retry_for=retry_for, retry_count=23, failed_at=1).outcome, Retry)


# When


@pytest.mark.rule("retry.delay", "retry.jitter")
@pytest.mark.parametrize(("count", "seconds"), [(0, 15), (1, 16), (2, 31), (3, 96), (4, 271), (24, 331_791)])
def test_the_default_delay_is_the_fourth_power_of_the_count(count: int, seconds: int) -> None:
    chance = NoJitter()
    verdict = failed(config=Config(clock=StandingClock(), rng=chance), retry_count=count - 1 if count else ...)
    assert delay(verdict) == seconds
    assert chance.asked == 10 * (count + 1)


@pytest.mark.rule("retry.jitter", "b9.33")
@settings(max_examples=60)
@given(st.integers(0, 24), st.integers(1, 10_000) | st.none(), st.integers())
def test_jitter_is_added_to_every_delay_and_bounded(count: int, custom: int | None, seed: int) -> None:
    config = Config(clock=StandingClock(), rng=random.Random(seed))
    rules = Rules(retry_in=lambda n, error, job: custom)
    waited = delay(failed(config=config, rules=rules, retry=50, retry_count=count - 1 if count else ...))
    least = custom or count**4 + 15
    assert least <= waited < least + 10 * (count + 1)
    assert waited == int(waited)


@pytest.mark.rule("retry.jitter")
def test_jitter_reaches_every_second() -> None:
    config = Config(clock=StandingClock(), rng=random.Random(5))
    assert {delay(failed(config=config)) for _ in range(300)} == set(range(15, 25))


@pytest.mark.rule("retry.block", "b9.33")
@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (60, 60),
        (1, 1),
        (7.9, 7),
        (timedelta(hours=2), 7200),
        (Decimal(90), 90),
        (Fraction(9, 2), 4),
        (0, 15),
        (-5, 15),
        (0.5, 15),
        (timedelta(0), 15),
        (timedelta(-1), 15),
        (None, 15),
        (10**30, MAX_DELAY),
        (1e30, MAX_DELAY),
    ],
)
def test_retry_in_sets_the_delay_and_nothing_means_the_default(answer: object, seconds: int) -> None:
    verdict = failed(rules=Rules(retry_in=lambda count, error, job: answer))
    assert delay(verdict) == seconds
    assert verdict.reports == []


@pytest.mark.rule("retry.block-nonsense", instead=True)
@pytest.mark.parametrize(
    "answer", ["x", "60", "", True, False, [], {}, object(), float("nan"), float("inf"), "Discard"]
)
def test_retry_in_that_makes_no_sense_is_reported_and_the_default_taken(answer: object) -> None:
    verdict = failed(rules=Rules(retry_in=lambda count, error, job: answer))
    assert delay(verdict) == 15
    [(trouble, where)] = verdict.reports
    assert isinstance(trouble, TypeError | ValueError | OverflowError)
    assert where == "calling retry_in; the default delay is used"


@pytest.mark.rule("retry.block")
def test_retry_in_is_given_the_count_the_error_and_the_job_as_it_will_be_stored() -> None:
    seen: list[Any] = []
    error = ValueError("boom")
    rules = Rules(retry_in=lambda count, error, job: seen.append((count, error, dict(job))))
    verdict = failed(error, rules=rules, retry_count=1, failed_at=NOW_MS)
    assert seen == [(2, error, stored(verdict))]


@pytest.mark.rule("retry.block-raises", "retry.exhausted", "b9.33")
@pytest.mark.parametrize("trouble", [RuntimeError("mine"), SystemExit(1), KeyboardInterrupt()])
def test_blocks_that_raise_are_reported_and_change_nothing(trouble: BaseException) -> None:
    def bad(*args: Any) -> None:
        raise trouble

    verdict = failed(rules=Rules(retry_in=bad))
    assert delay(verdict) == 15
    assert verdict.reports == [(trouble, "calling retry_in; the default delay is used")]
    verdict = failed(retry=0, rules=Rules(retries_exhausted=bad))
    assert isinstance(verdict.outcome, Dead)
    assert verdict.reports == [(trouble, "calling retries_exhausted")]


@pytest.mark.parametrize("block", ["retry_in", "retries_exhausted"])
def test_a_shutdown_that_arrives_meanwhile_decides_nothing(block: str) -> None:
    def interrupted(*args: Any) -> None:
        raise Shutdown

    with pytest.raises(Shutdown):
        failed(retry=5 if block == "retry_in" else 0, rules=Rules(**{block: interrupted}))


@settings(max_examples=60)
@given(st.integers(0, 10**9), st.integers(1, 10**9) | st.none())
def test_no_payload_is_put_off_for_more_than_ten_years(count: int, custom: int | None) -> None:
    rules = Rules(retry_in=lambda n, error, job: custom)
    config = Config(clock=StandingClock())
    verdict = failed(config=config, rules=rules, retry_for=10**9, retry_count=count, failed_at=NOW_MS)
    assert 0 < delay(verdict) <= MAX_DELAY


# The end


@pytest.mark.rule("retry.exhausted")
def test_an_exhausted_job_goes_to_the_dead_set_with_its_failure() -> None:
    verdict = failed(retry=0)
    assert isinstance(verdict.outcome, Dead)
    assert verdict.outcome.at == NOW
    assert (stored(verdict)["error_message"], stored(verdict)["retry_count"]) == ("boom", 0)
    assert "discarded_at" not in verdict.job


@pytest.mark.rule("fields.discarded_at", "retry.block-word", "b9.34")
@pytest.mark.parametrize(
    ("fields", "rules", "reason"),
    [
        ({"retry": False}, Rules(), "retry is off"),
        ({}, Rules(retry_in=lambda count, error, job: "discard"), "retry_in said discard"),
        ({"retry": 0, "dead": False}, Rules(), "retries are exhausted and dead is off"),
        ({"retry": 0}, Rules(retries_exhausted=lambda job, error: "discard"), "retries_exhausted said discard"),
    ],
)
def test_a_dropped_job_died_and_says_when_to_the_handlers(fields: dict[str, Any], rules: Rules, reason: str) -> None:
    verdict = failed(rules=rules, **fields)
    assert verdict.outcome == Discard(reason)
    assert verdict.died
    assert verdict.job["discarded_at"] == NOW_MS
    assert verdict.job["error_message"] == "boom"


@pytest.mark.rule("retry.block-word", "b9.34")
def test_kill_ends_the_retries_by_way_of_the_exhausted_block() -> None:
    seen: list[Any] = []
    error = ValueError("boom")
    rules = Rules(
        retry_in=lambda count, error, job: "kill", retries_exhausted=lambda job, error: seen.append((job, error))
    )
    verdict = failed(error, rules=rules)
    assert isinstance(verdict.outcome, Dead)
    assert seen == [(stored(verdict), error)]
    assert isinstance(failed(rules=rules, dead=False).outcome, Discard)


def test_the_exhausted_block_does_not_run_for_a_job_that_is_not_retried_or_not_yet_exhausted() -> None:
    rules = Rules(retries_exhausted=lambda job, error: pytest.fail("called"))
    failed(rules=rules)
    failed(rules=rules, retry=False)
    failed(rules=Rules(lambda count, error, job: "discard", rules.retries_exhausted))


@pytest.mark.rule("retry.exhausted")
@pytest.mark.parametrize("answer", [None, "kill", "x", False, 0, [], "Discard"])
def test_only_the_word_discard_keeps_an_exhausted_job_out_of_the_dead_set(answer: object) -> None:
    verdict = failed(retry=0, rules=Rules(retries_exhausted=lambda job, error: answer))
    assert isinstance(verdict.outcome, Dead)
    assert verdict.reports == []


@pytest.mark.rule("fields.dead", "retry.exhausted", "b9.35")
@pytest.mark.parametrize(
    ("dead", "options", "fate"),
    [
        (False, {}, Discard),
        (True, {"dead": False}, Dead),
        (..., {"dead": False}, Discard),
        (None, {"dead": False}, Discard),
        (..., {}, Dead),
        *[(odd, {}, Dead) for odd in (None, 0, "", "no", [])],
    ],
)
def test_dead_false_keeps_it_out_too(dead: object, options: dict[str, Any], fate: type) -> None:
    assert type(failed(retry=0, dead=dead, options=options).outcome) is fate


# When nothing can be decided


@pytest.mark.parametrize("raw", [b"", b"not json", b"[]", b'{"class":5}', b"[" * 100_000])
def test_a_payload_that_cannot_be_read_goes_to_the_dead_set_untouched(raw: bytes) -> None:
    verdict = decide(raw, {"jid": "run"}, "q", ValueError(), Rules(), Config(clock=StandingClock()))
    assert verdict.outcome == Dead(NOW, raw)
    assert (verdict.job, verdict.died) == ({"jid": "run"}, True)
    [(_, where)] = verdict.reports
    assert where == "deciding on a retry; the job went to the dead set as it was"


def test_chance_that_fails_costs_no_job() -> None:
    class Broken(random.Random):
        def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
            raise OSError("no entropy")

    verdict = failed(config=Config(clock=StandingClock(), rng=Broken()))
    assert verdict.outcome == Dead(NOW, encode(FIELDS))


odd_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
FIELD_NAMES = (
    "retry retry_count retry_for retry_queue queue failed_at retried_at dead backtrace "
    "error_message error_backtrace tags at"
).split()


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(FIELD_NAMES), odd_values),
    st.dictionaries(st.sampled_from(FIELD_NAMES), odd_values),
    odd_values,
)
def test_whatever_a_payload_says_its_arguments_survive_or_it_is_dropped_on_request(
    fields: dict[str, Any], options: dict[str, Any], answer: Any
) -> None:
    rules = Rules(retry_in=lambda count, error, job: answer)
    verdict = failed(rules=rules, options=options, **fields)
    if isinstance(verdict.outcome, Discard):
        assert fields.get("retry", True) is False or options.get("retry") is False or "dead" in {*fields, *options}
    else:
        assert stored(verdict)["args"] == [1]
        assert {"error_class", "failed_at", "retry_count"} <= set(verdict.job)


# Shutdown


def chained(*, cause: BaseException | None = None, context: BaseException | None = None) -> BaseException:
    error = ValueError("outer")
    error.__cause__, error.__context__ = cause, context
    return error


@pytest.mark.rule("retry.shutdown", "b9.31")
@pytest.mark.parametrize(
    ("error", "found"),
    [
        (Shutdown(), True),
        (chained(cause=Shutdown()), True),
        (chained(context=Shutdown()), True),
        (chained(cause=chained(context=chained(cause=Shutdown()))), True),
        (BaseExceptionGroup("g", [ValueError(), Shutdown()]), True),
        (chained(cause=BaseExceptionGroup("g", [BaseExceptionGroup("h", [chained(context=Shutdown())])])), True),
        (ValueError("Shutdown"), False),
        (SystemExit(), False),
        (chained(cause=KeyboardInterrupt(), context=ValueError()), False),
        (ExceptionGroup("g", [ValueError()]), False),
    ],
)
def test_a_shutdown_is_found_anywhere_behind_an_error(error: BaseException, found: bool) -> None:
    assert is_shutdown(error) is found


def test_a_shutdown_that_was_turned_into_another_error_is_found() -> None:
    def job() -> None:
        try:
            raise Shutdown
        except Shutdown:
            raise RuntimeError("cleaning up failed") from None

    with pytest.raises(RuntimeError) as caught:
        job()
    assert is_shutdown(caught.value)


@pytest.mark.rule("retry.shutdown", "b9.31")
def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first
    first.__context__ = second
    assert not is_shutdown(first)
    second.__context__ = Shutdown()
    assert is_shutdown(first)


def test_a_chain_of_100_000_needs_no_recursion() -> None:
    last = error = ValueError()
    for _ in range(100_000):
        last.__context__ = last = ValueError()
    assert not is_shutdown(error)
    while error.__context__ is not None:  # unwound one by one, or their deallocation recurses
        following = error.__context__
        error.__context__ = None
        error = following  # type: ignore[assignment]


# Backtraces


@pytest.mark.rule("fields.backtrace", "backtrace.wanted")
@pytest.mark.parametrize(
    ("wanted", "lines"),
    [(True, 3), (1, 1), (2, 2), (3, 3), (1000, 3), (2.9, 2), (10**30, 3)]
    + [(nothing, None) for nothing in (False, None, 0, -1, "yes", [], {}, 0.5)],
)
def test_the_backtrace_is_kept_if_the_job_wants_it(wanted: object, lines: int | None) -> None:
    job = stored(failed(raised(ValueError("boom")), backtrace=wanted))
    if lines is None:
        assert "error_backtrace" not in job
    else:
        assert len(unpack_backtrace(job["error_backtrace"])) == lines


@pytest.mark.rule("backtrace.first")
def test_the_raising_line_comes_first_in_rubys_form() -> None:
    lines = backtrace(raised(ValueError()))
    assert [line.rpartition(" ")[2] for line in lines] == ["raised.<locals>.inner", "raised.<locals>.outer", "raised"]
    path, number, where = lines[0].rsplit(":", 2)
    assert (path, where) == (__file__, "in raised.<locals>.inner")
    assert number == str(raised.__code__.co_firstlineno + 4)
    assert backtrace(ValueError()) == []


def test_the_definition_may_ask_for_the_backtrace() -> None:
    assert "error_backtrace" in stored(failed(raised(ValueError()), options={"backtrace": 2}))
    assert "error_backtrace" not in stored(failed(raised(ValueError()), options={"backtrace": 2}, backtrace=False))


@pytest.mark.rule("backtrace.all", instead=True)
def test_a_backtrace_has_at_most_100_lines_the_innermost() -> None:
    def deep(n: int) -> None:
        if n == 0:
            raise LookupError
        deep(n - 1)

    with pytest.raises(LookupError) as caught:
        deep(300)
    lines = unpack_backtrace(stored(failed(caught.value, backtrace=True))["error_backtrace"])
    assert len(lines) == 100
    assert lines[0].startswith(f"{__file__}:{deep.__code__.co_firstlineno + 2}:")


@pytest.mark.rule("backtrace.write")
def test_a_packed_backtrace_is_one_line_of_base64_of_deflated_json() -> None:
    lines = ["a.py:1:in é", "b\udcff.py:2:in f", "x" * 300]
    packed = pack_backtrace(lines)
    assert "\n" not in packed
    assert json.loads(zlib.decompress(binascii.a2b_base64(packed))) == ["a.py:1:in é", "b\ufffd.py:2:in f", "x" * 300]
    assert unpack_backtrace(packed) == ["a.py:1:in é", "b\ufffd.py:2:in f", "x" * 300]


def packed(raw: bytes) -> str:
    return binascii.b2a_base64(zlib.compress(raw), newline=False).decode()


@pytest.mark.rule("backtrace.read")
@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (["a", 5, "b"], ["a", "b"]),
        ("\n".join(packed(b'["a","b"]')[i : i + 8] for i in range(0, 40, 8)) + "\n", ["a", "b"]),
        (packed(b'["a",{},"b"]'), ["a", "b"]),
        *[
            (bad, [])
            for bad in (None, 5, {}, "", "é", "!!!", "abc", packed(b"{}"), packed(b"nonsense"), packed(b"\xff"))
        ],
        (packed(b'["a"]')[:8], []),
        (packed(b"[" * 100_000), []),
    ],
    ids=lambda value: repr(value)[:25],
)
def test_every_stored_form_of_a_backtrace_is_read(given: object, lines: list[str]) -> None:
    assert unpack_backtrace(given) == lines


def test_a_backtrace_that_inflates_without_end_is_not_followed() -> None:
    bomb = packed(b'["' + b"x" * 50_000_000 + b'"]')
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        assert unpack_backtrace(bomb) == ["(backtrace too large: more than 1000000 bytes)"]
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    just = packed(b'["' + b"x" * 999_996 + b'"]')
    assert len(unpack_backtrace(just)[0]) == 999_996

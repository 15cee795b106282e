"""What must never be pushed: refused before anything is sent, with the path, the type and what to pass instead."""

from __future__ import annotations

import math
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from pillion.config import Config
from pillion.errors import PayloadError
from pillion.payload import (
    MAX_READ_BYTES,
    check_args,
    check_queue,
    check_size,
    decode,
    encode,
    normalise,
    splice,
    verify,
)

GOOD = b'{"class":"A","args":[],"queue":"default","jid":"j"}'


class Colour(Enum):
    RED = 1


class Level(IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()


class Pair(NamedTuple):
    a: int
    b: int


class Account:
    pass


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

REJECTED = [
    (NOON, "a datetime", "value.isoformat(), or value.timestamp()"),
    (NOON.date(), "a date", "value.isoformat()"),
    (NOON.time(), "a time", "value.isoformat()"),
    (timedelta(1), "a timedelta", "value.total_seconds()"),
    (Decimal("1.1"), "a Decimal", "str(value)"),
    (UUID(int=1), "an UUID", "str(value)"),
    (Path("x"), "a PosixPath", "str(value)"),
    ({1}, "a set", "sorted(value), a list"),
    (frozenset({1}), "a frozenset", "sorted(value), a list"),
    (b"x", "a bytes", "value.decode()"),
    (bytearray(b"x"), "a bytearray", "value.decode()"),
    ((1, 2), "a tuple", "a list"),
    (Pair(1, 2), "a Pair", "a list"),
    (range(3), "a range", "list(value)"),
    ((x for x in "ab"), "a generator", "list(value)"),
    (OrderedDict(a=1), "an OrderedDict", "dict(value)"),
    (Colour.RED, "a Colour", "value.value"),
    (Level.HIGH, "a Level", "int(value)"),
    (Text("x"), "a Text", "str(value)"),
    (Account(), "an Account", "its id"),
    (Account, "a type", "its id"),
    (print, "a builtin_function_or_method", "its id"),
    (math.nan, "nan", "None or a number"),
    (math.inf, "inf", "None or a number"),
    (-math.inf, "-inf", "None or a number"),
    (10**4300, "a longer one", "as text"),
    (-(10**4299), "a longer one", "as text"),
]


@pytest.mark.rule("check.exact", "b9.6")
@pytest.mark.parametrize(("value", "found", "cure"), REJECTED, ids=[row[1] for row in REJECTED])
def test_an_argument_that_is_not_plain_json_is_refused_with_its_path_and_a_cure(
    value: object, found: str, cure: str
) -> None:
    for args, path in (
        ([value], "args[0]"),
        (("x", value), "args[1]"),
        ([{"when": value}], 'args[0]["when"]'),
        ([1, [2, {"a b": [3, value]}]], 'args[1][1]["a b"][1]'),
    ):
        with pytest.raises(PayloadError) as caught:
            check_args(args, "HardWorker")
        sentence = str(caught.value)
        assert sentence.startswith("HardWorker: expected ")
        assert f" at {path}, got {found}; " in sentence
        assert cure in sentence


@pytest.mark.rule("check.exact", "b9.6")
@pytest.mark.parametrize(
    ("key", "shown"),
    [(1, "an int (1)"), (None, "None"), ((1,), "a tuple"), (True, "a bool (True)"), (Text("k"), "a Text")],
)
def test_keys_must_be_text(key: object, shown: str) -> None:
    with pytest.raises(PayloadError, match=r"text as every key of args\[0\]\[0\], got ") as caught:
        check_args([[{key: 1}]], "A")
    assert f"got {shown}; use str(key)" in str(caught.value)


@pytest.mark.rule("b9.7")
@pytest.mark.parametrize("value", ["x", 5, -(10**4299) + 1, 10**4299 - 1, 1.5, -0.0, True, None, [], {}, [{"a": [1]}]])
def test_plain_json_is_accepted(value: object) -> None:
    check_args([value], "A")
    check_args((value,), "A")
    assert decode(encode({"class": "A", "args": [value], "jid": "j"}))["args"] == [value]


def test_nesting_is_bounded_as_ruby_bounds_it_payload_and_args_counted() -> None:
    deepest: list[Any] = []
    for _ in range(97):
        deepest = [deepest]
    check_args([deepest], "A")  # payload 1, args 2, deepest 3 to 100
    with pytest.raises(PayloadError, match=r"expected less nesting, got too much at args\[0\]\[0\].*flatten it"):
        check_args([[deepest]], "A")
    with pytest.raises(PayloadError, match="nesting"):
        check_args([{"a": deepest}], "A")
    check_args([[deepest]], "A", max_depth=101)


def test_a_list_that_contains_itself_is_an_error_and_no_crash() -> None:
    loop: list[Any] = []
    loop += [loop, loop]
    table: dict[str, Any] = {}
    table["self"] = table
    for args in ([loop], [table], loop):
        with pytest.raises(PayloadError, match="does it contain itself"):
            check_args(args, "A")
        with pytest.raises(PayloadError, match="does it contain itself"):
            encode({"class": "A", "args": args})


def test_an_argument_stays_a_secret_in_the_message() -> None:
    with pytest.raises(PayloadError) as caught:
        check_args(["hush-1", {"hush-2": Account()}, b"hush-3"], "A")
    assert "hush-1" not in str(caught.value)
    assert "hush-3" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["default", "a", "a:b", "a.b-c_d", "größe", "\N{ROCKET}", "\N{HEAVY BLACK HEART}\ufe0f", "x" * 128]
)
def test_queue_names(name: str) -> None:
    check_queue(name)


@pytest.mark.rule("check.queue", "b9.2")
@pytest.mark.rule("check.queue-name", instead=True)
@pytest.mark.parametrize(
    "name",
    [
        *[
            "",
            " ",
            "a ",
            " a",
            "a b",
            "a\n",
            "a\0",
            "*",
            "../x",
            "a/b",
            "x" * 129,
            "x" * 1000,
            "a?b",
            "\ud800",
            "a\u202eb",
        ],
        *[None, 5, b"default", ["a"], Text("a")],
    ],
    ids=repr,
)
def test_bad_queue_names_are_refused(name: object) -> None:
    with pytest.raises(PayloadError, match="expected a valid queue name, got "):
        check_queue(name)
    if name is not None:
        with pytest.raises(PayloadError, match="valid queue name"):
            normalise({"class": "A", "args": [], "queue": name}, options={}, config=Config())


ITEM: dict[str, Any] = {"class": "A", "args": [1]}
MALFORMED: list[tuple[dict[Any, Any], str]] = [
    ({"class": None}, "`class`"),
    ({"class": 5}, "`class`.*an int"),
    ({"class": ""}, "`class`"),
    ({"class": "x" * 257}, "`class`"),
    ({"class": "a\nb"}, "`class`"),
    ({"args": "ab"}, "`args` to be a list, got a str; wrap a single argument"),
    ({"args": None}, "`args` to be a list, got None"),
    ({"args": {"a": 1}}, "`args` to be a list, got a dict"),
    ({"args": {1}}, "`args` to be a list, got a set"),
    ({"queue": None}, "valid queue name, got None"),
    ({"queue": ""}, "valid queue name, got ''"),
    ({"retry_queue": "a b"}, "valid queue name, got 'a b'"),
    ({"jid": ""}, "`jid`"),
    ({"jid": 5}, "`jid`.*an int"),
    ({"jid": "x" * 257}, "`jid`"),
    ({"jid": "é" * 129}, "`jid`"),
    ({"jid": "a\nb"}, "`jid`"),
    ({"at": None}, "`at`.*None"),
    ({"at": "soon"}, "`at`.*a str"),
    ({"at": True}, "`at`.*a bool"),
    ({"at": NOON}, r"`at`.*a datetime; pass value.timestamp\(\)"),
    ({"at": datetime(2026, 1, 1)}, r"`at`.*a datetime; pass value.timestamp\(\) of an aware"),  # noqa: DTZ001
    ({"at": date(2026, 1, 1)}, "`at`.*a date; pass epoch seconds"),
    ({"at": math.nan}, "`at`.*nan"),
    ({"at": math.inf}, "`at`.*inf"),
    ({"at": 1e300}, "`at`.*year 10000"),
    ({"at": 10**5000}, "`at`.*year 10000, got a huge int"),
    ({"at": 1_795_347_718_276}, "`at`.*year 10000"),
    ({"tags": "slow"}, r"`tags`.*a str \('slow'\); write tags="),
    ({"tags": {"slow": 1}}, "`tags`.*a dict"),
    ({"tags": [1]}, "`tags`"),
    ({"retry_for": 1_000_000_001}, "relative amount of time"),
    ({"retry_for": timedelta(days=20_000)}, "relative amount of time.*a timedelta"),
    ({"retry_for": "1h"}, "relative amount of time.*'1h'"),
    ({"retry_for": -1}, "relative amount of time"),
    ({"retry_for": True}, "relative amount of time"),
    ({"retry_for": math.nan}, "relative amount of time"),
    ({"retry": -1}, r"`retry`.*an int \(-1\)"),
    ({"retry": "yes"}, r"`retry`.*a str \('yes'\)"),
    ({"retry": 2.5}, "`retry`.*a float"),
    ({"retry": 101}, "`retry` of at most 100, got an int .101.; declare more on the job itself"),
    ({5: 1}, r"field name.*an int \(5\)"),
]


@pytest.mark.rule(
    "check.args",
    "check.class",
    "check.at",
    "check.tags",
    "check.retry_for",
    "check.queue",
    "check.keys",
    "b9.2",
    "b9.5",
)
@pytest.mark.parametrize(
    ("fields", "says"), MALFORMED, ids=[f"{row[0]!r:.40}" if "huge" not in row[1] else "huge at" for row in MALFORMED]
)
def test_a_malformed_push_is_refused_before_anything_is_sent(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(PayloadError, match=says):
        normalise({**ITEM, **fields}, options={}, config=Config())


@pytest.mark.rule("check.mapping", "b9.1")
@pytest.mark.parametrize("item", [{}, {"class": "A"}, {"args": []}, [], None, "A", 5])
def test_only_a_mapping_with_class_and_args_is_a_job(item: Any) -> None:
    with pytest.raises(PayloadError, match="expected a mapping with `class` and `args`"):
        normalise(item, options={}, config=Config())


@pytest.mark.rule("check.wrapped", "b9.6")
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"class": 5}, "`class`"),
        ({"args": "x"}, "`args`"),
        ({"queue": "a b"}, "valid queue name"),
        ({"queue": None}, "valid queue name"),
        ({"jid": 5}, "`jid`"),
        ({"jid": None}, "A: expected `jid` to be kept"),
        ({"at": "soon"}, "A: expected `at` to be a number"),
        ({"at": float("nan")}, "A: expected `at` in epoch seconds"),
        ({"args": [NOON]}, r"A: expected plain JSON at args\[0\]"),
        ({"kwargs": {"when": NOON}}, r'A: expected plain JSON at kwargs\["when"\]'),
        ({"args": [NOON], "wrapped": "Inner"}, "Inner: expected plain JSON"),
    ],
)
def test_what_middleware_spoilt_is_refused(fields: dict[str, Any], says: str) -> None:
    payload = normalise(ITEM, options={}, config=Config())
    verify(payload, Config())
    with pytest.raises(PayloadError, match=says):
        verify({**payload, **fields}, Config())


@pytest.mark.rule("check.strict")
def test_strict_args_can_warn_or_be_off_but_the_encoder_still_refuses_what_json_cannot_hold() -> None:
    payload = normalise({"class": "A", "args": [(1, NOON)]}, options={}, config=Config())
    with pytest.raises(PayloadError):
        verify(payload, Config(strict_args=True))
    with pytest.warns(UserWarning, match=r"A: expected plain JSON at args\[0\], got a tuple"):
        verify(payload, Config(strict_args="warn"))
    verify(payload, Config(strict_args=False))
    assert decode(encode(payload))["args"] == [[1, "2026-11-22T12:00:00Z"]]
    with pytest.raises(PayloadError, match=r"A: expected JSON at args\[0\]\[1\], got an Account; pass its id"):
        encode({**payload, "args": [(NOON, Account(), b"x")]})


@pytest.mark.rule("server.nan")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "around", [lambda x: x, lambda x: [x], lambda x: {"a": [None, x]}, lambda x: (x,), lambda x: {x}]
)
def test_the_encoder_refuses_nan_and_infinities_wherever_they_stand(bad: float, around: Any) -> None:
    for payload in ({"class": "A", "args": [around(bad)]}, {"class": "A", "args": [None], "extra": around(bad)}):
        with pytest.raises(PayloadError, match=f"A: expected a finite number at .*got {bad}"):
            encode(payload)
    with pytest.raises(PayloadError, match="finite number at extra"):
        splice(GOOD, {"extra": around(bad)})


@pytest.mark.parametrize("half", ["\ud800", "a\udcc3b"])
def test_the_encoder_refuses_half_of_a_surrogate_pair(half: str) -> None:
    for payload in ({"class": "A", "args": [{"a": half}]}, {"class": "A", "args": [{half: 1}]}):
        with pytest.raises(PayloadError, match=r"A: expected Unicode text at args\[0\].*surrogate"):
            encode(payload)


def test_a_payload_of_more_than_max_payload_is_refused() -> None:
    check_size(b"x" * 100, "A", Config(max_payload=100))
    with pytest.raises(
        PayloadError, match="A: expected a payload of at most 100 bytes, got 101; store the data elsewhere"
    ):
        check_size(b"x" * 101, "A", Config(max_payload=100))
    with pytest.raises(PayloadError, match="at most 16777216"):
        check_size(b"x" * (MAX_READ_BYTES + 1), "A", Config(max_payload=10**9))


def nested(levels: int) -> list[Any]:
    """A list with so many levels, itself counted."""
    found: list[Any] = []
    for _ in range(levels - 1):
        found = [found]
    return found


@pytest.mark.parametrize(("strict", "levels"), [("raise", 100), (True, 100), ("warn", 512), (False, 512)])
def test_no_field_may_be_nested_deeper_than_its_readers_can_follow(strict: Any, levels: int) -> None:
    """Arguments are checked one by one; any other field only as bytes."""
    config = Config(strict_args=strict)
    for field in ("locale", "args"):
        payload = {"class": "A", "args": [], "jid": "j"} | {field: nested(levels - 1)}
        check_size(encode(payload), "A", config)
        with pytest.raises(PayloadError, match=f"A: expected a payload with at most {levels} levels.*flatten it"):
            check_size(encode({**payload, field: nested(levels)}), "A", config)
    check_size(encode({"class": "A", "args": ["[" * 600], "jid": "j"}), "A", config)


@pytest.mark.parametrize(
    "wrapped", [10**4299, "x" * 1_000, "a\nb", Account()], ids=["number", "long", "lines", "object"]
)
def test_a_refusal_names_the_class_where_wrapped_is_no_name(wrapped: object) -> None:
    payload = {"class": "A", "args": [NOON], "queue": "q", "jid": "j", "wrapped": wrapped}
    with pytest.raises(PayloadError, match=r"^A: expected plain JSON at args\[0\], got a datetime"):
        verify(payload, Config())


def test_a_refusal_shows_a_long_or_hostile_field_name_in_part() -> None:
    for name in ("x" * 2_000, "a\nERROR: forged"):
        with pytest.raises(PayloadError) as caught:
            encode({"class": "A", "args": [], name: object()})
        assert len(str(caught.value)) < 200
        assert "\n" not in str(caught.value)

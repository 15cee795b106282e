"""How a job is made, written, changed in place and shown: `normalise`, `encode`, `splice`, times and texts."""

from __future__ import annotations

import json
import math
import time
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillion.config import Config, Wire
from pillion.errors import BadPayload, PayloadError
from pillion.payload import (
    MILLISECONDS_FROM,
    check_args,
    copy_for,
    decode,
    encode,
    normalise,
    one_line,
    read_time,
    splice,
    stamp,
    text,
    verify,
)
from pillion.types import Payload


class Noon:
    """A clock that stands still."""

    def now(self) -> float:
        return 1795347718.276

    def steady(self) -> float:
        return 0.0


CONFIG = Config(clock=Noon(), new_jid=lambda: "0475b259651ef5988f1bc7ee")


def made(item: dict[str, Any], options: dict[str, Any] | None = None, config: Config = CONFIG) -> Payload:
    return normalise({"class": "HardWorker", "args": [1], **item}, options=options or {}, config=config)


# Making


@pytest.mark.rule("fields.order")
def test_fields_stand_in_sidekiqs_order_options_then_the_callers_then_jid_and_time() -> None:
    payload = made({"queue": "low", "customer": 7}, {"retry": 5, "backtrace": True})
    assert list(payload.items()) == [
        ("retry", 5),
        ("queue", "low"),
        ("backtrace", True),
        ("class", "HardWorker"),
        ("args", [1]),
        ("customer", 7),
        ("jid", "0475b259651ef5988f1bc7ee"),
        ("created_at", 1795347718276),
    ]


@pytest.mark.rule("fields.merge", "client.defaults")
def test_the_caller_wins_over_options_and_options_over_the_configuration() -> None:
    config = Config(default_job_options={"retry": 3, "queue": "base", "tags": ["all"]})
    assert made({}, {}, config)["queue"] == "base"
    assert made({}, {"queue": "own"}, config)["queue"] == "own"
    assert made({"queue": "call"}, {"queue": "own"}, config)["queue"] == "call"
    assert made({}, {}, config)["retry"] == 3


@pytest.mark.rule("time.write", "b9.4")
@pytest.mark.parametrize(("wire", "created_at"), [("8", 1795347718276), ("7", 1795347718.276), ("6", 1795347718.276)])
def test_the_wire_decides_the_form_of_times(wire: Wire, created_at: float) -> None:
    found = made({}, config=Config(clock=Noon(), wire=wire))["created_at"]
    assert (found, type(found)) == (created_at, type(created_at))


@pytest.mark.rule("fields.jid", "fields.created_at", "b9.3", "b9.4")
def test_jid_and_created_at_are_kept_and_filled_in_where_missing_or_null() -> None:
    kept = made({"jid": "mine", "created_at": 1.5})
    assert (kept["jid"], kept["created_at"]) == ("mine", 1.5)
    filled = made({"jid": None, "created_at": None})
    assert (filled["jid"], filled["created_at"]) == ("0475b259651ef5988f1bc7ee", 1795347718276)


@pytest.mark.rule("fields.retry_for", "b9.5")
@pytest.mark.parametrize(
    ("given", "stored"),
    [(timedelta(hours=48), 172_800), (60, 60), (60.9, 60), (0, 0), (1_000_000_000, 1_000_000_000), (None, None)],
)
def test_retry_for_is_stored_in_whole_seconds(given: object, stored: int | None) -> None:
    assert made({"retry_for": given})["retry_for"] == stored
    assert type(made({"retry_for": given})["retry_for"]) is type(stored)


@pytest.mark.parametrize("retry", [True, False, None, 0, 25, 100])
def test_every_form_of_retry_is_kept_as_it_is(retry: object) -> None:
    assert made({"retry": retry})["retry"] is retry


def test_more_than_100_retries_must_be_declared_on_the_job_itself() -> None:
    assert made({}, {"retry": 500})["retry"] == 500
    assert made({}, config=Config(default_job_options={"retry": 500, "queue": "q"}))["retry"] == 500
    with pytest.raises(PayloadError, match="declare more on the job itself"):
        made({"retry": 501}, {"retry": 500})


@pytest.mark.parametrize("at", [0, -5, 1.5, 1795347818.2780578, 4_000_000_000])
def test_at_is_left_to_the_client(at: float) -> None:
    assert made({"at": at})["at"] == at


def test_nothing_is_shared_with_what_the_caller_or_the_configuration_holds() -> None:
    args, tags = [1], ["slow"]
    payload = made({"args": args}, {"tags": tags})
    payload["args"].append(2)
    payload["tags"].append("x")
    assert (args, tags) == ([1], ["slow"])
    assert CONFIG.default_job_options == {"retry": True, "queue": "default"}


def test_tuples_serve_as_the_list_of_arguments_and_of_tags() -> None:
    payload = made({"args": (1, 2), "tags": ("a",)})
    assert (payload["args"], payload["tags"]) == ([1, 2], ["a"])


@pytest.mark.rule("bulk.own")
def test_a_bulk_copy_has_its_own_arguments_jid_and_time_in_the_same_places() -> None:
    base = made({})
    copy = copy_for(base, (5, 6), "other")
    assert list(copy) == list(base)
    assert (copy["args"], copy["jid"]) == ([5, 6], "other")
    assert copy_for(base, [], "x", 12.5) == {**base, "args": [], "jid": "x", "at": 12.5}
    assert (base["args"], "at" in base) == ([1], False)


@pytest.mark.rule("check.only-args", instead=True)
def test_keyword_arguments_are_checked_like_positional_ones() -> None:
    payload = {**made({}), "kwargs": {"template": "welcome", "deep": [{"a": None}]}}
    verify(payload, CONFIG)
    with pytest.raises(PayloadError, match=r'HardWorker: expected plain JSON at kwargs\["deep"\]\[0\], got a tuple'):
        verify({**payload, "kwargs": {"deep": [()]}}, CONFIG)


# Writing and reading

WIRE = (
    '{"retry":true,"queue":"default","args":[1,"é/<>\\u0000\\u001f\\"\\\\\\n\N{GRINNING FACE}",null,1.5,{"k":[true]}],'
    '"class":"OkJob","jid":"j","created_at":1795347718276}'
)


@pytest.mark.rule("server.json")
def test_bytes_are_compact_raw_utf8_in_the_order_of_the_keys() -> None:
    assert encode(decode(WIRE.encode())) == WIRE.encode()


scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**60), max_value=10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.rule("server.numbers")
@settings(max_examples=100)
@given(st.lists(json_values, max_size=4))
def test_arguments_survive_the_round_trip(args: list[Any]) -> None:
    check_args(args, "A")
    raw = encode({"class": "A", "args": args, "jid": "j"})
    assert same(decode(raw)["args"], args)
    assert json.loads(raw) == {"class": "A", "args": args, "jid": "j"}


def same(left: Any, right: Any) -> bool:
    """Equal to the type and to the sign of zero."""
    return repr(left) == repr(right)


NUMBERS = st.sampled_from(
    ["0", "-0", "-0.0", "0.10", "1.0e+20", "1E5", "1e-7", "12345678901234567890123", "1.50", "-1e-0"]
)
STRINGS = st.sampled_from(['""', r'"\u00e9"', '"é"', r'"\/"', r'"\ud83d\ude00"', r'"\"]},"', '"[{"', r'"\\"'])
SPACE = st.sampled_from(["", " ", "\n\t"])


@st.composite
def raw_values(draw: st.DrawFn, depth: int = 2) -> str:
    """JSON text with all its freedom of spelling."""
    kind = draw(st.sampled_from(["number", "string", "word", "array", "object"][: 5 if depth else 3]))
    space = draw(SPACE)
    if kind in {"array", "object"}:
        values = [draw(raw_values(depth - 1)) for _ in range(draw(st.integers(0, 3)))]
        if kind == "array":
            return f"[{space}{f'{space},{space}'.join(values)}{space}]"
        return "{" + ",".join(f"{space}{draw(STRINGS)}{space}:{space}{value}" for value in values) + space + "}"
    return draw({"number": NUMBERS, "string": STRINGS, "word": st.sampled_from(["true", "false", "null"])}[kind])


FIELD_NAMES = ["class", "args", "queue", "jid", "retry_count", "é", "a b"]


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from(FIELD_NAMES), raw_values()), unique_by=lambda field: field[0]),
    st.dictionaries(st.sampled_from([*FIELD_NAMES, "new", "newer"]), json_values, max_size=3),
    st.sets(st.sampled_from(FIELD_NAMES), max_size=2),
    SPACE,
)
def test_a_splice_changes_what_it_is_told_and_not_one_byte_else(
    fields: list[tuple[str, str]], changes: dict[str, Any], remove: set[str], space: str
) -> None:
    raw = "{" + ",".join(f'{space}"{key}"{space}:{space}{value}{space}' for key, value in fields) + "}"
    expected = {key: value.encode() for key, value in fields if key not in remove}
    expected.update({key: encode({"": value})[4:-1] for key, value in changes.items()})
    joined = b",".join(f'"{key}":'.encode() + value for key, value in expected.items())
    assert splice(raw.encode(), changes, remove) == b"{" + joined + b"}"


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b"5", b"{", b'{"a":NaN}', b'{"a":1}x', b'{"a":\xff}', b"[" * 99_999]
)
def test_only_a_json_object_can_be_spliced(raw: bytes) -> None:
    with pytest.raises(BadPayload):
        splice(raw, {"x": 1})


def test_what_cannot_be_json_is_not_spliced_in() -> None:
    with pytest.raises(PayloadError, match=r"expected JSON at x\[0\], got an object"):
        splice(b"{}", {"x": [object()]})


# Times


@pytest.mark.rule("time.other", "b9.28")
@pytest.mark.rule("time.read", instead=True)
@pytest.mark.parametrize(
    ("stored", "seconds"),
    [
        (1_700_000_000_500, 1_700_000_000.5),
        (1_700_000_000.5, 1_700_000_000.5),
        (1_700_000_000, 1_700_000_000.0),
        (1_700_000_000_500.0, 1_700_000_000.5),
        ("1700000000.5", 1_700_000_000.5),
        ("1700000000500", 1_700_000_000.5),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14T22:13:20.500+00:00", 1_700_000_000.5),
        ("2023-11-14 23:13:20+01:00", 1_700_000_000.0),
        ("2023-11-14T22:13:20", 1_700_000_000.0),
        (MILLISECONDS_FROM - 1, 99_999_999_999.0),
        (MILLISECONDS_FROM, 100_000_000.0),
        *[
            (bad, None)
            for bad in (None, True, False, 0, -1, -1.5, math.nan, math.inf, 1e300, 10**400, [], {}, "", "soon")
        ],
        *[(bad, None) for bad in ("1e999", "nan", "-5", "9" * 5000, "9999-99-99", "0001-01-01T00:00:00+23:59")],
    ],
    ids=lambda value: repr(value)[:30] if not isinstance(value, int) else "",
)
def test_times_are_read_whoever_wrote_them(stored: object, seconds: float | None) -> None:
    found = read_time(stored)
    assert found == seconds
    assert found is None or type(found) is float


def test_a_time_without_zone_is_utc_wherever_this_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert read_time("2023-11-14T22:13:20") == 1_700_000_000.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.rule("time.write")
@settings(max_examples=200)
@given(st.integers(100_000_000_000, 10_000_000_000_000), st.sampled_from(["8", "7", "6"]))
def test_a_stamp_reads_back_to_the_millisecond(milliseconds: int, wire: Wire) -> None:
    stamped = stamp(milliseconds / 1000, wire)
    assert read_time(stamped) == milliseconds / 1000
    if wire == "8":
        assert (stamped, type(stamped)) == (milliseconds, int)
    else:
        assert type(stamped) is float
        assert b"." in encode({"": stamped})


@given(st.floats(1e9, 4e9))
def test_a_stamp_never_lies_in_the_future_by_more_than_a_few_microseconds(seconds: float) -> None:
    assert -1 < stamp(seconds, "8") - seconds * 1000 <= 0.002


# Texts


class Wicked(Exception):
    def __str__(self) -> str:
        raise SystemExit("no message for you")


class Sly(str):
    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        raise RuntimeError

    def encode(self, *args: Any) -> bytes:
        raise RuntimeError


class Slier(Exception):
    def __str__(self) -> str:
        return Sly("caught")


class NotText(Exception):
    __str__ = lambda self: 5  # type: ignore[assignment,return-value]  # noqa: E731


class Loop(Exception):
    def __str__(self) -> str:
        return str(self)


UNREADABLE = "(the error's own message could not be read)"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("plain"), "plain"),
        (ValueError(), ""),
        (KeyError("k"), "'k'"),
        (ValueError("bo\udcc3om"), "bo\ufffdom"),
        (ValueError("\ud83d\ude00"), "\ufffd\ufffd"),
        (ValueError("x" * 10_000_000), "x" * 10_000),
        (ValueError("a\nb\x1b[31m\0"), "a\nb\x1b[31m\0"),
        (Wicked(), UNREADABLE),
        (NotText(), UNREADABLE),
        (Loop(), UNREADABLE),
        (Slier(), "caught"),
        (ExceptionGroup("many", [ValueError("x")]), "many (1 sub-exception)"),
        (SystemExit(3), "3"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_errors_message_is_always_text_that_json_can_hold(error: BaseException, expected: str) -> None:
    found = text(error)
    assert found == expected
    assert type(found) is str
    assert decode(encode({"class": "A", "args": [], "error_message": found}))["error_message"] == expected


def test_a_message_is_cut_where_asked() -> None:
    assert text(ValueError("abcdef"), 3) == "abc"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain é \N{GRINNING FACE}", "plain é \N{GRINNING FACE}"),
        ("a\nb\r\nc\x0bd\x85e\u2028f\u2029g", "a b c d e f g"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]0;open", "0;open"),
        ("\x9b31mx\x00\x7f", "31mx"),
        ("abc\u202edef\u2066g\u200bh", "abc def g h"),
        ("\ud800x", "x"),
        ("\nINFO forged line\n", "INFO forged line"),
        ("family \N{MAN}\u200d\N{WOMAN}\ufe0f", "family \N{MAN}\u200d\N{WOMAN}\ufe0f"),
    ],
)
def test_a_line_cannot_be_forged(given: str, shown: str) -> None:
    assert one_line(given) == shown


@settings(max_examples=200)
@given(st.text(st.characters(), max_size=20))
def test_no_text_breaks_out_of_its_line(value: str) -> None:
    line = one_line(value)
    assert len(line.splitlines()) <= 1
    assert "\x1b" not in line
    line.encode()

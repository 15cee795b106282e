"""What a worker must survive in a queue: one table row per kind of bad input.

DEAD: `decode` refuses with a reason, and the caller keeps the bytes. RUN: `decode` gives a job that can run.
"""

from __future__ import annotations

import gzip
import json
import pickle
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pillion import activejob
from pillion.errors import BadPayload
from pillion.payload import (
    MAX_DEPTH_READ,
    MAX_READ_BYTES,
    decode,
    read_tags,
    splice,
)

GOOD = b'{"class":"A","args":[],"queue":"default","jid":"j"}'


def job(args: bytes = b"[]", /, **fields: Any) -> bytes:
    """A stored job with these raw arguments; the fields replace or join the usual ones."""
    usual: dict[str, object] = {"class": "A", "queue": "default", "jid": "j", **fields}
    rest = json.dumps({key: value for key, value in usual.items() if value is not ...})
    return b'{"args":' + args + b"," + rest[1:].encode()


def nested(levels: int) -> bytes:
    """A job whose JSON is nested so deep, the payload and `args` included."""
    return job(b"[" * (levels - 1) + b"]" * (levels - 1))


DEAD = [
    ("empty", b"", "empty"),
    ("blank", b" \n", "empty"),
    ("words", b"not json", "not JSON"),
    ("truncated", b'{"class":"A","args":[', "not JSON"),
    ("trailing bytes", GOOD + b" x", "not JSON"),
    ("two payloads", GOOD + GOOD, "not JSON"),
    ("trailing NUL", GOOD + b"\0", "not JSON"),
    ("byte order mark", b"\xef\xbb\xbf" + GOOD, "byte order mark"),
    ("UTF-16", GOOD.decode().encode("utf-16"), "UTF-16"),
    ("UTF-16 without mark", GOOD.decode().encode("utf-16-le"), "UTF-16"),
    ("UTF-16 big-endian", GOOD.decode().encode("utf-16-be"), "UTF-16"),
    ("UTF-32", GOOD.decode().encode("utf-32"), "UTF-16 or UTF-32"),
    ("gzip", gzip.compress(GOOD), "gzip"),
    ("pickle", pickle.dumps({"class": "A", "args": []}), "pickle"),
    ("msgpack", b"\x82\xa5class\xa1A\xa4args\x90", "not JSON"),
    ("invalid UTF-8", job(b'["\xc3"]'), "not UTF-8"),
    ("overlong UTF-8", job(b'["\xc0\x80"]'), "not UTF-8"),
    ("surrogate in UTF-8", job(b'["\xed\xa0\x80"]'), "not UTF-8"),
    ("invalid UTF-8 in a key", job(b'[{"\xff":1}]'), "not UTF-8"),
    ("high surrogate alone", job(rb'["\ud800"]'), "surrogate"),
    ("low surrogate alone", job(rb'["\udc00"]'), "surrogate"),
    ("surrogates the wrong way round", job(rb'["\udc00\ud800"]'), "surrogate"),
    ("surrogate in a key", job(rb'[{"\ud800":1}]'), "surrogate"),
    ("NaN", job(b"[NaN]"), "not JSON"),
    ("Infinity", job(b"[Infinity]"), "not JSON"),
    ("-Infinity", job(b"[-Infinity]"), "not JSON"),
    ("1e999", job(b"[1e999]"), "out of range"),
    ("integer of 5,000 digits", job(b"[" + b"1" * 5000 + b"]"), "out of range"),
    ("depth 513", nested(513), "deeper than 512"),
    ("depth 100,000", nested(100_000), "deeper than 512"),
    ("depth 100,000, never closed", b"[" * 100_000, "deeper than 512"),
    ("depth 100,000 of objects", b'{"a":' * 100_000, "deeper than 512"),
    ("null", b"null", "not a JSON object"),
    ("array", b"[]", "not a JSON object"),
    ("string", b'"str"', "not a JSON object"),
    ("number", b"123", "not a JSON object"),
    ("no class", job(**{"class": ...}), "no `class`"),
    ("class null", job(**{"class": None}), "no `class`"),
    ("class 5", job(**{"class": 5}), "`class` is an int"),
    ("class {}", job(**{"class": {}}), "`class` is a dict"),
    ("class empty", job(**{"class": ""}), "`class` is not a name"),
    ("class of 257 characters", job(**{"class": "A" * 257}), "`class` is not a name"),
    ("class of 1 MB", job(**{"class": "A" * 1_000_000}), "`class` is not a name"),
    ("class with a line end", job(**{"class": "A\nB"}), "`class` is not a name"),
    ("no args", b'{"class":"A","jid":"j"}', "no `args`"),
    ("args object", job(b"{}"), "`args` is a dict"),
    ("args string", job(b'"x"'), "`args` is a str"),
    ("args null", job(b"null"), "`args` is None"),
    ("jid of 257 bytes", job(jid="j" * 257), "`jid` is longer"),
    ("jid of 258 bytes in 129 characters", job(jid="é" * 129), "`jid` is longer"),
    ("jid of 10 kB", job(jid="j" * 10_000), "`jid` is longer"),
    ("jid object of 10 kB", job(jid={"a": "j" * 10_000}), "`jid` is longer"),
    ("more than 16 MiB", b'{"class":"A","args":["' + b"x" * MAX_READ_BYTES + b'"],"jid":"j"}', "bytes, more than"),
    ("control character in a string", job(b'["a\nb"]'), "not JSON"),
    ("trailing comma", job(b"[1,]"), "not JSON"),
    ("single quotes", b"{'class':'A'}", "not JSON"),
    ("comment", b"/**/" + GOOD, "not JSON"),
    ("leading zero", job(b"[01]"), "not JSON"),
]


@pytest.mark.parametrize(("raw", "reason"), [pytest.param(*row[1:], id=row[0]) for row in DEAD])
def test_what_can_never_run_is_refused_with_a_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(BadPayload) as caught:
        decode(raw)
    assert reason in caught.value.reason
    assert len(caught.value.reason) < 120
    assert caught.value.reason.isprintable()
    assert caught.value.__cause__ is None


HUNDRED_DIGITS = int("1234567890" * 10)

RUN = [
    ("one scalar of each kind", b'["x",1,1.5,true,false,null]', ["x", 1, 1.5, True, False, None]),
    ("white space", b" [ 1 ,\t2 ] ", [1, 2]),
    ("integer of 65 bits", b"[18446744073709551616,-9223372036854775809]", [2**64, -(2**63) - 1]),
    ("integer of 100 digits", b"[%d]" % HUNDRED_DIGITS, [HUNDRED_DIGITS]),
    ("integer of 4,299 digits", b"[" + b"7" * 4299 + b"]", [7 * (10**4299 - 1) // 9]),
    ("floats", b"[0.1,1e-7,1.0e+20,0.10,123456789.12345678]", [0.1, 1e-7, 1e20, 0.1, 123456789.12345678]),
    ("escapes", rb'["\/\u00e9\u0000\n"]', ["/é\0\n"]),
    ("surrogate pair", rb'["\ud83d\ude00"]', ["\N{GRINNING FACE}"]),
    ("escaped backslash before u", rb'["\\ud800"]', ["\\ud800"]),
    ("duplicate key: the last", b'[{"a":1,"a":2}]', [{"a": 2}]),
    ("100,000 arguments", b"[" + b"1," * 99_999 + b"1]", [1] * 100_000),
    ("many brackets in strings", b'["' + b"[" * 5000 + b'"]', ["[" * 5000]),
    ("brackets and escaped quotes in strings", b'["\\"' + b"[{" * 600 + b'\\\\"]', ['"' + "[{" * 600 + "\\"]),
    ("many shallow containers", b"[" + b'{"a":[]},' * 2000 + b"{}]", [{"a": []}] * 2000 + [{}]),
]


@pytest.mark.rule("server.numbers")
@pytest.mark.parametrize(("args", "expected"), [pytest.param(*row[1:], id=row[0]) for row in RUN])
def test_odd_but_sound_arguments_run_and_survive_a_splice(args: bytes, expected: list[Any]) -> None:
    raw = job(args)
    assert decode(raw)["args"] == expected
    assert splice(raw, {"retry_count": 0}).startswith(b'{"args":' + args.strip())


@pytest.mark.parametrize("levels", [3, 100, 101, 511, 512])
def test_nesting_up_to_512_levels_runs_and_survives_a_splice(levels: int) -> None:
    raw = nested(levels)
    depth, value = 1, decode(raw)["args"]
    while value:
        depth, value = depth + 1, value[0]
    assert depth + 1 == levels
    assert decode(splice(raw, {"x": 1}))["args"] == decode(raw)["args"]


@pytest.mark.parametrize("first", [b"[],", b'"]",', b'"\\"",'])
def test_only_the_deepest_place_counts_however_many_containers_there_are(first: bytes) -> None:
    def beside(levels: int) -> bytes:
        return job(b"[" + first + b"[]," * 1000 + b"[" * (levels - 2) + b"]" * (levels - 2) + b"]")

    assert len(decode(beside(512))["args"]) == 1002
    with pytest.raises(BadPayload, match="deeper than 512"):
        decode(beside(513))


@pytest.mark.parametrize("text", [b"]]]]", rb"\"]", rb"\\", rb"\n]"])
def test_strings_cannot_hide_nesting(text: bytes) -> None:
    with pytest.raises(BadPayload, match="deeper than 512"):
        decode((b'["' + text + b'",') * 100_000)


def test_deep_nesting_needs_no_recursion_even_where_python_allows_it() -> None:
    code = (
        "import sys; sys.setrecursionlimit(10**9)\n"
        "from pillion.payload import decode\n"
        "from pillion.errors import BadPayload\n"
        "for raw in (b'[' * 10**6, b'{\"a\":' * 10**6):\n"
        "    try: decode(raw)\n"
        "    except BadPayload as error: print(error.reason)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["nested deeper than 512 levels"] * 2, done.stderr


def test_giants_are_refused_without_being_parsed() -> None:
    giant = b"[" * (MAX_READ_BYTES + 1)
    began = time.perf_counter()
    for read in (decode, lambda raw: splice(raw, {})):
        with pytest.raises(BadPayload, match="16777217 bytes, more than 16777216"):
            read(giant)
    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize("start", [b'"', b'"\\"', b'"\\\\', b"[" * 600 + b'"'])
def test_no_payload_takes_long_to_refuse(start: bytes) -> None:
    began = time.perf_counter()
    for tail in (b"\\", b'\\"', b"[", b'"['):
        with pytest.raises(BadPayload):
            decode(start + tail * (2_000_000 // len(tail)))
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (..., ""),
        (None, ""),
        ("", ""),
        (5, "5"),
        (["a"], '["a"]'),
        ("a b\n<script>", "a b\n<script>"),
        ("é" * 128, "é" * 128),
        ("j" * 256, "j" * 256),
    ],
)
def test_an_odd_jid_runs_as_text(stored: object, read: str) -> None:
    assert decode(job(jid=stored))["jid"] == read


@pytest.mark.parametrize(
    "fields",
    [
        {"retry": -1},
        {"retry": 1_000_000_000},
        {"retry": "yes"},
        {"retry": []},
        {"retry": None},
        {"retry_count": -5},
        {"retry_count": "x"},
        {"queue": "other"},
        {"queue": "a\nb"},
        {"queue": "../" * 4000},
        {"queue": 5},
        {"at": 1},
        {"created_at": "2026-11-22T00:00:00Z"},
        {"created_at": -1},
        {"enqueued_at": None},
        {"error_backtrace": "x" * 10_000},
        {"error_message": "\x1b[31m\r\n\u202e" * 100_000},
        {"tags": "x"},
        {"tags": ["x"] * 10_000},
        {"tags": [{}]},
        {"unknown": {"a": [1.0]}},
        {"bid": "gone"},
        {"class": "os.system"},
        {"class": "builtins.eval"},
        {"class": "__main__.x"},
        {"class": "../a"},
        {"class": "A::B"},
    ],
    ids=lambda fields: json.dumps(fields)[:30],
)
def test_odd_fields_do_not_stop_a_job(fields: dict[str, Any]) -> None:
    modules = set(sys.modules)
    read = decode(job(**fields))
    assert {key: read[key] for key in fields} == fields
    assert set(sys.modules) == modules


@pytest.mark.parametrize(
    ("stored", "read"),
    [(["a", "b"], ["a", "b"]), ("x", []), (None, []), ([{}, "a", 5], ["a"]), (["x" * 99], ["x" * 64])],
)
def test_tags_are_read_within_limits(stored: object, read: list[str]) -> None:
    assert read_tags(stored) == read
    assert len(read_tags(["x"] * 10_000)) == 20


@pytest.mark.parametrize("wrapped", ["x" * 257, "a\nb", "", 5, None, ["x"]])
def test_a_wrapped_class_that_is_no_name_is_nowhere_shown_or_counted(wrapped: object) -> None:
    assert activejob.real_name("A", wrapped) == "A"


@pytest.mark.parametrize(("levels", "innermost"), [(50, "gid"), (500, {"_aj_globalid": "gid"})])
def test_a_rails_job_may_be_nested_as_deep_as_any_other(levels: int, innermost: object) -> None:
    """An exception here would leave the claim in its slot for as long as the worker lives."""
    argument = b"[" * levels + b'{"_aj_globalid":"gid"}' + b"]" * levels
    payload = activejob.unwrap(decode(job(b'[{"arguments":[' + argument + b"]}]", wrapped="A")))
    (found,) = payload["args"]
    for _ in range(levels):
        (found,) = found
    assert found == innermost


@settings(max_examples=200)
@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
@example(b"1E400")
@example(b'"\\ud800"')
def test_whatever_decodes_is_strict_json(raw: bytes) -> None:
    """The standard library's reader is the witness, with its own laxness (NaN, UTF-16, surrogates) forbidden."""
    for candidate in (raw, b'{"class":"A","jid":"j","args":[' + raw + b"]}"):
        try:
            decoded = decode(candidate)
        except BadPayload:
            continue
        assert json.loads(candidate.decode(), parse_constant=pytest.fail) == decoded
        assert json.dumps(decoded, allow_nan=False, ensure_ascii=False).encode()


def test_the_reading_limits_are_what_the_documents_say() -> None:
    assert (MAX_DEPTH_READ, MAX_READ_BYTES) == (512, 16 * 1024 * 1024)

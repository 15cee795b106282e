"""What the fuzzer feeds: stored bytes and pushed values as no friend would send them, drawn from one source of chance.

The source is a `random.Random`: a seeded one in a long run, so that a batch can be repeated, and Hypothesis's own in
the suite, so that what fails is made small. Nothing here knows what should become of an input; see `bed.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

GOLDEN = tuple(
    path.read_bytes().rstrip(b"\n") for path in sorted((Path(__file__).parents[1] / "golden").rglob("*.json"))
)
JOBS = ("Echo", "Fails", "Fits", "Asks", "Odd", "Stub")
"""The classes that the fuzzed worker knows; see `jobs.py`."""

WRAPPER = "Sidekiq::ActiveJob::Wrapper"
STRANGE_NAMES = (
    *("os.system", "builtins.eval", "__main__.x", "antigravity", "this", "tests.fuzz.trap", "../a", "A::B", WRAPPER),
    *("a b", "é", "\N{ROCKET}", "A\nB", "", "x" * 256, "x" * 257, "\u202eEvil", "\x1b[31mRed", "ERROR forged", "%s%n"),
)
TEXTS = (
    *(
        "",
        "default",
        "a\nERROR: forged\r\n",
        "\x1b]0;owned\x07\x1b[2J",
        "\u202egnp.exe",
        "\u2028",
        "\x00",
        "\x85",
        "%s",
    ),
    *("<script>alert(1)</script>", "../" * 50, "*", "a:b", "é" * 60, "\N{GRINNING FACE}", "0", "-1", "NaN", "true"),
    *(
        "2026-11-22T12:00:00Z",
        "9999-99-99",
        "0001-01-01T00:00:00+23:59",
        "1e400",
        "9" * 400,
        "debug",
        "unknown",
        "kill",
    ),
    *("x" * 2_000, "e" * 300 + "@" + "a" * 300, "\\", '"', "\\u"),
)
SECRETS = ("redis://u:canary-7f3a@h/0", "cannot log in: password=canary-7f3a", '{"api_key": "canary-7f3a"}')
"""Told in arguments only; `lines.py` looks for them wherever people read."""
SPELLINGS = (
    *("null", "true", "false", "0", "-0", "-0.0", "1", "-1", "25", "101", "1e9", "1.5", "1e308", "1e-400", "1e999"),
    *("NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "0x10", "nul", "tru", "undefined", "'x'"),
    *("9007199254740993", "18446744073709551616", "-9223372036854775809", "1" * 100, "1" * 4299, "1" * 5000),
    *("1795347718276", "1795347718.276", "-5", "1e-7", "1.0e+20", "1000000000", "99999999999", "253402300800000"),
    *("[]", "{}", "[[]]", '{"":{}}', '""', '"x"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"'),
    *('"a\nb"', '"\\x"', '"\\u12"', '"unclosed', "[1,]", "{,}", '{"a"}', "/**/1", "\ufeff1", '{"a":1,"a":[2]}'),
)
FIELDS = (
    *("class", "args", "jid", "queue", "retry", "retry_count", "at", "created_at", "enqueued_at", "failed_at"),
    *("retried_at", "error_message", "error_class", "error_backtrace", "backtrace", "tags", "bid", "kwargs", "ctx"),
    *("wrapped", "display_class", "retry_for", "retry_queue", "dead", "log_level", "cattr", "discarded_at", "locale"),
    *("unknown", "é", "", "__class__", "encrypt", "once", "unique_for", "at ", "CLASS"),
)
PIECES = (
    *(b"[", b"]", b"{", b"}", b'"', b",", b":", b"\\", b"\\ud800", b"\\u0000", b"NaN", b"1e999", b"null", b"-0.0"),
    *(b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n", b"[" * 600, b"]" * 600, b'{"a":' * 600),
    *(b'"class":"Echo",', b'"args":[],', b'"jid":"j",', b'"retry":0,', b'"queue":"low",', b"\x1f\x8b", b"\x80\x04"),
)
USUAL = {"class": '"Echo"', "args": "[1]", "jid": '"0475b259651ef5988f1bc7ee"', "queue": '"low"', "retry": "true"}
DEEPEST = (3, 90, 99, 101, 300, 505, 511, 512, 520, 4_000)


class Inputs:
    """Draws inputs from `rng`."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def stored(self) -> bytes:
        """What may stand in a queue, in `schedule` or in `retry`."""
        return self._one_of(self._composed, self._composed, self._composed, self._mutant, self._mutant, self._noise)()

    def pushed(self) -> Any:
        """What a program may hand to `Client.push`: mostly a mapping, with any field spoilt."""
        if self.rng.random() < 0.02:
            return self._value(2)
        item: dict[Any, Any] = {"class": self._one_of(*JOBS), "args": [self._value(3) for _ in range(self._few(4))]}
        item["args"].append(self._one_of(*SECRETS))
        for name in self._sample(FIELDS, self._few(3)):
            item[name] = self._value(2)
        if self.rng.random() < 0.3:
            item["at"] = self._one_of(0, -5, 1e10, math.nan, 10**30, True, None, "soon", 4_000_000_000, 1.5)
        if self.rng.random() < 0.05:
            item[self._one_of(5, None, (1,), b"x")] = 1
        if self.rng.random() < 0.05:
            del item[self._one_of("class", "args")]
        return item

    # -- stored bytes ----------------------------------------------------------------------------------------------

    def _noise(self) -> bytes:
        return self.rng.randbytes(self._few(120))

    def _mutant(self) -> bytes:
        """A sound payload with a few accidents."""
        raw = bytearray(self._one_of(*GOLDEN))
        for _ in range(1 + self._few(4)):
            at = self.rng.randrange(len(raw) + 1)
            end = min(len(raw), at + self._few(12))
            accident = self.rng.randrange(6)
            if accident == 0:
                raw[at:end] = b""
            elif accident == 1:
                raw[at:at] = self._one_of(*PIECES)
            elif accident == 2 and at < len(raw):
                raw[at] ^= 1 << self.rng.randrange(8)
            elif accident == 3:
                raw[at:at] = raw[: self.rng.randrange(len(raw) + 1)]
            elif accident == 4:
                del raw[at:]
            else:
                raw[at:end] = self.rng.randbytes(end - at)
        return bytes(raw)

    def _composed(self) -> bytes:
        """A JSON object with known fields, each as usual or of any other kind, in any order, perhaps twice."""
        fields = dict(USUAL)
        if self.rng.random() < 0.2:
            arguments = ",".join(self._json(3) for _ in range(1 + self._few(2)))
            fields |= {"class": f'"{WRAPPER}"', "wrapped": f'"{self._one_of(*JOBS)}"'}
            fields["args"] = f'[{{"job_class":"x","arguments":[{arguments}]}}]'
        for name in self._sample(FIELDS, self._few(7)):
            fields[name] = self._spelling(name)
        members = [f"{json.dumps(name, ensure_ascii=False)}:{value}" for name, value in fields.items()]
        if self.rng.random() < 0.1:
            members.append(self._one_of(*members))
        if self.rng.random() < 0.2:
            self.rng.shuffle(members)
        if self.rng.random() < 0.1:
            members.remove(self._one_of(*members))
        space = self._one_of("", "", "", " ", "\n\t")
        return ("{" + space + f"{space},{space}".join(members) + "}").encode("utf-8", "surrogatepass")

    def _spelling(self, name: str) -> str:
        """A value for this field: often of its own kind, else of any."""
        chance = self.rng.random()
        if name in ("class", "wrapped", "display_class") and chance < 0.8:
            return json.dumps(self._one_of(*JOBS, *STRANGE_NAMES))
        if name in ("args", "tags") and chance < 0.6:
            members = [self._json(2) for _ in range(self._few(4))]
            return "[" + ",".join(members + [json.dumps(self._one_of(*SECRETS))] * (name == "args")) + "]"
        if name == "args" and chance < 0.7:
            return '[{"arguments":' + self._json(3) + "}]"
        if name in ("kwargs", "ctx", "cattr") and chance < 0.5:
            return "{" + ",".join(f'"{self._one_of("n", "what", "a b", "")}":{self._json(2)}' for _ in range(2)) + "}"
        return self._json(2)

    def _json(self, depth: int) -> str:
        chance = self.rng.random()
        if chance < 0.35:
            return json.dumps(self._one_of(*TEXTS), ensure_ascii=self.rng.random() < 0.5)
        if chance < 0.38:
            levels = self._one_of(*DEEPEST)
            opened, closed = self._one_of(("[", "]"), ('{"a":', "}"))
            return opened * levels + self._one_of("[]", "1") + closed * levels
        if depth and chance < 0.5:
            return "[" + ",".join(self._json(depth - 1) for _ in range(self._few(3))) + "]"
        if depth and chance < 0.6:
            return "{" + ",".join(f'"{self._key()}":{self._json(depth - 1)}' for _ in range(self._few(3))) + "}"
        return self._one_of(*SPELLINGS)

    def _key(self) -> str:
        return self._one_of("a", "arguments", "_aj_serialized", "_aj_globalid", "value", "_aj_ruby2_keywords", "é")

    # -- pushed values ---------------------------------------------------------------------------------------------

    def _value(self, depth: int) -> Any:
        chance = self.rng.random()
        if depth and chance < 0.15:
            return [self._value(depth - 1) for _ in range(self._few(3))]
        if depth and chance < 0.25:
            return {self._one_of(*TEXTS): self._value(depth - 1) for _ in range(self._few(3))}
        if chance < 0.55:
            return self._one_of(*TEXTS, "\ud800", "a\udcc3b", "x" * 200)
        if chance < 0.75:
            return self._one_of(None, True, False, 0, -1, 1.5, -0.0, 2**63, 10**50, 10**4299, 25, 101, 1e308, 5e-324)
        return self._one_of(*ODD_VALUES)()

    def _one_of(self, *choices: T) -> T:
        return choices[self.rng.randrange(len(choices))]

    def _sample(self, choices: tuple[str, ...], count: int) -> Iterator[str]:
        return (self._one_of(*choices) for _ in range(count))

    def _few(self, most: int) -> int:
        return self.rng.randrange(most + 1)


class Evil:
    """An object whose every answer is an exception."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


class OwnText(str):
    """A subclass of text."""

    __slots__ = ()


def _nested(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def _looped() -> list[Any]:
    found: list[Any] = []
    found.append({"again": found})
    return found


FLAT, DEEP, DEEPER, ABYSS = (_nested(levels) for levels in (97, 98, 600, 50_000))
GIANT = "é" * 300_000
ODD_VALUES: tuple[Callable[[], Any], ...] = (
    *(Evil, object, _looped, lambda: {1}, lambda: b"x", lambda: (1, 2), lambda: OwnText("x"), lambda: print),
    *(lambda: math.nan, lambda: math.inf, lambda: -math.inf, lambda: 10**5000, lambda: Decimal("1.1"), lambda: 1j),
    *(
        lambda: datetime(2026, 1, 1, tzinfo=UTC),
        lambda: {5: 1},
        lambda: {None: 1},
        lambda: iter("ab"),
        lambda: range(3),
    ),
    *(lambda: FLAT, lambda: DEEP, lambda: DEEPER, lambda: ABYSS, lambda: GIANT),
)

"""Plain JSON: whether a value is, what is wrong with it if not, and how to say so on one safe line.

Called by `payload.py` and by everything that shows text which others wrote. Pure and without state. It knows nothing of
jobs: names and paths are given to it.

A pushed argument must read back as what it was, in Ruby as in Python. So the check goes by exact type, all the way
down, and a subclass or a tuple is refused with the advice to convert it: the caller then sees what the job will get.
Each check is a pair: a fast function that only says yes or no, and a slow one that finds the first fault and its path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import msgspec

from pillion.errors import PayloadError

MAX_DEPTH = 100
"""Levels of nesting a pushed payload may have, the payload itself and `args` included: Ruby's JSON reads no more."""
MAX_INT = 10**4299 - 1
"""Python reads integers of at most 4,300 characters, sign included."""

_LEAST = -MAX_INT
_CONTAINERS = (list, tuple, set, frozenset)
_ENCODER = msgspec.json.Encoder()


def check_args(args: Sequence[Any], name: str, *, max_depth: int = MAX_DEPTH) -> None:
    """Check that the arguments are plain JSON: by exact type, all the way down.

    Args:
        args: a list or tuple of `str`, `int`, `float`, `bool`, `None`, and of `list` and `dict` of these.
        name: the job, for the message.
        max_depth: levels of nesting, counting the payload and `args` as the first two.

    Raises:
        PayloadError: the message names the path (`args[0]["when"]`), the type found there and what to pass instead.
    """
    if not is_plain(args, max_depth - 2):
        fault = first_fault(list(args), "args", max_depth - 1, strict=True)
        raise PayloadError(f"{name}: {fault}")


def check_plain(value: object, path: str, name: str, levels: int) -> None:
    """Check one value as `check_args` checks arguments; `levels` of containers are allowed, `value` counted.

    Raises:
        PayloadError: as `check_args`.
    """
    if not is_plain((value,), levels):
        raise PayloadError(f"{name}: {first_fault(value, path, levels, strict=True)}")


def is_plain(values: Iterable[Any], levels: int) -> bool:
    """Whether `values` are plain JSON with at most `levels` containers inside each other.

    Half of a surrogate pair in a string is left for the encoder to find.
    """
    for value in values:
        kind = type(value)
        if kind is str or value is None or kind is bool:
            continue
        if kind is int:
            plain = _LEAST <= value <= MAX_INT
        elif kind is float:
            plain = value - value == 0.0  # neither NaN nor infinite
        elif kind is list:
            plain = levels > 0 and is_plain(value, levels - 1)
        elif kind is dict:
            plain = levels > 0 and all(type(key) is str for key in value) and is_plain(value.values(), levels - 1)
        else:
            return False
        if not plain:
            return False
    return True


def first_fault(value: Any, path: str, levels: int, *, strict: bool) -> str | None:
    """Say what is wrong with the first value under `path` that JSON cannot hold (`strict`: that is not plain JSON)."""
    if strict and type(value) not in (str, int, float, bool, type(None), list, dict):
        return f"expected plain JSON at {path}, got {kind_of(value)}; {_cure(value)}"
    if isinstance(value, (*_CONTAINERS, dict)):
        if levels <= 0:
            return f"expected less nesting, got too much at {path[:60]}... (does it contain itself?); flatten it"
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            if strict and isinstance(value, dict) and type(key) is not str:
                return f"expected text as every key of {path}, got {shown(key)}; use str(key)"
            at = f"{path}[{_quote(key)}]" if path else one_line(str(key))[:40]
            fault = first_fault(child, at, levels - 1, strict=strict)
            if fault is not None:
                return fault
    elif isinstance(value, float) and value - value != 0.0:
        return f"expected a finite number at {path}, got {value}; pass None or a number"
    elif isinstance(value, int) and not _LEAST <= value <= MAX_INT:
        return f"expected an integer of at most 4299 digits at {path}, got a longer one; pass it as text"
    try:
        _ENCODER.encode(value)
    except UnicodeEncodeError:
        return f"expected Unicode text at {path}, got half of a surrogate pair; decode the bytes with errors='replace'"
    except Exception:
        return f"expected JSON at {path}, got {kind_of(value)}; {_cure(value)}"
    return None


_CURES = {
    "str": "pass str(value)",
    "int": "pass int(value)",
    "float": "pass float(value)",
    "list": "pass list(value)",
    "dict": "pass dict(value) with text keys",
    "tuple": "pass a list",
    "set": "pass sorted(value), a list",
    "frozenset": "pass sorted(value), a list",
    "range": "pass list(value)",
    "generator": "pass list(value)",
    "bytes": "pass value.decode(), or base64 text for binary data",
    "bytearray": "pass value.decode(), or base64 text for binary data",
    "datetime": "pass value.isoformat(), or value.timestamp() for an epoch",
    "date": "pass value.isoformat()",
    "time": "pass value.isoformat()",
    "timedelta": "pass value.total_seconds()",
    "Decimal": "pass str(value)",
    "UUID": "pass str(value)",
    "PurePath": "pass str(value)",
    "Enum": "pass value.value",
    "generic": "pass value.item()",
    "ndarray": "pass value.tolist()",
    "BaseModel": "pass value.model_dump(mode='json')",
}


def _cure(value: object) -> str:
    """What to pass instead, by the name of the nearest class that is known."""
    for base in type(value).__mro__:
        if base.__name__ in _CURES:
            return _CURES[base.__name__]
    return "pass its id and load it inside the job"


def is_finite(value: Any) -> bool:
    """Whether `value` surely holds neither NaN nor infinity: false for a type that this function does not look into."""
    left = [value]
    while left:
        one = left.pop()
        kind = type(one)
        if kind is str or kind is int or one is None or kind is bool:
            continue
        if kind is dict:
            left += one.values()
        elif kind is list or kind is tuple:
            left += one
        elif kind is not float or one - one != 0.0:
            return False
    return True


_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_STEPS = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else 0 for byte in range(256))
_NO_STEP = bytes(byte for byte in range(256) if byte not in b"[]{}")
_NO_MARK = bytes(byte for byte in range(256) if byte not in b'[]{}"\\')


def is_deeper(raw: bytes, levels: int) -> bool:
    """Whether the JSON text `raw` has more than `levels` containers inside each other; it is not parsed for that."""
    if raw.count(b"[") + raw.count(b"{") <= levels:
        return False
    brackets = raw.translate(None, _NO_MARK).replace(b'""', b"")
    if b'"' in brackets:  # some string holds a bracket, a quote or a backslash
        brackets = _STRING.sub(b"", raw).translate(None, _NO_STEP)
    depths = accumulate(memoryview(brackets.translate(_STEPS)).cast("b"))
    return max(depths, default=0) > levels


def kind_of(value: object) -> str:
    """A value's type with its article: "a datetime", or "None"."""
    if value is None:
        return "None"
    kind = one_line(type(value).__name__)[:80]
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"


def shown(value: object) -> str:
    """The kind of a value and, where that is short and safe, the value."""
    if type(value) not in (str, int, float, bool):
        return kind_of(value)
    try:
        return f"{kind_of(value)} ({value!r:.40})"
    except ValueError:  # an integer with too many digits to print
        return "a huge int"


def _quote(key: object) -> str:
    return str(key) if isinstance(key, int) else '"' + one_line(str(key))[:40] + '"'


_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)?")
_UNSAFE = re.compile(  # control characters, line ends, invisible and direction marks, halves of surrogate pairs
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]+"
)


def text(error: BaseException, limit: int = 10_000) -> str:
    """The message of an exception as text that JSON can hold, cut to `limit` characters. Never raises."""
    try:
        return clean(str.__getitem__(str(error), slice(limit)))  # a plain `str`, even if `__str__` gave a subclass
    except BaseException:  # `__str__` is the user's code
        return "(the error's own message could not be read)"


def clean(value: str) -> str:
    """`value` as UTF-8 can hold it: each half of a surrogate pair becomes U+FFFD."""
    return _SURROGATE.sub("\ufffd", value)


def one_line(value: str) -> str:
    """`value` fit for one log line or cell: without line ends, control characters, ANSI codes, bidi overrides."""
    if value.isprintable():
        return value
    return _UNSAFE.sub(" ", _ANSI.sub("", value)).strip()

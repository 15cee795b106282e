"""A value that somebody wrote for an option, and the readers that check it: numbers, switches, words, lists, choices.

`options.py` has the table that says which reader an option wants, and the readers for addresses and queues; job options
are read with the same. A reader takes a `Given` and gives the value in the type that is wanted, or raises a
`ConfigError` that names the place. Text is accepted where a number or a switch is meant, since the environment knows
nothing else. Nothing here reads a file, the environment or Redis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, NoReturn, TypeAlias

import msgspec

from pillion.errors import ConfigError
from pillion.mask import mask_secrets

MAX_NAME = 128
PRINTABLE = re.compile(r"[^\s\x00-\x1f\x7f]+")

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_SEPARATORS = re.compile(r"[,\s]+")


class Given(msgspec.Struct, frozen=True):
    """A value as somebody wrote it: its option, itself, and where it stands."""

    name: str
    value: Any
    where: str

    def wrong(self, expected: str, cure: str) -> NoReturn:
        """Raise the `ConfigError` that teaches: option, what was expected, what was found and where, what to do."""
        raise ConfigError(f"{self.name}: expected {expected}, got {shown(self.value)} ({self.where}); {cure}")


Parser: TypeAlias = Callable[[Given], Any]


def shown(value: object) -> str:
    """A value for a message: without secrets, at most 80 signs. Never raises."""
    try:
        words = mask_secrets(repr(value))
    except ValueError:  # Python does not write numbers of more than 4,300 digits
        return "a huge number"
    return words if len(words) <= 80 else f"{words[:77]}..."


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was most likely meant to be, if any comes near."""
    found = get_close_matches(name.lower().replace("-", "_"), list(known), n=1, cutoff=0.72)
    return found[0] if found else None


def whole(low: int, high: int, cure: str) -> Parser:
    """Reads a whole number between `low` and `high`; not a switch, not a fraction."""

    def read(given: Given) -> int:
        value = given.value
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value):
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            given.wrong(f"a whole number from {low} to {high}", cure)
        return value

    return read


def whole_or(word: str, low: int, high: int, cure: str) -> Parser:
    """Reads a whole number, or one word that stands for one."""
    number = whole(low, high, f"{cure}; or write {word}")

    def read(given: Given) -> int | str:
        value = given.value
        return word if isinstance(value, str) and value.strip().lower() == word else number(given)

    return read


def size(cure: str) -> Parser:
    """Reads an amount of memory with its unit, `512M` or `2G`, as bytes; a plain number would leave the unit open."""

    return lambda given: amount(given.value) or given.wrong("an amount of memory with its unit", cure)


def amount(value: object) -> int:
    """An amount of memory in bytes, told from `512M` or `2G`; 0 for anything else."""
    found = re.fullmatch(r"\s*(\d{1,9})\s*([KMGT])i?B?\s*", _lower(value), re.IGNORECASE)
    return int(found[1]) << {"K": 10, "M": 20, "G": 30, "T": 40}[found[2].upper()] if found else 0


def seconds(low: float, high: float, cure: str) -> Parser:
    """Reads a finite number of seconds between `low` and `high`."""

    def read(given: Given) -> float:
        number = _number(given.value)
        if number is None or not low <= number <= high:  # which NaN never is
            given.wrong(f"seconds from {low:g} to {high:g}", cure)
        return number

    return read


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def switch(given: Given) -> bool:
    """Reads true or false, also written as 1/0, yes/no, on/off."""
    word = _lower(given.value).strip()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    return given.wrong("true or false", "write true or false (1/0, yes/no and on/off count as well)")


def _lower(value: object) -> str:
    """A word, a switch or a small number in lower case; nothing for anything else."""
    small = isinstance(value, int) and abs(value) < 10**9
    return str(value).lower() if small or isinstance(value, str) else ""


def text(given: Given) -> str:
    """Reads one line of text that is not empty."""
    if isinstance(given.value, str) and given.value.strip() and given.value.isprintable():
        return given.value
    return given.wrong("one line of text", "write a string that is not empty, without control characters")


def word(given: Given) -> str:
    """Reads a short name without spaces."""
    if isinstance(given.value, str) and len(given.value) <= MAX_NAME and PRINTABLE.fullmatch(given.value):
        return given.value
    return given.wrong("a name without spaces", f"use at most {MAX_NAME} letters, digits and signs")


def key_prefix(given: Given) -> str:
    """Reads what is put before every key: empty, or a name without spaces."""
    return "" if given.value == "" else word(given)


def words(given: Given) -> tuple[str, ...]:
    """Reads a list of texts; a string is split at commas and spaces."""
    value = given.value
    items = [item for item in _SEPARATORS.split(value) if item] if isinstance(value, str) else value
    if isinstance(items, list | tuple) and all(isinstance(item, str) and item.strip() for item in items):
        return tuple(items)
    return given.wrong("a list of strings", 'write ["one", "two"], or "one,two" in the environment')


def choice(**values: object) -> Parser:
    """Reads one of the given words, in any case, and translates it."""

    def read(given: Given) -> Any:
        chosen = _lower(given.value)
        if chosen in values:
            return values[chosen]
        close = closest(chosen, values)
        return given.wrong(f"one of {', '.join(values)}", f"did you mean {close}?" if close else "pick one of them")

    return read

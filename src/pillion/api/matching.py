"""What each term of a query means: one function per field, which says whether a job meets a value.

Of many values the server can be asked to pass over what cannot meet them, because the job's bytes have to hold a text,
its *needle* (A to Z made small on both sides). A job whose bytes do not hold it does not meet the term, by definition:
so a search that asks the server finds the same as one that does not. The bytes were written by anyone; nothing here
raises for them, and none of it takes longer than a few looks at each byte."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any

from pillion.activejob import real_name
from pillion.api.fingerprint import fingerprint
from pillion.api.record import JobRecord, plain_text
from pillion.api.work import Work
from pillion.payload import read_time

UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([wdhms])")
_BOUND = re.compile(r"(>=|<=|>|<|)(.+)")
LONGEST = 100 * 366 * 86_400.0


class Subject:
    """The job that is looked at: where it is, its record, and from when ages are reckoned."""

    def __init__(self, state: str, job: JobRecord | Work, now: float) -> None:
        self.state = state
        self.job = job.job if isinstance(job, Work) else job
        self.began = job.run_at.timestamp() if isinstance(job, Work) else None
        self.now = now

    @cached_property
    def folded(self) -> bytes:
        """Its bytes, A to Z made small."""
        return self.job.value.lower()

    @cached_property
    def roots(self) -> list[Any]:
        """Its arguments: the list, and keyword-only ones."""
        return [self.job.args, self.job["kwargs"]]

    def since(self) -> float | None:
        """When it was pushed or, where that was not noted, made."""
        pushed = read_time(self.job["enqueued_at"])
        return read_time(self.job["created_at"]) if pushed is None else pushed


def meets(subject: Subject, field: str, path: tuple[str, ...], value: str) -> bool:
    """Whether a job meets one value of a term."""
    return needle(field, path, value) in subject.folded and MEANINGS[field](subject, path, value)


@lru_cache(1_024)
def needle(field: str, path: tuple[str, ...], value: str) -> bytes:
    """A text, A to Z made small, that the bytes of whatever meets this value hold; b"" where there is none."""
    if field == "text":
        return fold(value)
    pieces = {
        "jid": [value],
        "error": [value],
        "args": [*value.split("*"), *path] if path else [value],
        "class": re.split(r"[*#]", value),
        "tag": value.split("*"),
    }.get(field, [])
    plain = (plain_text(piece) for piece in pieces if piece == value or not piece.isdecimal())  # which may be an index
    return fold(max(plain, key=len, default=""))


def fold(text: str) -> bytes:
    """A text as it is compared: as UTF-8, with A to Z made small and nothing else, as the server does it, too."""
    return text.encode().lower()


def like(pattern: str, text: str) -> bool:
    """Whether a text is what a pattern says, where `*` is any text. Linear: no pattern makes it try again."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    if not text.startswith(first):
        return False
    at = len(first)
    for part in rest[:-1]:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return len(text) - at >= len(rest[-1]) and text.endswith(rest[-1])


# --- fields -----------------------------------------------------------------------------------------------------------


def _state(subject: Subject, _: object, value: str) -> bool:
    return subject.state == value


def _queue(subject: Subject, _: object, value: str) -> bool:
    return like(value, subject.job.queue or "")


def _class(subject: Subject, _: object, value: str) -> bool:
    job = subject.job
    names = {job.display_class, job.klass or "", real_name(job.klass or "", job["wrapped"])}
    return any(like(value, name) for name in names)


def _jid(subject: Subject, _: object, value: str) -> bool:
    return subject.job.jid == value


def _error(subject: Subject, _: object, value: str) -> bool:
    return any(fold(value) in _folded(text) for text in (subject.job.error_class, subject.job.error_message) if text)


def _tag(subject: Subject, _: object, value: str) -> bool:
    return any(like(value, tag) for tag in subject.job.tags)


def _cause(subject: Subject, _: object, value: str) -> bool:
    return bool(subject.job.is_error) and fingerprint(subject.job).startswith(value)


def _text(*_: object) -> bool:
    return True  # its needle was found


def _args(subject: Subject, path: tuple[str, ...], value: str) -> bool:
    if not path:
        return any(fold(value) in _folded(text) for root in subject.roots for text in _texts(root))
    level = subject.roots
    for step in path:
        level = [found for each in level for found in _step(each, step)]
    leaves = [leaf for each in level for leaf in (each if isinstance(each, list) else [each])]
    return any(like(value, scalar(leaf)) for leaf in leaves if not isinstance(leaf, dict | list))


def _step(value: Any, step: str) -> Iterator[Any]:
    """What stands under a key, or a number, of a value; of a list's elements, under their key."""
    if isinstance(value, dict) and step in value:
        yield value[step]
    if isinstance(value, list) and step.isdecimal() and len(step) < 7 and int(step) < len(value):
        yield value[int(step)]
    elif isinstance(value, list):
        yield from (each[step] for each in value if isinstance(each, dict) and step in each)


def _texts(root: Any) -> Iterator[str]:
    """Every key and every scalar within a value, as text."""
    left = [root]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield from value
            left += value.values()
        elif isinstance(value, list):
            left += value
        else:
            yield scalar(value)


def scalar(value: Any) -> str:
    """A JSON scalar as people type it: 42, true, null, and texts without quotes."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        return str(value)
    except ValueError:  # an integer of more digits than Python prints
        return ""


def _folded(text: str) -> bytes:
    return text.encode("utf-8", "replace").lower()


# --- times ------------------------------------------------------------------------------------------------------------


def _wait(subject: Subject, _: object, value: str) -> bool:
    since = subject.since()
    until = {"queued": subject.now, "running": subject.began}.get(subject.state)
    return since is not None and until is not None and _within(value, until - since)


def _age(subject: Subject, _: object, value: str) -> bool:
    made = subject.job.created_at
    return made is not None and _within(value, subject.now - made.timestamp())


def _since(subject: Subject, _: object, value: str) -> bool:
    earliest = moment(value) if value[:1].isdigit() and "-" in value else subject.now - (span(value) or 0.0)
    return max(subject.job.touched_at(), subject.began or 0.0) >= (earliest or 0.0)


def _within(value: str, seconds: float) -> bool:
    sign, limit = bound(value) or ("", 0.0)
    return {">": seconds > limit, "<": seconds < limit, "<=": seconds <= limit}.get(sign, seconds >= limit)


@lru_cache(1_024)
def bound(text: str) -> tuple[str, float] | None:
    """A comparison with a span of time, `>30s`, as its sign (`>=` without one) and seconds; None for none such."""
    found = _BOUND.fullmatch(text)
    seconds = span(found[2]) if found else None
    return None if found is None or seconds is None else (found[1] or ">=", seconds)


@lru_cache(1_024)
def span(text: str) -> float | None:
    """The seconds of a span of time, `90s` or `1h30m`; None where it is none, or longer than a century."""
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    seconds = round(sum(float(number) * UNITS[unit] for number, unit in parts), 3)
    return seconds if seconds <= LONGEST else None


@lru_cache(1_024)
def moment(text: str) -> float | None:
    """A date, or a date and a time, in ISO 8601 (UTC unless it says) as epoch seconds; None where it is none."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


MEANINGS: dict[str, Callable[[Subject, tuple[str, ...], str], bool]] = {
    "state": _state,
    "queue": _queue,
    "class": _class,
    "jid": _jid,
    "error": _error,
    "args": _args,
    "tag": _tag,
    "cause": _cause,
    "wait": _wait,
    "age": _age,
    "since": _since,
    "text": _text,
}

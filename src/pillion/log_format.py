"""How a log record becomes one line: for people (`PrettyFormatter`) or for machines (`JsonFormatter`).

`log.configure` picks one; a program with a logging setup of its own may name them there. Both are plain formatters for
the standard library's `logging`. They show the context of the job a line belongs to, hide passwords, and never raise.

A line cannot be forged: what others wrote (messages, class names, tags, exception texts) holds no line ends, control
characters, terminal codes or direction marks once it is formatted. In pretty lines the context stands before the
message, where no message can imitate it, and tracebacks are indented. Formatting writes nothing and keeps nothing.
"""

from __future__ import annotations

import datetime
import functools
import json
import logging
import re
import time
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

import msgspec

from pillion.clock import Clock, SystemClock
from pillion.mask import HIDDEN, mask_secrets
from pillion.plain import one_line, text
from pillion.running import RunningJob, current_job, log_fields
from pillion.types import Payload

MAX_TRACEBACK: Final = 100_000
MAX_TAGS: Final = 20
MAX_VALUE: Final = 256

LEVELS: Final = {10: "DEBUG", 20: "INFO", 30: "WARN", 40: "ERROR", 50: "FATAL"}
"""Sidekiq's names for the levels."""

_COLOURS: Final = {"DEBUG": "34", "INFO": "32", "WARN": "33", "ERROR": "31", "FATAL": "35"}
_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"
_BARE: Final = re.compile(r"[^\s\"=:]+")
_SIGNS: Final = re.compile(r"://|pass|secret|token|api.?key", re.IGNORECASE)
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "pillion",
    "pillion_level",
}
_FEWEST: Final = len(vars(logging.makeLogRecord({})))
_CLOCK: Final = SystemClock()


def context_of(jid: str, name: str, queue: str, attempt: int, payload: Payload) -> dict[str, Any]:
    """What every line about a job shows: `jid`, `class`, `queue`, `attempt`, and of the chosen fields those it has."""
    shown: dict[str, Any] = {"jid": jid, "class": name, "queue": queue, "attempt": attempt}
    for attribute in _attributes:
        if attribute in payload and (value := _attribute(payload[attribute])) is not None:
            shown[attribute] = value
    return shown


def show_attributes(names: Sequence[str]) -> None:
    """Choose which fields of a job its lines show; `bid` and `tags` if nobody does."""
    global _attributes
    _attributes = tuple(names)


_attributes: tuple[str, ...] = ("bid", "tags")


def _attribute(value: object) -> object:
    """A field as far as it fits into a line; None where it does not."""
    if isinstance(value, list):
        return [item[:MAX_VALUE] for item in value[:MAX_TAGS] if isinstance(item, str)]
    if isinstance(value, str):
        return value[:MAX_VALUE]
    return value if isinstance(value, int | float) else None


def job_context(clock: Clock = _CLOCK) -> dict[str, Any]:
    """The context of the job that this thread or task is running, with its seconds so far, and of `context`."""
    running = current_job()
    fields = {name: _hidden(name, value) for name, value in log_fields().items()}
    if running is None:
        return fields
    shown: dict[str, Any]
    try:
        shown = context_of(running.jid, running.name, running.queue, running.attempt, running.payload)
    except Exception:  # middleware may have put anything into the payload, and a log line must not fail for it
        shown = {"class": running.name, "queue": running.queue}
    started = _started(running)
    if started is not None:
        shown["elapsed"] = round(clock.steady() - started, 3)
    return fields | shown


def _started(running: RunningJob) -> float | None:
    return getattr(running, "started", None)


def context(record: logging.LogRecord) -> dict[str, Any]:
    """The context a record carries, else that of the job running here.

    It is put into the record by whoever logs about a job from elsewhere, and by `log.JobFilter` where it was logged, so
    that it is still right when another thread formats the record.
    """
    found = record.__dict__.get("pillion")
    return found if isinstance(found, dict) else job_context()


@functools.lru_cache(maxsize=1024)
def tid(thread: int, pid: int) -> str:
    """A thread's ident in this process, as short as Sidekiq writes it."""
    return base36(thread ^ pid)


def base36(number: int) -> str:
    """A number as short as digits and letters can write it."""
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `ts` (ISO 8601, UTC), `pid`, `tid`, `lvl`, `msg`, `ctx`, and `error` with a traceback.

    A logger's name stands in `logger`, and what a call passed as `extra=` in `extra`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._second = (-1, "")

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": self._time(record.created),
            "pid": record.process,
            "tid": tid(record.thread or 0, record.process or 0),
            "lvl": LEVELS.get(record.levelno, record.levelname),
            "logger": record.name,
            "msg": _masked(_message(record)),
        }
        if shown := context(record):
            line["ctx"] = shown
        fields = record.__dict__
        usual = _FEWEST + ("pillion" in fields) + ("pillion_level" in fields)
        if len(fields) > usual and (extra := fields.keys() - _STANDARD):
            line["extra"] = {name: _hidden(name, fields[name]) for name in sorted(extra)}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _error(record.exc_info[1], record.exc_info[2])
        if record.stack_info:
            line["stack"] = _masked(record.stack_info)
        return _escaped(_as_json(line))

    def _time(self, created: float) -> str:
        second = int(created)
        kept = self._second
        if kept[0] != second:
            moment = datetime.datetime.fromtimestamp(second, datetime.UTC)
            kept = self._second = (second, moment.strftime("%Y-%m-%dT%H:%M:%S."))
        return f"{kept[1]}{int((created - second) * 1000):03d}Z"


class PrettyFormatter(logging.Formatter):
    """A line for people: local time, level, the job's context, the message; a traceback indented below.

    Args:
        colour: with ANSI colours. `log.configure` asks for them on a terminal, unless NO_COLOR is set.
        timed: with the time. Not on Heroku, which puts its own in front.
        threads: with process and thread, for a file that several of them write.
    """

    def __init__(self, colour: bool = False, *, timed: bool = True, threads: bool = False) -> None:
        super().__init__()
        self._colour = colour
        self._timed = timed
        self._threads = threads
        self._second = (-1, "")

    def format(self, record: logging.LogRecord) -> str:
        level = LEVELS.get(record.levelno, record.levelname)
        pid = record.process or 0
        who = {"pid": pid, "tid": tid(record.thread or 0, pid)} if self._threads else {}
        shown = " ".join(f"{key}={_value(value)}" for key, value in (who | context(record)).items())
        message = one_line(_masked(_message(record)))
        if record.name != "pillion":
            message = f"[{one_line(record.name)}] {message}"
        when = f"{self._time(record.created)} " if self._timed else ""
        if self._colour:
            when, shown = when and f"{_DIM}{when}{_PLAIN}", shown and f"{_DIM}{shown}{_PLAIN}"
            level = f"\x1b[{_COLOURS.get(level, '0')}m{level:<5}{_PLAIN}"
        line = f"{when}{level:<5} {shown}{': ' if shown else ''}{message}"
        if record.exc_info and record.exc_info[1] is not None:
            line += _indented(_traceback(record.exc_info[1], record.exc_info[2]))
        if record.stack_info:
            line += _indented(record.stack_info)
        return line

    def _time(self, created: float) -> str:
        second = int(created)
        kept = self._second
        if kept[0] != second:
            kept = self._second = (second, time.strftime("%H:%M:%S.", time.localtime(second)))
        return f"{kept[1]}{int((created - second) * 1000):03d}"


def error_name(error: BaseException) -> str:
    """An exception's class as people write it: `ValueError`, `app.billing.CardDeclined`."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return one_line(name)[:MAX_VALUE]


def _message(record: logging.LogRecord) -> str:
    try:
        return str(record.getMessage())
    except Exception:  # arguments that do not fit the format, or whose `__str__` raises
        return f"{record.msg} (its arguments do not fit)" if isinstance(record.msg, str) else "(an unreadable message)"


def _masked(words: str) -> str:
    """Without passwords. Most lines hold none of the signs of one, and then this costs next to nothing."""
    return mask_secrets(words) if _SIGNS.search(words) else words


def _error(error: BaseException, where: TracebackType | None) -> dict[str, Any]:
    return {
        "class": error_name(error),
        "message": _masked(text(error)),
        "backtrace": _masked(_traceback(error, where)),
    }


def _traceback(error: BaseException, where: TracebackType | None) -> str:
    try:
        lines = "".join(traceback.format_exception(type(error), error, where))
    except Exception:  # a group nested too deep, an attribute that raises
        lines = f"{error_name(error)}: {text(error)}\n(its traceback could not be formatted)"
    return lines if len(lines) <= MAX_TRACEBACK else f"{lines[:MAX_TRACEBACK]}\n(cut)"


def _indented(lines: str) -> str:
    return "".join(f"\n    {_line(line)}" for line in _masked(lines).rstrip("\n").split("\n"))


def _line(line: str) -> str:
    """A line of a traceback, its own indentation kept."""
    words = line.lstrip(" ")
    return " " * (len(line) - len(words)) + one_line(words)


def _value(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(_value, value))
    shown = one_line(str(value))
    return shown if _BARE.fullmatch(shown) else json.dumps(shown, ensure_ascii=False)


def _as_json(line: dict[str, Any]) -> str:
    try:
        return _ENCODER.encode(line).decode()
    except Exception:  # halves of surrogate pairs somewhere
        try:
            return json.dumps(line, default=_shown, allow_nan=False)
        except Exception:  # what a program passed as `extra`: keys that are no strings, cycles, not a number
            safe = {name: _shown_each(value) if name in ("ctx", "extra") else value for name, value in line.items()}
            return json.dumps(safe)


def _shown_each(values: dict[Any, Any]) -> dict[str, str]:
    return {name if isinstance(name, str) else _shown(name): _shown(value) for name, value in values.items()}


def _hidden(name: str, value: object) -> object:
    pair = f"{name}=x"
    if mask_secrets(pair) != pair:
        return HIDDEN
    if isinstance(value, str):
        return _masked(value)
    if value is None or isinstance(value, (int, float)):
        return value
    shown = _shown(value)
    return shown if HIDDEN in shown else value


def _shown(value: object) -> str:
    try:
        return _masked(repr(value))[:MAX_VALUE]
    except Exception:
        return f"<{type(value).__name__}>"


def _escaped(line: str) -> str:
    """JSON leaves some characters alone that a terminal acts on; as escapes they read back as the same text."""
    return line if line.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in line)


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1] if ord(character) > 127 else f"\\u{ord(character):04x}"


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_shown)

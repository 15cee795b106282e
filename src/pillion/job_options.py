"""The options of a job: what each may be, what goes on the wire, and what only steers the push.

Called when a class or function is defined and by every `set(...)`; a wrong value fails there, not in a worker. Options
that Pillion does not know are *free keys*: they travel in the payload, middleware reads them, and retries keep them. A
name that looks like a slip (`qeue`), or is another library's option (`countdown`), is refused, not taken for one.
Nothing here talks to Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

from pillion.errors import ConfigError, PayloadError
from pillion.payload import check_queue
from pillion.plain import check_plain

MAX_RETRY_FOR = 1_000_000_000
MAX_LEVELS = 50
LOG_LEVELS = ("debug", "info", "warn", "warning", "error", "fatal", "critical")

TRANSPORT = frozenset({"once", "durability", "client", "after_commit"})
TIMING = frozenset({"wait", "wait_until"})

_BELONGS_TO_PILLION = "this field is written by Pillion itself; pick another name"
RESERVED: Mapping[str, str] = {
    "class": 'name the job with name="..." where it is defined',
    "args": "pass arguments to the verb: perform_async(...)",
    "kwargs": "pass arguments to the verb: perform_async(...)",
    "at": "use perform_at(...), or set(wait_until=...)",
    "sync": "use perform_inline(...)",
    "pool": "push through another Redis with client=pillion.Client(...)",
    "name": "a name belongs to the definition, not to a push",
    "aliases": "aliases belong to the definition, not to a push",
    "retry_in": "it belongs to the definition: an argument of the class statement or of @pillion.job",
    "retries_exhausted": "it belongs to the definition: an argument of the class statement or of @pillion.job",
} | dict.fromkeys(
    (
        "created_at",
        "enqueued_at",
        "failed_at",
        "retried_at",
        "retry_count",
        "error_message",
        "error_class",
        "error_backtrace",
        "discarded_at",
        "ctx",
    ),
    _BELONGS_TO_PILLION,
)

ALIKE = 0.82
"""How alike a free key and an option may be (`difflib`); `client_id` and `client_ip` are meant, at 0.8."""

_ELSEWHERE: Mapping[str, str] = {
    "retries": "did you mean 'retry'?",
    "max_retries": "did you mean 'retry'?",
    "retry_limit": "did you mean 'retry'?",
    "queue_name": "did you mean 'queue'?",
    "countdown": "use perform_in(...), or set(wait=...)",
    "delay": "use perform_in(...), or set(wait=...)",
    "eta": "use perform_at(...), or set(wait_until=...)",
    "run_at": "use perform_at(...), or set(wait_until=...)",
    "priority": "give urgent jobs a queue of their own",
    "expires": "pass the time as an argument, and look at it in perform",
    "timeout": "give what perform calls a timeout of its own",
}
"""Options of other libraries: a job that took one for a free key would silently lack what it asks for."""


class Options(NamedTuple):
    """Options sorted by where they go: into the payload, beside the push, or into its due time."""

    wire: dict[str, Any]
    transport: dict[str, Any]
    timing: dict[str, Any]


def sort_options(owner: str, options: Mapping[str, Any]) -> Options:
    """Check every option and sort them by where they go; `owner` names the job in errors.

    Raises:
        ConfigError: a value is impossible, or a name belongs to Pillion or is too close to one that does.
    """
    sorted_out = Options({}, {}, {})
    for name, value in options.items():
        if name in TIMING:
            sorted_out.timing[name] = value
            continue
        place = sorted_out.transport if name in TRANSPORT else sorted_out.wire
        place[name] = _checked(owner, name, value)
    return sorted_out


def fresh(options: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that middleware may change in place without changing the next push."""
    return {name: _copy(value) if type(value) in (list, dict) else value for name, value in options.items()}


def _copy(value: Any) -> Any:
    if type(value) is list:
        return [_copy(item) for item in value]
    if type(value) is dict:
        return {key: _copy(item) for key, item in value.items()}
    return value


def _checked(owner: str, name: str, value: object) -> Any:
    if name in RESERVED:
        raise ConfigError(f"{owner}: {name!r} is not an option; {RESERVED[name]}")
    if name in ("queue", "retry_queue"):
        return _queue(owner, name, value)
    if rule := _RULES.get(name):
        accepted = rule.accept(value)
        if accepted is _WRONG:
            raise ConfigError(f"{owner}: {name}: expected {rule.expected}, got {value!r:.80}; {rule.cure}")
        return accepted
    if advice := _mistaken(name):
        raise ConfigError(
            f"{owner}: {name!r} is not an option; {advice} For a key of your own choose a name less like an option's"
        )
    try:
        check_plain(value, name, owner, MAX_LEVELS)
    except PayloadError as error:
        raise ConfigError(str(error)) from None
    return _copy(value)


@lru_cache(1024)
def _mistaken(name: str) -> str | None:
    """What to write instead of a name that is hardly meant as a free key; remembered, as `set` is called per push."""
    plain = name.lower()
    if advice := _ELSEWHERE.get(plain):
        return advice if advice.endswith("?") else f"{advice}."
    if name in _KNOWN:
        return None
    close = get_close_matches(plain, _KNOWN, n=1, cutoff=ALIKE)
    # one letter is much of a short name: `nonce` is no slip for `once`
    if not close or (len(close[0]) <= 4 and close[0][0] != plain[0]):
        return None
    return f"did you mean {close[0]!r}?"


def _queue(owner: str, name: str, value: object) -> object:
    queue = str.__str__(value) if isinstance(value, str) else value
    try:
        check_queue(queue)
    except PayloadError as error:
        raise ConfigError(f"{owner}: {name}: {error}") from None
    return queue


_WRONG: Any = object()


class _Rule(NamedTuple):
    accept: Callable[[Any], Any]
    expected: str
    cure: str


def _switch(value: object) -> Any:
    return value if isinstance(value, bool) else _WRONG


def _switch_or_count(value: object) -> Any:
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, int) and value >= 0 else _WRONG


def _durability(value: object) -> Any:
    return value if value in (None, "replicated") else _WRONG


def _client(value: object) -> Any:
    return value if value is None or callable(getattr(value, "push", None)) else _WRONG


def _span(value: object) -> Any:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return _WRONG
    return int(seconds) if 0 <= seconds <= MAX_RETRY_FOR else _WRONG


def _tags(value: object) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(tag, str) for tag in value):
        return _WRONG
    return [str.__str__(tag) for tag in value]


def _log_level(value: object) -> Any:
    return value.lower() if isinstance(value, str) and value.lower() in LOG_LEVELS else _WRONG


_RULES: Mapping[str, _Rule] = {
    "retry": _Rule(_switch_or_count, "True, False or a number of retries >= 0", "0 means straight to the dead set"),
    "retry_for": _Rule(
        _span, f"seconds (0 to {MAX_RETRY_FOR:,}) or a timedelta", "it is a span counted from the first failure"
    ),
    "dead": _Rule(_switch, "True or False", "False discards the job when its retries are used up"),
    "backtrace": _Rule(_switch_or_count, "True, False or a number of lines >= 0", "True keeps all lines"),
    "tags": _Rule(_tags, "a list of strings", 'write tags=["billing"]'),
    "once": _Rule(_switch, "True or False", "True makes a push idempotent by its jid"),
    "durability": _Rule(_durability, '"replicated" or None', "it waits until a replica has the job"),
    "after_commit": _Rule(_switch, "True or False", "False pushes at once, whatever transaction is open"),
    "client": _Rule(_client, "a pillion.Client", 'write client=pillion.Client("redis://...")'),
    "log_level": _Rule(_log_level, f"one of {', '.join(LOG_LEVELS)}", "it holds while this job runs"),
}

_KNOWN = (*_RULES, *TIMING, "queue", "retry_queue", "jid", "name", "aliases", "retry_in", "retries_exhausted")

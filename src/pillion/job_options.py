"""The options of a job: what each may be, what goes on the wire, and what only steers the push.

Called when a class or function is defined and by every `set(...)`; a wrong value fails there, not in a worker. Options
that Pillion does not know are *free keys*: they travel in the payload, middleware reads them, and retries keep them. A
name that looks like a slip (`qeue`), or is another library's option (`countdown`), is refused, not taken for one.
Nothing here talks to Redis.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from pillion.config import RedisSettings
from pillion.errors import ConfigError, PayloadError
from pillion.given import Given, amount
from pillion.mask import mask_secrets
from pillion.options import address
from pillion.payload import check_queue
from pillion.plain import check_plain

log = logging.getLogger("pillion")

MAX_RETRY_FOR = 1_000_000_000
MAX_LEVELS = 50
LOG_LEVELS = ("debug", "info", "warn", "warning", "error", "fatal", "critical")

TRANSPORT = frozenset({"once", "durability", "client", "pool", "client_class", "after_commit"})
ROUTE = frozenset({"client", "pool", "client_class"})
"""What says where a push goes (`routing.py`)."""

TIMING = frozenset({"wait", "wait_until"})
RUN = frozenset({"isolation", "timeout", "max_memory"})
"""What says how a worker runs a job: the definition's business, whatever a payload says."""

_BELONGS_TO_PILLION = "this field is written by Pillion itself; pick another name"
RESERVED: Mapping[str, str] = {
    "class": 'name the job with name="..." where it is defined',
    "args": "pass arguments to the verb: perform_async(...)",
    "kwargs": "pass arguments to the verb: perform_async(...)",
    "at": "use perform_at(...), or set(wait_until=...)",
    "sync": "use perform_inline(...)",
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
SHORTEST, MOST_CUT = 3, 2
"""`que` is a slip for `queue`, at 0.75: too few letters to be alike."""

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
}
"""Options of other libraries: a job that took one for a free key would silently lack what it asks for."""

FOREIGN = ("unique_for", "unique_until", "expires_in", "encrypt")
"""Options of Sidekiq Pro and Enterprise: free keys here, which only Ruby's Sidekiq gives a meaning to."""

_told: set[str] = set()


class Options(NamedTuple):
    """Options sorted by where they go: into the payload, beside the push, into its due time, or to the worker."""

    wire: dict[str, Any]
    transport: dict[str, Any]
    timing: dict[str, Any]
    run: dict[str, Any]


class Isolation(msgspec.Struct, frozen=True):
    """A job that runs in a process of its own, and what that may use: seconds and bytes, None for no limit."""

    timeout: float | None = None
    max_memory: int | None = None


def isolation_of(owner: str, run: Mapping[str, Any]) -> Isolation | None:
    """How a definition's runs are isolated; None if they are not.

    Raises:
        ConfigError: a limit without a process to which it could be applied.
    """
    given = {name: value for name, value in run.items() if name != "isolation" and value is not None}
    if run.get("isolation") is not None:
        return Isolation(**given)
    for name in given:
        raise ConfigError(
            f'{owner}: {name} needs isolation="process", because a thread can be neither killed nor measured; '
            "add it, or give what perform calls a limit of its own"
        )
    return None


def sort_options(owner: str, options: Mapping[str, Any], *, defining: bool = False) -> Options:
    """Check every option and sort them by where they go; `owner` names the job in errors.

    Raises:
        ConfigError: a value is impossible, or a name belongs to Pillion or is too close to one that does.
    """
    sorted_out = Options({}, {}, {}, {})
    for name, value in options.items():
        if name in TIMING:
            sorted_out.timing[name] = value
            continue
        if name in RUN and not defining:
            raise ConfigError(f"{owner}: {name!r} belongs to the definition, not to a push; give it there")
        place = sorted_out.transport if name in TRANSPORT else sorted_out.run if name in RUN else sorted_out.wire
        place[name] = _checked(owner, name, value)
    given = sorted_out.transport
    if given.get("client") is not None and (given.get("pool") is not None or given.get("client_class") is not None):
        raise ConfigError(
            f"{owner}: expected client, or pool and client_class, got both; a client has its Redis and its class"
        )
    return sorted_out


def warn_of_foreign(job: str, owner: str, options: Iterable[str]) -> None:
    """Log, once per job, which of these options promise what Pillion does not do; `owner` is the job and its place."""
    found = [name for name in FOREIGN if name in options]
    if not found or job in _told:
        return
    _told.add(job)
    log.warning(
        "%s: Pillion itself does not act on %s: such keys only travel in the payload, to Ruby's Sidekiq; "
        "do it in perform or in middleware, or leave them out",
        owner,
        " and ".join(found),
    )


def over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """What steers a push, the nearer place winning.

    A `client` takes away a `pool` and a `client_class` from below it, and either of these a `client`.
    """
    hidden = ROUTE if "client" in above else {"client"} if ROUTE & above.keys() else ()
    return {**{name: value for name, value in below.items() if name not in hidden}, **above}


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
    if name == "pool":
        _insist_on_address(owner, value)
    if rule := _RULES.get(name):
        accepted = rule.accept(value)
        if accepted is _WRONG:
            raise ConfigError(
                f"{owner}: {name}: expected {rule.expected}, got {mask_secrets(repr(value))[:80]}; {rule.cure}"
            )
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
    if close and (len(close[0]) > 4 or close[0][0] == plain[0]):
        return f"did you mean {close[0]!r}?"
    meant = next((option for option in _KNOWN if _is_short_slip(plain, option)), None)
    return meant and f"did you mean {meant!r}?"


def _is_short_slip(name: str, option: str) -> bool:
    """Whether `name` is `option` without its last one or two letters, or with the letters after the first swapped."""
    cut = len(name) >= SHORTEST and option.startswith(name) and len(option) - len(name) <= MOST_CUT
    return cut or (name[:1] == option[0] and sorted(name) == sorted(option))


def _queue(owner: str, name: str, value: object) -> object:
    queue = str.__str__(value) if isinstance(value, str) else value
    try:
        check_queue(queue)
    except PayloadError as error:
        raise ConfigError(f"{owner}: {name}: {error}") from None
    return queue


def _insist_on_address(owner: str, pool: object) -> None:
    url = pool.url if isinstance(pool, RedisSettings) else pool
    if isinstance(url, str):
        address(Given("pool", url, f"option of {owner}"))


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
    pushes = callable(getattr(value, "push", None)) and not isinstance(value, type)
    return value if value is None or pushes else _WRONG


def _client_class(value: object) -> Any:
    pushes = isinstance(value, type) and callable(getattr(value, "push", None))
    return value if value is None or pushes else _WRONG


def _pool(value: object) -> Any:
    """What a client can be made with."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, RedisSettings):
        lists = {"sentinels": tuple(value.sentinels), "cluster": tuple(value.cluster)}
        return msgspec.structs.replace(value, **lists)  # what is made with it is found by it
    known = ("connection_pool", "connection_kwargs", "setup")  # a client or pool of redis-py, a client of ours
    return value if not isinstance(value, type) and any(hasattr(value, name) for name in known) else _WRONG


def _span(value: object) -> Any:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return _WRONG
    return int(seconds) if 0 <= seconds <= MAX_RETRY_FOR else _WRONG


def _isolation(value: object) -> Any:
    return value if value in (None, "process") else _WRONG


def _limit(value: object) -> Any:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if value is None or (type(seconds) in (int, float) and 0 < seconds <= MAX_RETRY_FOR):  # type: ignore[operator]
        return seconds
    return _WRONG


def _memory(value: object) -> Any:
    return None if value is None else amount(value) or _WRONG


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
    "client": _Rule(_client, "a pillion.Client", 'write client=pillion.Client("redis://..."), or pool="redis://..."'),
    "client_class": _Rule(
        _client_class, "a subclass of pillion.Client", "a client that is made already goes to client="
    ),
    "pool": _Rule(_pool, "an address, RedisSettings, a client or a pool of redis-py", 'write pool="redis://host:6379"'),
    "isolation": _Rule(_isolation, '"process" or None', "it runs the job in a process of its own"),
    "timeout": _Rule(_limit, "seconds or a timedelta", "the job's process is killed after so long"),
    "max_memory": _Rule(_memory, "an amount of memory with its unit", "write 512M or 2G"),
    "log_level": _Rule(_log_level, f"one of {', '.join(LOG_LEVELS)}", "it holds while this job runs"),
}

_KNOWN = (*_RULES, *TIMING, "queue", "retry_queue", "jid", "name", "aliases", "retry_in", "retries_exhausted")

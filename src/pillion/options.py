"""The options of a `Config`, one entry each: what a value must look like, and what is wrong with it.

`resolve.py` calls `parse` for every value it meets, before it merges the sources, so that an error names the source
that holds the mistake. Text is accepted where a number or a switch is meant, since the environment knows nothing else.
Nothing here reads a file, the environment or Redis.

Names are dotted: `timeout`, `redis.pool_size`, `capsules.mailers.concurrency`. The default capsule's three options have
the short names `concurrency`, `queues` and `threads`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NoReturn, TypeAlias
from urllib.parse import urlsplit

import msgspec

from pillion.errors import ConfigError
from pillion.mask import mask_secrets, mask_url

MAX_CONCURRENCY = 10_000
MAX_WEIGHT = 1_000
MAX_NAME = 128
SCHEMES = ("redis", "rediss", "unix")
SILENT = "silent"
LOG_LEVELS = {name: name for name in ("debug", "info", "warning", "error", "critical", SILENT)} | {
    "warn": "warning",
    "fatal": "critical",
}

NO_NAMESPACE = (
    "Sidekiq has no Redis namespaces since 7.0: give it a server or database of its own (redis://host:6379/1), "
    'or put something before every key with redis.prefix = "shop:"'
)

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_SEPARATORS = re.compile(r"[,\s]+")
_PRINTABLE = re.compile(r"[^\s\x00-\x1f\x7f]+")


class Given(msgspec.Struct, frozen=True):
    """A value as somebody wrote it: its option, itself, and where it stands."""

    name: str
    value: Any
    where: str

    def wrong(self, expected: str, cure: str) -> NoReturn:
        """Raise the `ConfigError` that teaches: option, what was expected, what was found and where, what to do."""
        raise ConfigError(f"{self.name}: expected {expected}, got {shown(self.value)} ({self.where}); {cure}")


def shown(value: object) -> str:
    """A value for a message: without secrets, at most 80 signs. Never raises."""
    try:
        words = mask_secrets(repr(value))
    except ValueError:  # Python does not write numbers of more than 4,300 digits
        return "a huge number"
    return words if len(words) <= 80 else f"{words[:77]}..."


Parser: TypeAlias = Callable[[Given], Any]


def parse(name: str, value: object, where: str) -> Any:
    """The value of the option called `name`, checked and in the type that `Config` wants.

    Raises:
        ConfigError: with the option, what was expected, what was found, where, and what to do.
    """
    return parser(name)(Given(name, value, where))


def parser(name: str) -> Parser:
    """What reads the option called `name`; it must be one of the known ones."""
    if name.startswith("capsules."):
        return CAPSULE[name.rpartition(".")[2]]
    if name.startswith(("redis.", "shards.")):
        return REDIS[name.rpartition(".")[2]]
    if name.startswith("default_job_options."):
        return anything
    return CAPSULE.get(name) or GENERAL[name]


def unknown(name: str, known: Iterable[str], where: str) -> NoReturn:
    """Raise the `ConfigError` for a name that is no option, with the closest one that is."""
    known = sorted(known)
    if name.rpartition(".")[2] == "namespace":
        raise ConfigError(f"unknown option `{name}` ({where}); {NO_NAMESPACE}")
    close = closest(name, known)
    cure = f"did you mean `{close}`?" if close else f"known are {', '.join(known)}"
    raise ConfigError(f"unknown option `{name}` ({where}); {cure}")


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
    if isinstance(given.value, str) and len(given.value) <= MAX_NAME and _PRINTABLE.fullmatch(given.value):
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


def hosts(given: Given) -> tuple[str, ...]:
    """Reads the addresses of Sentinels, or of a cluster's nodes: a list of `host:port`."""
    found = words(given)
    for address in found:
        host, colon, port = address.rpartition(":")
        if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
            given.wrong("host:port for each", 'write ["10.0.0.1:26379", "10.0.0.2:26379"]')
    return found


def address(given: Given) -> str:
    """Reads where the server is: `redis://`, `rediss://` or `unix://`. Its password is never shown."""
    url = given.value
    if not isinstance(url, str) or not url.strip():
        return given.wrong("an address", "write it as redis://localhost:6379/0")
    url = url.strip()
    scheme = url.partition("://")[0]
    if "://" not in url or scheme not in SCHEMES:
        _bad_address(given, "an address that begins with redis://, rediss:// or unix://", _scheme_cure(url, scheme))
    problem = _socket_problem(url) if scheme == "unix" else _tcp_problem(url)
    if problem:
        _bad_address(given, *problem)
    return url


def _scheme_cure(url: str, scheme: str) -> str:
    if "://" not in url:
        return "put redis:// before the host, or rediss:// where the server wants TLS"
    near = {"http": "redis", "https": "rediss", "valkey": "redis", "valkeys": "rediss", "tcp": "redis", "tls": "rediss"}
    return f"write {near.get(scheme.lower()) or closest(scheme, SCHEMES) or 'redis'}:// instead of {scheme}://"


def _tcp_problem(url: str) -> tuple[str, str] | None:
    escaped = "in the password, write %40 for @, %3A for :, %2F for /, %23 for #, %3F for ? and %25 for %"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        cure = escaped if "@" in url else "write redis://host:6379/0"
        return ("a port from 1 to 65535 after the host", cure)
    if "@" in parts.path + parts.query + parts.fragment:
        return ("host, port and database after the last @", escaped)
    if port == 0:
        return ("a port from 1 to 65535 after the host", "Redis listens on 6379 unless told otherwise")
    if not re.fullmatch(r"/?|/\d{1,6}", parts.path):
        return ("a database number after the host", "write redis://host:6379/0; other databases are /1, /2, ...")
    return None


def _socket_problem(url: str) -> tuple[str, str] | None:
    parts = urlsplit(url)
    if not parts.path.startswith("/") or parts.path == "/":
        return ("the path of a socket", "write unix:///run/redis/redis.sock, with three slashes")
    return None


def _bad_address(given: Given, expected: str, cure: str) -> NoReturn:
    raise ConfigError(f"{given.name}: expected {expected}, got {mask_url(given.value.strip())} ({given.where}); {cure}")


def queues(given: Given) -> tuple[tuple[str, int], ...]:
    """Reads queues in order of preference, each with its weight.

    Accepted are `["critical,3", "default"]`, `[["critical", 3], ["default", 1]]`, `{"critical": 3, "default": 1}`, and
    in the environment or on the command line `"critical,3 default"`. Weights on none mean strict order. Where only some
    have a weight, the others count as 1, as in Sidekiq; a weight of 0 that somebody wrote beside other weights is
    refused, because it could mean either "never" or "strict".
    """
    found = [_queue(given, item) for item in _queue_items(given)]
    if not found:
        given.wrong("at least one queue", 'write queues = ["default"]')
    names = [name for name, _ in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        given.wrong("every queue once", f"`{twice}` stands there twice; give it a weight instead: `{twice},2`")
    if all(not weight for _, weight in found):
        return tuple((name, 0) for name in names)
    if any(weight == 0 for _, weight in found):
        given.wrong("weights of 1 and more, or none", "remove all weights for strict order; to stop a queue, pause it")
    return tuple((name, weight or 1) for name, weight in found)


def _queue_items(given: Given) -> list[object]:
    value = given.value
    if isinstance(value, str):
        return list(value.split())
    if isinstance(value, Mapping):
        return [[name, weight] for name, weight in value.items()]
    if isinstance(value, list | tuple):
        return list(value)
    return given.wrong("a list of queues", 'write queues = ["critical,3", "default"]')


def _queue(given: Given, item: object) -> tuple[str, int | None]:
    parts = item.split(",") if isinstance(item, str) else item
    if not isinstance(parts, list | tuple) or len(parts) not in (1, 2) or not _queue_name(parts[0]):
        cure = f"{mask_secrets(repr(item))} is not one: no spaces, one comma at most, at most {MAX_NAME} signs"
        given.wrong("queues by name, or name,weight", cure)
    name = parts[0].strip(" ")
    if len(parts) == 1:
        return name, None
    return name, _weight(Given(f"weight of queue {name}", parts[1], given.where))


def _queue_name(name: object) -> bool:
    return isinstance(name, str) and bool(_PRINTABLE.fullmatch(name.strip(" "))) and len(name) <= MAX_NAME


def function(given: Given) -> Callable[..., Any]:
    """Passes something on that can be called; only code can give one."""
    found: Callable[..., Any] = given.value
    return found if callable(found) else given.wrong("something to call", "pass the function itself")


def anything(given: Given) -> Any:
    """Passes on what is somebody else's business: an object that only code can give, a job option, an adapter."""
    return given.value


_jobs_at_once = whole(1, MAX_CONCURRENCY, "it is how many jobs run at once; 5 is usual, 1 runs one by one")

_weight = whole(0, MAX_WEIGHT, "a queue is written name or name,weight, such as critical,3")

CAPSULE: Mapping[str, Parser] = {
    "concurrency": _jobs_at_once,
    "queues": queues,
    "threads": whole(1, MAX_CONCURRENCY, "it is the most threads for sync jobs; leave it out for min(concurrency, 64)"),
}

REDIS: Mapping[str, Parser] = {
    "url": address,
    "sentinels": hosts,
    "master": word,
    "cluster": hosts,
    "client": anything,
    "adapter": anything,
    "client_name": word,
    "prefix": key_prefix,
    "pool_size": whole(1, 10_000, "10 connections serve most processes"),
    "checkout_timeout": seconds(0, 3600, "1 is usual"),
    "connect_timeout": seconds(0.001, 3600, "3 is usual"),
    "timeout": seconds(0.001, 3600, "3 is usual"),
    "idle_timeout": seconds(1, 7 * 86400, "leave it out to keep connections open"),
    "ca_file": text,
    "cert_file": text,
    "key_file": text,
    "insecure_skip_verify": switch,
}

GENERAL: Mapping[str, Parser] = {
    "environment": word,
    "timeout": seconds(0, 7 * 86400, "it is how long a stopping worker waits for its jobs; 25 is usual"),
    "lease": seconds(0.1, 86400, "60 is usual; recovery after a crash takes about as long"),
    "processes": whole_or("auto", 1, 1_024, "auto means one per usable core; leave it out to run without a supervisor"),
    "max_memory": size("write 512M or 2G; a process that has grown so far is replaced"),
    "max_jobs": whole(1, 1_000_000_000, "a process that has run so many jobs is replaced"),
    "heartbeat": seconds(0.05, 30, "10 is usual; dashboards forget a process after 60 s of silence"),
    "tag": text,
    "labels": words,
    "poll_interval_average": seconds(0.01, 86400, "leave it out to scale with the number of processes"),
    "average_scheduled_poll_interval": seconds(0.01, 86400, "5 is usual"),
    "max_retries": whole(0, 1_000, "25 is usual: about three weeks of attempts"),
    "dead_max_jobs": whole(0, 100_000_000, "10000 is usual"),
    "dead_timeout_in_seconds": seconds(0, 3650 * 86400, "15552000 (180 days) is usual"),
    "strict_args": choice(**{"raise": "raise", "true": "raise", "warn": "warn", "false": False}),
    "max_payload": whole(1_024, 512 * 1024 * 1024, "1048576 is usual; pass an id rather than the data"),
    "backtrace_cleaner": function,
    "reloader": function,
    "shard_by": anything,
    "wire": choice(**{"8": "8", "7": "7", "6": "6"}),
    "log_level": choice(**LOG_LEVELS),
    "log_format": choice(pretty="pretty", plain="plain", json="json"),
    "logged_job_attributes": words,
    "skip_default_job_logging": switch,
    "verbose": switch,
    "require": words,
    "clock": anything,
    "rng": anything,
    "new_jid": anything,
}

CODE_ONLY = frozenset({"clock", "rng", "new_jid", "backtrace_cleaner", "reloader", "redis.client"})

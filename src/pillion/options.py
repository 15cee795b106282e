"""The options of a `Config`, one entry each: what a value must look like, and what is wrong with it.

`resolve.py` calls `parse` for every value it meets, before it merges the sources, so that an error names the source
that holds the mistake. The readers that are not about addresses or queues stand in `given.py`. Nothing here reads a
file, the environment or Redis.

Names are dotted: `timeout`, `redis.pool_size`, `capsules.mailers.concurrency`. The default capsule's three options have
the short names `concurrency`, `queues` and `threads`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit

from pillion.errors import ConfigError
from pillion.given import (
    MAX_NAME,
    PRINTABLE,
    Given,
    Parser,
    choice,
    closest,
    key_prefix,
    seconds,
    size,
    switch,
    text,
    whole,
    whole_or,
    word,
    words,
)
from pillion.mask import mask_secrets, mask_url

MAX_CONCURRENCY = 10_000
MAX_WEIGHT = 1_000
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
    return isinstance(name, str) and bool(PRINTABLE.fullmatch(name.strip(" "))) and len(name) <= MAX_NAME


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
    "run_log": switch,
    "run_log_size": size("write 20M; the oldest runs are dropped from there on"),
    "verbose": switch,
    "require": words,
    "clock": anything,
    "rng": anything,
    "new_jid": anything,
}

CODE_ONLY = frozenset({"clock", "rng", "new_jid", "backtrace_cleaner", "reloader", "redis.client"})

"""The configuration as values: one frozen `Config` that owns `Capsule`s. Nothing here reads a file or the environment.

`resolve.py` makes a `Config` from its sources; everything below and beside it only reads one. Times are in seconds
unless a name says otherwise.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeAlias

import msgspec

from pillion.clock import Clock, SystemClock
from pillion.mask import mask_url

Wire: TypeAlias = Literal["8", "7", "6"]
Mode: TypeAlias = Literal["strict", "random", "weighted"]

DEFAULT_JOB_OPTIONS: Mapping[str, Any] = {"retry": True, "queue": "default"}
DEAD_TIMEOUT = 180 * 24 * 3600.0


def random_jid() -> str:
    """A fresh job id: 24 lower-case hex characters from the operating system's secure source, as Sidekiq's."""
    return os.urandom(12).hex()


def random_jids(count: int) -> list[str]:
    """As many of these from one call of the operating system."""
    letters = os.urandom(12 * count).hex()
    return [letters[start : start + 24] for start in range(0, 24 * count, 24)]


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where Redis is and how to talk to it.

    Attributes:
        url: `redis://`, `rediss://` or `unix://`; None means the embedded server.
        sentinels: `host:port` of each Sentinel; with `master` they replace the URL's host.
        master: the name of the primary that the Sentinels watch.
        cluster: `host:port` of nodes of a Redis Cluster; they replace the URL's host by the owner of `prefix`.
        client: an existing redis-py client or pool; its class and arguments are taken, never its connections.
        adapter: who opens connections: `sockets`, `redis-py`, `valkey-py`, a registered name, or an `adapters.Adapter`.
        client_name: what CLIENT LIST shows for a connection; None means `pillion:<host>:<pid>`.
        prefix: put before every key; the empty prefix is Sidekiq's layout.
        pool_size: most connections that clients of one process use at once.
        checkout_timeout: how long a caller waits for a pooled connection.
        connect_timeout: how long opening a connection may take.
        timeout: how long one answer may take.
        idle_timeout: close pooled connections that nobody used for so long; None keeps them.
        ca_file: certificate authority for `rediss://`, instead of the system's.
        cert_file: client certificate for `rediss://`.
        key_file: its private key.
        insecure_skip_verify: accept any certificate; warned about at every start.
    """

    url: str | None = None
    sentinels: tuple[str, ...] = ()
    master: str | None = None
    cluster: tuple[str, ...] = ()
    client: Any = None
    adapter: Any = "sockets"
    client_name: str | None = None
    prefix: str = ""
    pool_size: int = 10
    checkout_timeout: float = 1.0
    connect_timeout: float = 3.0
    timeout: float = 3.0
    idle_timeout: float | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure_skip_verify: bool = False

    @property
    def is_somewhere(self) -> bool:
        """Whether they say where the server is; the embedded one is meant where they do not."""
        return bool(self.url or self.client is not None or self.sentinels or self.cluster)

    def __repr__(self) -> str:
        return f"RedisSettings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The fields for logs and tracebacks, without secrets."""
        shown = {"url": self.url and mask_url(self.url), "client": self.client and type(self.client).__name__}
        shown["adapter"] = self.adapter if isinstance(self.adapter, str) else type(self.adapter).__name__
        return list((msgspec.structs.asdict(self) | shown).items())


class Capsule(msgspec.Struct, frozen=True, kw_only=True):
    """A named group of queues with its own concurrency, fetcher and chains.

    Attributes:
        name: `default` is the one that the command line's flags configure.
        concurrency: most jobs at once, sync and async counted together.
        queues: (name, weight) in order; weight 0 everywhere means strict order, 1 everywhere random, else weighted.
        threads: most threads for sync jobs; None means min(concurrency, 64).
    """

    name: str = "default"
    concurrency: int = 5
    queues: tuple[tuple[str, int], ...] = (("default", 0),)
    threads: int | None = None

    @property
    def mode(self) -> Mode:
        """How the queues are ordered for each step, told from the weights as Sidekiq tells it."""
        weights = {weight for _, weight in self.queues}
        if weights <= {0}:
            return "strict"
        return "random" if weights == {1} else "weighted"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a client or worker needs to know, decided once.

    Attributes:
        redis: where the store is; the first shard, where there are shards.
        shards: (name, where it is) of each keyspace that jobs are spread over; empty for one without a name.
        shard_by: `jid`, `queue`, or queue names with their shards: which one a push goes to.
        environment: `development`, `production`, ...
        capsules: what a worker serves.
        timeout: how long a stopping worker lets running jobs finish.
        lease: how long an owner keeps its claims without renewing; recovery after a crash takes about as long.
        heartbeat: seconds between two beats.
        processes: worker processes under a supervisor, or `auto` for one per usable core; None for no supervisor.
        max_memory: bytes of resident memory from which the supervisor replaces a process.
        max_jobs: jobs after which it does.
        tag, labels: shown beside the process in dashboards.
        poll_interval_average: seconds between two polls of one process for due jobs; None scales with the fleet.
        average_scheduled_poll_interval: the fleet-wide goal for that, used when the former is None.
        max_retries: attempts after the first where `retry` is true.
        dead_max_jobs, dead_timeout_in_seconds: the dead set's caps.
        default_job_options: merged under every job's own options.
        strict_args: what to do with arguments that are not plain JSON: raise, warn, or False to let the encoder decide.
        max_payload: most bytes a pushed job may have.
        backtrace_cleaner: takes the lines of a failed job's backtrace, raising one first, and returns those to keep.
        reloader: makes a context manager that every run of a job happens in.
        wire: the time format and process-row dialect to write.
        logged_job_attributes: fields of a job that its log lines show beside jid, class, queue and attempt.
        skip_default_job_logging: write lines about failed jobs only.
        run_log: write runs to the run log, which pages and the API show.
        run_log_size: most bytes of it.
        log_level: `silent` switches the log of Pillion and of its jobs' loggers off.
        log_format: None means pretty on a terminal and JSON elsewhere.
        verbose: log debug lines and print both middleware chains at boot.
        require: what `pillion worker` imports: module names or paths.
        clock, rng, new_jid: where time, chance and identity come in.
    """

    redis: RedisSettings = RedisSettings()
    shards: tuple[tuple[str, RedisSettings], ...] = ()
    shard_by: str | Mapping[str, str] = "jid"
    environment: str = "development"
    capsules: tuple[Capsule, ...] = (Capsule(),)
    timeout: float = 25.0
    lease: float = 60.0
    heartbeat: float = 10.0
    processes: int | Literal["auto"] | None = None
    max_memory: int | None = None
    max_jobs: int | None = None
    tag: str | None = None
    labels: tuple[str, ...] = ()
    poll_interval_average: float | None = None
    average_scheduled_poll_interval: float = 5.0
    max_retries: int = 25
    dead_max_jobs: int = 10_000
    dead_timeout_in_seconds: float = DEAD_TIMEOUT
    default_job_options: Mapping[str, Any] = msgspec.field(default_factory=lambda: dict(DEFAULT_JOB_OPTIONS))
    strict_args: Literal["raise", "warn"] | bool = "raise"
    max_payload: int = 1_048_576
    backtrace_cleaner: Callable[[list[str]], list[str]] | None = None
    reloader: Callable[[], AbstractContextManager[Any]] | None = None
    wire: Wire = "8"
    log_level: str = "info"
    log_format: Literal["pretty", "plain", "json"] | None = None
    logged_job_attributes: tuple[str, ...] = ("bid", "tags")
    skip_default_job_logging: bool = False
    run_log: bool = True
    run_log_size: int = 20 << 20
    verbose: bool = False
    require: tuple[str, ...] = ()
    clock: Clock = msgspec.field(default_factory=SystemClock)
    rng: random.Random = msgspec.field(default_factory=random.Random)
    new_jid: Callable[[], str] = random_jid

    @property
    def concurrency(self) -> int:
        """Jobs at once over all capsules."""
        return sum(capsule.concurrency for capsule in self.capsules)

"""What an application sets up: chains, handlers, subscribers and options, in one mutable object.

Before anything runs, `configure(...)`, `configure_client` and `configure_server` blocks write into a `Setup`; its
`config` is then resolved once from every source and does not change any more. A process has one default `Setup`,
which job classes push through; a program that talks to several Redis servers makes more of them and gives each its
own `Client`.

Defining jobs and middleware needs neither a connection nor a configuration, and most of what these import. Both are
loaded when they are first asked for, so that `import pillion` stays well below `import redis`.

The kind of process is decided once. `pillion worker` calls `be_server()` before it imports the app, so
`configure_server` blocks run as they are met; in any other process `configure_client` blocks run before the first
push."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import msgspec

from pillion.config import Config, RedisSettings
from pillion.errors import ConfigError
from pillion.events import Event, Events
from pillion.middleware import Chain
from pillion.registry import Registry
from pillion.registry import default as default_registry
from pillion.running import Carrier, current_job
from pillion.shards import DEFAULT, Shard
from pillion.silence import silence

if TYPE_CHECKING:
    from redis import Redis

    from pillion.resolve import Resolved
    from pillion.store.connection import AsyncStore, Store
    from pillion.store.lending import Lender

Block: TypeAlias = Callable[["Setup"], object]
Lifecycle: TypeAlias = Literal["startup", "quiet", "shutdown", "exit", "heartbeat", "beat"]
F = TypeVar("F", bound=Callable[..., object])

LIFECYCLE: tuple[str, ...] = ("startup", "quiet", "shutdown", "exit", "heartbeat", "beat")


class Setup:
    """Everything an application decides before its first push or its first job.

    Attributes:
        server_middleware: runs around `perform`, in worker processes.
        error_handlers: called with (exception, context, config) for every failure, after it was stored.
        death_handlers: called with (job, exception) when a job will not run again by itself.
        events: subscribe to facts such as `JobSettled`.
        registry: the job definitions that this setup's worker runs.
    """

    def __init__(self, redis: Any = None, *, registry: Registry | None = None, **options: Any) -> None:
        self._client_middleware = Chain("client", self)
        self.server_middleware = Chain("server", self)
        self.error_handlers: list[Callable[[BaseException, Mapping[str, Any], Config], object]] = []
        self.death_handlers: list[Callable[[dict[str, Any], BaseException], object]] = []
        self.events = Events()
        self.registry = default_registry if registry is None else registry  # an empty one is false
        self.carrier = Carrier()
        self._capsules: dict[str, CapsuleSetup] = {}
        self._directory: dict[str, object] = {}
        self._lifecycle: dict[str, list[Callable[[], object]]] = {name: [] for name in LIFECYCLE}
        self._options: dict[str, Any] = {}
        self._flags: dict[str, Any] = {}
        self._file: Path | None = None
        self._blocks: list[Block] = []
        self._lock = threading.RLock()
        self._resolved: Resolved | None = None
        self._shards: tuple[Shard, ...] | None = None
        self._lender: Lender | None = None
        self._alone = False
        if redis is not None or options:
            self.configure(redis, **options)

    def configure(self, redis: Any = None, **options: Any) -> Setup:
        """Set options from code: `configure(redis=client)`, `configure("redis://...", concurrency=10)`.

        `redis` is a URL, a mapping of `RedisSettings` options, or an existing redis-py client or pool, whose class and
        arguments are taken, never its connections. A mapping changes only what it names. Raises ConfigError at once for
        an option that nobody knows.
        """
        if redis is not None:
            options["redis"] = redis
        if "redis" in options:
            options["redis"] = _redis_over(self._options.get("redis"), options["redis"])
        before, self._options = self._options, self._options | options
        try:
            resolved = self._resolve()
        except ConfigError:
            self._options = before
            raise
        if "logger" in options or "log_level" in options:
            silence(resolved.config)
        self._forget()
        return self

    @contextmanager
    def pointed_at(self, redis: Any) -> Generator[None]:
        """Talk to another Redis, and to no shard, for the length of a block; for tests."""
        before = self._options, self._alone
        self._alone = True
        try:
            self.configure(redis)
            yield
        finally:
            self._options, self._alone = before
            self._forget()

    def carry(self, *variables: ContextVar[Any]) -> None:
        """Carry the values of these context variables from the push to the run. They must be plain JSON."""
        self.carrier.add(*variables)

    @property
    def client_middleware(self) -> Chain:
        """Runs around every push, and again when a scheduled or failed job is moved to its queue.

        Inside a job of a capsule that has a chain of its own, this is that one.
        """
        if self._capsules and (running := current_job()) is not None and running.capsule in self._capsules:
            return self._capsules[running.capsule].client_middleware
        return self._client_middleware

    def capsule(self, name: str) -> CapsuleSetup:
        """The chains of one capsule: copies of the common ones, made when first asked for, and its own from then on."""
        with self._lock:
            if name not in self._capsules:
                chains = self._client_middleware.copy(), self.server_middleware.copy()
                self._capsules[name] = CapsuleSetup(name, *chains)
            return self._capsules[name]

    @property
    def own_capsules(self) -> tuple[str, ...]:
        """The capsules that have chains of their own."""
        return tuple(self._capsules)

    def server_chain(self, capsule: str) -> Chain:
        """The server chain that runs around the jobs of a capsule."""
        own = self._capsules.get(capsule)
        return self.server_middleware if own is None else own.server_middleware

    def register(self, name: str, thing: object) -> None:
        """Put an object where other parts of the application may `lookup` it; it replaces an older one."""
        self._directory[name] = thing

    def lookup(self, name: str, default: Any = None) -> Any:
        """What was registered under `name`, or else `default`."""
        return self._directory.get(name, default)

    def on(self, event: Lifecycle) -> Callable[[F], F]:
        """Register a function for a moment in a worker process's life: `@setup.on("startup")`."""
        if event not in LIFECYCLE:
            raise ConfigError(f"expected one of {', '.join(LIFECYCLE)}, got {event!r}")

        def register(fn: F) -> F:
            self._lifecycle[event].append(fn)
            return fn

        return register

    def lifecycle(self, event: Lifecycle) -> list[Callable[[], object]]:
        """The functions registered for `event`, in order; `quiet`, `shutdown` and `exit` in reverse."""
        functions = list(self._lifecycle[event])
        return functions[::-1] if event in ("quiet", "shutdown", "exit") else functions

    def add_block(self, block: Block) -> None:
        """Run `block` with this setup before the configuration is next used."""
        self._blocks.append(block)
        self._resolved = None

    def use_flags(self, flags: Mapping[str, Any], file: Path | None = None) -> None:
        """Take the command line's flags and its configuration file; they are checked when `config` is read."""
        self._flags, self._file = dict(flags), file
        self._forget()

    @property
    def config(self) -> Config:
        """The configuration, resolved once. Raises ConfigError for what no source may say."""
        return self.resolved.config

    @property
    def resolved(self) -> Resolved:
        """The configuration and where each value came from. The first caller runs the blocks, others wait for them."""
        resolved = self._resolved
        if resolved is not None:
            return resolved
        with self._lock:
            self._run_blocks()
            if self._resolved is None:
                self._resolved = self._resolve()
            return self._resolved

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The keyspaces that jobs are spread over; one called `default` where none is named."""
        shards = self._shards
        if shards is not None:
            return shards
        with self._lock:
            if self._shards is None:
                named = self.config.shards or ((DEFAULT, self.config.redis),)
                self._shards = tuple(
                    Shard(name, settings, partial(self._settings_of, settings)) for name, settings in named
                )
            return self._shards

    def shard(self, name: str) -> Shard:
        """The shard of that name. Raises ConfigError where there is none."""
        for shard in self.shards:
            if shard.name == name:
                return shard
        raise ConfigError(f"expected the name of a shard, got {name!r}; known are {', '.join(map(_name, self.shards))}")

    @property
    def store(self) -> Store:
        """The store that threads run ops on, of the first shard; it opens connections as they are needed."""
        return self.shards[0].store

    @property
    def astore(self) -> AsyncStore:
        """The same for asyncio callers."""
        return self.shards[0].astore

    @contextmanager
    def redis(self) -> Generator[Redis]:
        """Redis itself, for threads: `with setup.redis() as conn: conn.get("key")`.

        `conn` is a redis-py client on this setup's server, with replies in bytes; each of its commands borrows a pooled
        connection. No prefix is put before its keys, nothing is sent twice, and it raises what redis-py raises.
        """
        with self._lock:
            if self._lender is None:
                from pillion.store.lending import Lender  # noqa: PLC0415 - see above

                self._lender = Lender(lambda: self.store.settings)
            client = self._lender.client()
        yield client

    def redis_settings(self) -> RedisSettings:
        """Where Redis is. Where no source names an address, the embedded server is started or joined."""
        return self._settings_of(self.config.redis)

    def _settings_of(self, settings: RedisSettings) -> RedisSettings:
        if settings.is_somewhere:
            return settings
        from pillion import embedded  # noqa: PLC0415 - see above

        return msgspec.structs.replace(settings, url=embedded.ensure(environment=self.config.environment))

    def _resolve(self) -> Resolved:
        from pillion.resolve import resolve  # noqa: PLC0415 - see above

        places = {"flags": self._flags, "code": self._options, "env": os.environ}
        return resolve(**places, cwd=Path.cwd(), file=self._file, alone=self._alone)

    def _run_blocks(self) -> None:
        while self._blocks:
            self._blocks.pop(0)(self)

    def _forget(self) -> None:
        shards, lender = self._shards or (), self._lender
        self._resolved = self._shards = self._lender = None
        for shard in shards:
            shard.close()
        if lender is not None:
            lender.close()


class CapsuleSetup:
    """What one capsule has of its own: the chains around its jobs, and around the pushes that they make."""

    def __init__(self, name: str, client_middleware: Chain, server_middleware: Chain) -> None:
        self.name = name
        self.client_middleware = client_middleware
        self.server_middleware = server_middleware


def _name(shard: Shard) -> str:
    return shard.name


def _redis_over(before: Any, now: Any) -> Any:
    """What `configure` was given for `redis`, with what it was given earlier under a mapping."""
    if not isinstance(now, Mapping) or before is None:
        return now
    if isinstance(before, RedisSettings):
        return msgspec.structs.replace(before, **now)
    if isinstance(before, str):
        before = {"url": before}
    return {**(before if isinstance(before, Mapping) else {"client": before}), **now}


default = Setup()
_is_server = False


def be_server() -> None:
    """Make this a worker process: `configure_server` blocks run as they are met, `configure_client` ones never."""
    global _is_server
    _is_server = True


def is_worker() -> bool:
    """Whether this is a worker process."""
    return _is_server


def configure(redis: Any = None, **options: Any) -> Setup:
    """Set options of the default setup, e.g. `pillion.configure(redis="redis://localhost:6379")`."""
    return default.configure(redis, **options)


def configure_server(block: F) -> F:
    """Run a block with the default `Setup` in worker processes only: `@pillion.configure_server`."""
    if _is_server:
        block(default)
    return block


def configure_client(block: F) -> F:
    """Run a block with the default `Setup` before the first push of any process that is not a worker."""
    if not _is_server:
        default.add_block(block)
    return block


E = TypeVar("E", bound=Event)


def subscribe(kind: type[E], fn: Callable[[E], object]) -> Callable[[], None]:
    """Hear facts on the default setup, e.g. `pillion.subscribe(JobSettled, print)`. Returns the way to stop."""
    return default.events.subscribe(kind, fn)

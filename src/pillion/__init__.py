"""Pillion: background jobs on Redis and Valkey, in Sidekiq's wire format.

A map of the house; each floor imports only from those below it.

    5 doors      cli   testing                                        people and frameworks come in here
    4 engine     worker/   fetch, run, settle; retry, schedule, rescue; be seen
    3 faces      job   registry   client   middleware   setup   running   events   log   embedded   checks
    2 store      connection -> exchange, address -> ops (+ lua/) -> keys      the only talk with Redis
    1 rules      payload   retry   due   config   resolve             pure decisions
    0 words      errors   clock   types                               nouns

One job, with a finger: `job.py` and `setter.py` (the call), `client.py` (to bytes), `store/ops.py` (into Redis), then
`worker/fetcher.py` and `tenure.py` (claimed), `executor.py` and `runner.py` (run), `retry.py` (if it failed), and
back through the tenure into Redis (settled)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pillion.client import Client
from pillion.config import Capsule, Config, RedisSettings
from pillion.errors import (
    ArgumentsError,
    BootError,
    ConfigError,
    DefinitionError,
    EmptyQueueError,
    MaybeEnqueued,
    MiddlewareError,
    NotReplicated,
    PartlyEnqueued,
    PayloadError,
    PillionError,
    PoisonPill,
    PoolTimeout,
    ProcessCrashed,
    ProcessTimeout,
    QueueFull,
    Refused,
    Shutdown,
    StoreError,
    Unavailable,
    UnknownJob,
    UsageError,
)
from pillion.job import Job, job
from pillion.loader import on_load
from pillion.middleware_base import Middleware
from pillion.routing import via
from pillion.running import RunningJob, context, current_job, is_promotion
from pillion.setup import Setup, configure, configure_client, configure_server, is_worker, subscribe
from pillion.types import Drop, Later, discard, snooze
from pillion.version import __version__

if TYPE_CHECKING:
    from pillion.worker import Worker, embed

__all__ = [
    "ArgumentsError",
    "BootError",
    "Capsule",
    "Client",
    "Config",
    "ConfigError",
    "DefinitionError",
    "Drop",
    "EmptyQueueError",
    "Job",
    "Later",
    "MaybeEnqueued",
    "Middleware",
    "MiddlewareError",
    "NotReplicated",
    "PartlyEnqueued",
    "PayloadError",
    "PillionError",
    "PoisonPill",
    "PoolTimeout",
    "ProcessCrashed",
    "ProcessTimeout",
    "QueueFull",
    "RedisSettings",
    "Refused",
    "RunningJob",
    "Setup",
    "Shutdown",
    "StoreError",
    "Unavailable",
    "UnknownJob",
    "UsageError",
    "Worker",
    "__version__",
    "configure",
    "configure_client",
    "configure_server",
    "context",
    "current_job",
    "discard",
    "embed",
    "is_promotion",
    "is_worker",
    "job",
    "on_load",
    "snooze",
    "subscribe",
    "via",
]


def __getattr__(name: str) -> Any:
    """`pillion.Worker` and `embed`, loaded when first asked for: programs that only push have no use for the engine."""
    if name in ("Worker", "embed"):
        from pillion import worker  # noqa: PLC0415 - the engine is for worker processes

        return getattr(worker, name)
    raise AttributeError(f"module 'pillion' has no attribute {name!r}")

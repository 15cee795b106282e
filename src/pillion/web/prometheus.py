"""`/metrics` for Prometheus: the figures of the whole cluster, read from Redis, so that one process exports them once.

Counters are Sidekiq's and live in Redis, so they go on over restarts. Labels are queues, states and shards; never
arguments, jids or hosts. It reads in a few exchanges however many workers there are."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from starlette.responses import Response

from pillion.api import ProcessSet, Stats
from pillion.api.overview import Overview
from pillion.client import Client
from pillion.version import __version__
from pillion.web.context import View

TYPE = "text/plain; version=0.0.4; charset=utf-8"
HELP = {
    "pillion_build_info": ("gauge", "The version of the process that answers."),
    "pillion_jobs_finished_total": ("counter", "Runs that ended, by outcome: done or failed."),
    "pillion_queue_jobs": ("gauge", "Jobs by state: queued (by queue), scheduled, retry, dead, running."),
    "pillion_queue_oldest_seconds": ("gauge", "How long the oldest job of a queue has waited."),
    "pillion_queue_paused": ("gauge", "1 where no worker takes from a queue."),
    "pillion_slots": ("gauge", "Jobs that all workers can run at once."),
    "pillion_slots_busy": ("gauge", "Jobs that run."),
    "pillion_workers": ("gauge", "Worker processes."),
    "pillion_worker_rss_bytes": ("gauge", "Resident memory of all worker processes."),
    "pillion_store_memory_bytes": ("gauge", "Memory that Redis or Valkey uses."),
    "pillion_store_memory_limit_bytes": ("gauge", "Its maxmemory; 0 for none."),
}
"""Every metric: its type and what it counts."""


class Sample(msgspec.Struct, frozen=True):
    """One line."""

    name: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        labels = ",".join(f'{name}="{_quoted(value)}"' for name, value in self.labels)
        return f"{self.name}{f'{{{labels}}}' if labels else ''} {self.value:.15g}"


async def answer(view: View) -> Response:
    """The page."""
    samples = [Sample("pillion_build_info", 1, (("version", __version__),))]
    for name in [view.shard] if view.shard else view.shards:
        shard = (("shard", name),) if len(view.shards) > 1 else ()
        samples += [
            Sample(each.name, each.value, (*each.labels, *shard)) for each in await read(view.site.clients[name])
        ]
    return Response("\n".join(_page(samples)) + "\n", 200, {"cache-control": "no-store"}, TYPE)


async def read(client: Client) -> list[Sample]:
    """The samples of one shard. O(queues + processes)."""
    figures, queues = await Stats(client).aread(), await Stats(client).aqueue_summaries()
    processes, server = await ProcessSet(clean=False, client=client).aall(), await Overview(client).aserver()
    states = {"scheduled": figures.scheduled_size, "retry": figures.retry_size, "dead": figures.dead_size}
    busy = sum(each.busy for each in processes)
    return [
        Sample("pillion_jobs_finished_total", max(0, figures.processed - figures.failed), (("outcome", "done"),)),
        Sample("pillion_jobs_finished_total", figures.failed, (("outcome", "failed"),)),
        *(Sample("pillion_queue_jobs", each.size, (("queue", each.name), ("state", "queued"))) for each in queues),
        *(Sample("pillion_queue_jobs", size, (("state", state),)) for state, size in states.items()),
        Sample("pillion_queue_jobs", busy, (("state", "running"),)),
        *(Sample("pillion_queue_oldest_seconds", each.latency, (("queue", each.name),)) for each in queues),
        *(Sample("pillion_queue_paused", each.paused, (("queue", each.name),)) for each in queues),
        Sample("pillion_slots", sum(each.concurrency for each in processes)),
        Sample("pillion_slots_busy", busy),
        Sample("pillion_workers", len(processes)),
        Sample("pillion_worker_rss_bytes", 1024 * sum(each.rss for each in processes)),
        Sample("pillion_store_memory_bytes", server.memory),
        Sample("pillion_store_memory_limit_bytes", server.limit),
    ]


def _page(samples: list[Sample]) -> Iterator[str]:
    for name, (kind, text) in HELP.items():
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} {kind}"
        yield from (str(sample) for sample in samples if sample.name == name)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

"""`/stats` and `/stats/queues` as Sidekiq's dashboard answers: its keys, in its order, for monitors that know it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from pillion.api import Figures, Stats
from pillion.api.overview import Overview, ServerFacts
from pillion.web.context import View
from pillion.web.drawing import json_response

UNITS = ((1024**4, "T"), (1024**3, "G"), (1024**2, "M"), (1024, "K"))


async def stats(view: View) -> Response:
    """The figures of all shards that the view shows, and the first one's server."""
    found = [await Stats(client).aread() for client in view.clients]
    server = await Overview(view.client).aserver()
    now = datetime.fromtimestamp(view.now, UTC)
    answer = {"sidekiq": summed(found), "redis": _facts(server), "server_utc_time": f"{now:%H:%M:%S} UTC"}
    return json_response(answer)


async def queues(view: View) -> Response:
    """How many jobs wait in each queue, the largest first."""
    sizes: dict[str, int] = {}
    for client in view.clients:
        for name, size in (await Stats(client).aqueues()).items():
            sizes[name] = sizes.get(name, 0) + size
    return json_response(dict(sorted(sizes.items(), key=lambda item: -item[1])))


def summed(found: list[Figures]) -> dict[str, Any]:
    """Sidekiq's nine figures."""
    return {
        "processed": sum(each.processed for each in found),
        "failed": sum(each.failed for each in found),
        "busy": sum(each.workers_size for each in found),
        "processes": sum(each.processes_size for each in found),
        "enqueued": sum(each.enqueued for each in found),
        "scheduled": sum(each.scheduled_size for each in found),
        "retries": sum(each.retry_size for each in found),
        "dead": sum(each.dead_size for each in found),
        "default_latency": max(each.default_queue_latency for each in found),
    }


def _facts(server: ServerFacts) -> dict[str, str]:
    return {
        "redis_version": server.redis_version,
        "uptime_in_days": str(server.uptime_days),
        "connected_clients": str(server.connections),
        "used_memory_human": human(server.memory),
        "used_memory_peak_human": human(server.peak),
        "store_name": server.store,
        "store_version": server.version,
    }


def human(size: int) -> str:
    """Bytes as Redis writes them: `1.05M`."""
    for unit, letter in UNITS:
        if size >= unit:
            return f"{size / unit:.2f}{letter}"
    return f"{size}B"

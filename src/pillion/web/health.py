"""What machines ask: `/healthz` (this process answers), `/readyz` (so does Redis), `HEAD /`, and the scale of a queue.

`/healthz` never asks Redis, so that one blip of it restarts no fleet. Neither of the two names a queue, a job or an
address. `/api/v1/scale` is for KEDA's `metrics-api`: the wait of the oldest job, and at least a little above zero while
a job of that queue runs, because KEDA stops the last worker at zero."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from starlette.responses import PlainTextResponse, Response

from pillion.api import Queue, Stats, WorkSet
from pillion.client import Client
from pillion.errors import PillionError
from pillion.web.site import Site

READY_WITHIN = 3.0
STILL_NEEDED = 0.001
NO_STORE = {"cache-control": "no-store"}


class Scale(msgspec.Struct, frozen=True):
    """How much some queues need workers.

    Attributes:
        value: seconds that their oldest job has waited; 0 only where nothing waits or runs.
        waiting, running: how many jobs do.
    """

    value: float
    waiting: int
    running: int


def healthz() -> Response:
    """200: the process is alive."""
    return PlainTextResponse("ok\n", headers=NO_STORE)


async def readyz(site: Site) -> Response:
    """200 where every shard answers, else 503."""
    try:
        async with asyncio.timeout(READY_WITHIN):
            for client in site.clients.values():
                await Queue(client=client).asize()
    except (PillionError, TimeoutError):
        return PlainTextResponse("Redis does not answer\n", 503, {**NO_STORE, "retry-after": "2"})
    return PlainTextResponse("ok\n", headers=NO_STORE)


async def scale(clients: Sequence[Client], queues: Sequence[str]) -> Scale:
    """The need of these queues, or of all. O(queues + processes + running jobs)."""
    wait, waiting, running = 0.0, 0, 0
    for client in clients:
        for queue in await Stats(client).aqueue_summaries():
            if not queues or queue.name in queues:
                wait, waiting = max(wait, queue.latency), waiting + queue.size
        running += sum(not queues or work.queue in queues for work in await WorkSet(client).aall())
    return Scale(max(wait, STILL_NEEDED if waiting or running else 0.0), waiting, running)

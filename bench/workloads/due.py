"""Promotion: many jobs become due at once, and a worker moves them from `schedule` to their queue.

The harness writes the jobs itself, in Sidekiq's format, which Pillion and Sidekiq share; the worker serves another
queue, so that nothing but promotion happens. Meanwhile another process pings the server.
"""

from __future__ import annotations

import time

from bench import pinger
from bench.catalog import Peer
from bench.lab import Lab, Sample
from bench.measure import Processes, TooSlow
from bench.workloads.workload import Workload

PAYLOAD = '{{"class":"{0}","args":[{1}],"queue":"bench","retry":true,"jid":"{1:024x}","created_at":1767225600000}}'
LOOK = 0.02
BATCH = 1000
CALM = 2.0


def promote(lab: Lab, peer: Peer) -> Sample:
    lab.fresh()
    count = (100_000 if lab.quick else 1_000_000) if peer.is_ours else lab.size(6_000)
    schedule(lab, peer, count)
    beside = pings(lab)
    with lab.worker(peer, "promote", 10) as worker:
        sample = watched(lab, worker, count)
    return sample | {f"idle_{name}": value for name, value in beside.items()}


def schedule(lab: Lab, peer: Peer, count: int) -> None:
    name = "Noop" if peer.is_ruby else "noop"
    due = time.time() - 60
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        lab.server.client.zadd("schedule", {PAYLOAD.format(name, number): due + number / count for number in numbers})


def pings(lab: Lab) -> dict[str, float]:
    """What a PING takes while nothing else happens."""
    process = pinger.start(lab.server.port)
    time.sleep(CALM)
    return pinger.finish(process)


def watched(lab: Lab, worker: Processes, count: int) -> Sample:
    """From the first job that moves to the last."""
    wait_until_fewer(lab, worker, count, 60)
    process = pinger.start(lab.server.port)
    begun, left = time.perf_counter(), lab.server.client.zcard("schedule")
    cpu, redis = worker.cpu(), lab.server.cpu()
    wait_until_fewer(lab, worker, 1, lab.patience + count / 5_000)
    seconds = time.perf_counter() - begun
    spent, served = worker.cpu() - cpu, lab.server.cpu() - redis
    return {
        "jobs": left,
        "rate": left / seconds,
        "cpu_us": spent / left * 1e6,
        "redis_us": served / left * 1e6,
        **{f"ping_{name}": value for name, value in pinger.finish(process).items()},
    }


def wait_until_fewer(lab: Lab, worker: Processes, than: int, patience: float) -> None:
    deadline = time.monotonic() + patience
    while (left := lab.server.client.zcard("schedule")) >= than:
        if time.monotonic() > deadline or not worker.is_alive():
            raise TooSlow(f"{left} due jobs were not moved")
        time.sleep(LOOK)


WORKLOADS = (Workload("due", "due jobs moved from `schedule` to their queue", "wire", promote, rounds=(1, 0)),)

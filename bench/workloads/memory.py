"""Memory: what a queued job takes in the server beside its payload, and a worker over millions of jobs."""

from __future__ import annotations

import time

from bench.catalog import Peer
from bench.lab import Lab, Sample
from bench.measure import Processes, TooSlow
from bench.workloads.due import PAYLOAD
from bench.workloads.workload import Workload

QUEUE = "queue:bench"
BACKLOG, CHUNK = 100_000, 1_000
BEFORE = 0.1


def queued(lab: Lab, peer: Peer) -> Sample:
    lab.fresh()
    count = lab.size(6 * peer.pushes if "bulk" in peer.offers else min(peer.pushes, 3_000), 2_000)
    before = lab.server.used_memory()
    lab.push(peer, "fill", "noop", str(count), "")
    used = (lab.server.used_memory() - before) / (count + max(200, count // 10) + 2)
    if "wire" not in peer.offers:
        return {"queued_bytes": used}
    payloads = lab.server.client.lrange(QUEUE, 1, 1_000)
    return {"queued_bytes": used, "payload_bytes": sum(map(len, payloads)) / len(payloads)}


def soak(lab: Lab, peer: Peer) -> Sample:
    """Feeds and drains; tells the memory after a tenth of the jobs and at the end."""
    lab.fresh()
    total = 500_000 if lab.quick else 5_000_000
    with lab.worker(peer, "noop", 10) as worker:
        feed(lab, worker, 0, round(total * BEFORE))
        early = worker.rss()
        feed(lab, worker, round(total * BEFORE), total)
        return {"jobs": total, "early_mb": early, "late_mb": worker.rss(), "growth_mb": worker.rss() - early}


def feed(lab: Lab, worker: Processes, start: int, end: int) -> None:
    """Push the jobs of these numbers as fast as they are run, and wait for the last of them."""
    client = lab.server.client
    for number in range(start, end, CHUNK):
        client.lpush(QUEUE, *(PAYLOAD.format("noop", each) for each in range(number, number + CHUNK)))
        if number % BACKLOG == 0:
            wait_until_at_most(lab, worker, BACKLOG)
    wait_until_at_most(lab, worker, 0)


def wait_until_at_most(lab: Lab, worker: Processes, most: int) -> None:
    deadline = time.monotonic() + lab.patience
    while lab.server.client.llen(QUEUE) > most:
        if time.monotonic() > deadline or not worker.is_alive():
            raise TooSlow("the backlog does not shrink")
        time.sleep(0.01)


WORKLOADS = (
    Workload("queued", "memory of the server per queued job", "noop", queued, ("queued_bytes", "bytes"), (1, 1)),
    Workload("soak", "memory of a worker over 5,000,000 jobs", "soak", soak, ("growth_mb", "MB more"), (1, 0)),
)

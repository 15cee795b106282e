"""From enqueueing to the first line of the job, in milliseconds, with the worker idle and at half load; and failures.

A job carries the time at which its push began, so the push is part of it. Jobs are pushed at fixed times by a process
of the peer's own, whether earlier ones have started or not.
"""

from __future__ import annotations

import time

from bench.catalog import Peer
from bench.lab import Lab, Sample
from bench.results import percentiles
from bench.workloads.workload import Workload

IDLE_GAP, HALF_GAP = 8_000, 400
"""Microseconds between two pushes; the second keeps half of 50 slots busy with jobs of 10 ms."""
CALM = 0.5


def idle(lab: Lab, peer: Peer) -> Sample:
    """Also tells how long the worker took from its start to its first job, and what it weighs idle."""
    lab.fresh()
    lab.push(peer, "probe")
    with lab.worker(peer, "noop", 10) as worker:
        ready = lab.marks.wait("ready", lab.patience, worker.is_alive)
        time.sleep(CALM)
        beside = {"start_s": (ready - worker.begun) / 1e9, "idle_mb": worker.rss()}
        count = lab.size(800 if peer.leads else 300)
        lab.push(peer, "stamps", "stamp", str(count), str(IDLE_GAP))
        return percentiles(lab.marks.collect(count, lab.patience, worker.is_alive)) | beside


def half(lab: Lab, peer: Peer) -> Sample:
    lab.fresh()
    lab.push(peer, "probe")
    with lab.worker(peer, "nap", 50) as worker:
        lab.marks.wait("ready", lab.patience, worker.is_alive)
        count = lab.size(2 * 1e6 / HALF_GAP)
        lab.push(peer, "stamps", "stamp_nap", str(count), str(HALF_GAP))
        return percentiles(lab.marks.collect(count, lab.patience, worker.is_alive))


def retry(lab: Lab, peer: Peer) -> Sample:
    """Both runs of every job, the failed and the good one; the rate includes the wait for the second."""
    lab.fresh()
    count = lab.size(min(peer.speed / 2, 2_000))
    lab.push(peer, "flaky", str(count))
    with lab.worker(peer, "noop", 10) as worker:
        return lab.drain(worker, count)


WORKLOADS = (
    Workload("latency-idle", "enqueue to start, idle worker", "latency", idle, ("p50", "ms p50")),
    Workload("latency-half", "enqueue to start, half of 50 slots busy", "half", half, ("p50", "ms p50")),
    Workload(
        "retry", "every job fails once and is retried at the earliest", "retry", retry, ("cpu_us", "us CPU"), (2, 1)
    ),
)

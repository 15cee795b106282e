"""Filled queues, and how a worker empties them: jobs that do nothing, wait, or compute; over a slow network; with AOF.

The queue is filled while no worker runs. A tenth of the jobs comes first, to warm up; then the clocks run from a job at
the head to a job at the tail. At the end of a sample the server must be empty.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from bench import bare, proxy
from bench.catalog import Peer
from bench.lab import Lab, Probe, Sample
from bench.measure import TooSlow
from bench.workloads.workload import Workload

NOOP_SLOTS, IO_SLOTS, MIX_SLOTS = 10, 50, 25
CPU_RATE = 5_000
LEFT_OVER, NOISE = 0.1, 1e6
SETTLED_WITHIN = 10.0


def emptied(
    lab: Lab,
    peer: Peer,
    job: str,
    argument: str,
    count: int,
    slots: int,
    *,
    kind: str = "",
    processes: int = 1,
    probes: Mapping[str, Probe] | None = None,
) -> Sample:
    """Fill a queue, start a worker, and measure until the queue is empty."""
    lab.fresh()
    before = lab.server.used_memory()
    lab.push(peer, "fill", job, str(count), argument)
    filled = lab.server.used_memory() - before
    with lab.worker(peer, kind or job, slots, processes) as worker:
        sample = lab.drain(worker, count, probes)
        if not peer.keeps:
            insist_on_empty(lab, before + LEFT_OVER * filled + NOISE)
    return sample


def insist_on_empty(lab: Lab, most: float) -> None:
    """Raise TooSlow if jobs, or what is kept of them, stay behind: they were skipped, or not acknowledged."""
    deadline = time.monotonic() + SETTLED_WITHIN
    while (used := lab.server.used_memory()) > most:
        if time.monotonic() > deadline:
            raise TooSlow(f"after the last job the server still holds {used / 1e6:.1f} MB")
        time.sleep(0.1)


def drain(lab: Lab, peer: Peer) -> Sample:
    return emptied(lab, peer, "noop", "", lab.size(peer.speed), NOOP_SLOTS)


def drain_aof(lab: Lab, peer: Peer) -> Sample:
    with lab.at(lab.open_server(append_only=True)):
        return drain(lab, peer)


def drain_far(lab: Lab, peer: Peer) -> Sample:
    """A round trip to the server takes 1 ms longer. `proxy_us` tells what the proxy itself needed."""
    with proxy.between(lab.server.port, 1) as between, lab.at(lab.server, between.url):
        count = lab.size(40_000 if peer.is_ours else min(peer.speed / 2, 5_000))
        probes = {"commands": between.commands, "proxy_us": lambda: between.cpu() * 1e6}
        return emptied(lab, peer, "noop", "", count, NOOP_SLOTS, probes=probes)


def commands(lab: Lab, peer: Peer) -> Sample:
    """Through a proxy that adds nothing and counts. The rate is that of the detour, and of no interest."""
    with proxy.between(lab.server.port, 0) as between, lab.at(lab.server, between.url):
        count = lab.size(min(peer.speed, 40_000))
        return emptied(lab, peer, "noop", "", count, NOOP_SLOTS, probes={"commands": between.commands})


def io(lab: Lab, peer: Peer) -> Sample:
    return emptied(lab, peer, "nap", "10", lab.size(min(2 * peer.speed, 5_000)), IO_SLOTS)


def aio(lab: Lab, peer: Peer, slots: int, milliseconds: int) -> Sample:
    ideal = 1000 * slots / milliseconds
    count = lab.size(2 * min(peer.speed, ideal))
    return emptied(lab, peer, peer.coroutine, str(milliseconds), count, slots, kind="anap")


def cpu(lab: Lab, peer: Peer) -> Sample:
    return emptied(lab, peer, "spin", "", lab.size(min(peer.speed, CPU_RATE)), NOOP_SLOTS, processes=2)


def mix(lab: Lab, peer: Peer) -> Sample:
    return emptied(lab, peer, "mix", "", lab.size(min(peer.speed, 3_000)), MIX_SLOTS)


WORKLOADS = (
    Workload("drain", "no-op jobs, one process, concurrency 10", "noop", drain, rounds=(5, 1)),
    Workload(
        "commands", "commands sent per drained no-op job", "noop", commands, ("commands", "per job"), rounds=(1, 1)
    ),
    Workload("drain-1ms", "the drain with 1 ms of network latency, concurrency 10", "noop", drain_far, rounds=(3, 1)),
    Workload("drain-aof", "the drain with an append-only file (everysec)", "noop", drain_aof, rounds=(2, 0)),
    Workload(
        "io",
        "jobs that wait 10 ms, concurrency 50",
        "nap",
        io,
        bare=lambda lab: {"rate": bare.run("threads", 50, 10, lab.size(5_000))},
    ),
    Workload(
        "aio-1000",
        "async jobs that wait 100 ms, concurrency 1,000",
        "anap",
        lambda lab, peer: aio(lab, peer, 1000, 100),
        bare=lambda lab: {"rate": bare.run("tasks", 1000, 100, lab.size(20_000))},
    ),
    Workload(
        "aio-200",
        "async jobs that wait 10 ms, concurrency 200",
        "anap",
        lambda lab, peer: aio(lab, peer, 200, 10),
        bare=lambda lab: {"rate": bare.run("tasks", 200, 10, lab.size(40_000))},
    ),
    Workload(
        "cpu",
        "jobs of about 1 ms of CPU, two processes",
        "spin",
        cpu,
        bare=lambda lab: {"rate": bare.run("spin", 2, lab.size(CPU_RATE))},
    ),
    Workload("mix", "60 % no-op, 30 % wait 10 ms, 10 % compute 1 ms; concurrency 25", "mix", mix, rounds=(1, 1)),
)

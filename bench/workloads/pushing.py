"""Enqueueing: one job after another from one thread or one task, and many at once. The pushing process is measured."""

from __future__ import annotations

from bench.catalog import Peer
from bench.lab import Lab, Sample
from bench.workloads.workload import Workload


def pushed(lab: Lab, peer: Peer, verb: str, count: int) -> Sample:
    """One of the driver's verbs: its own clocks, and the server's between its marks."""
    lab.fresh()
    with lab.pushing(peer, verb, str(count)) as process:
        sample = lab.between_marks(count, lambda: process.poll() in (None, 0), {})
        told = lab.told(verb, process)
    return sample | {"rate": count / told["seconds"], "cpu_us": told["cpu"] / count * 1e6}


def enqueue(lab: Lab, peer: Peer) -> Sample:
    return pushed(lab, peer, "enqueue", lab.size(peer.pushes))


def enqueue_aof(lab: Lab, peer: Peer) -> Sample:
    with lab.at(lab.open_server(append_only=True)):
        return enqueue(lab, peer)


def aenqueue(lab: Lab, peer: Peer) -> Sample:
    return pushed(lab, peer, "aenqueue", lab.size(peer.pushes))


def bulk(lab: Lab, peer: Peer) -> Sample:
    return pushed(lab, peer, "bulk", lab.size(12 * peer.pushes))


WORKLOADS = (
    Workload("enqueue", "one push after another", "enqueue", enqueue, rounds=(5, 1)),
    Workload("enqueue-aof", "the same with an append-only file (everysec)", "enqueue", enqueue_aof, rounds=(2, 0)),
    Workload("aenqueue", "one push after another, awaited", "aenqueue", aenqueue, rounds=(3, 1)),
    Workload("bulk", "1,000 jobs at once", "bulk", bulk, rounds=(3, 1)),
)

"""What is measured, in the order of the page. Each file holds workloads of one kind; a new file needs a line here."""

from __future__ import annotations

from bench.workloads import draining, due, latency, memory, pushing, starting
from bench.workloads.workload import Workload

__all__ = ["ALL", "BY_NAME", "Workload"]

ALL: tuple[Workload, ...] = (
    *draining.WORKLOADS,
    *pushing.WORKLOADS,
    *latency.WORKLOADS,
    *due.WORKLOADS,
    *memory.WORKLOADS,
    *starting.WORKLOADS,
)
BY_NAME = {workload.name: workload for workload in ALL}

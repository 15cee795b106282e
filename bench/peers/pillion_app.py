"""Pillion. At least once: a claim stays in the server until its outcome is in.

Two server middlewares, metrics and statistics are on, as nobody can switch them off; the log is at `warning`, as it is
for every peer. `poll_interval_average` is one second for the retries, as in Sidekiq's file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pillion
from bench.peers import driver, jobs

setup = pillion.configure(driver.URL, poll_interval_average=1.0)


class First:
    """A middleware that does nothing."""

    def __call__(self, _job: object, _payload: dict[str, Any], _queue: str) -> Iterator[None]:
        yield


class Second(First):
    """Another."""


@pillion.configure_server
def add(server: pillion.Setup) -> None:
    server.server_middleware.add(First)
    server.server_middleware.add(Second)


job = pillion.job(queue="bench")
noop = job(jobs.noop)
nap = job(jobs.nap)
anap = job(jobs.anap)
spin = job(jobs.spin)
mark = job(jobs.mark)
stamp = job(jobs.stamp)


@job
def stamp_nap(pushed: int) -> None:
    jobs.stamp(pushed)
    jobs.nap(10)


@pillion.job(queue="bench", retry_in=lambda: 1)
def flaky(number: int, total: int) -> None:
    if jobs.fails_once(number):
        raise jobs.FirstAttempt
    jobs.succeeded(number, total)


JOBS: dict[str, Any] = {
    "noop": noop,
    "nap": nap,
    "anap": anap,
    "spin": spin,
    "mark": mark,
    "stamp": stamp,
    "stamp_nap": stamp_nap,
    "flaky": flaky,
}


def push(name: str, *args: Any) -> None:
    JOBS[name].perform_async(*args)


async def apush(name: str, *args: Any) -> None:
    await JOBS[name].aperform_async(*args)


def bulk(name: str, arguments: list[tuple[Any, ...]]) -> None:
    JOBS[name].perform_bulk(arguments)


def worker(kind: str, concurrency: int, processes: int) -> list[list[str]]:
    queue = "elsewhere" if kind == "promote" else "bench"
    command = [sys.executable, "-m", "pillion", "worker", "bench.peers.pillion_app", "-q", queue]
    command += ["-c", str(concurrency), "--log-level", "warning"]
    return [command if processes == 1 else [*command, "--processes", str(processes)]]


PEER = driver.Peer(push, worker, apush=apush, bulk=bulk)

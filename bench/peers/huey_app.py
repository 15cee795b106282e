"""Huey on Redis. At most once: a task is popped when it is fetched, and lost if its worker dies.

A blocking queue, worker threads as asked for, processes for CPU-bound jobs; no results, no periodic tasks.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from huey import RedisHuey

from bench.peers import driver, jobs

huey = RedisHuey("bench", url=driver.URL, blocking=True, results=False)

noop = huey.task(name="noop")(jobs.noop)
nap = huey.task(name="nap")(jobs.nap)
spin = huey.task(name="spin")(jobs.spin)
mark = huey.task(name="mark")(jobs.mark)
stamp = huey.task(name="stamp")(jobs.stamp)


@huey.task(name="stamp_nap")
def stamp_nap(pushed: int) -> None:
    jobs.stamp(pushed)
    jobs.nap(10)


@huey.task(name="flaky", retries=3, retry_delay=0)
def flaky(number: int, total: int) -> None:
    if jobs.fails_once(number):
        raise jobs.FirstAttempt
    jobs.succeeded(number, total)


TASKS = {"noop": noop, "nap": nap, "spin": spin, "mark": mark, "stamp": stamp, "stamp_nap": stamp_nap, "flaky": flaky}


def push(name: str, *args: Any) -> None:
    TASKS[name](*args)


def worker(kind: str, concurrency: int, processes: int) -> list[list[str]]:
    workers = ["-k", "process", "-w", str(processes)] if kind == "spin" else ["-k", "thread", "-w", str(concurrency)]
    consumer = str(Path(sys.executable).with_name("huey_consumer"))
    return [[consumer, "bench.peers.huey_app.huey", *workers, "-n", "-q"]]


PEER = driver.Peer(push, worker)

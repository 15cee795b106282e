"""SAQ. At least once: a job stands in a list of active ones until it is done; a sweep puts back what got stuck.

Results are off (`ttl=-1`).
"""

from __future__ import annotations

import os
import sys
from typing import Any

from saq import Queue

from bench.peers import driver, jobs

queue = Queue.from_url(driver.URL, name="bench")


async def noop(_ctx: object, *, a: int) -> None:
    jobs.noop(a)


async def nap(_ctx: object, *, a: int) -> None:
    await jobs.anap(a)


async def spin(_ctx: object, *, a: int) -> None:
    jobs.spin(a)


async def mark(_ctx: object, *, a: str) -> None:
    jobs.mark(a)


async def stamp(_ctx: object, *, a: int) -> None:
    jobs.stamp(a)


async def stamp_nap(_ctx: object, *, a: int) -> None:
    jobs.stamp(a)
    await jobs.anap(10)


async def flaky(_ctx: object, *, a: int, b: int) -> None:
    if jobs.fails_once(a):
        raise jobs.FirstAttempt
    jobs.succeeded(a, b)


settings = {
    "queue": queue,
    "functions": [noop, nap, spin, mark, stamp, stamp_nap, flaky],
    "concurrency": int(os.environ.get("BENCH_SLOTS", "10")),
}


async def push(name: str, *args: Any) -> None:
    await queue.enqueue(name, ttl=-1, retries=3 if name == "flaky" else 1, **dict(zip("ab", args, strict=False)))


def worker(_kind: str, concurrency: int, processes: int) -> list[list[str]]:
    os.environ["BENCH_SLOTS"] = str(concurrency)
    return [[sys.executable, "-m", "saq", "bench.peers.saq_app.settings", "--workers", str(processes), "--quiet"]]


PEER = driver.Peer(push, worker, open=queue.connect, close=queue.disconnect)

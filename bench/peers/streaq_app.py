"""streaQ. At least once: a stream entry is acknowledged when its task is done, claimed by others when long idle.

Results are off (`ttl=0`); the default prefetch, which is the concurrency.
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from streaq import StreaqRetry, Worker

from bench.peers import driver, jobs

app: Worker[None] = Worker(
    redis_url=driver.URL, queue_name="bench", concurrency=int(os.environ.get("BENCH_SLOTS", "10"))
)
task = app.task(ttl=0, silent=True)


@task
async def noop(number: int) -> None:
    jobs.noop(number)


@task
async def nap(milliseconds: int) -> None:
    await jobs.anap(milliseconds)


@task
async def spin(number: int) -> None:
    jobs.spin(number)


@task
async def mark(tag: str) -> None:
    jobs.mark(tag)


@task
async def stamp(pushed: int) -> None:
    jobs.stamp(pushed)


@task
async def stamp_nap(pushed: int) -> None:
    jobs.stamp(pushed)
    await jobs.anap(10)


@task
async def flaky(number: int, total: int) -> None:
    if jobs.fails_once(number):
        raise StreaqRetry("first attempt", delay=0)
    jobs.succeeded(number, total)


TASKS: dict[str, Any] = {
    "noop": noop, "nap": nap, "spin": spin, "mark": mark, "stamp": stamp, "stamp_nap": stamp_nap, "flaky": flaky
}  # fmt: skip
stack = AsyncExitStack()


async def connect() -> None:
    await stack.enter_async_context(app)


async def push(name: str, *args: Any) -> None:
    await TASKS[name].enqueue(*args)


async def bulk(name: str, arguments: list[tuple[Any, ...]]) -> None:
    await app.enqueue_many([TASKS[name].enqueue(*each) for each in arguments])


def worker(_kind: str, concurrency: int, processes: int) -> list[list[str]]:
    os.environ["BENCH_SLOTS"] = str(concurrency)
    streaq = str(Path(sys.executable).with_name("streaq"))
    return [[streaq, "run", "bench.peers.streaq_app:app", "--workers", str(processes)]]


PEER = driver.Peer(push, worker, bulk=bulk, open=connect, close=stack.aclose)

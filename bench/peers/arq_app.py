"""arq. At least once: a job stays in the queue until it is done, guarded by a lock that ends with its timeout.

A look every 10 ms, and for jobs that do nothing 100 at once: with its defaults (10 jobs, a look every 0.5 s) it would
start 20 jobs/s per slot, whatever they cost. No results are kept.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from arq import create_pool, func
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Retry

from bench.peers import driver, jobs

SETTINGS = RedisSettings.from_dsn(driver.URL)


async def noop(_ctx: object, number: int) -> None:
    jobs.noop(number)


async def nap(_ctx: object, milliseconds: int) -> None:
    await jobs.anap(milliseconds)


async def spin(_ctx: object, number: int) -> None:
    jobs.spin(number)


async def mark(_ctx: object, tag: str) -> None:
    jobs.mark(tag)


async def stamp(_ctx: object, pushed: int) -> None:
    jobs.stamp(pushed)


async def stamp_nap(_ctx: object, pushed: int) -> None:
    jobs.stamp(pushed)
    await jobs.anap(10)


async def flaky(_ctx: object, number: int, total: int) -> None:
    if jobs.fails_once(number):
        raise Retry
    jobs.succeeded(number, total)


class Settings:
    """What `arq` reads."""

    functions: ClassVar[list[Any]] = [
        func(each, keep_result=0) for each in (noop, nap, spin, mark, stamp, stamp_nap, flaky)
    ]
    redis_settings = SETTINGS
    max_jobs = int(os.environ.get("BENCH_SLOTS", "100"))
    poll_delay = 0.01


pools: list[ArqRedis] = []


async def connect() -> None:
    pools.append(await create_pool(SETTINGS))


async def disconnect() -> None:
    await pools.pop().aclose()


async def push(name: str, *args: Any) -> None:
    await pools[0].enqueue_job(name, *args)


def worker(kind: str, concurrency: int, processes: int) -> list[list[str]]:
    os.environ["BENCH_SLOTS"] = str(100 if kind == "noop" else concurrency)
    arq = str(Path(sys.executable).with_name("arq"))
    return [[arq, "bench.peers.arq_app.Settings"]] * processes


PEER = driver.Peer(push, worker, open=connect, close=disconnect)

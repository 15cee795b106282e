"""Taskiq with taskiq-redis, on a stream. At least once: `RedisStreamBroker` acknowledges when a task is done.

Its list broker loses what a dying worker holds and is no faster here. No result backend.
"""

from __future__ import annotations

import sys
from typing import Any

from taskiq import SimpleRetryMiddleware
from taskiq_redis import RedisStreamBroker

from bench.peers import driver, jobs

broker = RedisStreamBroker(driver.URL, queue_name="bench", consumer_id="0").with_middlewares(SimpleRetryMiddleware())


@broker.task(task_name="noop")
async def noop(number: int) -> None:
    jobs.noop(number)


@broker.task(task_name="nap")
async def nap(milliseconds: int) -> None:
    await jobs.anap(milliseconds)


@broker.task(task_name="spin")
async def spin(number: int) -> None:
    jobs.spin(number)


@broker.task(task_name="mark")
async def mark(tag: str) -> None:
    jobs.mark(tag)


@broker.task(task_name="stamp")
async def stamp(pushed: int) -> None:
    jobs.stamp(pushed)


@broker.task(task_name="stamp_nap")
async def stamp_nap(pushed: int) -> None:
    jobs.stamp(pushed)
    await jobs.anap(10)


@broker.task(task_name="flaky", retry_on_error=True, max_retries=3)
async def flaky(number: int, total: int) -> None:
    if jobs.fails_once(number):
        raise jobs.FirstAttempt
    jobs.succeeded(number, total)


TASKS = {"noop": noop, "nap": nap, "spin": spin, "mark": mark, "stamp": stamp, "stamp_nap": stamp_nap, "flaky": flaky}


async def push(name: str, *args: Any) -> None:
    await TASKS[name].kiq(*args)


def worker(_kind: str, concurrency: int, processes: int) -> list[list[str]]:
    command = [sys.executable, "-m", "taskiq", "worker", "bench.peers.taskiq_app:broker", "--workers", str(processes)]
    return [[*command, "--max-async-tasks", str(concurrency), "--log-level", "WARNING"]]


PEER = driver.Peer(push, worker, open=broker.startup, close=broker.shutdown)

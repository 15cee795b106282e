"""Celery on Redis. At least once: `acks_late`; what is not acknowledged comes back after `visibility_timeout`, an hour.

Threads for everything but CPU-bound jobs, which get the prefork pool, as the documentation advises; the prefetch
multiplier of 64 that it advises for many short jobs; no results; no gossip, mingle or heartbeat, which a benchmark of
one worker does not need.
"""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery

from bench.peers import driver, jobs

app = Celery("bench", broker=driver.URL)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_default_queue="bench",
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
)

noop = app.task(jobs.noop, name="noop")
nap = app.task(jobs.nap, name="nap")
spin = app.task(jobs.spin, name="spin")
mark = app.task(jobs.mark, name="mark")
stamp = app.task(jobs.stamp, name="stamp")


@app.task(name="stamp_nap")
def stamp_nap(pushed: int) -> None:
    jobs.stamp(pushed)
    jobs.nap(10)


@app.task(name="flaky", autoretry_for=(jobs.FirstAttempt,), default_retry_delay=0, max_retries=3)
def flaky(number: int, total: int) -> None:
    if jobs.fails_once(number):
        raise jobs.FirstAttempt
    jobs.succeeded(number, total)


def push(name: str, *args: Any) -> None:
    app.tasks[name].delay(*args)


def worker(kind: str, concurrency: int, processes: int) -> list[list[str]]:
    pool = ["-P", "prefork", "-c", str(processes)] if kind == "spin" else ["-P", "threads", "-c", str(concurrency)]
    command = [sys.executable, "-m", "celery", "-A", "bench.peers.celery_app", "worker", *pool]
    return [[*command, "-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]]


PEER = driver.Peer(push, worker)

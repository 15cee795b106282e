"""Dramatiq on Redis. At least once: unacknowledged messages of a worker without a heartbeat are put back.

Its default middleware. One process of as many threads as asked for, which for CPU-bound jobs becomes as many processes;
a queue prefetch of 1000, which doubles its rate here over the default of two per thread.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers import driver, jobs

os.environ.setdefault("dramatiq_queue_prefetch", "1000")
broker = RedisBroker(url=driver.URL)
dramatiq.set_broker(broker)

actor = partial(dramatiq.actor, queue_name="bench", max_retries=3, min_backoff=1, max_backoff=1)
noop = actor(jobs.noop)
nap = actor(jobs.nap)
spin = actor(jobs.spin)
mark = actor(jobs.mark)
stamp = actor(jobs.stamp)


@actor
def stamp_nap(pushed: int) -> None:
    jobs.stamp(pushed)
    jobs.nap(10)


@actor
def flaky(number: int, total: int) -> None:
    if jobs.fails_once(number):
        raise jobs.FirstAttempt
    jobs.succeeded(number, total)


def push(name: str, *args: Any) -> None:
    broker.get_actor(name).send(*args)


def worker(_kind: str, concurrency: int, processes: int) -> list[list[str]]:
    threads = str(concurrency)
    command = [sys.executable, "-m", "dramatiq", "bench.peers.dramatiq_app", "-p", str(processes), "-t", threads]
    return [command]


PEER = driver.Peer(push, worker)

"""RQ. At least once where a job asks for retries: a dead worker's job fails when it is found abandoned, and is retried.

`SimpleWorker`, which runs jobs in the worker process, as the documentation advises for many short jobs; the default
forks a process per job (some 40 jobs/s here). One job at a time is all that an RQ worker does. Results and the record
of finished jobs are off.
"""

from __future__ import annotations

import sys
from typing import Any

from redis import Redis
from rq import Queue, Retry

from bench.peers import driver, jobs

queue = Queue("bench", connection=Redis.from_url(driver.URL))


def stamp_nap(pushed: int) -> None:
    jobs.stamp(pushed)
    jobs.nap(10)


def flaky(number: int, total: int) -> None:
    if jobs.fails_once(number):
        raise jobs.FirstAttempt
    jobs.succeeded(number, total)


OURS = {"stamp_nap": stamp_nap, "flaky": flaky}
KEEP_NOTHING = {"result_ttl": 0, "failure_ttl": 0}


def push(name: str, *args: Any) -> None:
    retry = Retry(max=3) if name == "flaky" else None
    queue.enqueue(OURS.get(name) or getattr(jobs, name), *args, retry=retry, **KEEP_NOTHING)


def bulk(name: str, arguments: list[tuple[Any, ...]]) -> None:
    body = OURS.get(name) or getattr(jobs, name)
    queue.enqueue_many([Queue.prepare_data(body, args=each, **KEEP_NOTHING) for each in arguments])


def worker(_kind: str, _concurrency: int, processes: int) -> list[list[str]]:
    command = [sys.executable, "-m", "rq.cli", "worker", "bench", "--url", driver.URL, "-w", "rq.SimpleWorker"]
    return [[*command, "--logging_level", "WARNING"]] * processes


PEER = driver.Peer(push, worker, bulk=bulk)

"""How fast one worker process drains no-op jobs: jobs per second, CPU and Redis CPU per job, commands per job.

    python bench/drain.py [-n 100000] [--middleware]

Starts a server of its own on a Unix socket in a temporary folder, fills one queue, lets one worker process with
concurrency 10 drain it, and prints one line per figure. CPU is what the operating system accounts to the worker process
from start to exit, less that of a worker that only starts and stops; Redis CPU is INFO's. Machines are noisy: compare
figures of one run.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

import pillion
from pillion import embedded

CONCURRENCY = 10
PATIENCE = 120.0


@pillion.job
def noop(number: int) -> None:
    """Nothing."""


class Passing:
    """A middleware that does nothing."""

    def __call__(self, _job: object, _payload: dict[str, Any], _queue: str) -> Iterator[None]:
        yield


def serve(url: str, middleware: bool) -> int:
    """Be the worker process."""
    setup = pillion.configure(url, capsules=(pillion.Capsule(concurrency=CONCURRENCY),), log_level="warning")
    for _ in range(2 if middleware else 0):
        setup.server_middleware.add(type("Passing", (Passing,), {}))
    return pillion.Worker(setup).run()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("-n", type=int, default=100_000, help="jobs to drain")
    options.add_argument("--middleware", action="store_true", help="with two server middlewares")
    options.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve:
        raise SystemExit(serve(chosen.serve, chosen.middleware))
    with tempfile.TemporaryDirectory(prefix="pillion-bench-") as folder:
        url = embedded.ensure(Path(folder), create=True, announce=False)
        try:
            measure(url, chosen.n, chosen.middleware)
        finally:
            pillion.configure(url).store.close()
            embedded.release(Path(folder))


def measure(url: str, count: int, middleware: bool) -> None:
    client = redis.Redis.from_url(url, retry=None)
    idle, _ = run_worker(client, url, 0, middleware)
    pillion.configure(url)
    begun = time.perf_counter()
    noop.perform_bulk([(number,) for number in range(count)])
    print(f"bulk enqueue         {count / (time.perf_counter() - begun):12,.0f} jobs/s")
    client.config_resetstat()
    redis_before = redis_cpu(client)
    cpu, seconds = run_worker(client, url, count, middleware)
    commands = sum(
        stats["calls"] for name, stats in client.info("commandstats").items() if name.startswith(("cmdstat_eval",))
    )
    print(f"drain                {count / seconds:12,.0f} jobs/s, concurrency {CONCURRENCY}, one process")
    print(f"worker CPU           {(cpu - idle) / count * 1e6:12.2f} us per job (start and stop: {idle * 1e3:.0f} ms)")
    print(f"Redis CPU            {(redis_cpu(client) - redis_before) / count * 1e6:12.2f} us per job")
    print(f"scripts sent         {commands / count:12.4f} per job")
    client.close()


def run_worker(client: redis.Redis, url: str, count: int, middleware: bool) -> tuple[float, float]:
    """CPU seconds of a worker process from start to exit, and seconds from its first claim to the empty queue."""
    flags = ["--middleware"] if middleware else []
    process = subprocess.Popen([sys.executable, __file__, "--serve", url, *flags])
    started = wait_for(lambda: client.zcard("pillion:lease") == 1, process)
    ended = wait_for(lambda: client.llen("queue:default") == 0 and not held(client), process) if count else started
    process.send_signal(signal.SIGTERM)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"the worker ended with exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime, max(ended - started, 1e-9)


def held(client: redis.Redis) -> bool:
    """Whether an owner still holds a claim."""
    return any(field.isdigit() for name in client.zrange("pillion:lease", 0, -1) for field in index(client, name))


def index(client: redis.Redis, owner: bytes) -> list[bytes]:
    return client.hkeys(b"pillion:inf:" + owner)  # type: ignore[return-value]


def wait_for(done: Any, process: subprocess.Popen[bytes]) -> float:
    """The time at which `done()` became true."""
    deadline = time.perf_counter() + PATIENCE
    while not done():
        if process.poll() is not None or time.perf_counter() > deadline:
            raise SystemExit("the worker ended early, or took too long")
        time.sleep(0.005)
    return time.perf_counter()


def redis_cpu(client: redis.Redis) -> float:
    usage: dict[str, float] = client.info("cpu")
    return usage["used_cpu_user"] + usage["used_cpu_sys"]


if __name__ == "__main__":
    main()

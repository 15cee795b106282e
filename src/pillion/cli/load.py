"""`pillion load -n N`: fill your Redis with jobs that do nothing, run them with a worker in this process, print rates.

It works below a key prefix of its own, so no job, counter or dashboard of yours sees it, and no worker of yours runs
its jobs; nothing of your app is imported. Keys below that prefix are removed before and after. A kill -9 leaves them
(at most N jobs); the next run removes them. Two runs at a time on one server disturb each other, and nothing else.
"""

from __future__ import annotations

import os
import re
import threading
from itertools import count as counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from pillion.cli import say
from pillion.cli.exits import Exit
from pillion.cli.settings import ENVIRONMENT, FILE, use
from pillion.errors import BootError, UsageError

if TYPE_CHECKING:
    from pillion.setup import Setup
    from pillion.shards import Shard
    from pillion.worker import Worker

PREFIX = "pillion-load:"
JOB, QUEUE = "PillionLoad", "load"
LOOK = 0.2
SCAN = 1_000
MANY, FEW = click.IntRange(1, 10_000_000), click.IntRange(1, 1_000)


class Course(NamedTuple):
    """What a stretch of jobs took: how many, seconds, and CPU seconds of this process."""

    jobs: int
    seconds: float
    cpu: float

    def line(self, what: str) -> str:
        """For people: `drained   81,234 jobs/s    9.1 us of CPU per job`."""
        rate = self.jobs / max(self.seconds, 1e-9)
        return f"{what:<8} {rate:>11,.0f} jobs/s {self.cpu / self.jobs * 1e6:>8.1f} us of CPU per job"


@click.command("load")
@click.option("-n", "count", type=MANY, default=100_000, show_default=True, help="Jobs to run.")
@click.option("-c", "--concurrency", type=FEW, default=10, show_default=True, help="Jobs at once.")
@click.option("--yes", is_flag=True, help="Do it in production, too.")
@ENVIRONMENT
@FILE
def command(count: int, concurrency: int, yes: bool, environment: str | None, file: Path | None) -> int:
    """Fill your Redis with jobs that do nothing, run them here, and print the rates.

    Under keys of its own (pillion-load:...), which it removes. A hundred thousand jobs take some 30 MB of the server's
    memory and keep it busy for a second or two.
    """
    from pillion import checks
    from pillion.store.address import describe

    base = use(file=file, environment=environment)
    if base.config.environment == "production" and not yes:
        raise BootError("expected a server that nobody depends on, got the environment production; add --yes to insist")
    setup = apart(base, file, environment)
    checks.insist(checks.shards(setup.shards, setup.config))
    clear(setup)
    try:
        places = ", ".join(describe(shard.store.settings) for shard in setup.shards)
        say.note(f"{count:,} jobs, {concurrency} at once, on Redis at {places}")
        click.echo(fill(setup, count).line("filled"))
        click.echo(drain(setup, count, concurrency).line("drained"))
    finally:
        clear(setup)
    return Exit.DONE


def apart(base: Setup, file: Path | None, environment: str | None) -> Setup:
    """A setup for the same servers with keys and jobs of its own."""
    from pillion.registry import Registry
    from pillion.setup import Setup

    setup = Setup(registry=Registry())
    setup.use_flags({} if environment is None else {"environment": environment}, file)
    config = base.config
    shards = {name: {"prefix": f"{settings.prefix}{PREFIX}"} for name, settings in config.shards}
    return setup.configure({"prefix": f"{config.redis.prefix}{PREFIX}"}, shards=shards or None)


def fill(setup: Setup, count: int) -> Course:
    """Push the jobs, a thousand per round trip."""
    from pillion.client import Client

    clock = setup.config.clock
    begun, cpu = clock.steady(), cpu_seconds()
    Client(setup=setup).push_bulk({"class": JOB, "queue": QUEUE, "args": ([number] for number in range(count))})
    return Course(count, clock.steady() - begun, cpu_seconds() - cpu)


class Finish:
    """The job: it does nothing, and the last of them says so."""

    def __init__(self, setup: Setup, count: int) -> None:
        self._clock = setup.config.clock
        self._left = counter(count - 1, -1)  # counts without a lock
        self._begun = (0.0, 0.0)
        self._count = count
        self.over = threading.Event()
        self.course = Course(count, 0.0, 0.0)

    def __call__(self, _number: int) -> None:
        left = next(self._left)
        if left == self._count - 1:
            self._begun = self._clock.steady(), cpu_seconds()
        if left == 0:
            seconds, cpu = self._begun
            self.course = Course(self._count, self._clock.steady() - seconds, cpu_seconds() - cpu)
            self.over.set()


def drain(setup: Setup, count: int, concurrency: int) -> Course:
    """Run the jobs, from the first to the last. Raises UsageError if somebody took them away meanwhile."""
    import msgspec

    from pillion.config import Capsule
    from pillion.worker import Worker

    finish = Finish(setup, count)
    register(setup, finish)
    capsule = Capsule(concurrency=concurrency, queues=((QUEUE, 0),))  # and no other, whatever is configured
    worker = Worker(setup, msgspec.structs.replace(setup.config, capsules=(capsule,)), embedded=True)
    worker.start()
    try:
        watch(setup, worker, finish)
    finally:
        worker.stop()
    return finish.course


def register(setup: Setup, finish: Finish) -> None:
    from pillion.define import define_function

    def perform(number: int) -> None:
        finish(number)

    setup.registry.register(define_function(perform, JOB, (), {}, {}))


def watch(setup: Setup, worker: Worker, finish: Finish) -> None:
    """Wait for the last job, while there are jobs."""
    while not finish.over.wait(LOOK):
        waiting = any(run(shard, "LLEN", shard.store.keys.queue(QUEUE)) for shard in setup.shards)
        idle = not waiting and all(fetcher.drained for fetcher in worker.fetchers)
        if idle and not finish.over.is_set():
            raise UsageError("expected to run every job, got an empty queue before; run one load test at a time")


def clear(setup: Setup) -> None:
    """Remove every key below our prefixes."""
    for shard in setup.shards:
        pattern = re.sub(r"([*?\[\]\\^])", r"\\\1", shard.settings.prefix) + "*"
        cursor: Any = None
        while cursor != b"0":
            cursor, found = run(shard, "SCAN", cursor or b"0", "MATCH", pattern, "COUNT", SCAN)
            if found:
                run(shard, "UNLINK", *found)


def run(shard: Shard, *words: Any) -> Any:
    from pillion.store.ops import command as plain

    return shard.store.run(plain(*words))


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    used = os.times()
    return used.user + used.system

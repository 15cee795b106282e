"""Runs one peer's verbs in the peer's own interpreter: `python -m bench.peers.driver celery_app enqueue 1000`.

    worker KIND CONCURRENCY PROCESSES   become the worker, or its parent if it takes several commands
    fill JOB N ARGUMENT                 a queue to drain: warm-up jobs, `mark first`, N jobs, `mark last`
    enqueue|aenqueue|bulk N             time N pushes in this process; prints seconds and CPU seconds as JSON
    stamps JOB N MICROSECONDS           push N jobs that tell their latency, one every so often, whatever they take
    flaky N                             `mark first`, then N jobs that fail once
    probe                               push `mark ready`

Standard library only, as it runs in every environment.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from bench.peers import jobs

WARM_UP = 200
BATCH = 1000
URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")


@dataclass(frozen=True)
class Peer:
    """What a peer's file says about itself.

    Attributes:
        push: push one job by its name in `jobs`: push("noop", 1). A coroutine function if that is all the peer has.
        worker: the command line for (kind, concurrency, processes); several commands if one cannot start several.
        apush: the same for asyncio callers, where the peer has both.
        bulk: push many jobs of one name, given a list of argument tuples, where the peer has a way to.
        open, close: around everything an event loop does with the peer.
    """

    push: Callable[..., Any]
    worker: Callable[[str, int, int], list[list[str]]]
    apush: Callable[..., Awaitable[Any]] | None = None
    bulk: Callable[[str, list[tuple[Any, ...]]], Any] | None = None
    open: Callable[[], Awaitable[Any]] | None = None
    close: Callable[[], Awaitable[Any]] | None = None


async def call(fn: Callable[..., Any], *args: Any) -> None:
    """Call a function of either colour."""
    answer = fn(*args)
    if inspect.isawaitable(answer):
        await answer


async def many(peer: Peer, job: str, arguments: list[tuple[Any, ...]]) -> None:
    """Push many jobs by the quickest way the peer has."""
    if peer.bulk is not None:
        for start in range(0, len(arguments), BATCH):
            await call(peer.bulk, job, arguments[start : start + BATCH])
        return
    for each in arguments:
        await call(peer.push, job, *each)


async def fill(peer: Peer, job: str, count: str, argument: str) -> None:
    given = [(int(argument) if argument else number,) for number in range(int(count))]
    await many(peer, "noop" if job == "mix" else job, given[: max(WARM_UP, len(given) // 10)])
    await call(peer.push, "mark", "first")
    if job == "mix":
        await mix(peer, len(given))
    else:
        await many(peer, job, given)
    await call(peer.push, "mark", "last")


async def mix(peer: Peer, count: int) -> None:
    """Of 20 jobs 12 do nothing, 6 wait 10 ms and 2 keep a core busy for about 1 ms."""
    for _ in range(0, count, 20):
        for job, times, argument in (("noop", 12, 0), ("nap", 6, 10), ("spin", 2, 0)):
            await many(peer, job, [(argument,)] * times)


async def enqueue(peer: Peer, count: str) -> None:
    await timed(int(count), peer.push)


async def aenqueue(peer: Peer, count: str) -> None:
    await timed(int(count), peer.apush or peer.push)


async def timed(count: int, push: Callable[..., Any]) -> None:
    """Time pushes one by one, each awaited before the next. A sync push pays for no `await`."""
    waits = inspect.iscoroutinefunction(push)
    for number in range(WARM_UP):
        await call(push, "noop", number)
    with Stopwatch(count):
        if waits:
            for number in range(count):
                await push("noop", number)
        else:
            for number in range(count):
                push("noop", number)


async def bulk(peer: Peer, count: str) -> None:
    given = [(number,) for number in range(int(count))]
    await many(peer, "noop", given[:BATCH])
    with Stopwatch(len(given)):
        await many(peer, "noop", given)


class Stopwatch:
    """Marks begin and end for the harness, and prints the seconds and CPU seconds between."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> None:
        jobs.mark("first")
        self.begun = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        wall, cpu = self.begun
        figures = {"count": self.count, "seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        jobs.mark("last")
        print(json.dumps(figures), flush=True)


async def stamps(peer: Peer, job: str, count: str, microseconds: str) -> None:
    """Pushes at fixed times: a push that is late does not delay the time of the next."""
    push, gap = peer.push, int(microseconds) / 1e6
    for _ in range(5):
        await call(push, "noop", 0)
    due = time.perf_counter() + 0.05
    for _ in range(int(count)):
        sleep_until(due)
        await call(push, job, time.time_ns())
        due += gap


def sleep_until(due: float) -> None:
    """Blocking, and closer than an event loop's timers."""
    while (left := due - time.perf_counter()) > 0:
        time.sleep(left)


async def flaky(peer: Peer, count: str) -> None:
    await many(peer, "noop", [(number,) for number in range(WARM_UP)])
    await call(peer.push, "mark", "first")
    for number in range(int(count)):
        await call(peer.push, "flaky", number, int(count))


async def probe(peer: Peer) -> None:
    await call(peer.push, "mark", "ready")


VERBS: dict[str, Callable[..., Awaitable[None]]] = {
    each.__name__: each for each in (fill, enqueue, aenqueue, bulk, stamps, flaky, probe)
}


def worker(commands: Sequence[list[str]]) -> None:
    """Become the worker; with several commands, their parent, which passes TERM on and waits."""
    if len(commands) == 1:
        os.execvp(commands[0][0], commands[0])
    children = [subprocess.Popen(command) for command in commands]

    def stop(*_: object) -> None:
        for child in children:
            child.terminate()

    signal.signal(signal.SIGTERM, stop)
    for child in children:
        child.wait()


async def run(peer: Peer, verb: str, words: list[str]) -> None:
    if peer.open is not None:
        await peer.open()
    await VERBS[verb](peer, *words)
    if peer.close is not None:
        await peer.close()


def main() -> None:
    name, verb, *words = sys.argv[1:]
    peer: Peer = import_module(f"bench.peers.{name}").PEER
    if verb == "worker":
        kind, concurrency, processes = words
        worker(peer.worker(kind, int(concurrency), int(processes)))
    else:
        asyncio.run(run(peer, verb, words))


if __name__ == "__main__":
    main()

"""What a plain Python program does with the same work and no job system: the bound that the figures compare with.

    python -m bench.bare threads SLOTS MILLISECONDS N      N sleeps over so many threads
    python -m bench.bare tasks SLOTS MILLISECONDS N        N sleeps over so many asyncio tasks
    python -m bench.bare spin PROCESSES N                  N CPU-bound jobs over so many processes

Prints seconds as JSON, without the start of threads, tasks and processes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

from bench import ROOT
from bench.peers import jobs


def run(*words: object) -> float:
    """Run one of the verbs in a process of its own; returns its rate in jobs/s."""
    command = [sys.executable, "-m", "bench.bare", *map(str, words)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return float(json.loads(out)["rate"])


def threads(slots: int, milliseconds: int, count: int) -> float:
    work = iter(range(count))
    gate = threading.Barrier(slots + 1)

    def serve() -> None:
        gate.wait()
        for _ in work:
            jobs.nap(milliseconds)

    crew = [threading.Thread(target=serve) for _ in range(slots)]
    for each in crew:
        each.start()
    gate.wait()
    begun = time.perf_counter()
    for each in crew:
        each.join()
    return time.perf_counter() - begun


def tasks(slots: int, milliseconds: int, count: int) -> float:
    async def serve(work: Iterator[int]) -> None:
        for _ in work:
            await jobs.anap(milliseconds)

    async def main() -> float:
        work = iter(range(count))
        begun = time.perf_counter()
        await asyncio.gather(*(serve(work) for _ in range(slots)))
        return time.perf_counter() - begun

    return asyncio.run(main())


def spin(processes: int, count: int) -> float:
    """Each process says when it is ready, and begins when told."""
    words = [sys.executable, "-m", "bench.bare", "share", str(count // processes)]
    pipe = subprocess.PIPE
    crew = [subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) for _ in range(processes)]
    for each in crew:
        assert each.stdout is not None
        each.stdout.readline()
    begun = time.perf_counter()
    for each in crew:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in crew:
        assert each.stdout is not None
        each.stdout.readline()
    seconds = time.perf_counter() - begun
    for each in crew:
        each.communicate()
    return seconds


def share(count: int) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        jobs.spin(number)
    print("done", flush=True)


def main() -> None:
    verb, *numbers = sys.argv[1], *map(int, sys.argv[2:])
    if verb == "share":
        share(*numbers)
        return
    verbs: dict[str, Callable[..., float]] = {"threads": threads, "tasks": tasks, "spin": spin}
    seconds = verbs[verb](*numbers)
    print(json.dumps({"rate": numbers[-1] / seconds}))


if __name__ == "__main__":
    main()

"""A part of the fleet: many real workers in one process, each with its own identity, lease and connections.

    python -m bench.fleet_part URL WORKERS QUEUES

Each worker has what `pillion worker` has: fetcher, executor, heartbeat, poller, reaper, watchdog, announcer. Only the
job is not anybody's code: it notes how long it stood in its queue, and waits. Says `ready` when all have started; a
line on stdin is answered with what was noted since the last. Ends with its stdin.
"""

from __future__ import annotations

import json
import os
import sys
import time

import pillion
from pillion.config import Capsule
from pillion.setup import Setup
from pillion.worker import Worker
from pillion.worker import identity as identities

CONCURRENCY = 2
APART = 0.01

waited: list[float] = []


@pillion.job(name="nap")
def nap(pushed: float, seconds: float) -> None:
    """Stands for a job: notes for how long it stood in its queue (ms), and waits."""
    waited.append((time.time() - pushed) * 1000)
    time.sleep(seconds)


def worker(url: str, queues: int) -> Worker:
    """A worker that stands for a process of its own: nothing that the server sees is shared with another."""
    identities._nonce.cache_clear()
    capsule = Capsule(concurrency=CONCURRENCY, queues=tuple((f"q{number}", 0) for number in range(queues)))
    return Worker(Setup(url, capsules=(capsule,), log_level="error"), embedded=True)


def main() -> None:
    url, count, queues = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sys.setswitchinterval(0.2)  # hundreds of threads that ask for Python's lock 200 times a second get nowhere
    for _ in range(count):
        worker(url, queues).start()
        time.sleep(APART)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps([waited.pop() for _ in range(len(waited))]), flush=True)
    os._exit(0)  # as a fleet that is killed: nobody waits for a thousand workers to say good-bye


if __name__ == "__main__":
    main()

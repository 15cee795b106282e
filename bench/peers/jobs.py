"""The bodies of the jobs that every Python peer runs, and the line to the harness. Standard library only.

A peer's file wraps these seven functions in its own decorator and adds nothing. The Ruby twin is `sidekiq_app.rb`.
`mark` stands first and last in a queue that is to be drained: it tells the harness when to read its clocks, from
inside a running job, so nobody's boot is measured.
"""

from __future__ import annotations

import asyncio
import os
import time
from itertools import count

ROUNDS = 25_000
"""What `spin` does: about 1 ms of Python here."""

_seen: set[int] = set()
_done = count(1)  # counts without a lock
_line: list[int] = []


def noop(_number: int) -> None:
    """Nothing."""


def nap(milliseconds: int) -> None:
    """Wait as for another service, in a thread."""
    time.sleep(milliseconds / 1000)


async def anap(milliseconds: int) -> None:
    """Wait as for another service, on an event loop."""
    await asyncio.sleep(milliseconds / 1000)


def spin(_number: int) -> None:
    """Keep a core busy."""
    total = 0
    for each in range(ROUNDS):
        total += each


def fails_once(number: int) -> bool:
    """Whether job `number` is to fail now: True the first time it runs in this process."""
    if number in _seen:
        return False
    _seen.add(number)
    return True


class FirstAttempt(Exception):
    """The failure of `flaky`."""


def succeeded(number: int, total: int) -> None:
    """Count a `flaky` job that went well; the last of `total` marks the end."""
    _seen.discard(number)
    if next(_done) == total:
        mark("last")


def stamp(pushed: int) -> None:
    """Tell how long it took from push (ns since 1970) to here."""
    _write(f"lat {(time.time_ns() - pushed) / 1e6:.4f}")


def mark(tag: str) -> None:
    """Tell the harness that the job `tag` runs now."""
    _write(f"{tag} {time.time_ns()}")


def _write(text: str) -> None:
    if not _line:
        _line.append(os.open(os.environ["BENCH_MARKS"], os.O_WRONLY))
    os.write(_line[0], f"{text}\n".encode())

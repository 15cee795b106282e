"""A producer of the soak: `python -m tests.crash.soak.producer sync|async`, until TERM.

It pushes at a steady rate with exponential pauses, whatever becomes of the jobs, and notes what became of the pushes.
The sync one first pushes the jobs that are to run later.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any

from pillion import Client
from pillion.errors import MaybeEnqueued, PartlyEnqueued, PoolTimeout, Refused, Unavailable
from tests.crash.soak import journal
from tests.crash.soak.app import SoakAsync, SoakFan, SoakFlaky, SoakSleep, pushes, setup

SIZES = (1, 1, 1, 1, 5)
LATER = 500
MIX: tuple[tuple[float, Any, tuple[float, float], tuple[str, ...]], ...] = (
    (0.30, SoakSleep, (10, 100), ("critical", "default")),
    (0.22, SoakSleep, (100, 200), ("default", "mixed")),
    (0.23, SoakAsync, (50, 200), ("aio", "mixed")),
    (0.10, SoakSleep, (500, 1500), ("low",)),
    (0.10, SoakAsync, (500, 1500), ("aio",)),
    (0.03, SoakFlaky, (10, 100), ("default",)),
    (0.02, SoakFan, (10, 50), ("default",)),
)
"""Share, job, milliseconds, queues."""


class Producer:
    """`rate` is in jobs per second."""

    def __init__(self, *, use_asyncio: bool, rate: float, later: int, later_seconds: float, seed: str) -> None:
        self._asyncio = use_asyncio
        self._pause = sum(SIZES) / len(SIZES) / rate
        self._later, self._later_seconds = later, later_seconds
        self._rng = random.Random(seed)
        self._client = Client(setup=setup)
        self._over = threading.Event()

    def run(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self._over.set())
        if self._asyncio:
            asyncio.run(self._work())
        else:
            finish(self._work())

    async def _work(self) -> None:
        if not self._asyncio:
            await self._push_later()
        due = journal.now()
        while not self._over.is_set():
            await self._push_some()
            due = max(due + self._rng.expovariate(1 / self._pause), journal.now() - 2)
            await self._sleep(due - journal.now())

    async def _push_later(self) -> None:
        """Jobs for moments that are spread evenly over the run."""
        for start in range(0, self._later, LATER):
            number = min(LATER, self._later - start)
            at = [time.time() + self._rng.uniform(1, self._later_seconds) for _ in range(number)]
            args = [[self._rng.uniform(10, 100), None] for _ in range(number)]
            await self._push({"class": SoakSleep, "args": args, "at": at, "queue": "low"}, number)

    async def _push_some(self) -> None:
        _, job, span, queues = self._rng.choices(MIX, [share for share, *_ in MIX])[0]
        size = self._rng.choice(SIZES)
        born = journal.now()
        args = [[self._rng.uniform(*span), born] for _ in range(size)]
        await self._push({"class": job, "args": args, "queue": self._rng.choice(queues)}, size)

    async def _push(self, item: dict[str, Any], size: int) -> None:
        try:
            jids = await self._client.apush_bulk(item) if self._asyncio else self._client.push_bulk(item)
            self._note("accepted", jids)
        except MaybeEnqueued as maybe:
            self._note("accepted", maybe.confirmed)
            self._note("maybe", maybe.unknown)
        except PartlyEnqueued as partly:
            self._note("accepted", partly.confirmed)
        except (Unavailable, PoolTimeout, Refused) as error:
            pushes.note("refused", size, type(error).__name__)
            await self._sleep(0.05)

    def _note(self, what: str, jids: Any) -> None:
        if jids:
            pushes.note(what, *jids)

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        if self._asyncio:
            await asyncio.sleep(seconds)
        else:
            self._over.wait(seconds)


def finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that awaits nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("the coroutine waits for something")


if __name__ == "__main__":
    plan = json.loads(os.environ["SOAK"])["producers"]
    seed = f"{plan.pop('seed')} {sys.argv[1]}"
    Producer(use_asyncio=sys.argv[1] == "async", seed=seed, **plan).run()

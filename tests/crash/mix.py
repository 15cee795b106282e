"""The job mix of the chaos bed: fast and slow, raising, snoozing, greedy, deaf, fanning out, and deadly.

A supervisor's zygote imports this module as its app; the ledger's path then stands in the environment. Whether a job
was run before is remembered by a file beside the ledger.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from pathlib import Path
from random import Random
from typing import Any

import pillion
from pillion import Client
from pillion.config import random_jids
from pillion.errors import MaybeEnqueued, StoreError
from pillion.events import JobRescued, LeaseLost
from pillion.setup import Setup
from tests.crash import pills, sabotage
from tests.crash.app import Quick, QuickAsync, been_here, ledger, noted, open_ledger

PILLS = pills.WAYS
LEDGER = "CRASH_LEDGER"
_clients: list[Client] = []
CHILDREN = 4
SNOOZE = 0.15


def once(count: int, error: BaseException, job: object) -> int:
    """The shortest delay of a retry."""
    return 1


class MixFlaky(pillion.Job, retry=5, retry_in=once):
    """Fails the first time and succeeds as a retry."""

    def perform(self, ms: float) -> None:
        with noted() as run:
            time.sleep(ms / 1000)
            if run.attempt == 1:
                raise ConnectionError("the first attempt fails")


class MixFlakyAsync(pillion.Job, retry=5, retry_in=once):
    """The same on the event loop."""

    async def perform(self, ms: float) -> None:
        with noted() as run:
            await asyncio.sleep(ms / 1000)
            if run.attempt == 1:
                raise ConnectionError("the first attempt fails")


class MixSnoozes(pillion.Job):
    """Asks to be run later, the first time."""

    def perform(self, ms: float) -> Any:
        with noted() as run:
            time.sleep(ms / 1000)
            if been_here(run.jid):
                return None
            run.word = "later"
            return pillion.snooze(SNOOZE)


class MixGreedy(pillion.Job):
    """Holds the interpreter for all the time it takes; it takes no CPU."""

    def perform(self, ms: float) -> None:
        with noted():
            ctypes.PyDLL(None).usleep(int(ms * 1000))


class MixDeaf(pillion.Job):
    """Goes on though it is told to stop."""

    def perform(self, ms: float) -> None:
        deadline = time.monotonic() + ms / 1000
        with noted():
            while time.monotonic() < deadline:
                try:
                    time.sleep(0.01)
                except BaseException:
                    continue


class MixDeafAsync(pillion.Job):
    """The same on the event loop."""

    async def perform(self, ms: float) -> None:
        deadline = time.monotonic() + ms / 1000
        with noted():
            while time.monotonic() < deadline:
                try:
                    await asyncio.sleep(0.01)
                except BaseException:
                    continue


class MixFan(pillion.Job):
    """Pushes others, and writes into the ledger what it was told of each."""

    def perform(self, ms: float) -> None:
        with noted():
            jids = random_jids(CHILDREN)
            for jid in jids:
                ledger().note("tried", jid)
            try:
                for jid in jids:
                    _clients[0].push({"class": Quick, "args": [ms], "jid": jid})
                    ledger().note("pushed", jid)
            except (MaybeEnqueued, StoreError):
                return


class MixDeadly(pillion.Job):
    """Ends its process the first time."""

    def perform(self, ms: float) -> None:
        with noted() as run:
            time.sleep(ms / 1000)
            if not been_here(run.jid):
                ledger().note_run("deadly", run.job)
                os._exit(1)


THREADS = (
    (Quick, (2, 60), 56),
    (Quick, (100, 400), 12),
    (MixFlaky, (0, 20), 6),
    (MixSnoozes, (0, 20), 6),
    (MixGreedy, (50, 250), 2),
    (MixDeaf, (100, 300), 4),
    (MixFan, (0, 10), 5),
    (QuickAsync, (0, 15), 5),
)
ASYNC = (
    (QuickAsync, (2, 60), 56),
    (QuickAsync, (100, 400), 12),
    (MixFlakyAsync, (0, 20), 6),
    (MixSnoozes, (0, 20), 6),
    (MixGreedy, (50, 250), 2),
    (MixDeafAsync, (100, 300), 4),
    (MixFan, (0, 10), 5),
    (Quick, (0, 15), 5),
)


def draw(rng: Random, kind: str) -> tuple[type[pillion.Job], float]:
    """A job class of the mix and how many milliseconds it is to take."""
    rows = ASYNC if kind == "async" else THREADS
    [(job, times, _)] = rng.choices(rows, [weight for *_, weight in rows])
    return job, round(rng.uniform(*times), 2)


def watch(setup: Setup) -> None:
    """Write into the ledger what happens to the leases of this process; jobs that push use this setup."""
    _clients[:] = [Client(setup=setup)]
    setup.events.subscribe(LeaseLost, lambda lost: ledger().note("lost", owner=lost.owner, n=lost.running))
    setup.events.subscribe(JobRescued, lambda saved: ledger().note("rescued", saved.jid or "-", saved.owner))


if LEDGER in os.environ:
    sabotage.apply_asked()
    open_ledger(Path(os.environ[LEDGER]))
    pillion.configure_server(watch)

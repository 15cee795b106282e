"""The jobs of the killing tests. Each run is noted in the ledger before anything else and after everything else.

`open_ledger` is called first, by a worker's process (`host.py`) or by a test that runs a worker in its own. The jobs of
the chaos bed stand in `mix.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pillion
from pillion import RunningJob
from tests.crash.ledger import Ledger

LOOK = 0.005
PATIENCE = 0.3
FIRST_RUN = 10.0

_ledger: Ledger | None = None
_running: set[tuple[str, int]] = set()


class Run:
    """A run that is being noted. `word` is the fact that its good end is noted as."""

    def __init__(self, job: RunningJob) -> None:
        self.job = job
        self.jid, self.token, self.attempt = job.jid, job.token, job.attempt
        self.word = "end"


def open_ledger(path: Path) -> Ledger:
    """Note the runs of this process in the file at `path`."""
    global _ledger
    _ledger = Ledger(path)
    return _ledger


def ledger() -> Ledger:
    """The ledger of this process."""
    assert _ledger is not None, "open_ledger was not called"
    return _ledger


def running() -> int:
    """How many jobs run in this process just now."""
    return len(_running)


@contextmanager
def noted() -> Iterator[Run]:
    """A run, from its first moment to its last."""
    job = pillion.current_job()
    assert job is not None
    run = Run(job)
    ledger().note_run("start", job)
    _running.add(run.token)
    try:
        yield run
    except BaseException:
        ledger().note_run("fail", job)
        raise
    else:
        ledger().note_run(run.word, job)
    finally:
        _running.discard(run.token)


class Quick(pillion.Job):
    """Takes some milliseconds."""

    def perform(self, ms: float) -> None:
        with noted():
            time.sleep(ms / 1000)


class QuickAsync(pillion.Job):
    """The same on the event loop."""

    async def perform(self, ms: float) -> None:
        with noted():
            await asyncio.sleep(ms / 1000)


class Neighbour(pillion.Job):
    """Takes ten seconds, unless it was run before: then no time at all. `folder` remembers."""

    def perform(self, folder: str) -> None:
        with noted() as run:
            if not _been_here(folder, run.jid):
                time.sleep(FIRST_RUN)


class NeighbourAsync(pillion.Job):
    """The same on the event loop."""

    async def perform(self, folder: str) -> None:
        with noted() as run:
            if not _been_here(folder, run.jid):
                await asyncio.sleep(FIRST_RUN)


class Pill(pillion.Job):
    """Ends its process from within: first by the exit that skips all cleaning up, later by SIGKILL.

    In its first run it waits until `company` other jobs run beside it, in later ones for a moment to see whether any
    comes. It notes which it was.
    """

    def perform(self, company: int, folder: str) -> None:
        with noted() as run:
            again = _been_here(folder, run.jid)
            patience = PATIENCE if again else FIRST_RUN / 2
            deadline = time.monotonic() + patience
            while running() - 1 < company and time.monotonic() < deadline:
                time.sleep(LOOK)
            ledger().note_run("beside" if running() > 1 else "alone", run.job)
            if not again:
                os._exit(1)
            os.kill(os.getpid(), signal.SIGKILL)


def _been_here(folder: str, jid: str) -> bool:
    """Whether a job asks for the second time."""
    mark = Path(folder, f"been-{jid}")
    if mark.exists():
        return True
    mark.touch()
    return False


def been_here(jid: str) -> bool:
    """The same, remembered beside the ledger."""
    return _been_here(str(ledger().path.parent), jid)


class Held(pillion.Job, retry=5):
    """Runs until the file `<folder>/go-<pid>` stands; raises then where `fails` names this process."""

    def perform(self, folder: str, fails: int = 0) -> None:
        go = Path(folder, f"go-{os.getpid()}")
        with noted():
            while not go.exists():
                time.sleep(LOOK)
            if fails == os.getpid():
                raise ConnectionError("this process fails it")


class HeldAsync(pillion.Job, retry=5):
    """The same on the event loop."""

    async def perform(self, folder: str, fails: int = 0) -> None:
        go = Path(folder, f"go-{os.getpid()}")
        with noted():
            while not go.exists():  # noqa: ASYNC110, ASYNC240 - another process makes the file
                await asyncio.sleep(LOOK)
            if fails == os.getpid():
                raise ConnectionError("this process fails it")

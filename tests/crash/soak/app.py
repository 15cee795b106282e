"""The jobs of the soak, as `pillion worker tests.crash.soak.app` imports them.

SOAK in the environment names the folder and the options. Every run is noted before anything else and after everything
else; some seconds apart each process also notes how many blocks of memory and how many asyncio tasks it has.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pillion
from pillion.errors import MaybeEnqueued, PoolTimeout, Refused, Unavailable
from pillion.events import JobRescued, LeaseLost
from tests.crash.soak import journal

VITALS_EVERY = 5.0

_given: dict[str, Any] = json.loads(os.environ["SOAK"])
_names = (journal.RUNS, journal.PUSHES, journal.FAULTS, journal.VITALS)
_runs, pushes, _faults, _vitals = (journal.Journal(Path(_given["folder"], name)) for name in _names)
_next = {"blocks": 0.0, "tasks": 0.0}

setup = pillion.configure(**_given["options"])
setup.events.subscribe(LeaseLost, lambda lost: _faults.note("lease-lost", os.getpid(), lost.owner, lost.running))
setup.events.subscribe(JobRescued, lambda saved: _faults.note("rescued", os.getpid(), saved.jid, saved.owner))


@contextmanager
def noted(born: float | None = None) -> Iterator[None]:
    """A run, from its first moment to its last. `born` is when the job was pushed, None where it was to wait."""
    run = pillion.current_job()
    assert run is not None
    who = (run.jid, run.attempt, os.getpid())
    lag = "-" if born is None or run.attempt > 1 else f"{journal.now() - born:.6f}"
    _runs.note("start", *who, lag)
    try:
        yield
    except BaseException:
        _runs.note("fail", *who)
        raise
    else:
        _runs.note("end", *who)
    note_vital("blocks", sys.getallocatedblocks)


def note_vital(name: str, measure: Any) -> None:
    """Note a figure of this process, if that was not done just now."""
    at = time.monotonic()
    if at >= _next[name]:
        _next[name] = at + VITALS_EVERY
        _vitals.note(name, os.getpid(), measure())


class SoakSleep(pillion.Job):
    """Waits, as for a slow service."""

    def perform(self, ms: float, born: float | None) -> None:
        with noted(born):
            time.sleep(ms / 1000)


class SoakAsync(pillion.Job):
    """The same on the event loop."""

    async def perform(self, ms: float, born: float | None) -> None:
        with noted(born):
            await asyncio.sleep(ms / 1000)
            note_vital("tasks", lambda: len(asyncio.all_tasks()))


class SoakFlaky(pillion.Job, retry=5):
    """Fails the first time and succeeds as a retry."""

    @staticmethod
    def retry_in(count: int, error: BaseException, job: object) -> int:
        return 2

    def perform(self, ms: float, born: float | None) -> None:
        with noted(born):
            time.sleep(ms / 1000)
            run = pillion.current_job()
            assert run is not None
            if run.attempt == 1:
                raise ConnectionError("the first attempt fails")


class SoakFan(pillion.Job):
    """Pushes five others."""

    def perform(self, ms: float, born: float | None) -> None:
        with noted(born):
            for _ in range(5):
                _push_child(ms)


def _push_child(ms: float) -> None:
    jid = setup.config.new_jid()
    pushes.note("maybe", jid)
    item = {"class": SoakSleep, "args": [ms, journal.now()], "jid": jid, "queue": "low"}
    try:
        pillion.Client(setup=setup).push(item)
    except (MaybeEnqueued, Unavailable, PoolTimeout, Refused):
        return
    pushes.note("accepted", jid)

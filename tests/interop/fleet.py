"""The Python half of the mixed fleet: `pillion worker fleet.py`. It notes its runs in the file FLEET_LEDGER names."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pillion
from pillion.events import JobRescued, LeaseLost
from tests.crash.ledger import Ledger

ledger = Ledger(Path(os.environ["FLEET_LEDGER"]))


def work(milliseconds: float) -> None:
    """Take some time, and note when it began and when it was over."""
    run = pillion.current_job()
    assert run is not None
    ledger.note_run("start", run)
    time.sleep(milliseconds / 1000)
    ledger.note_run("end", run)


class Steady(pillion.Job):
    def perform(self, milliseconds: float) -> None:
        work(milliseconds)


class OnlyPython(pillion.Job):
    def perform(self, milliseconds: float) -> None:
        work(milliseconds)


@pillion.configure_server
def tell_of_leases(setup: pillion.Setup) -> None:
    setup.events.subscribe(LeaseLost, lambda lost: ledger.note("lost", owner=lost.owner, n=lost.running))
    setup.events.subscribe(JobRescued, lambda saved: ledger.note("rescued", saved.jid or "-", saved.owner))

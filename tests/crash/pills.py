"""A job that kills its process whenever it runs, in one of many ways; it notes itself as `deadly` before.

Imported by `mix.py`, so that every worker of the chaos bed knows them.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time

import pillion
from tests.crash.app import ledger, noted

WAYS = ("exit", "kill", "segfault", "abort", "stack")
"""`kill` is what the kernel does where memory is out."""

COMPANY = 0.02
DEEP = 300_000


class MixPill(pillion.Job):
    """Ends its process in one of the `WAYS`, after a moment in company."""

    def perform(self, way: str) -> None:
        with noted() as run:
            time.sleep(COMPANY)
            ledger().note_run("deadly", run.job)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            die(way)


def die(way: str) -> None:
    """Do not return."""
    if way == "exit":
        os._exit(1)
    elif way == "segfault":
        ctypes.string_at(0)
    elif way == "abort":
        os.abort()
    elif way == "stack":
        sys.setrecursionlimit(1 << 30)
        overflow([])
    os.kill(os.getpid(), signal.SIGKILL)


def overflow(nest: list[object]) -> None:
    """Let C code recurse deeper than the stack is."""
    for _ in range(DEEP):
        nest = [nest]
    repr(nest)

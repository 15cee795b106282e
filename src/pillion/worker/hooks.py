"""Calls what the application handed in: error handlers, death handlers, and functions for moments of a worker's life.

They may be plain functions or coroutine functions. The latter run on the worker's event loop, beside its async jobs,
while the calling thread waits for them, at most `PATIENCE` seconds (as long as it takes during `startup`). What raises
is logged and skipped, except in `startup`, where it ends the boot."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable

from pillion.setup import Lifecycle, Setup
from pillion.worker.loop import LoopThread

log = logging.getLogger("pillion")

PATIENCE = 10.0
REPEATED = ("heartbeat", "beat")


class Hooks:
    """The application's functions for one worker. Each moment of its life but `heartbeat` and `beat` comes once."""

    def __init__(self, setup: Setup, loop: LoopThread) -> None:
        self._setup = setup
        self._loop = loop
        self._fired: set[Lifecycle] = set()

    def startup(self) -> None:
        """Call the functions for `startup`, in order. What one raises passes through, and the rest is not called."""
        for fn in self._due("startup"):
            self._call(fn, patience=None)

    def fire(self, event: Lifecycle) -> None:
        """Call the functions for a moment."""
        for fn in self._due(event):
            self.attempt(f"a function for {event}", fn)

    def attempt(self, what: str, fn: Callable[..., object], *args: object) -> None:
        """Call one function; what it raises is logged."""
        try:
            self._call(fn, *args, patience=PATIENCE)
        except (Exception, SystemExit):
            log.exception("%s raised and is skipped: %r", what, fn)

    def _due(self, event: Lifecycle) -> list[Callable[[], object]]:
        if event in self._fired:
            return []
        if event not in REPEATED:
            self._fired.add(event)
        return self._setup.lifecycle(event)

    def _call(self, fn: Callable[..., object], *args: object, patience: float | None) -> None:
        answer = fn(*args)
        if inspect.isawaitable(answer):
            self._loop.run(answer, patience)

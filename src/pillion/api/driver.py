"""Driving operations to their end: `drive` for a command that waits, `Operator` for a process that serves pages.

Both only call `Operations.advance`; any number of them may run. One that dies leaves its operation to the next, once
its lease is over (20 s)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pillion.api.operation import Operation
from pillion.api.operations import Operations
from pillion.client import Client
from pillion.errors import PillionError, StoreError, UsageError
from pillion.store import operations

log = logging.getLogger("pillion")

SLICE = 0.5
IDLE = 1.0
SHORTEST = 0.02


def drive(
    operation: str, client: Client | None = None, on_progress: Callable[[Operation], None] | None = None
) -> Operation:
    """Go on with an operation until it is over or paused; `on_progress` is called about every half second.

    KeyboardInterrupt, or whatever `on_progress` raises, ends the driving at a safe point and not the operation. Raises
    UsageError where there is none of this id, and StoreError.
    """
    verbs, never = Operations(client), threading.Event()
    while True:
        now = verbs.advance(operation, seconds=SLICE)
        if on_progress is not None:
            on_progress(now)
        if not now.is_open:
            return now
        never.wait(pause(now))


async def adrive(
    operation: str, client: Client | None = None, on_progress: Callable[[Operation], None] | None = None
) -> Operation:
    """`drive` for asyncio callers. A cancelled one leaves the operation at a safe point."""
    import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

    verbs = Operations(client)
    while True:
        now = await verbs.aadvance(operation, seconds=SLICE)
        if on_progress is not None:
            on_progress(now)
        if not now.is_open:
            return now
        await asyncio.sleep(pause(now))


def pause(now: Operation) -> float:
    """Seconds until it makes sense to go on: for its rate, or because somebody else drives it."""
    if now.busy:
        return IDLE
    return min(max(now.wait, SHORTEST), IDLE) if now.wait else 0.0


class Operator:
    """A thread that goes on with every open operation, whoever started it. `start` and `stop` may be called at will."""

    def __init__(self, client: Client | None = None) -> None:
        self._verbs = Operations(client)
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._troubled = False

    def start(self) -> None:
        """Begin. Does nothing if it runs."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="pillion.operator", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Look for open operations at once: one was started."""
        self._woken.set()

    def stop(self, timeout: float = 5.0) -> bool:
        """End after the batch under way; False if that has not ended within `timeout` seconds. Safe before start."""
        self._stopping.set()
        self._woken.set()
        thread = self._thread
        if thread is None:
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.wait(self._turn())
            self._woken.clear()

    def _turn(self) -> float:
        """Go on with each open operation for a while; returns how long to wait."""
        try:
            waits = [self._go_on(name) for name in self._verbs.open()]
        except StoreError as error:
            if not self._troubled:
                log.warning("operations wait until Redis can be reached again: %s", error)
            self._troubled = True
            return IDLE
        self._troubled = False
        return min(waits, default=IDLE)

    def _go_on(self, name: str) -> float:
        if self._stopping.is_set():
            return 0.0
        try:
            now = self._verbs.advance(name, seconds=SLICE)
            return pause(now) if now.is_open else IDLE
        except UsageError:  # its record is gone
            self._verbs.client.store.run(operations.forget(self._verbs.keys, name))
            return 0.0
        except StoreError:
            raise
        except PillionError:
            log.exception("an operation cannot go on just now: %s", name)
            return IDLE

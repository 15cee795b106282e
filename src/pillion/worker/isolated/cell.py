"""The process of one run: it performs one job, answers and ends. Forked by the helper, it has the app and nothing else.

The job finds what it finds in a worker: `current_job()`, its logger's context, the context variables that travel with
it. Middleware runs around it in the worker. Of the worker's state it learns, when it asks, whether it is stopping.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from pillion.errors import UnknownJob
from pillion.log import hold_level
from pillion.payload import decode
from pillion.retry import backtrace
from pillion.running import RunningJob, Signals, enter
from pillion.setup import Setup
from pillion.types import Claim
from pillion.worker.isolated.orders import LOST, STOPPING, Order, pack
from pillion.worker.title import name_process


class Heard(Signals):
    """What the worker has said over the connection so far."""

    def __init__(self, connection: Connection, owner: str) -> None:
        self.leaving = False
        self._connection = connection
        self._owner = owner
        self._stopping = False
        self._lost: set[str] = set()

    @property
    def stopping(self) -> bool:  # type: ignore[override]
        self._listen()
        return self._stopping

    @property
    def lost_owners(self) -> set[str]:  # type: ignore[override]
        self._listen()
        return self._lost

    def _listen(self) -> None:
        try:
            while self._connection.poll():
                word = self._connection.recv_bytes()
                self._stopping = self._stopping or word == STOPPING
                self._lost |= {self._owner} if word == LOST else set()
        except (EOFError, OSError):  # the worker is gone; the helper is about to kill us
            self._stopping = True


def main(setup: Setup, descriptor: int) -> int:
    """Take one order, answer it; returns the exit code."""
    connection = Connection(descriptor)
    order = msgspec.json.decode(connection.recv_bytes(), type=Order)
    payload = decode(bytes(order.payload))
    name_process(f"{order.name} {payload['jid']}")
    definition = setup.registry.get(order.name)
    if definition is None:
        raise UnknownJob(f"{order.name} is defined in the worker, but not where the app was imported for its helper")
    claim = Claim(order.owner, order.n, order.queue, b"")
    signals = Heard(connection, order.owner)
    running = RunningJob(claim, payload, definition, signals, [], order.started, setup)
    enter(running)
    setup.carrier.restore(payload)
    hold_level(payload.get("log_level"))
    result, error = _perform(running, order.max_memory)
    connection.send_bytes(pack(result, error, running.effects, [] if error is None else backtrace(error)))
    with suppress(Exception):
        sys.stdout.flush()
    logging.shutdown()
    return 0


def _perform(running: RunningJob, max_memory: int | None) -> tuple[Any, BaseException | None]:
    try:
        _, perform = running.definition.start(running)
        if max_memory is not None:
            limit_memory(max_memory)
        call: Callable[[], Any] = lambda: perform(*running.payload["args"], **running.payload.get("kwargs", {}))  # noqa: E731
        return (asyncio.run(_awaited(call)) if running.definition.is_async else call()), None
    except BaseException as error:
        return None, error
    finally:
        if max_memory is not None:
            limit_memory(resource.RLIM_INFINITY)  # the answer needs some, too


async def _awaited(call: Callable[[], Any]) -> Any:
    return await call()


def limit_memory(most: int) -> None:
    """Let the kernel refuse this process more private memory than this, what it shares with the helper included.

    RLIMIT_DATA counts what a process may write, and only that: RLIMIT_AS would count reserved addresses, of which a
    Python program with a few libraries has several times what it uses. macOS ignores both.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard) if most >= 0 else hard
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

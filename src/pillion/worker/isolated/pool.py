"""Runs jobs with `isolation="process"`: a process per run, forked from a helper that has the app and no thread.

    worker ──fork, before it has threads or connections──> helper ──fork per run──> cell
      │  a channel: Fork, Kill / Forked, Exited                                       │
      └── a connection: one Order, one Answer ────────────────────────────────────────┘

A thread of the executor waits for its cell as it would for the job, so concurrency, middleware, retries and everything
else stay what they are. It looks up four times a second: then the deadline is checked, and the cell hears that the
worker is stopping. Whatever ends the waiting (an answer, a crash, the deadline, `Shutdown` raised in the thread), no
cell is left behind.

When a cell dies, its run has failed and nothing else has. When the worker dies, the helper kills the cells and ends;
their claims come back as any. When the helper dies, so do its cells (Linux); a process with threads cannot fork
another helper, so the worker stops, and who supervises it starts a new one.
"""

from __future__ import annotations

import logging
import select
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from pillion.clock import Clock
from pillion.errors import ProcessCrashed, ProcessTimeout
from pillion.job_options import Isolation
from pillion.payload import encode
from pillion.worker.forking.channel import Channel
from pillion.worker.forking.messages import Exited, Fork, Kill
from pillion.worker.isolated.orders import LOST, STOPPING, Order, unpack
from pillion.worker.runner import Run
from pillion.worker.service import Service

log = logging.getLogger("pillion")

SLICE = 0.25
KILL_PATIENCE = 5.0
NO_MORE = 3600.0
UNLIMITED = Isolation()


class Cell:
    """One run's process, as the worker knows it. `status` is how it ended, once `ended` is set."""

    def __init__(self, number: int, connection: Connection) -> None:
        self.number = number
        self.connection = connection
        self.ended = threading.Event()
        self.status: int | None = None
        self.told: set[bytes] = set()


class Pool(Service):
    """The cells of one worker. `on_lost` is called once if the helper dies."""

    name = "isolated"

    def __init__(self, channel: Channel, clock: Clock) -> None:
        super().__init__()
        self.on_lost: Callable[[], None] = _nobody
        self._channel = channel
        self._steady = clock.steady
        self._forking = threading.Lock()
        self._cells: dict[int, Cell] = {}
        self._number = 0
        self._lost = False

    def isolate(self, run: Run) -> Callable[..., Any]:
        """What to call instead of a job's `perform`, with the same arguments, in a job's thread."""
        return lambda *args, **kwargs: self._perform(run, args, kwargs)

    def _perform(self, run: Run, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        limits = run.definition.isolation or UNLIMITED
        order = _order(run, args, kwargs, limits)
        deadline = self._steady() + limits.timeout if limits.timeout else float("inf")
        cell = self._fork()
        try:
            answer = self._answer(cell, order, deadline, run)
        finally:
            self._end(cell)
        if answer is None:
            raise ProcessCrashed(f"the process of {run.definition.name} {_how(cell.status)}")
        result, error, effects, frames = unpack(answer)
        run.running.effects.extend(effects)
        if error is not None:
            error.__pillion_backtrace__ = frames  # type: ignore[attr-defined]
            error.add_note("\n".join(("in a process of its own:", *(f"  {frame}" for frame in frames))))
            raise error
        return result

    def _answer(self, cell: Cell, order: bytes, deadline: float, run: Run) -> bytes | None:
        """The answer's bytes, None if the cell ended without one."""
        try:
            cell.connection.send_bytes(order)
            while not cell.connection.poll(max(0.0, min(SLICE, deadline - self._steady()))):
                if self._steady() >= deadline:
                    raise ProcessTimeout(f"{run.definition.name} took longer than its timeout, and was killed")
                if cell.ended.is_set() and not cell.connection.poll():
                    return None  # something that it has started keeps the connection open
                self._pass_on(cell, STOPPING, run.running.signals.stopping)
                self._pass_on(cell, LOST, run.running.lost())
            return cell.connection.recv_bytes()
        except (EOFError, OSError) as error:
            if isinstance(error, ProcessTimeout):
                raise
            cell.ended.wait(KILL_PATIENCE)
            return None

    def _pass_on(self, cell: Cell, word: bytes, holds: bool) -> None:
        if holds and word not in cell.told:
            cell.told.add(word)
            cell.connection.send_bytes(word)

    def _fork(self) -> Cell:
        ours, theirs = Pipe()
        with self._forking:
            self._number += 1
            cell = Cell(self._number, ours)
            self._cells[cell.number] = cell
            sent = not self._lost and self._channel.send(Fork(cell.number), theirs.fileno())
        theirs.close()
        if not sent:
            cell.ended.set()
        return cell

    def _end(self, cell: Cell) -> None:
        """See that it is gone, so that a retry never runs beside it."""
        if not cell.ended.is_set():
            self._channel.send(Kill(cell.number))
            if not cell.ended.wait(KILL_PATIENCE):
                log.error("the process of an isolated job does not end, though it was killed")
        self._cells.pop(cell.number, None)
        cell.connection.close()

    # -- the helper's news ------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let the helper go; it kills what still runs."""
        super().stop()
        self._channel.hang_up()

    def turn(self) -> float:
        _wait(self._channel.fileno())
        messages = self._channel.receive()
        if messages is None:
            self._lose()
            return NO_MORE
        for message in messages:
            if isinstance(message, Exited) and (cell := self._cells.get(message.number)):
                cell.status = message.status
                cell.ended.set()
        return 0.0

    def after(self) -> None:
        self._channel.close()

    def _lose(self) -> None:
        with self._forking:
            self._lost = True
            for cell in list(self._cells.values()):
                cell.ended.set()
        if not self.stopping:
            log.critical("the helper that forks the processes of isolated jobs is gone; stopping this worker")
            self.on_lost()


def _order(run: Run, args: Sequence[Any], kwargs: Mapping[str, Any], limits: Isolation) -> bytes:
    """The order's bytes. Raises PayloadError for arguments that middleware has made into something else than JSON."""
    payload = {**run.payload, "args": list(args)} | ({"kwargs": dict(kwargs)} if kwargs else {})
    claim = run.claim
    raw = msgspec.Raw(encode(payload))
    order = Order(run.definition.name, claim.owner, claim.n, claim.queue, raw, run.started, limits.max_memory)
    return msgspec.json.encode(order)


def _how(status: int | None) -> str:
    if status is None:
        return "is gone, and nobody knows how"
    if status < 0:
        names = {member.value: member.name for member in signal.Signals}
        return f"was killed by {names.get(-status, f'signal {-status}')}"
    return f"ended with exit code {status} before its job did"


def _wait(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()


def _nobody() -> None:
    return None

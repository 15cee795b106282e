"""Failpoints: named places between two effects, where a test lets a process of its own go wrong.

A point is either a moment of an exchange with Redis (`send`: nothing has left; `sent`: the request is gone and no reply
read; `received`: the reply is read and nobody has looked at it), or a place before or after a function of Pillion.
`arm` puts a point into the running process by wrapping that function from outside; `src/` has no switch for it. What
happens there is an action:

    exit     the process ends at once
    raise    an error that no code expects
    sleep    the thread stands still for longer than the lease
    close    the connection of the exchange breaks, or elsewhere all that this process has to Redis

A point goes off once in a trial, when a process comes by for the `nth` time, and notes that in the ledger.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Literal, NamedTuple, TypeAlias

from pillion.store.exchange import Exchange
from pillion.types import Requeue, Retry

Action: TypeAlias = Literal["exit", "raise", "sleep", "close"]
Scene: TypeAlias = Literal["work", "doubt", "stop", "push", "once", "isolated", "supervised"]
"""What a process must be doing to come by; `scenes.py` plays them."""

ACTIONS: tuple[Action, ...] = ("exit", "raise", "sleep", "close")
EXIT_CODE = 86
READ = 65_536
MOMENTS = ("send", "sent", "received")
OFTEN = (
    "fetcher.claim.", "poller.due.", "reaper.lapsed.", "heartbeat.batch.", "client.",
    *(f"worker {side} {name}" for side in ("before", "after") for name in (
        "Fetcher._hand_out", "Fetcher._collect", "Tenure.add", "Executor._begin", "Executor._finish", "Heartbeat",
        "RedisDelivery",
    )),
)  # fmt: skip


class Point(NamedTuple):
    """A place between two effects.

    Attributes:
        name: of an exchange `<thread>.<op>.<moment>`; elsewhere the process, `before` or `after`, and what.
        scene: what leads there.
        where: the function that is wrapped, as `module:qualname`; empty for an exchange.
        side: on which side of it.
        process: which process of the scene is armed.
    """

    name: str
    scene: Scene = "work"
    where: str = ""
    side: str = ""
    process: str = "worker"

    @property
    def visits(self) -> int:
        """How often a process comes by at the least, in its scene."""
        return 3 if self.name.startswith(OFTEN) else 1

    @property
    def actions(self) -> tuple[Action, ...]:
        """What can happen here: processes without a connection to Redis have none to break."""
        return ACTIONS[:3] if self.process in ("helper", "cell", "supervisor", "zygote") else ACTIONS


def exchanges(scene: Scene, *names: str) -> list[Point]:
    return [Point(f"{name}.{moment}", scene) for name in names for moment in MOMENTS]


def places(scene: Scene, module: str, *sides_and_names: str, process: str = "worker") -> list[Point]:
    """Points around functions of one module, each written as `before Class.method`."""
    found = []
    for words in sides_and_names:
        side, _, name = words.partition(" ")
        found.append(Point(f"{process} {words}", scene, f"{module}:{name}", side, process))
    return found


POINTS: tuple[Point, ...] = (
    *exchanges("work", "fetcher.track", "fetcher.join", "fetcher.claim", "fetcher.settle", "fetcher.retry"),
    *exchanges("work", "fetcher.suspicion", "fetcher.mark", "fetcher.absolve", "fetcher.index", "fetcher.leave"),
    *exchanges("doubt", "fetcher.resync", "fetcher.held_payloads"),
    *exchanges("work", "poller.due", "poller.promote", "heartbeat.batch"),
    *exchanges("work", "reaper.lapsed", "reaper.fence", "reaper.index", "reaper.held_payloads"),
    *exchanges("work", "reaper.rescue_counts", "reaper.salvage"),
    *exchanges("stop", "fetcher.requeue"),
    *exchanges("push", "client.push"),
    *exchanges("once", "client.push_once"),
    *places("work", "pillion.worker.fetcher", "before Fetcher._hand_out", "after Fetcher._hand_out"),
    *places("work", "pillion.worker.fetcher", "after Fetcher._collect", "before Fetcher._rest", "before Fetcher.after"),
    *places("work", "pillion.worker.tenure", "before Tenure.add", "after Tenure.add", "before Tenure._take"),
    *places("doubt", "pillion.worker.tenure", "before Tenure._adopt", "after Tenure._adopt"),
    *places("work", "pillion.worker.executor", "before Executor.take", "before Executor.start"),
    *places("work", "pillion.worker.executor", "before Executor._begin", "after Executor._begin"),
    *places("work", "pillion.worker.executor", "before Executor._finish", "after Executor._finish"),
    *places("work", "pillion.worker.runner", "before Runner.perform", "after Runner.perform", "after Runner.finish"),
    *places("work", "pillion.worker.runner", "before Runner.aperform", "after Runner.aperform"),
    *places("work", "pillion.worker.suspects", "before Suspects.next", "before Suspects.absolve"),
    *places("work", "pillion.worker.worker", "before Worker._settled"),
    *places("work", "pillion.worker.poller", "before Poller._move", "after Poller._move"),
    *places("work", "pillion.worker.reaper", "before Reaper.salvage", "after Reaper._rescues", "before Reaper._tell"),
    *places("work", "pillion.worker.heartbeat", "before Heartbeat.beat", "after Heartbeat.flush"),
    *places("stop", "pillion.worker.worker", "before Worker.quiet", "before Worker._evict", "before Worker._end"),
    *places("stop", "pillion.worker.executor", "before Executor.interrupt", "after Executor.interrupt"),
    *places("stop", "pillion.worker.fetcher", "before Fetcher.evict", "before Fetcher._give_back"),
    *places("push", "pillion.delivery", "before RedisDelivery.send", "after RedisDelivery.send"),
    *places("isolated", "pillion.worker.isolated.pool", "before Pool._fork", "after Pool._fork"),
    *places(
        "isolated", "pillion.worker.isolated.pool", "before Pool._answer", "after Pool._answer", "before Pool._end"
    ),
    *places("isolated", "pillion.worker.forking.forker", "before Forker._fork", process="helper"),
    *places("isolated", "pillion.worker.forking.forker", "after Forker._fork", "before Forker._reap", process="helper"),
    *places(
        "isolated", "pillion.worker.isolated.cell", "before main", "before _perform", "after _perform", process="cell"
    ),
    *places("supervised", "pillion.worker.supervisor.fleet", "after Fleet.forked", process="supervisor"),
    *places("supervised", "pillion.worker.supervisor.fleet", "before Fleet.child_ended", process="supervisor"),
    *places("supervised", "pillion.worker.supervisor.fleet", "after Fleet.child_ended", process="supervisor"),
    *places("supervised", "pillion.worker.supervisor.fleet", "before Fleet.rescued", process="supervisor"),
    *places("supervised", "pillion.worker.forking.forker", "before Forker._fork", process="zygote"),
    *places("supervised", "pillion.worker.forking.forker", "after Forker._fork", process="zygote"),
    *places("supervised", "pillion.worker.supervisor.child", "before rescue_process", process="child"),
    *places("supervised", "pillion.worker.supervisor.child", "after rescue_process", process="child"),
)


CASES: tuple[tuple[Point, Action], ...] = tuple((point, action) for point in POINTS for action in point.actions)


class Injected(Exception):
    """An error that no code of Pillion expects."""


class Arms:
    """One point in this process, and what happens there. `first` notes that it goes off: False if it has, elsewhere."""

    def __init__(self, name: str, action: Action, nth: int, seconds: float, first: Callable[[], bool]) -> None:
        self.name = name
        self._action = action
        self._left = nth
        self._seconds = seconds
        self._first = first
        self._lock = threading.Lock()
        self._socks: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def come_by(self, name: str, sock: socket.socket | None = None) -> None:
        """The process is at the place of this name."""
        if name == self.name and self._goes_off():
            self._act(sock)

    async def come_by_on_loop(self, name: str) -> None:
        """The same where an event loop runs: what stands still is the job, not the loop."""
        if name == self.name and self._goes_off():
            if self._action == "sleep":
                await asyncio.sleep(self._seconds)
            else:
                self._act(None)

    def remember(self, sock: socket.socket) -> None:
        """A connection that `close` may have to break."""
        self._socks.add(sock)

    def _goes_off(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0 and self._first()

    def _act(self, sock: socket.socket | None) -> None:
        if self._action == "exit":
            os._exit(EXIT_CODE)
        elif self._action == "raise":
            raise Injected(f"at {self.name}")
        elif self._action == "sleep":
            time.sleep(self._seconds)
        else:
            self._break(sock)

    def _break(self, sock: socket.socket | None) -> None:
        for each in [sock] if sock else list(self._socks):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
                while each.recv(READ):  # a reply that is here already is lost, too
                    pass


class Tapped:
    """A socket that notices when the reply is waited for."""

    def __init__(self, sock: socket.socket, waits: Callable[[], None]) -> None:
        self._sock = sock
        self._waits = waits
        self._waited = False

    def sendall(self, data: bytes) -> None:
        self._sock.sendall(data)

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def recv(self, size: int) -> bytes:
        if not self._waited:
            self._waited = True
            self._waits()
        return self._sock.recv(size)


def arm(point: Point, arms: Arms) -> None:
    """Put a point into this process. Raises AttributeError or ImportError where its place is gone."""
    _watch_connections(arms)
    if point.where:
        _wrap(point, arms)
    else:
        _tap(arms)


def place_of(point: Point) -> tuple[Any, str, Any]:
    """What a point wraps: (class or module, name there, function)."""
    module, _, path = point.where.partition(":")
    holder: Any = import_module(module)
    *outer, name = path.split(".")
    for each in outer:
        holder = getattr(holder, each)
    return holder, name, getattr(holder, name)


def _wrap(point: Point, arms: Arms) -> None:
    holder, name, function = place_of(point)
    before = point.side == "before"
    forks = point.process in ("helper", "zygote")  # there the child returns something, and is not meant

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            arms.come_by(point.name)
        result = function(*args, **kwargs)
        if not before and not (forks and result):
            arms.come_by(point.name)
        return result

    @functools.wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        if before:
            await arms.come_by_on_loop(point.name)
        result = await function(*args, **kwargs)
        if not before:
            await arms.come_by_on_loop(point.name)
        return result

    setattr(holder, name, awaited if asyncio.iscoroutinefunction(function) else wrapped)


def _watch_connections(arms: Arms) -> None:
    line: Any = import_module("pillion.store.pool").Line
    opened = line.open

    def open_and_remember(self: Any) -> None:
        opened(self)
        arms.remember(self.sock)

    line.open = open_and_remember


def _tap(arms: Arms) -> None:
    """Come by three times in each exchange of a blocking connection."""
    connection: Any = import_module("pillion.store.connection")
    tenure: Any = import_module("pillion.worker.tenure").Tenure
    drive, send_step = connection.drive, tenure._send
    step = threading.local()

    def tapped(sock: socket.socket, exchange: Exchange[Any], at: str) -> None:
        names = [f"{_thread()}.{name}" for name in (exchange._op.name, *getattr(step, "kinds", ()))]

        def come_by(moment: str) -> None:
            for name in names:
                arms.come_by(f"{name}.{moment}", sock)

        come_by("send")
        drive(Tapped(sock, lambda: come_by("sent")), exchange, at)
        come_by("received")

    def kinds_told(self: Any, batch: Any, want: Any, wake: bool) -> Any:
        step.kinds = kinds_of(batch, want.count)
        try:
            return send_step(self, batch, want, wake)
        finally:
            step.kinds = ()

    connection.drive, tenure._send = tapped, kinds_told


def kinds_of(batch: Any, wanted: int) -> list[str]:
    """What a step does besides renewing."""
    outcomes = [type(item.outcome) for item in batch]
    return (
        ["claim"] * (wanted > 0 and not batch)
        + ["settle"] * bool(batch)
        + ["retry"] * (Retry in outcomes)
        + ["requeue"] * (Requeue in outcomes)
    )


def _thread() -> str:
    """The kind of thread this is: `fetcher`, `poller`, ..., or `client` where it is none of ours."""
    name = threading.current_thread().name
    return name.split(".")[1] if name.startswith("pillion.") else "client"

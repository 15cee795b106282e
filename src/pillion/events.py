"""Facts, told once the store agreed: what happened to jobs, to leases and to the connection.

The executors, fetchers, poller and reaper emit; the logger, metrics and tests subscribe. An event is built only when
somebody listens:

    if events.wanted(JobStarted):
        events.emit(JobStarted(...))

Subscribers run in the emitting thread, between two jobs, so they must be quick. One that raises is logged and passed
over. Events are told at most once: a process that dies between the store's answer and the emit tells nobody.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from pillion.types import Outcome, Payload

_logger = logging.getLogger("pillion")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What every event is. Subscribe to it to hear them all."""


class JobStarted(Event, frozen=True, kw_only=True):
    """A job is about to be performed. Emitted in the thread, or the task, that performs it.

    Attributes:
        jid, name, queue: which job: its id, the class name on the wire, and where it was claimed from.
        attempt: as `RunningJob.attempt` counts.
        payload: the job as it was claimed.
    """

    jid: str
    name: str
    queue: str
    attempt: int
    payload: Payload


class JobSettled(Event, frozen=True, kw_only=True):
    """A job's outcome has been written.

    Attributes:
        jid, name, queue, attempt, payload: as in `JobStarted`.
        outcome: what was written.
        elapsed: seconds from start to end, middleware included.
        error: what the job raised, or None.
    """

    jid: str
    name: str
    queue: str
    attempt: int
    payload: Payload
    outcome: Outcome
    elapsed: float
    error: BaseException | None = None


class JobFailed(JobSettled, frozen=True, kw_only=True):
    """A `JobSettled` whose job raised `error`; emitted in its place, so that failures can be heard alone."""


class JobStopped(Event, frozen=True, kw_only=True):
    """Client middleware stopped a due job in the poller; it is gone."""

    jid: str
    name: str
    queue: str
    payload: Payload


class JobRescued(Event, frozen=True, kw_only=True):
    """A job of a dead owner went back to its queue, or as a poison pill to the dead set.

    Attributes:
        jid: its id, or None where the payload could not be read.
        queue: where it was claimed from.
        owner: the lease it had been claimed under.
        rescues: how often it was counted so far; 0 for a job that was only a bystander.
        dead: it went to the dead set.
        dropped: it went nowhere, because it said `dead: false`.
    """

    jid: str | None
    queue: str
    owner: str
    rescues: int = 0
    dead: bool = False
    dropped: bool = False


class LeaseLost(Event, frozen=True, kw_only=True):
    """An owner of this process was fenced: others have its claims.

    Attributes:
        owner: the lease that was lost.
        running: how many of its jobs were running; their outcomes will not count.
    """

    owner: str
    running: int = 0


class StoreDown(Event, frozen=True, kw_only=True):
    """The conversation with Redis failed and is being tried again. Emitted once per outage."""

    error: BaseException


class StoreBack(Event, frozen=True, kw_only=True):
    """The conversation with Redis works again after `seconds`."""

    seconds: float


class PayloadRejected(Event, frozen=True, kw_only=True):
    """A stored job that can never run went to the dead set, its bytes untouched.

    Attributes:
        queue: where it stood.
        raw: its bytes.
        reason: one short clause.
    """

    queue: str
    raw: bytes
    reason: str


E = TypeVar("E", bound=Event)


class Events:
    """Who listens to what. Safe to use from every thread; reading takes no lock."""

    __slots__ = ("_heard", "_lock", "_subscriptions")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: tuple[tuple[type[Event], Callable[[Any], object]], ...] = ()
        self._heard: dict[type[Event], tuple[Callable[[Any], object], ...]] = {}

    def subscribe(self, kind: type[E], fn: Callable[[E], object]) -> Callable[[], None]:
        """Call `fn` with every event of `kind` and of its subclasses, after those who subscribed before.

        Returns:
            A callable that ends the subscription; calling it again does nothing.

        Raises:
            TypeError: `kind` is no event class.
        """
        if Event not in getattr(kind, "__mro__", ()):
            raise TypeError(f"expected a kind of event such as JobSettled, got {kind!r}")
        subscription = (kind, fn)
        with self._lock:
            self._subscriptions = (*self._subscriptions, subscription)
            self._heard = {}

        def unsubscribe() -> None:
            with self._lock:
                self._subscriptions = tuple(other for other in self._subscriptions if other is not subscription)
                self._heard = {}

        return unsubscribe

    def wanted(self, kind: type[Event]) -> bool:
        """Whether anybody would hear an event of `kind`."""
        try:
            return bool(self._heard[kind])
        except KeyError:
            return bool(self._listeners(kind))

    def emit(self, event: Event) -> None:
        """Tell everybody who wants to hear it. Never raises what a subscriber raised."""
        kind = type(event)
        heard = self._heard.get(kind)
        for fn in self._listeners(kind) if heard is None else heard:
            try:
                fn(event)
            except (Exception, SystemExit):
                # Not BaseException: a `Shutdown` raised in this thread is meant for the job, not for the subscriber.
                _logger.exception("a subscriber to %s raised and is passed over: %r", kind.__name__, fn)

    def _listeners(self, kind: type[Event]) -> tuple[Callable[[Any], object], ...]:
        with self._lock:
            found = tuple(fn for heard, fn in self._subscriptions if issubclass(kind, heard))
            self._heard[kind] = found
        return found

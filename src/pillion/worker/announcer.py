"""Tells handlers and subscribers what was settled, after the store agreed, in a thread of its own.

A slow or raising handler holds up other announcements, never a lease or a job. The line is bounded: handlers that
cannot keep up must not fill the memory. What finds it full, or stands in it when the process dies, is not announced;
the outcome itself is in Redis."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from pillion.config import Config
from pillion.events import JobFailed, JobSettled, PayloadRejected
from pillion.setup import Setup
from pillion.types import Payload
from pillion.worker.hooks import Hooks
from pillion.worker.runner import Failure, Finished
from pillion.worker.service import Service

log = logging.getLogger("pillion")

MOST_IN_LINE = 50_000


class Announcer(Service):
    """Runs error handlers, death handlers and event subscribers, in the order of settling."""

    name = "announcer"

    def __init__(self, setup: Setup, config: Config, hooks: Hooks) -> None:
        super().__init__()
        self._setup = setup
        self._config = config
        self._hooks = hooks
        self._line: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._left_out = 0

    def settled(self, finished: Sequence[Finished]) -> None:
        """Announce these where somebody listens."""
        wanted = self._setup.events.wanted
        everything = wanted(JobSettled)
        for item in finished:
            if item.failure is not None or item.rejected is not None or (everything and item.elapsed >= 0):
                self._line_up(lambda item=item: self._tell(item))  # type: ignore[misc]

    def report(self, error: BaseException, context: Mapping[str, Any]) -> None:
        """Hand an error that is not a job's failure to the error handlers."""
        self._line_up(lambda: self._errors(error, context))

    def died(self, job: Payload, error: BaseException) -> None:
        """Hand a job that will not run again to the death handlers."""
        self._line_up(lambda: self._deaths(job, error))

    @property
    def left(self) -> int:
        """How many announcements stand in line."""
        return self._line.qsize()

    def stop(self) -> None:
        super().stop()
        self._line.put(_nothing)

    def turn(self) -> float:
        self._line.get()()
        return 0.0

    def after(self) -> None:
        """Say what is still in line."""
        try:
            while True:
                self._line.get_nowait()()
        except Empty:
            return

    def _line_up(self, announcement: Callable[[], None]) -> None:
        if self._line.qsize() >= MOST_IN_LINE:
            if not self._left_out:
                log.error("%d calls of handlers and subscribers wait, and more are left out", MOST_IN_LINE)
            self._left_out += 1
            return
        if self._left_out:
            count, self._left_out = self._left_out, 0
            log.error("%d calls of handlers and subscribers were left out", count)
        self._line.put(announcement)

    def _tell(self, item: Finished) -> None:
        if item.rejected is not None:
            self._setup.events.emit(PayloadRejected(queue=item.claim.queue, raw=item.claim.raw, reason=item.rejected))
            context = {"context": f"this job can never run and went to the dead set: {item.rejected}"}
            self._errors(ValueError(item.rejected), context | {"jobstr": item.claim.raw})
            return
        if item.failure is not None:
            self._failure(item, item.failure)
        elif item.payload is not None:
            self._setup.events.emit(JobSettled(**_facts(item, item.payload)))

    def _failure(self, item: Finished, failure: Failure) -> None:
        verdict = failure.verdict
        for error, where in verdict.reports:
            self._errors(error, {"context": where, "job": verdict.job})
        self._setup.events.emit(JobFailed(**_facts(item, verdict.job), error=failure.error))
        self._errors(failure.error, {"context": "job raised an exception", "job": verdict.job})
        if verdict.died:
            self._deaths(verdict.job, failure.error)

    def _errors(self, error: BaseException, context: Mapping[str, Any]) -> None:
        for handler in list(self._setup.error_handlers):
            self._hooks.attempt("an error handler", handler, error, context, self._config)
        if "job" not in context:
            log.error("%s: %s", context.get("context", "error"), error, exc_info=error)

    def _deaths(self, job: Payload, error: BaseException) -> None:
        for handler in list(self._setup.death_handlers):
            self._hooks.attempt("a death handler", handler, job, error)


def _nothing() -> None:
    """Wakes the announcer up to see that it should stop."""


def _facts(item: Finished, job: Payload) -> dict[str, Any]:
    count = job.get("retry_count") if item.failure is None else None
    attempt = count + 2 if type(count) is int else _attempt_of_failed(item, job)
    return {
        "jid": job["jid"],
        "name": item.name,
        "queue": item.claim.queue,
        "attempt": attempt,
        "payload": job,
        "outcome": item.outcome,
        "elapsed": max(item.elapsed, 0.0),
    }


def _attempt_of_failed(item: Finished, job: Payload) -> int:
    """A failed job's `retry_count` was already raised for the next attempt."""
    count = job.get("retry_count")
    return count + 1 if item.failure is not None and type(count) is int else 1

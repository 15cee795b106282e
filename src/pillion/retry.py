"""Retry: what becomes of a job that failed. Sidekiq 8.1's rules, as a pure function.

Called by the executor's `finish` with the exception; the outcome is written by the step script, and death handlers,
error handlers and the log line are the caller's. Nothing is written here, so a crash leaves the claim as it was.

    retry is off          -> died, dropped; death handlers hear of it
    retry_for has passed  -> exhausted (it replaces the count)      retry_count reached the limit -> exhausted
    retry_in says         -> "discard": dropped   "kill": exhausted   seconds: that delay   else: count**4 + 15
    exhausted             -> retries_exhausted runs; dropped if it says "discard" or `dead` is false, else the dead set

The stored payload is spliced from the job's original bytes, so arguments survive to the byte whatever the job or a
middleware did to them. Its fields were written by anyone: each is clamped to something harmless, never trusted.
`decide` is total: if all else fails, the untouched bytes go to the dead set.
"""

from __future__ import annotations

import binascii
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeAlias, TypeGuard, cast

import msgspec

from pillion.config import Config
from pillion.errors import PayloadError, Shutdown
from pillion.payload import MAX_RETRY, MAX_RETRY_FOR, check_queue, decode, read_time, splice, stamp, text
from pillion.plain import clean
from pillion.types import Dead, Discard, Outcome, Payload, Retry

MAX_BACKTRACE = 100
MAX_UNCLEANED = 1_000
MAX_BACKTRACE_BYTES = 1_000_000
MAX_COUNT = 1_000_000_000
MAX_DELAY = 10 * 365 * 24 * 3600

Report: TypeAlias = tuple[BaseException, str]


class Rules(msgspec.Struct, frozen=True):
    """The user blocks of a job definition.

    Attributes:
        retry_in: (retry_count, error, job) -> seconds or a timedelta, "discard", "kill", or None for the default delay.
        retries_exhausted: (job, error) -> "discard" to keep the job out of the dead set; anything else is ignored.
    """

    retry_in: Callable[[int, BaseException, Payload], Any] | None = None
    retries_exhausted: Callable[[Payload, BaseException], Any] | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of the failed job.

    Attributes:
        outcome: what the step script writes.
        job: the job with its failure fields, as stored; a dropped one has `discarded_at`. For handlers.
        died: it will not run again by itself, so death handlers run.
        reports: errors of user blocks, each with a clause that says where; for the error handlers.
    """

    outcome: Outcome
    job: Payload
    died: bool
    reports: list[Report]


NO_RULES = Rules()
_Fate: TypeAlias = Literal["discard", "kill"] | int | None


def decide(
    raw: bytes,
    job: Payload,
    queue: str,
    error: BaseException,
    rules: Rules,
    config: Config,
    options: Mapping[str, Any] | None = None,
) -> Verdict:
    """Decide what becomes of a job whose run ended in `error`.

    Never raises, except for a `Shutdown` that reaches the thread meanwhile: then nothing is decided.

    Args:
        raw: the payload's exact bytes; everything is read from these and stored from these.
        job: the payload as the run left it; handed on only if `raw` cannot be read.
        queue: the queue it was fetched from.
        error: not a shutdown (see `is_shutdown`): that is no failure.
        options: the definition's options, for what the payload does not say (`retry`, `retry_for`, `dead`, ...);
            None if no definition is known.
    """
    now = config.clock.now()
    try:
        own = {} if options is None else {**config.default_job_options, **options}
        return _Failure(raw, queue, error, rules, config, own, now).verdict()
    except Shutdown:
        raise
    except BaseException as trouble:
        reports = [(trouble, "deciding on a retry; the job went to the dead set as it was")]
        return Verdict(Dead(now, raw), job, True, reports)


class _Failure:
    """One failed run, while it is decided. The methods stand in the order in which they matter."""

    def __init__(
        self,
        raw: bytes,
        queue: str,
        error: BaseException,
        rules: Rules,
        config: Config,
        options: Mapping[str, Any],
        now: float,
    ) -> None:
        self.raw = raw
        self.error = error
        self.rules = rules
        self.config = config
        self.options = options
        self.now = now
        self.reports: list[Report] = []
        self.job = decode(raw)
        self.limit = self._limit()
        self.count = 0 if self.job.get("retry_count") is None else _count(self.job["retry_count"]) + 1
        self.changes = self._record(queue)
        self.job.update(self.changes)

    def verdict(self) -> Verdict:
        if self.limit is None:
            return self._drop("retry is off")
        if self._is_exhausted(self.limit):
            return self._exhaust()
        fate = self._fate()
        if fate == "discard":
            return self._drop("retry_in said discard")
        if fate == "kill":
            return self._exhaust()
        delay = self.count**4 + 15 if fate is None else fate
        jitter = self.config.rng.randrange(10 * (self.count + 1))
        due = self.now + min(delay + jitter, MAX_DELAY)
        return Verdict(Retry(due, splice(self.raw, self.changes)), self.job, False, self.reports)

    def _says(self, key: str) -> Any:
        """A field of the payload, or else of the definition."""
        value = self.job.get(key)
        return self.options.get(key) if value is None else value

    def _limit(self) -> int | None:
        """How many retries the job has; None if it is not to be retried nor kept."""
        retry = self._says("retry")
        if retry is False:
            return None
        if retry is None:  # nobody knows this job: nobody asked to drop it either, so it is kept, in the dead set
            return 0
        if type(retry) is not int:
            return self.config.max_retries
        own = self.options.get("retry")
        return max(0, min(retry, max(MAX_RETRY, own) if type(own) is int else MAX_RETRY))

    def _record(self, queue: str) -> dict[str, Any]:
        """The fields that this failure sets, in Sidekiq's order; `retry_count` becomes this retry's number from 0."""
        now = stamp(self.now, self.config.wire)
        changes: dict[str, Any] = {}
        if self.job.get("retry") is None and type(self.options.get("retry")) in (bool, int):
            changes["retry"] = self.options["retry"]
        changes["queue"] = self._next_queue(queue)
        changes["error_message"] = text(self.error)
        changes["error_class"] = error_class(self.error)
        if self.job.get("retry_count") is not None:
            changes["retried_at"] = now
        if self.job.get("retry_count") is None or read_time(self.job.get("failed_at")) is None:
            changes["failed_at"] = now
        changes["retry_count"] = self.count
        lines = _lines_wanted(self._says("backtrace"))
        if lines:
            changes["error_backtrace"] = pack_backtrace(self._backtrace(lines))
        return changes

    def _backtrace(self, lines: int) -> list[str]:
        """The innermost `lines` of those that the configured cleaner leaves."""
        cleaner = self.config.backtrace_cleaner
        if cleaner is None:
            return backtrace(self.error, lines)
        found = backtrace(self.error, MAX_UNCLEANED)
        try:
            return [str(line) for line in cleaner(list(found))][:lines]
        except Shutdown:
            raise
        except BaseException as trouble:
            self.reports.append((trouble, "calling backtrace_cleaner; the whole backtrace is kept"))
            return found[:lines]

    def _next_queue(self, queue: str) -> str:
        wanted = self._says("retry_queue")
        try:
            check_queue(wanted)
        except PayloadError:
            return queue
        return str(wanted)

    def _is_exhausted(self, limit: int) -> bool:
        budget = self._says("retry_for")
        if not _is_number(budget):
            return self.count >= limit
        failed_at = read_time(self.job["failed_at"])
        return failed_at is not None and failed_at + max(0, min(budget, MAX_RETRY_FOR)) < self.now

    def _fate(self) -> _Fate:
        """What `retry_in` says: a word, seconds (at least 1), or None for the default."""
        if self.rules.retry_in is None:
            return None
        try:
            answer = self.rules.retry_in(self.count, self.error, self.job)
            if answer in (None, "discard", "kill"):
                return cast("_Fate", answer)
            if isinstance(answer, (str, bool)):
                raise TypeError(f"expected seconds, a timedelta, None, 'discard' or 'kill', got {answer!r:.40}")
            seconds = int(answer.total_seconds() if isinstance(answer, timedelta) else answer)
        except Shutdown:
            raise
        except BaseException as trouble:
            self.reports.append((trouble, "calling retry_in; the default delay is used"))
            return None
        return min(seconds, MAX_DELAY) if seconds > 0 else None

    def _exhaust(self) -> Verdict:
        """No more retries: the dead set, unless the job or its block does not want that."""
        answer = None
        if self.rules.retries_exhausted is not None:
            try:
                answer = self.rules.retries_exhausted(self.job, self.error)
            except Shutdown:
                raise
            except BaseException as trouble:
                self.reports.append((trouble, "calling retries_exhausted"))
        if isinstance(answer, str) and answer == "discard":
            return self._drop("retries_exhausted said discard")
        if self._says("dead") is False:
            return self._drop("retries are exhausted and dead is off")
        return Verdict(Dead(self.now, splice(self.raw, self.changes)), self.job, True, self.reports)

    def _drop(self, reason: str) -> Verdict:
        self.job["discarded_at"] = stamp(self.now, self.config.wire)
        return Verdict(Discard(reason), self.job, True, self.reports)


def _count(stored: object) -> int:
    """A stored `retry_count`, or 0 where it is none. Ruby's API writes -1: the next failure is the first."""
    count = min(int(stored), MAX_COUNT) if _is_number(stored) else 0
    return count if count >= -1 else 0


def _lines_wanted(backtrace: object) -> int:
    """How many lines of backtrace the job keeps: all (within reason), the first so many, or none."""
    if backtrace is True:
        return MAX_BACKTRACE
    return max(0, min(int(backtrace), MAX_BACKTRACE)) if _is_number(backtrace) else 0


def _is_number(value: object) -> TypeGuard[int | float]:
    return type(value) in (int, float)  # JSON's numbers; a bool is none


def is_shutdown(error: BaseException) -> bool:
    """Whether the worker's `Shutdown` is this error or stands anywhere behind it: cause, context, or in a group."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        if isinstance(one, Shutdown):
            return True
        seen.add(id(one))
        left += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
    return False


def error_class(error: BaseException) -> str:
    """The bare name of the exception's class, as dashboards show and group it: "ValueError"."""
    return type(error).__name__[:256]


def backtrace(error: BaseException, limit: int = MAX_BACKTRACE) -> list[str]:
    """The innermost `limit` frames, the raising line first, in Ruby's form: `app/jobs.py:12:in charge`."""
    elsewhere: list[str] | None = getattr(error, "__pillion_backtrace__", None)  # from a process of the job's own
    if elsewhere is not None:
        return elsewhere[:limit]
    frames: deque[str] = deque(maxlen=limit)
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        frames.appendleft(f"{code.co_filename}:{step.tb_lineno}:in {code.co_qualname}")
        step = step.tb_next
    return list(frames)


def pack_backtrace(lines: Sequence[str]) -> str:
    """Backtrace lines as Sidekiq stores them: base64 of zlib-deflated JSON."""
    raw = msgspec.json.encode([clean(line) for line in lines])
    return binascii.b2a_base64(zlib.compress(raw), newline=False).decode()


def unpack_backtrace(stored: object) -> list[str]:
    """The lines of a stored `error_backtrace`; empty if there is none or it cannot be read.

    Sidekiq before 6.0.1 stored the array itself. At most 1 MB is inflated: beyond that one line says so.
    """
    if isinstance(stored, str):
        try:
            inflater = zlib.decompressobj()
            raw = inflater.decompress(binascii.a2b_base64(stored), MAX_BACKTRACE_BYTES + 1)
            if len(raw) > MAX_BACKTRACE_BYTES:
                return [f"(backtrace too large: more than {MAX_BACKTRACE_BYTES} bytes)"]
            stored = msgspec.json.decode(raw)
        except (ValueError, zlib.error, msgspec.MsgspecError, RecursionError):
            return []
    return [line for line in stored if isinstance(line, str)] if isinstance(stored, list) else []

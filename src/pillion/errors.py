"""Every error Pillion raises, in one tree.

    PillionError
    ├── UsageError                     the program or its configuration is wrong; nothing was sent
    │   ├── ConfigError (ValueError)       an option's value, a file, an environment variable
    │   ├── DefinitionError                two job definitions under one name, a class that cannot run
    │   ├── ArgumentsError (TypeError)     arguments that do not fit `perform`
    │   ├── PayloadError (ValueError)      a job that must not be pushed: not JSON, no queue, ...
    │   ├── MiddlewareError                a middleware that broke the one-`yield` contract
    │   └── EmptyQueueError                a test runs a job that nobody pushed
    ├── StoreError                     the conversation with Redis failed
    │   ├── Unavailable                    no connection could be made: nothing was sent
    │   ├── PoolTimeout                    every pooled connection stayed busy: nothing was sent
    │   ├── Refused                        the server answered no: nothing was executed
    │   │   └── QueueFull                      ... because its memory is full
    │   ├── Ambiguous                      sent, but the reply was lost: it may or may not have happened
    │   ├── PartlyEnqueued                 a bulk push that was refused or cut off half-way
    │   ├── MaybeEnqueued                  a push that ended ambiguously, sorted by jid
    │   └── NotReplicated                  pushed, but no replica confirmed it in time
    ├── BadPayload                     a stored job that can never run (raw bytes go to the dead set)
    ├── UnknownJob                     no job is registered under the payload's class name
    ├── PoisonPill                     a job took its process along too often; for death handlers
    ├── ProcessCrashed                 a job's own process ended without an answer: killed, out of memory, `os._exit`
    ├── ProcessTimeout (TimeoutError)  a job's own process was killed because it took too long
    └── BootError                      the worker refuses to start; the sentence says what to do

    Shutdown (BaseException)           raised inside a running job when the worker has to leave

Each class owns one cause. Messages follow one form: what was expected, what was found and where, and what to do.
They are shown to people and end up in logs, so none of them ever holds a password or a job's arguments beyond the
one value that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence


class PillionError(Exception):
    """Root of everything Pillion raises, except `Shutdown`."""


class UsageError(PillionError):
    """The calling program or its configuration is wrong. Nothing was sent to Redis."""


class ConfigError(UsageError, ValueError):
    """An option has an impossible value. The message names the value, its source and the cure."""


class DefinitionError(UsageError):
    """A job definition contradicts another one, or cannot do what was asked of it."""


class ArgumentsError(UsageError, TypeError):
    """The arguments of a push do not fit the signature of `perform`."""


class PayloadError(UsageError, ValueError):
    """A job that must not be pushed: a field is missing or malformed, or an argument is not plain JSON."""


class MiddlewareError(UsageError):
    """A middleware broke the contract of exactly one `yield`, or could not be built."""


class EmptyQueueError(UsageError):
    """A test asked for a pushed job, and there is none."""


class StoreError(PillionError):
    """The conversation with Redis failed. The subclasses say what that means for what was sent."""


class Unavailable(StoreError):
    """No connection could be made. Nothing was sent, so trying again is safe."""


class PoolTimeout(StoreError):
    """No pooled connection became free in time. Nothing was sent, so trying again is safe."""


class Refused(StoreError):
    """The server refused a command and did not execute it (READONLY, LOADING, NOPERM, WRONGTYPE, ...).

    `accepted` tells, for each command of the pipeline in order, whether the server took it.
    """

    def __init__(self, message: str, accepted: Sequence[bool] = ()) -> None:
        super().__init__(message)
        self.accepted = tuple(accepted)


class QueueFull(Refused):
    """The server is out of memory (`maxmemory` reached with `noeviction`) and takes no new jobs."""


class Ambiguous(StoreError):
    """Bytes were sent and the reply was lost: the commands may or may not have been executed.

    `accepted` tells, for each command of the pipeline in order, whether the server took it: True or False where that is
    known (False also for one that never left this process whole), None where it is not.
    """

    def __init__(self, message: str, accepted: Sequence[bool | None] = ()) -> None:
        super().__init__(message)
        self.accepted = tuple(accepted)


class PartlyEnqueued(StoreError):
    """A push that was refused or cut off half-way; nothing about it is uncertain.

    Attributes:
        confirmed: jids that are enqueued.
        unlisted: how many more are, of a lazy bulk push, which keeps no jids.
        unsent: jids that are not; the jobs of a bulk push that come after them were not even given a jid.
        cause: what went wrong.
    """

    def __init__(self, cause: str, *, confirmed: Sequence[str], unsent: Sequence[str], unlisted: int = 0) -> None:
        self.cause = cause
        self.confirmed = tuple(confirmed)
        self.unlisted = unlisted
        self.unsent = tuple(unsent)
        count = len(self.confirmed) + unlisted
        super().__init__(f"{count} jobs are enqueued, {len(self.unsent)} are not (.unsent): {cause}")


class MaybeEnqueued(StoreError):
    """A push whose reply was lost: some jobs may be enqueued. Nothing is sent again by itself.

    Attributes:
        confirmed: jids the server acknowledged.
        unlisted: how many more it did, of a lazy bulk push, which keeps no jids.
        unknown: jids that were sent without an answer; each may be enqueued.
        unsent: jids that are not enqueued; the jobs of a bulk push that come after them were not even given a jid.

    Push the unknown ones again only if the job may run twice, or push with `once=True` from the start: such a push
    is idempotent by jid and is retried by Pillion itself.
    """

    def __init__(
        self,
        *,
        confirmed: Sequence[str] = (),
        unknown: Sequence[str] = (),
        unsent: Sequence[str] = (),
        unlisted: int = 0,
    ) -> None:
        self.confirmed = tuple(confirmed)
        self.unlisted = unlisted
        self.unknown = tuple(unknown)
        self.unsent = tuple(unsent)
        super().__init__(
            f"the server's reply was lost: {len(self.confirmed) + unlisted} confirmed, {len(self.unknown)} unknown, "
            f"{len(self.unsent)} unsent; see .confirmed, .unknown and .unsent, or push with once=True, "
            "which is safe to repeat"
        )


class NotReplicated(StoreError):
    """The primary took the jobs, but fewer replicas than asked for confirmed them in time.

    The jobs exist on the primary and will run unless it fails over first.

    Attributes:
        jids: the jobs concerned.
        replicas: how many replicas confirmed; `wanted` is how many should have.
    """

    def __init__(self, jids: Sequence[str], replicas: int, wanted: int) -> None:
        self.jids = tuple(jids)
        self.replicas = replicas
        self.wanted = wanted
        super().__init__(
            f"{len(self.jids)} job(s) are on the primary, but {replicas} of {wanted} replica(s) confirmed in time; "
            "they will run unless the primary fails over first"
        )


class BadPayload(PillionError):
    """A stored job that can never run. `reason` is one short clause; the raw bytes go to the dead set untouched."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownJob(PillionError):
    """No job is registered under the payload's class name in this process."""


class PoisonPill(PillionError):
    """A job took its process along too often. Given to death handlers; never raised."""


class ProcessCrashed(PillionError):
    """The process of a job with `isolation="process"` ended without an answer; the message says how."""


class ProcessTimeout(PillionError, TimeoutError):
    """The process of a job with `isolation="process"` was killed because the job's `timeout` had passed."""


class BootError(PillionError):
    """The worker refuses to start. The message says what is wrong and how to cure it."""


class Shutdown(BaseException):
    """Raised inside a running job when the worker must leave before the job is done.

    The job is already back in its queue when this is raised, so it is never a failure: let it pass, use `finally` to
    clean up. A `BaseException`, so that `except Exception` does not swallow it. A job that sees `interrupted()` and
    wants to leave early may raise it itself: then it goes back to the head of its queue, and no retry is used up.
    """

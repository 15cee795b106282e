"""The nouns of the corridor: what crosses a doorway is one of these frozen values.

    call -> Payload -> (Redis) -> Claim -> Outcome -> Settlement -> (Redis)

A `Payload` is a plain dict, because middleware and foreign clients own its keys. The others are `msgspec.Struct`s: they
are made once per job on the hot path and must cost next to nothing.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import msgspec

from pillion.errors import UsageError

Payload: TypeAlias = dict[str, Any]
"""A job as it stands in Redis, decoded: `class`, `args`, `queue`, `jid`, `retry`, ... (see `payload.py`)."""


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A job this process holds: its state in its owner's index, and its payload in a tray.

    Attributes:
        owner: the lease under which it was claimed; an outcome counts only while that owner still holds it.
        n: its number, rising within an owner in the order of claiming; it tells the tray and the place in it.
        queue: the queue it came from, which wins over the payload's own `queue`.
        raw: the payload's exact bytes.
    """

    owner: str
    n: int
    queue: str
    raw: bytes


class Done(msgspec.Struct, frozen=True, gc=False):
    """Ran to its end (or was skipped by middleware): remove it."""


class Retry(msgspec.Struct, frozen=True, gc=False):
    """Failed: write `payload` to the retry set, due at `at` (epoch seconds)."""

    at: float
    payload: bytes


class Dead(msgspec.Struct, frozen=True, gc=False):
    """Will not run again by itself: write `payload` to the dead set at `at` (epoch seconds)."""

    at: float
    payload: bytes


class Discard(msgspec.Struct, frozen=True, gc=False):
    """Dropped on purpose, with nothing left behind but `reason` in the log."""

    reason: str


class Requeue(msgspec.Struct, frozen=True, gc=False):
    """Not run, or not to its end: the untouched payload goes back to the head of its queue."""


class Snooze(msgspec.Struct, frozen=True, gc=False):
    """Asked to be run later, without failure: write `payload` to the schedule set, due at `at` (epoch seconds)."""

    at: float
    payload: bytes


Outcome: TypeAlias = Done | Retry | Dead | Discard | Requeue | Snooze


class Effect(msgspec.Struct, frozen=True, gc=False):
    """A feature's own write that rides with a settlement and happens only if the claim was still held.

    Attributes:
        name: the effect's Lua file in `store/lua/effects/`, without its suffix.
        keys: every Redis key it touches.
        args: its arguments.
    """

    name: str
    keys: tuple[str, ...] = ()
    args: tuple[str | bytes | int | float, ...] = ()


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """A claim with the outcome that is to be written for it."""

    claim: Claim
    outcome: Outcome
    effects: tuple[Effect, ...] = ()


class Later(msgspec.Struct, frozen=True):
    """What `snooze()` gives a job to return."""

    seconds: float


class Drop(msgspec.Struct, frozen=True):
    """What `discard()` gives a job to return."""

    reason: str


def snooze(seconds: float) -> Later:
    """Return this from a job to run it again later: `return pillion.snooze(60)`.

    The same job (jid, arguments) goes to the schedule set in one step with its acknowledgement. It is no failure and
    uses up no retry. Raises UsageError for what is no finite number.
    """
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise UsageError(
            f"expected a finite number of seconds, got {seconds!r}; pass how long to wait, e.g. snooze(60)"
        )
    return Later(float(seconds))


def discard(reason: str) -> Drop:
    """Return this from a job to drop it: `return pillion.discard("account was deleted")`. Only a log line remains.

    Raises UsageError for a reason that is not text.
    """
    if not isinstance(reason, str):
        raise UsageError(f"expected a reason in words, got {type(reason).__name__}; write discard(str(reason))")
    return Drop(reason)

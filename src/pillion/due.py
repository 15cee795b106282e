"""When a push is due: from what people pass (`300`, a timedelta, a datetime) to epoch seconds, or to "now".

Used by the enqueue verbs only. Sidekiq's one convention is kept: a number from 1,000,000,000 on is an absolute time
even where an interval is expected. What is due already needs no schedule and is pushed at once. `owner` names the job
in errors.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from pillion.errors import PayloadError

ABSOLUTE_FROM = 1_000_000_000
HORIZON = 10 * 366 * 86_400.0


def after(owner: str, interval: float | timedelta, now: float) -> float | None:
    """The epoch seconds that lie `interval` (seconds or a timedelta) after `now`, or None if that is not in the future.

    Raises:
        PayloadError: not a span of time, or further than ten years from `now`.
    """
    seconds = check_interval(owner, interval)
    return _ahead(owner, seconds if seconds >= ABSOLUTE_FROM else now + seconds, now, interval)


def moment(owner: str, when: float | datetime, now: float) -> float | None:
    """The epoch seconds of `when` (an aware datetime, or epoch seconds), or None if that is not in the future.

    Raises:
        PayloadError: not a moment, a datetime without time zone, or further than ten years from `now`.
    """
    return _ahead(owner, check_moment(owner, when), now, when)


def check_interval(owner: str, interval: object) -> float:
    """`interval` in seconds.

    Raises:
        PayloadError: it is neither a finite number nor a timedelta.
    """
    if isinstance(interval, timedelta):
        return interval.total_seconds()
    if _is_number(interval):
        return float(interval)  # type: ignore[arg-type]
    cure = "use perform_at or wait_until for a moment" if isinstance(interval, datetime) else "write for example 300"
    raise PayloadError(f"{owner}: expected an interval in seconds or a timedelta, got {interval!r:.80}; {cure}")


def check_moment(owner: str, when: object) -> float:
    """`when` as epoch seconds.

    Raises:
        PayloadError: it is neither a finite number nor an aware datetime.
    """
    if isinstance(when, datetime):
        if when.utcoffset() is None:
            raise PayloadError(
                f"{owner}: expected a datetime with a time zone, got the naive {when!r}, which means another moment "
                "on another host; write datetime.now(UTC) + ..., or when.astimezone() for this host's zone"
            )
        return when.timestamp()
    if _is_number(when):
        return float(when)  # type: ignore[arg-type]
    cure = "use perform_in or wait for an interval" if isinstance(when, timedelta) else "write datetime.now(UTC) + ..."
    raise PayloadError(f"{owner}: expected an aware datetime or epoch seconds, got {when!r:.80}; {cure}")


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _ahead(owner: str, at: float, now: float, given: object) -> float | None:
    if abs(at - now) > HORIZON:
        raise PayloadError(
            f"{owner}: expected a time within ten years of now, got {given!r:.80}, which is {_read(at)}; "
            "an interval belongs to perform_in, a moment in seconds (not milliseconds) to perform_at"
        )
    return at if at > now else None


def _read(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return f"{at:g} s since 1970"

"""One stored job as people see it: its fields, its times, what to show of it.

Made by every class that lists jobs, from the exact bytes in Redis, which stay in `value`: whatever is deleted or moved
goes by those. The bytes were written by anyone. Nothing here raises for what they hold; what cannot be read has no
fields and is shown raw. `display_class` and `display_args` are what a page should show (`activejob.py` has the rules of
Rails's jobs); whoever writes HTML escapes them. Nothing here talks to Redis."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec

from pillion import activejob
from pillion.clock import Clock, SystemClock
from pillion.errors import BadPayload
from pillion.payload import decode, read_tags, read_time, splice
from pillion.retry import unpack_backtrace

ENCRYPTED = "[encrypted data]"


class JobRecord:
    """A stored job.

    Attributes:
        value: its exact bytes.
        queue: the queue it stands in or, where it waits elsewhere, the one it is meant for.
    """

    def __init__(self, value: bytes, queue: str | None = None, clock: Clock | None = None) -> None:
        self.value = value
        self._queue = queue
        self._clock = clock or SystemClock()

    @cached_property
    def item(self) -> dict[str, Any]:
        """All its fields; none where its bytes are no JSON object."""
        return _fields(self.value)

    @cached_property
    def fault(self) -> str | None:
        """Why no worker can run it, as a clause, or None."""
        try:
            decode(self.value)
        except BadPayload as bad:
            return bad.reason
        return None

    def __getitem__(self, name: str) -> Any:
        """A field, None where it has none of that name."""
        return self.item.get(name)

    @property
    def queue(self) -> str | None:
        return self._queue if self._queue is not None else self._text("queue")

    @property
    def klass(self) -> str | None:
        """The `class` that a worker looks up; of a Rails job, the wrapper."""
        return self._text("class")

    @property
    def jid(self) -> str:
        """Its id; "" where it has none."""
        jid = self["jid"]
        return jid if isinstance(jid, str) else "" if jid is None else str(jid)

    @property
    def bid(self) -> str | None:
        """The batch it belongs to."""
        return self._text("bid")

    @property
    def args(self) -> list[Any]:
        """Its arguments; of a job that cannot be read, its text as the only one."""
        if not self.item:
            return [self.value.decode("utf-8", "replace")]
        args = self["args"]
        return args if isinstance(args, list) else []

    @property
    def tags(self) -> list[str]:
        return read_tags(self["tags"])

    @property
    def display_class(self) -> str:
        """The class as people know it: of a Rails job the real one, of a mail `Mailer#method`."""
        shown = _try(lambda: activejob.shown_class(self._complete()))
        return str(shown) if shown else self.klass or ""

    @property
    def display_args(self) -> list[Any]:
        """The arguments as people know them: of a Rails job the real ones; what is encrypted is not shown."""
        if self["encrypt"] and self.klass not in activejob.WRAPPERS:
            return [*self.args[:-1], ENCRYPTED]
        shown = _try(lambda: activejob.shown_args(self._complete()))
        return shown if isinstance(shown, list) else self.args

    @property
    def created_at(self) -> datetime | None:
        """When it was made (UTC); where that was not noted, when it was pushed."""
        return self._time("created_at") or self._time("enqueued_at")

    @property
    def enqueued_at(self) -> datetime | None:
        """When it was last put into a queue (UTC)."""
        return self._time("enqueued_at")

    @property
    def failed_at(self) -> datetime | None:
        """When it first failed (UTC)."""
        return self._time("failed_at")

    @property
    def retried_at(self) -> datetime | None:
        """When it last failed (UTC), from the second failure on."""
        return self._time("retried_at")

    @property
    def retry_count(self) -> int | None:
        """The number of the retry it waits for, from 0; None where it never failed."""
        count = self["retry_count"]
        return count if type(count) is int else None

    @property
    def error_class(self) -> str | None:
        return self._text("error_class")

    @property
    def error_message(self) -> str | None:
        return self._text("error_message")

    @property
    def error_backtrace(self) -> list[str]:
        """The lines of the last failure's backtrace, raising line first; empty where none was kept."""
        return unpack_backtrace(self["error_backtrace"])

    @property
    def is_error(self) -> bool:
        """Whether it failed."""
        return bool(self["error_class"])

    @property
    def latency(self) -> float:
        """Seconds since it was pushed, or where that was not noted, made; 0.0 where neither was or a clock is ahead."""
        since = read_time(self["enqueued_at"])
        if since is None:
            since = read_time(self["created_at"])
        return 0.0 if since is None else max(0.0, self._clock.now() - since)

    def touched_at(self) -> float:
        """The latest time it says it was made, pushed or failed at, in epoch seconds; 0.0 where it has none."""
        fields = ("created_at", "enqueued_at", "failed_at", "retried_at")
        return max((read_time(self[name]) or 0.0 for name in fields), default=0.0)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.display_class} {self.jid}>"  # no arguments: they may be private

    def _text(self, name: str) -> str | None:
        value = self[name]
        return value if isinstance(value, str) else None

    def _time(self, name: str) -> datetime | None:
        seconds = read_time(self[name])
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    def _complete(self) -> dict[str, Any]:
        return {**self.item, "class": self.klass or "", "args": self.args}


def plain_text(text: str) -> str:
    """A text as it stands in a job's bytes, whoever wrote them, or "" where that may differ (escapes)."""
    return text if text.isascii() and text.isprintable() and not {*text} & {*'"\\/<>&'} else ""


def _fields(raw: bytes) -> dict[str, Any]:
    try:
        return decode(raw)
    except BadPayload:
        pass
    try:
        found: dict[str, Any] = msgspec.json.decode(
            splice(raw, {})
        )  # `splice` has refused what is no object, or a bomb
    except (BadPayload, msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    return found


def _try(show: Callable[[], object]) -> object:
    """What a rule of display makes of a job that may break every rule; None where it cannot."""
    try:
        return show()
    except Exception:
        return None

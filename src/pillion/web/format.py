"""How figures, times and values are written for people: in the reader's language, short, and never misleading.

Every template has a `Format` as `f`. Times are relative to the page's own moment, with the exact time (UTC) in the
`datetime` and `title` of the element; the browser shows local time where the reader chose that. Values of jobs are cut
to a bound before they are written, so a large argument costs no page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from markupsafe import Markup

from pillion.web.words import Words

POINT = {"de": ",", "fr": ",", "es": ",", "pt": ","}
GROUP = {"de": ".", "fr": "\u202f", "es": ".", "pt": "."}
STEPS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))
SIZES = ("B", "KB", "MB", "GB", "TB")
NONE = "\N{EN DASH}"
DASH = Markup("\N{EN DASH}")
MOST_ARGS = 200
MOST_VALUE = 64_000


class Format:
    """The figures of one page: `words` give units and separators, `now` is its moment (epoch seconds)."""

    def __init__(self, words: Words, now: float) -> None:
        self.words = words
        self.now = now

    def number(self, value: float | None, digits: int = 0) -> str:
        """`18,412`, in the language's way; a dash for None."""
        if value is None:
            return NONE
        text = f"{value:,.{digits}f}"
        point, group = POINT.get(self.words.lang, "."), GROUP.get(self.words.lang, ",")
        return text.translate({ord(","): group, ord("."): point})

    def short(self, value: float | None) -> str:
        """`18,412`, `19.7k` from 100,000 on, `2.1M`."""
        if value is None or abs(value) < 100_000:
            return self.number(value)
        for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                scaled = value / size
                return f"{self.number(scaled, 0 if scaled >= 100 else 1)}{sign}"
        return self.number(value)

    def rate(self, value: float | None) -> str:
        """A figure per minute or second: with a decimal below 10."""
        return self.number(value, 1 if value is not None and 0 < abs(value) < 10 else 0)

    def percent(self, share: float | None, digits: int = 0) -> str:
        """`62 %` of a share between 0 and 1."""
        return NONE if share is None else f"{self.number(share * 100, digits)}\u00a0%"

    def size(self, count: float | None) -> str:
        """Bytes as `14.2 MB`."""
        if count is None:
            return NONE
        value, unit = float(count), SIZES[0]
        for unit in SIZES:
            if value < 1024 or unit == SIZES[-1]:
                break
            value /= 1024
        return f"{self.number(value, 1 if value < 100 and unit != 'B' else 0)}\u00a0{unit}"

    def span(self, seconds: float | None) -> str:
        """A length of time by its two largest units: `230 ms`, `4.1 s`, `4 min 11 s`, `2 h 5 min`, `3 d 4 h`."""
        if seconds is None:
            return NONE
        seconds = max(0.0, seconds)
        if seconds < 0.9995:
            return self._unit(self.number(seconds * 1000, 1 if 0 < seconds < 0.01 else 0), "ms")
        if seconds < 59.95:
            return self._unit(self.number(seconds, 1 if seconds < 10 else 0), "s")
        whole = round(seconds)
        for size, unit, lesser, name in STEPS:
            if whole >= size:
                rest = whole % size // lesser
                first = self._unit(self.number(whole // size), unit)
                return f"{first} {self._unit(str(rest), name)}" if rest and whole // size < 100 else first
        return self._unit("0", "s")

    def _unit(self, figure: str, unit: str) -> str:
        return str(self.words(f"unit.{unit}", n=figure))

    def when(self, time: float | datetime | None) -> Markup:
        """A `<time>`: `4 min ago` or `in 2 h`, exact on hover; a dash for None."""
        at = _epoch(time)
        if at is None:
            return DASH
        return Markup('<time datetime="{}" title="{} UTC" data-t="{}">{}</time>').format(
            _iso(at), _plain(at), int(at), self.ago(at)
        )

    def ago(self, time: float | datetime | None) -> str:
        """The words of `when`, without the element."""
        at = _epoch(time)
        if at is None:
            return NONE
        apart = self.now - at
        if abs(apart) < 1.5:
            return str(self.words("time.now"))
        key = "time.ago" if apart > 0 else "time.in"
        return str(self.words(key, span=self._coarse(abs(apart))))

    def _coarse(self, seconds: float) -> str:
        for size, unit, _, _ in STEPS:
            if seconds >= size:
                return self._unit(str(int(seconds // size)), unit)
        return self._unit(str(int(seconds)), "s")

    def clock(self, time: float | datetime | None) -> Markup:
        """A `<time>` that shows the hour and minute; the browser makes it local where that was chosen."""
        at = _epoch(time)
        if at is None:
            return DASH
        shown = _plain(at)
        text = shown[11:16] if abs(self.now - at) < 86_400 / 2 else shown[5:16]
        return Markup('<time datetime="{}" title="{} UTC" data-clock>{}</time>').format(_iso(at), shown, text)

    def exact(self, time: float | datetime | None) -> Markup:
        """A `<time>` with date and seconds."""
        at = _epoch(time)
        if at is None:
            return DASH
        return Markup('<time datetime="{}" title="{} UTC" data-exact>{} UTC</time>').format(
            _iso(at), _plain(at), _plain(at)
        )

    def args(self, values: Sequence[Any], most: int = MOST_ARGS) -> str:
        """Arguments in one line, `7, "welcome", {"a": 1}`, cut after `most` signs."""
        parts: list[str] = []
        left = most
        for value in values:
            text = self.json(value, left + 1)
            parts.append(text)
            left -= len(text) + 2
            if left <= 0:
                break
        line = ", ".join(parts)
        return line if len(line) <= most and left > 0 else f"{line[:most]}…"

    def json(self, value: Any, most: int = MOST_VALUE) -> str:
        """A value as JSON, cut after `most` signs."""
        try:
            text = msgspec.json.encode(value).decode("utf-8", "replace")
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
            text = repr(value)
        return text if len(text) <= most else f"{text[:most]}…"

    def pretty(self, value: Any, most: int = MOST_VALUE) -> str:
        """A value as JSON over several lines, cut after `most` signs."""
        try:
            text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode("utf-8", "replace")
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
            text = repr(value)
        return text if len(text) <= most else f"{text[:most]}…"


def _epoch(time: float | datetime | None) -> float | None:
    """Epoch seconds of a time; None for none, and for one that no calendar has."""
    if time is None:
        return None
    try:
        at = time.timestamp() if isinstance(time, datetime) else float(time)
        datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return at


def _iso(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _plain(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"

"""How commands write rows, figures and times for people: plain columns, short spans, nothing that a terminal obeys.

`safe` is for every text that came out of Redis: anyone may have written it, and a job's argument must not move the
cursor or colour the screen. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from pillion.mask import mask_secrets

NONE = "-"
GAP = "  "
STEPS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def safe(text: object, most: int = 0) -> str:
    """A text in one line, cut after `most` signs, passwords masked, with signs that cannot be seen as escapes."""
    raw = mask_secrets(str(text))
    line = "".join(sign if sign.isprintable() else " " if sign in "\n\t" else ascii(sign)[1:-1] for sign in raw)
    return f"{line[: most - 1]}…" if most and len(line) > most else line


def number(value: float) -> str:
    """`18,412`."""
    return f"{value:,.0f}"


def span(seconds: float | None) -> str:
    """A length of time by its two largest units: `230 ms`, `4.1 s`, `4 min 11 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds is None:
        return NONE
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds else "0 s"
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    size, unit, lesser, name = next(step for step in STEPS if whole >= step[0])
    rest = whole % size // lesser
    return f"{whole // size} {unit}" + (f" {rest} {name}" if rest and whole // size < 100 else "")


def moment(at: float | datetime | None) -> str:
    """`2026-11-22 11:43:00 UTC`."""
    if at is None:
        return NONE
    time = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def ago(at: float | datetime | None, now: float) -> str:
    """`4 min 11 s ago`, or `in 2 h`."""
    if at is None:
        return NONE
    apart = now - (at.timestamp() if isinstance(at, datetime) else at)
    return f"{span(apart)} ago" if apart >= 0 else f"in {span(-apart)}"


def about(at: float | None, now: float) -> str:
    """The same by its largest unit, where there is little room: `4 min`, `in 2 h`."""
    if at is None:
        return NONE
    words = span(abs(now - at)).split()[:2]
    return f"{'in ' if at > now else ''}{' '.join(words)}"


def size(count: float) -> str:
    """Bytes as `14.2 MB`."""
    for unit in ("B", "KB", "MB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GB"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[str] = ()) -> str:
    """Columns under their heads, each as wide as its widest value; those in `right` stand to the right."""
    lines = [tuple(heads), *(tuple(safe(value) for value in row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    aligned = [head in right for head in heads]
    return "\n".join(
        GAP.join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, aligned, strict=True)
        ).rstrip()
        for line in lines
    )


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    """Names and values, one pair a line."""
    listed = [(name, safe(value)) for name, value in rows]
    width = max((len(name) for name, _ in listed), default=0)
    return "\n".join(f"{name:<{width}}{GAP}{value}".rstrip() for name, value in listed)

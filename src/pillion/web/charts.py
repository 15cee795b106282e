"""Charts that the server draws: SVG whose colours are classes, so it obeys light, dark and a strict CSP.

Templates call these as `c.spark(...)`. Each takes plain figures and gives markup with a text for those who cannot see
it (`role="img"` and a label); what the label says is the caller's, in the reader's language. Sizes are a view box: the
style sheet scales it. Points are thinned to what a chart of that width can show. Pure; no style attribute anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import ceil, log10

import msgspec
from markupsafe import Markup
from markupsafe import escape as escaped

from pillion.web.redaction import visible

HEATS = 9
BASE = 18.0  # where the labels of the time axis stand, below the drawing
ROOM = 12.0  # above the highest figure
SIDE = 34.0  # where the figures of the other axis stand, before it


class Mark(msgspec.Struct, frozen=True):
    """A deploy on a chart: its place from 0 to 1, and its label."""

    at: float
    label: str


def spark(values: Sequence[float], label: str = "", width: int = 88, height: int = 22) -> Markup:
    """A small line with its area; an empty one for fewer than two values."""
    top = max(values, default=0.0)
    points = _points(values, width, height - 2, top)
    body = ""
    if points and top > 0:
        line = " ".join(points)
        body = f'<path class="c-area" d="M0,{height}L{line}L{width},{height}Z"/><path class="c-line" d="M{line}"/>'
    else:
        body = f'<path class="c-grid" d="M0,{height - 1}H{width}"/>'
    return _svg("spark", width, height, label, body, stretch=True)


def bars(
    values: Sequence[float],
    label: str,
    names: Sequence[str] = (),
    bad: Sequence[float] = (),
    axis: Sequence[tuple[float, str]] = (),
    marks: Sequence[Mark] = (),
    height: int = 120,
    width: int = 640,
) -> Markup:
    """Bars over an axis: runs below, `bad` of each in another colour at their foot. `names` are shown on hover."""
    top = nice(max(values, default=0.0))
    each = (width - SIDE) / max(1, len(values))
    parts = [*_grid(top, width, height)]
    for i, value in enumerate(values):
        if value <= 0:
            continue
        tall = max(1.0, value / top * (height - ROOM))
        low = min(tall, bad[i] / top * (height - ROOM)) if i < len(bad) and bad[i] > 0 else 0.0
        low = max(1.5, low) if low else 0.0
        x, wide = SIDE + i * each + each * 0.12, max(1.0, each * 0.76)
        title = f"<title>{escape(names[i])}</title>" if i < len(names) else ""
        parts.append(f'<rect class="c-bar" x="{x:.1f}" y="{height - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}">')
        parts.append(f"{title}</rect>")
        if low:
            parts.append(
                f'<rect class="c-fail" x="{x:.1f}" y="{height - low:.1f}" width="{wide:.1f}" height="{low:.1f}"/>'
            )
    parts += _marks(marks, width, height)
    parts += _axis(axis, width, height, SIDE)
    return _svg("bars", width, height + (BASE if axis else 2), label, "".join(parts))


def lines(
    runs: Sequence[float],
    failures: Sequence[float],
    label: str,
    axis: Sequence[tuple[float, str]] = (),
    marks: Sequence[Mark] = (),
    width: int = 720,
    height: int = 180,
) -> Markup:
    """Throughput: runs as a line over their area, failures as a line, deploys dashed. The page before any script."""
    top = nice(max([*runs, *failures], default=0.0))
    parts = [*_grid(top, width, height)]
    if points := _points(runs, width, height, top):
        line = " ".join(points)
        parts.append(
            f'<path class="c-area" d="M0,{height}L{line}L{width},{height}Z"/><path class="c-line" d="M{line}"/>'
        )
    if any(failures) and (points := _points(failures, width, height, top)):
        parts.append(f'<path class="c-fline" d="M{" ".join(points)}"/>')
    parts += _marks(marks, width, height)
    parts += _axis(axis, width, height, SIDE)
    return _svg("lines", width, height + BASE, label, "".join(parts))


def heat(
    columns: Sequence[Sequence[float]],
    label: str,
    rows: Sequence[str] = (),
    axis: Sequence[tuple[float, str]] = (),
    names: Sequence[str] = (),
    width: int = 720,
    cell: int = 11,
) -> Markup:
    """A heat map: a column per moment, a row per slot from the fastest at the bottom, darker for more runs.

    `names` are the moments, shown on hover with the row and the figure. Empty cells are not drawn: most are.
    """
    high = max((value for column in columns for value in column), default=0.0)
    many, left = max((len(column) for column in columns), default=0), 46.0
    each = (width - left) / max(1, len(columns))
    tall = many * cell
    parts = [f'<rect class="c-0" x="{left}" y="0" width="{width - left}" height="{tall}" rx="3"/>']
    for i, column in enumerate(columns):
        for j, value in enumerate(column):
            if value <= 0:
                continue
            word = f"{names[i]} · " if i < len(names) else ""
            word += f"{rows[j]} · " if j < len(rows) else ""
            parts.append(
                f'<rect class="c-{warmth(value, high)}" x="{left + i * each:.1f}" y="{(many - 1 - j) * cell}" '
                f'width="{max(1.0, each - 0.6):.1f}" height="{cell - 0.6}">'
                f"<title>{escape(word)}{value:g}</title></rect>"
            )
    for j in range(0, len(rows), 3):
        y = (many - j) * cell - 2
        parts.append(f'<text class="c-text c-end" x="{left - 6}" y="{y}">{escape(rows[j])}</text>')
    parts += _axis(axis, width, tall, left)
    return _svg("heat", width, tall + BASE, label, "".join(parts))


def escape(text: str) -> Markup:
    """A text as it may be drawn."""
    return escaped(visible(text))


def data(values: object) -> str:
    """Figures for the page's script, as the text of an attribute."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False)


def warmth(value: float, high: float) -> int:
    """Which of nine colours: by the root of the share, since a few runs should show beside many."""
    return max(1, min(HEATS, ceil((value / high) ** 0.5 * HEATS))) if value > 0 and high > 0 else 0


def nice(top: float) -> float:
    """The next round figure: 1, 2, 5, 10, 20, ..."""
    if top <= 1:
        return 1.0
    power = float(10 ** int(log10(top)))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= top)


def thin(values: Sequence[float], most: int) -> list[float]:
    """At most so many of them: of each stretch the highest, so that no peak is lost."""
    if len(values) <= most:
        return list(values)
    step = len(values) / most
    return [max(values[int(i * step) : max(int(i * step) + 1, int((i + 1) * step))]) for i in range(most)]


def _points(
    values: Sequence[float], width: int, height: int, top: float, left: float = 0.0, room: float = 0.0
) -> list[str]:
    if len(values) < 2 or top <= 0:
        return []
    shown = thin(values, max(2, width // 2))
    step = (width - left) / (len(shown) - 1)
    tall = height - room
    return [f"{left + i * step:.1f},{max(1.0, height - value / top * tall):.1f}" for i, value in enumerate(shown)]


def _grid(top: float, width: int, height: int) -> list[str]:
    parts: list[str] = []
    for share, text in ((0.0, "0"), (0.5, _figure(top / 2)), (1.0, _figure(top))):
        y = height - share * (height - ROOM)
        parts.append(f'<path class="c-grid" d="M{SIDE},{y:.1f}H{width}"/>')
        parts.append(f'<text class="c-text c-end" x="{SIDE - 6}" y="{y + 3.5:.1f}">{text}</text>')
    return parts


def _figure(value: float) -> str:
    for size, sign in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{sign}"
    return f"{value:g}"


def _axis(axis: Sequence[tuple[float, str]], width: int, height: float, left: float = 0.0) -> list[str]:
    """Labels below a chart: (place from 0 to 1, text)."""
    parts: list[str] = []
    for at, text in axis:
        x, edge = left + at * (width - left), " c-end" if at > 0.96 else " c-mid" if at > 0.03 else ""
        parts.append(f'<text class="c-text{edge}" x="{x:.1f}" y="{height + 14:.1f}">{escape(text)}</text>')
    return parts


def _marks(marks: Sequence[Mark], width: int, height: int) -> list[str]:
    shown = [(SIDE + mark.at * (width - SIDE), escape(mark.label)) for mark in marks if 0 <= mark.at <= 1]
    return [f'<path class="c-mark" d="M{x:.1f},0V{height}"><title>{label}</title></path>' for x, label in shown]


def _svg(name: str, width: float, height: float, label: str, body: str, *, stretch: bool = False) -> Markup:
    said = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    fit = ' preserveAspectRatio="none"' if stretch else ""
    return Markup(f'<svg class="{name}" viewBox="0 0 {width:g} {height:g}"{fit} {said}>{body}</svg>')  # noqa: S704

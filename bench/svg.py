"""Bar charts as SVG, by hand: a row per peer, a bar for the median, a whisker from the smallest to the largest round.

They are read on light and on dark pages, so their colours follow the reader's scheme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

ROW, LEFT, WIDTH, RIGHT, TOP = 24, 120, 470, 170, 44

STYLE = """<style>
 text { font: 12px system-ui, sans-serif; fill: #333 } .head { font-weight: 600; font-size: 13px }
 .bar { fill: #9aa7b5 } .ours { fill: #c2410c } .whisker { stroke: #333; stroke-width: 1.2 } .soft { fill: #777 }
 @media (prefers-color-scheme: dark) {
  text { fill: #ddd } .bar { fill: #5b6a7a } .ours { fill: #f97316 } .whisker { stroke: #ddd } .soft { fill: #999 }
 }
</style>"""


class Bar(NamedTuple):
    """A row: its label, the median, the extremes, and whether it is ours."""

    label: str
    value: float
    low: float
    high: float
    ours: bool


def bars(title: str, unit: str, rows: Sequence[Bar], *, logarithmic: bool = False) -> str:
    """The chart. A logarithmic one begins at a third of its smallest value, and says that it is logarithmic."""
    height = TOP + ROW * len(rows) + 8
    note = f"{unit}, logarithmic" if logarithmic else unit
    largest = max(row.high for row in rows)
    smallest = min(row.low for row in rows) / 3

    def length(value: float) -> float:
        if not logarithmic:
            return WIDTH * value / largest
        return WIDTH * math.log(max(value, smallest) / smallest) / math.log(largest / smallest)

    body = [line for number, row in enumerate(rows) for line in drawn(row, TOP + ROW * number, length)]
    width = LEFT + WIDTH + RIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(title)} ({escape(note)})</title>",
            STYLE,
            f'<text class="head" x="0" y="16">{escape(title)}</text>',
            f'<text class="soft" x="0" y="33">{escape(note)}</text>',
            *body,
            "</svg>",
            "",
        ]
    )


def drawn(row: Bar, top: int, length: object) -> list[str]:
    """Label, bar, whisker and value of one row."""
    assert callable(length)
    end, low, high = (length(value) for value in (row.value, row.low, row.high))
    middle = top + ROW / 2
    look = "bar ours" if row.ours else "bar"
    return [
        f'<text x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(row.label)}</text>',
        f'<rect class="{look}" x="{LEFT}" y="{top + 4}" width="{max(end, 1):.1f}" height="{ROW - 8}" rx="2"/>',
        f'<line class="whisker" x1="{LEFT + low:.1f}" x2="{LEFT + high:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{LEFT + max(end, high) + 8:.1f}" y="{middle + 4}">{figure(row.value)}</text>',
    ]


def figure(value: float) -> str:
    """Three significant figures, thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

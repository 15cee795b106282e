"""A straight line through measurements, and how sure its slope is.

Samples that follow one another resemble each other, which makes a line look surer than it is. So they are first
averaged over blocks of some minutes, and the interval is drawn from the blocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

BLOCK = 300.0
LEAST_BLOCKS = 4
HOUR = 3600.0

Point = tuple[float, float]
"""Seconds, value."""


@dataclass(frozen=True)
class Slope:
    """Change per hour.

    Attributes:
        value: by least squares.
        low, high: its interval of 95 %.
        mean: of the values.
        blocks: how many points the line goes through.
        hours: how long they span.
    """

    value: float
    low: float
    high: float
    mean: float
    blocks: int
    hours: float


def slope(points: Iterable[Point], block: float = BLOCK) -> Slope | None:
    """The slope of these measurements; None where they span fewer than four blocks."""
    means = blocks(points, block)
    if len(means) < LEAST_BLOCKS:
        return None
    xs, ys = [at / HOUR for at, _ in means], [value for _, value in means]
    x, y = fmean(xs), fmean(ys)
    spread = sum((each - x) ** 2 for each in xs)
    value = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread
    rest = sum((b - y - value * (a - x)) ** 2 for a, b in zip(xs, ys, strict=True))
    free = len(means) - 2
    margin = student(free) * (rest / free / spread) ** 0.5
    return Slope(value, value - margin, value + margin, y, len(means), xs[-1] - xs[0])


def blocks(points: Iterable[Point], length: float) -> list[Point]:
    """The mean time and value of each block of that many seconds, in order."""
    groups: dict[int, list[Point]] = defaultdict(list)
    for at, value in points:
        groups[int(at // length)].append((at, value))
    return [(fmean(at for at, _ in group), fmean(value for _, value in group)) for _, group in sorted(groups.items())]


def student(free: int) -> float:
    """The 97.5 % point of Student's t with so many degrees of freedom, to one per cent from 2 on.

    By the expansion of Cornish and Fisher around the normal distribution's.
    """
    z = NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / free**power for power, term in enumerate(terms, 1))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0

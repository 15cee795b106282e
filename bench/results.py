"""The little arithmetic of the benchmark: medians, percentiles, and samples side by side."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

__all__ = ["Results", "median", "percentiles"]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p99, p99.9 and the largest, each a value that occurred, and how many values there were."""
    ordered = sorted(values)
    at = {name: ordered[min(len(ordered) - 1, int(len(ordered) * part))] for name, part in PARTS.items()}
    return {**at, "max": ordered[-1], "count": float(len(ordered))}


PARTS = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


class Results:
    """The raw samples of one run: each has a workload, a peer, a round, and figures."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.samples: list[dict[str, Any]] = raw["samples"]

    def values(self, workload: str, peer: str, figure: str) -> list[float]:
        """A figure of every round, by round."""
        return [
            sample[figure]
            for sample in self.samples
            if sample["workload"] == workload and sample["peer"] == peer and figure in sample
        ]

    def middle(self, workload: str, peer: str, figure: str) -> float | None:
        """The median of a figure, or None where it was not measured."""
        values = self.values(workload, peer, figure)
        return median(values) if values else None

    def ratio(self, workload: str, figure: str, over: str, under: str) -> float | None:
        """The median over rounds of one peer's figure through another's in the same round."""
        pairs = [
            above / below
            for number in self.rounds()
            for above, below in [(self.one(workload, over, figure, number), self.one(workload, under, figure, number))]
            if above is not None and below
        ]
        return median(pairs) if pairs else None

    def one(self, workload: str, peer: str, figure: str, number: int) -> float | None:
        """A figure of one round."""
        for sample in self.samples:
            if (sample["workload"], sample["peer"], sample["round"]) == (workload, peer, number):
                return sample.get(figure)
        return None

    def rounds(self) -> list[int]:
        return sorted({sample["round"] for sample in self.samples})

    def peers(self, workload: str) -> list[str]:
        """Who took part, in the order of the first round."""
        return list(dict.fromkeys(sample["peer"] for sample in self.samples if sample["workload"] == workload))

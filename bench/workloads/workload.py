"""What a workload is, for those that define one and for the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.catalog import Peer
from bench.lab import Lab, Sample


@dataclass(frozen=True)
class Workload:
    """One thing to measure.

    Attributes:
        what: a line for the page.
        needs: what a peer must offer to take part.
        run: takes one sample of one peer.
        lead: the figure that the progress line and the page show first, and its unit.
        rounds: how often Pillion and Sidekiq are measured, and how often the others.
        bare: the same work without a job system, measured in every round.
    """

    name: str
    what: str
    needs: str
    run: Callable[[Lab, Peer], Sample]
    lead: tuple[str, str] = ("rate", "jobs/s")
    rounds: tuple[int, int] = (3, 1)
    bare: Callable[[Lab], Sample] | None = None

    def takes(self, peer: Peer, number: int) -> bool:
        """Whether this peer is measured in round `number`, from 0."""
        return self.needs in peer.offers and number < self.rounds[0 if peer.leads else 1]

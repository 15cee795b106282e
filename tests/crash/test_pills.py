"""A job that kills its process, among others that do not: only it dies."""

from __future__ import annotations

import pytest

from tests.crash.app import Neighbour, NeighbourAsync, Pill, Quick
from tests.crash.bed import Bed, Process, ended

pytestmark = pytest.mark.chaos
NEIGHBOURS = 9
EARLIER = "a-suspect-that-did-nothing"


def keep_alive(bed: Bed, workers: list[Process]) -> int:
    """Replace workers that died. Returns how many did."""
    dead = [i for i, process in enumerate(workers) if process.code is not None]
    for i in dead:
        workers[i] = bed.start(concurrency=NEIGHBOURS + 1)
    return len(dead)


@pytest.mark.slow
def test_of_a_pill_among_nine_neighbours_only_the_pill_dies(bed: Bed) -> None:
    folder = str(bed.folder)
    workers = [bed.start_ready(concurrency=NEIGHBOURS + 1)]
    deaths = 0
    bed.accuse(EARLIER)
    bed.push(Quick, 1, jid=EARLIER)
    bed.until(lambda: ended(bed, [EARLIER]) and bed.idle(), "an innocent suspect to be cleared", *workers)
    neighbours = bed.push_many(Neighbour, 5, folder)
    neighbours += bed.push_many(NeighbourAsync, 4, folder)
    pill = bed.push(Pill, NEIGHBOURS, folder)

    def settled() -> bool:
        nonlocal deaths
        deaths += keep_alive(bed, workers)
        return bed.standing().get("dead") == [pill] and bed.idle()

    bed.until(settled, "the pill to be buried", timeout=40)
    assert deaths == 3
    assert ended(bed, neighbours)
    assert bed.standing() == {"dead": [pill]}
    [first, *later] = [fact.what for fact in bed.ledger.facts(jid=pill) if fact.what in ("beside", "alone")]
    assert (first, later) == ("beside", ["alone", "alone"])
    bed.stop_all()

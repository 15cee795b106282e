"""What docs/scaling.md shows is what the scripts print of the results that are kept."""

from __future__ import annotations

import json

import pytest

from bench import ROOT, fleet, fleet_drain

PAGE = (ROOT / "docs" / "scaling.md").read_text()
RESULTS = ROOT / "bench" / "results"


@pytest.mark.parametrize("queues", [1, 10, 200])
def test_the_page_shows_the_fleet_that_was_measured(queues: int) -> None:
    points = json.loads((RESULTS / "fleet.json").read_text())["points"]
    assert fleet.table([point for point in points if point["queues"] == queues]) in PAGE


def test_the_page_shows_the_drain_that_was_measured() -> None:
    assert fleet_drain.table(json.loads((RESULTS / "fleet-drain.json").read_text())) in PAGE

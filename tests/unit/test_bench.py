"""The benchmark's arithmetic, verdicts and page, on results that are made up, and that what is published is its own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import ROOT, catalog, figures, page, svg
from bench.results import Results, percentiles
from bench.run import Plan
from bench.workloads import ALL, BY_NAME

PUBLISHED = ROOT / "bench" / "results" / "published.json"
PEERS = ROOT / "bench" / "peers"


def results(*samples: tuple[str, str, int, dict[str, float]], **about: Any) -> Results:
    """A run with these samples: workload, peer, round, figures."""
    raw = [{"workload": w, "peer": p, "round": number, **told} for w, p, number, told in samples]
    known = dict.fromkeys(("date", "server", "python", "machine", "system"), "?")
    known |= {"load": 0.1, "changed": False, "peers": {}, "skipped": {}}
    return Results({"about": known | about, "failed": [], "samples": raw})


def verdict(name: str, run: Results) -> figures.Verdict:
    [found] = [each for each in figures.verdicts(run) if each.figure.name == name]
    return found


DRAIN = "drain: jobs/s beside Sidekiq's"


@pytest.mark.parametrize(("ours", "word"), [(499.0, "MISSED"), (500.0, "ok")])
def test_a_figure_is_missed_or_reached(ours: float, word: str) -> None:
    run = results(("drain", "pillion", 0, {"rate": ours}), ("drain", "sidekiq", 0, {"rate": 100.0}))
    assert verdict(DRAIN, run).word == word


@pytest.mark.parametrize(("us", "word"), [(10.1, "MISSED"), (10.0, "ok")])
def test_a_figure_may_be_a_ceiling(us: float, word: str) -> None:
    assert verdict("drain: CPU per job", results(("drain", "pillion", 0, {"cpu_us": us}))).word == word


def test_what_was_not_measured_is_neither() -> None:
    run = results(("drain", "pillion", 0, {"rate": 5.0}), ("drain", "sidekiq", 1, {"rate": 1.0}))
    assert (verdict(DRAIN, run).word, verdict(DRAIN, run).got) == ("not measured", "-")


def test_ratios_are_those_of_the_same_round() -> None:
    """A machine that is three times as slow in one round disturbs neither side's ratio."""
    rounds = [(number, speed) for number, speed in enumerate((1.0, 0.3, 1.0))]
    ours = [("drain", "pillion", number, {"rate": 600 * speed}) for number, speed in rounds]
    theirs = [("drain", "sidekiq", number, {"rate": 100 * speed}) for number, speed in rounds]
    assert results(*ours, *theirs).ratio("drain", "rate", "pillion", "sidekiq") == pytest.approx(6)


def test_only_peers_that_lose_nothing_count_as_the_best_python_peer() -> None:
    samples = {"pillion": 1200.0, "huey": 600.0, "dramatiq": 80.0, "celery": 10.0}
    run = results(*(("drain", name, 0, {"rate": rate}) for name, rate in samples.items()))
    assert verdict("drain: jobs/s beside the best at-least-once Python peer's", run).value == 15


def test_percentiles_are_values_that_occurred() -> None:
    assert percentiles([float(n) for n in range(1, 1001)]) == {
        "p50": 501,
        "p99": 991,
        "p999": 1000,
        "max": 1000,
        "count": 1000,
    }
    assert percentiles([3.0])["p999"] == 3


def test_rounds_are_interleaved_and_the_leaders_are_measured_more_often() -> None:
    workloads = [BY_NAME["drain"], BY_NAME["bulk"]]
    plan = Plan(workloads, [catalog.BY_NAME[name] for name in ("pillion", "rq")], seconds=1, rounds=None, quick=False)
    steps = [(number, workload.name, peer.name if peer else "") for number, workload, peer in plan.steps()]
    assert steps[:5] == [
        (0, "drain", "pillion"),
        (0, "drain", "rq"),
        (0, "bulk", "pillion"),
        (0, "bulk", "rq"),
        (1, "drain", "pillion"),
    ]
    assert [number for number, *who in steps if who == ["drain", "pillion"]] == [0, 1, 2, 3, 4]


def test_every_workload_can_be_run_by_pillion() -> None:
    ours = catalog.BY_NAME["pillion"].offers
    assert [workload.name for workload in ALL if workload.needs not in ours] == []


@pytest.mark.parametrize("peer", catalog.PEERS, ids=lambda peer: peer.name)
def test_a_peer_has_a_file_and_pinned_versions(peer: catalog.Peer) -> None:
    file = PEERS / (peer.app if peer.is_ruby else f"{peer.app}.py")
    assert re.search(r"(?i)at (least|most) once", file.read_text().partition("import")[0])
    if not (peer.is_ruby or peer.is_ours):
        lines = (ROOT / "bench" / "requirements" / f"{peer.name}.txt").read_text().splitlines()
        assert [line for line in lines if not re.match(r"[\w\[\],-]+==[\w.]+( +#.*)?$", line)] == []


def test_the_page_tells_what_was_measured_and_nothing_else(tmp_path: Path) -> None:
    run = results(
        ("drain", "pillion", 0, {"rate": 1000.0, "cpu_us": 5.0}),
        ("drain", "pillion", 1, {"rate": 3000.0, "cpu_us": 7.0}),
        ("drain", "sidekiq", 0, {"rate": 500.0, "cpu_us": 50.0}),
        peers={"pillion": {"versions": "pillion 1", "promise": "at least once"}},
        skipped={"arq": "no <network>"},
    )
    written = page.write(run, tmp_path)
    text = (tmp_path / "benchmarks.md").read_text()
    assert "| pillion | 2,000 [1,000-3,000] | 2.00 | 6 [5-7] |" in text
    assert "| sidekiq | 500 | 1.00 | 50 |" in text
    assert "arq did not take part: no <network>" in text
    assert "jobs that wait" not in text
    assert sorted(path.name for path in written) == ["benchmarks.md", "drain-cpu.svg", "drain-rate.svg"]
    assert sorted(re.findall(r"benchmarks/([\w-]+\.svg)", text)) == ["drain-cpu.svg", "drain-rate.svg"]


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_chart_is_xml_and_its_bars_are_in_proportion(logarithmic: bool) -> None:
    rows = [svg.Bar("a <b>", 100, 90, 110, True), svg.Bar("c", 1, 1, 1, False)]
    tree = ElementTree.fromstring(svg.bars("T & t", "jobs/s", rows, logarithmic=logarithmic))
    long, short = (float(each.attrib["width"]) for each in tree.iter("{http://www.w3.org/2000/svg}rect"))
    assert svg.WIDTH >= long > short > 0
    assert (long / short > 50) is not logarithmic


def test_the_published_page_is_what_the_published_results_give(tmp_path: Path) -> None:
    for path in page.write(Results(json.loads(PUBLISHED.read_text())), tmp_path):
        shown = ROOT / "docs" / path.relative_to(tmp_path)
        assert shown.read_text() == path.read_text(), f"{shown} is out of date: make bench-page"

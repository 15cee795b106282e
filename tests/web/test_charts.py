"""Charts that the server draws, and how figures and times are written."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from pillion.web import charts
from pillion.web.charts import Mark
from pillion.web.format import NONE, Format
from pillion.web.words import LANGUAGES, words_for

NOW = 1_795_347_780.0
DRAWN = {
    "spark": charts.spark([1, 5, 2, 8], "runs"),
    "no spark": charts.spark([], "runs"),
    "bars": charts.bars([3, 0, 9], "days", ["a", "b", "c"], [1, 0, 2], [(0, "a"), (1, "c")], [Mark(0.5, "v1 <x>")]),
    "no bars": charts.bars([], "days"),
    "lines": charts.lines([1, 2, 3], [0, 1, 0], "runs", [(0.0, "1"), (0.5, "2"), (1.0, "3")], [Mark(0.2, "<i>")]),
    "no lines": charts.lines([], [], "runs"),
    "heat": charts.heat([[0, 4], [1, 0]], "times", ["20ms", "<30ms"], [(0, "10:00")], ["10:00", "10:01"]),
    "no heat": charts.heat([], "times"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_each_chart_is_well_formed_labelled_and_styled_by_classes_only(name: str) -> None:
    tree = ElementTree.fromstring(DRAWN[name])
    assert tree.get("role") == "img"
    assert tree.get("aria-label")
    for element in tree.iter():
        assert not {"style", "fill", "stroke"} & set(element.attrib)
        assert not any(key.startswith("on") for key in element.attrib)


def test_labels_are_escaped() -> None:
    assert "<i>" not in DRAWN["lines"]
    assert "v1 <x>" not in DRAWN["bars"]
    assert "<b>" not in charts.spark([1, 2], "<b>")


def test_a_chart_without_words_is_hidden_from_screen_readers() -> None:
    assert ElementTree.fromstring(charts.spark([1, 2])).get("aria-hidden") == "true"


def test_bars_stand_as_high_as_their_figures() -> None:
    tree = ElementTree.fromstring(charts.bars([5, 10], "x", height=112))
    heights = [float(bar.get("height", 0)) for bar in tree.iter("rect")]
    assert heights == [50.0, 100.0]


def test_failures_show_however_few_they_are() -> None:
    tree = ElementTree.fromstring(charts.bars([100_000], "x", bad=[1]))
    [failed] = [bar for bar in tree.iter("rect") if bar.get("class") == "c-fail"]
    assert float(failed.get("height", 0)) >= 1.5


def test_a_heat_map_draws_what_is_not_empty() -> None:
    tree = ElementTree.fromstring(charts.heat([[0, 4, 1], [0, 0, 0]], "x", ["a", "b", "c"], names=["t0", "t1"]))
    cells = [cell for cell in tree.iter("rect") if cell.get("class") != "c-0"]
    assert [(cell.get("class"), cell[0].text) for cell in cells] == [("c-9", "t0 · b · 4"), ("c-5", "t0 · c · 1")]


@pytest.mark.parametrize(("value", "top", "shade"), [(0, 10, 0), (1, 100, 1), (100, 100, 9), (25, 100, 5), (5, 0, 0)])
def test_shades(value: float, top: float, shade: int) -> None:
    assert charts.warmth(value, top) == shade


@pytest.mark.parametrize(("top", "round_one"), [(0, 1), (1, 1), (3, 5), (11, 20), (23, 25), (480, 500), (1_001, 2_000)])
def test_axes_end_at_round_figures(top: float, round_one: float) -> None:
    assert charts.nice(top) == round_one


def test_thinning_keeps_the_peaks() -> None:
    values = [0.0] * 1_000
    values[537] = 9.0
    thinned = charts.thin(values, 50)
    assert len(thinned) == 50
    assert max(thinned) == 9.0
    assert charts.thin([1.0, 2.0], 50) == [1.0, 2.0]


def form(lang: str = "en") -> Format:
    return Format(words_for(lang), NOW)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, NONE),
        (0.0004, "0.4 ms"),
        (0.23, "230 ms"),
        (4.11, "4.1 s"),
        (59.9, "60 s"),
        (60, "1 min"),
        (251, "4 min 11 s"),
        (7_500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
        (400 * 86_400 + 3_600, "400 d"),
        (-5, "0 ms"),
    ],
)
def test_spans(seconds: float | None, text: str) -> None:
    assert form().span(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, NONE), (0, "0"), (18_412, "18,412"), (197_370, "197k"), (2_100_000, "2.1M"), (3e9, "3.0G")],
)
def test_short_figures(value: float | None, text: str) -> None:
    assert form().short(value) == text


def test_figures_in_other_languages() -> None:
    assert form("de").number(18_412.5, 1) == "18.412,5"
    assert form("fr").number(18_412) == "18\u202f412"
    assert form("ja").number(18_412) == "18,412"
    assert form("de").percent(0.125, 1) == "12,5\u00a0%"
    assert form().size(14_900_000) == "14.2\u00a0MB"
    assert form().size(12) == "12\u00a0B"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_times_carry_the_exact_moment(lang: str) -> None:
    drawn = form(lang).when(NOW - 240)
    assert 'datetime="2026-11-22T11:39:00Z"' in drawn
    assert 'title="2026-11-22 11:39:00 UTC"' in drawn
    assert re.search(r">[^<]*4[^<]*</time>", drawn)


def test_times_of_all_kinds() -> None:
    assert ">in 2 h<" in form().when(NOW + 7_300)
    assert ">just now<" in form().when(datetime.fromtimestamp(NOW, UTC))
    assert form().when(None) == form().when(1e18) == form().when(float("nan")) == NONE
    assert ">11:43<" in form().clock(NOW)
    assert ">11-20 11:43<" in form().clock(NOW - 2 * 86_400)
    assert ">2026-11-22 11:43:00 UTC<" in form().exact(NOW)


def test_arguments_are_cut_before_they_are_written() -> None:
    assert form().args([7, "welcome", {"a": 1}]) == '7, "welcome", {"a":1}'
    cut = form().args(["x" * 1_000_000, 2], 100)
    assert len(cut) == 101
    assert cut.endswith("…")
    assert form().args([1] * 100_000, 50).endswith("…")
    assert form().json(object()).startswith("<object")
    assert form().pretty([1, {"a": 2}]) == '[\n  1,\n  {\n    "a": 2\n  }\n]'

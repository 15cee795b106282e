"""Every rule of Sidekiq has a true row in `docs/compatibility.md`: proven, different for a reason, or later."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.compat.marks import Mark, collect_elsewhere
from tests.compat.page import PAGE, page, problems
from tests.compat.rules import Rule, load

RULES, HEADINGS = load()


@pytest.fixture(scope="module")
def marks() -> list[Mark]:
    """The marks of the whole suite, whatever part of it is being run."""
    return collect_elsewhere()


def test_every_rule_is_proven_or_says_why_not(marks: list[Mark]) -> None:
    assert list(problems(RULES, marks)) == []


def test_the_page_is_what_rules_and_marks_make(marks: list[Mark]) -> None:
    assert PAGE.read_text() == page(RULES, HEADINGS, marks), "run `make docs`"


def test_the_behaviours_of_sidekiqs_own_tests_are_all_there() -> None:
    numbers = (*range(1, 63), *range(67, 73))
    assert {rule.id for rule in RULES.values() if rule.area == "b9"} == {f"b9.{n}" for n in numbers}


@pytest.mark.parametrize(
    ("fields", "marked", "problem"),
    [
        ({}, [False], None),
        ({"differs": "why"}, [], None),
        ({"differs": "why"}, [True], None),
        ({"later": "what"}, [], None),
        ({}, [], "neither a test nor `differs` nor `later`"),
        ({}, [True], "marked instead=True, but the rule has no `differs`"),
        ({}, [False, True], "marked instead=True, but the rule has no `differs`"),
        ({"differs": "why"}, [False], "`differs`, but tests/t.py::test_0 is marked as its proof"),
        ({"later": "what"}, [False], "`later`, but tests/t.py::test_0 proves it"),
        ({"differs": "why", "later": "what"}, [], "both `differs` and `later`"),
    ],
)
def test_a_rule_and_its_marks_must_agree(fields: dict[str, Any], marked: list[bool], problem: str | None) -> None:
    marks = [Mark("a.b", f"tests/t.py::test_{n}", instead) for n, instead in enumerate(marked)]
    found = list(problems({"a.b": Rule("a.b", "A rule.", **fields)}, marks))
    assert len(found) == (problem is not None)
    assert all(problem in each for each in found if problem)


def test_a_mark_of_a_rule_that_does_not_exist_is_named_with_its_test() -> None:
    assert list(problems({}, [Mark("a.c", "tests/t.py::test_0", False)])) == [
        "a.c: no such rule, but tests/t.py::test_0 is marked with it"
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[a.b]\nrule = "A rule."\n[areas]\n', ValueError),
        ('[areas]\na = "A heading"\n', ValueError),
        ('[a.b]\nrules = "A slip."\n[areas]\na = "A heading"\n', TypeError),
    ],
)
def test_a_slip_in_the_list_of_rules_is_an_error(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        load(text)


def test_the_page_shows_each_status_and_counts_it() -> None:
    rules, headings = load(
        '[a.one]\nrule = "One | two."\n[a.two]\nrule = "Two."\ndiffers = "a reason"\n'
        '[b.three]\nrule = "Three."\nlater = "another feature"\n[areas]\nb = "Last"\na = "First"\n'
    )
    marks = [Mark("a.one", f"tests/t.py::test_{n}", False) for n in range(5)] + [Mark("a.two", "tests/u.py::t", True)]
    made = page(rules, headings, marks)
    assert [line for line in made.splitlines() if line.startswith(("## ", "| `"))] == [
        "## Last",
        "| `b.three` | Three. | later: another feature |  |",
        "## First",
        "| `a.one` | One \\| two. | proven | " + "<br>".join(f"`tests/t.py::test_{n}`" for n in range(5)) + " |",
        "| `a.two` | Two. | different: a reason | `tests/u.py::t` |",
    ]
    for line in ("| proven | 1 |", "| different | 1 |", "| later | 1 |", "| in all | 3 |"):
        assert line in made
    random.Random(1).shuffle(marks)
    assert page(rules, headings, marks) == made

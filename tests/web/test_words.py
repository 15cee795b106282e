"""The words of the pages: every language complete, every text usable, and who reads which."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

from pillion.web import words
from pillion.web.words import LANGUAGES, Words, choose, plural, words_for

WEB = Path(words.__file__).parent
OTHERS = [lang for lang in LANGUAGES if lang != "en"]
FORMS = re.compile(r"^(count\.\w+)\.\w+$")
NEEDED = {"ja": {"other"}, "zh": {"other"}, "ar": {"zero", "one", "two", "few", "many", "other"}}


def keys(lang: str) -> set[str]:
    """The keys of a table, plural forms as one."""
    return {FORMS.sub(r"\1", key) for key in words._read(lang)}


def holes(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("lang", OTHERS)
def test_each_language_has_every_text(lang: str) -> None:
    assert keys(lang) == keys("en")


@pytest.mark.parametrize("lang", OTHERS)
def test_each_text_takes_what_the_english_one_takes(lang: str) -> None:
    english, other = words._read("en"), words._read(lang)
    shared = [key for key in other if key in english and not FORMS.match(key)]
    assert {key: holes(other[key]) for key in shared} == {key: holes(english[key]) for key in shared}


@pytest.mark.parametrize("lang", OTHERS)
def test_few_texts_are_left_as_in_english(lang: str) -> None:
    english, other = words._read("en"), words._read(lang)
    same = [key for key, text in other.items() if english.get(key) == text]
    assert len(same) < len(other) / 10, same


@pytest.mark.parametrize("lang", LANGUAGES)
def test_each_plural_has_the_forms_of_its_language(lang: str) -> None:
    forms: dict[str, set[str]] = {}
    for key in words._read(lang):
        if FORMS.match(key):
            name, _, form = key.rpartition(".")
            forms.setdefault(name, set()).add(form)
    assert set(map(frozenset, forms.values())) == {frozenset(NEEDED.get(lang, {"one", "other"}))}


def test_every_text_that_a_template_or_a_page_names_is_there() -> None:
    table = {FORMS.sub(r"\1", key) for key in words._read("en")}
    sources = [*(WEB / "templates").glob("*.html"), *WEB.rglob("*.py")]
    called = re.compile(r"""\b(?:t|t\.many|view\.t|words|words\.many)\(\s*["']([a-z]+\.[a-z_0-9]+)["']\s*[,)]""")
    given = re.compile(r"""key="([a-z]+\.[a-z_0-9]+)\"""")
    named = {name for path in sources for found in (called, given) for name in found.findall(path.read_text())}
    assert len(named) > 200
    assert sorted(named - table - {"queues.title"}) == []  # an example in a docstring


def test_no_text_is_left_over() -> None:
    sources = [*(WEB / "templates").glob("*.html"), *WEB.rglob("*.py")]
    whole = "\n".join(path.read_text() for path in sources)
    made = {"search.term", "settings.theme_", "settings.zone_", "settings.density_"}
    groups = {
        "place",
        "act",
        "done",
        "state",
        "outcome",
        "role",
        "trouble",
        "stack",
        "operation",
        "empty",
        "line",
        "unit",
    }
    groups |= {"verdict"}
    left = [
        key
        for key in keys("en")
        if key.partition(".")[0] not in groups
        and not any(key.startswith(start) for start in made)
        and not re.search(rf"""["']{re.escape(key)}["']""", whole)
    ]
    assert left == []


@pytest.mark.parametrize(
    ("cookie", "accepted", "lang"),
    [
        (None, None, "en"),
        (None, "", "en"),
        ("", "de-DE,de;q=0.9,en;q=0.8", "de"),
        (None, "nl, pt-BR;q=0.7, fr;q=0.8", "fr"),
        (None, "sv;q=0.9, en;q=0.1", "en"),
        (None, "ar;q=0, ja", "ja"),
        ("zh", "de", "zh"),
        ("tlh", "de", "de"),
        (None, "de;q=x, es", "es"),
        (None, "x" * 10_000, "en"),
        (None, ",".join(f"x{i}" for i in range(50)) + ",de", "en"),
    ],
)
def test_who_reads_which_language(cookie: str | None, accepted: str | None, lang: str) -> None:
    assert choose(cookie, accepted) == lang


@pytest.mark.parametrize(
    ("lang", "forms"),
    [
        ("en", {0: "other", 1: "one", 2: "other"}),
        ("fr", {0: "one", 1: "one", 2: "other"}),
        ("ja", {0: "other", 1: "other"}),
        ("ar", {0: "zero", 1: "one", 2: "two", 3: "few", 10: "few", 11: "many", 100: "other", 103: "few", 111: "many"}),
    ],
)
def test_plural_forms(lang: str, forms: dict[int, str]) -> None:
    assert {count: plural(lang, count) for count in forms} == forms


def test_what_is_put_into_a_text_is_escaped() -> None:
    said = words_for("en")("queues.none_match", name="<b>x</b>")
    assert "&lt;b&gt;" in said
    assert "<b>" not in said


def test_a_missing_text_is_shown_by_its_key_and_an_extension_brings_its_own() -> None:
    german = words_for("de")
    assert german("billing.title") == "billing.title"
    more = german.with_more(
        {"en": {"billing.title": "Billing", "billing.x": "X"}, "de": {"billing.title": "Abrechnung"}}
    )
    assert (more("billing.title"), more("billing.x")) == ("Abrechnung", "X")
    assert more("place.dead") == "Tot"
    assert more.lang == "de"


def test_an_extension_cannot_change_our_words() -> None:
    assert words_for("en").with_more({"en": {"place.dead": "Fine"}})("place.dead") == "Dead"


def test_only_arabic_runs_from_right_to_left() -> None:
    assert {lang for lang in LANGUAGES if words_for(lang).direction == "rtl"} == {"ar"}
    assert Words("xx", {}).direction == "ltr"

"""The words of the pages: one table per language in `words/*.toml`, and which of them a reader gets.

`choose` decides: the reader's cookie, then what the browser asks for, then English. `words_for` gives the table as
`Words`, which templates call as `t("queues.title")`; a word that a table lacks is English's, and a key that nobody has
is shown as it is, so no page fails for a word. Extensions bring tables of their own. Texts count as HTML of ours, what
is put into them does not: `t("x", name=job_class)` escapes the name. Read once per process; nothing here is written."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from pillion.web.redaction import visible

FOLDER = Path(__file__).parent / "words"
LANGUAGES = {
    "en": "English",
    "ja": "日本語",
    "de": "Deutsch",
    "fr": "Français",
    "es": "Español",
    "pt": "Português",
    "zh": "中文",
    "ar": "العربية",
}
RIGHT_TO_LEFT = {"ar"}
MOST_ASKED = 20


class Words:
    """The texts of one language.

    Attributes:
        lang: its code, as `de`.
        direction: `ltr` or `rtl`.
        table: texts by key.
    """

    def __init__(self, lang: str, table: Mapping[str, str]) -> None:
        self.lang = lang
        self.direction = "rtl" if lang in RIGHT_TO_LEFT else "ltr"
        self.table = table

    def __call__(self, key: str, **values: object) -> Markup:
        """The text of a key, `values` put in escaped. A key without a text is given back, escaped."""
        if key not in self.table:
            return escape(key)
        text = Markup(self.table[key])  # noqa: S704 - the tables are ours
        shown = {name: visible(value) if type(value) is str else value for name, value in values.items()}
        return text.format(**shown) if shown else text

    def many(self, key: str, count: float, **values: object) -> Markup:
        """The text for so many: `key.one`, `key.few`, ... by the language's rule, else `key.other`.

        The count goes in as `n`, unless a value of that name says how to write it.
        """
        form = f"{key}.{plural(self.lang, count)}"
        return self(form if form in self.table else f"{key}.other", **{"n": count, **values})

    def has(self, key: str) -> bool:
        """Whether there is a text for this key."""
        return key in self.table

    def with_more(self, more: Mapping[str, Mapping[str, str]]) -> Words:
        """The same with an extension's texts, by language; English where it has none in this one."""
        return Words(self.lang, {**more.get("en", {}), **more.get(self.lang, {}), **self.table})


def plural(lang: str, count: float) -> str:
    """The form of a word for so many things, as Unicode's CLDR names it."""
    if lang in {"ja", "zh"}:
        return "other"
    if lang == "ar":
        return _arabic(int(count))
    if lang in {"fr", "pt"}:
        return "one" if 0 <= count < 2 else "other"
    return "one" if count == 1 else "other"


def _arabic(count: int) -> str:
    if count <= 2:
        return ("zero", "one", "two")[max(0, count)]
    tail = count % 100
    return "few" if 3 <= tail <= 10 else "many" if tail >= 11 else "other"


@cache
def words_for(lang: str) -> Words:
    """The table of a language; English for one that there is none of."""
    lang = lang if lang in LANGUAGES else "en"
    english = _read("en")
    return Words(lang, english if lang == "en" else {**english, **_read(lang)})


def choose(cookie: str | None, accepted: str | None) -> str:
    """Which language somebody reads: their choice, else the best of `Accept-Language`, else `en`."""
    if cookie in LANGUAGES:
        return str(cookie)
    for tag in _by_wish(accepted or ""):
        lang = tag.partition("-")[0]
        if lang in LANGUAGES:
            return lang
    return "en"


def _by_wish(accepted: str) -> list[str]:
    """The languages of the header, most wanted first; what cannot be read is left out."""
    found: list[tuple[float, str]] = []
    for part in accepted.split(",")[:MOST_ASKED]:
        tag, _, weight = part.strip().lower().partition(";q=")
        try:
            wish = float(weight or 1)
        except ValueError:
            continue
        if tag and wish > 0:
            found.append((-wish, tag))
    return [tag for _, tag in sorted(found, key=lambda item: item[0])]


@cache
def _read(lang: str) -> dict[str, str]:
    return dict(_flat(tomllib.loads((FOLDER / f"{lang}.toml").read_text("utf-8"))))


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", str(value)

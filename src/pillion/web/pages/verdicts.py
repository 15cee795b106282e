"""The verdict in the reader's language: its rule and figures, put into the words of the table.

In English the API's own sentence is shown, which says a little more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pillion.api.verdict import Verdict
from pillion.web.context import View
from pillion.web.format import Format


def sentence_of(view: View, verdict: Verdict) -> str:
    """What the first page says first."""
    words, form = view.words, Format(view.words, view.now)
    key = f"verdict.{verdict.rule or 'ok'}"
    if words.lang == "en" or not words.has(key):
        return verdict.sentence
    if verdict.rule == "failing" and verdict.values.get("deploy"):
        key = "verdict.failing_since"
    values = {name: _written(form, verdict.rule, name, value) for name, value in verdict.values.items()}
    try:
        said = str(words(key, **values))
    except (KeyError, IndexError):
        return verdict.sentence
    if verdict.rule == "behind" and verdict.values.get("clear_in"):
        said += " " + str(words("verdict.behind_clear", clear=form.span(verdict.values["clear_in"])))
    return said


def _written(form: Format, rule: str, name: str, value: Any) -> object:
    """A figure of a verdict, as its name says how."""
    if value is None or isinstance(value, str):
        return value or ""
    if name == "usual" and rule == "failing":
        return form.percent(value, 1)
    written: dict[str, Callable[[Any], object]] = {
        "jobs": lambda count: form.words.many("count.jobs", count, n=form.number(count)),
        "share": form.percent,
        "until": form.clock,
        **dict.fromkeys(("wait", "took", "usual", "seconds", "left", "clear_in"), form.span),
    }
    return written.get(name, form.number)(value)

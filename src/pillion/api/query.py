"""The search language of pages, commands and scripts: `parse` makes a `Query` of what a person has typed.

    state:dead queue:mailers class:Send* error:"timed out" args.user_id:42 tag:eu wait:>30s -class:Report "free text"

Every term must hold; a comma means "or", a minus in front "not", `*` in a name any text. Names (`queue`, `class`,
`tag`, `jid`) are compared exactly, texts (`error`, `args`, bare words) without regard to A to Z being capital or small.

    query   = { [ "-" ] ( field ":" values | word ) }
    field   = "state" | "queue" | ... | "args" { "." step }
    values  = word { "," word }
    word    = characters but blanks, quotes and commas | '"' any text, with \\" and \\\\ '"'

A word without a field is a text in the job's bytes and may hold commas. Everything is bounded: 2,000 characters, 50
terms. `terms.py` has the values, `matching.py` what they mean; nothing here talks to Redis."""

from __future__ import annotations

import difflib
import re

from pillion.api import matching
from pillion.api.terms import STATES, Query, Term
from pillion.errors import UsageError

__all__ = ["FIELDS", "STATES", "Query", "QuerySyntax", "Term", "parse"]

MOST_CHARACTERS = 2_000
MOST_TERMS = 50
FIELDS = ("state", "queue", "class", "jid", "error", "args", "tag", "cause", "wait", "age", "since")
ALIASES = {"id": "jid", "type": "class"}
STATE_ALIASES = {
    "schedule": "scheduled",
    "retrying": "retry",
    "retries": "retry",
    "enqueued": "queued",
    "busy": "running",
}

_FIELD = re.compile(r"([A-Za-z_]\w*)((?:\.(?:\"(?:[^\"\\]|\\.)*\"|[^\s\",:.]+))*):", re.DOTALL)
_STEP = re.compile(r'\.("(?:[^"\\]|\\.)*"|[^\s",:.]+)', re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_VALUE = re.compile(r'[^\s",]+')
_WORD = re.compile(r'[^\s"]+')
_ESCAPED = re.compile(r'\\(["\\])')
_CAUSE = re.compile(r"[0-9a-f]{4,12}")


class QuerySyntax(UsageError):
    """A text that is no query.

    Attributes:
        text: all of it.
        position, length: which part is wrong, in characters.
        reason: what is wrong and what to write, one sentence.
    """

    def __init__(self, text: str, position: int, length: int, reason: str) -> None:
        self.text, self.position, self.length, self.reason = text, position, max(1, length), reason
        super().__init__(reason)

    def pointer(self) -> str:
        """The text in one line and, in a second one, carets under the part that is wrong."""
        line = re.sub(r"\s", " ", self.text)
        return f"{line}\n{' ' * self.position}{'^' * self.length}"


def parse(text: str) -> Query:
    """The query that a text says. Raises QuerySyntax with the place of the fault."""
    if len(text) > MOST_CHARACTERS:
        reason = f"expected at most {MOST_CHARACTERS:,} characters, got {len(text):,}"
        raise QuerySyntax(text, MOST_CHARACTERS, 1, reason)
    try:
        text.encode()
    except UnicodeEncodeError as bad:
        raise QuerySyntax(text, bad.start, bad.end - bad.start, "expected UTF-8 text") from None
    return _Reader(text).query()


class _Reader:
    """Goes through a text once; `at` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def query(self) -> Query:
        terms: list[Term] = []
        while self._blanks():
            if len(terms) == MOST_TERMS:
                raise self._fault(self.at, f"expected at most {MOST_TERMS} terms; search for less at once")
            terms.append(self._term())
        return Query(tuple(terms))

    def _blanks(self) -> bool:
        """Pass over blanks; whether anything follows."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.at < len(self.text)

    def _term(self) -> Term:
        start = self.at
        negated = self.text.startswith("-", start)
        self.at += negated
        found = _FIELD.match(self.text, self.at)
        if found is None:
            term = Term("text", (self._word(_WORD, "a word"),), (), negated)
        else:
            self.at = found.end()
            field, path = self._field(found)
            term = Term(field, self._values(field, path), path, negated)
        if self.at < len(self.text) and not self.text[self.at].isspace():
            raise self._fault(start, "expected a blank after a closing quote; put all of the text into the quotes")
        return term

    def _field(self, found: re.Match[str]) -> tuple[str, tuple[str, ...]]:
        name = ALIASES.get(found[1], found[1])
        if name not in FIELDS:
            close = difflib.get_close_matches(found[1], FIELDS, 1)
            hint = f"write `{close[0]}:`" if close else f"there are {', '.join(f'`{each}:`' for each in FIELDS)}"
            reason = f"there is no `{found[1]}:`; {hint}, or put a text into quotes"
            raise self._fault(found.start(1), reason, found.end())
        if found[2] and name != "args":
            raise self._fault(found.start(2), f"only `args` has a path; write `{name}:`", found.end())
        return name, tuple(_unquoted(step) for step in _STEP.findall(found[2]))

    def _values(self, field: str, path: tuple[str, ...]) -> tuple[str, ...]:
        values = [self._value(field)]
        while self.text.startswith(",", self.at):
            self.at += 1
            values.append(self._value(field))
        if len(values) > 1 and (field in ("wait", "age", "since") or (field == "args" and not path)):
            raise self._fault(self.at - 1, f"expected one value for `{field}:`; write the term twice")
        return tuple(dict.fromkeys(values))

    def _value(self, field: str) -> str:
        start = self.at
        value = self._word(_VALUE, f"a value for `{field}:`")
        canonical, wanted = _checked(field, value)
        if canonical is None:
            raise self._fault(start, f"expected {wanted}", self.at)
        return canonical

    def _word(self, pattern: re.Pattern[str], wanted: str) -> str:
        start = self.at
        quoted = self.text.startswith('"', start)
        found = (_QUOTED if quoted else pattern).match(self.text, start)
        if found is None:
            reason = "expected a closing quote" if quoted else f"expected {wanted}"
            raise self._fault(min(start, max(0, len(self.text) - 1)), reason, len(self.text) if quoted else start)
        self.at = found.end()
        word = _unquoted(found[0])
        if not word:
            raise self._fault(start, f"expected {wanted}, got an empty text", self.at)
        return word

    def _fault(self, start: int, reason: str, end: int = 0) -> QuerySyntax:
        return QuerySyntax(self.text, start, end - start, reason)


def _unquoted(word: str) -> str:
    return _ESCAPED.sub(r"\1", word[1:-1]) if word.startswith('"') else word


def _checked(field: str, value: str) -> tuple[str | None, str]:
    """A value as it is kept, or None and what was expected."""
    match field:
        case "state":
            name = STATE_ALIASES.get(value.lower(), value.lower())
            return name if name in STATES else None, f"a state: {', '.join(STATES)}"
        case "wait" | "age":
            found = matching.bound(value)
            return found and found[0] + spelled(found[1]), "a span of time such as >30s, <5m or >=1h30m"
        case "since":
            return _since(value), "a span of time such as 2h, or a date such as 2026-11-22 or 2026-11-22T10:00Z"
        case "cause":
            return value if _CAUSE.fullmatch(value) else None, "4 to 12 hex digits"
        case _:
            return value, ""


def _since(value: str) -> str | None:
    seconds = matching.span(value)
    if seconds is not None:
        return spelled(seconds)
    return value if value[:1].isdigit() and "-" in value and matching.moment(value) is not None else None


def spelled(seconds: float) -> str:
    """A span of time in the largest unit that gives a whole number, else in seconds."""
    for unit, size in matching.UNITS.items():
        if seconds and unit != "w" and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"

"""What a button sent: the fields of a form or of a JSON object, read within limits; a complaint says what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from pillion.web.context import BadInput

LONGEST = 1_000
MAX_FIELDS = 2_000
FARTHEST = 10 * 365 * 86_400
_SPAN = re.compile(r"\+(\d{1,9})\s*([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class Form:
    """Fields by name, each any number of times."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self.fields = list(fields)

    @classmethod
    def read(cls, body: bytes, content_type: str) -> Form:
        """From a request's body. Raises BadInput for what is neither a form nor a JSON object of texts and lists."""
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "application/json":
            return cls(_from_json(body))
        if kind in ("", "application/x-www-form-urlencoded"):
            return cls(_from_form(body))
        raise BadInput(f"expected a form or JSON, got {kind!r:.60}")

    def get(self, name: str, default: str = "", most: int = LONGEST) -> str:
        """The last value of a field. Raises BadInput where it is longer than `most`."""
        found = next((value for field, value in reversed(self.fields) if field == name), default)
        if len(found) > most:
            raise BadInput(f"expected at most {most} signs for `{name}`, got {len(found)}")
        return found

    def need(self, name: str, most: int = LONGEST) -> str:
        """The same of a field that must be there."""
        found = self.get(name, most=most)
        if not found.strip():
            raise BadInput(f"expected a value for `{name}`, got none; fill it in")
        return found

    def every(self, name: str) -> list[str]:
        """All values of a field."""
        return [value for field, value in self.fields if field == name and value]

    def moment(self, name: str, now: float) -> float | None:
        """A time: epoch seconds, ISO 8601 (UTC where it has no zone) or `+30m`; None where the field is empty."""
        given = self.get(name, most=40).strip()
        if not given:
            return None
        found = _moment(given, now)
        if found is None or not -FARTHEST <= found - now <= FARTHEST:
            raise BadInput(f"expected a time for `{name}`, as 2026-01-31T08:00, +30m or epoch seconds, got {given!r}")
        return found


def _moment(given: str, now: float) -> float | None:
    if span := _SPAN.fullmatch(given):
        return now + int(span[1]) * _UNITS[span[2]]
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", given):
        return float(given)
    try:
        time = datetime.fromisoformat(given)
    except ValueError:
        return None
    try:
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except OverflowError:
        return None


def _from_form(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise BadInput(f"expected a form of at most {MAX_FIELDS} fields in UTF-8") from None


def _from_json(body: bytes) -> Iterable[tuple[str, str]]:
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise BadInput("expected JSON, got something else") from None
    if not isinstance(found, Mapping):
        raise BadInput("expected a JSON object")
    fields = [(name, each) for name, value in found.items() for each in (value if isinstance(value, list) else [value])]
    if len(fields) > MAX_FIELDS:
        raise BadInput(f"expected at most {MAX_FIELDS} values")
    return [(str(name), _plain(name, value)) for name, value in fields if value is not None]


def _plain(name: object, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise BadInput(f"expected text or a number for {str(name)!r:.40}, or a list of them")

"""A form for a job's arguments: one field for each, of the kind that its annotation, else its value, asks for.

The form is sent as one JSON list (`args`), which a few lines of script put together of the fields; without script the
reader edits the list itself. What is sent is checked by the client, as every push is."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec

from pillion.signature import Signature

KINDS = {"int": "int", "float": "float", "bool": "bool", "str": "str", "date": "date", "datetime": "str"}
LONG = 60


class Field(msgspec.Struct, frozen=True):
    """One argument.

    Attributes:
        name: of the parameter, or its position.
        kind: `int`, `float`, `bool`, `str`, `text`, `date`, `choice` or `json`.
        hint: the annotation as written.
        value: as text.
        choices: of a `choice`.
    """

    name: str
    kind: str
    hint: str
    value: str
    choices: list[str] = []


def fields_of(args: Sequence[Any], signature: Signature | None) -> list[Field]:
    """A field for each argument."""
    parameters = _parameters(signature)
    return [_field(i, value, parameters[i] if i < len(parameters) else None) for i, value in enumerate(args)]


def _field(number: int, value: Any, parameter: inspect.Parameter | None) -> Field:
    name = parameter.name if parameter is not None else str(number + 1)
    hint = _hint(parameter)
    choices = _choices(parameter)
    if choices and str(value) in choices and isinstance(value, str):
        return Field(name, "choice", hint, value, choices)
    kind = _kind(value)
    wanted = KINDS.get(hint.partition(" ")[0])
    if wanted == "date" and isinstance(value, str):
        kind = "date"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return Field(name, kind, hint, text)


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case str():
            return "text" if len(value) > LONG or "\n" in value else "str"
        case _:
            return "json"


def _parameters(signature: Signature | None) -> list[inspect.Parameter]:
    if signature is None:
        return []
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter for parameter in signature.parameters if parameter.kind in named]


def _hint(parameter: inspect.Parameter | None) -> str:
    if parameter is None or parameter.annotation is parameter.empty:
        return ""
    found = parameter.annotation
    return found if isinstance(found, str) else getattr(found, "__name__", None) or str(found).replace("typing.", "")


def _choices(parameter: inspect.Parameter | None) -> list[str]:
    """The values of a `Literal[...]` or of an enumeration of texts."""
    found = parameter.annotation if parameter is not None else None
    if getattr(found, "__origin__", None) is not None and str(found).startswith("typing.Literal"):
        return [str(value) for value in found.__args__]  # type: ignore[union-attr]
    members = getattr(found, "__members__", None)
    return [str(member.value) for member in members.values()] if members else []

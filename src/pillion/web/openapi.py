"""The OpenAPI 3.1 document of the JSON API, made of its table and the types of its answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from pillion.version import __version__
from pillion.web import shapes

REF = "#/components/schemas/{name}"
TEXT: dict[str, Any] = {"type": "string", "maxLength": 1000}
TEXTS: dict[str, Any] = {"anyOf": [TEXT, {"type": "array", "items": TEXT}]}
WRONG = {
    "400": "the question cannot be read",
    "403": "this role may not, or the request comes from elsewhere",
    "404": "there is no such thing",
    "429": "too many requests",
    "503": "Redis does not answer",
}
FIELDS: Mapping[str, tuple[str, ...]] = {
    "pause": ("queue",),
    "resume": ("queue",),
    "quiet": ("process",),
    "stop": ("process",),
    "dump": ("process",),
    "quiet-all": (),
    "stop-all": (),
    "stack": ("process", "jid"),
    **dict.fromkeys(("retry", "requeue", "kill", "delete", "clear"), ("q", "id", "shown", "confirm")),
    "move": ("q", "id", "to", "shown", "confirm"),
    "reschedule": ("q", "id", "at", "shown", "confirm"),
    **dict.fromkeys(("undo", "hold", "go", "halt"), ("operation",)),
    "push": ("class", "args", "queue", "at", "instead"),
    "deploy": ("label",),
    "reset": ("counter",),
    "prefer": ("language", "theme", "zone", "density"),
}
"""The fields of each action."""


class Param(NamedTuple):
    """A value of the query: its name, `text` or `number`, and what it is."""

    name: str
    kind: str
    text: str


def document(
    resources: Iterable[tuple[str, Any, str, tuple[Param, ...]]], verbs: Mapping[str, str], root: str
) -> dict[str, Any]:
    """The document: addresses to read, actions by verb with the role each needs."""
    listed = list(resources)
    types = [each[1] for each in listed] + [shapes.Done, shapes.Wrong]
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    by_path = {path: schema for (path, *_), schema in zip(listed, schemas, strict=False)}
    paths: dict[str, Any] = {
        path: {"get": _reading(path, by_path[path], summary, params)} for path, _, summary, params in listed
    }
    paths |= {f"/do/{verb}": {"post": _acting(verb, role, schemas[-2])} for verb, role in verbs.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pillion", "version": __version__, "description": "Background jobs: see and operate."},
        "servers": [{"url": f"{root}/api/v1"}],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _reading(path: str, schema: Any, summary: str, params: tuple[Param, ...]) -> dict[str, Any]:
    inside = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 200}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    asked = [
        {
            "name": each.name,
            "in": "query",
            "description": each.text,
            "schema": TEXT if each.kind == "text" else {"type": "integer", "minimum": -(10**9), "maximum": 10**9},
        }
        for each in params
    ]
    return {
        "operationId": "read" + "".join(word.title() for word in re.findall(r"\w+", path)),
        "summary": summary,
        "parameters": [*inside, *asked],
        "responses": {"200": _json("the answer", schema), **_wrongs()},
    }


def _acting(verb: str, role: str, schema: Any) -> dict[str, Any]:
    fields = dict.fromkeys(FIELDS.get(verb, ()), TEXTS)
    body = {"type": "object", "properties": fields}
    return {
        "operationId": "do" + verb.title().replace("-", "").replace(".", ""),
        "summary": f"{verb} (role: {role})",
        "requestBody": {"content": {"application/json": {"schema": body}}},
        "responses": {
            "200": _json("done", schema),
            "409": _json(
                "what would be done: send it again with `shown`, and `confirm` where it must be typed", schema
            ),
            "413": _json("the body is too long", {"$ref": REF.format(name="Wrong")}),
            **_wrongs(),
        },
    }


def _wrongs() -> dict[str, Any]:
    return {status: _json(text, {"$ref": REF.format(name="Wrong")}) for status, text in WRONG.items()}


def _json(text: str, schema: Any) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}

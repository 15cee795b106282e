"""A job as text to copy: the call in Python, the command, curl, and a test that fails as the job did."""

from __future__ import annotations

import json
import re
from pathlib import Path
from shlex import quote
from typing import Any

from pillion.api import JobRecord

MOST = 20_000
CURL = """curl -X POST -H 'content-type: application/json' \\
  -H "authorization: Bearer $TOKEN" \\
  -d {body} \\
  http://localhost:7000/api/v1/do/push"""
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def snippets(job: JobRecord, args: list[Any], definition: Any) -> list[tuple[str, str]]:
    """(name, text) of each; none for a job that is too large to copy, or has no class."""
    if not job.klass or len(job.value) > MOST:
        return []
    name = job.display_class
    python = name.rpartition("::")[2]
    call = ", ".join(repr(value) for value in args)
    body = json.dumps({"class": name, "args": json.dumps(args), "queue": job.queue or "default"})
    words = " ".join(quote(value if _plain(value) else json.dumps(value)) for value in args)
    shown = [
        ("Python", f"{python}.perform_async({call})"),
        ("CLI", f"pillion push {quote(name)} {words}".rstrip() + (f" -q {quote(job.queue)}" if job.queue else "")),
        ("curl", CURL.format(body=quote(body))),
    ]
    return [*shown, ("pytest", _test(job, python, call, definition))] if _IDENTIFIER.fullmatch(python) else shown


def _test(job: JobRecord, name: str, call: str, definition: Any) -> str:
    module = Path(definition.place.file).stem if definition is not None else "app.jobs"
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    error = f"  # it raised {job.error_class}" if job.error_class else ""
    return f"from {module} import {name}\n\n\ndef test_{snake}() -> None:\n    {name}.perform_inline({call}){error}\n"


def _plain(value: Any) -> bool:
    """Whether the command line reads this text as the very text."""
    if not isinstance(value, str) or value[:1] in ("[", "{", '"', "-", ""):
        return False
    try:
        json.loads(value)
    except ValueError:
        return True
    return False

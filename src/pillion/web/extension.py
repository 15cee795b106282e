"""Pages of others in our dashboard: `dashboard.register(Extension("billing", tabs=[...], routes=[...]))`.

An extension gets tabs in the navigation, routes under `/ext/NAME/`, templates, static files, texts of its own, rows on
every job page, actions with a role each, and ASGI middleware behind the gate. It runs under the dashboard's rules: who
is let in, roles, limits, CSP and the check of where a button was pressed are the gate's and `actions.py`'s, and nothing
an extension is given can loosen them. An exception of an extension spoils its own page or row, never another."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from starlette.types import ASGIApp

from pillion.api import JobRecord
from pillion.errors import UsageError
from pillion.web.access import Role
from pillion.web.context import PageFunction, View
from pillion.web.form import Form

ActionFunction: TypeAlias = Callable[[View, Form], Awaitable[str | None]]
RowsFunction: TypeAlias = Callable[[View, JobRecord], Sequence[tuple[str, str]]]

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


@dataclass(frozen=True)
class Tab:
    """An entry of the navigation: a text key (or the text itself) and a path below `/ext/NAME/`."""

    title: str
    path: str = ""


@dataclass(frozen=True)
class Route:
    """A page of an extension: a path below `/ext/NAME/` (Starlette's patterns) and a page function."""

    path: str
    fn: PageFunction


@dataclass(frozen=True)
class Action:
    """Something that a POST to `/do/NAME.verb` does. `fn(view, form)` returns where to go then, None: back."""

    fn: ActionFunction
    role: Role = Role.OPERATOR


@dataclass(frozen=True)
class Extension:
    """What others add to the dashboard.

    Attributes:
        name: lower case letters, digits and hyphens; the place of everything it has.
        tabs: entries of the navigation.
        routes: pages.
        actions: what its forms do, by verb.
        templates: a folder, whose files its pages name `NAME/page.html`.
        static: a folder, whose files are at `view.static("NAME/file.js")`.
        words: its texts, by language and key; English is used where a language has none.
        job_rows: rows (name, text) for every job page, by a function of the view and the job.
        middleware: ASGI middleware for its own routes, outermost first.
    """

    name: str
    tabs: Sequence[Tab] = ()
    routes: Sequence[Route] = ()
    actions: Mapping[str, Action] = field(default_factory=dict[str, Action])
    templates: Path | None = None
    static: Path | None = None
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    job_rows: RowsFunction | None = None
    middleware: Sequence[Callable[[ASGIApp], ASGIApp]] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"expected a name of lower case letters, digits and hyphens, got {self.name!r:.40}")

    def rows(self, view: View, record: JobRecord) -> list[tuple[str, Any]]:
        """Its rows for one job; one that says why, where its function failed."""
        if self.job_rows is None:
            return []
        try:
            return [(str(name), str(text)) for name, text in self.job_rows(view, record)]
        except Exception as error:
            return [(self.name, f"{type(error).__name__}: this extension failed for this job")]

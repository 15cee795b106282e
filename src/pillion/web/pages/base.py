"""What stands around every page: the navigation with its counts, and what all templates are given.

`drawing.py` puts `around(view)` under the data of each page, of extensions and of errors too; it asks nobody, so a page
about a Redis that is gone can be drawn. `counted` wraps the page functions of `PAGES` and adds the counts, which are
asked for once per page. A count that cannot be read is left out: it never costs the page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import msgspec

from pillion.api import Figures
from pillion.api.several import Several
from pillion.client import Client
from pillion.errors import StoreError
from pillion.mask import mask_secrets
from pillion.version import __version__
from pillion.web import charts
from pillion.web.context import Page, PageFunction, View
from pillion.web.format import Format

T = TypeVar("T")

SCRIPTS = ("idiomorph.min.js", "pillion.js")
GROUPS = (
    ("overview", "queues", "running", "failures"),
    ("jobs", "scheduled", "retries", "dead"),
    ("classes", "workers"),
    ("audit", "settings"),
)
PATHS = {"overview": ""}


class Place(msgspec.Struct, frozen=True):
    """An entry of the navigation. `alarm` shows its count as something that somebody should look at."""

    title: str
    url: str
    icon: str
    here: bool
    count: int | None = None
    alarm: bool = False


def around(view: View) -> dict[str, Any]:
    """What every template sees, beside what its page gives it."""
    words = view.words
    given: dict[str, Any] = {
        "t": words,
        "f": Format(words, view.now),
        "c": charts,
        "view": view,
        "url": view.url,
    }
    ui = view.site.environment.get_template("ui.html").make_module(given)
    return {
        **given,
        "ui": ui,
        "nav": navigation(view, None),
        "env": view.site.environment_name,
        "brand": view.site.options.title or "Pillion",
        "app_url": view.site.options.app_url,
        "version": __version__,
        "shards": view.shards,
        "styles": (),
        "scripts": SCRIPTS,
        "query_text": "",
        "away": {},
        "title": "",
    }


def counted(fn: PageFunction, title_key: str) -> PageFunction:
    """The page function, whose page gets its title and the counts of the navigation."""

    @wraps(fn)
    async def page(view: View) -> Page:
        drawn = await fn(view)
        figures, away = drawn.data.get("figures"), dict[str, str]()
        if (figures is None and view.wants("nav")) or len(view.clients) > 1:
            figures, away = await _figures(view)
        data = {"title": str(view.words(title_key)), **drawn.data, "nav": navigation(view, figures), "away": away}
        return msgspec.structs.replace(drawn, data=data, fragments=(*drawn.fragments, "nav"))

    return page


async def _figures(view: View) -> tuple[Figures | None, dict[str, str]]:
    """The figures of the shards that answer, and why the others do not."""
    try:
        found = await several(view).astats()
    except StoreError:
        return None, {}
    return found.value, {name: mask_secrets(str(error)) for name, error in found.away.items()}


async def answers(view: View, ask: Callable[[Client], Awaitable[T]]) -> list[T]:
    """What each shard that is shown answers. Those that are away are left out; where all are, the error is raised."""
    found: list[T] = []
    away: StoreError | None = None
    for client in view.clients:
        try:
            found.append(await ask(client))
        except StoreError as error:
            away = error
    if not found and away is not None:
        raise away
    return found


class Part(msgspec.Struct, frozen=True):
    """A part of a list that is at hand as a whole: its rows, and where the next part begins."""

    rows: list[Any]
    next: int | None
    total: int


def part(view: View, items: Sequence[Any], most: int = 50) -> Part:
    """The items from `?after=` on, which counts them."""
    start = view.number("after", 0, 0, 1_000_000)
    more = start + most
    return Part(list(items[start:more]), more if more < len(items) else None, len(items))


def several(view: View) -> Several:
    """The shards that this page shows: the one that was picked, or all."""
    names = [view.shard] if view.shard else view.shards
    return Several({name: view.site.clients[name] for name in names})


def navigation(view: View, figures: Figures | None) -> list[list[Place]]:
    """The places in their groups, those of extensions last."""
    counts = counts_of(figures) if figures else {}
    groups = [[_place(view, name, counts.get(name)) for name in group] for group in GROUPS]
    tabs = [Place(title, url, "extension", _below(view, url)) for title, url in view.tabs]
    return [*groups, tabs] if tabs else groups


def counts_of(figures: Figures) -> dict[str, int]:
    """The figures beside the places."""
    return {
        "queues": figures.enqueued,
        "running": figures.workers_size,
        "scheduled": figures.scheduled_size,
        "retries": figures.retry_size,
        "dead": figures.dead_size,
        "workers": figures.processes_size,
    }


def _place(view: View, name: str, count: int | None) -> Place:
    path = PATHS.get(name, name)
    here = view.path.strip("/").split("/")[0] == path
    return Place(view.t(f"place.{name}"), view.url(path), name, here, count, alarm=name == "dead")


def _below(view: View, url: str) -> bool:
    """Whether this page is at that address or below."""
    return f"{view.here().partition('?')[0]}/".startswith(f"{url.partition('?')[0]}/")

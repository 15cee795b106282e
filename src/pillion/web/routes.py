"""The table of addresses: pages and their fragments, buttons, streams, static files, what machines ask, extensions.

Everything here stands behind the gate of `security.py`. Each request gets a `View`; what goes wrong becomes a page or,
for the API, a problem in JSON (`trouble.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp

from pillion.web import extension as extensions
from pillion.web import health, json_api, prometheus, sidekiq
from pillion.web.buttons import press
from pillion.web.context import NotThere, PageFunction, View
from pillion.web.drawing import draw
from pillion.web.live import Live
from pillion.web.pages import PAGES
from pillion.web.site import Site
from pillion.web.trouble import page_of, problem
from pillion.web.words import choose, words_for

Answer: TypeAlias = Callable[[View], Awaitable[Response]]
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

STATIC_LASTS = "private, max-age=31536000, immutable"


def routes(site: Site, live: Live) -> Iterator[BaseRoute]:
    """All routes of a dashboard."""
    bind = _Binder(site)
    yield Route("/healthz", bind.bare(lambda _: _now(health.healthz())))
    yield Route("/readyz", bind.bare(lambda _: health.readyz(site)))
    yield Route("/static/{name:path}", bind.bare(lambda request: _now(_static(site, request))))
    yield Route("/events", bind.page(lambda view: _now(live.answer(view)), patience=None))
    yield Route("/do/{verb}", bind.page(lambda view: press(view, view.segment("verb"))), methods=["POST"])
    yield Route("/do/{verb}", bind.bare(lambda _: _now(only_post())))
    yield Route("/stats", bind.data(sidekiq.stats))
    yield Route("/stats/queues", bind.data(sidekiq.queues))
    yield Route("/dashboard/stats", bind.page(lambda view: _now(RedirectResponse(view.url("stats"), 302))))
    yield Route("/metrics", bind.data(prometheus.answer))
    for path, method, answer in json_api.routes():
        yield Route(f"/api/v1{path}", bind.data(answer), methods=[method])
    yield Route("/api/v1/do/{verb}", bind.bare(lambda _: _now(only_post())))
    yield Route("/api/{rest:path}", bind.data(_nothing))
    for route in PAGES:
        yield Route(route.path, bind.drawn(route.fn, route.title_key), name=route.name)
    for each in site.extensions:
        yield Route(f"/ext/{each.name}", bind.page(lambda view: _now(RedirectResponse(f"{view.here()}/"))))
        yield Mount(f"/ext/{each.name}", _wrapped(each, _pages_of(bind, each)))
    yield Route("/{rest:path}", bind.page(_nothing))


class _Binder:
    """Makes Starlette's endpoints of functions of a view."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def bare(self, answer: Callable[[Request], Awaitable[Response]]) -> Endpoint:
        """Without a view: for what is asked before anybody is known."""

        async def endpoint(request: Request) -> Response:
            return await answer(request)

        return endpoint

    def page(self, answer: Answer, patience: float | None = -1) -> Endpoint:
        """For people: trouble is a page."""
        return self._bound(answer, page_of, patience)

    def data(self, answer: Answer) -> Endpoint:
        """For programs: trouble is JSON."""
        return self._bound(answer, lambda _, error: problem(error), -1)

    def drawn(self, fn: PageFunction, title_key: str) -> Endpoint:
        """A page function."""

        async def answer(view: View) -> Response:
            if view.request.method == "HEAD" and view.path == "/":
                return await health.readyz(self._site)
            page = await fn(view)
            page.data.setdefault("title", view.t(title_key) if title_key else "")
            return draw(view, page)

        return self.page(answer)

    def _bound(
        self, answer: Answer, trouble: Callable[[View, Exception], Response], patience: float | None
    ) -> Endpoint:
        seconds = self._site.options.patience if patience == -1 else patience

        async def endpoint(request: Request) -> Response:
            view = view_of(self._site, request)
            try:
                async with asyncio.timeout(seconds):
                    return await answer(view)
            except Exception as error:
                return trouble(view, error)

        return endpoint


def view_of(site: Site, request: Request) -> View:
    """The view of a request that has passed the gate."""
    words = words_for(choose(request.cookies.get("pillion_language"), request.headers.get("accept-language")))
    for more in site.texts:
        words = words.with_more(more)
    return View(site, request, request.scope["pillion.user"], words, request.scope["pillion.nonce"])


def only_post() -> Response:
    """What a GET on an action gets: nothing is ever changed by one."""
    return PlainTextResponse("expected POST\n", 405, {"allow": "POST"})


def _static(site: Site, request: Request) -> Response:
    path = site.static_file(request.path_params["name"])
    if path is None:
        return PlainTextResponse("no such file\n", 404)
    return FileResponse(path, headers={"cache-control": STATIC_LASTS})


def _pages_of(bind: _Binder, extension: extensions.Extension) -> Iterable[BaseRoute]:
    for route in extension.routes:
        yield Route(f"/{route.path.strip('/')}", bind.drawn(route.fn, _title_of(extension, route)))
    yield Route("/{rest:path}", bind.page(_nothing))


def _title_of(extension: extensions.Extension, route: extensions.Route) -> str:
    titles = {tab.path.strip("/"): tab.title for tab in extension.tabs}
    return titles.get(route.path.strip("/"), next(iter(titles.values()), extension.name))


def _wrapped(extension: extensions.Extension, pages: Iterable[BaseRoute]) -> ASGIApp:
    app: ASGIApp = Router([*pages], redirect_slashes=False)
    for layer in reversed(extension.middleware):
        app = layer(app)
    return app


async def _now(response: Response) -> Response:
    return response


async def _nothing(view: View) -> Any:
    raise NotThere(f"there is no page {view.path!r:.80}")

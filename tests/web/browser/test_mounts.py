"""The dashboard inside FastAPI, Flask and Django, and with an extension, in a real browser."""

from __future__ import annotations

import runpy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from pillion import Client
from pillion.api import Queue
from pillion.web import Dashboard, dashboard
from tests.servers import Server
from tests.web.browser.conftest import OpenPage, Serve, axe, soon
from tests.web.seeding import SMALL, seed

EXAMPLE = Path(__file__).parents[3] / "examples/web_extension/on_call.py"


def fastapi(jobs: Dashboard) -> Any:
    from fastapi import FastAPI

    app = FastAPI()
    app.mount("/jobs", jobs)
    return app


def flask(jobs: Any) -> Any:
    from flask import Flask

    shop = Flask("shop")
    return DispatcherMiddleware(shop.wsgi_app, {"/jobs": jobs})


def django(jobs: Any) -> Any:
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application

    if not settings.configured:
        settings.configure(ROOT_URLCONF=(), ALLOWED_HOSTS=["*"])
    return DispatcherMiddleware(get_wsgi_application(), {"/jobs": jobs})


@pytest.fixture(params=["fastapi", "flask", "django"])
def host(request: pytest.FixtureRequest, shown: Client, server: Server, serve: Serve) -> Iterator[str]:
    """The address of a dashboard at /jobs of a host application."""
    seed(server.url, SMALL)
    jobs = dashboard(shown, auth=lambda _: "admin", requests_per_second=1_000)
    if request.param == "fastapi":
        yield f"{serve(fastapi(jobs))}/jobs"
        return
    wsgi = jobs.wsgi()
    there = make_server("127.0.0.1", 0, {"flask": flask, "django": django}[request.param](wsgi), threaded=True)
    thread = threading.Thread(target=there.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{there.server_port}/jobs"
    there.shutdown()
    thread.join(10)
    there.server_close()
    wsgi.close()


def test_it_is_looked_at_worked_with_and_kept_up_to_date(host: str, shown: Client, open_page: OpenPage) -> None:
    tab = open_page(f"{host}/")
    tab.locator("#live[data-state=on]").wait_for()
    tab.locator("#nav").get_by_role("link", name="Queues").click()
    tab.locator("tr[data-id=webhooks]").get_by_role("button", name="Pause").click()
    tab.get_by_text("webhooks is paused").wait_for()
    assert tab.url == f"{host}/queues"
    assert Queue("webhooks", shown).is_paused()
    tab.mouse.move(5, 5)
    shown.push({"class": "X", "args": [], "queue": "reports"})
    cell = tab.locator("tr[data-id=reports] td").nth(1)
    soon(lambda: cell.inner_text() == "1", 30)


def test_an_extension_has_its_page_its_button_and_its_rows(
    shown: Client, server: Server, serve: Serve, open_page: OpenPage
) -> None:
    seed(server.url, SMALL)
    example = runpy.run_path(str(EXAMPLE))
    jobs = dashboard(shown, auth=lambda _: "operator", requests_per_second=1_000)
    jobs.register(example["extension"](example["Duty"]()))
    address = serve(jobs)
    tab = open_page(address)
    tab.locator("#nav").get_by_role("link", name="On call").click()
    tab.get_by_text("nobody is on call").wait_for()
    tab.get_by_role("button", name="Take over").click()
    tab.get_by_text("operator is on call").wait_for()
    assert axe(tab) == []
    tab.goto(f"{address}/dead")
    tab.locator("a[data-open]").first.click()
    assert "Runbook" in tab.locator("main").inner_text()

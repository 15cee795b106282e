"""A real browser in front of a real dashboard, served by uvicorn in a thread: what the tests here may ask for.

    chromium     Debian's Chromium, driven by Playwright; skipped where there is none, unless PILLION_TEST_ALL=1
    serve        `serve(app)` serves an ASGI application on a port of its own and gives its address
    site         the address of a dashboard on `server`, for an admin
    open_page    `open_page(address, dark=..., phone=..., lang=..., script=...)`: a tab

Whatever a test does, at its end no tab may have seen a violation of the content policy or an error in its console,
but for answers that the test said it expects (`tab.expected`)."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import uvicorn

from pillion import Client
from pillion.web import dashboard
from tests.servers import Server, missing
from tests.waiting import wait_until

AXE = Path(__file__).with_name("axe.min.js")
WATCH = """
window.__faults = [];
addEventListener("securitypolicyviolation", (event) =>
  __faults.push([event.violatedDirective, event.blockedURI, event.sample, event.lineNumber].join(" ")));
"""
LATER = 10_000

Tab: TypeAlias = Any
Serve: TypeAlias = Callable[[Any], str]
OpenPage: TypeAlias = Callable[..., Tab]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser. It ends with the module: while Playwright runs, no other event loop can run in this thread."""
    path = shutil.which("chromium") or missing("no chromium on PATH (Debian: apt-get install chromium).")
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright (pip install playwright).")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves applications until the test ends."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: Any) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, name="uvicorn", daemon=True)
        thread.start()
        running.append((server, thread))
        wait_until(lambda: server.started)
        return f"http://127.0.0.1:{port}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def shown(server: Server) -> Iterator[Client]:
    """The client that the dashboard looks through."""
    client = Client(server.url)
    yield client
    client.close()


@pytest.fixture
def site(shown: Client, serve: Serve) -> str:
    """The dashboard's address."""
    return serve(dashboard(shown, auth=lambda _: "admin", requests_per_second=1_000))


@pytest.fixture
def open_page(chromium: Any) -> Iterator[OpenPage]:
    """Opens tabs, each in a browser profile of its own."""
    tabs: list[Tab] = []

    def start(
        address: str,
        *,
        dark: bool = False,
        phone: bool = False,
        lang: str = "en",
        script: bool = True,
        wait: bool = True,
    ) -> Tab:
        size = {"width": 390, "height": 844} if phone else {"width": 1280, "height": 900}
        context = chromium.new_context(
            viewport=size,
            locale=lang,
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
            reduced_motion="reduce",
        )
        tab = context.new_page()
        tab.set_default_timeout(LATER)
        tab.expected, tab.errors = (), []
        tab.add_init_script(WATCH)
        tab.on("console", lambda said: tab.errors.append(said.text) if said.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: tab.errors.append(str(error)))
        tabs.append(tab)
        tab.goto(address)
        return tab

    yield start
    for tab in tabs:
        faults = tab.evaluate("window.__faults || []")
        unexpected = [error for error in tab.errors if not any(word in error for word in tab.expected)]
        tab.context.close()
        assert faults == []
        assert unexpected == []


def axe(tab: Tab) -> list[str]:
    """What axe-core finds wrong: rule and element."""
    tab.evaluate(AXE.read_text())
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{each['id']}: {node['html'][:160]}" for each in found["violations"] for node in each["nodes"]]


def too_wide(tab: Tab) -> int:
    """By how much the page is wider than the screen."""
    wide: int = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wide


def soon(look: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until something is so, while the browser goes on."""
    ends = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < ends, "it did not become so in time"
        time.sleep(0.02)

"""The dashboard in programs that people write: FastAPI, Flask, Django, and by itself with `pillion web` and `dev`."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from pillion import Client
from pillion.web import ANYONE_I_KNOW, Dashboard, dashboard
from tests.servers import Server, free_port
from tests.waiting import wait_until
from tests.web.conftest import Visit
from tests.web.test_mount import WsgiVisitor, links
from tests.worker.cli import Running, environment, running
from tests.worker.cli import pillion as command


@pytest.fixture
def app(client: Client) -> Iterator[Dashboard]:
    app = dashboard(client, auth=ANYONE_I_KNOW)
    yield app
    app.close()


# --- other people's programs ------------------------------------------------------------------------------------------


def test_fastapi_mounts_it(app: Dashboard, visit: Visit, server: Server) -> None:
    from fastapi import FastAPI

    host = FastAPI()
    host.mount("/jobs", app)
    visitor = visit(app=host)
    found = visitor.get("/jobs/queues")
    assert (found.status, "trusted-types" in found.header("content-security-policy")) == (200, True)
    assert visitor.post("/jobs/do/pause", queue="mailers").header("location") == "/jobs/"
    assert server.client().sismember("paused", "mailers")


def wsgi_hosts(app: Dashboard) -> dict[str, Any]:
    from flask import Flask
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    flask = Flask("host")
    flask.add_url_rule("/", "home", lambda: "the shop")
    flask.wsgi_app = DispatcherMiddleware(flask.wsgi_app, {"/jobs": app.wsgi()})  # type: ignore[method-assign]
    return {"flask": flask, "django": django(app)}


def django(app: Dashboard) -> Any:
    """A Django project's WSGI application, with the dashboard in front of it."""
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x" * 50)
    return DispatcherMiddleware(get_wsgi_application(), {"/jobs": app.wsgi()})


urlpatterns: list[Any] = []


@pytest.mark.parametrize("name", ["flask", "django"])
def test_wsgi_programs_mount_it(app: Dashboard, server: Server, name: str) -> None:
    visitor = WsgiVisitor(wsgi_hosts(app)[name])
    status, headers, text = visitor.ask("GET", "/jobs/queues")
    assert (status, 'data-live="poll"' in text) == (200, True)
    assert "trusted-types" in {key.lower(): value for key, value in headers.items()}["content-security-policy"]
    assert [link for link in links(text) if not link.startswith("/jobs/")] == []
    assert visitor.ask("POST", "/jobs/do/pause", b"queue=mailers", sec_fetch_site="same-origin")[0] == 303
    assert server.client().sismember("paused", "mailers")
    assert visitor.ask("POST", "/jobs/do/resume", b"queue=mailers", sec_fetch_site="cross-site")[0] == 403


def test_prefork_workers_each_have_a_loop_of_their_own(server: Server, tmp_path: Path) -> None:
    port = free_port()
    words = ["--bind", f"127.0.0.1:{port}", "--workers", "2", "--preload", "--graceful-timeout", "2"]
    with (tmp_path / "log").open("wb") as log:
        gunicorn = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "tests.web.mounted_app:app", *words],
            cwd=Path(__file__).parents[2],
            env=environment(REDIS_URL=server.tcp_url),
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: gunicorn.poll() is not None or answers(port), timeout=30, what="gunicorn to answer")
        assert [get(port, "/queues")[0] for _ in range(12)] == [200] * 12
    finally:
        gunicorn.terminate()
        gunicorn.wait(20)
    assert "Traceback" not in (tmp_path / "log").read_text()


def answers(port: int) -> bool:
    try:
        return get(port, "/readyz")[0] == 200
    except OSError:
        return False


def test_a_server_that_tells_of_its_end_ends_the_background_too(app: Dashboard, client: Client, visit: Visit) -> None:
    told = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    heard: list[str] = []

    async def receive() -> dict[str, str]:
        if len(told) == 1:
            app.site.operators.go_on(client)
        return told.pop(0)

    async def send(message: dict[str, str]) -> None:
        heard.append(message["type"])

    visit().runner.run(app({"type": "lifespan", "state": {}}, receive, send))  # type: ignore[arg-type]
    assert heard == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert app.site.operators.running == 0


# --- by itself --------------------------------------------------------------------------------------------------------


def get(
    port: int, path: str, method: str = "GET", body: str | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, said)
        found = connection.getresponse()
        return found.status, {name.lower(): value for name, value in found.getheaders()}, found.read().decode()
    finally:
        connection.close()


def port_of(web: Running) -> int:
    web.wait_for("pillion web: http")
    found = re.search(r"pillion web: http://[\d.]+:(\d+)", web.heard)
    assert found
    return int(found[1])


def test_the_command_serves_it(server: Server, tmp_path: Path) -> None:
    with running("web", "--redis", server.tcp_url, "--port", "0", cwd=tmp_path) as web:
        port = port_of(web)
        status, headers, text = get(port, "/queues")
        assert (status, "server" in headers, "admin" in text) == (200, False, True)
        assert get(port, "/", host="evil.example")[0] == 421
        assert get(port, "/do/pause", "POST", "queue=a")[0] == 403
        ours = {"sec_fetch_site": "same-origin", "content_type": "application/x-www-form-urlencoded"}
        assert get(port, "/do/pause", "POST", "queue=a", **ours)[0] == 303
        assert server.client().smembers("paused") == {b"a"}
        assert web.stop() == 0


def test_it_stands_behind_a_proxy(server: Server, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("anna:viewer:a-long-enough-secret\n")
    words = ["--root-path", "/ops/jobs/", "--trust-proxy", "127.0.0.1", "--host-name", "jobs.example", "--auth", "keys"]
    with running("web", "--redis", server.tcp_url, "--port", "0", *words, cwd=tmp_path) as web:
        port = port_of(web)
        asked = {"host": "jobs.example", "x_forwarded_proto": "https", "authorization": "Bearer a-long-enough-secret"}
        assert get(port, "/queues", host="jobs.example")[0] == 401
        status, headers, text = get(port, "/queues", **asked)
        assert (status, "strict-transport-security" in headers) == (200, True)
        assert [link for link in links(text) if not link.startswith("/ops/jobs/")] == []
        assert web.stop(signal.SIGINT) == 0


def test_forwarded_headers_are_not_believed_without_a_proxy(server: Server, tmp_path: Path) -> None:
    with running("web", "--redis", server.tcp_url, "--port", "0", cwd=tmp_path) as web:
        headers = get(port_of(web), "/queues", x_forwarded_proto="https")[1]
        assert "strict-transport-security" not in headers


def test_a_port_that_is_taken_is_told(server: Server, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        done = command("web", "--redis", server.tcp_url, "--port", str(taken.getsockname()[1]), cwd=tmp_path)
    assert (done.code, "is taken" in done.err) == (5, True)


def test_dev_shows_it(server: Server, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import pillion\n\n@pillion.job\ndef hello(): ...\n")
    with running("dev", "app.py", cwd=tmp_path, env={"REDIS_URL": server.tcp_url}) as dev:
        dev.wait_for("the dashboard is at")
        port = int(re.findall(r"dashboard is at http://127\.0\.0\.1:(\d+)/", dev.heard)[0])
        dev.wait_for("pillion is running")
        assert get(port, "/api/v1/processes")[2].count('"identity"') == 1
        dev.stop()

"""The dashboard inside other programs: under a path, behind a proxy, in Starlette, in a WSGI server."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from pillion import Client
from pillion.web import ANYONE_I_KNOW, Dashboard, dashboard
from tests.servers import Server
from tests.web.conftest import Visit
from tests.web.visitor import Visitor

LINK = re.compile(r"""(?:href|src|action)=["']([^"']*)["']""")


def links(text: str) -> set[str]:
    """Where a page leads, but for the address it does not know."""
    return {found for found in LINK.findall(text) if not found.startswith(("#", "data:", "http"))}


@pytest.fixture(params=["", "/a", "/a/b", "/ä b"])
def root(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(params=["root_path", "mounted", "mounted twice"])
def under(request: pytest.FixtureRequest, visit: Visit, client: Client, root: str) -> Visitor:
    """A browser whose addresses all begin at `root`."""
    app = dashboard(client, auth=ANYONE_I_KNOW)
    if request.param == "root_path":
        return visit(app=app, root=root)
    host = Starlette(routes=[Mount(root or "/", app)])
    if request.param == "mounted twice":
        host = Starlette(routes=[Mount("/x", host)])
        root = f"/x{root}"
    visitor = visit(app=host)
    visitor.prefix = root
    return visitor


@pytest.mark.parametrize("path", ["/", "/queues", "/queues/a%2Fb", "/jobs?q=state:dead", "/nope"])
def test_every_link_stays_below(under: Visitor, path: str) -> None:
    from urllib.parse import quote

    root = quote(under.root + under.prefix)
    found = links(under.get(path).text)
    assert f"{root}/queues" in found
    assert [link for link in found if not link.startswith(f"{root}/")] == []


def test_every_file_of_a_page_is_there(under: Visitor) -> None:
    from urllib.parse import quote

    root = quote(under.root + under.prefix)
    files = {link for link in links(under.get("/").text) if "/static/" in link}
    assert len(files) >= 3
    assert {under.get(link.removeprefix(root)).status for link in files} == {200}


@pytest.mark.rule("web.mounted")
def test_a_button_leads_back_below(under: Visitor, server: Server) -> None:
    from urllib.parse import quote

    root = quote(under.root + under.prefix)
    found = under.post("/do/pause", queue="mailers", back=f"{root}/queues")
    assert (found.status, found.header("location")) == (303, f"{root}/queues")
    assert server.client().sismember("paused", "mailers")
    assert f"Path={root or '/'};" in f"{found.header('set-cookie')};"
    assert "mailers" in under.get("/queues").text


def test_the_mounts_own_address_works_with_and_without_its_slash(visit: Visit, client: Client) -> None:
    visitor = visit(app=dashboard(client, auth=ANYONE_I_KNOW), root="/jobs")
    assert visitor.get("").status == visitor.get("/").status == 200


def test_two_dashboards_of_one_program_are_apart(visit: Visit, client: Client, new_server: Any) -> None:
    other = Client(new_server().url)
    other.push({"class": "Web::Other", "args": [], "queue": "elsewhere"})
    both = {"/a": dashboard(client, auth=ANYONE_I_KNOW), "/b": dashboard(other, auth=lambda _: None)}
    visitor = visit(app=Starlette(routes=[Mount(path, app) for path, app in both.items()]))
    assert visitor.get("/a/api/v1/queues").json == []
    assert visitor.get("/b/api/v1/queues").status == 403
    other.close()


# --- WSGI -------------------------------------------------------------------------------------------------------------


class WsgiVisitor:
    """A browser in front of a WSGI server's application."""

    def __init__(self, app: Any, root: str = "") -> None:
        self.app, self.root = app, root

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], str]:
        path, _, query = path.partition("?")
        said: list[Any] = []
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": self.root,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "HTTP_HOST": "localhost",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
        }
        chunks = b"".join(self.app(environ, lambda *words: said.append(words)))
        [(status, found, *_)] = said
        return int(status[:3]), dict(found), chunks.decode()


@pytest.fixture
def wsgi(client: Client) -> Iterator[Dashboard]:
    app = dashboard(client, auth=ANYONE_I_KNOW)
    yield app
    app.close()


@pytest.mark.parametrize("root", ["", "/a", "/a/b"])
def test_a_wsgi_server_shows_it(wsgi: Dashboard, server: Server, root: str) -> None:
    visitor = WsgiVisitor(wsgi.wsgi(), root)
    status, headers, text = visitor.ask("GET", "/")
    assert status == 200
    assert "trusted-types" in headers["content-security-policy"]
    assert 'data-live="poll"' in text
    assert [link for link in links(text) if not link.startswith(f"{root}/")] == []
    status, headers, _ = visitor.ask("POST", "/do/pause", b"queue=mailers", sec_fetch_site="same-origin")
    assert (status, headers["location"]) == (303, f"{root}/")
    assert server.client().sismember("paused", "mailers")


def test_a_wsgi_server_opens_no_stream(wsgi: Dashboard) -> None:
    assert WsgiVisitor(wsgi.wsgi()).ask("GET", "/events?topics=queues")[0] == 501


def test_what_has_not_changed_is_not_sent_again(wsgi: Dashboard, client: Client) -> None:
    visitor = WsgiVisitor(wsgi.wsgi())
    status, headers, text = visitor.ask("GET", "/?fragment=nav")
    assert (status, "<html" in text) == (200, False)
    assert visitor.ask("GET", "/?fragment=nav", if_none_match=headers["etag"])[0::2] == (304, "")
    client.push({"class": "Web::Changed", "args": []})
    assert visitor.ask("GET", "/?fragment=nav", if_none_match=headers["etag"])[0] == 200


def test_a_gate_closed_under_wsgi_is_closed(client: Client) -> None:
    app = dashboard(client)
    assert WsgiVisitor(app.wsgi()).ask("GET", "/")[0] == 403
    app.close()


def test_it_needs_nothing_of_the_host_but_a_path(wsgi: Dashboard) -> None:
    host = {"/jobs": wsgi.wsgi()}

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        head = "/" + environ["PATH_INFO"].split("/")[1]
        inner = {**environ, "SCRIPT_NAME": head, "PATH_INFO": environ["PATH_INFO"].removeprefix(head)}
        return host[head](inner, start_response)

    assert WsgiVisitor(app).ask("GET", "/jobs/queues")[0] == 200
    assert WsgiVisitor(app).ask("GET", "/jobs")[0] == 200


def test_the_sources_are_shipped() -> None:
    folder = Path(__file__).parents[2] / "src" / "pillion" / "web"
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} >= {".py", ".html", ".css", ".js", ".toml"}

"""Extensions: the one in `examples/web_extension`, and what one that misbehaves cannot do."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pillion import Client
from pillion.errors import UsageError
from pillion.web import ANYONE_I_KNOW, Action, Dashboard, Extension, Page, Role, Route, Tab, View, dashboard
from pillion.web.extension import Extension as Added
from tests.servers import Server
from tests.web.conftest import Visit
from tests.web.visitor import Visitor

EXAMPLE = Path(__file__).parents[2] / "examples" / "web_extension" / "on_call.py"


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("on_call_example", EXAMPLE)
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def duty() -> Any:
    return example().Duty("anna")


def extended(client: Client, extension: Added, role: str = "admin") -> Dashboard:
    app = dashboard(client, auth=lambda _: role)
    app.register(extension)
    return app


@pytest.fixture
def on_call(visit: Visit, client: Client, duty: Any) -> Visitor:
    return visit(app=extended(client, example().extension(duty)), root="/jobs")


def test_it_has_a_tab_on_every_page(on_call: Visitor) -> None:
    for path in ("/queues", "/ext/on-call/"):
        assert 'href="/jobs/ext/on-call/"' in on_call.get(path).text, path


@pytest.mark.rule("web.extensions")
def test_it_has_a_page_in_our_frame(on_call: Visitor) -> None:
    assert on_call.get("/ext/on-call").header("location") == "/jobs/ext/on-call/"
    found = on_call.get("/ext/on-call/")
    assert (found.status, found.header("x-on-call")) == (200, "1")
    assert "anna is on call. 0 jobs are dead." in found.text
    assert '<nav class="nav"' in found.text
    assert "trusted-types pillion" in found.header("content-security-policy")


def test_its_fragments_are_live(on_call: Visitor) -> None:
    found = on_call.get("/ext/on-call/?fragment=duty")
    assert found.text.strip().startswith("<section")
    assert on_call.get("/ext/on-call/?fragment=duty", if_none_match=found.header("etag")).status in (200, 304)


def test_its_texts_are_the_readers(on_call: Visitor) -> None:
    assert "anna hat Dienst" in on_call.get("/ext/on-call/", accept_language="de").text
    assert "anna is on call" in on_call.get("/ext/on-call/", accept_language="ja").text


def test_its_files_are_served(on_call: Visitor) -> None:
    assert on_call.get("/static/on-call/on_call.css").status == 200
    assert on_call.get("/static/on-call/../on_call.py").status == 404


def test_its_button_works_and_is_noted(on_call: Visitor, duty: Any, server: Server) -> None:
    found = on_call.post("/do/on-call.take", name="<b>otto</b>")
    assert (found.status, found.header("location")) == (303, "/jobs/ext/on-call/")
    assert duty.name == "<b>otto</b>"
    assert "&lt;b&gt;otto" in on_call.get("/ext/on-call/").text
    [note] = on_call.get("/api/v1/audit").json["notes"]
    assert (note["verb"], note["by"]) == ("on-call.take", "admin")


def test_its_button_needs_its_role_and_our_page(visit: Visit, client: Client, duty: Any) -> None:
    viewer = visit(app=extended(client, example().extension(duty), "viewer"))
    assert viewer.post("/do/on-call.take").status == 403
    assert '<form method="post"' not in viewer.get("/ext/on-call/?fragment=duty").text
    other = visit(app=extended(client, example().extension(duty)))
    other.same_site = "cross-site"
    assert other.post("/do/on-call.take").status == 403
    assert duty.name == "anna"


def test_it_adds_rows_to_a_job(on_call: Visitor, client: Client) -> None:
    jid = client.push({"class": "Web::Job", "args": []})
    shown = on_call.get(f"/job/{jid}").text
    assert "https://runbooks.example/Web::Job" in shown


# --- one that misbehaves ----------------------------------------------------------------------------------------------


async def broken(_: View) -> Page:
    raise RuntimeError("a secret of the extension")


async def away(_: View, __: Any) -> str:
    return "https://evil.example/"


def wild(_: View, __: Any) -> Any:
    raise RuntimeError("no rows today")


def loosened(app: Any) -> Any:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        async def loose(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", b"default-src *")]
            await send(message)

        await app(scope, receive, loose)

    return inner


BAD = Extension(
    "bad",
    tabs=[Tab("<script>alert(1)</script>")],
    routes=[Route("/", broken)],
    actions={"away": Action(away, Role.VIEWER)},
    job_rows=wild,
    middleware=[loosened],
)


@pytest.fixture
def bad(visit: Visit, client: Client) -> Visitor:
    return visit(app=extended(client, BAD))


def test_its_page_fails_alone_and_tells_nothing(bad: Visitor) -> None:
    found = bad.get("/ext/bad/")
    assert (found.status, "secret" in found.text) == (500, False)
    assert bad.get("/queues").status == 200


def test_it_cannot_loosen_our_headers(bad: Visitor) -> None:
    assert "default-src 'none'" in bad.get("/ext/bad/").header("content-security-policy")


def test_it_cannot_send_anybody_elsewhere(bad: Visitor) -> None:
    assert bad.post("/do/bad.away").header("location") == "/"


def test_its_title_is_no_markup(bad: Visitor) -> None:
    assert "<script>alert" not in bad.get("/queues").text


def test_a_job_is_shown_without_its_rows(bad: Visitor, client: Client) -> None:
    found = bad.get(f"/job/{client.push({'class': 'Web::Job', 'args': []})}")
    assert found.status == 200
    assert "no rows today" not in found.text


def test_it_cannot_take_a_verb_of_ours(client: Client, visit: Visit) -> None:
    app = extended(client, Extension("x", actions={"pause": Action(away)}))
    assert app.site.actions["pause"].role is Role.OPERATOR
    assert "x.pause" in app.site.actions


@pytest.mark.parametrize("name", ["", "Bad", "a/b", "../x", "x" * 33, "1x", "a.b"])
def test_its_name_is_a_name(name: str) -> None:
    with pytest.raises(UsageError):
        Extension(name)


@pytest.mark.rule("web.pipeline")
def test_it_comes_once_and_before_the_first_request(client: Client, visit: Visit) -> None:
    app = extended(client, Extension("one"))
    with pytest.raises(UsageError, match="registered already"):
        app.register(Extension("one"))
    visit(app=app).get("/healthz")
    with pytest.raises(UsageError, match="answers requests already"):
        app.register(Extension("two"))


def test_the_example_is_what_its_first_line_says() -> None:
    assert ANYONE_I_KNOW
    assert (EXAMPLE.parent / "app.py").read_text().count("jobs.register(extension(Duty()))") == 1

"""Buttons: preview, confirmation, operation, undo, and what a page says when something went wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pillion import Client
from pillion.api import Queue
from pillion.api.operations import Operations
from pillion.web import actions
from tests.servers import Server
from tests.waiting import wait_until
from tests.web.conftest import Visit
from tests.web.visitor import Response, Visitor


def fill(client: Client, count: int, klass: str = "Web::Act", queue: str = "default") -> None:
    client.push_bulk({"class": klass, "args": [[number] for number in range(count)], "queue": queue})


def hidden(found: Response) -> list[tuple[str, str]]:
    """The fields of the confirmation's form."""
    form = re.search(r'<form method="post" action="/do/[a-z-]+" class="stack">(.*?)</form>', found.text, re.DOTALL)
    assert found.status == 200, found.text
    assert form, found.text
    return re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', form[1])


def said(visitor: Visitor) -> str:
    """What the next page says of the last action."""
    found = re.search(r'<div class="note (\w+)"[^>]*><span>(.*?)</span>', visitor.get("/settings").text, re.DOTALL)
    return f"{found[1]}: {found[2]}" if found else ""


def refs(client: Client, count: int) -> list[tuple[str, str]]:
    """The first jobs of the queue as a person marks them on a page."""
    from pillion.api.search import Search

    return [("id", str(hit.ref)) for hit in Search("state:queued", client).page(most=count).hits]


# --- confirmation -----------------------------------------------------------------------------------------------------


def test_what_a_search_means_is_shown_before_it_is_done(visit: Visit, client: Client, server: Server) -> None:
    fill(client, 3)
    visitor = visit(role="operator")
    shown = visitor.post("/do/delete", q="class:Web::Act", back="/queues")
    fields = hidden(shown)
    assert {"q": "class:Web::Act", "shown": "3", "back": "/queues"}.items() <= dict(fields).items()
    assert server.client().llen("queue:default") == 3
    assert visitor.post("/do/delete", *fields, confirm="2").status == 200
    assert server.client().llen("queue:default") == 3
    done = visitor.post("/do/delete", *fields, confirm="3")
    assert (done.status, done.header("location")) == (303, "/queues")
    assert server.client().llen("queue:default") == 0
    assert said(visitor).startswith("ok: ")
    assert said(visitor) == ""


def test_marked_jobs_are_moved_at_once_and_deleted_only_after_a_look(
    visit: Visit, client: Client, server: Server
) -> None:
    fill(client, 3)
    visitor, [one, *rest] = visit(role="operator"), refs(client, 3)
    assert visitor.post("/do/move", one, to="other").status == 303
    assert server.client().llen("queue:other") == 1
    shown = visitor.post("/do/delete", *rest)
    assert visitor.post("/do/delete", *hidden(shown), confirm="2").status == 303
    assert server.client().llen("queue:default") == 0


def test_many_marked_jobs_need_their_number(visit: Visit, client: Client, server: Server) -> None:
    fill(client, actions.MANY + 1)
    marked = refs(client, actions.MANY + 1)
    assert "confirm" in visit().post("/do/move", *marked, to="other").text
    assert server.client().llen("queue:other") == 0


@pytest.mark.parametrize(("more", "done"), [(0, True), (10, True), (11, False)])
def test_a_little_more_than_was_shown_is_done_and_much_more_is_shown_again(
    visit: Visit, client: Client, server: Server, more: int, done: bool
) -> None:
    fill(client, 20)
    visitor = visit(role="operator")
    fields = hidden(visitor.post("/do/delete", q="class:Web::Act"))
    fill(client, more) if more else None
    assert visitor.post("/do/delete", *fields, confirm="20").status == (303 if done else 200)
    assert server.client().llen("queue:default") == (0 if done else 20 + more)


@pytest.mark.parametrize(
    "fields",
    [{}, {"q": "state:nonsense"}, {"id": "nonsense"}, {"q": "class:X", "id": "x"}, {"q": 'error:"'}],
    ids=str,
)
def test_what_cannot_be_done_is_said_where_the_button_was(visit: Visit, fields: dict[str, str]) -> None:
    visitor = visit()
    found = visitor.post("/do/delete", back="/queues", **fields)
    assert (found.status, found.header("location")) == (303, "/queues")
    assert said(visitor).startswith("alarm: ")


# --- operations -------------------------------------------------------------------------------------------------------


def newest(client: Client) -> Any:
    return Operations(client).recent()[0]


def test_a_large_operation_goes_on_without_the_page(
    visit: Visit, client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "AT_ONCE", 0.0)
    fill(client, 1_500)
    visitor = visit(role="operator")
    fields = hidden(visitor.post("/do/move", q="class:Web::Act", to="other"))
    started = visitor.post("/do/move", *fields, confirm="1500")
    assert started.header("location") == f"/operations/{newest(client).id}"
    assert visitor.get(started.header("location")).status == 200
    wait_until(lambda: newest(client).state == "done", timeout=20, what="the operator to end it")
    visitor.app.close()
    assert (Queue("other", client).size(), newest(client).by) == (1_500, "operator")


def test_it_is_undone(visit: Visit, client: Client, server: Server) -> None:
    fill(client, 5)
    before = server.client().lrange("queue:default", 0, -1)
    visitor = visit(role="operator")
    visitor.post("/do/delete", *hidden(visitor.post("/do/delete", q="class:Web::Act")), confirm="5")
    assert server.client().llen("queue:default") == 0
    found = visitor.get("/settings").text
    assert f'value="{newest(client).id}"' in found
    assert visitor.post("/do/undo", operation=newest(client).id).status == 303
    assert server.client().lrange("queue:default", 0, -1) == before
    visitor.app.close()


def test_it_is_held_and_goes_on_and_is_stopped(visit: Visit, client: Client) -> None:
    fill(client, 10)
    started = Operations(client).start("move", "class:Web::Act", by="test", to="other")
    visitor = visit(role="operator")
    states = []
    for verb in ("hold", "halt"):
        visitor.post(f"/do/{verb}", operation=started.id)
        states.append(newest(client).state)
    assert states == ["paused", "stopped"]
    assert visitor.post("/do/go", operation="0" * 24).status == 404
    visitor.app.close()


def test_a_job_is_edited_and_pushed_instead(visit: Visit, client: Client, server: Server) -> None:
    fill(client, 1)
    [(_, ref)] = refs(client, 1)
    old = json.loads(server.client().lindex("queue:default", 0))
    visitor = visit(role="operator")
    found = visitor.post("/do/push", ("class", "Web::Act"), args="[7]", instead=ref)
    [raw] = server.client().lrange("queue:default", 0, -1)
    new = json.loads(raw)
    assert (new["args"], new["edited_from"], new["jid"] != old["jid"]) == ([7], old["jid"], True)
    assert found.header("location") == f"/job/{new['jid']}"
    visitor.app.close()


# --- the audit --------------------------------------------------------------------------------------------------------


def test_what_was_done_and_what_was_refused_is_noted(visit: Visit, client: Client, server: Server) -> None:
    visit(role="operator").post("/do/pause", queue="mailers")
    visit(role="viewer").post("/do/resume", queue="mailers")
    visit(role="operator").post("/do/push", ("class", "Web::Secret"), args='["hunter2"]')
    notes = visit().get("/api/v1/audit").json["notes"]
    assert [(note["by"], note["verb"], note["result"]) for note in notes] == [
        ("operator", "push", "done"),
        ("viewer", "resume", "refused: needs operator"),
        ("operator", "pause", "done"),
    ]
    assert "hunter2" not in json.dumps(notes)


def test_the_log_has_the_address(visit: Visit, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pillion.web.audit")
    visit(role="operator", address="203.0.113.9").post("/do/pause", queue="mailers")
    assert json.loads(caplog.messages[-1]) == ["operator", "OPERATOR", "203.0.113.9", "pause", "mailers", "done"]


# --- preferences ------------------------------------------------------------------------------------------------------


def test_a_language_is_chosen_and_kept(visit: Visit) -> None:
    visitor = visit(role="viewer")
    found = visitor.post("/do/prefer", language="ar")
    assert (found.status, visitor.cookies["pillion_language"]) == (303, "ar")
    assert 'dir="rtl"' in visitor.get("/settings").text
    assert 'lang="en"' in visit().get("/settings", accept_language="xx").text


# --- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/queues", "/jobs", "/dead", "/running", "/workers", "/audit", "/classes"])
def test_a_redis_that_is_gone_is_explained_and_comes_back(visit: Visit, own_server: Server, path: str) -> None:
    visitor = visit(shown=Client(own_server.url.replace("unix://", "unix://:hunter2@")))
    own_server.kill()
    gone = visitor.get(path)
    assert (gone.status, gone.header("retry-after")) == (503, "2")
    assert "hunter2" not in gone.text
    assert gone.header("refresh") == "5"
    own_server.restart()
    assert visitor.get(path).status == 200
    visitor.runner.run(visitor.app.site.client.aclose())


def test_a_fragment_says_so_in_a_sentence(visit: Visit, own_server: Server) -> None:
    visitor = visit(shown=Client(own_server.url))
    own_server.kill()
    found = visitor.get("/dead?fragment=list")
    assert (found.status, found.header("content-type")) == (503, "text/plain; charset=utf-8")
    visitor.runner.run(visitor.app.site.client.aclose())


def test_a_button_whose_redis_is_gone_says_so(visit: Visit, own_server: Server) -> None:
    visitor = visit(shown=Client(own_server.url))
    own_server.kill()
    found = visitor.post("/do/pause", queue="mailers")
    assert (found.status, found.header("refresh")) == (503, "")
    visitor.runner.run(visitor.app.site.client.aclose())


def test_a_page_that_takes_too_long_is_given_up(visit: Visit, own_server: Server) -> None:
    visitor = visit(shown=Client(own_server.url), patience=0.1)
    own_server.pause()
    try:
        assert visitor.get("/dead").status == 503
    finally:
        own_server.resume()
    visitor.runner.run(visitor.app.site.client.aclose())


def test_a_bug_tells_nothing(visit: Visit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr("pillion.api.stats.Stats.aqueue_summaries", broken)
    found = visit().get("/api/v1/queues")
    assert (found.status, "hunter2" in found.text, "hunter2" in caplog.text) == (500, False, True)

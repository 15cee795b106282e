"""The JSON API: what it reads, what it does, and that its document says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from pillion import Client
from pillion.api import Queue
from pillion.web import json_api, openapi
from pillion.web.actions import ACTIONS
from pillion.web.context import View
from tests.conftest import NewServer
from tests.servers import Server
from tests.web.conftest import Visit

FILLED = {"jid": "0" * 24, "id": "0" * 24, "number": "0" * 24, "verb": "retry"}


def path_of(resource: json_api.Resource) -> str:
    return "/api/v1" + re.sub(r"{(\w+)}", lambda match: FILLED[match[1]], resource.path)


@pytest.fixture
def filled(client: Client) -> str:
    """A job that waits; its jid."""
    jid = client.push({"class": "Web::Json", "args": [{"user": "anna"}], "queue": "mailers", "tags": ["eu"]})
    assert jid
    return jid


@pytest.mark.parametrize("resource", json_api.RESOURCES, ids=lambda resource: resource.path)
def test_every_resource_answers(visit: Visit, filled: str, resource: json_api.Resource) -> None:
    found = visit().get(path_of(resource) + ("?q=state:dead" if "verb" in resource.path else ""))
    assert found.status in ((404,) if "{" in resource.path and "verb" not in resource.path else (200,)), found.text
    assert found.header("content-type") == "application/json"
    if found.status == 404:
        assert found.json["error"]["status"] == 404


@pytest.mark.parametrize("resource", json_api.RESOURCES, ids=lambda resource: resource.path)
def test_what_redis_cannot_say_is_a_503(visit: Visit, own_server: Server, resource: json_api.Resource) -> None:
    visitor = visit(shown=Client(own_server.url))
    own_server.kill()
    found = visitor.get(path_of(resource) + ("?q=state:dead" if "verb" in resource.path else ""))
    assert (found.status, found.header("retry-after")) == (503, "2"), found.text
    visitor.runner.run(visitor.app.site.client.aclose())


def test_a_job_is_found_with_its_fields(visit: Visit, filled: str) -> None:
    [job] = visit().get("/api/v1/jobs?q=queue:mailers%20state:queued").json["jobs"]
    wanted = {"jid": filled, "class": "Web::Json", "queue": "mailers", "state": "queued", "tags": ["eu"], "fault": None}
    assert {name: job[name] for name in wanted} == wanted
    detail = visit().get(f"/api/v1/jobs/{filled}").json
    assert detail["job"]["args"] == [{"user": "anna"}]
    assert detail["backtrace"] == []


def test_a_search_goes_on_where_it_ended(visit: Visit, client: Client) -> None:
    client.push_bulk({"class": "Web::Many", "args": [[number] for number in range(7)]})
    visitor, found, after = visit(), list[str](), ""
    while True:
        page = visitor.get(f"/api/v1/jobs?q=state:queued&most=3&after={after}").json
        found += [job["jid"] for job in page["jobs"]]
        after = page["next"]
        if after is None:
            break
    assert len(found) == len(set(found)) == 7


@pytest.mark.parametrize(
    "query",
    [
        "/jobs?q=state:nonsense",
        "/jobs?after=nonsense",
        "/runs?state=x",
        "/runs?after=x",
        "/preview/retry",
        "/jobs?q=" + "x" * 3000,
    ],
)
def test_a_question_that_cannot_be_read_is_told_so(visit: Visit, query: str) -> None:
    found = visit().get(f"/api/v1{query}")
    assert found.status == 400
    assert found.json["error"]["message"]


def test_what_has_not_changed_is_not_sent_again(visit: Visit, filled: str) -> None:
    visitor = visit()
    first = visitor.get("/api/v1/stats/history?days=7")
    assert visitor.get("/api/v1/stats/history?days=7", if_none_match=first.header("etag")).status == 304


def test_the_verdict_is_a_sentence(visit: Visit, client: Client) -> None:
    assert visit().get("/api/v1/verdict").json["level"] == "ok"
    client.push({"class": "Web::Alone", "args": [], "queue": "nobody"})
    found = visit(role="viewer").get("/api/v1/verdict").json
    assert (found["level"], found["rule"], found["command"].split()[:2]) == (
        "alarm",
        "no_workers",
        ["pillion", "worker"],
    )


# --- several shards ---------------------------------------------------------------------------------------------------


@pytest.fixture
def both(client: Client, new_server: NewServer) -> Iterator[dict[str, Client]]:
    """Two shards, with one and with two jobs."""
    other = Client(new_server().url)
    client.push({"class": "Web::Shard", "args": [], "queue": "here"})
    other.push_bulk({"class": "Web::Shard", "args": [[1], [2]], "queue": "there"})
    yield {"eu": client, "us": other}
    other.close()


def test_shards_are_shown_together_or_one_is_picked(visit: Visit, both: dict[str, Client]) -> None:
    visitor = visit(shown=both)
    assert visitor.get("/stats").json["sidekiq"]["enqueued"] == 3
    assert visitor.get("/stats?shard=us").json["sidekiq"]["enqueued"] == 2
    assert visitor.get("/stats/queues").json == {"there": 2, "here": 1}
    assert len(visitor.get("/api/v1/stats").json) == 2
    assert 'queue="there",state="queued",shard="us"' in visitor.get("/metrics").text
    assert 'shard="eu"' not in visitor.get("/metrics?shard=us").text
    assert visitor.get("/api/v1/jobs?shard=us").json["total"] == 2
    assert visitor.get("/api/v1/jobs").status == 400
    for path in ("/", "/queues", "/jobs?q=state:queued", "/jobs?shard=us"):
        assert visitor.get(path).status == 200, path
    visitor.runner.run(both["us"].aclose())


def test_jobs_are_moved_on_one_shard_and_queues_paused_on_all(visit: Visit, both: dict[str, Client]) -> None:
    visitor = visit(shown=both)
    assert visitor.send("/api/v1/do/move", {"q": "class:Web::Shard", "to": "x", "shown": "2"}).status == 400
    done = visitor.send("/api/v1/do/move?shard=us", {"q": "class:Web::Shard", "to": "x", "shown": "2"})
    assert (done.status, Queue("x", both["us"]).size(), Queue("here", both["eu"]).size()) == (200, 2, 1)
    visitor.send("/api/v1/do/pause", {"queue": "x"})
    assert [Queue("x", each).is_paused() for each in both.values()] == [True, True]
    visitor.send("/api/v1/do/resume?shard=us", {"queue": "x"})
    assert [Queue("x", each).is_paused() for each in both.values()] == [True, False]
    visitor.runner.run(both["us"].aclose())


# --- acting -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("web.rest", instead=True)
def test_it_acts_as_the_button_does(visit: Visit, server: Server) -> None:
    done = visit(role="operator").send("/api/v1/do/pause", {"queue": "mailers"})
    assert (done.status, done.json["done"], done.json["values"]) == (200, True, {"queue": "mailers"})
    assert server.client().sismember("paused", "mailers")


def test_a_viewer_may_not(visit: Visit, server: Server) -> None:
    refused = visit(role="viewer").send("/api/v1/do/pause", {"queue": "mailers"})
    assert refused.status == 403
    assert "operator" in refused.json["error"]["message"]
    assert not server.client().exists("paused")


def test_what_has_to_be_confirmed_is_shown_first(visit: Visit, client: Client, server: Server) -> None:
    client.push_bulk({"class": "Web::Doomed", "args": [[number] for number in range(3)]})
    visitor = visit(role="operator")
    shown = visitor.send("/api/v1/do/delete", {"q": "class:Web::Doomed"})
    assert shown.status == 409
    assert (shown.json["done"], shown.json["preview"]["count"], shown.json["preview"]["must_type"]) == (False, 3, True)
    assert server.client().llen("queue:default") == 3
    wrong = visitor.send("/api/v1/do/delete", {"q": "class:Web::Doomed", "shown": 3, "confirm": "4"})
    assert wrong.status == 409
    done = visitor.send("/api/v1/do/delete", {"q": "class:Web::Doomed", "shown": 3, "confirm": "3"})
    assert (done.status, done.json["operation"]["operation"]["moved"]) == (200, 3)
    assert server.client().llen("queue:default") == 0


def test_nothing_is_done_to_more_than_was_shown(visit: Visit, client: Client, server: Server) -> None:
    client.push_bulk({"class": "Web::Doomed", "args": [[number] for number in range(50)]})
    asked = {"q": "class:Web::Doomed", "shown": "3", "confirm": "3"}
    assert visit(role="operator").send("/api/v1/do/delete", asked).status == 409
    assert server.client().llen("queue:default") == 50


def test_a_job_is_pushed(visit: Visit, server: Server) -> None:
    done = visit(role="operator").send(
        "/api/v1/do/push", {"class": "Web::New", "args": '["bob", 5]', "queue": "mailers"}
    )
    assert done.status == 200
    [raw] = server.client().lrange("queue:mailers", 0, -1)
    assert done.json["answer"]["jid"].encode() in raw


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"class": "X"},
        {"class": "X", "args": "{}"},
        {"class": "X", "args": "nonsense"},
        {"class": "X", "args": "[]", "at": "soon"},
    ],
    ids=str,
)
def test_what_is_no_job_is_not(visit: Visit, server: Server, fields: dict[str, str]) -> None:
    assert visit(role="operator").send("/api/v1/do/push", fields).status == 400
    assert server.client().keys("queue*") == []


@pytest.mark.parametrize("verb", ["nonsense", "__class__", "pause.x"])
def test_there_is_no_other_action(visit: Visit, verb: str) -> None:
    assert visit().send(f"/api/v1/do/{verb}", {}).status == 404


# --- its document -----------------------------------------------------------------------------------------------------


def document(visit: Visit) -> dict[str, Any]:
    found: dict[str, Any] = visit(root="/jobs").get("/api/v1/openapi.json").json
    return found


def test_the_document_has_every_address_and_every_action(visit: Visit) -> None:
    found = document(visit)
    assert found["openapi"].startswith("3.1")
    assert found["servers"] == [{"url": "/jobs/api/v1"}]
    reading = {path for path, methods in found["paths"].items() if "get" in methods}
    acting = {path for path, methods in found["paths"].items() if "post" in methods}
    assert reading == {resource.path for resource in json_api.RESOURCES}
    assert acting == {f"/do/{verb}" for verb in ACTIONS}


def test_every_reference_in_it_leads_somewhere(visit: Visit) -> None:
    found = document(visit)
    names = set(re.findall(r"#/components/schemas/(\w+)", str(found)))
    assert names
    assert names <= set(found["components"]["schemas"])


def test_the_fields_of_every_action_are_described(visit: Visit) -> None:
    assert set(openapi.FIELDS) == set(ACTIONS)


def test_its_operations_have_names_of_their_own(visit: Visit) -> None:
    names = [method["operationId"] for methods in document(visit)["paths"].values() for method in methods.values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("verb", sorted(ACTIONS))
def test_a_viewer_may_do_nothing_but_choose_a_language(visit: Visit, server: Server, verb: str) -> None:
    found = visit(role="viewer").send(f"/api/v1/do/{verb}", {"queue": "mailers", "language": "de"})
    assert (found.status == 403) is (verb != "prefer")


@pytest.mark.parametrize("verb", [verb for verb, action in ACTIONS.items() if action.role.name == "ADMIN"])
def test_an_operator_may_not_do_what_admins_do(visit: Visit, verb: str) -> None:
    assert visit(role="operator").send(f"/api/v1/do/{verb}", {"q": "state:dead"}).status == 403


def test_buttons_are_drawn_for_those_who_may_press_them(visit: Visit) -> None:
    site = visit().app.site
    from pillion.web.access import Role

    assert {verb for verb in ACTIONS if site.may(verb, Role.VIEWER)} == {"prefer"}
    assert {verb for verb in ACTIONS if not site.may(verb, Role.ADMIN)} == set()
    assert not site.may("nonsense", Role.ADMIN)
    assert View.may

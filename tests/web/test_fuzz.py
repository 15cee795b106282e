"""Strange questions: the JSON API by its own document, and pages full of markup that somebody else wrote.

Schemathesis makes the questions, valid and not. `make test` asks a few hundred; WEB_FUZZ=20 asks twenty times as
many. Every answer is one that the document knows, whatever Redis does."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core import NotSet
from schemathesis.generation import GenerationMode

from pillion import Client
from pillion.web import json_api, openapi
from pillion.web.actions import ACTIONS
from tests.servers import Server
from tests.web.conftest import Visit
from tests.web.visitor import Response, Visitor

TIMES = int(os.environ.get("WEB_FUZZ", "1"))
DOCUMENT: dict[str, Any] = openapi.document(
    [(each.path, each.type, each.summary, each.params) for each in json_api.RESOURCES],
    {verb: action.role.name for verb, action in ACTIONS.items()},
    "",
)
OPERATIONS = [found.ok() for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
QUIET = [
    HealthCheck.function_scoped_fixture,
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
]
CASES = st.one_of([each.as_strategy(generation_mode=mode) for each in OPERATIONS for mode in MODES])
UNCHECKED = {403, 405, 408, 414, 421, 429, 431}
"""What the gate says before the API is asked."""

CANARY = """"'><svg onload=x>{{7*7}}${7*7}</script><b id=canary>"""


def asked(examples: int) -> Callable[[Any], Any]:
    """So many questions for a test."""

    def decorate(test: Any) -> Any:
        chosen = settings(max_examples=examples * TIMES, deadline=None, suppress_health_check=QUIET, database=None)
        return chosen(given(CASES)(test))

    return decorate


def ask(visitor: Visitor, case: Any) -> Response:
    """Ask what Schemathesis made up."""
    path = re.sub(
        r"{(\w+)}", lambda name: quote(str((case.path_parameters or {}).get(name[1], "x")), safe="%"), case.path
    )
    query = urlencode({name: value for name, value in (case.query or {}).items() if value is not None}, doseq=True)
    address = f"/api/v1{path}" + (f"?{query}" if query else "")
    if case.method.upper() == "GET":
        return visitor.get(address)
    given = b"" if isinstance(case.body, NotSet) else case.body
    body = given if isinstance(given, bytes) else json.dumps(given).encode()
    return visitor.ask("POST", address, body, {"content-type": "application/json"})


def check(case: Any, found: Response) -> None:
    """Is that an answer that the document knows, and harmless?"""
    assert found.status != 500, found.text
    assert found.header("content-type") == "application/json"
    assert not {*b"<>&"} & {*found.body}
    responses = DOCUMENT["paths"][case.path][case.method.lower()]["responses"]
    if str(found.status) in responses:
        schema = responses[str(found.status)]["content"]["application/json"]["schema"]
        validator = jsonschema_rs.validator_for({**schema, "components": DOCUMENT["components"]})
        assert [str(error) for error in validator.iter_errors(found.json)] == []
    else:
        assert found.status in UNCHECKED, (found.status, found.text)


@pytest.fixture
def asker(visit: Visit, filled: None) -> Visitor:
    return visit(requests_per_second=1_000_000, address="")


@pytest.fixture
def filled(client: Client, server: Server) -> None:
    """One job of each state, and a process, all full of markup."""
    plant(server)


def plant(server: Server) -> None:
    redis = server.client()
    fields = {"class": CANARY, "args": [CANARY, {CANARY: CANARY}], "jid": CANARY, "queue": CANARY, "tags": [CANARY]}
    failed = {
        "error_class": CANARY,
        "error_message": CANARY,
        "retry_count": 1,
        "failed_at": 1.7e9,
        "cattr": {CANARY: CANARY},
    }
    times = {"created_at": 1.7e9, "enqueued_at": 1.7e9}
    job = json.dumps({**fields, **times})
    redis.sadd("queues", CANARY, "plain")
    redis.sadd("paused", CANARY)
    redis.lpush(f"queue:{CANARY}", job, CANARY)
    redis.lpush("queue:plain", job)
    for name in ("schedule", "retry", "dead"):
        redis.zadd(name, {json.dumps({**fields, **times, **failed}): 1.7e9, CANARY: 1.7e9 + 1})
    info = {"hostname": CANARY, "tag": CANARY, "labels": [CANARY], "queues": [CANARY], "pid": 1, "version": CANARY}
    redis.sadd("processes", CANARY)
    redis.hset(CANARY, mapping={"info": json.dumps(info), "busy": 1, "beat": 1.7e9, "quiet": "false", "concurrency": 5})
    redis.hset(f"{CANARY}:work", CANARY, json.dumps({"queue": CANARY, "run_at": 1_700_000_000, "payload": job}))


# --- the API ----------------------------------------------------------------------------------------------------------


@asked(150)
def test_every_answer_is_one_that_the_document_knows(asker: Visitor, case: Any) -> None:
    check(case, ask(asker, case))


def test_and_so_it_is_while_redis_is_gone(visit: Visit, own_server: Server) -> None:
    visitor = visit(shown=Client(own_server.url), requests_per_second=1_000_000)
    own_server.kill()

    @asked(40)
    def story(case: Any) -> None:
        found = ask(visitor, case)
        check(case, found)
        assert found.status >= 400 or case.path == "/do/prefer"

    story()
    visitor.runner.run(visitor.app.site.client.aclose())


def test_and_while_it_hangs(visit: Visit, own_server: Server) -> None:
    visitor = visit(shown=Client(own_server.url), requests_per_second=1_000_000, patience=0.01)
    own_server.pause()

    @asked(15)
    def story(case: Any) -> None:
        check(case, ask(visitor, case))

    try:
        story()
    finally:
        own_server.resume()
    visitor.runner.run(visitor.app.site.client.aclose())


# --- pages ------------------------------------------------------------------------------------------------------------


class Markup(HTMLParser):
    """What a browser would make of a page: elements, attributes, links, and what is wrong with them."""

    VOID = frozenset("area base br col embed hr img input link meta source track wbr path circle rect line".split())

    def __init__(self, text: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.links: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "srcdoc") or value == "canary":
                self.wrong.append(f"<{tag} {name}={value!r}>")
            if name in ("href", "src", "action", "formaction") and value:
                self.links.add(value)
                if not value.startswith(("/", "#", "data:image/")):
                    self.wrong.append(f"<{tag}> leads to {value!r}")
        found = dict(attrs)
        inert = found.get("rel") == "icon" or found.get("type") == "application/json"
        if tag in ("script", "link") and "nonce" not in found and not inert:
            self.wrong.append(f"<{tag}> without a nonce")


def faults(found: Response) -> list[str]:
    text = found.text
    wrong = Markup(text).wrong
    return wrong + [sign for sign in ("<svg onload", "<b id=canary", "{{7*7}}</") if sign in text]


def crawled(visitor: Visitor, most: int = 150) -> Iterator[tuple[str, Response]]:
    """Every page that can be reached, and what it shows."""
    ahead, seen = ["/"], {"/"}
    while ahead and len(seen) < 400 and most:
        path = ahead.pop(0)
        most -= 1
        found = visitor.get(path)
        yield path, found
        if found.header("content-type").startswith("text/html"):
            new = {link for link in Markup(found.text).links if urlsplit(link).path.startswith("/")} - seen
            new = {link for link in new if not link.startswith(("/static/", "/do/", "/events", "//", "#"))}
            ahead += sorted(new)
            seen |= new


@pytest.mark.rule("b9.70")
def test_no_page_makes_markup_of_what_jobs_hold(asker: Visitor) -> None:
    pages = dict(crawled(asker))
    assert len(pages) > 25
    wrong = {path: found.status for path, found in pages.items() if found.status not in (200, 302, 404)}
    assert wrong == {}
    assert {path: faults(found) for path, found in pages.items() if faults(found)} == {}
    assert sum("&lt;svg onload=x&gt;" in found.text for found in pages.values()) > 8


PLACES = ["/", "/queues", "/queues/x", "/jobs", "/job/x", "/running", "/failures", "/scheduled", "/retries", "/dead"]
PLACES += ["/classes", "/classes/x", "/workers", "/operations/x", "/audit", "/settings", "/stack/1", "/events", "/nope"]


@pytest.mark.parametrize("path", PLACES)
def test_no_page_makes_markup_of_what_was_asked(visit: Visit, path: str) -> None:
    visitor = visit(requests_per_second=1_000_000)
    strange = quote(CANARY, safe="")
    asked = "&".join(
        f"{name}={strange}" for name in "q after fragment shard period order name by class state days".split()
    )
    for address in (f"{path}?{asked}", f"{path}?q={strange}", f"{path}/{strange}", f"{path}?fragment={strange}"):
        found = visitor.get(address, accept_language=CANARY, referer=CANARY, user_agent=CANARY)
        assert found.status in (200, 302, 400, 404, 501), (address, found.status, found.text[:300])
        if found.header("content-type").startswith("text/html"):
            assert faults(found) == [], address


def test_no_page_makes_markup_of_a_cookie(visit: Visit) -> None:
    visitor = visit()
    for name in (
        "pillion_flash",
        "pillion_language",
        "pillion_theme",
        "pillion_zone",
        "pillion_density",
        "pillion_session",
    ):
        visitor.cookies[name] = quote(CANARY, safe="'<>{}$=* ")
    found = visitor.get("/queues")
    assert found.status == 200
    assert faults(found) == []


def test_a_cookie_says_nothing_that_is_not_in_our_table(visit: Visit) -> None:
    import base64

    visitor = visit()
    for key in (CANARY, "{0.__class__}", "place.queues", "done.pause"):
        said = json.dumps({"level": "ok", "key": key, "values": {"queue": CANARY, "x": [CANARY]}})
        visitor.cookies["pillion_flash"] = base64.urlsafe_b64encode(said.encode()).decode()
        found = visitor.get("/queues")
        assert (found.status, faults(found)) == (200, [])
        assert "__class__" not in found.text


def test_a_job_of_ten_megabytes_is_shown_in_part(visit: Visit, client: Client, server: Server) -> None:
    job = json.dumps({"class": "Web::Big", "args": ["x" * 10_000_000], "jid": "b" * 24, "queue": "default"})
    server.client().zadd("dead", {job: 1.7e9})
    visitor = visit()
    for path in ("/dead", "/jobs?q=state:dead", f"/job/{'b' * 24}", "/api/v1/jobs?q=state:dead"):
        found = visitor.get(path)
        assert (found.status, len(found.body) < 300_000) == (200, True), path

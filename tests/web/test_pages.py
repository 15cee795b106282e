"""The pages as text: what each draws, empty and full, in every language, for every role, and what it never draws."""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

import pytest

from pillion import Client
from pillion.api import Queue, Stats
from pillion.api.verdict import judge
from pillion.web import Role, User
from pillion.web.words import LANGUAGES
from tests.servers import Server
from tests.web.conftest import Visit
from tests.web.seeding import SMALL, seed
from tests.web.shop import PAGES, Found
from tests.web.visitor import Visitor

CANARY = "<script>alert(1)</script><b id=canary>\u202e"
KEY = re.compile(
    r"\b(?:place|frame|act|bulk|col|overview|chart|queue|job|line|running|class|settings|gone)\.[a-z_]{3,}\b"
)
EMPTY = {
    "/": "No jobs yet",
    "/queues": "No queue has ever had a job",
    "/jobs": "No jobs",
    "/running": "No worker is connected",
    "/failures": "Nothing has failed",
    "/scheduled": "Nothing is planned",
    "/retries": "Nothing waits for a retry",
    "/dead": "Nobody died",
    "/classes": "No job ran in this time",
    "/workers": "No worker is connected",
    "/audit": "Nobody has done anything",
}


@pytest.fixture
def shop(server: Server, visit: Visit) -> Visitor:
    """An admin in front of a shop's dashboard."""
    seed(server.url, SMALL)
    return visit()


def read(visitor: Visitor, path: str, **headers: str) -> Found:
    response = visitor.get(path, **headers)
    assert response.status == 200, (path, response.status, response.text[-500:])
    return Found(response.text)


def hostile(server: Server) -> None:
    """A job of every state whose every text is markup, and queues with names that hurt."""
    client = Client(server.url)
    redis = server.client()
    job = {"class": CANARY, "args": [CANARY, {CANARY: CANARY}], "queue": "a/b?c#<i>", "jid": "f" * 24, "tags": [CANARY]}
    failed = {"error_class": CANARY, "error_message": CANARY, "retry_count": 1, "failed_at": 1, CANARY: CANARY}
    for name in ("a/b?c#<i>", CANARY):
        redis.sadd("queues", name)
        redis.lpush(f"queue:{name}", json.dumps(job), "no json at all <b id=canary>")
    for name in ("schedule", "retry", "dead"):
        redis.zadd(name, {json.dumps({**job, **failed, "jid": name}): 2e9, f"{{<b id=canary>{name}": 1.0})
        odd = {
            "class": 5,
            "args": "no list",
            "queue": [],
            "tags": 7,
            "error_class": "X",
            "retry_count": "many",
            "jid": {},
        }
        redis.zadd(name, {json.dumps(odd): -5.0, json.dumps({"class": "Bare", "error_class": "E", "jid": "bare"}): 7.0})
    redis.sadd("processes", CANARY)
    info = json.dumps({"hostname": CANARY, "tag": CANARY, "labels": [CANARY], "queues": [CANARY], "version": CANARY})
    redis.hset(CANARY, mapping={"info": info, "busy": 1, "concurrency": 5, "beat": "1"})
    work = json.dumps({"queue": CANARY, "payload": json.dumps(job), "run_at": 1})
    redis.hset(f"{CANARY}:work", CANARY, work)
    client.close()


# --- every page -----------------------------------------------------------------------------------------------------


def test_every_page_is_drawn_with_all_its_words(shop: Visitor) -> None:
    for path in PAGES:
        found = read(shop, path)
        assert not KEY.search(found.text), (path, KEY.search(found.text))
        assert len(found.every("h1")) == 1
        assert len(found.every("main")) == 1


@pytest.mark.parametrize("path", EMPTY)
def test_every_page_says_why_it_is_empty(server: Server, visit: Visit, path: str) -> None:
    assert EMPTY[path] in read(visit(), path).text


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_page_in_every_language(server: Server, visit: Visit, lang: str) -> None:
    seed(server.url, SMALL)
    visitor = visit()
    for path in PAGES:
        found = read(visitor, path, accept_language=lang)
        assert found.every("html", lang=lang, dir="rtl" if lang == "ar" else "ltr"), path
        assert not KEY.search(found.text), (path, KEY.search(found.text))


def test_every_fragment_is_one_element_of_its_name(shop: Visitor) -> None:
    for path in PAGES:
        found = read(shop, path)
        live = [each["id"] for _, each in found.elements if each.get("data-live") and "id" in each]
        assert "nav" in live
        for name in live:
            part = shop.get(f"{path}{'&' if '?' in path else '?'}fragment={name}")
            assert part.status == 200, (path, name)
            assert Found(part.text).elements[0][1]["id"] == name
            assert part.header("etag")


def test_what_is_live_is_what_the_stream_knows(shop: Visitor) -> None:
    topics = {
        topic
        for path in PAGES
        for tag, each in read(shop, path).elements
        if tag != "body"
        for topic in each.get("data-live", "").split()
    }
    from pillion.web.live import TOPICS

    assert topics <= TOPICS
    assert {"figures", "queues", "running", "dead", "operations"} <= topics


def test_no_text_of_a_job_becomes_markup(server: Server, visit: Visit) -> None:
    hostile(server)
    visitor = visit()
    seen = set[str]()
    for path in PAGES:
        response = visitor.get(path)
        assert response.status == 200, path
        found = Found(response.text)
        assert not found.every("b", id="canary"), path
        assert "alert(1)</script>" not in response.text, path
        assert "\u202e" not in response.text, path
        seen |= {*found.links("/job/"), *found.links("/queues/"), *found.links("/classes/")}
    assert len(seen) > 5
    for link in seen:
        response = visitor.get(link)
        assert response.status in (200, 404), (link, response.text[:300])
        assert not Found(response.text).every("b", id="canary"), link
        assert "\u202e" not in response.text, link


def test_a_queue_of_any_name_has_its_page(server: Server, visit: Visit) -> None:
    hostile(server)
    visitor = visit()
    names = [unquote(link.removeprefix("/queues/")) for link in read(visitor, "/queues").links("/queues/")]
    assert "a/b?c#<i>" in names
    found = read(visitor, "/queues/a%2Fb%3Fc%23%3Ci%3E")
    assert "unreadable job" in found.text


def test_it_works_below_a_path(server: Server, visit: Visit) -> None:
    seed(server.url, SMALL)
    visitor = visit(root="/a/b")
    for path in PAGES:
        found = read(visitor, path)
        for each in found.every("a"):
            assert each["href"].startswith(("/a/b/", "#", "http://", "https://")), (path, each)
        for each in found.every("form"):
            assert each.get("action", "/a/b/").startswith("/a/b/") or each.get("method") == "dialog", (path, each)


# --- roles ----------------------------------------------------------------------------------------------------------


def test_a_viewer_sees_no_buttons_and_no_arguments(server: Server, visit: Visit) -> None:
    seed(server.url, SMALL)
    visitor = visit(role="viewer")
    for path in PAGES:
        found = read(visitor, path)
        pressed = {each["action"] for each in found.every("form", method="post")}
        assert pressed <= {"/do/prefer"}, path
        assert "order.paid" not in found.text, path
    dead = read(visitor, "/dead")
    assert "hidden for your role" in dead.text
    page = read(visitor, dead.links("/job/")[0])
    assert not page.every("textarea")
    assert "perform_async" not in page.text


def test_secrets_in_arguments_are_never_drawn(shop: Visitor) -> None:
    for path in (*PAGES, "/jobs?q=class:Billing::InvoiceJob"):
        assert "tok_not_for_your_eyes" not in shop.get(path).text, path


def test_an_operator_has_no_button_for_what_only_an_admin_may(server: Server, visit: Visit) -> None:
    seed(server.url, SMALL)
    pressed = {each["action"] for each in read(visit(role="operator"), "/workers").every("form", method="post")}
    assert "/do/quiet" in pressed
    assert not {"/do/quiet-all", "/do/stop-all"} & pressed


# --- what single pages say ------------------------------------------------------------------------------------------


def test_the_verdict_comes_first(shop: Visitor) -> None:
    text = shop.get("/").text
    body = text[text.index("<main") :]
    assert body.index('id="verdict"') < body.index('id="tiles"') < body.index('id="throughput"')
    assert "mailers is 4 min behind" in Found(text).text


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_verdict_is_in_the_readers_language(server: Server, visit: Visit, lang: str) -> None:
    redis = server.client()
    redis.sadd("queues", "mailers")
    redis.lpush("queue:mailers", json.dumps({"class": "X", "args": [], "jid": "1", "created_at": 1_000}))
    visitor = visit()
    text = read(visitor, "/", accept_language=lang).text
    assert ("no worker runs" in text) == (lang == "en")


def test_tiles_and_rows_lead_to_what_they_count(shop: Visitor) -> None:
    found = read(shop, "/")
    for link in ("/running", "/queues", "/queues/mailers", "/classes", "/failures", "/dead"):
        assert found.links(link), link


def test_history_is_shown_for_the_days_that_were_chosen(shop: Visitor) -> None:
    for days in (7, 30, 90, 180):
        found = read(shop, f"/?days={days}")
        [plot] = [each for each in found.every("figure") if each.get("id") == "plot-days"]
        assert len(json.loads(plot["data-plot"])["t"]) == days
    assert shop.get("/?days=many").status == 400


def test_a_queue_has_both_directions_and_pages(shop: Visitor) -> None:
    for order in ("", "?order=oldest"):
        first = read(shop, f"/queues/mailers{order}")
        rows = [each["data-id"] for each in first.every("tr") if "data-id" in each]
        assert len(rows) == 50
        [following] = first.every("a", rel="next")
        second = [each["data-id"] for each in read(shop, following["href"]).every("tr") if "data-id" in each]
        assert len(second) == 50
        assert not {*rows} & {*second}


def test_a_paused_queue_says_so_and_can_go_on(shop: Visitor, client: Client) -> None:
    page = read(shop, "/queues/imports")
    assert "This queue is paused" in page.text
    assert page.every("form", action="/do/resume")
    assert shop.post("/do/resume", queue="imports", back="/queues/imports").status == 303
    assert not Queue("imports", client).is_paused()
    assert "This queue is paused" not in read(shop, "/queues/imports").text


def test_it_is_told_who_paused_a_queue(server: Server, visit: Visit) -> None:
    seed(server.url, SMALL)
    visitor = visit(auth=lambda _: User("anna", Role.OPERATOR))
    visitor.post("/do/pause", queue="webhooks", back="/queues")
    assert "Paused by anna" in read(visitor, "/queues/webhooks").text


def test_a_queue_that_nobody_serves_says_what_to_start(server: Server, visit: Visit) -> None:
    server.client().sadd("queues", "lonely")
    server.client().lpush("queue:lonely", json.dumps({"class": "X", "args": [], "jid": "1"}))
    for path in ("/queues", "/queues/lonely"):
        assert "pillion worker -q lonely" in read(visit(), path).text


def test_a_text_that_is_no_query_shows_where_it_is_wrong(shop: Visitor) -> None:
    for path in ("/jobs?q=state:nowhere", "/dead?q=wait:%3Exyz"):
        assert "^" in read(shop, path).text


def test_a_list_can_be_narrowed(shop: Visitor) -> None:
    found = read(shop, "/dead?q=class:ChargeCard")
    assert "CardError" in found.text
    assert "SMTPServerDisconnected" not in found.text
    nothing = read(shop, "/dead?q=class:Nobody")
    assert "Nothing matches" in nothing.text


def test_a_dead_job_can_be_looked_at(shop: Visitor) -> None:
    page = read(shop, read(shop, "/dead?q=class:SendDigest").links("/job/")[0])
    for said in (
        "SMTPServerDisconnected",
        "digest.py",
        "Timeline",
        "Died",
        "SendDigest.perform_async(",
        "def test_send_digest",
    ):
        assert said in page.text, said
    assert {"/do/retry", "/do/delete"} <= {each["action"] for each in page.every("form", method="post")}
    kinds = [each["data-kind"] for _, each in page.elements if "data-kind" in each]
    assert kinds == ["int", "json"]


def test_a_running_job_can_be_looked_at(shop: Visitor) -> None:
    page = read(shop, read(shop, "/running").links("/job/")[0])
    assert "running" in page.text
    assert page.every("form", action="/do/stack")
    assert not page.every("form", action="/do/delete")


def test_a_job_that_is_gone_is_told_of(shop: Visitor) -> None:
    response = shop.get("/job/nobody")
    assert response.status == 404
    assert "This job is gone" in Found(response.text).text
    ran = next(link for link in read(shop, "/classes/SendReceipt").links("/job/"))
    response = shop.get(ran)
    assert response.status == 404
    assert "Its last known run ended" in Found(response.text).text


def test_a_job_that_cannot_be_read_can_be_looked_at(server: Server, visit: Visit) -> None:
    server.client().zadd("dead", {"this is no job": 5.0})
    visitor = visit()
    page = read(visitor, read(visitor, "/dead").links("/job/")[0])
    assert "unreadable job" in page.text
    assert "this is no job" in page.text
    assert "No worker can run this" in page.text


def test_a_class_has_its_heat_map_and_its_percentiles(shop: Visitor) -> None:
    page = read(shop, "/classes/SendDigest")
    assert page.every("svg", class_="heat")
    assert "SMTPServerDisconnected" in page.text
    assert "p95" in page.text
    for period in ("1h", "2h", "4h", "8h", "24h", "48h", "72h"):
        assert shop.get(f"/classes/SendDigest?period={period}").status == 200


def test_causes_are_few_and_lead_to_their_jobs(shop: Visitor) -> None:
    page = read(shop, "/failures")
    assert "causes" in page.text
    link = next(link for link in page.links("/jobs") if "cause" in link)
    assert read(shop, link).links("/job/")


def test_workers_of_both_languages_are_shown(shop: Visitor) -> None:
    text = read(shop, "/workers").text
    assert "Sidekiq 8.1.7" in text
    assert "Pillion 0.1.0" in text
    assert "leader" in text
    assert "several versions" not in text


def test_an_embedded_worker_has_no_buttons(shop: Visitor) -> None:
    page = read(shop, "/workers")
    assert "part of another program" in page.text
    told = [each["value"] for each in page.every("input", name="process")]
    assert not [identity for identity in told if identity.startswith("worker-4.")]


def test_the_next_day_is_counted(shop: Visitor) -> None:
    page = read(shop, "/scheduled")
    assert "The next 24 hours" in page.text
    assert page.every("svg", class_="bars")


# --- doing something ------------------------------------------------------------------------------------------------


def test_retrying_a_cause_is_previewed_done_noted_and_can_be_seen(shop: Visitor, client: Client) -> None:
    dead = Stats(client).read().dead_size
    asked = shop.post("/do/retry", q="state:dead class:ImportCatalog", back="/failures")
    page = Found(asked.text)
    assert asked.status == 200
    [shown] = page.every("input", name="shown")
    assert "ValidationError" in page.text
    assert Stats(client).read().dead_size == dead
    done = shop.post("/do/retry", q="state:dead class:ImportCatalog", shown=shown["value"], back="/failures")
    assert done.status == 303
    assert Stats(client).read().dead_size == dead - int(shown["value"])
    assert f"Jobs: {shown['value']}" in read(shop, "/failures").text
    audit = read(shop, "/audit")
    assert "Retry" in audit.text
    assert "class:ImportCatalog" in audit.text
    operation = read(shop, audit.links("/operations/")[0])
    assert "class:ImportCatalog" in operation.text


def test_many_must_be_typed(shop: Visitor, client: Client) -> None:
    asked = shop.post("/do/delete", q="state:dead", back="/dead")
    assert Found(asked.text).every("input", name="confirm")
    wrong = shop.post("/do/delete", q="state:dead", shown="160", confirm="12", back="/dead")
    assert "That is not the number above" in Found(wrong.text).text
    assert Stats(client).read().dead_size == 160


def test_what_was_deleted_can_be_brought_back(shop: Visitor, client: Client) -> None:
    assert shop.post("/do/delete", q="state:dead", shown="160", confirm="160", back="/dead").status == 303
    assert Stats(client).read().dead_size == 0
    page = read(shop, "/dead")
    [form] = page.every("form", action="/do/undo")
    operation = page.every("input", name="operation")[0]["value"]
    assert shop.post(form["action"], operation=operation, back="/dead").status == 303
    assert Stats(client).read().dead_size == 160


def test_preferences_are_kept_by_the_browser(shop: Visitor) -> None:
    shop.post("/do/prefer", language="ja", theme="dark", density="compact", zone="local", back="/settings")
    [html] = read(shop, "/").every("html")
    assert (html["lang"], html["data-theme"], html["data-density"], html["data-zone"]) == (
        "ja",
        "dark",
        "compact",
        "local",
    )


# --- trouble --------------------------------------------------------------------------------------------------------


def test_redis_gone_is_a_page_that_explains_and_heals(own_server: Server, visit: Visit) -> None:
    seed(own_server.url, SMALL)
    shown = Client(own_server.url)
    visitor = visit(shown=shown)
    assert visitor.get("/").status == 200
    own_server.kill()
    for path in ("/", "/queues", "/dead"):
        response = visitor.get(path)
        assert response.status == 503, path
        found = Found(response.text)
        assert "Redis does not answer" in found.text
        assert any("data-heal" in each for _, each in found.elements)
        assert response.header("retry-after")
    own_server.restart()
    assert visitor.get("/").status == 200
    visitor.runner.run(shown.aclose())
    shown.close()


def test_an_unknown_page_is_a_page(shop: Visitor) -> None:
    response = shop.get("/nothing")
    assert response.status == 404
    assert "There is no such page" in Found(response.text).text


def test_the_verdict_is_kept_between_two_looks(shop: Visitor, client: Client) -> None:
    from pillion.api.overview import Overview

    first = judge(Overview(client).read())
    assert first.level == "alarm"
    assert "mailers" in read(shop, "/").text

"""The gate of the dashboard: who gets in, from where, with what, and what every response carries."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from pillion import Client, acl
from pillion.config import RedisSettings
from pillion.errors import ConfigError
from pillion.web import ANYONE_I_KNOW, Role, User, dashboard
from pillion.web import security as gate
from pillion.web.access import Keys
from pillion.web.form import MAX_FIELDS
from pillion.web.redaction import Redaction, visible
from tests.servers import Server
from tests.web.conftest import Visit
from tests.web.visitor import FORM, Response, Visitor
from tests.worker.cli import pillion as command

WEB = Path(__file__).parents[2] / "src" / "pillion" / "web"
PLACES = (
    "/",
    "/queues",
    "/static/pillion.css",
    "/events?topics=queues",
    "/api/v1/queues",
    "/stats",
    "/metrics",
    "/nope",
)
SECRET = "a-secret-of-anna"
STRANGE = "\x00\x1b[2J\u202eevil\u200b\ud800\ufeff"


# --- closed by default ------------------------------------------------------------------------------------------------


@pytest.mark.rule("web.auth", instead=True)
@pytest.mark.parametrize("path", PLACES)
def test_nobody_is_let_in_without_auth(client: Client, visit: Visit, path: str) -> None:
    found = visit(app=dashboard(client), address="203.0.113.9").get(path)
    assert (found.status, "auth" in found.text) == (403, True)


@pytest.mark.parametrize("path", PLACES)
def test_nor_where_auth_knows_nobody(visit: Visit, path: str) -> None:
    assert visit(role=None).get(path).status == 403


def test_a_button_changes_nothing_for_nobody(visit: Visit, server: Server) -> None:
    assert visit(role=None).post("/do/pause", queue="default").status == 403
    assert server.client().keys() == []


def test_everybody_may_where_somebody_says_so(visit: Visit) -> None:
    assert visit(auth=ANYONE_I_KNOW).get("/api/v1/queues").status == 200


@pytest.mark.parametrize("words", [["--bind", "0.0.0.0"], ["--bind", "::"], ["--bind", "192.0.2.1"]])
def test_the_command_refuses_to_listen_elsewhere_without_auth(words: list[str], tmp_path: Path) -> None:
    done = command("web", *words, "--port", "0", cwd=tmp_path)
    assert done.code == 2
    assert "--auth" in done.err


def test_the_command_reads_its_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("anna:boss:a-long-enough-secret\n")
    done = command("web", "--bind", "0.0.0.0", "--auth", "keys", cwd=tmp_path)
    assert done.code == 2
    assert "'boss'" in done.err
    assert "a-long-enough-secret" not in done.err


# --- who --------------------------------------------------------------------------------------------------------------


def roles_of(answer: Any) -> dict[str, Any]:
    return {"auth": lambda _: answer}


@pytest.mark.parametrize("answer", ["viewer", Role.VIEWER, User("anna", Role.VIEWER)])
def test_auth_answers_with_a_role_its_name_or_a_user(visit: Visit, answer: Any) -> None:
    assert visit(**roles_of(answer)).get("/api/v1/queues").status == 200


def test_auth_may_be_asynchronous_and_sees_the_request(visit: Visit) -> None:
    async def auth(request: Request) -> str | None:
        return "viewer" if request.headers.get("x-staff") == "yes" else None

    visitor = visit(auth=auth)
    assert visitor.get("/api/v1/queues").status == 403
    assert visitor.get("/api/v1/queues", x_staff="yes").status == 200


@pytest.mark.parametrize("answer", ["boss", 3.5, object()])
def test_auth_that_answers_nonsense_lets_nobody_in(visit: Visit, answer: Any) -> None:
    assert visit(**roles_of(answer)).get("/api/v1/queues").status == 500


def test_auth_that_raises_lets_nobody_in(visit: Visit) -> None:
    def auth(_: Request) -> str:
        raise KeyError(SECRET)

    found = visit(auth=auth).get("/api/v1/queues")
    assert found.status == 500
    assert SECRET not in found.text


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def keyed(visit: Visit, **options: Any) -> Visitor:
    keys = Keys.read(f"# who\nanna:operator:{SECRET}\n\nprom:viewer:{SECRET}-too\n")
    return visit(auth=keys, challenge=Keys.challenge, **options)


@pytest.mark.parametrize(
    "given",
    ["", "Basic", "Basic !", basic("anna", "wrong"), basic("otto", SECRET), "Bearer", "Bearer x", f"Digest {SECRET}"],
)
def test_a_wrong_secret_is_asked_for_again(visit: Visit, given: str) -> None:
    found = keyed(visit).get("/api/v1/queues", authorization=given)
    assert (found.status, found.header("www-authenticate")) == (401, Keys.challenge)


@pytest.mark.parametrize("given", [basic("anna", SECRET), f"Bearer {SECRET}", f"bearer {SECRET}-too"])
def test_the_right_one_opens(visit: Visit, given: str) -> None:
    assert keyed(visit).get("/api/v1/queues", authorization=given).status == 200


def test_secrets_are_not_kept() -> None:
    keys = Keys.read(f"anna:operator:{SECRET}")
    assert SECRET not in repr(vars(keys))


@pytest.mark.parametrize(
    "text", ["", "anna", "anna:viewer", "anna:viewer:short", ":viewer:long-enough-secret", "a:b:c:d"]
)
def test_lines_that_are_no_keys_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Keys.read(text)


def test_a_name_comes_once() -> None:
    with pytest.raises(ConfigError, match="line 2"):
        Keys.read(f"anna:viewer:{SECRET}\nanna:admin:{SECRET}")


def test_an_address_that_guesses_has_to_wait(visit: Visit) -> None:
    visitor = keyed(visit)
    tried = [visitor.get("/api/v1/queues", authorization=basic("anna", "wrong")).status for _ in range(8)]
    assert tried[:6] == [401] * 6
    assert tried[6:] == [429] * 2
    right = visitor.get("/api/v1/queues", authorization=basic("anna", SECRET))
    assert (right.status, int(right.header("retry-after")) > 0) == (429, True)
    visitor.address = "203.0.113.7"
    assert visitor.get("/api/v1/queues", authorization=basic("anna", SECRET)).status == 200


# --- under which name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:9300", "[::1]"])
def test_it_is_known_as_localhost(visit: Visit, host: str) -> None:
    assert visit(host=host).get("/api/v1/queues").status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "xlocalhost",
        "localhost:80:80",
        "[::2]",
        "a@localhost",
    ],
)
def test_and_under_no_other_name(visit: Visit, host: str) -> None:
    assert visit(host=host).get("/").status == 421


def test_forwarded_names_are_not_believed(visit: Visit) -> None:
    assert visit(host="evil.example").get("/", x_forwarded_host="localhost", forwarded="host=localhost").status == 421


@pytest.mark.parametrize("known", ["jobs.example", "jobs.example:8080", "https://jobs.example", "*"])
def test_unless_it_was_told_so(visit: Visit, known: str) -> None:
    visitor = visit(host="jobs.example", hosts=[known])
    assert visitor.get("/api/v1/queues").status == 200
    visitor.host = "other.example"
    assert visitor.get("/api/v1/queues").status == (200 if known == "*" else 421)


@pytest.mark.parametrize("hosts", [[], [b"localhost", b"evil.example"], [b"localhost", b"localhost"]])
def test_the_name_comes_once(visit: Visit, hosts: list[bytes]) -> None:
    visitor = visit()
    scope = visitor.stream("/api/v1/queues")
    scope["headers"] = [(b"host", host) for host in hosts]
    assert visitor.runner.run(visitor.whole(scope, b"")).status == 400


def test_machines_may_ask_for_health_under_any_name_and_hear_nothing(visit: Visit) -> None:
    found = visit(role=None, host="10.1.2.3:9300").get("/healthz")
    assert (found.status, found.text) == (200, "ok\n")


# --- from which page --------------------------------------------------------------------------------------------------

STRANGERS: list[dict[str, str]] = [
    {},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "cross-site", "origin": "http://localhost"},
    {"origin": "null"},
    {"origin": "http://evil.example"},
    {"origin": "https://localhost"},
    {"origin": "http://localhost:8080"},
    {"origin": "http://localhost.evil.example"},
    {"referer": "http://localhost/"},
]


def press(visitor: Visitor, headers: dict[str, str], body: bytes = b"queue=mailers") -> Response:
    visitor.same_site = None
    return visitor.ask("POST", "/do/pause", body, {**FORM, **headers})


@pytest.mark.rule("web.csrf", "b9.69", instead=True)
@pytest.mark.parametrize("headers", STRANGERS, ids=str)
def test_a_button_of_another_site_does_nothing(visit: Visit, server: Server, headers: dict[str, str]) -> None:
    assert press(visit(), headers).status == 403
    assert server.client().keys() == []


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "same-origin"}, {"origin": "http://localhost"}], ids=str)
def test_one_of_ours_works(visit: Visit, server: Server, headers: dict[str, str]) -> None:
    assert press(visit(), headers).status == 303
    assert server.client().sismember("paused", "mailers")


def test_a_public_origin_works_behind_a_proxy_that_hides_the_scheme(visit: Visit) -> None:
    visitor = visit(host="jobs.example", hosts=["https://jobs.example"])
    assert press(visitor, {"origin": "https://jobs.example"}).status == 303
    assert press(visitor, {"origin": "https://evil.example"}).status == 403


def shown_form(visitor: Visitor) -> Response:
    """A page with a form."""
    visitor.post("/do/push", ("class", "Web::Form"), args="[]", queue="mailers")
    visitor.cookies.clear()
    return visitor.post("/do/clear", q="state:queued queue:mailers")


def tokened(visit: Visit, scheme: str = "http") -> tuple[Visitor, str]:
    """A browser that says nothing about itself, and the token of the form that it was shown."""
    visitor = visit(scheme=scheme, secret="x" * 32)
    shown = shown_form(visitor)
    found = re.search(r'name="token" value="([^"]+)"', shown.text)
    assert found, shown.text
    return visitor, found[1]


@pytest.mark.rule("web.csrf", instead=True)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_old_browser_shows_the_token_of_its_session(visit: Visit, scheme: str) -> None:
    visitor, token = tokened(visit, scheme)
    [name] = visitor.cookies
    assert name == ("__Host-pillion" if scheme == "https" else "pillion_session")
    assert press(visitor, {}, f"queue=mailers&token={token}".encode()).status == 303
    assert press(visitor, {}, f"queue=mailers&token={token}x".encode()).status == 403
    visitor.cookies[name] = "f" * 48
    assert press(visitor, {}, f"queue=mailers&token={token}".encode()).status == 403
    visitor.cookies.clear()
    assert press(visitor, {}, f"queue=mailers&token={token}".encode()).status == 403


@pytest.mark.rule("web.session", instead=True)
def test_the_session_cookie_is_for_this_browser_alone(visit: Visit) -> None:
    cookie = shown_form(visit(scheme="https")).header("set-cookie")
    assert {"HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))


def test_a_bearer_token_needs_no_page(visit: Visit) -> None:
    visitor = keyed(visit)
    assert press(visitor, {"authorization": f"Bearer {SECRET}"}).status == 303
    assert press(visitor, {"authorization": basic("anna", SECRET)}).status == 403
    visitor.cookies["other"] = "1"
    assert press(visitor, {"authorization": f"Bearer {SECRET}"}).status == 403


@pytest.mark.parametrize("path", ["/do/pause?queue=mailers", "/api/v1/do/pause?queue=mailers"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_nothing_but_a_post_changes_anything(visit: Visit, server: Server, method: str, path: str) -> None:
    visitor = visit()
    found = visitor.ask(method, path, b"", {"x-http-method-override": "POST", "sec-fetch-site": "same-origin"})
    assert found.status == 405
    assert server.client().keys() == []


def test_there_are_no_cors_headers(visit: Visit) -> None:
    found = visit().get("/api/v1/queues", origin="http://evil.example")
    assert [name for name, _ in found.headers if name.startswith("access-control")] == []


@pytest.mark.parametrize(
    "home",
    [
        "//evil.example/",
        "https://evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "/a\r\nset-cookie: x=1",
        "é",
    ],
)
def test_nobody_is_sent_elsewhere(visit: Visit, home: str) -> None:
    found = visit().post("/do/pause", queue="mailers", back=home)
    assert (found.status, found.header("location")) == (303, "/")


# --- what every response carries --------------------------------------------------------------------------------------


def policy(found: Response) -> dict[str, list[str]]:
    parts = [part.split() for part in found.header("content-security-policy").split(";")]
    return {words[0]: words[1:] for words in parts}


@pytest.mark.rule("web.csp")
@pytest.mark.parametrize("path", ["/", "/nope", "/static/pillion.css", "/api/v1/queues", "/healthz"])
def test_the_policy_allows_what_the_page_needs_and_nothing_else(visit: Visit, path: str) -> None:
    visitor = visit()
    first, second = policy(visitor.get(path)), policy(visitor.get(path))
    [nonce], [other] = first.pop("script-src"), second["script-src"]
    assert first.pop("style-src") == [nonce]
    assert re.fullmatch(r"'nonce-[0-9a-f]{32,}'", nonce)
    assert nonce != other
    assert first == {
        "default-src": ["'none'"],
        "img-src": ["'self'", "data:"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": ["pillion"],
    }


@pytest.mark.rule("web.headers")
@pytest.mark.parametrize("path", ["/", "/nope", "/api/v1/queues", "/api/v1/nope", "/healthz", "/metrics"])
def test_every_response_carries_the_headers(visit: Visit, path: str) -> None:
    found = visit().get(path)
    assert found.header("x-content-type-options") == "nosniff"
    assert found.header("referrer-policy") == "same-origin"
    assert found.header("cross-origin-opener-policy") == "same-origin"
    assert found.header("cross-origin-resource-policy") == "same-origin"
    assert "camera=()" in found.header("permissions-policy")
    assert found.header("cache-control") == "no-store"
    assert found.header("server") == ""
    assert (found.header("content-language") == "en") is found.header("content-type").startswith("text/html")
    assert found.header("strict-transport-security") == ""


def test_refusals_carry_them_too(visit: Visit) -> None:
    assert visit(host="evil.example").get("/").header("x-content-type-options") == "nosniff"


def test_over_tls_the_browser_is_to_come_back_so(visit: Visit) -> None:
    assert "max-age" in visit(scheme="https").get("/").header("strict-transport-security")


def test_static_files_are_kept_and_only_ours(visit: Visit) -> None:
    visitor = visit()
    assert "immutable" in visitor.get("/static/pillion.css").header("cache-control")
    for path in (
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/a%00",
    ):
        assert visitor.get(path).status == 404, path


# --- escaping ---------------------------------------------------------------------------------------------------------


def test_templates_and_scripts_have_no_way_around_escaping() -> None:
    templates = {path.name: path.read_text() for path in WEB.rglob("*.html")}
    assert templates
    for name, text in templates.items():
        assert not re.search(
            r"\|\s*safe\b|autoescape|\son\w+\s*=|\sstyle\s*=|javascript:|<style|srcdoc", text, re.IGNORECASE
        ), name
        assert all("src=" in tag or "application/json" in tag for tag in re.findall(r"<script[^>]*>", text)), name
    own = {path.name: path.read_text() for path in WEB.glob("static/*.js") if ".min." not in path.name}
    for name, text in own.items():
        assert not re.search(r"\.(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )


def test_what_cannot_be_seen_is_shown() -> None:
    assert visible("a\tb\n" + STRANGE) == "a\tb\n\\x00\\x1b[2J\\u202eevil\\u200b\\ud800\\ufeff"
    assert visible("naïve 日本語 العربية") == "naïve 日本語 العربية"


def test_json_is_harmless_in_html(visit: Visit, server: Server) -> None:
    server.client().sadd("queues", "<svg onload=x>&")
    found = visit().get("/api/v1/queues")
    assert not {*b"<>&"} & {*found.body}
    assert found.json[0]["name"] == "<svg onload=x>&"


# --- redaction --------------------------------------------------------------------------------------------------------


def test_values_whose_name_is_secret_are_hidden_at_any_depth() -> None:
    shown = Redaction(["*_pin"]).shown(
        {
            "user": "anna",
            "Password": "x",
            "deep": [{"api_key": 1, "door_pin": 2, "tokens": [3]}],
            "url": "redis://u:pw@h",
        }
    )
    assert shown == {
        "user": "anna",
        "Password": "***",
        "deep": [{"api_key": "***", "door_pin": "***", "tokens": "***"}],
        "url": "redis://u:***@h",
    }


def test_the_api_hides_passwords_in_messages(visit: Visit, server: Server) -> None:
    job = {"class": "Web::Secret", "args": [], "jid": "1" * 24, "queue": "default", "error_class": "OSError"}
    message = "cannot reach redis://shop:hunter2@db/0, password=hunter2"
    server.client().zadd("dead", {json.dumps({**job, "error_message": message, "failed_at": 1.7e9}): 1.7e9})
    visitor = visit(role="viewer")
    for path in ("/api/v1/jobs?q=state:dead", "/api/v1/causes", f"/api/v1/jobs/{'1' * 24}", "/dead", "/failures"):
        found = visitor.get(path)
        assert (found.status, "OSError" in found.text, "hunter2" in found.text) == (200, True, False), path


def test_stacks_are_for_operators(visit: Visit) -> None:
    assert visit(role="viewer").get("/api/v1/stack/1").status == 403
    assert visit(role="viewer").get("/stack/1").status == 403


def test_a_value_of_any_depth_and_length_is_shown_in_part() -> None:
    deep: Any = "x" * 100_000
    for _ in range(1_000):
        deep = [deep]
    assert len(repr(Redaction().shown(deep))) < 1_000
    assert len(Redaction().shown("x" * 100_000)) == 20_000


def test_the_api_shows_no_arguments_to_viewers(visit: Visit, client: Client) -> None:
    client.push({"class": "Web::Secret", "args": [{"password": "hunter2", "user": "anna"}]})
    assert visit(role="viewer").get("/api/v1/jobs?q=state:queued").json["jobs"][0]["args"] is None
    found = visit(role="operator").get("/api/v1/jobs?q=state:queued")
    assert found.json["jobs"][0]["args"] == [{"password": "***", "user": "anna"}]
    allowed = visit(role="viewer", see_args="viewer").get("/api/v1/jobs?q=state:queued")
    assert allowed.json["jobs"][0]["args"] == [{"password": "***", "user": "anna"}]


# --- a Redis user that cannot write -----------------------------------------------------------------------------------


PAGES = ["/", "/queues", "/queues/default", "/jobs", "/running", "/failures", "/scheduled", "/retries", "/dead"]
PAGES += ["/classes", "/workers", "/audit", "/settings", "/stats", "/metrics", "/api/v1/jobs", "/api/v1/processes"]


def test_looking_needs_no_right_to_write(visit: Visit, client: Client, server: Server) -> None:
    client.push({"class": "Web::Looked", "args": []})
    redis = server.client()
    redis.execute_command(*acl.line(acl.roles()["viewer"], "looker", [RedisSettings()]).split())
    redis.execute_command("ACL", "SETUSER", "looker", ">a-password")
    looking = Client(f"redis://looker:a-password@127.0.0.1:{server.port}/0")
    visitor = visit(role="viewer", shown=looking)
    try:
        assert {path: visitor.get(path).status for path in PAGES} == dict.fromkeys(PAGES, 200)
        assert visitor.post("/do/pause", queue="default").status == 403
        assert visit(role="admin", shown=looking).post("/do/pause", queue="default").status == 503
    finally:
        redis.execute_command("ACL", "DELUSER", "looker")
        visitor.runner.run(looking.aclose())


# --- limits -----------------------------------------------------------------------------------------------------------


def test_headers_are_limited(visit: Visit) -> None:
    assert visit().get("/api/v1/queues", x_long="x" * gate.MAX_HEADERS).status == 431


def test_addresses_are_limited(visit: Visit) -> None:
    assert visit().get("/api/v1/jobs?q=" + "x" * gate.MAX_HEADERS).status == 414


@pytest.mark.parametrize("length", ["x", "-1", "1e3", str(gate.MAX_BODY + 1), "9" * 30])
def test_a_body_that_says_it_is_too_long_is_not_read(visit: Visit, length: str) -> None:
    visitor = visit()
    found = visitor.ask("POST", "/do/pause", b"queue=a", {**FORM, "content-length": length})
    assert found.status in (400, 413)


def test_nor_is_one_that_lies(visit: Visit, server: Server) -> None:
    body = b"queue=mailers&x=" + b"x" * gate.MAX_BODY
    assert visit().ask("POST", "/do/pause", body, {**FORM, "content-length": "7"}).status == 413
    assert server.client().keys() == []


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"&".join([b"id=1"] * (MAX_FIELDS + 1)), "application/x-www-form-urlencoded"),
        (b"queue=%ff", "application/x-www-form-urlencoded"),
        (b"[" * 30_000, "application/json"),
        (b'{"queue":' * 5_000, "application/json"),
        (b'{"queue": {"a": 1}}', "application/json"),
        (b'["queue"]', "application/json"),
        (b"\xff", "application/json"),
        (b"queue=a", "text/plain"),
        (b"queue=a", "multipart/form-data; boundary=x"),
    ],
)
def test_a_body_that_cannot_be_read_is_told_so(visit: Visit, body: bytes, media_type: str) -> None:
    assert visit().ask("POST", "/api/v1/do/pause", body, {"content-type": media_type}).status == 400


@pytest.mark.parametrize("days", ["NaN", "1e3", "x", "%00", "1.5", "9" * 30])
def test_what_is_no_number_is_refused(visit: Visit, days: str) -> None:
    assert visit().get(f"/api/v1/stats/history?days={days}").status == 400


@pytest.mark.rule("b9.69", instead=True)
@pytest.mark.parametrize(
    ("days", "shown"), [("0", 1), ("-1", 1), ("181", 180), ("1000000000", 180), ("", 30), ("7", 7)]
)
def test_numbers_are_moved_into_their_bounds(visit: Visit, days: str, shown: int) -> None:
    assert len(visit().get(f"/api/v1/stats/history?days={days}").json["processed"]) == shown


def test_who_asks_too_often_has_to_wait(visit: Visit) -> None:
    visitor = visit(requests_per_second=5)
    statuses = [visitor.get("/healthz").status for _ in range(20)] + [visitor.get("/nope").status for _ in range(20)]
    assert statuses[:20] == [200] * 20
    assert statuses.count(429) >= 10
    assert visitor.get("/nope").header("retry-after") == "1"


def test_the_memory_of_the_gate_is_bounded(monkeypatch: pytest.MonkeyPatch, visit: Visit) -> None:
    monkeypatch.setattr(gate, "MOST_PRINCIPALS", 3)
    visitor = keyed(visit)
    for number in range(10):
        visitor.address = f"203.0.113.{number}"
        visitor.get("/nope", authorization="Bearer wrong")
    door: Any = visitor.app._gate
    assert len(door._rates._seen) <= 3
    assert len(door._failures._failed) <= 3

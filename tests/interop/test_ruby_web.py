"""Ruby's dashboard, `Sidekiq::Web` of 6.4.1, over Pillion's jobs: its pages show them, its buttons work."""

from __future__ import annotations

import asyncio
import html
import json
import re
from typing import Any

import pytest
import redis

from pillion import Client
from pillion.web import dashboard
from tests.interop.sides import Console, Pillion, app, wait_for_member, wait_for_runs
from tests.waiting import wait_until
from tests.web.visitor import Visitor

GET = """
require "sidekiq/web"
$session ||= {}
answer = Rack::MockRequest.new(Sidekiq::Web).get(args[0], "rack.session" => $session)
[answer.status, answer.body]
"""
POST = """
answer = Rack::MockRequest.new(Sidekiq::Web).post(args[0], "rack.session" => $session, params: args[1])
[answer.status, answer.body]
"""
TOKEN = re.compile(r"""name=['"]authenticity_token['"] value=['"]([^'"]+)""")


def page(console: Console, path: str) -> str:
    """A page of the dashboard, its text as a reader sees it."""
    status, body = console(GET, path)
    assert status == 200, body[:500]
    return html.unescape(body)


def press(console: Console, form: str, path: str, **fields: str) -> None:
    """Press a button of the page `form`."""
    token = TOKEN.search(page(console, form))
    assert token
    status, body = console(POST, path, {"authenticity_token": token[1], **fields})
    assert status == 302, body[:500]


@pytest.fixture
def ours(pillion: Pillion, client: redis.Redis) -> Client:
    """The client of a worker that runs one job, and has failed one for a retry and one for good."""
    worker = pillion.work("python", wire="6", heartbeat=0.1, tag="shop", labels=["eu"])
    ours = Client(setup=worker.setup)
    app.Held.set(client=ours, queue="python").perform_async("<held>")
    app.Flaky.set(client=ours, queue="python", tags=["slow"]).perform_async("python", "é")
    app.Flaky.set(client=ours, queue="python", retry=0).perform_async("python", "dies")
    app.HardWorker.set(client=ours, queue="unserved").perform_async("waits", 7)
    app.HardWorker.set(client=ours, queue="python").perform_in(300, "later", 2**60)
    wait_for_runs(client, 3)
    wait_until(lambda: client.zcard("retry") and client.zcard("dead"), what="both failures")
    wait_until(lambda: client.hget(worker.identity, "busy") == b"1", what="the held job in the row")
    return ours


PAGES: dict[str, list[str]] = {
    "/busy": ["shop", "eu", "Held", '"<held>"', "python"],
    "/queues": ["unserved", "python"],
    "/queues/unserved": ["HardWorker", '"waits", 7'],
    "/retries": ["Flaky", '"python", "é"', "slow", "ValueError: python said no"],
    "/scheduled": ["HardWorker", f'"later", {2**60}'],
    "/morgue": ["Flaky", '"dies"', "ValueError: python said no"],
}


def test_every_page_shows_our_jobs(ours: Client, console: Console, client: redis.Redis) -> None:
    for path, words in PAGES.items():
        shown = page(console, path)
        assert [word for word in words if word not in shown] == [], path
    [retry] = client.zrange("retry", 0, -1, withscores=True)
    jid = json.loads(retry[0])["jid"]
    detail = page(console, f"/retries/{retry[1]!r}-{jid}")
    assert [word for word in (jid, "ValueError", "python said no", "in Flaky.perform") if word not in detail] == []
    stats: dict[str, Any] = json.loads(page(console, "/stats"))["sidekiq"]
    numbers = {name: stats[name] for name in ("busy", "processes", "enqueued", "scheduled", "retries", "dead")}
    assert numbers == {"busy": 1, "processes": 1, "enqueued": 1, "scheduled": 1, "retries": 1, "dead": 1}
    client.lpush("release", "now")


def test_its_buttons_retry_kill_and_add(ours: Client, console: Console, client: redis.Redis) -> None:
    client.lpush("release", "now")
    member, score = wait_for_member(client, "retry")
    jid = json.loads(member)["jid"]
    press(console, "/retries", f"/retries/{score!r}-{jid}", retry="Retry")
    again = wait_for_runs(client, 4)[-1]
    assert again["jid"] == jid
    member, score = wait_for_member(client, "retry")
    press(console, "/retries", f"/retries/{score!r}-{jid}", kill="Kill")
    assert (client.zcard("retry"), client.zcard("dead")) == (0, 2)

    member, score = wait_for_member(client, "schedule")
    later = json.loads(member)["jid"]
    press(console, "/scheduled", f"/scheduled/{score!r}-{later}", add_to_queue="Add to queue")
    assert [run["args"] for run in wait_for_runs(client, 5)][-1] == ["later", 2**60]
    press(console, "/queues", "/queues/unserved", delete="Delete")
    assert client.exists("queue:unserved") == 0


@pytest.mark.rule("web.stats", "web.stats-queues")
def test_our_stats_are_its_stats(ours: Client, console: Console, client: redis.Redis) -> None:
    """The same figures under the same keys in the same order; newer ones come after those that 6.4 has."""
    visitor = Visitor(dashboard(ours, auth=lambda _: "viewer"), asyncio.Runner())
    for path in ("/stats/queues", "/stats"):
        theirs, found = json.loads(page(console, path)), visitor.get(path).json
        if path == "/stats":
            for part, figures in theirs.items():
                assert [*found[part]][: len(figures)] == [*figures] if isinstance(figures, dict) else part in found
            moving = {"used_memory_human", "used_memory_peak_human", "connected_clients"}
            theirs = {**theirs["sidekiq"], **{k: v for k, v in theirs["redis"].items() if k not in moving}}
            found = {name: value for part in ("sidekiq", "redis") for name, value in found[part].items()}
            found = {name: found[name] for name in theirs}
        assert {**found, "default_latency": 0} == {**theirs, "default_latency": 0}
    visitor.runner.run(ours.aclose())
    visitor.runner.close()
    client.lpush("release", "now")


@pytest.mark.rule("process.signal", "life.embedded")
def test_its_quiet_button_sends_the_signal(
    ours: Client, console: Console, pillion: Pillion, client: redis.Redis
) -> None:
    """6.4 knows no embedded processes and shows the buttons; ours hears the signal and does not obey."""
    client.lpush("release", "now")
    [identity] = client.smembers("processes")
    press(console, "/busy", "/busy", identity=identity.decode(), quiet="Quiet")
    wait_until(lambda: client.exists(identity + b"-signals") == 0, what="the signal to be taken")
    before = float(client.hget(identity, "beat") or 0)
    wait_until(lambda: float(client.hget(identity, "beat") or 0) > before, what="another beat")
    assert client.hget(identity, "quiet") == b"false"

"""The pages over several shards: merged, one picked, and one that is away."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pillion import Client
from tests.servers import Server
from tests.web.conftest import Visit
from tests.web.seeding import SMALL, seed
from tests.web.shop import PAGES, Found
from tests.web.visitor import Visitor


@pytest.fixture
def both(server: Server, own_server: Server, visit: Visit) -> Iterator[Visitor]:
    """An admin in front of the shards `east` (a shop) and `west` (one queue, one dead job)."""
    seed(server.url, SMALL)
    redis = own_server.client()
    job = {"class": "Western", "args": [], "jid": "w" * 24, "queue": "west", "error_class": "WestError"}
    redis.sadd("queues", "west")
    redis.lpush("queue:west", json.dumps(job))
    redis.zadd("dead", {json.dumps(job): 2_000_000_000})
    shards = {"east": Client(server.url), "west": Client(own_server.url)}
    visitor = visit(shown=shards)
    yield visitor
    for client in shards.values():
        visitor.runner.run(client.aclose())
        client.close()


def text(visitor: Visitor, path: str) -> str:
    response = visitor.get(path)
    assert response.status == 200, (path, response.text[-500:])
    return Found(response.text).text


def test_all_shards_are_shown_together(both: Visitor) -> None:
    assert "161" in text(both, "/")
    assert {"west", "mailers"} <= {*text(both, "/queues").split()}
    dead = text(both, "/dead")
    assert "WestError" in dead
    assert "SMTPServerDisconnected" in dead
    assert "6 causes" in text(both, "/failures")


def test_one_can_be_picked_and_stays_picked(both: Visitor) -> None:
    page = both.get("/dead?shard=west")
    assert "WestError" in page.text
    assert "SMTPServerDisconnected" not in page.text
    assert all("shard=west" in link for link in Found(page.text).links("/queues"))


def test_a_job_is_found_on_its_shard(both: Visitor) -> None:
    link = next(link for link in Found(both.get("/dead").text).links("/job/w"))
    assert "shard=west" in link
    assert "WestError" in text(both, link)
    assert "WestError" in text(both, f"/job/{'w' * 24}")


def test_a_shard_that_is_away_spoils_no_page(both: Visitor, own_server: Server) -> None:
    own_server.kill()
    for path in PAGES:
        said = text(both, path)
        assert "Shard west does not answer" in said, path
    assert "SMTPServerDisconnected" in text(both, "/dead")

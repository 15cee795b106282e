"""What a push gives back, what it refuses, and how it talks to the server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
import redis

import pillion
from pillion import Client, PayloadError, Setup
from pillion.store import ops
from tests.servers import Server
from tests.worker.harness import Harness


class Elsewhere(pillion.Job, name="compat_elsewhere"):
    """Runs in another program."""


@pytest.mark.rule("b9.3", "fields.jid")
def test_a_jid_is_24_hex_digits_or_what_was_given(bed: Harness) -> None:
    made = bed.push("compat_elsewhere")
    assert re.fullmatch("[0-9a-f]{24}", made)
    assert bed.push("compat_elsewhere", jid="mine") == "mine"
    assert [job["jid"] for job in bed.waiting()] == [made, "mine"]


@pytest.mark.rule("b9.21", "client.set", "client.async")
def test_each_push_of_a_setter_has_a_jid_of_its_own(bed: Harness) -> None:
    setter = Elsewhere.set(client=bed.client, queue="low")
    jids = [setter.perform_async() for _ in range(4)]
    assert len(set(jids)) == 4
    assert [job["jid"] for job in bed.waiting("low")] == jids


@pytest.mark.rule("client.async", "middleware.stop")
def test_a_push_that_middleware_stops_gives_nothing_and_leaves_nothing(bed: Harness) -> None:
    def stop(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
        if job["args"] != ["stop"]:
            yield

    bed.setup.client_middleware.add(stop)
    assert Elsewhere.set(client=bed.client).perform_async("stop") is None
    assert bed.redis.keys("*") == []
    assert Elsewhere.set(client=bed.client).perform_async("go on") is not None


@pytest.mark.rule("check.after-middleware")
def test_arguments_are_checked_as_middleware_left_them(bed: Harness) -> None:
    def change(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
        (given,) = job["args"]
        job["args"] = [given.isoformat() if isinstance(given, date) else datetime.now(UTC)]
        yield

    bed.setup.client_middleware.add(change)
    bed.push("compat_elsewhere", date(2030, 1, 31))
    with pytest.raises(PayloadError, match=r"args\[0\], got a datetime"):
        bed.push("compat_elsewhere", "2030-01-31")
    assert [job["args"] for job in bed.waiting()] == [["2030-01-31"]]


@pytest.mark.rule("check.class", "b9.1")
@pytest.mark.parametrize("what", [dict, object(), 5, None])
def test_what_is_neither_a_job_nor_a_name_is_refused(bed: Harness, what: object) -> None:
    with pytest.raises(PayloadError, match="expected `class` to be a name"):
        bed.client.push({"class": what, "args": []})
    assert bed.redis.keys("*") == []


@pytest.mark.rule("server.namespace", instead=True)
def test_a_prefix_stands_before_every_key(server: Server) -> None:
    client = Client(setup=Setup({"url": server.url, "prefix": "app:"}))
    client.push({"class": "compat_elsewhere", "args": []})
    client.push({"class": "compat_elsewhere", "args": [], "at": client.setup.config.clock.now() + 60})
    client.close()
    assert sorted(server.client().keys("*")) == [b"app:queue:default", b"app:queues", b"app:schedule"]


@pytest.mark.rule("server.resp3")
@pytest.mark.parametrize("given", ["url", "client"])
def test_connections_speak_resp3_whatever_a_given_client_speaks(server: Server, given: str) -> None:
    theirs = redis.Redis(unix_socket_path=str(server.socket_path), protocol=2)
    setup = Setup(server.url if given == "url" else theirs)
    told = setup.store.run(ops.command("CLIENT", "INFO"))
    setup.store.close()
    theirs.close()
    assert "resp=3" in ops.text(told).split()


@pytest.mark.rule("move.noscript")
def test_a_script_that_the_server_has_forgotten_is_sent_again(bed: Harness) -> None:
    bed.redis.zadd("schedule", {"a": 100.0})
    for _ in range(2):
        assert bed.setup.store.run(ops.due("schedule", now=150.0)) == (150.0, [(b"a", 100.0)])
        bed.redis.script_flush()

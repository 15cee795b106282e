"""`pillion.Middleware`: the configuration, a logger and Redis for middleware classes that inherit it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis

import pillion
from pillion import Client, Setup
from pillion.middleware import Chain, run_client, run_sync
from tests.servers import Server
from tests.store.relay import Relay


class Look(pillion.Middleware):
    """Both kinds: notes what it has at hand."""

    seen: list[Look]
    options: dict[str, Any]

    def __init__(self, seen: list[Look], **options: Any) -> None:
        self.seen, self.options = seen, options

    def __call__(self, *given: Any) -> Iterator[None]:
        self.seen.append(self)
        yield


@pytest.fixture
def setup() -> Setup:
    return Setup("redis://nobody.invalid/3", tag="shop")


@pytest.mark.rule("middleware.helpers", "middleware.instance")
def test_each_instance_of_each_chain_knows_whose_it_is(setup: Setup) -> None:
    seen: list[Look] = []
    capsule = setup.capsule("serial")
    for chain in (
        setup.client_middleware,
        setup.server_middleware,
        capsule.client_middleware,
        capsule.server_middleware,
    ):
        chain.add(Look, seen, team="billing")
    job: dict[str, Any] = {"class": "X", "args": [], "queue": "default"}
    for _ in range(2):
        run_client(setup.client_middleware, "X", job, "default", None)
        run_client(capsule.client_middleware, "X", job, "default", None)
        run_sync(setup.server_middleware, None, job, "default", lambda: None)
        run_sync(capsule.server_middleware.copy(), None, job, "default", lambda: None)
    assert len({id(each) for each in seen}) == len(seen) == 8
    for each in seen:
        assert each.config is setup.config
        assert each.config.tag == "shop"
        assert each.pool is setup.store
        assert each.logger is logging.getLogger("pillion.middleware.Look")
        assert each.options == {"team": "billing"}


@pytest.mark.rule("middleware.helpers")
def test_an_object_that_is_registered_knows_it_too(setup: Setup) -> None:
    look = Look([])
    setup.server_middleware.insert_before(None, look)
    assert look.config is setup.config


@pytest.mark.rule("middleware.helpers")
@pytest.mark.parametrize("what", ["config", "pool", "redis"])
def test_outside_of_a_setup_s_chain_there_is_nothing_at_hand_and_the_error_says_so(setup: Setup, what: str) -> None:
    class Early(pillion.Middleware):
        def __init__(self) -> None:
            self.early = getattr(self, what)

        def __call__(self, job_instance: object, job: dict[str, Any], queue: str) -> Iterator[None]:
            yield

    class Homeless(Early):
        def __init__(self) -> None: ...

        def __call__(self, job_instance: object, job: dict[str, Any], queue: str) -> Iterator[None]:
            found = getattr(self, what)
            yield found() if what == "redis" else found

    expected = r"expected a middleware that a chain of a setup has made.*; ask inside __call__"
    setup.server_middleware.add(Early)
    homeless = Chain("server")
    homeless.add(Homeless)
    for chain in (setup.server_middleware, homeless):
        if chain is setup.server_middleware and what == "redis":
            continue  # a method: asking for it is not calling it
        with pytest.raises(pillion.UsageError, match=expected):
            run_sync(chain, None, {}, "default", lambda: None)


@pytest.mark.rule("middleware.helpers")
def test_a_middleware_talks_to_redis_and_the_push_goes_on(server: Server) -> None:
    class Count(pillion.Middleware):
        def __call__(self, job_class: object, job: dict[str, Any], queue: str, pool: Any) -> Iterator[None]:
            with self.redis() as conn:
                conn.incr("pushed")
            yield

    setup = Setup(server.url)
    setup.client_middleware.add(Count)
    client = Client(setup=setup)
    for _ in range(3):
        client.push({"class": "X", "args": []})
    with setup.redis() as conn:
        assert conn.get("pushed") == b"3"
        assert conn.llen("queue:default") == 3
    setup.store.close()
    setup._lender.close()


@pytest.mark.rule("middleware.helpers")
def test_what_is_done_to_a_borrowed_connection_does_not_reach_the_pushes(server: Server) -> None:
    setup = Setup({"url": server.url, "pool_size": 1})
    client = Client(setup=setup)
    client.push({"class": "X", "args": []})
    with setup.redis() as conn, setup.redis() as other:
        conn.select(5)
        other.set("mine", 1)
        client.push({"class": "X", "args": []})
    assert server.client().llen("queue:default") == 2
    connections = {each["id"] for each in server.client().client_list() if each.get("db") == "5"}
    assert len(connections) == 1  # the two borrowers had one, each for the length of a command
    setup.store.close()
    setup._lender.close()


@pytest.mark.rule("middleware.helpers")
def test_what_a_borrower_sends_is_not_sent_twice(server: Server) -> None:
    relay = Relay(str(server.socket_path))
    setup = Setup(relay.url)
    with setup.redis() as conn:
        assert conn.incr("n") == 1
        relay.replies = 0
        with pytest.raises(redis.ConnectionError):
            conn.incr("n")
        relay.replies = None
        assert conn.incr("n") == 3
    setup._lender.close()
    relay.close()


def test_borrowers_follow_when_the_setup_is_pointed_at_another_server(server: Server) -> None:
    setup = Setup("redis://nobody.invalid")
    with setup.pointed_at(server.url), setup.redis() as conn:
        assert conn.ping()
    with setup.redis() as conn:
        assert conn.connection_pool.connection_kwargs["host"] == "nobody.invalid"

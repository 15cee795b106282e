"""Context variables in `cattr`: from the push to the run, through every set, and shared with Ruby."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from pillion.contrib import current_attributes
from pillion.middleware import run_client
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

user_id: ContextVar[Any] = ContextVar("user_id")
tenant: ContextVar[Any] = ContextVar("tenant", default="nobody's")
trace: ContextVar[Any] = ContextVar("trace", default=None)

seen: SimpleQueue[Any] = SimpleQueue()


@pillion.job(name="Attributed", retry=3)
def attributed(fail: int = 0) -> None:
    running = pillion.current_job()
    assert running
    seen.put((user_id.get(None), tenant.get(), trace.get()))
    if running.attempt <= fail:
        raise ValueError("not yet")


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    while not seen.empty():
        seen.get()
    with harness(server) as bed:
        current_attributes.persist("cattr", user_id, tenant, setup=bed.setup)
        current_attributes.persist("cattr_1", trace, setup=bed.setup)
        yield bed


def as_user(user: Any, fn: Callable[[], object], **others: Any) -> None:
    """Call `fn` where the user is this one, and nowhere else."""

    def within() -> None:
        user_id.set(user)
        for variable in (tenant, trace):
            if variable.name in others:
                variable.set(others[variable.name])
        fn()

    copy_context().run(within)


def make_due(bed: Harness) -> None:
    """Let the job that waits to be retried wait no longer."""
    (member,) = wait_until(lambda: bed.redis.zrange("retry", 0, -1), what="the retry")
    bed.redis.zadd("retry", {member: 1})


@pytest.mark.rule("fields.cattr", "context.load")
@pytest.mark.parametrize(
    "push",
    [
        lambda job: job.perform_async(),
        lambda job: job.perform_in(0.2),
        lambda job: job.perform_bulk([()]),
        lambda job: job.perform_bulk([()], at=pillion.configure().config.clock.now() + 0.2),
    ],
    ids=["now", "in", "bulk", "bulk at"],
)
def test_from_the_push_to_the_run(bed: Harness, push: Callable[[Any], object]) -> None:
    as_user(7, lambda: push(attributed.set(client=bed.client)), tenant="acme", trace="4f1c")
    bed.start()
    assert seen.get(timeout=10) == (7, "acme", "4f1c")
    assert (user_id.get(None), tenant.get()) == (None, "nobody's")
    bed.push("Attributed")
    assert seen.get(timeout=10) == (None, "nobody's", None)  # the thread that ran the first one kept nothing


@pytest.mark.rule("context.again")
def test_through_retries_to_the_dead_set_and_back(bed: Harness) -> None:
    as_user(8, lambda: attributed.set(client=bed.client, retry=1).perform_async(2))
    bed.start()
    assert seen.get(timeout=10)[0] == 8
    make_due(bed)
    assert seen.get(timeout=10)[0] == 8
    wait_until(lambda: bed.members("dead"), what="the dead set")
    (dead,) = bed.members("dead")
    assert dead["cattr"] == {"user_id": 8}
    as_user(9, lambda: bed.client.push(dead))  # as a dashboard retries it, whoever is logged in there
    assert seen.get(timeout=10)[0] == 8


@pytest.mark.rule("fields.cattr", "context.save")
def test_what_is_written_is_what_ruby_reads(bed: Harness) -> None:
    as_user({"id": 7}, lambda: bed.push("Attributed"))
    (job,) = bed.waiting()
    assert job["cattr"] == {"user_id": {"id": 7}}  # only what is set, without marks
    assert "cattr_1" not in job
    assert "ctx" not in job


@pytest.mark.rule("context.save")
def test_nothing_is_written_where_nothing_is_set(bed: Harness) -> None:
    bed.push("Attributed")
    assert not {"cattr", "cattr_1"} & set(bed.waiting()[0])


@pytest.mark.rule("fields.cattr", "context.unknown")
@pytest.mark.parametrize(
    ("cattr", "run"),
    [
        ({"user_id": 7, "tenant": "acme", "gone_since": 1}, (7, "acme")),
        ({"tenant": None}, (None, None)),
        ({"tenant": {"_aj_serialized": "ActiveJob::Serializers::SymbolSerializer", "value": "acme"}}, (None, "acme")),
        ({"user_id": {"_aj_globalid": "gid://shop/User/7"}}, ("gid://shop/User/7", "nobody's")),
        ({}, (None, "nobody's")),
        (["user_id", 7], (None, "nobody's")),
        (None, (None, "nobody's")),
    ],
)
def test_what_ruby_wrote_is_read(bed: Harness, cattr: Any, run: tuple[Any, Any]) -> None:
    job = {"class": "Attributed", "args": [], "jid": "j1", "queue": "default", "retry": True, "cattr": cattr}
    bed.raw(json.dumps(job))
    bed.start()
    assert seen.get(timeout=10)[:2] == run


@pytest.mark.rule("context.again")
def test_ruby_s_survive_a_retry_and_a_promotion_here(bed: Harness) -> None:
    cattr = {"user_id": 7, "gone_since": [1, 2.50]}
    job = {"class": "Attributed", "args": [1], "jid": "j1", "queue": "default", "retry": True, "cattr": cattr}
    bed.redis.zadd("schedule", {json.dumps(job | {"cattr_2": {"x": 1}}): 1})
    heard: SimpleQueue[dict[str, Any]] = SimpleQueue()

    def look(instance: object, job: dict[str, Any], queue: str) -> Iterator[None]:
        heard.put(job)
        yield

    bed.setup.server_middleware.add(look)
    bed.start()
    first = heard.get(timeout=10)
    make_due(bed)
    for stored in (first, heard.get(timeout=10)):
        assert (stored["cattr"], stored["cattr_2"]) == (cattr, {"x": 1})


@pytest.mark.rule("context.load")
def test_the_rest_of_the_client_chain_sees_what_the_job_brought(bed: Harness) -> None:
    def look(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
        seen.put(user_id.get(None))
        yield

    bed.setup.client_middleware.add(look)
    payload = {"class": "Attributed", "args": [], "queue": "default", "jid": "j1", "cattr": {"user_id": 5}}
    as_user(6, lambda: run_client(bed.setup.client_middleware, "Attributed", payload, "default", None))
    assert seen.get_nowait() == 5


@pytest.mark.rule("context.values", instead=True)
def test_what_is_not_plain_is_refused_at_the_push(bed: Harness) -> None:
    with pytest.raises(pillion.PayloadError, match="context variable 'user_id'"):
        as_user({1, 2}, lambda: bed.push("Attributed"))
    assert not bed.waiting()


@pytest.mark.parametrize("key", ["", "ctx", "cattr_", "cattr_x", "cattr1"])
def test_only_ruby_s_keys(bed: Harness, key: str) -> None:
    with pytest.raises(pillion.ConfigError, match="cattr_1"):
        current_attributes.persist(key, user_id, setup=bed.setup)


def test_names_must_differ_and_be_there(bed: Harness) -> None:
    twin: ContextVar[Any] = ContextVar("user_id")
    for variables in ((), (user_id, twin)):
        with pytest.raises(pillion.ConfigError, match="different names"):
            current_attributes.persist("cattr", *variables, setup=bed.setup)

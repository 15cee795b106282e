"""What a job knows of its own run, and the context variables that travel with it."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
import timeit
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import pytest

from pillion.errors import ConfigError, PayloadError
from pillion.registry import Definition, Place
from pillion.running import Carrier, RunningJob, Signals, current_job, enter, leave
from pillion.types import Claim

DEFINITION = Definition("HardWorker", object, kind="class", place=Place("app.py", "HardWorker", "app.py:1"))
MOST_NANOSECONDS = 500

tenant: ContextVar[Any] = ContextVar("tenant")
locale: ContextVar[Any] = ContextVar("locale", default="en")


def running(signals: Signals | None = None, owner: str = "host-1/default.1", **fields: Any) -> RunningJob:
    payload = {"class": "OldWorker", "args": [], "jid": "a-jid", "queue": "default", **fields}
    return RunningJob(Claim(owner, 7, "low", b""), payload, DEFINITION, signals or Signals())


def test_a_running_job_tells_what_it_is() -> None:
    run = running()
    assert (run.jid, run.name, run.queue, run.token) == ("a-jid", "HardWorker", "low", ("host-1/default.1", 7))
    assert run.payload["class"] == "OldWorker"
    assert run.definition is DEFINITION
    assert repr(run) == "<RunningJob HardWorker a-jid attempt 1>"


@pytest.mark.parametrize(
    ("fields", "attempt"),
    [
        ({}, 1),
        ({"retry_count": 0}, 2),
        ({"retry_count": 1}, 3),
        ({"retry_count": 24}, 26),
        ({"retry_count": "1"}, 1),
        ({"retry_count": None}, 1),
        ({"retry_count": True}, 1),
    ],
)
def test_attempts_are_counted_from_one(fields: dict[str, Any], attempt: int) -> None:
    assert running(**fields).attempt == attempt


def test_interrupted_and_lost_follow_what_the_worker_says() -> None:
    signals = Signals()
    ours, other = running(signals, "host-1/default.1"), running(signals, "host-1/default.2")
    assert not ours.interrupted()

    signals.lost_owners.add("host-1/default.1")
    assert (ours.lost(), ours.interrupted()) == (True, True)
    assert (other.lost(), other.interrupted()) == (False, False)

    signals.stopping = True
    assert (other.lost(), other.interrupted()) == (False, True)


def test_an_inline_run_is_never_interrupted() -> None:
    run = RunningJob.inline({"jid": "a-jid", "queue": "mailers"}, DEFINITION)
    assert (run.jid, run.queue, run.attempt) == ("a-jid", "mailers", 1)
    assert not run.interrupted()


def test_making_one_costs_next_to_nothing() -> None:
    claim, payload, signals = Claim("o", 1, "q", b""), {"jid": "a"}, Signals()
    rounds = 20_000
    best = min(timeit.repeat(lambda: RunningJob(claim, payload, DEFINITION, signals), number=rounds, repeat=5))
    assert best / rounds * 1e9 < MOST_NANOSECONDS


def test_the_current_job_is_that_of_the_thread() -> None:
    assert current_job() is None
    outer, inner = running(), running()
    first = enter(outer)
    second = enter(inner)
    assert current_job() is inner
    elsewhere: list[RunningJob | None] = []
    thread = threading.Thread(target=lambda: elsewhere.append(current_job()))
    thread.start()
    thread.join()
    assert elsewhere == [None]
    leave(second)
    assert current_job() is outer
    leave(first)
    assert current_job() is None


def test_the_current_job_is_that_of_the_task() -> None:
    async def perform(run: RunningJob, here: asyncio.Barrier) -> RunningJob | None:
        token = enter(run)
        await here.wait()
        found = current_job()
        leave(token)
        return found

    async def both() -> None:
        here, runs = asyncio.Barrier(2), [running(), running()]
        assert await asyncio.gather(*(perform(run, here) for run in runs)) == runs
        assert current_job() is None

    asyncio.run(both())


# Carrying


def in_fresh_context(test: Any) -> Any:
    return contextvars.Context().run(test)


def test_values_travel_and_are_put_back() -> None:
    carrier = Carrier([tenant, locale])

    def pushing() -> dict[str, Any]:
        tenant.set({"id": 7, "tags": ["a"]})
        locale.set("de")
        payload: dict[str, Any] = {}
        carrier.dump(payload)
        return payload

    payload = json.loads(json.dumps(in_fresh_context(pushing)))
    assert payload == {"ctx": {"tenant": {"id": 7, "tags": ["a"]}, "locale": "de"}}

    def performing() -> None:
        locale.set("fr")
        tokens = carrier.restore(payload)
        assert (tenant.get(), locale.get()) == ({"id": 7, "tags": ["a"]}, "de")
        carrier.reset(tokens)
        assert (tenant.get(None), locale.get()) == (None, "fr")

    in_fresh_context(performing)


def test_what_is_not_set_does_not_travel() -> None:
    def pushing() -> None:
        payload: dict[str, Any] = {}
        Carrier([tenant, locale]).dump(payload)
        assert payload == {}
        tenant.set(None)
        Carrier([tenant, locale]).dump(payload)
        assert payload == {"ctx": {"tenant": None}}

    in_fresh_context(pushing)


@pytest.mark.rule("context.again")
def test_a_retry_keeps_what_its_first_push_carried() -> None:
    def promoting() -> None:
        tenant.set(2)
        for present in ({"tenant": 1}, {}, None):
            payload = {"ctx": present}
            Carrier([tenant]).dump(payload)
            assert payload == {"ctx": present}

    in_fresh_context(promoting)


@pytest.mark.rule("context.values", instead=True)
@pytest.mark.parametrize(
    "value",
    [object(), datetime.now(UTC), (1,), {1: 2}, {"a": {2}}, float("nan"), b"a"],
    ids=lambda value: type(value).__name__,
)
def test_only_plain_json_travels_and_the_error_names_the_variable(value: Any) -> None:
    def pushing() -> None:
        tenant.set(value)
        payload: dict[str, Any] = {}
        with pytest.raises(PayloadError, match="context variable 'tenant'"):
            Carrier([locale, tenant]).dump(payload)
        assert payload == {}

    in_fresh_context(pushing)


@pytest.mark.rule("context.unknown")
@pytest.mark.parametrize("ctx", [None, [], "x", 5, {"other": 1}, {}])
def test_a_strange_ctx_is_passed_over(ctx: Any) -> None:
    carrier = Carrier([tenant])
    assert carrier.restore({"ctx": ctx}) == []
    assert carrier.restore({}) == []


def test_an_empty_carrier_is_false_and_adding_twice_is_once() -> None:
    carrier = Carrier()
    assert not carrier
    carrier.add(tenant)
    carrier.add(tenant, locale)
    assert carrier
    assert len(carrier) == 2


def test_two_variables_of_one_name_are_refused() -> None:
    carrier = Carrier([tenant])
    with pytest.raises(ConfigError, match="a second 'tenant'"):
        carrier.add(ContextVar("tenant"))
    assert len(carrier) == 1


@pytest.mark.parametrize(
    ("owner", "capsule"),
    [("host:1:abc/default.1", "default"), ("host:1:abc/mail.er.12", "mail.er"), ("host:1:abc/default@b.1", "default")],
)
def test_a_run_knows_its_capsule_whatever_shard_it_is_from(owner: str, capsule: str) -> None:
    job = RunningJob(Claim(owner, 7, "low", b""), {"jid": "j"}, DEFINITION, Signals())
    assert job.capsule == capsule

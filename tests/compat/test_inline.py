"""Jobs that run here and now: no Redis is there, and none is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import pillion
from pillion import Client, PayloadError, Setup, testing


@pytest.fixture
def setup() -> Setup:
    """It leads to a socket that is not there."""
    return Setup("unix:///nowhere/redis.sock")


class Doubles(pillion.Job, name="compat_doubles"):
    def perform(self, table: dict[str, list[int]]) -> tuple[str | None, list[int]]:
        table["n"].append(2)
        return self.jid, table["n"]


@pillion.job(name="compat_raises", retry=5)
def raises() -> None:
    raise LookupError("it reaches the caller")


@pytest.mark.rule("client.inline")
@pytest.mark.rule("client.inline-result", instead=True)
def test_perform_inline_runs_through_both_chains_and_a_round_trip(setup: Setup) -> None:
    seen: list[Any] = []

    def mark(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
        seen.append(job_class)
        job["marked"] = True
        yield

    def around(job_instance: object, job: dict[str, Any], queue: str) -> Iterator[None]:
        seen.append((type(job_instance), job["marked"], queue))
        seen.append((yield))

    setup.client_middleware.add(mark)
    setup.server_middleware.add(around)
    given = {"n": [1]}
    jid, result = Doubles.set(client=Client(setup=setup), queue="low").perform_inline(given)  # type: ignore[misc]
    assert (len(jid), result) == (24, [1, 2])
    assert given == {"n": [1]}
    assert seen == [Doubles, (Doubles, True, "low"), (jid, [1, 2])]


@pytest.mark.rule("client.inline")
def test_what_an_inline_job_raises_reaches_the_caller_and_bad_arguments_are_refused(setup: Setup) -> None:
    with pytest.raises(LookupError, match="reaches the caller"):
        raises.set(client=Client(setup=setup)).perform_inline()
    with pytest.raises(PayloadError, match=r"args\[0\]"):
        Doubles.set(client=Client(setup=setup)).perform_inline({"n": [object()]})


@pytest.mark.rule("client.inline")
@pytest.mark.parametrize("side", ["client", "server"])
def test_middleware_that_stops_an_inline_job_makes_it_give_nothing(setup: Setup, side: str) -> None:
    def stop(*seen: Any) -> Iterator[None]:
        if not seen:
            yield

    (setup.client_middleware if side == "client" else setup.server_middleware).add(stop)
    assert raises.set(client=Client(setup=setup)).perform_inline() is None


@pytest.mark.rule("testing.inline", "testing.modes")
def test_inline_testing_waits_for_no_time(setup: Setup) -> None:
    with testing.inline(), pytest.raises(LookupError, match="reaches the caller"):
        raises.set(client=Client(setup=setup)).perform_in(3600)


@pytest.mark.rule("testing.fake")
def test_fake_testing_runs_client_middleware(setup: Setup) -> None:
    def mark(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
        job["marked"] = True
        yield

    setup.client_middleware.add(mark)
    with testing.fake() as jobs:
        raises.set(client=Client(setup=setup)).perform_async()
        assert [job["marked"] for job in jobs] == [True]

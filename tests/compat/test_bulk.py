"""Bulk pushes: what they refuse, what they give back, and where each job ends up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from pillion import PayloadError
from tests import leaks
from tests.servers import Server
from tests.worker.harness import Harness, harness

NOW = 1_800_000_000.0


class StandingClock:
    def now(self) -> float:
        return NOW

    def steady(self) -> float:
        return 0.0


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    """At a time that stands; no worker runs."""
    with harness(server, clock=StandingClock(), rng=random.Random(4)) as bed:
        yield bed
    leaks.check(server)


def push(bed: Harness, rows: Any, **fields: Any) -> Any:
    return bed.client.push_bulk({"class": "compat_bulk", "args": rows, **fields})


def scores(bed: Harness) -> list[tuple[Any, float]]:
    """(arguments, time) of what is scheduled, in the order of the rows."""
    timed = dict(bed.redis.zrange("schedule", 0, -1, withscores=True))
    found = [(job["args"][0], timed[raw]) for job, raw in zip(bed.members("schedule"), timed, strict=True)]
    return sorted(found)


def calls(bed: Harness, command: str) -> int:
    stats: dict[str, Any] = bed.redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


@pytest.mark.rule("b9.8", "bulk.result", "bulk.own")
def test_a_job_that_middleware_stops_leaves_a_gap(bed: Harness) -> None:
    def only_odd(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
        if job["args"][0] % 2:
            yield

    bed.setup.client_middleware.add(only_odd)
    jids = push(bed, [[n] for n in range(5)])
    assert [jid is None for jid in jids] == [True, False, True, False, True]
    assert [(job["args"], job["jid"]) for job in bed.waiting()] == [([1], jids[1]), ([3], jids[3])]


@pytest.mark.rule("bulk.size", "push.bulk")
@pytest.mark.rule("b9.10", instead=True)
@pytest.mark.parametrize("lazy", [False, True])
def test_1001_rows_are_1001_jobs_in_two_slices(bed: Harness, lazy: bool) -> None:
    rows = [[n] for n in range(1001)]
    bed.redis.config_resetstat()
    pushed = push(bed, iter(rows) if lazy else rows)
    assert calls(bed, "lpush") == 2
    jobs = bed.waiting()
    assert [job["args"] for job in jobs] == rows
    assert len({job["jid"] for job in jobs}) == 1001
    assert pushed == (1001 if lazy else [job["jid"] for job in jobs])


@pytest.mark.rule("bulk.size")
def test_what_is_for_later_goes_out_a_hundred_at_a_time(bed: Harness) -> None:
    bed.redis.config_resetstat()
    push(bed, [[n] for n in range(101)], at=NOW + 60)
    assert (calls(bed, "zadd"), bed.redis.zcard("schedule")) == (2, 101)


@pytest.mark.rule("b9.11", "b9.12", "b9.13", "b9.16", "bulk.rows", "bulk.at", "bulk.spread")
@pytest.mark.parametrize(
    ("rows", "fields", "words"),
    [
        ([[1], 2], {}, "list of lists, got int"),
        ("ab", {}, "iterable of lists, got str"),
        ({"a": 1}, {}, "iterable of lists, got dict"),
        (None, {}, "iterable of lists, got None"),
        ([[1], [2]], {"at": [NOW]}, "one 'at' per job, got 1 for 2"),
        ([[1], [2]], {"at": []}, "non-empty list"),
        ([[1]], {"at": ["soon"]}, "list of epoch seconds"),
        ([[1]], {"at": "soon"}, "'at' to be epoch seconds"),
        ([[1]], {"at": None}, "'at' to be epoch seconds"),
        ([[1]], {"at": NOW, "spread_interval": 10}, "got both"),
        ([[1]], {"spread_interval": -1}, "positive number of seconds, got -1"),
        ([[1]], {"spread_interval": 0}, "positive number of seconds, got 0"),
        ([[1]], {"spread_interval": "1"}, "positive number of seconds, got '1'"),
        ([[1], [2]], {"jid": "one"}, "no explicit jid in a bulk push of 2 jobs"),
        ([[1]], {"batch_size": 0}, "positive whole number, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_pushed(
    bed: Harness, rows: Any, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(PayloadError, match=words):
        push(bed, rows, **fields)
    assert bed.redis.keys("*") == []


@pytest.mark.rule("b9.14", "bulk.spread")
def test_jobs_are_spread_within_the_interval(bed: Harness) -> None:
    push(bed, [[n] for n in range(4)], spread_interval=10)
    times = [at for _, at in scores(bed)]
    assert len(set(times)) == 4
    assert all(NOW <= at <= NOW + 10 for at in times)


@pytest.mark.rule("bulk.spread")
def test_they_are_spread_over_five_seconds_at_least(bed: Harness) -> None:
    push(bed, [[n] for n in range(100)], spread_interval=0.5)
    times = [at - NOW for _, at in scores(bed)]
    assert 4 < max(times) <= 5


@pytest.mark.rule("b9.15", "bulk.at", "bulk.size")
def test_each_job_has_its_own_time_over_all_slices(bed: Harness) -> None:
    times = [NOW + 50 - n for n in range(5)]
    push(bed, [[n] for n in range(5)], at=times, batch_size=2)
    assert scores(bed) == list(enumerate(times))


@pytest.mark.rule("b9.17", "bulk.result")
@pytest.mark.parametrize("fields", [{}, {"at": NOW + 60}, {"spread_interval": 10}])
def test_nothing_gives_nothing(bed: Harness, fields: dict[str, Any]) -> None:
    assert push(bed, [], **fields) == []
    assert bed.redis.keys("*") == []


@pytest.mark.rule("bulk.jid", instead=True)
def test_the_jid_of_a_single_job_is_kept(bed: Harness) -> None:
    assert push(bed, [[1]], jid="mine") == ["mine"]
    assert [job["jid"] for job in bed.waiting()] == ["mine"]


@pytest.mark.rule("push.bulk-first", instead=True)
@pytest.mark.parametrize("first", [NOW + 60, NOW - 60])
def test_each_job_goes_where_its_own_time_says(bed: Harness, first: float) -> None:
    times = [first, 2 * NOW - first]
    push(bed, [[at] for at in times], at=times)
    assert scores(bed) == [(NOW + 60, NOW + 60)]
    (now,) = bed.waiting()
    assert now["args"] == [NOW - 60]
    assert "at" not in now


@pytest.mark.rule("bulk.at-scalar", instead=True)
def test_a_time_of_60_is_1970_and_pushed_at_once(bed: Harness) -> None:
    push(bed, [[1]], at=60)
    assert [job["args"] for job in bed.waiting()] == [[1]]
    assert not bed.redis.exists("schedule")

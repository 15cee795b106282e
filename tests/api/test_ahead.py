"""When scheduled jobs are due, by parts of the time to come."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from pillion import Client
from pillion.api.ahead import Ahead
from pillion.errors import UsageError
from tests.api.conftest import NOW, Say


def test_nothing_is_planned(say: Say, client: Client) -> None:
    assert say(Ahead(client).read, hours=1, buckets=4) == [0, 0, 0, 0]


def test_each_job_is_counted_where_it_is_due(say: Say, client: Client, look: redis.Redis) -> None:
    due = {"late": -500, "now": 0, "first": 899, "second": 900, "third": 2_000, "last": 3_599, "after": 3_600}
    look.zadd("schedule", {name: NOW + seconds for name, seconds in due.items()})
    assert say(Ahead(client).read, hours=1, buckets=4) == [3, 1, 1, 1]


@pytest.mark.parametrize("asked", [{"hours": 0}, {"hours": -1}, {"buckets": 0}, {"buckets": 501}])
def test_what_cannot_be_counted_is_refused(say: Say, client: Client, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected hours above 0"):
        say(Ahead(client).read, **asked)


def test_a_key_of_another_type_counts_as_nothing(say: Say, client: Client, look: redis.Redis) -> None:
    look.set("schedule", "x")
    assert say(Ahead(client).read, buckets=2) == [0, 0]

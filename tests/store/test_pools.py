"""Jobs that name another Redis, on two real servers: what goes there, whose middleware it meets, how it travels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import redis

import pillion
from pillion import setup as setups
from pillion.registry import default
from tests.conftest import NewServer
from tests.servers import Server

region: ContextVar[str] = ContextVar("pool_region")


@pytest.fixture
def here(server: Server) -> Iterator[Server]:
    """The default setup's server, with a client middleware that leaves its mark."""

    def mark(job_class: object, job: dict[str, Any], queue: str, pool: Any) -> Generator[None]:
        job["marked"] = pool is setups.default.store
        yield

    chain = setups.default.client_middleware
    with default.restored(), setups.default.pointed_at(server.url):
        chain.add(mark)
        try:
            yield server
        finally:
            chain.remove(mark)


@pytest.fixture
def there(new_server: NewServer) -> Server:
    return new_server()


def stored(server: Server, queue: str = "default") -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in server.client().lrange(f"queue:{queue}", 0, -1)[::-1]]


@pytest.mark.rule("fields.pool")
@pytest.mark.parametrize("given", ["address", "settings", "redis-py client", "redis-py pool", "client"])
def test_a_pool_takes_jobs_to_another_server_through_the_same_chain(here: Server, there: Server, given: str) -> None:
    theirs = redis.Redis(port=there.port)
    pool: Any = {
        "address": there.tcp_url,
        "settings": pillion.RedisSettings(url=there.url),
        "redis-py client": theirs,
        "redis-py pool": theirs.connection_pool,
        "client": pillion.Client(there.url),
    }[given]

    class PoolReport(pillion.Job, pool=pool):
        def perform(self, number: int) -> None: ...

    class PoolHeir(PoolReport, queue="low"): ...

    PoolReport.perform_async(1)
    PoolHeir.perform_async(2)
    PoolReport.perform_bulk([(3,), (4,)])
    PoolReport.perform_in(60, 5)
    asyncio.run(PoolReport.aperform_async(6))  # type: ignore[arg-type]
    assert [(job["args"], job["marked"]) for job in stored(there)] == [([number], False) for number in (1, 3, 4, 6)]
    assert [(job["args"], job["marked"]) for job in stored(there, "low")] == [([2], False)]
    assert there.client().zcard("schedule") == 1
    assert here.client().dbsize() == 0
    raw = b" ".join(there.client().lrange("queue:default", 0, -1))
    assert b"pool" not in raw.replace(b"PoolReport", b"")
    theirs.close()


@pytest.mark.rule("fields.pool")
def test_the_keys_are_those_of_the_pool(here: Server, there: Server) -> None:
    class PoolPrefixed(pillion.Job, pool=pillion.RedisSettings(url=there.url, prefix="shop:")):
        def perform(self) -> None: ...

    PoolPrefixed.perform_async()
    assert sorted(there.client().keys("*")) == [b"shop:queue:default", b"shop:queues"]


@pytest.mark.rule("fields.pool", "client.via")
def test_set_takes_one_push_elsewhere_and_the_next_one_back(here: Server, there: Server) -> None:
    class PoolElsewhere(pillion.Job):
        def perform(self, number: int) -> None: ...

    PoolElsewhere.set(pool=there.url).perform_async(1)
    PoolElsewhere.perform_async(2)
    with pillion.via(pillion.Client(pool=there.url)):
        PoolElsewhere.perform_async(3)
    PoolElsewhere.perform_async(4)
    assert [job["args"] for job in stored(there)] == [[1], [3]]
    assert [(job["args"], job["marked"]) for job in stored(here)] == [([2], True), ([4], True)]


@pytest.mark.rule("fields.pool")
def test_many_pushes_to_one_pool_share_its_connections(here: Server, there: Server) -> None:
    class PoolMany(pillion.Job, pool=there.tcp_url):
        def perform(self, number: int) -> None: ...

    class PoolManyMore(pillion.Job, pool=there.tcp_url):
        def perform(self, number: int) -> None: ...

    before = there.client().info("stats")["total_connections_received"]
    for number in range(20):
        PoolMany.perform_async(number)
        PoolManyMore.set(queue="low").perform_async(number)
        PoolMany.set(pool=there.tcp_url).perform_async(number)
    assert there.client().info("stats")["total_connections_received"] - before <= 2  # one of them is that of the asking


@pytest.mark.rule("fields.pool")
def test_a_client_class_makes_the_push(here: Server, there: Server) -> None:
    class Regional(pillion.Client):
        """Puts the region into every job, whatever pushes it."""

        def describe(self, item: Any) -> tuple[object, dict[str, Any]]:
            job_class, job = super().describe(item)
            return job_class, job | {"region": region.get()}

    class PoolRegional(pillion.Job, client_class=Regional):
        def perform(self, number: int) -> None: ...

    token = region.set("eu")
    PoolRegional.perform_async(1)
    PoolRegional.set(pool=there.url).perform_async(2)
    PoolRegional.set(client_class=pillion.Client).perform_async(3)
    region.reset(token)
    assert [(job["args"], job.get("region")) for job in stored(here)] == [([1], "eu"), ([3], None)]
    assert [(job["args"], job.get("region")) for job in stored(there)] == [([2], "eu")]


@pytest.mark.rule("fields.pool")
def test_durability_and_once_hold_there_too(here: Server, there: Server) -> None:
    class PoolOnce(pillion.Job, pool=there.url, once=True):
        def perform(self) -> None: ...

    for _ in range(2):
        PoolOnce.set(jid="order-1").perform_async()
    assert len(stored(there)) == 1
    with pytest.raises(pillion.NotReplicated):
        PoolOnce.set(once=False, durability="replicated").perform_async()
    assert here.client().dbsize() == 0
    there.client().flushall()

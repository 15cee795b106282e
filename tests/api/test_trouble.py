"""Servers that die and replies that are lost in the middle of a verb: every job stands in one place afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import redis

from pillion import Client, Setup, StoreError
from pillion.api import DeadSet, Queue, RetrySet
from pillion.registry import Registry
from tests.api.conftest import NOW, Clock, Say, job
from tests.servers import Server
from tests.store.relay import Relay

COUNT = 500


def places(look: redis.Redis) -> dict[str, list[str]]:
    """The jids in each place."""
    found = {key: look.zrange(key, 0, -1) for key in ("retry", "dead")}
    found["queue"] = look.lrange("queue:default", 0, -1)
    return {place: sorted(json.loads(raw)["jid"] for raw in raws) for place, raws in found.items()}


@pytest.fixture
def stocked(own_server: Server, clock: Clock) -> Iterator[Client]:
    """A client of a server that may be killed, with failed jobs in it."""
    client = Client(setup=Setup(own_server.url, clock=clock, registry=Registry()))
    own_server.client().zadd("retry", {job(f"j{n:03}", retry_count=1): NOW + n for n in range(COUNT)})
    yield client
    client.close()


@pytest.mark.parametrize("at", [1, 150, 250, 399])
def test_a_server_that_dies_during_a_walk_has_every_job_once(
    say: Say, stocked: Client, own_server: Server, at: int
) -> None:
    seen = 0

    def kill(job_class: object, payload: dict[str, Any], queue: str, pool: object) -> Generator[None]:
        nonlocal seen
        seen += 1
        if seen == at:
            own_server.kill()
        yield

    stocked.setup.client_middleware.add(kill)
    with pytest.raises(StoreError):
        say(RetrySet(stocked).retry_all)
    found = places(own_server.restart().client())
    assert sorted(found["retry"] + found["queue"]) == [f"j{n:03}" for n in range(COUNT)]
    assert len(found["queue"]) == (at - 1) // 200 * 200  # whole batches
    assert say(RetrySet(stocked).retry_all).moved == len(found["retry"])
    found = places(own_server.client())
    assert (found["retry"], len(found["queue"])) == ([], COUNT)


@pytest.fixture
def relay(own_server: Server) -> Iterator[Relay]:
    relay = Relay(str(own_server.socket_path))
    yield relay
    relay.close()


VERBS: dict[str, Callable[[Client, Say], Any]] = {
    "retry": lambda client, say: say(say(RetrySet(client).find_job, "j007").retry),
    "kill": lambda client, say: say(say(RetrySet(client).find_job, "j007").kill),
    "delete": lambda client, say: say(say(RetrySet(client).find_job, "j007").delete),
    "retry_all": lambda client, say: say(RetrySet(client).retry_all),
    "kill_all": lambda client, say: say(RetrySet(client).kill_all),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_lost_reply_moves_nothing_twice(
    say: Say, stocked: Client, own_server: Server, relay: Relay, clock: Clock, verb: str
) -> None:
    """Each move is sent again where its reply is lost. The second time it finds the entry gone, and says so."""
    client = Client(setup=Setup(clock=clock, registry=Registry(), redis={"url": relay.url, "timeout": 2}))
    known = RetrySet(stocked).find_job("j000")
    assert known is not None
    assert known.reschedule(known.score)  # so that the server knows the script, and runs it when it is first sent
    lost = []

    def lose(words: list[bytes]) -> None:
        if b"ZREM" in words or (words[0] == b"EVALSHA" and len(words) > 12 and not lost):
            lost.append(words)
            relay.replies = 0

    relay.heard = lose
    relay.met = lambda number: setattr(relay, "replies", None)
    answer = VERBS[verb](client, say)
    assert len(lost) == 1
    assert (answer.gone, answer.moved) == (200, 300) if verb.endswith("all") else answer is False
    found = places(own_server.client())
    everywhere = sorted(jid for jids in found.values() for jid in jids)
    gone = {"j007"} if verb == "delete" else set()
    assert everywhere == [jid for n in range(COUNT) if (jid := f"j{n:03}") not in gone]
    client.close()


def test_without_a_server_it_says_so(say: Say, stocked: Client, own_server: Server) -> None:
    own_server.kill()
    for verb in (Queue(client=stocked).size, DeadSet(stocked).retry_all):
        with pytest.raises(StoreError, match="cannot reach Redis"):
            say(verb)

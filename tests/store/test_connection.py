"""Store, AsyncStore and Session on servers that refuse, stall, restart and change roles: what each failure means."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import redis

from pillion.client import Client
from pillion.config import RedisSettings
from pillion.errors import Ambiguous, PartlyEnqueued, PoolTimeout, Refused, Unavailable
from pillion.registry import Registry
from pillion.setup import Setup
from pillion.store import ops
from pillion.store.connection import AsyncStore, Session, Store
from pillion.store.ops import Owner, Parcel, Want, command
from tests.conftest import NewServer
from tests.servers import Kind, Server, free_port
from tests.store.conftest import Face, NewFace
from tests.store.relay import Relay
from tests.waiting import wait_until

JOB = {"class": "Job", "args": [1]}
PATIENCE = 10.0
WHO = command("CLIENT", "ID")


def queued(server: Server, queue: str = "default") -> int:
    return int(server.client().llen(f"queue:{queue}"))


def push_op(store: Store | AsyncStore, *queues: str) -> ops.Op[Any]:
    parcels = [Parcel(f"jid{n}", queue, b'{"jid":"%d"}' % n) for n, queue in enumerate(queues)]
    return ops.push(store.keys, parcels)


def rejected(server: Server, verb: str) -> int:
    """How often the server refused to run a command."""
    return int(server.info("commandstats").get(f"cmdstat_{verb}", {}).get("rejected_calls", 0))


class Watcher:
    """Looks at a server's connections through one of its own, which it leaves out."""

    def __init__(self, server: Server) -> None:
        self._client = server.client(single_connection_client=True)
        self._own = int(self._client.client_id())

    def ids(self) -> set[int]:
        """The connections there are."""
        return {int(each["id"]) for each in self._client.client_list()} - {self._own}

    def opened(self) -> int:
        """How many there have been in all."""
        return int(self._client.info("stats")["total_connections_received"])

    def blocked(self) -> int:
        """How many wait in a blocking command."""
        return int(self._client.info("clients")["blocked_clients"])


# --- refused: sent again once -----------------------------------------------------------------------------------------


@pytest.mark.rule("server.transient")
def test_a_primary_that_became_a_replica_refuses_and_the_new_one_takes_the_job(
    new_face: NewFace, relay: Relay, own_server: Server, new_server: NewServer
) -> None:
    promoted = new_server()
    face = new_face(relay.url)
    face.push(JOB)
    own_server.client().replicaof("127.0.0.1", promoted.port)
    relay.server = str(promoted.socket_path)
    assert face.push(JOB) is not None
    assert queued(promoted) == 1
    assert promoted.client().smembers("queues") == {b"default"}
    assert rejected(own_server, "lpush") == 1
    assert relay.opened == 2

    promoted.client().replicaof("127.0.0.1", own_server.port)
    own_server.client().replicaof("NO", "ONE")
    relay.server = str(own_server.socket_path)
    jid = face.push({**JOB, "at": 4e9})
    [(raw, score)] = own_server.client().zrange("schedule", 0, -1, withscores=True)
    assert (json.loads(raw)["jid"], score) == (jid, 4e9)
    assert rejected(promoted, "zadd") == 1


def test_a_replica_that_stays_one_refuses_twice_and_no_more(own_face: Face, own_server: Server) -> None:
    own_face.push(JOB)
    own_server.client().replicaof("127.0.0.1", 1)
    with pytest.raises(Refused, match=r"^the server refused push: READONLY .*connect to the primary") as caught:
        own_face.push(JOB)
    assert caught.value.accepted == (False, False)
    assert rejected(own_server, "lpush") == 2
    own_server.client().replicaof("NO", "ONE")
    assert queued(own_server) == 1
    assert own_face.push(JOB)


@pytest.mark.rule("server.transient")
@pytest.mark.parametrize("once", [False, True])
def test_a_server_without_its_replicas_is_asked_a_second_time(
    new_face: NewFace, relay: Relay, own_server: Server, once: bool
) -> None:
    face, admin = new_face(relay.url), own_server.client()
    face.push(JOB, once=once)
    admin.config_set("min-replicas-to-write", 1)
    with pytest.raises(Refused, match="NOREPLICAS"):
        face.push(JOB, once=once)
    assert queued(own_server) == 1
    relay.met = lambda number: admin.config_set("min-replicas-to-write", 0)
    assert face.push(JOB, once=once) is not None
    assert queued(own_server) == 2
    assert relay.opened == 3


def test_a_server_that_loads_its_file_refuses_and_loses_nothing(new_face: NewFace, new_server: NewServer) -> None:
    options = ("--loading-process-events-interval-bytes", "1024", "--key-load-delay", "35000")
    server = new_server(*options, aof=None)
    face = new_face(server.url)
    client = server.client()
    for n in range(25):  # each is a moment in which the loading server looks at its clients
        client.set(f"filler{n}", os.urandom(2_000))
    client.save()
    server.kill()
    back = threading.Thread(target=server.restart)
    back.start()
    try:
        wait_until(lambda: loading(server), what="the server to load its file")
        with pytest.raises((Refused, Unavailable), match=r"(?i)loading"):
            face.push(JOB)
    finally:
        back.join(PATIENCE)
    assert face.push(JOB)
    assert queued(server) == 1


def loading(server: Server) -> bool:
    try:
        return bool(server.info("persistence")["loading"])
    except redis.ConnectionError:
        return False


CLUSTER = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")


@pytest.fixture(scope="module")
def cluster_node(kind: Kind) -> Iterator[Server]:
    """A cluster node that serves every slot but that of `queue:b`, and takes what it can."""
    server = Server(kind)
    try:
        server.start(*CLUSTER, "--cluster-port", str(free_port()))
        client, hole = server.client(), slot_of_b(server)
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, hole - 1, hole + 1, 16_383)
        wait_until(lambda: takes_writes(client), what="the cluster node to take writes")
        yield server
    finally:
        server.close()


@pytest.fixture
def half_a_cluster(cluster_node: Server) -> Iterator[Server]:
    """That node, empty."""
    cluster_node.reset()
    yield cluster_node
    cluster_node.client().execute_command("CLUSTER", "DELSLOTS", slot_of_b(cluster_node))
    cluster_node.close_clients()


def slot_of_b(server: Server) -> int:
    return int(server.client().execute_command("CLUSTER", "KEYSLOT", "queue:b"))


def takes_writes(client: redis.Redis) -> bool:
    try:
        return bool(client.set("probe", 1))
    except redis.RedisError:
        return False


def test_only_what_was_refused_is_sent_again(new_face: NewFace, half_a_cluster: Server) -> None:
    relay, admin = Relay(str(half_a_cluster.socket_path)), half_a_cluster.client()
    face = new_face(relay.url)

    def spread(job_class: Any, job: dict[str, Any], queue: str, pool: Any) -> Iterator[None]:
        job["queue"] = job["args"][0]
        yield

    face.setup.client_middleware.add(spread)
    item = {"class": "Job", "args": [["a"], ["b"], ["c"]]}
    with pytest.raises(PartlyEnqueued, match="CLUSTERDOWN") as caught:
        face.push_bulk(item)
    assert (len(caught.value.confirmed), len(caught.value.unsent)) == (2, 1)
    assert relay.names() == ["SADD", "LPUSH", "LPUSH", "LPUSH", "LPUSH"]
    assert [queued(half_a_cluster, name) for name in "ac"] == [1, 1]

    relay.met = lambda number: admin.execute_command("CLUSTER", "ADDSLOTS", slot_of_b(half_a_cluster))
    assert len(face.push_bulk(item)) == 3
    assert [queued(half_a_cluster, name) for name in "abc"] == [2, 1, 2]
    with pytest.raises(Refused, match=r"CROSSSLOT .*redis.prefix = '\{s0\}'"):
        face.push({"class": "Job", "args": ["a"]}, once=True)
    relay.close()


def test_where_nobody_answers_any_more_a_refusal_stands(new_face: NewFace, relay: Relay, own_server: Server) -> None:
    """Refused, and the address is gone when it is to be sent again: not enqueued, and it says why at first."""
    face = new_face(relay.url)
    face.push(JOB)
    own_server.client().replicaof("127.0.0.1", 1)
    relay.server = "/nowhere"
    with pytest.raises(Refused, match="READONLY"):
        face.push(JOB)


def test_a_refusal_whose_second_reply_is_lost_is_in_doubt(new_face: NewFace, relay: Relay, own_server: Server) -> None:
    face, admin = new_face(relay.url), own_server.client()
    face.push(JOB)
    admin.config_set("min-replicas-to-write", 1)

    def heard(words: list[bytes]) -> None:
        if words[0] == b"SADD" and relay.opened == 2:
            relay.replies = 0

    relay.heard, relay.met = heard, lambda number: admin.config_set("min-replicas-to-write", 0)
    with pytest.raises(Ambiguous) as caught:
        face.run(push_op(face.setup.store, "default"))
    assert caught.value.accepted == (None, None)
    wait_until(lambda: queued(own_server) == 2, what="the second sending to be run")


# --- scripts ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("move.noscript")
def test_a_script_that_the_server_forgot_is_sent_in_full(own_face: Face, own_server: Server) -> None:
    for _ in range(2):
        own_server.client().script_flush()
        assert own_face.push(JOB, once=True)
    assert own_face.push(JOB, once=True)
    assert queued(own_server) == 3
    stats = own_server.info("commandstats")
    assert (stats["cmdstat_evalsha"]["calls"], stats["cmdstat_eval"]["calls"]) == (3, 2)


def test_a_forgotten_script_whose_second_reply_is_lost_is_sent_a_third_time(
    new_face: NewFace, relay: Relay, own_server: Server
) -> None:
    face = new_face(relay.url)

    def heard(words: list[bytes]) -> None:
        relay.replies = 0 if words[0] == b"EVAL" and relay.opened == 1 else None

    relay.heard = heard
    assert face.push({**JOB, "jid": "abc"}, once=True) == "abc"
    assert relay.names() == ["EVALSHA", "EVAL", "EVALSHA"]
    assert queued(own_server) == 1


def test_a_step_that_wakes_keeps_its_tracking_when_its_script_was_forgotten(own_server: Server) -> None:
    with idle_session(own_server.url) as (session, wake):
        own_server.client().script_flush()
        session.call(wake)  # EVALSHA is refused, and CACHING was for that one command
        own_server.client().lpush("queue:q", "{}")
        assert hears(session, b"queue:q")


def test_news_that_come_along_with_an_answer_are_heard(own_server: Server, relay: Relay) -> None:
    with idle_session(relay.url) as (session, wake):
        session.call(wake)
        before = evaluated(own_server)
        relay.until = b"invalidate"
        answered = threading.Thread(target=lambda: session.call(wake, looks=True))
        answered.start()
        wait_until(lambda: evaluated(own_server) > before, what="a step that asked to be woken")
        own_server.client().lpush("queue:q", "{}")
        answered.join(PATIENCE)
        assert not answered.is_alive()
        assert session.heard() == {b"queue:q"}
        assert session.heard() == set()


def test_news_that_a_step_has_seen_itself_are_old(own_server: Server) -> None:
    with idle_session(own_server.url) as (session, wake):
        session.call(wake)
        own_server.client().lpush("queue:q", "{}")
        session.call(command("PING"))
        session.call(wake, looks=True)
        assert session.heard() == set()


def evaluated(server: Server) -> int:
    return int(server.info("commandstats")["cmdstat_evalsha"]["calls"])


@contextmanager
def idle_session(url: str) -> Iterator[tuple[Session, ops.Op[Any]]]:
    """A session that hears, and a step for it that asks to be woken."""
    store = Store(RedisSettings(url=url))
    store.run(ops.join(store.keys, "me.1", 60_000, 5))
    want = Want(5, 1, (("q", 5),))
    session = store.session()
    session.open()
    assert session.track()
    try:
        yield session, ops.step(store.keys, Owner("me.1"), 60_000, (), want, dead_max=9, dead_timeout=9.0, wake=True)
    finally:
        session.close()
        store.close()


def hears(session: Session, key: bytes) -> bool:
    return wait_until(lambda: key in session.changed(), what=f"news of {key!r}")


# --- lost -------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("client.resend", instead=True)
def test_a_read_is_asked_again_and_a_push_is_not(new_face: NewFace, relay: Relay) -> None:
    face = new_face(relay.url)
    face.push(JOB)

    def heard(words: list[bytes]) -> None:
        relay.replies = 0 if relay.opened == 1 else None

    relay.heard = heard
    assert face.run(command("LLEN", "queue:default")) == 1
    assert relay.names()[2:] == ["LLEN", "LLEN"]
    relay.opened, relay.replies = 1, 0
    with pytest.raises(Ambiguous, match=r"lost the reply of Redis at redis://127.0.0.1:\d+ .*may or may not"):
        face.run(push_op(face.setup.store, "default"))
    assert relay.names()[4:] == ["SADD", "LPUSH"]


def test_a_read_that_is_lost_twice_stays_lost(new_face: NewFace, relay: Relay) -> None:
    face = new_face(relay.url)
    face.push(JOB)

    def heard(words: list[bytes]) -> None:
        if words[0] == b"LLEN":
            relay.server, relay.replies = "/nowhere", 0

    relay.heard = heard
    with pytest.raises(Ambiguous):
        face.run(command("LLEN", "queue:default"))


def test_a_server_that_stalls_is_given_up_after_the_timeout(new_face: NewFace, own_server: Server) -> None:
    face = new_face({"url": own_server.url, "timeout": 0.2})
    face.push(JOB)
    before = face.run(WHO)
    own_server.pause()
    with pytest.raises(Ambiguous):
        face.run(push_op(face.setup.store, "default"))
    own_server.resume()
    wait_until(lambda: queued(own_server) == 2, what="the push that was given up to be run")
    assert face.push(JOB)
    watcher = Watcher(own_server)
    wait_until(lambda: before not in watcher.ids(), what="the connection that was in doubt to be closed")


def test_what_was_given_up_answers_nobody_else(new_face: NewFace, relay: Relay) -> None:
    """The reply of a push that was given up may still come; whoever asks next must not take it for its own."""
    face = new_face({"url": relay.url, "timeout": 0.2, "pool_size": 1})
    face.push(JOB)
    relay.gather = 99
    with pytest.raises(Ambiguous):
        face.run(push_op(face.setup.store, "default"))
    relay.gather = 0
    assert face.run(command("ECHO", "mine")) == b"mine"


def test_a_restart_is_survived_by_idle_connections(own_face: Face, own_server: Server) -> None:
    for n in range(3):
        own_face.push(JOB)
        own_server.restart()
        assert own_face.push(JOB) is not None
        assert queued(own_server) == 2 * n + 2


def test_a_server_that_is_down_takes_nothing(own_face: Face, own_server: Server) -> None:
    own_server.kill()
    with pytest.raises(Unavailable, match="cannot reach Redis at unix:///"):
        own_face.push(JOB)
    own_server.restart()
    assert own_face.push(JOB)
    assert queued(own_server) == 1


def test_a_connection_that_was_killed_is_replaced_by_one(own_face: Face, own_server: Server) -> None:
    """CLIENT KILL, as an administrator or a failover does it."""
    own_face.push(JOB)
    watcher = Watcher(own_server)
    for _ in range(3):
        before = own_face.run(WHO)
        with own_server.client() as admin:
            admin.client_kill_filter(_id=before)
        opened = watcher.opened()
        if own_face.colour == "async":
            own_face.runner.run(asyncio.sleep(0.01))
        assert own_face.push(JOB)
        assert own_face.run(WHO) != before
        assert watcher.opened() - opened == 1
    assert queued(own_server) == 4


# --- the pool ---------------------------------------------------------------------------------------------------------


def small(server: Server, **options: Any) -> RedisSettings:
    return RedisSettings(url=server.url, **{"pool_size": 1, "checkout_timeout": 0.05, **options})


@pytest.mark.rule("client.pool")
def test_threads_wait_for_a_connection_and_then_are_told(server: Server) -> None:
    store, watcher = Store(small(server)), Watcher(server)
    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(store.run, command("BLPOP", "gate", 2))
        wait_until(watcher.blocked, what="the only connection to be busy")
        with pytest.raises(PoolTimeout, match=r"^all 1 connections to Redis stayed busy for 0.05 s; raise redis.pool"):
            store.run(push_op(store, "default"))
        server.client().lpush("gate", "open")
        assert holding.result(PATIENCE) == [b"gate", b"open"]
    store.run(push_op(store, "default"))
    assert queued(server) == 1
    store.close()


def test_so_do_tasks(server: Server) -> None:
    async def main() -> None:
        store = AsyncStore(small(server))
        holding = asyncio.create_task(store.run(command("BLPOP", "gate", 2)))
        await asyncio.to_thread(wait_until, Watcher(server).blocked)
        with pytest.raises(PoolTimeout, match=r"^all 1 connections to Redis stayed busy for 0.05 s"):
            await store.run(push_op(store, "default"))
        await asyncio.to_thread(server.client().lpush, "gate", "open")
        assert await holding == [b"gate", b"open"]
        await store.run(push_op(store, "default"))

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert queued(server) == 1


def test_the_pool_grows_to_its_size_and_stays(server: Server) -> None:
    store, watcher = Store(small(server, pool_size=3, checkout_timeout=5.0)), Watcher(server)
    before = watcher.opened()
    for _ in range(20):
        store.run(WHO)
    assert watcher.opened() - before == 1
    with ThreadPoolExecutor(12) as pool:
        found = set(pool.map(lambda _: store.run(WHO), range(300)))
    assert len(found) <= 3
    assert watcher.opened() - before <= 3
    store.close()
    wait_until(lambda: not found & watcher.ids(), what="the pool's connections to be closed")
    assert store.run(WHO) not in found
    store.close()


def test_many_threads_at_once_get_their_own_answers(server: Server) -> None:
    store = Store(small(server, pool_size=5, checkout_timeout=5.0))

    def ask(n: int) -> bool:
        return bool(store.run(command("ECHO", f"{n}" * 50)) == (f"{n}" * 50).encode())

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(ask, range(2_000)))
    store.close()


def test_the_first_pushes_of_many_threads_open_one_pool(server: Server) -> None:
    interval, start = sys.getswitchinterval(), threading.Barrier(8)
    stores = [Store(small(server, pool_size=1, checkout_timeout=5.0)) for _ in range(20)]

    def first(_: int) -> list[int]:
        start.wait(PATIENCE)
        return [store.run(WHO) for store in stores]

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(first, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert [len(set(each)) for each in zip(*seen, strict=True)] == [1] * len(stores)
    for store in stores:
        store.close()


def test_the_first_push_waits_for_the_client_blocks_of_another_thread(server: Server) -> None:
    setup = Setup(server.url, registry=Registry())
    inside, go_on = threading.Event(), threading.Event()

    def mark(job_class: Any, job: dict[str, Any], queue: str, pool: Any) -> Iterator[None]:
        job["marked"] = True
        yield

    def block(given: Setup) -> None:
        inside.set()
        assert go_on.wait(PATIENCE)
        given.client_middleware.add(mark)

    setup.add_block(block)
    client = Client(setup=setup)
    threads = [threading.Thread(target=client.push, args=(JOB,)) for _ in range(2)]
    threads[0].start()
    assert inside.wait(PATIENCE)
    threads[1].start()
    threads[1].join(0.1)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert [b'"marked":true' in raw for raw in server.client().lrange("queue:default", 0, -1)] == [True, True]
    client.close()


def test_a_block_that_comes_late_still_counts(face: Face, server: Server) -> None:
    face.push(JOB)
    face.setup.add_block(lambda setup: setup.configure(default_job_options={"queue": "late"}))
    face.push(JOB)
    assert (queued(server), queued(server, "late")) == (1, 1)


def test_a_new_configuration_closes_what_the_old_one_had_open(server: Server) -> None:
    client, watcher = Client(server.url), Watcher(server)
    client.push(JOB)
    old = client.setup.store
    before = old.run(WHO)
    client.setup.configure(server.tcp_url)
    wait_until(lambda: before not in watcher.ids(), what="the old connection to be closed")
    assert client.push(JOB)
    assert client.setup.store is not old
    client.close()


# --- asyncio ----------------------------------------------------------------------------------------------------------


def test_a_cancelled_push_closes_its_connection_and_mixes_no_replies(relay: Relay, own_server: Server) -> None:
    def asked() -> bool:
        return b"cancelled" in relay.asked[-1]

    async def main() -> None:
        store = AsyncStore(RedisSettings(url=relay.url, pool_size=1, checkout_timeout=PATIENCE))
        before = await store.run(WHO)
        relay.gather = 99
        push = asyncio.create_task(store.run(command("ECHO", "cancelled")))
        await asyncio.to_thread(wait_until, asked, what="the push to leave")
        waiting = asyncio.create_task(store.run(command("ECHO", "next")))
        relay.gather = 0
        push.cancel()
        with pytest.raises(asyncio.CancelledError):
            await push
        assert await waiting == b"next"
        assert await store.run(WHO) != before
        await asyncio.to_thread(wait_until, lambda: before not in watcher.ids(), what="it to be closed")

    watcher = Watcher(own_server)
    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_whoever_is_cancelled_while_waiting_passes_its_turn_on(server: Server) -> None:
    async def main() -> None:
        store = AsyncStore(small(server, checkout_timeout=PATIENCE))
        await store.run(WHO)

        async def holder() -> None:
            await store.run(command("BLPOP", "gate", 5))
            waiting[0].cancel()  # it has just been given the turn, and has not heard of it

        holding = asyncio.create_task(holder())
        await asyncio.to_thread(wait_until, Watcher(server).blocked)
        waiting = [asyncio.create_task(store.run(command("ECHO", str(n)))) for n in range(2)]
        await asyncio.sleep(0)
        await asyncio.to_thread(server.client().lpush, "gate", "open")
        await holding
        assert await asyncio.wait_for(waiting[1], 2.0) == b"1"
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_many_tasks_of_which_some_are_cancelled_get_their_own_answers(server: Server) -> None:
    async def main() -> None:
        store = AsyncStore(small(server, pool_size=4, checkout_timeout=5.0))

        async def ask(n: int) -> None:
            assert await store.run(command("ECHO", f"{n}-" * 30)) == (f"{n}-" * 30).encode()

        for turn in range(20):
            tasks = [asyncio.create_task(ask(n)) for n in range(30)]
            for steps in range(turn % 7):
                await asyncio.sleep(0)
                tasks[(turn + 3 * steps) % 30].cancel()
                tasks[(turn + 5 * steps) % 30].cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(each) for each in done} <= {type(None), asyncio.CancelledError}
        held = [asyncio.create_task(store.run(command("BLPOP", "gate", 5))) for _ in range(4)]
        # No turn was lost on the way: four can be out at once.
        await asyncio.to_thread(wait_until, lambda: watcher.blocked() == 4)
        server.client().lpush("gate", *range(4))
        await asyncio.gather(*held)

    watcher = Watcher(server)
    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE))


def none_of(gone: set[int], watcher: Watcher) -> bool:
    return not gone & watcher.ids()


def test_each_event_loop_has_connections_of_its_own_and_closes_them(server: Server) -> None:
    store, watcher = AsyncStore(RedisSettings(url=server.url)), Watcher(server)

    async def several() -> set[int]:
        return set(await asyncio.gather(*(store.run(WHO) for _ in range(3))))

    seen: set[int] = set()
    for _ in range(3):
        found = asyncio.run(several())
        assert not found & seen
        seen |= found
        wait_until(partial(none_of, seen, watcher), what="the connections of an ended loop to be closed")
    assert len(store._pools) == 1


def test_loops_in_several_threads_do_not_meet(server: Server) -> None:
    store, together = AsyncStore(RedisSettings(url=server.url)), threading.Barrier(4)

    async def main() -> set[int]:
        found = {await store.run(WHO)}
        together.wait(PATIENCE)
        for _ in range(50):
            found.add(await store.run(WHO))
        return found

    with ThreadPoolExecutor(4) as pool:
        found = [each.result(PATIENCE) for each in [pool.submit(asyncio.run, main()) for _ in range(4)]]
    assert [len(each) for each in found] == [1] * 4
    assert len(set.union(*found)) == 4


def test_closing_on_a_loop_closes_its_connections_and_the_next_push_opens_one(server: Server) -> None:
    async def main() -> None:
        client = Client(server.url)
        await client.apush(JOB)
        found = await client.setup.astore.run(WHO)
        await client.aclose()
        await asyncio.to_thread(wait_until, lambda: found not in watcher.ids())
        assert await client.apush(JOB)
        await client.aclose()

    watcher = Watcher(server)
    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_what_a_new_configuration_leaves_behind_is_closed_when_it_is_no_longer_used(server: Server) -> None:
    async def main() -> None:
        client = Client({"url": server.url, "pool_size": 2})
        old = client.setup.astore
        idle, using = await old.run(WHO), asyncio.create_task(old.run(command("BLPOP", "gate", 5)))
        await asyncio.to_thread(wait_until, watcher.blocked)
        await asyncio.to_thread(client.setup.configure, server.tcp_url)
        assert await client.apush(JOB)
        await asyncio.to_thread(server.client().lpush, "gate", "open")
        assert await using == [b"gate", b"open"]
        await asyncio.to_thread(wait_until, lambda: idle not in watcher.ids(), what="the old pool to be closed")
        assert client.setup.astore is not old
        await client.aclose()

    watcher = Watcher(server)
    asyncio.run(asyncio.wait_for(main(), PATIENCE))


# --- fork -------------------------------------------------------------------------------------------------------------

FORKS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_a_child(work: Any) -> bytes:
    """What `work` gives in a forked child."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(work()).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


@FORKS
def test_a_forked_child_opens_its_own_connection_and_the_parents_goes_on(own_face: Face, own_server: Server) -> None:
    own_face.push(JOB)
    before = own_face.run(WHO)

    def work() -> int:
        own_face.runner = asyncio.Runner()  # a loop is not for children either
        own_face.push(JOB)
        return int(own_face.run(WHO))

    child, watcher = int(in_a_child(work)), Watcher(own_server)
    assert child != before
    assert own_face.run(WHO) == before
    assert queued(own_server) == 2
    wait_until(lambda: child not in watcher.ids(), what="the child's connection to end with it")
    assert before in watcher.ids()


@FORKS
def test_children_of_a_running_loop(own_server: Server) -> None:
    store = AsyncStore(RedisSettings(url=own_server.url))

    async def main() -> None:
        before = await store.run(WHO)
        assert int(in_a_child(lambda: asyncio.run(store.run(WHO)))) > before
        assert await store.run(WHO) == before

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


@FORKS
def test_children_that_are_forked_while_threads_push(own_server: Server) -> None:
    store = Store(RedisSettings(url=own_server.url))
    stop = threading.Event()

    def busy() -> set[int]:
        found = set()
        while not stop.is_set():
            found.add(store.run(WHO))
        return found

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(busy) for _ in range(4)]
        children = [in_a_child(lambda: store.run(WHO)) for _ in range(5)]
        stop.set()
        ours = set().union(*(each.result(PATIENCE) for each in running))
    assert all(child.isdigit() for child in children), children
    assert not ours & {int(child) for child in children}
    assert len({int(child) for child in children}) == 5
    store.close()


# --- a session --------------------------------------------------------------------------------------------------------


def test_a_session_that_was_refused_stays_open_and_one_in_doubt_is_closed(own_server: Server) -> None:
    session = Session(RedisSettings(url=own_server.url, timeout=0.2))
    with pytest.raises(Unavailable, match="is closed"):
        session.call(WHO)
    session.open()
    mine = session.call(WHO)
    with pytest.raises(Refused, match="ERR wrong number"):
        session.call(command("LLEN"))
    assert session.call(WHO) == mine
    own_server.pause()
    with pytest.raises(Ambiguous):
        session.call(WHO)
    own_server.resume()
    assert not session.is_open
    session.open()
    assert session.call(WHO) != mine
    session.close()
    session.close()


def test_a_session_hears_that_the_server_hung_up(own_server: Server) -> None:
    session = Session(RedisSettings(url=own_server.url))
    session.open()
    assert session.changed() == set()
    own_server.kill()
    with pytest.raises(Unavailable, match="lost the connection"):
        wait_until(session.changed)
    assert not session.is_open
    with pytest.raises(Unavailable, match="cannot reach"):
        session.open()


def test_a_connection_is_kept_alive_and_given_up_in_finite_time(server: Server) -> None:
    session = Session(RedisSettings(url=server.tcp_url))
    session.open()
    mine = socket.socket(fileno=os.dup(session.fileno()))
    options = {
        "SO_KEEPALIVE": (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        "TCP_NODELAY": (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    }
    for name, value in {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}.items():
        if hasattr(socket, name):
            options[name] = (socket.IPPROTO_TCP, getattr(socket, name), value)
    assert {name: mine.getsockopt(level, option) for name, (level, option, _) in options.items()} == {
        name: value for name, (_, _, value) in options.items()
    }
    mine.close()
    session.close()


def test_what_an_unknown_command_was_given_is_not_repeated(server: Server) -> None:
    store = Store(RedisSettings(url=server.url))
    with pytest.raises(Refused, match="unknown command") as caught:
        store.run(command("LPUSHED", "queue:default", "confidential"))
    assert "confidential" not in str(caught.value)
    store.close()

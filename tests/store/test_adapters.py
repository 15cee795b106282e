"""The contract of docs/adapters.md, over the adapters that ship and over one that was written from that page alone."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import redis.asyncio

from pillion import adapters
from pillion.config import RedisSettings
from pillion.errors import (
    Ambiguous,
    ConfigError,
    MaybeEnqueued,
    PillionError,
    PoolTimeout,
    Refused,
    StoreError,
    Unavailable,
)
from pillion.setup import Setup
from pillion.store import ops
from pillion.store.adapter import find
from pillion.store.connection import AsyncStore, Session, Store
from pillion.store.op import command
from pillion.store.ops import Owner, Want
from pillion.version import __version__
from tests.servers import Kind, Server, free_port
from tests.store.conftest import Face, NewFace
from tests.store.relay import Relay
from tests.store.sentinels import MASTER, Sentinel
from tests.store.test_addresses import CANARY, HASTY, QUOTED, TlsServer, ca, certificates, guarded, leaks, tls
from tests.store.test_connection import FORKS, JOB, PATIENCE, WHO, Watcher, in_a_child, push_op, queued
from tests.store.third_adapter import BareSockets
from tests.waiting import wait_until

__all__ = ["ca", "certificates", "guarded", "tls"]  # fixtures

adapters.register("bare-sockets", BareSockets)

SHIPPED = ("sockets", "redis-py", "valkey-py")
FOREVER = {"connect_timeout": PATIENCE, "timeout": PATIENCE, "checkout_timeout": PATIENCE}


@pytest.fixture(params=[*SHIPPED, "bare-sockets"])
def adapter(request: pytest.FixtureRequest) -> str:
    """The name of an adapter."""
    chosen: str = request.param
    return chosen


def settings(adapter: str, url: str, **options: Any) -> RedisSettings:
    return RedisSettings(url=url, adapter=adapter, **options)


def told(error: BaseException) -> str:
    """Everything that anybody can read of it."""
    return "".join(traceback.format_exception(error)) + repr(error)


# --- what is handed over ----------------------------------------------------------------------------------------------


def test_pushes_go_through(adapter: str, new_face: NewFace, server: Server) -> None:
    for url in (server.url, server.tcp_url, f"{server.url}?db=3", f"redis://localhost:{server.port}/3"):
        face = new_face({"url": url, "adapter": adapter})
        assert face.push(JOB)
        assert face.push(JOB, once=True)
        assert face.run(command("ECHO", "bytes")) == b"bytes"
        assert face.run(command("HELLO"))[b"proto"] == 3
    assert queued(server) == server.client(db=3).llen("queue:default") == 4


def test_the_chosen_one_is_used_and_no_other_is_loaded(server: Server) -> None:
    program = """
import sys
from pillion import Client, adapters
from tests.store.third_adapter import BareSockets
adapters.register("third", BareSockets)
client = Client({"url": sys.argv[1], "adapter": sys.argv[2]})
client.push({"class": "Job", "args": []})
client.close()
print(*sorted({"redis", "valkey"} & sys.modules.keys()))
"""
    found = {}
    for name in (*SHIPPED, "third"):
        words = [sys.executable, "-c", program, server.url, name]
        found[name] = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    assert found == {"sockets": "", "redis-py": "redis", "valkey-py": "valkey", "third": ""}


def test_an_adapter_itself_may_be_given(new_face: NewFace, server: Server) -> None:
    mine = BareSockets()
    face = new_face({"url": server.url, "adapter": mine})
    assert isinstance(mine, adapters.Adapter)
    for _ in range(3):
        face.push(JOB)
    assert mine.opened == 1
    assert queued(server) == 3
    assert "adapter='BareSockets'" in repr(face.setup.config)


def test_a_session_steps_and_hears_of_its_queues(adapter: str, own_server: Server) -> None:
    store = Store(settings(adapter, own_server.url))
    store.run(ops.join(store.keys, "me.1", 60_000, 5))
    store.run(push_op(store, "q"))
    session = store.session()
    session.open()
    assert session.track()
    for count in (1, 0):
        wants = Want(5, 1, (("q", 5),))
        step = ops.step(store.keys, Owner("me.1"), 60_000, (), wants, dead_max=9, dead_timeout=9.0, wake=True)
        assert len(session.call(step).claims) == count
    assert session.changed() == set()
    own_server.client().lpush("queue:q", "{}")
    assert wait_until(lambda: b"queue:q" in session.changed(), what="the news of a push")
    assert isinstance(session.fileno(), int)
    own_server.kill()
    with pytest.raises(Unavailable, match="lost the connection"):
        wait_until(session.changed)
    session.close()
    store.close()


def test_a_restart_is_survived(adapter: str, new_face: NewFace, own_server: Server) -> None:
    face = new_face({"url": own_server.url, "adapter": adapter})
    face.push(JOB)
    own_server.restart()
    assert face.push(JOB)  # though an event loop that has not turned has not heard of it
    assert queued(own_server) == 2


def test_the_primary_is_asked_for_through_it(adapter: str, new_face: NewFace, kind: Kind, server: Server) -> None:
    sentinel = Sentinel(kind, server)
    try:
        address = {"sentinels": [f"127.0.0.1:{free_port()}", sentinel.start().address], "adapter": adapter}
        assert new_face({**address, "master": MASTER}).push(JOB)
        with pytest.raises(Unavailable, match=r"111.*; 127.0.0.1:\d+ does not know it"):
            new_face({**address, "master": "other"}).push(JOB)
    finally:
        sentinel.close()
    assert queued(server) == 1


# --- what fails -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
def test_a_host_that_is_no_name(new_face: NewFace, adapter: str, host: str) -> None:
    words = rf"^cannot reach Redis at redis://:\*\*\*@{host}:6379: .*the host's name"
    with pytest.raises(Unavailable, match=words) as caught:
        new_face(settings(adapter, f"redis://:{QUOTED}@{host}:6379")).push(JOB)
    assert CANARY not in told(caught.value)


def test_where_nobody_listens(adapter: str, new_face: NewFace) -> None:
    for url in ("redis://localhost:1/0", "redis://no-such-host.invalid", "unix:///no/such/socket"):
        with pytest.raises(Unavailable, match=f"^cannot reach Redis at {url}"):
            new_face({"url": url, "adapter": adapter}).push(JOB)


def test_a_host_whose_first_address_is_silent_has_others(
    adapter: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, ExitStack() as unanswered:
        for _ in range(2):  # more than it has room for, so nobody else is let in
            one = unanswered.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        places = [deaf.getsockname(), ("127.0.0.1", server.port)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        store = Store(settings(adapter, "redis://two.example:6379", connect_timeout=1.0))
        assert store.run(WHO)
        store.close()


@pytest.mark.parametrize("adapter", SHIPPED)
def test_a_server_that_has_no_room_may_have_some_in_a_while(
    adapter: str, new_face: NewFace, own_server: Server
) -> None:
    admin = own_server.client()
    admin.config_set("maxclients", 1)
    face = new_face({"url": own_server.url, "adapter": adapter})
    try:
        with pytest.raises(Unavailable):
            face.push(JOB)
    finally:
        admin.config_set("maxclients", 1000)
    assert face.push(JOB)


def test_passwords_and_users(adapter: str, new_face: NewFace, guarded: Server) -> None:
    at, also = f"127.0.0.1:{guarded.port}/0", {"adapter": adapter}
    for url in (f"redis://:{QUOTED}@{at}", f"redis://app:{QUOTED}@{at}", f"unix://app:{QUOTED}@{guarded.socket_path}"):
        assert new_face({"url": url, **also}).push(JOB)
    with pytest.raises(Refused, match=r"refused the credentials: .*invalid username-password .*check both"):
        new_face({"url": f"redis://app:wrong@{at}", **also}).push(JOB)
    with pytest.raises(Refused, match=r"refused the credentials: .*redis://:PASSWORD@host"):
        new_face({"url": f"redis://{at}", **also}).push(JOB)
    with pytest.raises(Refused, match=r"refused the connection: .*DB index is out of range"):
        new_face({"url": f"redis://:{QUOTED}@127.0.0.1:{guarded.port}/999999", **also}).push(JOB)
    assert guarded.client(password=CANARY).llen("queue:default") == 3


@contextmanager
def silence() -> Iterator[socket.socket]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def url_of(listener: socket.socket) -> str:
    return f"redis://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_never_answers_is_given_up(adapter: str, new_face: NewFace) -> None:
    with silence() as listener:
        with pytest.raises(Unavailable, match="cannot reach Redis"):
            new_face({"url": url_of(listener), "adapter": adapter, **HASTY}).push(JOB)
        theirs, _ = listener.accept()
        with theirs:
            theirs.settimeout(PATIENCE)
            assert theirs.makefile("rb").read().startswith(b"*2\r\n$5\r\nHELLO")  # up to its end: it was closed


def hang_up(listener: socket.socket, words: bytes = b"") -> None:
    theirs, _ = listener.accept()
    with theirs:
        if words:
            theirs.recv(100)
            theirs.sendall(words)


def test_a_server_that_hangs_up_is_given_up(adapter: str, new_face: NewFace) -> None:
    with silence() as listener:
        hanging_up = threading.Thread(target=hang_up, args=[listener])
        hanging_up.start()
        with pytest.raises(Unavailable, match="cannot reach Redis"):
            new_face({"url": url_of(listener), "adapter": adapter, **HASTY}).push(JOB)
        hanging_up.join(PATIENCE)


def test_what_is_no_redis_is_nobody(adapter: str, new_face: NewFace) -> None:
    with silence() as listener:
        answering = threading.Thread(target=hang_up, args=[listener, b"HTTP/1.1 400 Bad Request\r\n\r\n"])
        answering.start()
        with pytest.raises(Unavailable, match=r"(?i)cannot reach Redis .*protocol error"):
            new_face({"url": url_of(listener), "adapter": adapter, **HASTY}).push(JOB)
        answering.join(PATIENCE)


def test_who_is_cancelled_while_connecting_leaves_nothing_open(adapter: str) -> None:
    def heard(listener: socket.socket) -> bytes:
        theirs, _ = listener.accept()
        with theirs:
            theirs.settimeout(PATIENCE)
            words = theirs.recv(100)
            said.set()
            return words + theirs.makefile("rb").read()

    async def main() -> None:
        store = AsyncStore(settings(adapter, url_of(listener), **FOREVER))
        hearing = asyncio.create_task(asyncio.to_thread(heard, listener))
        asking = asyncio.create_task(store.run(WHO))
        await asyncio.to_thread(said.wait, PATIENCE)
        for _ in range(20):  # it has sent its first words; now it is to hear of that, and wait for the answer
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert b"HELLO" in await hearing

    said = threading.Event()
    with silence() as listener:
        asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_a_cancellation_that_the_library_swallows_is_one_all_the_same(server: Server) -> None:
    """As `asyncio.wait_for` of Python 3.11 does when both come at once."""
    begun = asyncio.Event()

    class Deaf(redis.asyncio.Connection):
        async def connect(self) -> None:
            begun.set()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(PATIENCE)
            await super().connect()

    async def main() -> None:
        store = AsyncStore(RedisSettings(client=redis.asyncio.ConnectionPool(connection_class=Deaf, port=server.port)))
        asking = asyncio.create_task(store.run(WHO))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.to_thread(wait_until, lambda: watcher.ids() <= before, what="its connection to be closed")

    watcher = Watcher(server)
    before = watcher.ids()
    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE))


def test_a_lost_reply_is_a_doubt_and_nothing_is_sent_again(adapter: str, new_face: NewFace, relay: Relay) -> None:
    face = new_face({"url": relay.url, "adapter": adapter})
    face.push(JOB)
    relay.replies = 0
    with pytest.raises(MaybeEnqueued):
        face.push(JOB)
    assert relay.names() == ["SADD", "LPUSH"] * 2
    assert relay.opened == 1


def test_a_server_that_stalls_is_a_doubt(adapter: str, new_face: NewFace, own_server: Server) -> None:
    face = new_face({"url": own_server.url, "adapter": adapter, "timeout": 0.2})
    before = face.run(WHO)
    own_server.pause()
    with pytest.raises(Ambiguous):
        face.run(push_op(face.setup.store, "default"))
    own_server.resume()
    watcher = Watcher(own_server)
    wait_until(lambda: before not in watcher.ids(), what="the connection that was in doubt to be closed")
    assert face.push(JOB)
    assert queued(own_server) == 2


def test_no_error_no_log_and_no_repr_tells_a_password(
    adapter: str, new_face: NewFace, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    at = f"127.0.0.1:{server.port}/0"
    urls = [f"redis://app:{QUOTED}@{at}", f"rediss://app:{QUOTED}@{at}", f"redis://app:{QUOTED}@no-such-host.invalid"]
    for url in (*urls, f"unix://app:{QUOTED}@/no/such/socket"):
        face = new_face({"url": url, "adapter": adapter, **HASTY})
        with pytest.raises(PillionError) as caught:
            face.push(JOB)
        assert not leaks(told(caught.value) + repr(face.setup.config) + repr(face.setup.store.settings))
    assert not leaks(caplog.text)


def test_an_address_shows_no_password() -> None:
    address = adapters.Address(host="here", password=CANARY, tls=adapters.Tls(key_password=CANARY))
    shown = f"{address} {address!r} {address.tls!r} {address.__rich_repr__()} {address.tls.__rich_repr__()}"  # type: ignore[union-attr]
    assert not leaks(shown)
    assert "here:6379" in shown


# --- TLS --------------------------------------------------------------------------------------------------------------


def test_tls(adapter: str, new_face: NewFace, tls: TlsServer, ca: str) -> None:
    """On Redis only: the wheel's Valkey is built without TLS ("Failed finding TLS support" at its start)."""
    tls.server.reset()
    also: dict[str, Any] = {"adapter": adapter, **HASTY, "timeout": PATIENCE}
    face = new_face({"url": tls.url, "ca_file": ca, **also})
    assert face.push(JOB)
    assert len(face.push_bulk({"class": "Job", "args": [["x" * 1_000]] * 1_500})) == 1_500
    assert len(face.run(command("LRANGE", "queue:default", 0, -1))) == 1_501
    with pytest.raises(Unavailable, match=r"CERTIFICATE_VERIFY_FAILED.*redis\.ca_file"):
        new_face({"url": tls.url, **also}).push(JOB)
    with pytest.raises(Unavailable, match=r"mismatch.*by a name that its certificate holds"):
        new_face({"url": f"rediss://127.0.0.1:{tls.port}", "ca_file": ca, **also}).push(JOB)
    with pytest.raises(Unavailable):
        new_face({"url": f"rediss://localhost:{tls.server.port}", "ca_file": ca, "adapter": adapter, **HASTY}).push(JOB)


def test_tls_whose_check_is_off_is_warned_about(
    adapter: str, new_face: NewFace, tls: TlsServer, ca: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"rediss://127.0.0.1:{tls.port}"
    for given in ({"url": url, "insecure_skip_verify": True}, {"url": f"{url}?ssl_check_hostname=no", "ca_file": ca}):
        caplog.clear()
        assert new_face({**given, "adapter": adapter}).push(JOB)
        [warning] = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
        assert "its certificate is not checked" in warning


def test_a_session_hears_news_over_tls(adapter: str, tls: TlsServer, ca: str) -> None:
    session = Session(settings(adapter, tls.url, ca_file=ca))
    session.open()
    assert session.track()
    session.call(command("CLIENT", "CACHING", "YES"))
    session.call(command("LLEN", "queue:heard"))
    assert session.changed() == set()
    tls.server.client().lpush("queue:heard", "x")
    assert wait_until(lambda: b"queue:heard" in session.changed(), what="the news of a push")
    session.close()


def test_tls_is_pooled_like_the_rest(adapter: str, new_face: NewFace, tls: TlsServer, ca: str) -> None:
    """A connection that has been used is not taken for a broken one."""
    face = new_face({"url": tls.url, "ca_file": ca, "adapter": adapter})
    assert len({face.run(WHO) for _ in range(20)}) == 1


def test_a_client_certificate(adapter: str, new_face: NewFace, certificates: Any, ca: str) -> None:
    port, pair = free_port(), certificates.both
    strict = TlsServer(*certificates.server_options(pair, port, "--tls-auth-clients", "yes"), port=port)
    try:
        address = {"url": f"rediss://127.0.0.1:{port}", "ca_file": ca, "adapter": adapter}
        assert new_face({**address, "cert_file": str(pair[0]), "key_file": str(pair[1])}).push(JOB)
        with pytest.raises(StoreError):
            new_face(address).push(JOB)
        assert queued(strict.server) == 1
    finally:
        strict.server.close()


# --- pooled -----------------------------------------------------------------------------------------------------------


def test_threads_share_a_pool_and_are_told_when_it_is_empty(adapter: str, server: Server) -> None:
    store, watcher = Store(settings(adapter, server.url, pool_size=2, checkout_timeout=0.05)), Watcher(server)
    with ThreadPoolExecutor(2) as pool:
        holding = [pool.submit(store.run, command("BLPOP", "gate", 5)) for _ in range(2)]
        wait_until(lambda: watcher.blocked() == 2, what="both connections to be busy")
        with pytest.raises(PoolTimeout, match=r"^all 2 connections to Redis stayed busy"):
            store.run(WHO)
        server.client().lpush("gate", 1, 2)
        assert len([each.result(PATIENCE) for each in holding]) == 2
    opened = watcher.opened()
    mine = {store.run(WHO) for _ in range(20)}
    assert (len(mine), watcher.opened()) == (1, opened)
    store.close()
    wait_until(lambda: not mine & watcher.ids(), what="the pool to be closed")
    assert store.run(WHO) not in mine
    store.close()


def test_who_cannot_connect_takes_no_place_in_the_pool(adapter: str, new_face: NewFace) -> None:
    face = new_face({"url": "redis://localhost:1", "adapter": adapter, "pool_size": 1, "checkout_timeout": 0.05})
    for _ in range(3):
        with pytest.raises(Unavailable):
            face.push(JOB)


def test_so_do_tasks(adapter: str, server: Server) -> None:
    async def main() -> int:
        store = AsyncStore(settings(adapter, server.url, pool_size=1, checkout_timeout=0.05))
        holding = asyncio.create_task(store.run(command("BLPOP", "gate", 5)))
        await asyncio.to_thread(wait_until, watcher.blocked)
        with pytest.raises(PoolTimeout):
            await store.run(WHO)
        await asyncio.to_thread(server.client().lpush, "gate", "open")
        await holding
        [mine] = {await store.run(WHO) for _ in range(20)}
        await store.close()
        await asyncio.to_thread(wait_until, lambda: mine not in watcher.ids())
        return int(await store.run(WHO))

    watcher = Watcher(server)
    last = asyncio.run(asyncio.wait_for(main(), PATIENCE))
    wait_until(lambda: last not in watcher.ids(), what="the loop's connection to end with it")


@FORKS
def test_a_forked_child_opens_its_own_and_the_parents_goes_on(
    adapter: str, new_face: NewFace, own_server: Server
) -> None:
    face = new_face({"url": own_server.tcp_url, "adapter": adapter})
    before = face.run(WHO)

    def work() -> int:
        face.runner = asyncio.Runner()  # a loop is not for children either
        return int(face.run(WHO))

    child = int(in_a_child(work))
    assert child != before
    assert face.run(WHO) == before


@FORKS
def test_a_child_that_closes_and_collects_leaves_its_parent_alone(adapter: str, own_server: Server) -> None:
    """Over TLS as well as plain a hang-up would be heard on the parent's connection."""
    stores = [Store(settings(adapter, own_server.tcp_url))]
    before = stores[0].run(WHO)

    def work() -> int:
        stores[0].close()
        found = stores[0].run(WHO)
        stores.clear()
        return int(found)

    assert int(in_a_child(work)) != before
    assert stores[0].run(WHO) == before
    stores[0].close()


@FORKS
def test_a_doubtful_connection_ends_though_a_child_holds_a_copy(adapter: str, own_server: Server) -> None:
    store, watcher = Store(settings(adapter, own_server.url, timeout=0.2)), Watcher(own_server)
    before = store.run(WHO)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the parent closes its end
        os._exit(0)
    with pytest.raises(Ambiguous):
        store.run(command("BLPOP", "nothing", 9, safe=False))
    wait_until(lambda: before not in watcher.ids(), what="the connection to end")
    os.close(write)
    os.close(read)
    os.waitpid(child, 0)
    store.close()


def test_a_client_that_is_lent_is_opened_by_it_too(adapter: str, server: Server) -> None:
    """`setup.redis()` lends a client of redis-py, whoever opens its connections."""
    setup = Setup({"url": f"{server.tcp_url.removesuffix('/0')}/3", "adapter": adapter})
    with setup.redis() as lent:
        assert lent.set("greeting", "hello")
        assert lent.hgetall("nothing") == {}
        assert lent.client_info()["name"] == f"pillion:{socket.gethostname()}:{os.getpid()}:lent"
        assert lent.blpop(["gate"], 0.01) is None
    assert server.client(db=3).get("greeting") == b"hello"
    setup._lender.close()
    with (
        Setup({"url": "redis://localhost:1", "adapter": adapter}).redis() as lent,
        pytest.raises(redis.ConnectionError, match="cannot reach Redis at redis://localhost:1"),
    ):
        lent.ping()


# --- idle -------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("client.idle")
def test_threads_are_never_lent_what_was_idle_for_long(adapter: str, server: Server) -> None:
    store, watcher = Store(settings(adapter, server.url, idle_timeout=0.05, pool_size=4)), Watcher(server)
    with ThreadPoolExecutor(4) as pool:
        busy = pool.submit(store.run, command("BLPOP", "gate", 5))
        wait_until(watcher.blocked, what="one to be busy")
        others = set(pool.map(lambda _: store.run(WHO), range(30)))
        kept = watcher.ids() - others
        wait_until(lambda: store.run(WHO) and not others & watcher.ids(), what="the idle ones to be closed")
        assert kept <= watcher.ids()  # the one in use was idle for longer than all
        server.client().lpush("gate", "open")
        assert busy.result(PATIENCE) == [b"gate", b"open"]
    store.close()


@pytest.mark.rule("client.idle")
def test_a_loop_closes_what_was_idle_for_long_by_itself(adapter: str, server: Server) -> None:
    async def main() -> None:
        store = AsyncStore(settings(adapter, server.url, idle_timeout=0.05, pool_size=4))
        busy = asyncio.create_task(store.run(command("BLPOP", "gate", 5)))
        await asyncio.to_thread(wait_until, watcher.blocked)
        for _ in range(2):
            others = set(await asyncio.gather(*(store.run(WHO) for _ in range(3))))
            await asyncio.to_thread(wait_until, lambda gone=others: not gone & watcher.ids())
        await asyncio.to_thread(server.client().lpush, "gate", "open")
        assert await busy == [b"gate", b"open"]
        await store.close()

    watcher = Watcher(server)
    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_without_the_option_they_are_kept(face: Face, server: Server) -> None:
    assert face.setup.config.redis.idle_timeout is None
    before = face.run(WHO)
    for pool in face.setup.store._pools.values():
        for line in pool._free:
            line.used = float("-inf")
    assert face.run(WHO) == before


@pytest.mark.rule("client.idle")
def test_it_is_known_by_sidekiqs_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Setup("redis://x", redis_idle_timeout=60).config.redis.idle_timeout == 60.0
    assert Setup({"url": "redis://x", "idle_timeout": "90"}).config.redis.idle_timeout == 90.0
    monkeypatch.setenv("PILLION_REDIS_IDLE_TIMEOUT", "30")
    assert Setup("redis://x").config.redis.idle_timeout == 30.0
    with pytest.raises(ConfigError, match=r"redis\.idle_timeout: expected seconds"):
        Setup("redis://x", redis_idle_timeout="soon")


# --- names ------------------------------------------------------------------------------------------------------------


def shown(server: Server, number: int) -> dict[str, str]:
    """A connection's line in CLIENT LIST."""
    return next(each for each in server.client().client_list() if each["id"] == str(number))


@pytest.mark.rule("server.name")
def test_connections_say_who_they_are(adapter: str, new_face: NewFace, server: Server) -> None:
    face = new_face({"url": server.url, "adapter": adapter})
    line = shown(server, face.run(WHO))
    process = f"pillion:{socket.gethostname()}:{os.getpid()}"
    assert line["name"] == process
    if server.kind == "valkey":  # Redis 7.0 does not know it yet, and is used all the same
        assert (line["lib-name"], line["lib-ver"]) == ("pillion", __version__)
    session = Session(face.setup.store.settings)
    session.open()
    assert shown(server, session.call(WHO))["name"] == f"{process}:fetcher"
    session.close()


@pytest.mark.rule("server.name")
def test_a_name_of_ones_own(adapter: str, new_face: NewFace, server: Server) -> None:
    given = {"url": f"{server.url}?client_name=web", "adapter": adapter}
    assert shown(server, new_face(given).run(WHO))["name"] == "web"
    assert shown(server, new_face({**given, "client_name": "shop"}).run(WHO))["name"] == "shop"


@pytest.mark.rule("server.name")
def test_it_is_said_once_and_in_one_round_trip(adapter: str, new_face: NewFace, relay: Relay) -> None:
    def heard(words: list[bytes]) -> None:
        relay.gather = 3 if words[0] == b"CLIENT" else 0  # held back until all three stand there

    relay.heard = heard
    face = new_face({"url": relay.url, "adapter": adapter, "timeout": 2.0})
    assert face.run(command("ECHO", "x")) == b"x"
    words = [b" ".join(each[:3]) for each in relay.asked]
    assert [each.split()[0] for each in words[:-1]] == [b"HELLO", b"CLIENT", b"CLIENT", b"CLIENT"]
    assert b"pillion" in relay.asked[2]
    relay.asked.clear()
    for _ in range(3):
        face.run(command("ECHO", "y"))
    assert [each[0] for each in relay.asked] == [b"ECHO"] * 3


def test_who_may_not_say_it_may_push(adapter: str, new_face: NewFace, guarded: Server) -> None:
    guarded.client(password=CANARY).execute_command("ACL", "SETUSER", "app", "-client")
    assert new_face({"url": f"redis://app:{QUOTED}@127.0.0.1:{guarded.port}", "adapter": adapter}).push(JOB)


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_only_names_that_are_known_are_found(new_face: NewFace, server: Server) -> None:
    for name in ("no-such", "tests.store.third_adapter:BareSockets", 5, BareSockets):
        with pytest.raises(ConfigError, match=r"expected one of .*redis-py, valkey-py, .*got .*adapters\.register"):
            new_face({"url": server.url, "adapter": name}).push(JOB)
    with pytest.raises(ConfigError, match="which is taken"):
        adapters.register("redis-py", BareSockets)
    assert find("bare-sockets") is find("bare-sockets")


def test_the_environment_may_choose(monkeypatch: pytest.MonkeyPatch, new_face: NewFace, server: Server) -> None:
    monkeypatch.setenv("PILLION_REDIS_ADAPTER", "bare-sockets")
    mine: Any = find("bare-sockets")
    before = mine.opened
    new_face(server.url).push(JOB)
    assert mine.opened == before + 1


def test_a_library_that_is_missing_is_named_with_its_extra(server: Server) -> None:
    program = """
import sys
sys.modules["valkey"] = None
import pillion
pillion.Client({"url": sys.argv[1], "adapter": "valkey-py"}).push({"class": "Job", "args": []})
"""
    words = [sys.executable, "-c", program, server.url]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stderr
    assert "ConfigError: redis.adapter: valkey-py is not installed; run pip install 'pillion[valkey]'" in said


def test_a_client_is_followed_by_its_own_kind_only(new_face: NewFace, server: Server) -> None:
    for name in SHIPPED:
        assert new_face({"client": server.client(), "adapter": name}).push(JOB)
    with pytest.raises(ConfigError, match=r"expected redis\.url for the adapter 'bare-sockets', got a Redis"):
        new_face({"client": server.client(), "adapter": "bare-sockets"}).push(JOB)

"""Every way to say where Redis is, what each one does when it is wrong, and that none of them tells a password."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import shutil
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.sentinel

import pillion
from pillion import setup as setups
from pillion.client import Client
from pillion.config import RedisSettings
from pillion.errors import ConfigError, MaybeEnqueued, PoolTimeout, Refused, StoreError, Unavailable
from pillion.store.connection import Session, Store
from pillion.store.op import command
from tests.conftest import NewServer
from tests.servers import Kind, Server, free_port, missing
from tests.store.conftest import Face, NewFace
from tests.store.relay import Relay
from tests.store.sentinels import MASTER, Certificates, Sentinel
from tests.waiting import wait_until

JOB = {"class": "Job", "args": [1]}
CANARY = "c4n4ry/with@signs#and:more"
HASTY = {"connect_timeout": 0.3, "timeout": 0.3}
QUOTED = "c4n4ry%2Fwith%40signs%23and%3Amore"


def queued(server: Server, db: int = 0) -> int:
    return int(server.client(db=db).llen("queue:default"))


# --- addresses --------------------------------------------------------------------------------------------------------


def test_a_socket_a_port_and_a_database(new_face: NewFace, server: Server) -> None:
    for url in (server.url, server.tcp_url, f"redis://127.0.0.1:{server.port}", f"redis://localhost:{server.port}/0"):
        assert new_face(url).push(JOB)
    assert queued(server) == 4
    for url in (f"redis://127.0.0.1:{server.port}/3", f"{server.url}?db=3"):
        assert new_face(url).push(JOB)
    assert (queued(server), queued(server, 3)) == (4, 2)


@pytest.fixture
def guarded(new_server: NewServer) -> Server:
    """A server with a password, and a user who may push."""
    server = new_server()
    client = server.client()
    client.execute_command("ACL", "SETUSER", "app", "on", f">{CANARY}", "~*", "+@all")
    client.config_set("requirepass", CANARY)
    server.close_clients()
    return server


def test_passwords_and_users(new_face: NewFace, guarded: Server) -> None:
    at = f"127.0.0.1:{guarded.port}/0"
    for url in (f"redis://:{QUOTED}@{at}", f"redis://app:{QUOTED}@{at}", f"unix://app:{QUOTED}@{guarded.socket_path}"):
        assert new_face(url).push(JOB)
    with pytest.raises(Refused, match=r"refused the credentials: .*invalid username-password .*check both"):
        new_face(f"redis://app:wrong@{at}").push(JOB)
    with pytest.raises(Refused, match=r"refused the credentials: .*redis://:PASSWORD@host"):
        new_face(f"redis://{at}").push(JOB)
    assert guarded.client(password=CANARY).llen("queue:default") == 3


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch, new_face: NewFace, server: Server) -> None:
    monkeypatch.setenv("REDIS_URL", f"{server.tcp_url}")
    assert new_face(None).push(JOB)
    monkeypatch.setenv("MY_REDIS", f"{server.url}?db=2")
    monkeypatch.setenv("REDIS_PROVIDER", "MY_REDIS")
    assert new_face(None).push(JOB)
    assert new_face(server.url).push(JOB)  # what the program says comes first
    assert (queued(server), queued(server, 2)) == (2, 1)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("socket_timeout=5", "cannot use socket_timeout in the address .*redis.timeout"),
        ("max_connections=5&decode_responses=1", "cannot use decode_responses, max_connections in the address"),
        ("ssl_ca_certs=/ca", "cannot use ssl_ca_certs"),
        ("db=one", "expected redis://"),
    ],
)
def test_an_address_asks_for_nothing_that_is_ours_to_decide(new_face: NewFace, query: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        new_face(f"redis://:{QUOTED}@localhost:1/0?{query}").push(JOB)


def test_an_address_may_name_the_connection(new_face: NewFace, server: Server) -> None:
    face = new_face(f"{server.tcp_url}?client_name=web")
    assert face.run(command("CLIENT", "GETNAME")) == b"web"


def test_a_port_where_nobody_listens(new_face: NewFace) -> None:
    with pytest.raises(Unavailable, match=r"^cannot reach Redis at redis://localhost:1/0: [^:]*111"):
        new_face("redis://localhost:1/0").push(JOB)
    with pytest.raises(Unavailable, match=r"^cannot reach Redis at redis://no-such-host.invalid:6379"):
        new_face("redis://no-such-host.invalid:6379").push(JOB)
    with pytest.raises(Unavailable, match=r"^cannot reach Redis at unix:///no/such/socket: "):
        new_face("unix:///no/such/socket").push(JOB)


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("redis://localhost:1", "start the server, or correct the address"),
        ("redis://no-such-host.invalid", "check the host's name"),
        ("unix:///no/such/socket", "check the path of the socket"),
    ],
)
def test_a_failure_to_connect_says_that_nothing_went_out_and_what_to_do(new_face: NewFace, url: str, cure: str) -> None:
    with pytest.raises(Unavailable, match=rf"[^.]; the command was not sent; {cure}"):
        new_face(url).push(JOB)


def test_a_database_that_is_not_there(new_face: NewFace, server: Server) -> None:
    with pytest.raises(Refused, match=r"/99 refused the connection: .*; take a database that the server has"):
        new_face(f"redis://127.0.0.1:{server.port}/99").push(JOB)


# --- a client that the program has already ----------------------------------------------------------------------------


def existing(server: Server) -> list[Any]:
    """redis-py clients and pools as programs have them, some with settings that must not rub off."""
    url, path = server.tcp_url, str(server.socket_path)
    rough: dict[str, Any] = {"decode_responses": True, "protocol": 2, "socket_timeout": 0.001, "encoding": "latin-1"}
    return [
        redis.Redis.from_url(url),
        redis.Redis(port=server.port, db=0, **rough),
        redis.ConnectionPool.from_url(url, **rough),
        redis.BlockingConnectionPool.from_url(url),
        redis.Redis(unix_socket_path=path, **rough),
        redis.asyncio.Redis.from_url(url),
        redis.asyncio.Redis(port=server.port, **rough),
        redis.asyncio.ConnectionPool.from_url(url, **rough),
        *([importlib.import_module("valkey").Valkey.from_url(url)] if importlib.util.find_spec("valkey") else []),
    ]


def test_an_existing_client_tells_where_the_server_is(new_face: NewFace, server: Server) -> None:
    for count, given in enumerate(existing(server), 1):
        face = new_face(given)
        assert face.push(JOB), given
        assert face.push(JOB, once=True), given
        assert queued(server) == 2 * count
        assert face.run(command("ECHO", "bytes")) == b"bytes"
        assert face.run(command("HELLO"))[b"proto"] == 3


def test_its_connections_stay_its_own(new_face: NewFace, server: Server) -> None:
    with redis.Redis.from_url(server.tcp_url, max_connections=1, single_connection_client=True) as given:
        theirs = given.client_id()
        face = new_face(given)
        assert face.run(command("CLIENT", "ID")) != theirs
        face.push(JOB)
        assert given.client_id() == theirs
        assert given.llen("queue:default") == 1


def test_its_retries_do_not_rub_off(new_face: NewFace, relay: Relay, own_server: Server) -> None:
    """redis-py sends a write again by itself when its reply is lost; a push must not become two jobs."""
    face = new_face(redis.Redis.from_url(relay.url))  # with redis-py's default of several retries
    face.push(JOB)
    relay.replies = 0
    with pytest.raises(MaybeEnqueued):
        face.push(JOB)
    wait_until(lambda: queued(own_server) == 2)
    assert relay.names() == ["SADD", "LPUSH"] * 2
    assert relay.opened == 1


def test_its_credentials_and_its_provider_are_used(new_face: NewFace, guarded: Server) -> None:
    provider = redis.credentials.UsernamePasswordCredentialProvider("app", CANARY)
    for given in (
        redis.Redis(port=guarded.port, password=CANARY),
        redis.Redis(port=guarded.port, username="app", password=CANARY),
        redis.asyncio.Redis(port=guarded.port, credential_provider=provider),
    ):
        assert new_face(given).push(JOB)


def test_a_class_of_ones_own_is_taken(new_face: NewFace, server: Server) -> None:
    class Third(redis.Connection):
        def __init__(self, **options: Any) -> None:
            super().__init__(**{**options, "db": 3})

    face = new_face(redis.ConnectionPool(connection_class=Third, port=server.port))
    face.push(JOB)
    assert queued(server, 3 if face.colour == "sync" else 0) == 1


def test_pillion_configure_takes_it_in_one_line(server: Server) -> None:
    with setups.default.pointed_at(server.url):
        pillion.configure(redis=redis.Redis.from_url(server.tcp_url))

        @pillion.job(name="Addressed")
        def addressed(n: int) -> None: ...

        addressed.perform_async(1)
        assert queued(server) == 1


@pytest.mark.parametrize("given", [object(), 5, redis.Redis])
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected an address or a table|expected a redis-py client"):
        Client(given).push(JOB)


def test_a_client_that_checks_ocsp_is_not_weakened(new_face: NewFace) -> None:
    given = redis.Redis(ssl=True, ssl_validate_ocsp=True)
    with pytest.raises(ConfigError, match="OCSP"):
        new_face(given).push(JOB)


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        missing("no openssl on PATH (Debian: apt-get install openssl).")
    return Certificates(tmp_path_factory.mktemp("tls"))


class TlsServer:
    """A Redis that also speaks TLS, on `port`. Always Redis: the wheel's Valkey is built without."""

    def __init__(self, *options: str, port: int) -> None:
        self.port = port
        self.server = Server("redis")
        self.server.start(*options)

    @property
    def url(self) -> str:
        return f"rediss://localhost:{self.port}"


@pytest.fixture(scope="module")
def tls(certificates: Certificates) -> Iterator[TlsServer]:
    """Its certificate holds the name localhost only."""
    port = free_port()
    made = TlsServer(*certificates.server_options(certificates.name_only, port), port=port)
    try:
        yield made
    finally:
        made.server.close()


@pytest.fixture
def ca(certificates: Certificates) -> str:
    return str(certificates.authority)


def test_a_certificate_of_a_known_authority_is_accepted(new_face: NewFace, tls: TlsServer, ca: str) -> None:
    tls.server.reset()
    assert new_face({"url": tls.url, "ca_file": ca}).push(JOB)
    assert new_face(f"{tls.url}?ssl_ca_certs={ca}").push(JOB)
    client = redis.Redis(host="localhost", port=tls.port, ssl=True, ssl_ca_certs=ca)
    assert new_face(client).push(JOB)
    assert new_face(redis.asyncio.Redis(host="localhost", port=tls.port, ssl=True, ssl_ca_certs=ca)).push(JOB)
    assert queued(tls.server) == 4


def test_large_pushes_and_replies_go_through_tls(new_face: NewFace, tls: TlsServer, ca: str) -> None:
    tls.server.reset()
    face = new_face({"url": tls.url, "ca_file": ca})
    jids = face.push_bulk({"class": "Job", "args": [["x" * 1_000]] * 1_500})
    assert queued(tls.server) == len(jids) == 1_500
    assert len(face.run(command("LRANGE", "queue:default", 0, -1))) == 1_500


def test_an_unknown_authority_is_refused_with_the_cure(new_face: NewFace, tls: TlsServer) -> None:
    with pytest.raises(Unavailable, match=r"CERTIFICATE_VERIFY_FAILED.*redis\.ca_file"):
        new_face(tls.url).push(JOB)


def test_a_wrong_name_is_refused_with_the_cure(new_face: NewFace, tls: TlsServer, ca: str) -> None:
    with pytest.raises(Unavailable, match=r"mismatch.*by a name that its certificate holds"):
        new_face({"url": f"rediss://127.0.0.1:{tls.port}", "ca_file": ca}).push(JOB)


def test_a_port_without_tls_and_one_with_it(new_face: NewFace, tls: TlsServer, ca: str) -> None:
    with pytest.raises(Unavailable, match="whether this port speaks TLS"):  # a plain server waits for more of it
        new_face({"url": f"rediss://localhost:{tls.server.port}", "ca_file": ca, **HASTY}).push(JOB)
    with pytest.raises(Unavailable, match="write rediss://"):
        new_face(f"redis://localhost:{tls.port}").push(JOB)


def test_tls_options_need_tls_and_files_that_are_there(new_face: NewFace, ca: str) -> None:
    for option in ({"ca_file": ca}, {"insecure_skip_verify": True}):
        with pytest.raises(ConfigError, match=f"redis.{next(iter(option))} is for TLS.*write rediss://"):
            new_face({"url": "redis://localhost", **option}).push(JOB)
    with pytest.raises(ConfigError, match=r"redis\.ca_file: expected a PEM file, got /no/such"):
        new_face({"url": "rediss://localhost", "ca_file": "/no/such"}).push(JOB)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def test_skipping_the_check_warns_at_every_start(
    new_face: NewFace, tls: TlsServer, caplog: pytest.LogCaptureFixture, ca: str
) -> None:
    url = f"rediss://127.0.0.1:{tls.port}"
    insecure = redis.Redis(port=tls.port, ssl=True, ssl_cert_reqs=None)
    for given in (
        {"url": url, "insecure_skip_verify": True},
        f"{url}?ssl_cert_reqs=none",
        f"{url}?ssl_cert_reqs=CERT_NONE",
        insecure,
        redis.asyncio.Redis(port=tls.port, ssl=True, ssl_ca_certs=ca, ssl_check_hostname=False),
    ):
        for _ in range(2):
            caplog.clear()
            face = new_face(given)
            assert face.push(JOB)
            assert face.push(JOB)
            [warning] = warnings_of(caplog)
            assert "its certificate is not checked" in warning
            assert str(tls.port) in warning
    caplog.clear()
    new_face({"url": tls.url, "ca_file": ca}).push(JOB)
    assert warnings_of(caplog) == []


def test_a_session_hears_news_over_tls(tls: TlsServer, ca: str) -> None:
    session = Session(RedisSettings(url=tls.url, ca_file=ca))
    session.open()
    assert session.track()
    session.call(command("CLIENT", "CACHING", "YES"))
    session.call(command("LLEN", "queue:heard"))
    assert session.changed() == set()
    tls.server.client().lpush("queue:heard", "x")
    assert wait_until(lambda: b"queue:heard" in session.changed(), what="the news of a push")
    session.close()


def test_a_client_certificate(new_face: NewFace, certificates: Certificates, ca: str) -> None:
    port, pair = free_port(), certificates.both
    strict = TlsServer(*certificates.server_options(pair, port, "--tls-auth-clients", "yes"), port=port)
    try:
        files = {"ca_file": ca, "cert_file": str(pair[0]), "key_file": str(pair[1])}
        assert new_face({"url": f"rediss://127.0.0.1:{port}", **files}).push(JOB)
        with pytest.raises(StoreError):
            new_face({"url": f"rediss://127.0.0.1:{port}", "ca_file": ca}).push(JOB)
        assert queued(strict.server) == 1
    finally:
        strict.server.close()


# --- Sentinel ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def watched(kind: Kind, new_server: NewServer) -> Iterator[tuple[Server, Server, Sentinel]]:
    """A primary, its replica and the Sentinel that watches them."""
    primary = new_server("--repl-diskless-sync-delay", "0")
    replica = new_server()
    replica.client().replicaof("127.0.0.1", primary.port)
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up", what="the replica to follow")
    sentinel = Sentinel(kind, primary)
    try:
        sentinel.start().wait_for_replica()
        yield primary, replica, sentinel
    finally:
        sentinel.close()


def test_clients_follow_a_failover(watched: tuple[Server, Server, Sentinel]) -> None:
    primary, replica, sentinel = watched
    dead = f"127.0.0.1:{free_port()}"
    by_address = {"sentinels": [dead, sentinel.address], "master": MASTER}
    given = redis.sentinel.Sentinel([("127.0.0.1", sentinel.port)]).master_for(MASTER, decode_responses=True)
    faces = [Face("sync", by_address), Face("async", by_address), Face("sync", given), Face("async", given)]
    for face in faces:
        assert face.push(JOB)
    assert queued(primary) == 4
    session = faces[0].setup.store.session()
    session.open()

    primary.kill()
    for face in faces:
        assert wait_until(lambda face=face: pushed(face), timeout=20, what="the failover")
    session.open()
    assert session.call(command("ROLE"))[0] == b"master"
    wait_until(lambda: queued(replica) >= 4)
    session.close()
    for face in faces:
        face.close()


def pushed(face: Face) -> bool:
    try:
        return face.push(JOB) is not None
    except (Unavailable, Refused, MaybeEnqueued):
        return False


@pytest.fixture
def sentinel(kind: Kind, server: Server) -> Iterator[Sentinel]:
    """A Sentinel that watches the shared server."""
    sentinel = Sentinel(kind, server)
    try:
        yield sentinel.start()
    finally:
        sentinel.close()


def test_a_name_that_no_sentinel_knows(new_face: NewFace, sentinel: Sentinel) -> None:
    with pytest.raises(Unavailable, match=r"at primary 'other' of sentinels 127.0.0.1:\d+: .*does not know it"):
        new_face({"sentinels": [sentinel.address], "master": "other"}).push(JOB)
    with pytest.raises(Unavailable, match=r"no Sentinel tells where it is \(127.0.0.1:\d+: .*111"):
        new_face({"sentinels": [f"127.0.0.1:{free_port()}"], "master": MASTER}).push(JOB)
    for given in ({"sentinels": [sentinel.address]}, {"master": MASTER}):
        with pytest.raises(ConfigError, match=r"sentinels|master"):
            new_face(given).push(JOB)
    with pytest.raises(ConfigError, match="beside the sentinels, got a socket"):
        new_face({"url": "unix:///tmp/x", "sentinels": [sentinel.address], "master": MASTER}).push(JOB)


def test_sentinels_over_tls(new_face: NewFace, certificates: Certificates, ca: str) -> None:
    port, sentinel_port, pair = free_port(), free_port(), certificates.both
    primary = TlsServer(*certificates.server_options(pair, port), port=port)
    options = certificates.server_options(pair, sentinel_port)
    lines = [f"{name.removeprefix('--')} {value}" for name, value in zip(options[::2], options[1::2], strict=True)]
    sentinel = Sentinel("redis", primary.server, "tls-replication yes", *lines, primary_port=port)
    try:
        sentinel.start()
        address = {"sentinels": [f"127.0.0.1:{sentinel_port}"], "master": MASTER}
        assert new_face({"url": "rediss://", "ca_file": ca, **address}).push(JOB)
        secure = {"ssl": True, "ssl_ca_certs": ca}
        asked = redis.sentinel.Sentinel([("127.0.0.1", sentinel_port)], sentinel_kwargs=secure)
        assert new_face(asked.master_for(MASTER, **secure)).push(JOB)
        with pytest.raises(Unavailable, match=r"CERTIFICATE_VERIFY_FAILED.*redis\.ca_file"):
            new_face({"url": "rediss://", **address}).push(JOB)
        assert queued(primary.server) == 2
    finally:
        sentinel.close()
        primary.server.close()


def test_sentinels_with_a_password_of_their_own(new_face: NewFace, guarded: Server, kind: Kind) -> None:
    sentinel = Sentinel(kind, guarded, f"sentinel auth-pass {MASTER} {CANARY}", "requirepass other").start()
    try:
        asked = redis.sentinel.Sentinel([("127.0.0.1", sentinel.port)], sentinel_kwargs={"password": "other"})
        assert new_face(asked.master_for(MASTER, password=CANARY)).push(JOB)
        with pytest.raises(Unavailable, match=r"no Sentinel tells where it is .*already authenticated"):
            new_face({"sentinels": [sentinel.address], "master": MASTER, "url": f"redis://:{QUOTED}@"}).push(JOB)
    finally:
        sentinel.close()


# --- secrets ----------------------------------------------------------------------------------------------------------


def leaks(text: str) -> bool:
    """Whether a text holds a piece of the password; every piece is long enough to be no accident."""
    return any(piece in text for piece in ("c4n4ry", "with@signs", "and:more", "signs%23and"))


def wrongly_written(server: Server) -> list[Any]:
    """What people write and mean, each with the canary as its password."""
    at = f"127.0.0.1:{server.port}/0"
    return [
        f"redis://:{CANARY}@{at}",
        f"redis://app:{CANARY}@{at}",
        f"redis://{QUOTED}@{at}",
        f"redis://:{QUOTED}@{at}",
        f"redis://app:{QUOTED}@{at}",
        f"rediss://app:{QUOTED}@{at}",
        f"unix://app:{QUOTED}@{server.socket_path}",
        f"unix://app:{QUOTED}@/no/such/socket",
        f"redis://app:{QUOTED}@no-such-host.invalid",
        f"redis://app:{QUOTED}@{at}?socket_timeout=5",
        f"redis://app:{QUOTED}@{at}?db=one",
        f"redis://{at}?password={QUOTED}",
        f"redis://{at}?username=app&password={QUOTED}",
        f"redis://:{QUOTED}@127.0.0.1:port/0",
        f"redis://:{QUOTED}@127.0.0.1:99999/0",
        f"redis:/:{QUOTED}@{at}",
        f":{QUOTED}@{at}",
        {"url": f"redis://:{QUOTED}@", "sentinels": ["127.0.0.1:1"], "master": "x"},
        redis.Redis(port=server.port, username="app", password=CANARY),
        redis.asyncio.Redis(port=1, password=CANARY),
        redis.ConnectionPool(port=server.port, password=CANARY),
        redis.sentinel.Sentinel([("127.0.0.1", 1)], sentinel_kwargs={"password": CANARY}).master_for("x"),
    ]


def outcome(new_face: NewFace, given: Any) -> str:
    """Everything that can be read when somebody pushes to this address."""
    shown = ""
    try:
        face = new_face({"url": given, **HASTY} if isinstance(given, str) else given)
        shown = repr([face.setup, face.setup.config, face.setup.resolved, face.client, face.setup.store.settings])
        return shown + str(face.push(JOB))
    except pillion.PillionError as error:
        return shown + "".join(traceback.format_exception(error)) + str(error) + repr(error)


def test_no_error_no_log_and_no_repr_tells_a_password(
    new_face: NewFace, server: Server, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    given = wrongly_written(server)
    told = [outcome(new_face, each) for each in given]
    assert [each for each in told if leaks(each)] == []
    assert sum("Traceback" in each for each in told) > len(given) / 2
    assert not leaks(caplog.text)
    said = capfd.readouterr()
    assert not leaks(said.out + said.err)


def test_neither_does_what_goes_wrong_later(new_face: NewFace, guarded: Server) -> None:
    relay = Relay(str(guarded.socket_path))
    url = f"{relay.url.replace('redis://', f'redis://app:{QUOTED}@')}/0"
    face = new_face({"url": url, "pool_size": 1, "checkout_timeout": 0.0, "timeout": 5.0})
    face.push(JOB)
    admin = guarded.client(password=CANARY)

    def told(kind: type[Exception]) -> str:
        with pytest.raises(kind) as caught:
            face.push(JOB)
        return "".join(traceback.format_exception(caught.value))

    relay.replies = 0
    texts = [told(MaybeEnqueued)]
    relay.replies = None
    admin.execute_command("ACL", "SETUSER", "app", "-lpush")
    texts.append(told(Refused))
    admin.execute_command("ACL", "SETUSER", "app", "off")
    relay.cut()
    if face.colour == "async":
        face.runner.run(asyncio.sleep(0.01))
    texts.append(told(Refused))
    relay.close()
    texts.append(told(Unavailable))
    assert not any(map(leaks, texts)), texts


def test_a_full_pool_does_not_either(server: Server) -> None:
    url = f"redis://127.0.0.1:{server.port}/0?password={QUOTED}"
    store = Store(RedisSettings(url=url, pool_size=1))
    assert not leaks(repr(store.settings))
    error = PoolTimeout("all connections stayed busy")
    assert not leaks(repr(error))

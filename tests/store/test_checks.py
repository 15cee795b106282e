"""The boot checks and the doctor's questions, each asked of a real server that is fit and of one that is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import pytest

from pillion import checks
from pillion.checks import Check
from pillion.config import Capsule, Config, RedisSettings
from pillion.errors import BootError, Refused, Unavailable
from pillion.registry import Definition, Place, Registry
from pillion.store import ops
from pillion.store.connection import Store
from pillion.store.keys import Keyspace
from pillion.store.ops import Op
from tests.conftest import NewServer
from tests.servers import Server

T = TypeVar("T")

KEYS = Keyspace()


class Shifted:
    """A wall clock that is off by some seconds."""

    def __init__(self, server: Server, seconds: float) -> None:
        self._server, self._seconds = server, seconds

    def now(self) -> float:
        seconds, micros = self._server.client().time()
        return float(seconds) + float(micros) / 1e6 + self._seconds

    def steady(self) -> float:
        raise AssertionError("checks ask for wall time only")


def config(server: Server, *, user: str = "", prefix: str = "", **options: Any) -> Config:
    url = f"redis://{user}127.0.0.1:{server.port}/0"
    return Config(redis=RedisSettings(url=url, prefix=prefix), **options)


def asked(settings: Config) -> dict[str, Check]:
    store = Store(settings.redis)
    try:
        return {check.name: check for check in checks.server(store.run, settings)}
    finally:
        store.close()


def surveyed(settings: Config) -> dict[str, Check]:
    store = Store(settings.redis)
    try:
        return {check.name: check for check in checks.fleet(store.run, settings)}
    finally:
        store.close()


# --- the server -------------------------------------------------------------------------------------------------------


def test_a_fit_server_passes_every_check(server: Server) -> None:
    found = asked(config(server, environment="production"))
    assert {name: check.ok for name, check in found.items()} == dict.fromkeys(
        ("version", "role", "cluster", "eviction", "scripting", "clock", "wake-up"), True
    )
    assert found["version"].detail.startswith("Valkey " if server.kind == "valkey" else "Redis ")
    assert checks.insist(found.values()) == []


@pytest.mark.rule("server.eviction", instead=True)
@pytest.mark.parametrize(("environment", "ok"), [("development", None), ("staging", None), ("production", False)])
def test_eviction_warns_in_development_and_refuses_in_production(
    new_server: NewServer, environment: str, ok: bool | None
) -> None:
    settings = config(new_server("--maxmemory-policy", "allkeys-lru"), environment=environment)
    check = asked(settings)["eviction"]
    assert check.ok is ok
    assert str(check) == (
        "expected maxmemory-policy noeviction, got allkeys-lru, which deletes jobs when memory runs out; "
        "run CONFIG SET maxmemory-policy noeviction, and set it in redis.conf or at your provider"
    )


def test_a_replica_is_refused_and_its_primary_named(server: Server, new_server: NewServer) -> None:
    replica = new_server("--replicaof", f"127.0.0.1 {server.port}")
    check = asked(config(replica))["role"]
    assert check.ok is False
    assert f"got a replica of 127.0.0.1:{server.port}" in check.detail
    with pytest.raises(BootError, match="expected a primary, got a replica"):
        checks.insist([check])


@pytest.mark.rule("server.cluster", instead=True)
@pytest.mark.parametrize(
    ("prefix", "ok"), [("", False), ("app:", False), ("{}", False), ("{s0}", True), ("x{s}:", True)]
)
def test_a_cluster_node_needs_a_hash_tag(new_server: NewServer, prefix: str, ok: bool) -> None:
    check = asked(config(new_server("--cluster-enabled", "yes"), prefix=prefix))["cluster"]
    assert check.ok is ok
    assert ok or 'redis.prefix = "{s0}"' in check.cure


@pytest.mark.rule("server.floor")
@pytest.mark.rule("server.forks", instead=True)
@pytest.mark.parametrize(
    ("info", "ok", "detail"),
    [
        ({"redis_version": "6.2.14"}, False, "expected Redis 7.0 or Valkey 7.2 or newer, got Redis 6.2.14"),
        ({"redis_version": "7.0.0"}, True, "Redis 7.0.0"),
        ({"redis_version": "10.0.1"}, True, "Redis 10.0.1"),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.0"}, False, "got Valkey 7.1.0"),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.0"}, True, "Valkey 7.2.0"),
        ({"redis_version": "7.4.0", "dragonfly_version": "df-1.2"}, None, "the server is Dragonfly df-1.2, which"),
        ({"redis_version": "7.0.0", "kvrocks_version": "2.9"}, None, "the server is Kvrocks 2.9, which"),
        ({"redis_version": "7.0.0", "garnet_version": "1.0"}, None, "the server is Garnet 1.0, which"),
        ({}, None, "the server hides its version (Redis)"),
    ],
)
def test_the_version_floor(server: Server, info: Mapping[str, str], ok: bool | None, detail: str) -> None:
    settings = config(server)
    store = Store(settings.redis)

    def run(op: Op[T], /) -> T:
        answer: Any = store.run(op)
        if op.name != "info":
            return answer  # type: ignore[no-any-return]
        kept = {name: value for name, value in answer.items() if not name.endswith("_version")}
        return {**kept, **info}  # type: ignore[return-value]

    check = next(check for check in checks.server(run, settings) if check.name == "version")
    store.close()
    assert check.ok is ok
    assert detail in check.detail


@pytest.mark.parametrize(
    ("off", "ok", "detail"),
    [
        (0.0, True, "0.0 s off"),
        (1.5, True, "1.5 s off"),
        (3.0, None, "3.0 s ahead of the server's"),
        (-30.0, None, "30.0 s behind the server's"),
        (4 * 86_400, None, "4 days ahead of"),
        (-7_200 * 2, None, "4 hours behind"),
        (600, None, "10 minutes ahead of"),
    ],
)
def test_a_clock_that_is_off_by_more_than_two_seconds_warns(
    server: Server, off: float, ok: bool | None, detail: str
) -> None:
    check = asked(config(server, clock=Shifted(server, off)))["clock"]
    assert check.ok is ok
    assert detail in check.detail


def test_a_client_in_1970_only_warns(server: Server) -> None:
    seconds = float(server.client().time()[0])
    found = asked(config(server, clock=Shifted(server, -seconds)))
    assert found["clock"].ok is None
    assert [warning.name for warning in checks.insist(found.values())] == ["clock"]


@pytest.mark.parametrize(
    ("rule", "name", "ok", "words"),
    [
        ("-eval", "scripting", False, "the server runs no Lua scripts"),
        ("-info", "server", None, "the server does not tell about itself"),
        ("-client|tracking", "wake-up", None, "no client tracking"),
    ],
)
def test_what_the_user_may_not_ask(own_server: Server, rule: str, name: str, ok: bool | None, words: str) -> None:
    own_server.client().execute_command("ACL", "SETUSER", "worker", "on", ">pw", "~*", "&*", "+@all", rule)
    found = asked(config(own_server, user="worker:pw@"))
    assert found[name].ok is ok
    assert words in found[name].detail
    assert found[name].cure.startswith("allow ")
    assert {check.name for check in found.values() if check.ok is not True} == {name}


def test_a_database_that_is_not_there_is_no_check(server: Server) -> None:
    with pytest.raises(Refused, match=r"/99 refused the connection: "):
        asked(Config(redis=RedisSettings(url=f"redis://127.0.0.1:{server.port}/99")))


def test_a_server_that_is_down_is_no_check(own_server: Server) -> None:
    settings = config(own_server)
    own_server.kill()
    with pytest.raises(Unavailable):
        asked(settings)


def test_the_checks_write_nothing(server: Server) -> None:
    settings = config(server)
    asked(settings)
    surveyed(settings)
    assert server.client().keys("*") == []


# --- the fleet --------------------------------------------------------------------------------------------------------


def process(server: Server, identity: str, queues: list[str], *, quiet: str = "false", row: Any = None) -> None:
    """A process row as Sidekiq writes it: the older flat list of queues, and capsules as well."""
    info = {"identity": identity, "queues": queues, "capsules": {"default": {"weights": dict.fromkeys(queues, 0)}}}
    client = server.client()
    client.sadd("processes", identity)
    client.hset(identity, mapping={"info": json.dumps(info if row is None else row), "quiet": quiet})


def fill(server: Server, **queues: int) -> None:
    client = server.client()
    for name, count in queues.items():
        client.sadd("queues", name)
        for _ in range(count):
            client.lpush(f"queue:{name}", "{}")


def test_queues_that_nobody_serves_are_named_with_their_counts(server: Server) -> None:
    fill(server, mailers=1, billing=3, default=2, empty=0)
    process(server, "a:1:x", ["default"])
    process(server, "b:2:y", ["mailers"], quiet="true")
    server.client().sadd("processes", "gone:3:z")
    found = surveyed(config(server))
    assert found["processes"].detail == "2 live worker processes"
    assert found["queues"].ok is None
    assert found["queues"].detail == "nobody serves billing (3 jobs), mailers (1 job)"
    assert found["queues"].cure == "serve them: pillion worker APP -q billing -q mailers"


@pytest.mark.parametrize(
    "row",
    [
        {"queues": ["a"], "weights": [{"a": 0}]},
        {"capsules": {"default": {"concurrency": 5, "mode": "strict", "weights": {"a": 0}}}},
        {"queues": ["a"], "capsules": {}},
    ],
    ids=["sidekiq 7", "sidekiq 9", "both"],
)
def test_a_process_of_any_version_serves_its_queues(server: Server, row: dict[str, Any]) -> None:
    fill(server, a=1)
    process(server, "ruby:1:x", [], row=row)
    assert surveyed(config(server))["queues"].ok is True


@pytest.mark.parametrize("row", [[], 5, {"queues": 7}, {"capsules": {"x": 1}}])
def test_a_row_that_cannot_be_read_serves_nothing(server: Server, row: Any) -> None:
    fill(server, a=1)
    process(server, "odd:1:x", [], row=row)
    assert surveyed(config(server))["queues"].ok is None


def test_a_paused_queue_with_jobs_is_named(server: Server) -> None:
    fill(server, a=2, b=0, c=1)
    process(server, "a:1:x", ["a", "b", "c"])
    server.client().sadd("paused", "a", "b")
    check = surveyed(config(server))["paused"]
    assert (check.ok, check.detail) == (None, "paused with jobs in them: a (2 jobs)")


@pytest.mark.leaks_keys
def test_claims_of_a_dead_owner_are_counted(server: Server) -> None:
    settings = config(server)
    store = Store(settings.redis)
    fill(server, a=2)
    assert store.run(ops.join(KEYS, "dead:1:x/default.1", 1, 5, now=1.0))
    want = ops.Want(count=2, tray=1, queues=(("a", 2),))
    owner = ops.Owner("dead:1:x/default.1")
    store.run(ops.step(KEYS, owner, 1, (), want, dead_max=10, dead_timeout=60, now=1.0))
    store.close()
    check = surveyed(settings)["leases"]
    assert check.ok is None
    assert check.detail == "1 dead worker(s) still hold 2 job(s): dead:1:x/default.1"


def test_an_idle_installation_is_told_to_start_a_worker(server: Server) -> None:
    found = surveyed(config(server))
    assert {name: check.ok for name, check in found.items()} == {
        "processes": None,
        "apps": True,
        "queues": True,
        "paused": True,
        "leases": True,
    }
    assert found["processes"].cure == "start one: pillion worker APP"


def test_two_apps_on_one_queue_are_told_to_part(server: Server) -> None:
    client = server.client()
    for tag, queues in (("shop", ["default", "mail"]), ("blog", ["default"]), ("blog", ["posts"])):
        name = f"host:{tag}:{queues[-1]}"
        client.sadd("processes", name)
        client.hset(name, mapping={"info": json.dumps({"tag": tag, "queues": queues}), "quiet": "false"})
    check = surveyed(config(server))["apps"]
    assert check.ok is None
    assert check.detail == "queue default is served by blog and shop"
    assert "redis.prefix" in check.cure


def test_other_prefixes_are_not_looked_at(server: Server) -> None:
    fill(server, a=1)
    assert surveyed(config(server, prefix="app:"))["queues"].ok is True


def test_insist_gives_warnings_back_and_stops_at_the_first_refusal() -> None:
    fine, warning = Check("a", True, "fine"), Check("b", None, "odd", "look")
    assert checks.insist([fine, warning]) == [warning]
    with pytest.raises(BootError, match=r"^bad; mend it$"):
        checks.insist([fine, Check("c", False, "bad", "mend it"), Check("d", False, "worse", "mend that")])


# --- the jobs ---------------------------------------------------------------------------------------------------------


def jobs_of(registry: Registry, **queues: list[str]) -> None:
    for queue, names in queues.items():
        for name in names:
            place = Place("app.py", name, "app.py:1")
            registry.register(Definition(name, jobs_of, kind="function", place=place, options={"queue": queue}))


def test_the_queues_of_defined_jobs_that_are_not_served_are_named_with_their_jobs() -> None:
    registry = Registry()
    jobs_of(registry, default=["Home"], count=["CountWords", "Flaky"], save=["Save"], other=["Elsewhere"])
    stub = Definition("Ruby", Registry, kind="stub", place=Place("app.py", "Ruby", "app.py:1"), options={"queue": "rb"})
    registry.register(stub)
    capsules = (Capsule(), Capsule(name="other", queues=(("other", 0),)))
    check = checks.jobs(registry, Config(require=("wc.py",), capsules=capsules))
    assert check == Check(
        "jobs",
        None,
        "this worker does not serve the queues count (CountWords, Flaky) and save (Save) of the jobs it defines",
        "to serve them: pillion worker wc.py -q default -q count -q save",
    )
    served = Capsule(queues=(("default", 3), ("count", 1)))
    one = checks.jobs(registry, Config(require=("wc.py",), capsules=(served, capsules[1])))
    assert one.detail == "this worker does not serve the queue save (Save) of the jobs it defines"
    assert one.cure == "to serve it: pillion worker wc.py -q default,3 -q count,1 -q save"


def test_a_job_without_a_queue_of_its_own_is_in_the_configured_one() -> None:
    registry = Registry()
    registry.register(Definition("A", jobs_of, kind="function", place=Place("app.py", "A", "app.py:1")))
    assert checks.jobs(registry, Config()).ok is True
    assert checks.unserved(registry, Config(default_job_options={"queue": "low"})) == {"low": ["A"]}


@pytest.mark.parametrize("lease", [60.0, 90.0])
@pytest.mark.leaks_keys
def test_a_dead_owners_jobs_come_back_after_a_lease_and_a_quarter(server: Server, lease: float) -> None:
    settings = config(server, lease=lease)
    store = Store(settings.redis)
    assert store.run(ops.join(KEYS, "dead:1:x/default.1", 1, 5, now=1.0))
    store.close()
    wait = "a minute" if lease == 60 else "90 s"
    cure = f"any worker returns them, within {wait} and a quarter; start one: pillion worker APP"
    assert surveyed(settings)["leases"].cure == cure

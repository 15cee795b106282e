"""Users with exactly the rights that `pillion acl` prints: with them everything works, and what is missing is named.

A *tour* does all that a kind of user does, as its programs do it. Step by step, so that a step that is refused keeps
none of the others back.
"""

from __future__ import annotations

import ast
import fnmatch
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

import pillion
from pillion import acl, checks
from pillion.api import (
    Causes,
    DeadSet,
    Deploy,
    History,
    Metrics,
    Process,
    ProcessSet,
    Queue,
    Queues,
    RetrySet,
    ScheduledSet,
    Stats,
    WorkSet,
)
from pillion.api.ahead import Ahead
from pillion.api.audit import Audit
from pillion.api.operations import Operations
from pillion.api.overview import Overview
from pillion.api.processes import FIELDS
from pillion.api.runs import Runs
from pillion.client import Client
from pillion.config import RedisSettings
from pillion.errors import Refused, StoreError
from pillion.setup import Setup
from pillion.store import keys as keys_module
from pillion.store import ops, rescue, run_log, scripts, stacks
from pillion.store.ops import Move, Owner, Stepped, Want
from pillion.store.refusals import cure_of
from pillion.store.rescue import Rescue
from pillion.types import Claim, Dead, Done, Requeue, Retry
from pillion.worker import Worker
from pillion.worker.runner import Finished
from pillion.worker.stats import Counts
from tests.servers import Server

pytestmark = pytest.mark.leaks_keys

SRC = Path(pillion.__file__).parent
PASSWORD = "open-sesame"
NAMELESS = "The user executing the script can't run this command or subcommand"
PASSED_OVER = {
    "INCR": "a crash is not counted; what it took along goes back all the same",
    "LSET": "what is gone from a tray stays in memory until all of it is",
    "ZREMRANGEBYRANK": "the dead set grows beyond its bound",
}
"""What scripts go on without, so that a job's way is never stopped by it."""

PREFIXES = ("shop?:", "shopX:", "")
SOMEBODY = "host:1:aaaaaaaaaaaa"
FAR = 4_000_000_000.0


class Tour:
    """One user's way through all it may do; `said` is every refusal that it met."""

    def __init__(self, server: Server, user: str) -> None:
        url = f"unix://{user}:{PASSWORD}@{server.socket_path}"
        self.setup = Setup(url, run_log=True)
        self.client = Client(setup=self.setup)
        self.said: list[str] = []
        self.session = self.setup.store.session()

    def go(self, *steps: Callable[[], object]) -> None:
        """Take each step."""
        for step in steps:
            try:
                self._hear(step())
            except StoreError as error:
                self.said.append(str(error))

    def run(self, op: ops.Op[Any]) -> Any:
        """Carry out an op; what it brings, or None where it was refused."""
        found: list[Any] = []
        self.go(lambda: found.append(self.setup.store.run(op)) or found[0])
        return found[0] if found else None

    def _hear(self, reply: object) -> None:
        if isinstance(reply, Stepped):
            self.said += [f"{error}{cure_of(error)}" for _, error in reply.errors]  # as the fetcher's log has it
        for each in reply if isinstance(reply, list) else ():
            if isinstance(each, checks.Check) and each.ok is not True:
                self.said.append(str(each))


def push(tour: Tour) -> None:
    """What a plain producer does."""
    for item in ({}, {"at": FAR}):
        tour.go(lambda item=item: tour.client.push({"class": "Toured", "args": [], **item}))
    tour.run(ops.push(tour.setup.store.keys, [ops.Parcel("j", "default", b"{}")], replicas=1, wait_ms=1))


def push_once(tour: Tour) -> None:
    push(tour)
    for item in ({}, {"at": FAR}):
        tour.go(lambda item=item: tour.client.push({"class": "Toured", "args": [], **item}, once=True))


def work(tour: Tour) -> None:
    """What a worker does, without its threads."""
    push_once(tour)
    config = tour.setup.config
    worker = Worker(tour.setup, embedded=True)
    (station,) = worker.stations
    station.stats.put_back(counted())
    tour.go(lambda: checks.server(tour.setup.store.run, config), station.heartbeat.beat, station.heartbeat.after)
    own(tour)
    rescue_others(tour)
    promote(tour)
    tour.run(stacks.look(tour.setup.store.keys, SOMEBODY, wake=False))
    tour.run(stacks.take(tour.setup.store.keys, SOMEBODY))
    tour.run(stacks.answer(tour.setup.store.keys, "1", stacks.Answer(SOMEBODY, 0.0, [])))
    for most in (10**6, 3000, 1):  # an entry, then one that replaces others, then one that is too much
        tour.run(run_log.append(tour.setup.store.keys, "done", [b"x" * 1000, b"y" * 1000], most))


def counted() -> Counts:
    counts = Counts()
    counts.processed = 1
    counts.metrics["Toured|p"] += 1
    counts.slots["Toured", 1] += 1
    return counts


def own(tour: Tour) -> None:
    """Claim, settle in every way, doubt, and leave."""
    keys, me = tour.setup.store.keys, Owner("here:1:x/default.1")
    fill(tour, 10)
    tour.run(ops.join(keys, me.name, 60_000, 5))
    stepped = step(tour, me, [], Want(10, 1, (("default", 10),)))
    claims = [Claim(me.name, ops.claim_number(1, n), "default", b"{}") for n in range(10)]
    outcomes = [Retry(FAR, b"r"), Dead(FAR, b"d"), Requeue(), *[Done()] * 6]
    tour.run(ops.mark(keys, me, claims[9].n, claims[8].n))
    step(tour, me, [Finished(*pair) for pair in zip(claims, outcomes, strict=False)], Want(0, 2, ()))
    tour.run(ops.resync(keys, me.name, 60_000))
    tour.run(ops.index(keys, me.name))
    tour.run(ops.held_payloads(keys, me.name, [claims[9].n]))
    tour.run(ops.suspicion(keys, ["j"]))
    tour.run(ops.absolve(keys, me, claims[9].n, "j"))
    step(tour, Owner(me.name, 2), [Finished(claims[9], Done())], Want(0, 2, ()))
    wake_up(tour, Owner(me.name, 2))
    tour.run(ops.leave(keys, me.name))
    assert stepped is None or tour.said or len(stepped.claims) == 10


def wake_up(tour: Tour, owner: Owner) -> None:
    """Ask to be told of pushes."""
    keys, want = tour.setup.store.keys, Want(1, 3, (("empty", 1),))
    asking = ops.step(keys, owner, 60_000, [], want, dead_max=9, dead_timeout=9.0, wake=True)
    tour.go(tour.session.open, tour.session.track, lambda: tour.session.call(asking))
    tour.session.close()


def step(tour: Tour, owner: Owner, settled: list[Finished], want: Want) -> Any:
    keys = tour.setup.store.keys
    return tour.run(ops.step(keys, owner, 60_000, settled, want, dead_max=9, dead_timeout=9.0))


def fill(tour: Tour, count: int) -> None:
    tour.run(ops.push(tour.setup.store.keys, [ops.Parcel("j", "default", b"{}")] * count))


def rescue_others(tour: Tour) -> None:
    """Find the dead, fence them, and give back or bury what they held."""
    keys, gone = tour.setup.store.keys, Owner("gone:1:x/default.1")
    fill(tour, 2)
    tour.run(ops.join(keys, gone.name, 60_000, 5))
    step(tour, gone, [], Want(2, 1, (("default", 2),)))
    tour.run(rescue.lapsed(keys, 60_000))
    tour.run(rescue.fence(keys, gone.name, None))
    tour.run(rescue.rescue_counts(keys, ["j"]))
    rescues = [
        Rescue(ops.claim_number(1, 0), "default", "j", counted=True),
        Rescue(ops.claim_number(1, 1), "default", "k", verb="dead", at=FAR, payload=b"pill"),
    ]
    tour.run(rescue.salvage(keys, gone.name, rescues, dead_max=9, dead_timeout=9.0))


def promote(tour: Tour) -> None:
    """Move what is due."""
    keys = tour.setup.store.keys
    tour.run(ops.pipeline("due", [("ZADD", keys.schedule, 1, name) for name in ("a", "b", "c")]))
    tour.run(ops.due(keys.schedule))
    moves = [
        Move(b"a", 1.0, "push", FAR, b"{}", "default"),
        Move(b"b", 1.0, "dead", FAR, b"{}"),
        Move(b"c", 1.0, "later", FAR),
    ]
    tour.run(ops.promote(keys, keys.schedule, moves, dead_max=9, dead_timeout=9.0, now=FAR))


def seed(client: redis.Redis) -> None:
    """Something for each page: a process at work, jobs in every place."""
    info = '{"hostname":"host","pid":1,"concurrency":1,"queues":["default"]}'
    run = '{"queue":"default","payload":"{}","run_at":1}'
    client.sadd("processes", SOMEBODY)
    client.hset(SOMEBODY, mapping={"info": info, "beat": "1", "busy": "1", "concurrency": "1", "quiet": "false"})
    client.hset(f"{SOMEBODY}:work", "t", run)
    client.sadd("queues", "default")
    client.lpush("queue:default", *(f'{{"class":"Toured","args":[],"jid":"j{n}"}}' for n in range(3)))
    for name in ("retry", "schedule", "dead"):
        client.zadd(name, {f'{{"class":"Toured","args":[],"jid":"{name}","queue":"default"}}': FAR})


def look(tour: Tour) -> None:
    """What a dashboard shows: every reading verb of the API."""
    client = tour.client
    queue, sets = Queue("default", client), [RetrySet(client), ScheduledSet(client), DeadSet(client)]
    tour.go(queue.size, queue.latency, lambda: list(queue), lambda: queue.find_job("j"), queue.is_paused)
    tour.go(lambda: list(queue.scan("Toured")), Queues(client).summaries, Queues(client).sizes)
    for each in sets:
        tour.go(each.size, lambda each=each: list(each), lambda each=each: each.find_job("j"))
        tour.go(lambda each=each: list(each.scan("Toured")), lambda each=each: each.fetch(1.0))
    processes, works = ProcessSet(client=client), WorkSet(client)
    tour.go(processes.size, lambda: list(processes), processes.total_concurrency, processes.leader)
    tour.go(lambda: processes.find(SOMEBODY), works.size, lambda: list(works))
    tour.go(Stats(client).read, Stats(client).queues, History(1, client=client).processed)
    metrics = Metrics(client)
    tour.go(metrics.top_jobs, lambda: metrics.for_job("Toured"), Deploy(client).fetch)
    tour.go(Overview(client).read, Overview(client).server, Runs(client).page, Runs(client).size, Causes(client).survey)
    tour.go(Ahead(client).read, Operations(client).recent, Operations(client).open, Audit(client).page)


def repair(tour: Tour) -> None:
    """What an operator does: every verb of the API that changes something."""
    look(tour)
    client = tour.client
    queue, retries, dead = Queue("default", client), RetrySet(client), DeadSet(client)
    push(tour)
    tour.go(queue.pause, queue.resume, lambda: queue.delete_by_class("Toured"), queue.clear)
    for _ in range(2):
        tour.go(lambda: retries.schedule(1.0, {"class": "Toured", "args": [], "jid": "j", "queue": "default"}))
        tour.go(lambda: retries.delete_job("j"))
        tour.go(lambda: retries.schedule(1.0, {"class": "Toured", "args": [], "jid": "j", "queue": "default"}))
        tour.go(retries.retry_all, queue.clear)
        tour.go(lambda: dead.kill(b'{"class":"Toured","args":[]}', notify_failure=False), dead.trim, dead.clear)
    process = Process(SOMEBODY, dict.fromkeys(FIELDS), client)
    tour.go(process.quiet, process.stop, ProcessSet(client=client).cleanup, Stats(client).reset)
    tour.go(lambda: Deploy(client).mark("v1"))
    tour.run(stacks.ask(tour.setup.store.keys, SOMEBODY, stacks.Question("1")))
    tour.run(stacks.wait(tour.setup.store.keys, "1", 0.01))
    tour.run(stacks.read(tour.setup.store.keys, "1"))


TOURS = {"producer": push, "once-producer": push_once, "worker": work, "viewer": look, "operator": repair}


@pytest.fixture
def tour(server: Server, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., list[str]]]:
    """Sends a user of a role on its tour, without some command; what it was refused."""

    def take(name: str, without: str = "") -> list[str]:
        caplog.clear()
        client.flushall()
        if name in ("viewer", "operator"):
            seed(client)
        client.execute_command(*words(acl.line(acl.roles()[name], "tourist", [RedisSettings()])))
        less = [f"-{without.lower()}"] if without else []
        client.execute_command("ACL", "SETUSER", "tourist", f">{PASSWORD}", *less)
        client.client_kill_filter(user="tourist")
        guest = Tour(server, "tourist")
        TOURS[name](guest)
        guest.client.close()
        return [*guest.said, *caplog.messages]

    client = server.client()
    yield take
    client.execute_command("ACL", "DELUSER", "tourist")


def words(line: str) -> list[str]:
    return line.split(" ")


@pytest.mark.parametrize("name", TOURS)
def test_a_user_with_exactly_these_rights_is_refused_nothing(tour: Callable[..., list[str]], name: str) -> None:
    assert tour(name) == []


@pytest.mark.parametrize("name", TOURS)
def test_each_command_is_needed_and_named_where_it_is_not_allowed(
    tour: Callable[..., list[str]], name: str, request: pytest.FixtureRequest
) -> None:
    role = acl.roles()[name]
    wanted = role.all_commands
    if name in ("viewer", "operator"):  # their scripts have tests of their own
        wanted = role.commands - (acl.roles()["viewer"].commands if name == "operator" else set())
    for verb in sorted(wanted - {"CLIENT|SETNAME", *PASSED_OVER}):
        said = tour(name, verb)
        assert said, f"{verb} can be spared"
        named = any(verb.lower() in each.lower() for each in said)
        assert named or any(NAMELESS in each for each in said), f"{verb} is not named in {said}"
        assert named or "redis" in request.node.name, "Redis 7.0 alone does not name what a script goes on without"
        assert any("`pillion acl` prints" in each or "allow" in each for each in said)
        assert not any(PASSWORD in each for each in said)


# --- the table --------------------------------------------------------------------------------------------------------

NOT_THEIRS = {
    "CLIENT|SETINFO": "Redis 7.0 does not know it, and a server that refuses it is used all the same",
    "SENTINEL": "asked of Sentinels, which have users of their own",
    "CLUSTER": "CLUSTER|SLOTS, with `redis.cluster` only",
    "SMEMBERS": "within scripts, and by `pillion doctor`",
    "LRANGE": "within scripts, and by tests of jobs on a real server",
}
"""Commands in the source that stand in no role's own list, and why."""


def test_every_command_in_the_source_is_in_the_table() -> None:
    own = {verb.partition("|")[0] for role in acl.roles().values() for verb in role.all_commands}
    known = own | {name.partition("|")[0] for name in NOT_THEIRS}
    assert sorted(commands_in_source() - known) == []


def commands_in_source() -> set[str]:
    """The first words of all tuples and calls that may be commands, where ops are made."""
    found = set()
    rooms = ("store", "api", "worker")
    for path in [SRC / "checks.py", *(path for room in rooms for path in (SRC / room).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            first = node.elts[:1] if isinstance(node, ast.Tuple) else ()
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "command":
                first = node.args[:1]
            found |= {word.value for word in first if isinstance(word, ast.Constant) and is_verb(word.value)}
    return found - NO_COMMANDS


def is_verb(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[A-Z]{3,}(_RO)?", value) is not None


NO_COMMANDS = {"TERM", "INT", "READONLY", "FENCED", "WRONGPASS"} | {"AUTH", "HELLO", "SELECT"}
"""Words in capitals at the head of other tuples: signals, codes of errors. And what a connection begins with."""


def test_every_script_belongs_to_somebody_and_who_looks_changes_nothing() -> None:
    found = acl.roles()
    assert frozenset().union(*(role.scripts for role in found.values())) == scripts.names()
    writes = {"SET", "HSET", "DEL", "UNLINK", "LPUSH", "RPUSH", "RPOP", "LSET", "LREM", "SADD", "SREM", "ZADD", "ZREM"}
    assert not writes & found["viewer"].all_commands
    for role in found.values():
        assert not {"FLUSHALL", "CONFIG", "KEYS", "SCAN", "DEBUG", "SHUTDOWN"} & role.all_commands


@pytest.mark.parametrize("key", re.findall(r"^\| `([^`]+)`", keys_module.__doc__ or "", re.MULTILINE))
def test_every_key_of_the_data_model_is_within_a_workers_patterns(key: str) -> None:
    shapes = {"<identity>": SOMEBODY, "<day>": "20261122", "<date>": "261122", "<yyyymmdd>": "20261122"}
    shapes |= {"<h:mm>": "1:02", "<h:m>": "1:2", "<class>-<d>": "A-1", "<class>-<dd>": "A-01", "<hh:m>": "01:2"}
    for word, value in shapes.items():
        key = key.replace(word, value)
    key = re.sub("<[a-z]+>", "x", key)
    assert any(fnmatch.fnmatchcase(key, pattern) for pattern in acl.roles()["worker"].keys), key


def test_a_user_reaches_nothing_outside_its_prefix(server: Server) -> None:
    place = RedisSettings(url=f"unix://tourist:{PASSWORD}@{server.socket_path}", prefix="shop?:")
    line = acl.line(acl.roles()["producer"], "tourist", [place])
    assert r'"~shop\\?:queue:*"' in line
    client = server.client()
    client.execute_command(*shlex.split(line))
    client.execute_command("ACL", "SETUSER", "tourist", f">{PASSWORD}")
    pushing = {prefix: Client(setup=Setup(msgspec.structs.replace(place, prefix=prefix))) for prefix in PREFIXES}
    assert pushing["shop?:"].push({"class": "Toured", "args": []})
    for prefix in ("shopX:", ""):
        with pytest.raises(Refused, match=r"NOPERM .*key.*`pillion acl` prints"):
            pushing[prefix].push({"class": "Toured", "args": []})
    assert set(client.keys("*")) == {b"shop?:queues", b"shop?:queue:default"}
    for each in pushing.values():
        each.close()
    client.execute_command("ACL", "DELUSER", "tourist")


def test_no_line_holds_a_password_and_each_can_be_run_again(server: Server) -> None:
    client = server.client()
    place = RedisSettings(url=f"redis://somebody:{PASSWORD}@host:6379/2", cluster=("host:6379",), prefix="{s0}")
    for name, role in acl.roles().items():
        line = acl.line(role, f"pillion-{name}", [place], [2])
        assert PASSWORD not in line
        assert {"+select", "+cluster|slots"} <= set(line.split())
        client.execute_command(*shlex.split(line))
        client.execute_command("ACL", "SETUSER", f"pillion-{name}", f">{PASSWORD}")
        client.execute_command(*shlex.split(line))
        assert len(client.acl_getuser(f"pillion-{name}")["passwords"]) == 1
        client.execute_command("ACL", "DELUSER", f"pillion-{name}")

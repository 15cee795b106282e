"""Is this server fit to hold jobs, and is anything waiting for nobody? Answers as values, each with its cure.

`shards` (which asks `server` of each) and `jobs` are asked at every worker's boot and by `pillion doctor`; `insist`
makes a refusal a `BootError`.
`fleet` is asked by `pillion doctor` alone, its `served` by `pillion push` too. Checks only read. A question that the
server may not answer (an ACL, a managed service) becomes a warning, never a reason not to start. A lost connection is
no check's business: it passes through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar

import msgspec

from pillion.config import Config
from pillion.errors import BootError, Refused, StoreError
from pillion.registry import Registry
from pillion.sharding import hash_tag
from pillion.shards import Shard
from pillion.store import ops, rescue
from pillion.store.adapter import Denied
from pillion.store.keys import Keyspace
from pillion.store.ops import Op

T = TypeVar("T")
_Row: TypeAlias = tuple[bytes, bytes | None]
"""The fields `info` and `quiet` of a process's row."""

FLOORS = {"Redis": (7, 0), "Valkey": (7, 2)}
FORKS = {"dragonfly_version": "Dragonfly", "kvrocks_version": "Kvrocks", "garnet_version": "Garnet"}
MOST_SKEW = 2.0
PROBE = "#!lua flags=allow-oom\nreturn redis.call('TIME')"
MOST_NAMED = 5


class Run(Protocol):
    """Sends an op to the server and gives its result: `Store.run`."""

    def __call__(self, op: Op[T], /) -> T: ...


class Check(msgspec.Struct, frozen=True):
    """One answer.

    Attributes:
        name: what was asked, in a word or two.
        ok: True is fine, None is a warning, False means a worker must not start.
        detail: what was found, as a clause.
        cure: what to do about it; empty where nothing has to be done.
    """

    name: str
    ok: bool | None
    detail: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.detail}; {self.cure}" if self.cure else self.detail


def server(run: Run, config: Config) -> list[Check]:
    """Check the server itself: version, role, cluster mode, eviction, scripting, clock, client tracking.

    Raises:
        StoreError: the server cannot be reached, lets nobody in, or the connection broke. A refused question is a
            warning instead.
    """
    try:
        info = run(ops.info("default"))
    except Refused as error:
        if isinstance(error.__cause__, Denied):  # it is the connection that was refused: password, database
            raise
        known = [Check("server", None, f"the server does not tell about itself ({error})", "allow INFO for this user")]
    else:
        known = [_version(info), _role(info), _cluster(info, config.redis.prefix), _eviction(info, config.environment)]
    return [*known, *_scripting_and_clock(run, config), _tracking(run)]


def shards(shards: Sequence[Shard], config: Config) -> list[Check]:
    """`server` for each shard. Raises StoreError: none can be reached."""
    found = each_shard(shards, config)
    return [check for shard, checks in found for check in named(shard, checks, alone=len(shards) == 1)]


def each_shard(shards: Sequence[Shard], config: Config) -> list[tuple[Shard, list[Check]]]:
    """The answers of each shard. One that is away is a warning while another answers, whose jobs need not wait.

    Raises:
        StoreError: none can be reached.
    """
    answers: list[tuple[Shard, list[Check]]] = []
    away: list[StoreError] = []
    for shard in shards:
        try:
            answers.append((shard, server(shard.store.run, of_shard(config, shard))))
        except StoreError as error:
            away.append(error)
            cure = "its jobs wait until it is back; if it never was there, correct its address"
            answers.append((shard, [Check("reachable", None, str(error).partition("; ")[0], cure)]))
    if len(away) == len(shards):
        raise away[0]
    return answers


def of_shard(config: Config, shard: Shard) -> Config:
    """The configuration as it is for one shard."""
    return msgspec.structs.replace(config, redis=shard.settings)


def named(shard: Shard, checks: Iterable[Check], *, alone: bool) -> list[Check]:
    """Answers that say which shard they are about, unless there is only one."""
    if alone:
        return list(checks)
    return [Check(each.name, each.ok, f"shard {shard.name}: {each.detail}", each.cure) for each in checks]


def insist(checks: Iterable[Check]) -> list[Check]:
    """Raise BootError with the first refusal and what cures it; otherwise give back the warnings."""
    checks = list(checks)
    for check in checks:
        if check.ok is False:
            raise BootError(str(check))
    return [check for check in checks if check.ok is None]


def product(info: Mapping[str, str]) -> tuple[str, str]:
    """The server's name and version, told from its INFO, e.g. `("Valkey", "9.1.2")`."""
    for field, name in FORKS.items():
        if field in info:
            return name, info[field]
    if "valkey_version" in info:
        return "Valkey", info["valkey_version"]
    return "Redis", info.get("redis_version", "")


def _version(info: Mapping[str, str]) -> Check:
    name, version = product(info)
    floors = " or ".join(f"{product} {major}.{minor}" for product, (major, minor) in FLOORS.items())
    found = f"{name} {version}".strip()
    if name not in FLOORS:
        cure = f"use {floors} or newer where jobs must not be lost"
        return Check("version", None, f"the server is {found}, which Pillion is not tested with", cure)
    parts = re.match(r"(\d+)\.(\d+)", version)
    if parts is None:
        return Check(
            "version", None, f"the server hides its version ({found})", f"make sure that it is {floors} or newer"
        )
    if (int(parts[1]), int(parts[2])) < FLOORS[name]:
        return Check("version", False, f"expected {floors} or newer, got {found}", "upgrade the server")
    return Check("version", True, found)


def _role(info: Mapping[str, str]) -> Check:
    role = info.get("role", "master")
    if role == "master":
        return Check("role", True, "it is a primary")
    primary = f"{info.get('master_host', '?')}:{info.get('master_port', '?')}"
    cure = f"connect to its primary, {primary}, or name the Sentinels (redis.sentinels and redis.master)"
    return Check("role", False, f"expected a primary, got a replica of {primary}, which takes no writes", cure)


def _cluster(info: Mapping[str, str], prefix: str) -> Check:
    if info.get("cluster_enabled") != "1":
        return Check("cluster", True, "cluster mode is off")
    if hash_tag(prefix):
        return Check("cluster", True, f"cluster mode is on, and the prefix {prefix} keeps all keys in one slot")
    detail = "expected one server that holds every key, got a node of a Redis Cluster, which spreads them over slots"
    return Check(
        "cluster",
        False,
        detail,
        'use a server of its own, or keep to one slot with redis.prefix = "{s0}" and redis.cluster',
    )


def _eviction(info: Mapping[str, str], environment: str) -> Check:
    policy = info.get("maxmemory_policy")
    if policy is None:
        return Check("eviction", None, "the server hides its maxmemory-policy", "make sure that it is noeviction")
    if policy == "noeviction":
        return Check("eviction", True, "maxmemory-policy is noeviction")
    detail = f"expected maxmemory-policy noeviction, got {policy}, which deletes jobs when memory runs out"
    cure = "run CONFIG SET maxmemory-policy noeviction, and set it in redis.conf or at your provider"
    return Check("eviction", False if environment == "production" else None, detail, cure)


def _scripting_and_clock(run: Run, config: Config) -> list[Check]:
    before = config.clock.now()
    try:
        seconds, micros = run(ops.command("EVAL", PROBE, 0))
    except Refused as error:
        return [_no_scripts(error)]
    ours = (before + config.clock.now()) / 2
    return [Check("scripting", True, "scripts run"), _clock(ours - (int(seconds) + int(micros) / 1_000_000))]


def _no_scripts(error: Refused) -> Check:
    """A server that refuses every write (MISCONF, BUSY) says so first to a script; that is not the scripts' fault."""
    said, _, cure = str(error).partition("; ")
    if cure and "NOPERM" not in said:
        return Check("scripting", False, f"the server takes no commands just now ({said})", cure)
    cure = "allow EVAL and EVALSHA for this user, or use a server that has them"
    return Check("scripting", False, f"the server runs no Lua scripts ({error})", cure)


def _clock(ahead: float) -> Check:
    if abs(ahead) <= MOST_SKEW:
        return Check("clock", True, f"this machine's clock is {abs(ahead):.1f} s off the server's")
    direction = "ahead of" if ahead > 0 else "behind"
    detail = (
        f"this machine's clock is {_span(abs(ahead))} {direction} the server's, so scheduled jobs run at wrong times"
    )
    return Check("clock", None, detail, "let both synchronise their clocks (chrony, systemd-timesyncd)")


def _tracking(run: Run) -> Check:
    on_and_off = (("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP"), ("CLIENT", "TRACKING", "OFF"))
    try:
        run(ops.pipeline("tracking", on_and_off))
    except Refused as error:
        cure = "allow CLIENT TRACKING and CLIENT CACHING for this user"
        return Check("wake-up", None, f"idle workers will poll about once a second: no client tracking ({error})", cure)
    return Check("wake-up", True, "client tracking wakes idle workers at once")


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


# --- the jobs: is each of them served here ----------------------------------------------------------------------------


def unserved(registry: Registry, config: Config) -> dict[str, list[str]]:
    """The queues of registered jobs that no capsule serves, each with its jobs' names. Stubs run elsewhere."""
    known = {name for capsule in config.capsules for name, _ in capsule.queues}
    missing: dict[str, list[str]] = {}
    for definition in registry:
        queue = str({**config.default_job_options, **definition.options}.get("queue", "default"))
        if definition.kind != "stub" and queue not in known:
            missing.setdefault(queue, []).append(definition.name)
    return missing


def jobs(registry: Registry, config: Config) -> Check:
    """Check that a worker with this configuration serves the queues of the jobs that it defines."""
    missing = unserved(registry, config)
    if not missing:
        return Check("jobs", True, f"the queues of all defined jobs are served ({len(registry)})")
    shown = [f"{queue} ({_some(names)})" for queue, names in missing.items()]
    rows, several = " and ".join([", ".join(shown[:-1]), shown[-1]] if shown[1:] else shown), len(missing) > 1
    detail = f"this worker does not serve the queue{'s' if several else ''} {rows} of the jobs it defines"
    return Check("jobs", None, detail, f"to serve {'them' if several else 'it'}: {_command(config, missing)}")


def _command(config: Config, missing: Iterable[str]) -> str:
    """The command line of a worker that serves what the default capsule serves, and these queues as well."""
    default = config.capsules[0]
    weighted = [f"{name},{weight}" if weight else name for name, weight in default.queues]
    return " ".join(("pillion worker", *config.require, *(f"-q {queue}" for queue in (*weighted, *missing))))


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


# --- the fleet: what waits, and for whom ------------------------------------------------------------------------------


def fleet(run: Run, config: Config) -> list[Check]:
    """Check what no process notices by itself: queues that nobody serves or that are paused, and dead owners' claims.

    Raises:
        StoreError: the server cannot be reached, or refuses to show the data.
    """
    keys = Keyspace(config.redis.prefix)
    waiting, paused = _waiting(run, keys)
    rows = _rows(run, keys)
    return [
        _processes(len(rows)),
        _apps(rows),
        _unserved(waiting, _served_by(rows)),
        _paused(waiting, paused),
        _leases(run, keys, config.lease),
    ]


def _waiting(run: Run, keys: Keyspace) -> tuple[dict[str, int], set[str]]:
    """How many jobs stand in each queue that is not empty, and which queues are paused."""
    names, paused = run(ops.pipeline("queues", (("SMEMBERS", keys.queues), ("SMEMBERS", keys.paused))))
    queues = sorted(ops.text(name) for name in names)
    lengths = run(ops.pipeline("lengths", [("LLEN", keys.queue(name)) for name in queues])) if queues else []
    filled = {name: length for name, length in zip(queues, lengths, strict=True) if length}
    return filled, {ops.text(name) for name in paused}


def served(run: Run, keys: Keyspace) -> tuple[set[str], int]:
    """The queues that live processes serve, Ruby's among them, and how many processes there are."""
    rows = _rows(run, keys)
    return _served_by(rows), len(rows)


def _rows(run: Run, keys: Keyspace) -> list[_Row]:
    """What the live processes say of themselves."""
    identities = sorted(ops.text(name) for name in run(ops.command("SMEMBERS", keys.processes)))
    rows = run(ops.pipeline("processes", [("HMGET", keys.process(name), "info", "quiet") for name in identities]))
    return [(info, quiet) for info, quiet in rows if info is not None]


def _served_by(rows: Sequence[_Row]) -> set[str]:
    return set().union(*(_queues_of(info) for info, quiet in rows if quiet != b"true"))


def _apps(rows: Sequence[_Row]) -> Check:
    """Two apps that share a queue take each other's jobs, and fail them as unknown."""
    tags: dict[str, set[str]] = {}
    for info, _ in rows:
        for queue in _queues_of(info):
            tags.setdefault(queue, set()).add(_tag_of(info))
    shared = {queue: sorted(found - {""}) for queue, found in sorted(tags.items()) if len(found - {""}) > 1}
    if not shared:
        return Check("apps", True, "no queue is served by two apps")
    detail = "; ".join(f"queue {queue} is served by {' and '.join(found)}" for queue, found in shared.items())
    cure = "each takes the other's jobs; give them queues, a database or a redis.prefix of their own, or one tag"
    return Check("apps", None, detail, cure)


def _tag_of(info: bytes) -> str:
    try:
        return str(msgspec.json.decode(info).get("tag") or "")
    except (msgspec.DecodeError, AttributeError):
        return ""


def _queues_of(info: bytes) -> set[str]:
    try:
        row = msgspec.json.decode(info)
        found = {str(name) for name in row.get("queues") or ()}
        return found | {str(name) for capsule in (row.get("capsules") or {}).values() for name in capsule["weights"]}
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
        return set()  # a row that another program wrote; it serves nothing that we can tell


def _processes(count: int) -> Check:
    if count:
        return Check("processes", True, f"{count} live worker process{'es' if count > 1 else ''}")
    return Check("processes", None, "no worker process is alive", "start one: pillion worker APP")


def _unserved(waiting: Mapping[str, int], served: set[str]) -> Check:
    lonely = {name: count for name, count in waiting.items() if name not in served}
    if not lonely:
        return Check("queues", True, f"every queue that holds jobs is served ({len(waiting)})")
    flags = " ".join(f"-q {name}" for name in list(lonely)[:MOST_NAMED])
    return Check("queues", None, f"nobody serves {_counts(lonely)}", f"serve them: pillion worker APP {flags}")


def _paused(waiting: Mapping[str, int], paused: set[str]) -> Check:
    held = {name: count for name, count in waiting.items() if name in paused}
    if not held:
        return Check("paused", True, "no queue that holds jobs is paused")
    return Check("paused", None, f"paused with jobs in them: {_counts(held)}", "unpause them when they may run again")


def _leases(run: Run, keys: Keyspace, lease: float) -> Check:
    lapsed = run(rescue.lapsed(keys, int(lease * 1000)))
    late = [*lapsed.expired, *lapsed.fenced]
    if not late:
        return Check("leases", True, "no dead worker holds jobs")
    indexes = [run(ops.index(keys, owner)) for owner in late]
    claims = sum(len(ops.index_claims(index)) for index in indexes)
    detail = f"{len(late)} dead worker(s) still hold {claims} job(s): {', '.join(late[:MOST_NAMED])}"
    wait = "a minute" if lease == 60 else f"{lease:g} s"
    cure = f"any worker returns them, within {wait} and a quarter; start one: pillion worker APP"
    return Check("leases", None, detail, cure)


def _counts(queues: Mapping[str, int]) -> str:
    shown = [f"{name} ({count} job{'s' if count > 1 else ''})" for name, count in list(queues.items())[:MOST_NAMED]]
    return ", ".join(shown) + (f" and {len(queues) - MOST_NAMED} more" if len(queues) > MOST_NAMED else "")

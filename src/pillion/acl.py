"""Which commands and keys each kind of user of a Redis needs: the one table, for `pillion acl`.

A user that may do no more than its work can neither read other programs' data nor empty the server. What runs inside a
script needs permission like any other command; the commands of a script are read from its text, so they are named here
only where their caller chooses them (`batch.lua` and `ask.lua`). Nothing here talks to a server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

import msgspec

from pillion.config import RedisSettings
from pillion.store import scripts

_FIRST = re.compile(r"redis\.p?call\(([^,)]*)(?:,\s*'([A-Z]+)')?")
_VERB = re.compile("'([A-Z]+)'")
_CONTAINERS = ("CLIENT", "CLUSTER", "MEMORY")
_GLOB = re.compile(r"([\\*?\[])")


class Role(msgspec.Struct, frozen=True):
    """A kind of user.

    Attributes:
        name: what it is called on the command line.
        does: what it may do, as a clause.
        commands: what it sends outside of scripts or through those that run any command; `CLIENT|SETNAME` is one.
        scripts: the scripts that it runs, by name.
        keys: patterns of the keys that it touches, without a prefix.
        helpful: what it can do without: to be named in CLIENT LIST, to wake at once, to check the server at its start.
    """

    name: str
    does: str
    commands: frozenset[str]
    scripts: frozenset[str]
    keys: tuple[str, ...]
    helpful: frozenset[str] = frozenset({"CLIENT|SETNAME"})

    @property
    def all_commands(self) -> frozenset[str]:
        """Everything that it must be allowed, those of its scripts included."""
        inside = (verb for name in self.scripts for verb in verbs(name))
        return self.commands.union(inside, ("EVAL", "EVALSHA") if self.scripts else (), self.helpful)


_PUSHES = frozenset({"SADD", "LPUSH", "ZADD", "WAIT"})
_QUEUES = ("queues", "queue:*", "schedule")
_IDENTITY = "*:*:" + "?" * 12
_ALL_KEYS = (
    *_QUEUES,
    *("retry", "dead", "paused", "processes", "process_cleanup", "dear-leader", "stat:*"),
    *(_IDENTITY, f"{_IDENTITY}:work", f"{_IDENTITY}:workers", f"{_IDENTITY}-signals"),
    *("j|*", "h|*", "*-??-??:*", "*-marks", "deploylock-*", "pillion:*"),
)
_SETTLING = frozenset(
    {"step", "join", "leave", "resync", "mark", "lapsed", "fence", "salvage", "due", "promote", "batch", "log_runs"}
)
_BEATING = frozenset(
    {"SADD", "EXISTS", "HSET", "EXPIRE", "RPOP", "SCARD", "UNLINK", "SREM", "SET"}  # the row
    | {"INCRBY", "BITFIELD", "HINCRBY", "EXPIRE"}  # the counters
)
_ANSWERS = frozenset({"LPOP", "RPUSH"})  # to the questions of dashboards
_WORKS = frozenset(
    {"PING", "MGET", "HGETALL", "HGET", "LINDEX", "ZMSCORE", "ZREM", "DEL", "HDEL", "SSCAN"}
    | {"ZRANGE"}  # a supervised process looks for its predecessor's owners
    | _PUSHES
    | _BEATING
    | _ANSWERS
)
_LOOKS = frozenset(
    {"BITFIELD_RO", "GET", "HGET", "HGETALL", "HMGET", "LINDEX", "LLEN", "SCARD", "SISMEMBER", "SMEMBERS"}
    | {"SSCAN", "TIME", "XRANGE", "ZCARD", "ZCOUNT", "ZRANGE", "ZSCAN"}
)
_REPAIRS = frozenset(
    {"EXPIRE", "MSET", "SET", "SREM", "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE"}
    | {"BLMOVE", "LTRIM", "RPUSH"}  # asks a worker what its jobs do, and waits for the answer
    | _PUSHES
)


def roles() -> dict[str, Role]:
    """All kinds of users by name. Scripts that only read are the viewer's, those of nobody else the operator's."""
    known = scripts.names()
    reads = {name for name in known if scripts.script(name).text.startswith("#!lua flags=no-writes")} - _SETTLING
    others = known - reads - _SETTLING - {"push_once"}
    hears = frozenset({"CLIENT|SETNAME", "CLIENT|TRACKING", "CLIENT|CACHING", "INFO"})
    asks = frozenset({"CLIENT|SETNAME", "INFO"})
    once_keys = (*_QUEUES, "pillion:once:*")
    found = (
        Role("producer", "pushes jobs", _PUSHES, frozenset(), _QUEUES),
        Role("once-producer", "pushes jobs, also with once=True", _PUSHES, frozenset({"push_once"}), once_keys),
        Role("worker", "runs jobs, and pushes them", _WORKS, _SETTLING | {"push_once"}, _ALL_KEYS, hears),
        Role("viewer", "looks at everything and changes nothing", _LOOKS, frozenset(reads), _ALL_KEYS, asks),
        Role(
            "operator",
            "looks at everything, and repairs",
            _LOOKS | _REPAIRS,
            frozenset(reads | others | {"promote", "batch"}),
            _ALL_KEYS,
            asks,
        ),
    )
    return {role.name: role for role in found}


@cache
def verbs(name: str) -> frozenset[str]:
    """The commands that a script names in its text."""
    found: set[str] = set()
    for first, second in _FIRST.findall(scripts.script(name).text):
        words = _VERB.findall(first)
        found.update(f"{word}|{second}" if word in _CONTAINERS else word for word in words)
    return frozenset(found)


def line(role: Role, user: str, places: Sequence[RedisSettings], db: Iterable[int] = ()) -> str:
    """The `ACL SETUSER` line of a user for servers that are reached so. It keeps the passwords that are set."""
    extra = {"SELECT"} if any(db) else set[str]()
    if any(place.cluster for place in places):
        extra.add("CLUSTER|SLOTS")
    prefixes = dict.fromkeys(_GLOB.sub(r"\\\1", place.prefix) for place in places)
    keys = [_word(f"~{prefix}{pattern}") for prefix in prefixes for pattern in role.keys]
    commands = [f"+{verb.lower()}" for verb in sorted(role.all_commands | extra)]
    return " ".join(["ACL SETUSER", _word(user), "on", "resetkeys", "resetchannels", *keys, "-@all", *commands])


def _word(text: str) -> str:
    """A word as redis-cli reads it."""
    if not re.search(r"[\s\"'\\]", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

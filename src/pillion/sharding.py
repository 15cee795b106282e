"""Which shard a job goes to, when the jobs of one program are spread over several keyspaces or servers.

Called by the client for every push of a setup that has shards. The choice depends on nothing but names, so every
process with the same configuration chooses the same, and a repeated push of one jid meets its first. It is rendezvous
hashing (Thaler and Ravishankar, 1996): each shard draws a number from its name and the key, and the highest wins. A
shard that is added takes its share from all others, and moves nothing else.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from pillion.config import RedisSettings
from pillion.errors import ConfigError
from pillion.given import closest, shown

ShardBy: TypeAlias = str | Mapping[str, str]
"""`"jid"` (evenly), `"queue"` (all jobs of a queue on one shard), or queue names with their shards."""

WAYS = ("jid", "queue")
SLOTS = 16_384


def check_shard_by(by: Any, names: Sequence[str], where: str) -> ShardBy:
    """`shard_by` as it was given. Raises ConfigError for what nobody can follow."""
    if by in WAYS:
        return str(by)
    if not isinstance(by, Mapping):
        raise ConfigError(
            f"shard_by: expected jid, queue, or a table of queues with their shards, got {shown(by)} ({where}); "
            'write shard_by = "queue"'
        )
    for queue, name in by.items():
        if name not in names:
            close = closest(str(name), names)
            known = ", ".join(names) or "none: name them in shards"
            cure = f"did you mean `{close}`?" if close else f"known are {known}"
            raise ConfigError(f"shard_by.{queue}: expected the name of a shard, got {shown(name)} ({where}); {cure}")
    return dict(by)


def check_places(shards: Sequence[tuple[str, RedisSettings]], sources: Mapping[str, str]) -> None:
    """Check that each keyspace stands apart from the others: two in one place would be one shard under two names.

    In a cluster each must keep to one slot. Raises ConfigError.
    """
    places: dict[object, str] = {}
    for name, settings in shards:
        place = (_server(settings), id(settings.client), settings.prefix)
        if place in places:
            where = next(where for option, where in sources.items() if option.startswith(f"shards.{name}."))
            raise ConfigError(
                f"shards.{name}: expected a place of its own, got that of `{places[place]}` ({where}); "
                "give it another url, or another prefix"
            )
        places[place] = name
        if settings.cluster:
            named = [option for option in (f"shards.{name}.prefix", "redis.prefix") if option in sources]
            slot_of(settings.prefix, *([named[0], sources[named[0]]] if named else ()))


def _server(settings: RedisSettings) -> object:
    """Which server is meant, however its address is written: credentials make no difference."""
    if settings.cluster or settings.sentinels:
        return settings.cluster, settings.sentinels, settings.master
    parts = urlsplit(settings.url or "")
    if not parts.hostname:
        return parts.path or settings.url, parts.query
    return parts.hostname, parts.port or 6379, parts.path.strip("/") or "0", parts.query


def choose(names: Sequence[str], by: ShardBy, queue: str, jid: str) -> str:
    """The shard of a job. A queue that a table does not name goes by its own name."""
    if not isinstance(by, str):
        return by.get(queue) or _highest(names, queue)
    return _highest(names, queue if by == "queue" else jid)


def _highest(names: Sequence[str], key: str) -> str:
    from hashlib import blake2b  # noqa: PLC0415 - it loads OpenSSL, and only programs with shards need it

    return max(names, key=lambda name: blake2b(f"{name}/{key}".encode(), digest_size=8).digest())


def hash_tag(key: str) -> str | None:
    """What stands between a key's first `{` and the next `}`: keys that share it share a slot. None if there is none.

    The rule is that of the Redis Cluster specification, "Hash tags"; nothing between the two counts as none.
    """
    _, _, rest = key.partition("{")
    tag, end, _ = rest.partition("}")
    return tag if tag and end else None


def slot_of(prefix: str, option: str = "redis.prefix", where: str = "beside redis.cluster") -> int:
    """The slot of a cluster that holds every key with this prefix: CRC16 (XMODEM) of its hash tag, modulo 16384.

    Raises ConfigError for a prefix without a hash tag, whose keys stand in many slots.
    """
    tag = hash_tag(prefix)
    if tag is None:
        raise ConfigError(
            f"{option}: expected a hash tag, for a cluster spreads the keys over its nodes, got {shown(prefix)} "
            f'({where}); write prefix = "{{s0}}"'
        )
    return crc_hqx(tag.encode(), 0) % SLOTS

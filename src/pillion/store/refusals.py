"""The server's error replies as exceptions, with what to do about each. Used by `exchange.py`, and by pushes by jid."""

from __future__ import annotations

from collections.abc import Sequence

from pillion.errors import QueueFull, Refused

_ONE_SLOT = "; a Redis Cluster spreads keys over its nodes: keep to one slot with redis.prefix = '{s0}'"
CURES = {
    "MOVED": f"{_ONE_SLOT}, and name some of its nodes in redis.cluster, so that the one that holds it is found",
    "ASK": "; the slot of this shard is moving to another node: it can be used again when it has arrived",
    "CROSSSLOT": _ONE_SLOT,
    "READONLY": "; connect to the primary, or name the Sentinels (redis.sentinels and redis.master)",
    "NOPERM": "; allow it to the user of this address",
}
"""What to do about a refusal, by its code."""


def refusal(name: str, reply: str, accepted: Sequence[bool] = ()) -> Refused:
    """The exception for an error reply."""
    reply = reply.partition(", with args beginning with")[0]  # what follows may be a job's arguments
    if reply.startswith("OOM") or " OOM " in reply:
        return QueueFull(
            f"the server's memory is full and it takes no new jobs ({name}): {reply}; "
            "raise maxmemory, let workers drain the queues, or remove what is not needed",
            accepted,
        )
    cure = next((cure for code, cure in CURES.items() if reply.startswith(code)), "")
    return Refused(f"the server refused {name}: {reply}{cure}", accepted)

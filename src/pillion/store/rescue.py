"""The reaper's questions: whose lease ran out, who may be fenced, and what becomes of the claims of the fenced.

Ops, as those of `ops.py`, for `worker/reaper.py` and whoever knows that an owner is dead. They are safe to send twice,
and safe beside other reapers; `lua/shared/pulse.lua` tells an outage from a death."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pillion.store.keys import FENCED_TTL, RESCUED_TTL, Keyspace
from pillion.store.op import Op, Word, call, moment, text
from pillion.store.ops import tray_of


class Lapsed(msgspec.Struct, frozen=True):
    """Who lost its rights, by the server's clock.

    Attributes:
        expired: owners whose lease ran out.
        fenced: owners that were fenced and whose claims still wait for a reaper.
        steady: whether the expired had time to renew, so that they may be fenced.
    """

    expired: list[str]
    fenced: list[str]
    steady: bool


def lapsed(keys: Keyspace, lease_ms: int, most: int = 10, now: float | None = None) -> Op[Lapsed]:
    """At most `most` owners of each kind, those first whose time ended first."""
    names = (keys.lease, keys.salvage, keys.pulse)
    return call("lapsed", names, (moment(now, 1000), lease_ms, most), _lapsed)


def _lapsed(reply: Any) -> Lapsed:
    expired, fenced, steady = reply
    return Lapsed([text(name) for name in expired], [text(name) for name in fenced], steady == 1)


def fence(keys: Keyspace, owner: str, lease_ms: int | None, now: float | None = None) -> Op[bool]:
    """End an owner's rights if its lease ran out and it could have renewed; at once without `lease_ms`: it is dead."""
    names = (keys.lease, keys.fenced, keys.salvage, keys.pulse, keys.index(owner))
    args = (owner, moment(now, 1000), "" if lease_ms is None else lease_ms, FENCED_TTL)
    return call("fence", names, args, lambda reply: reply == 1)


class Rescue(msgspec.Struct, frozen=True, gc=False):
    """What to do with one claim of a fenced owner: `return` it to its queue, bury it (`dead`) or `drop` it.

    `counted` raises the number of crashes that the jid was part of.
    """

    n: int
    queue: str
    jid: str
    verb: str = "return"
    counted: bool = False
    at: float = 0.0
    payload: bytes = b""


def salvage(
    keys: Keyspace,
    owner: str,
    rescues: Sequence[Rescue],
    *,
    dead_max: int,
    dead_timeout: float,
    now: float | None = None,
) -> Op[list[int]]:
    """Carry out rescues; the result names the claims that this call moved. Safe, and safe beside other reapers."""
    names: list[Word] = [keys.index(owner), keys.salvage, keys.suspects]
    args: list[Word] = [owner, moment(now, 1000), RESCUED_TTL, dead_max, dead_timeout]
    for item in sorted(rescues, key=lambda rescue: rescue.n, reverse=True):
        destination = keys.queue(item.queue) if item.verb == "return" else keys.dead
        names += (keys.tray(owner, tray_of(item.n)), destination, keys.rescued(item.jid))
        args += (item.n, item.verb, int(item.counted), item.jid, repr(item.at), item.payload)
    return call("salvage", names, args, lambda reply: [int(n) for n in reply])


def rescue_counts(keys: Keyspace, jids: Sequence[str]) -> Op[list[int]]:
    """How many crashes each of these jids was part of in the last 72 hours."""
    names = [keys.rescued(jid) for jid in jids]
    return Op("rescue_counts", (("MGET", *names),), lambda replies: [int(n or 0) for n in replies[0]], safe=True)

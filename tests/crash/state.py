"""All that stands in a server, read in one atomic look: which job stands where, whose lease stands, what is left over.

It knows the layout from the data model and reads it with a script of its own, on purpose not through the code that
writes it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec
import redis

LOOK = """
local time = redis.call('TIME')
local lists, sets, indexes, keys = {}, {}, {}, {}
for _, key in ipairs(redis.call('KEYS', 'queue:*')) do lists[#lists + 1] = {key, redis.call('LRANGE', key, 0, -1)} end
for _, key in ipairs({'retry', 'schedule', 'dead'}) do sets[#sets + 1] = {key, redis.call('ZRANGE', key, 0, -1)} end
for _, key in ipairs(redis.call('KEYS', 'pillion:*')) do
  keys[#keys + 1] = key
  if key:find('^pillion:inf:') and redis.call('TYPE', key).ok == 'hash' then
    local trays, fields = {}, redis.call('HGETALL', key)
    for i = 1, #fields, 2 do
      local held = tonumber(fields[i]) and redis.call('LRANGE', key .. ':' .. fields[i], 0, -1)
      if held then trays[#trays + 1] = {fields[i + 1], held} end
    end
    indexes[#indexes + 1] = {key, trays}
  end
end
return {time, redis.call('ZRANGE', 'pillion:lease', 0, -1, 'WITHSCORES'), lists, sets, indexes, keys}
"""
INDEX = b"pillion:inf:"
HELD = ord("1")
WORK = (b"pillion:lease", b"pillion:pulse", b"pillion:salvage", INDEX)
"""All others expire or are capped by themselves, which `leaks.py` checks at the end of a block."""


class Stored(msgspec.Struct):
    """What of a payload matters here."""

    jid: str
    error_class: str | None = None
    error_message: str | None = None
    retry_count: int | None = None


@dataclass
class State:
    """One look.

    Attributes:
        at: the server's clock, in ms.
        leases: owner -> its expiry in ms.
        where: jid -> every place it stands in: `queue:default`, `retry`, `schedule`, `dead`, `held by <owner>`, or
            `left by <owner>` where the owner has no lease any more.
        reasons: jid -> what a failed job says about why it failed, "" where it says nothing.
        keys: the keys of Pillion's own that work stands in, or that tell who may hold it.
    """

    at: int
    leases: dict[str, float]
    where: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    reasons: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)

    @property
    def dead(self) -> set[str]:
        """The jids in the dead set."""
        return {jid for jid, places in self.where.items() if "dead" in places}

    @property
    def waiting(self) -> set[str]:
        """The jids that stand anywhere else."""
        return {jid for jid, places in self.where.items() if places != ["dead"]}

    def pids(self, since: float = 0.0) -> set[int]:
        """The processes that hold a lease, all of whose leases run out after `since` (ms)."""
        late = {pid_of(owner) for owner, expiry in self.leases.items() if expiry < since}
        return {pid_of(owner) for owner in self.leases} - late


def pid_of(owner: str) -> int:
    """The process in an owner's name, `host:pid:nonce/capsule.epoch`."""
    return int(owner.split(":")[1])


def look(client: redis.Redis) -> State:
    """Read everything at once."""
    reply: Any = client.eval(LOOK, 0)
    (seconds, micros), leases, lists, sets, indexes, keys = reply
    owners = {name.decode(): float(score) for name, score in zip(leases[::2], leases[1::2], strict=True)}
    ours = sorted(key.decode() for key in keys if key.startswith(WORK))
    state = State(int(seconds) * 1000 + int(micros) // 1000, owners, keys=ours)
    for key, payloads in lists:
        for raw in payloads:
            state.where[read(raw).jid].append(key.decode())
    for key, payloads in sets:
        for raw in payloads:
            job = read(raw)
            state.where[job.jid].append(key.decode())
            if job.retry_count is not None or key == b"dead":
                state.reasons[job.jid] = job.error_message or ""
    for key, trays in indexes:
        owner = key.removeprefix(INDEX).decode()
        verb = "held" if owner in owners else "left"
        for value, payloads in trays:
            mask = value.split(b" ")[0]
            for held, raw in zip(mask, payloads, strict=False):  # an index may name more than has been moved
                if held == HELD:
                    state.where[read(raw).jid].append(f"{verb} by {owner}")
    return state


_decoder = msgspec.json.Decoder(Stored)


def read(raw: bytes) -> Stored:
    return _decoder.decode(raw)

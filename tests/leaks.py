"""Keys that outlive their rule. Work never sits under a key with a TTL; everything else of ours has one, or a cap.

`check` reads a server after a test. It knows the layout from the design's data model, on purpose not from the code that
writes it: a wrong rule there must not excuse itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import redis

from tests.servers import Server

LONGEST = {
    "once": 600,
    "rescued": 72 * 3600,
    "runs": 7 * 86_400,
    "operation": 7 * 86_400,
    "parked": 7 * 86_400,
    "ask": 30,
    "stacks": 60,
}
"""Seconds that a key of each family may live."""

CAPPED = {"lease", "fenced", "suspects", "operations", "audit"}
"""Keys that stay: their entries are trimmed instead."""

OURS = re.compile(rb"^(?P<prefix>.*?)pillion:(?P<family>[^:]+)(?::(?P<rest>.*))?$", re.DOTALL)
TRAY = re.compile(rb"^(?P<owner>.*):(?P<n>\d+)$", re.DOTALL)


def check(server: Server) -> None:
    """Raise AssertionError with every key that breaks its rule. A server that is down is not asked."""
    if not server.alive():
        return
    server.resume()
    with server.client() as client:
        found = "\n".join(leaked(client))
    assert not found, f"keys that outlived their rule (mark the test `leaks_keys` if that is its point):\n{found}"


def leaked(client: redis.Redis) -> Iterator[str]:
    """One line for each key of ours that breaks its rule."""
    for key in sorted(client.scan_iter(match="*pillion:*", count=1000)):
        ours = OURS.match(key)
        fault = ours and fault_of(client, key, ours)
        if fault:
            yield f"  {key.decode(errors='replace')}: {fault}"


def fault_of(client: redis.Redis, key: bytes, ours: re.Match[bytes]) -> str | None:
    """What is wrong with this key, or None."""
    family = ours["family"].decode(errors="replace")
    lives = client.ttl(key)
    if family == "inf":
        return fault_of_claims(client, key, ours["prefix"], ours["rest"] or b"", lives)
    if family == "pulse":
        return None if client.exists(ours["prefix"] + b"pillion:lease") else "outlives the last owner"
    if family in CAPPED:
        return None if lives == -1 else "is trimmed, and must not expire"
    if lives == -1:
        return "has no TTL"
    limit = LONGEST.get(family)
    return f"lives {lives} s, at most {limit} allowed" if limit and lives > limit else None


def fault_of_claims(client: redis.Redis, key: bytes, prefix: bytes, rest: bytes, lives: int) -> str | None:
    """A tray belongs to an entry of its owner's index; an index to an owner with a lease, or to be salvaged."""
    if lives != -1:
        return "holds work, and must not expire"
    tray = TRAY.match(rest) if client.type(key) == b"list" else None
    if tray is not None:
        index = prefix + b"pillion:inf:" + tray["owner"]
        return None if client.hexists(index, tray["n"].decode()) else "tray without an entry in its owner's index"
    if client.zscore(prefix + b"pillion:lease", rest) is not None:
        return None
    fenced = client.zscore(prefix + b"pillion:fenced", rest) is not None
    salvageable = any(field.isdigit() for field in client.hkeys(key))
    return None if fenced and salvageable else "index of an owner that has left"

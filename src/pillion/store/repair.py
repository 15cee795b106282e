"""What people change by hand in queues, sets and rows: take out, clear, pause, signal, reset, mark.

Ops, as those of `ops.py`, for the API. Moving an entry of a set is `ops.promote`, as the poller moves what is due. Each
acts only on what is still there, by its exact bytes, and puts a job in its new place before it leaves the old one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pillion.store.keys import CLEANUP_TTL, DEPLOY_LOCK_TTL, MARKS_TTL, SIGNALS_TTL, Keyspace
from pillion.store.op import Op, Word, call, command
from pillion.store.ops import batch
from pillion.store.reads import Place


def cut(queue: str, jobs: Sequence[Place], word: str) -> Op[list[bool]]:
    """Take jobs out of the list `queue`; a place of 0 is not known. Per job whether it was there. `word` is no job."""
    args: list[Word] = [word]
    for job in jobs:
        args += (job.n, job.raw)
    return call("cut", (queue,), args, lambda reply: [n == 1 for n in reply])


def clear_queue(keys: Keyspace, name: str) -> Op[int]:
    """Empty a queue and forget its name. Returns how many jobs are gone."""
    return call("clear", (keys.queue(name), keys.queues), (name,), int)


def clear_set(keys: Keyspace, key: str) -> Op[int]:
    """Empty a sorted set. Returns how many jobs are gone."""
    return call("clear", (key, keys.queues), ("",), int)


def add(key: str, at: float, raw: bytes) -> Op[bool]:
    """Put a job into a sorted set. False where these very bytes stood there already and only their score changed."""
    return Op("add", (("ZADD", key, repr(at), raw),), lambda replies: replies[0] == 1, safe=True)


def trim(key: str, most: int, before: float) -> Op[Any]:
    """Drop from a sorted set what is older than `before` (epoch seconds), then the oldest that leave no room."""
    commands = (("ZREMRANGEBYSCORE", key, "-inf", repr(before)), ("ZREMRANGEBYRANK", key, 0, -most))
    return Op("trim", commands, sum, safe=True)


def pause(keys: Keyspace, name: str) -> Op[bool]:
    """Let no worker take from a queue from its next step on. False where it was paused already."""
    return Op("pause", (("SADD", keys.paused, name),), lambda replies: replies[0] == 1, safe=True)


def resume(keys: Keyspace, name: str) -> Op[bool]:
    """Let workers take from it again; idle ones wake. False where it was not paused."""
    return Op("resume", (("SREM", keys.paused, name),), lambda replies: replies[0] == 1, safe=True)


def signal(keys: Keyspace, identity: str, name: str) -> Op[list[Any]]:
    """Leave a process the name of a signal, for its next beat; after a minute it is worthless."""
    key = keys.signals(identity)
    return batch([("LPUSH", key, name), ("EXPIRE", key, SIGNALS_TTL)], strict=True)


def may_prune(keys: Keyspace) -> Op[bool]:
    """Ask for the turn to prune `processes`, which somebody has once a minute; also where memory is full."""
    words = ("SET", 4, 1, "NX", "EX", CLEANUP_TTL)
    return call("batch", (keys.process_cleanup,), words, lambda replies: replies[0] == b"OK", safe=False)


def prune(keys: Keyspace, identities: Sequence[str]) -> Op[Any]:
    """Strike processes off the list. One that is alive after all enters itself again with its next beat."""
    return command("SREM", keys.processes, *identities)


def reset(keys: Keyspace, counters: Sequence[str]) -> Op[Any]:
    """Set counters to zero; those of the days stay."""
    return command("MSET", *(word for name in counters for word in (keys.stat(name), 0)))


def mark_deploy(keys: Keyspace, label: str, day: str, minute: str) -> Op[bool]:
    """Note a deploy at `minute` (ISO 8601) of `day` (YYYYMMDD). False: marked lately, or the minute has another one."""
    names = (keys.deploylock(label), keys.marks(day))
    return call("mark_deploy", names, (label, minute, DEPLOY_LOCK_TTL, MARKS_TTL), lambda reply: reply == 1)

"""A look at everything, every few seconds: one JSON line for each, in `samples.jsonl`."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import redis

from tests.crash.soak import journal
from tests.crash.soak.fleet import Fleet, Seen

TICKS = os.sysconf("SC_CLK_TCK")
FAMILY = re.compile(r"^(pillion:\w+|\w+)")
FAMILIES_EVERY = 6
HOUR = 3600
FIELDS = (
    ("clients", "connected_clients"),
    ("blocked", "blocked_clients"),
    ("memory", "used_memory"),
    ("dataset", "used_memory_dataset"),
    ("scripts", "number_of_cached_scripts"),
    ("tracked", "tracking_total_keys"),
    ("aof", "aof_current_size"),
)


class Sampler:
    """Writes samples of the fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._out = fleet.folder / journal.SAMPLES
        self._count = 0

    def take(self) -> dict[str, Any]:
        """One sample; written, and returned."""
        processes = [found for seen in self._fleet.seen() if (found := look_at(seen)) is not None]
        sample = {"at": journal.now(), "processes": processes, "redis": self._redis(), "load": os.getloadavg()[0]}
        self._count += 1
        with self._out.open("a") as out:
            out.write(json.dumps(sample) + "\n")
        return sample

    def _redis(self) -> dict[str, Any] | None:
        """Figures of the server; None while it is down."""
        try:
            with self._fleet.server.client(socket_timeout=2.0) as client:
                info: Any = client.info()
                figures: dict[str, Any] = {name: info.get(field) for name, field in FIELDS}
                figures["keys"] = client.dbsize()
                queues = [f"queue:{name.decode()}" for name in client.smembers("queues")]
                figures["waiting"] = sum(int(client.llen(queue)) for queue in queues)
                figures |= {name: int(client.zcard(name)) for name in ("schedule", "retry", "dead")}
                figures |= {name: int(client.zcard(f"pillion:{name}")) for name in ("lease", "fenced", "suspects")}
                if self._count % FAMILIES_EVERY == 0:
                    figures["families"] = families(client)
                    figures["schedule_bytes"] = client.memory_usage("schedule", samples=100) or 0
                return figures
        except (redis.RedisError, AssertionError):
            return None


def families(client: redis.Redis) -> dict[str, int]:
    """How many keys of each kind there are; with a star where they live for hours or days, and then expire."""
    names = [key.decode() for key in client.scan_iter(count=1000)]
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.ttl(name)
        lives = pipe.execute()
    kinds = (found[0] if (found := FAMILY.match(name)) else "?" for name in names)
    return dict(Counter(kind + "*" * (ttl > HOUR) for kind, ttl in zip(kinds, lives, strict=True)))


def look_at(seen: Seen) -> dict[str, Any] | None:
    """RSS and its private part in bytes, descriptors, threads and CPU seconds of a process; None where it is gone."""
    folder = Path(f"/proc/{seen.pid}")
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        fds = sum(1 for _ in (folder / "fd").iterdir())
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        return {
            "pid": seen.pid,
            "role": seen.role,
            "rss": int(status["VmRSS"].split()[0]) * 1024,
            "anon": int(status["RssAnon"].split()[0]) * 1024,
            "threads": int(status["Threads"]),
            "fds": fds,
            "cpu": (int(stat[11]) + int(stat[12])) / TICKS,
        }
    except (OSError, KeyError, IndexError):
        return None

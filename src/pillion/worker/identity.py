"""Who this process is: its Sidekiq identity and what its process row says about it."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from pillion.config import Config, random_jid
from pillion.version import __version__

_PAGE = resource.getpagesize()


@cache
def _nonce(_pid: int) -> str:
    """Six random bytes, drawn once per process (and again in a forked child)."""
    return random_jid()[:12]


def identity() -> str:
    """`<host>:<pid>:<nonce>`: never the same twice, though containers repeat hosts and pids."""
    pid = os.getpid()
    return f"{hostname()}:{pid}:{_nonce(pid)}"


def hostname() -> str:
    return os.environ.get("DYNO") or socket.gethostname()


def tag(config: Config) -> str:
    """The configured tag, or the name of the folder the process runs in, or of the one above a `releases` folder."""
    if config.tag is not None:
        return config.tag
    here = Path.cwd()
    return here.parent.parent.name if here.parent.name == "releases" else here.name


def info(config: Config, started_at: float, *, embedded: bool) -> bytes:
    """The `info` field of the process row, as Sidekiq 8.1 writes it."""
    capsules: dict[str, Any] = {}
    for capsule in config.capsules:
        weights = dict(capsule.queues)
        capsules[capsule.name] = {"concurrency": capsule.concurrency, "mode": capsule.mode, "weights": weights}
    row: Mapping[str, Any] = {
        "hostname": hostname(),
        "started_at": started_at,
        "pid": os.getpid(),
        "tag": tag(config),
        "concurrency": config.concurrency,
        "capsules": capsules,
        "queues": list(dict.fromkeys(name for capsule in config.capsules for name, _ in capsule.queues)),
        "weights": [dict(capsule.queues) for capsule in config.capsules],
        "labels": list(config.labels),
        "identity": identity(),
        "version": __version__,
        "embedded": embedded,
    }
    return msgspec.json.encode(row)


def rss_kb() -> int:
    """Resident memory of this process in KB."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE // 1024
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // 1024 if sys.platform == "darwin" else peak

"""Executed, and the reply lost: the fault that no client can tell from a request that never arrived."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pillion.errors import MaybeEnqueued, StoreError
from pillion.events import JobSettled
from pillion.store import ops
from pillion.store.ops import FENCED, STALE, Owner, Stepped, Want
from pillion.store.scripts import script
from pillion.types import Claim, Done, Settlement
from pillion.worker import Worker
from tests.crash.app import Held, HeldAsync, Quick, open_ledger
from tests.crash.bed import Bed, ended
from tests.crash.proxy import Mischief, Proxy, Words
from tests.servers import Server

pytestmark = pytest.mark.chaos

LOSSES: tuple[Mischief, ...] = ("lose_reply", "cut_reply", "swallow_reply")
"""The ways to lose the reply of a request that was executed."""


@pytest.fixture
def proxy(own_server: Server, tmp_path: Path) -> Iterator[Proxy]:
    """What everybody but the assertions talks through."""
    made = Proxy(own_server.folder / "p", own_server.socket_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def bed(own_server: Server, proxy: Proxy, tmp_path: Path) -> Iterator[Bed]:
    """A bed whose workers and pushes go through the proxy."""
    made = Bed(own_server, tmp_path, proxy.url)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def worker(bed: Bed) -> Iterator[Worker]:
    """A worker in this process, idle, its scripts known to the server."""
    open_ledger(bed.ledger.path)
    made = Worker(bed.setup, embedded=True)
    made.start()
    try:
        bed.until(lambda: made.fetchers[0].healthy_since, "the worker to join")
        yield made
    finally:
        for go in ("go",):
            (bed.folder / f"{go}-{__import__('os').getpid()}").touch()
        made.stop(2)


# --- what the conditions of a trap ask -------------------------------------------------------------------------------


def is_step(words: Words) -> bool:
    """Whether this request is the step script."""
    return words[0] == b"EVALSHA" and words[1].decode() == script("step").sha


def claims(words: Words, reply: Any) -> bool:
    """A step that brings a job."""
    return is_step(words) and isinstance(reply, list) and bool(reply[3])


def settles(words: Words, reply: Any = None) -> bool:
    """A step that carries an outcome."""
    arguments = words[3 + int(words[2]) :]
    return is_step(words) and int(arguments[8]) + int(arguments[9]) > 0


def pushes(words: Words, reply: Any = None) -> bool:
    return words[0] == b"LPUSH"


def pushes_once(words: Words, reply: Any = None) -> bool:
    return words[0] in (b"EVALSHA", b"EVAL") and b"pillion:once" in b"".join(words[3:5])

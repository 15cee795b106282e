"""The zygote: imports the app once, and forks workers that share its memory.

Called by the command line, in the process that the supervisor has started, after the app is imported. What a fork
must not inherit is not there: no connection of ours, no thread. If the app has brought some, it says so, for
they would not work in the children.
"""

from __future__ import annotations

import gc
import logging
import os
import stat
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from pillion.config import Config
from pillion.setup import Setup
from pillion.store.scripts import load_all
from pillion.worker.forking.channel import Channel
from pillion.worker.forking.forker import Birth, Forker
from pillion.worker.forking.messages import PROTOCOL, Ready
from pillion.worker.supervisor.cores import wanted

log = logging.getLogger("pillion")

OPEN_FILES = Path("/proc/self/fd")
IN_STARTUP = '@setup.on("startup") is the place: it runs in each process'


def serve(setup: Setup, control: int) -> Birth | None:
    """Fork workers until the supervisor is gone. Returns the `Birth` in each worker, None in the zygote.

    `control` is the descriptor of the channel to the supervisor.
    """
    config = setup.config
    for shard in setup.shards:
        shard.close()
    _preload()
    channel = Channel.of(control)
    _warn_of_what_cannot_be_shared(control)
    gc.freeze()  # what is there now is never looked at again, so its pages stay shared
    channel.send(_ready(config))
    birth = Forker(channel, mortal=False).run()
    if birth is not None:
        config.rng.seed()  # or every child would draw the same numbers
    return birth


def _ready(config: Config) -> Ready:
    """What the supervisor wants to know of the configuration."""
    count = wanted(config.processes)
    return Ready(PROTOCOL, count, config.timeout, config.lease, config.max_memory, config.max_jobs)


def _preload() -> None:
    """Load what every child loads anyway, and what it must not load later: the package may be replaced meanwhile."""
    load_all()
    for name in ("asyncio", "redis.connection", "pillion.worker.supervisor.child"):
        import_module(name)


def _warn_of_what_cannot_be_shared(control: int) -> None:
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if threads:
        names = ", ".join(threads)
        log.warning("importing the app started threads (%s), which forked processes do not have; %s", names, IN_STARTUP)
    if sockets := _sockets() - _sockets(0, 1, 2, control):
        log.warning("importing the app opened %d connections, which must not be shared; %s", len(sockets), IN_STARTUP)


def _sockets(*descriptors: int) -> set[int]:
    """The sockets behind these descriptors, or behind all that are open, by inode; where the system tells."""
    if not OPEN_FILES.is_dir():
        return set()
    found = set()
    for descriptor in descriptors or [int(path.name) for path in OPEN_FILES.iterdir()]:
        with suppress(OSError):
            status = os.fstat(descriptor)
            if stat.S_ISSOCK(status.st_mode):
                found.add(status.st_ino)
    return found

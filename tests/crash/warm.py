"""What the warm server of `processes.py` imports once, so that no forked worker has to."""

from __future__ import annotations

import asyncio.selector_events
import gc

import hiredis
import redis.connection

import pillion.cli.app
import pillion.store.libraries
import pillion.worker.worker
from pillion.store.scripts import names, script
from tests.crash import host, mix

WARM = (asyncio, gc, hiredis, redis, pillion, host, mix)

for name in names():
    script(name)  # read now: all workers of a campaign run the same code, whatever is edited meanwhile
gc.collect()
gc.freeze()

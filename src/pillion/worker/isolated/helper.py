"""The helper process: forked from a worker before that has threads and connections, it forks a cell per isolated run.

`start` is called by the command line between the import of the app and the first connection, where some job asks for a
process of its own; without one there is no helper. It shares the worker's memory, costs little and does nothing by
itself.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from pillion.setup import Setup
from pillion.worker.forking.channel import Channel
from pillion.worker.forking.forker import Forker
from pillion.worker.isolated import cell
from pillion.worker.isolated.pool import Pool
from pillion.worker.title import name_process

FAILED = 70
IGNORED = ("INT", "TSTP", "TTIN", "USR2")


def start(setup: Setup, foreign: Iterable[int] = ()) -> Pool:
    """Fork the helper and return the pool that runs jobs through it.

    `foreign` are descriptors that belong to the worker alone; the helper closes them.
    """
    ours, theirs = Channel.pair()
    if os.fork() == 0:
        ours.close()
        for descriptor in foreign:
            os.close(descriptor)
        _serve(setup, theirs)
    theirs.close()
    return Pool(ours, setup.config.clock)


def _serve(setup: Setup, channel: Channel) -> NoReturn:
    """Be the helper, and in forked processes a cell. Never returns into the worker's code above."""
    code = FAILED
    try:
        os.setpgid(0, 0)
        name_process("helper")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for name in IGNORED:
            signal.signal(signal.Signals[f"SIG{name}"], signal.SIG_IGN)
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        gc.freeze()
        birth = Forker(channel, mortal=True).run()
        code = 0 if birth is None else _cell(setup, birth.descriptor)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _cell(setup: Setup, descriptor: int) -> int:
    for name in IGNORED:
        signal.signal(signal.Signals[f"SIG{name}"], signal.SIG_DFL)
    setup.config.rng.seed()
    return cell.main(setup, descriptor)

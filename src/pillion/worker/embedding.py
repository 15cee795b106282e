"""A worker inside another program, in one call: a web server, a bot, a test."""

from __future__ import annotations

from typing import Any

from pillion import setup as setups
from pillion.worker.worker import Worker


def embed(redis: Any = None, *, setup: setups.Setup | None = None, **options: Any) -> Worker:
    """Start a worker in this process and return it; `quiet()` and `stop()` it when the program ends.

    It touches no signal and no process title, and never ends the process; dashboards show it, and cannot stop it.
    Without a configured concurrency it runs 2 jobs at once. Register middleware and handlers before.

    Args:
        redis: as in `pillion.configure`, like all other options.
        setup: whose jobs and middleware; the default setup if None.

    Raises ConfigError, and what a function for `startup` raises; then nothing runs.
    """
    chosen = setup or setups.default
    if redis is not None or options:
        chosen.configure(redis, **options)
    worker = Worker(chosen, embedded=True)
    worker.start()
    return worker

"""The engine: everything that runs in a worker process. `worker.py` puts it together; start reading there.

It needs Linux or macOS; programs elsewhere push and test their jobs without it."""

import sys

from pillion.errors import BootError
from pillion.loader import loaded

if sys.platform == "win32":
    raise BootError(
        "a worker needs Linux or macOS, got Windows; run it there, in WSL or in a container. Pushing, and testing with "
        "testing.fake() and testing.inline(), work here too"
    )

from pillion.worker.embedding import embed
from pillion.worker.worker import Worker

__all__ = ["Worker", "embed"]

loaded("worker")

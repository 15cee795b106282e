"""Plain old Python: one file defines the job, pushes it and runs it.

Start a worker in one terminal:

    pillion worker por.py

and push from another:

    python -i por.py
    >>> OurWorker.perform_async("like a dog", 3)

Both find the same Redis: the one that REDIS_URL names, or else this project's embedded server.
"""

from __future__ import annotations

import time

import pillion


class OurWorker(pillion.Job):
    def perform(self, how_hard: str = "super hard", how_long: float = 1) -> None:
        time.sleep(how_long)
        self.logger.info("worked %s", how_hard)

"""Jobs of 1, 30 and 300 seconds, to watch what becomes of them when a worker goes quiet and when it stops.

    pillion worker our_worker.py -t 5             in one terminal; its first lines name its pid
    python -i our_worker.py                       in another
    >>> OurWorker.perform_async("super_hard")     300 s; looks whether it is wanted elsewhere
    >>> OurWorker.perform_async("hard")           30 s; looks at nothing
    >>> OurWorker.perform_async("easy")           1 s

Then, from a third:

    kill -TSTP PID    quiet: takes no more jobs. "easy" and "hard" run to their end; "super_hard" sees `interrupted()`
                      and gives itself back. The process stays, with nothing to do, until it is told to stop.
    kill -TERM PID    stop: as quiet, and after -t seconds whatever still runs goes back to the head of its queue; only
                      then is it interrupted, by `pillion.Shutdown`. Its `finally` blocks have 3 s. Exit code 0.

Nothing is lost either way, and no retry is used up: the next worker begins these jobs anew. A job that must not begin
anew notes how far it came, and goes on from there.
"""

from __future__ import annotations

import time

import pillion

NAP = 0.1


class OurWorker(pillion.Job):
    def perform(self, complexity: str) -> None:
        self.logger.info("begins %s", complexity)
        try:
            self.work(complexity)
            self.logger.info("is done with %s", complexity)
        finally:
            self.logger.info("cleans up after %s", complexity)

    def work(self, complexity: str) -> None:
        match complexity:
            case "super_hard":
                self.work_politely(300)
            case "hard":
                nap(30)
            case _:
                nap(1)

    def work_politely(self, seconds: float) -> None:
        """Work in small steps, and leave between two of them when the worker wants to stop."""
        for _ in range(round(seconds / NAP)):
            if self.interrupted():
                raise pillion.Shutdown  # back to the queue; a plain `return` would mean that the job is done
            nap(NAP)


def nap(seconds: float) -> None:
    """Stand in for work. Python interrupts a thread between two instructions, never inside one long `sleep`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(NAP, seconds))

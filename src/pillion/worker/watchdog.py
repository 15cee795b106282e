"""The watchdog notices a fetcher that is stuck, as opposed to a server that fails.

A fetcher that ends its attempts, in success or error, is alive: it will go on when the server does. One that has not
ended any for three renewal periods, nor for as long as one attempt may rightly take, hangs in something nobody
foresaw. Then all stacks are logged and its connection is dropped; if that does not free it within another period, the
process exits with code 70, so that whoever supervises it starts a new one and its leases run out. Nothing is lost:
claims stand in their trays. Time that the whole process stood still (SIGSTOP, a sleeping laptop) does not count.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

from pillion.clock import Clock
from pillion.worker.fetcher import RENEWALS_PER_LEASE, Fetcher
from pillion.worker.service import Service

log = logging.getLogger("pillion")

PERIODS = 3
EXIT_STUCK = 70


class Watchdog(Service):
    """Looks at every fetcher a few times per renewal period. Embedded, it never ends the host's process.

    `attempt` is how long a server that does not answer may keep one attempt (seconds). `report` is called after each
    round; a supervisor takes its silence for a process that is stuck as a whole.
    """

    name = "watchdog"

    def __init__(
        self, fetchers: Sequence[Fetcher], lease: float, clock: Clock, *, embedded: bool, attempt: float = 0.0
    ) -> None:
        super().__init__()
        self._fetchers = fetchers
        self._period = lease / RENEWALS_PER_LEASE
        self._steady = clock.steady
        self._embedded = embedded
        self._patience = max(PERIODS * self._period, attempt + self._period)
        self._dropped: set[str] = set()
        self._looked = clock.steady()
        self._awake_since = float("-inf")
        self.report: Callable[[], None] = _nobody_listens

    def turn(self) -> float:
        now = self._steady()
        if now - self._looked > self._period:
            self._awake_since = now
        self._looked = now
        for fetcher in self._fetchers:
            self.look(fetcher)
        self.report()
        return self._period / 2

    def look(self, fetcher: Fetcher) -> None:
        """Judge one fetcher."""
        silent = self._steady() - max(fetcher.last_attempt, self._awake_since)
        if silent <= self._patience:
            self._dropped.discard(fetcher.name)
        elif fetcher.name not in self._dropped:
            self._dropped.add(fetcher.name)
            log.error("%s has been stuck for %.1f s; dropping its connection\n%s", fetcher.name, silent, stacks())
            fetcher.tenure.session.close()
        elif silent > self._patience + self._period and not self._embedded:
            log.critical("%s is still stuck; leaving with exit code %d", fetcher.name, EXIT_STUCK)
            logging.shutdown()
            os._exit(EXIT_STUCK)


def _nobody_listens() -> None:
    return None


def stacks() -> str:
    """What every thread is doing right now."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():  # pyright: ignore[reportPrivateUsage]
        lines = "".join(traceback.format_stack(frame))
        parts.append(f"Thread {names.get(ident, ident)}:\n{lines}")
    return "\n".join(parts)

"""A real worker on a real server for one test."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pillion import embedded
from pillion import setup as setups
from pillion.events import JobSettled
from pillion.setup import Setup
from pillion.worker import Worker


class LiveWorker:
    """The worker and its setup, and a way to wait for its jobs.

    Attributes:
        setup: the default setup, pointed at the test's server.
        worker: the running worker.
        settled: what was settled so far, in order.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.settled: list[JobSettled] = []
        self._more = threading.Condition()
        self._unsubscribe = setup.events.subscribe(JobSettled, self._note)
        self.worker = Worker(setup, embedded=True)

    def wait_for(self, jid: str | None, timeout: float = 10.0) -> JobSettled:
        """Wait until a job has been settled, whatever its outcome, and return that. Raises TimeoutError."""
        with self._more:
            if self._more.wait_for(lambda: any(event.jid == jid for event in self.settled), timeout):
                return next(event for event in self.settled if event.jid == jid)
        raise TimeoutError(f"job {jid} was not settled within {timeout:g} s")

    def stop(self) -> None:
        self.worker.stop(timeout=1.0)
        self._unsubscribe()

    def _note(self, event: JobSettled) -> None:
        with self._more:
            self.settled.append(event)
            self._more.notify_all()


@contextmanager
def live_worker(folder: Path) -> Generator[LiveWorker]:
    """Start an embedded server in `folder` and a worker of the default setup on it."""
    setup = setups.default
    url = embedded.ensure(folder, create=True, announce=False)
    with setup.pointed_at(url):
        live = LiveWorker(setup)
        try:
            live.worker.start()
            yield live
        finally:
            live.stop()
            embedded.release(folder)

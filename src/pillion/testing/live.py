"""A real worker on a real server for one test; the fixture `pillion_worker` starts it.

The server is its own, so the worker serves the queue of every job that is registered when it starts, beside those that
are configured. A job that is pushed elsewhere is left there, and who waits for it is told.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pillion import checks, embedded
from pillion import setup as setups
from pillion.config import Config
from pillion.events import JobSettled
from pillion.setup import Setup
from pillion.store import ops
from pillion.store.keys import Keyspace
from pillion.worker import Worker
from pillion.worker.worker import EMBEDDED_CONCURRENCY


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
        self.worker = Worker(setup, _with_every_queue(setup), embedded=True)

    def wait_for(self, jid: str | None, timeout: float = 10.0) -> JobSettled:
        """Wait until a job has been settled, whatever its outcome, and return that.

        Raises:
            TimeoutError: it was not; the message says where the job is, if that is a queue that nobody serves here.
        """
        with self._more:
            if self._more.wait_for(lambda: any(event.jid == jid for event in self.settled), timeout):
                return next(event for event in self.settled if event.jid == jid)
        raise TimeoutError(f"job {jid} was not settled within {timeout:g} s{self._where(jid)}")

    def stop(self) -> None:
        self.worker.stop(timeout=1.0)
        self._unsubscribe()

    def _where(self, jid: str | None) -> str:
        """That the job lies in a queue which is not served, as the end of a sentence."""
        run, config = self.setup.store.run, self.worker.config
        keys = Keyspace(config.redis.prefix)
        served = [name for capsule in config.capsules for name, _ in capsule.queues]
        others = {ops.text(name) for name in run(ops.command("SMEMBERS", keys.queues))} - {*served}
        for queue in sorted(others):
            sign = f'"jid":"{jid}"'.encode()
            if any(sign in raw for raw in run(ops.command("LRANGE", keys.queue(queue), 0, -1))):
                names = ", ".join(served)
                return f": it is in queue {queue!r}, which this worker does not serve (it serves {names})"
        return ""

    def _note(self, event: JobSettled) -> None:
        with self._more:
            self.settled.append(event)
            self._more.notify_all()


def _with_every_queue(setup: Setup) -> Config:
    """The configuration, with the queues of all registered jobs and, as in every embedded worker, a few slots."""
    config = setup.config
    default, *others = config.capsules
    weight = int(default.mode != "strict")
    queues = (*default.queues, *((name, weight) for name in checks.unserved(setup.registry, config)))
    slots = default.concurrency if "concurrency" in setup.resolved.sources else EMBEDDED_CONCURRENCY
    wider = msgspec.structs.replace(default, queues=queues, concurrency=slots)
    return msgspec.structs.replace(config, capsules=(wider, *others))


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

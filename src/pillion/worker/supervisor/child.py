"""A worker that a supervisor watches: it reports, rescues the jobs of dead siblings, and stops when it is left alone.

`SupervisedWorker` is a `Worker` with one service more. The `Link` sleeps on the channel to the supervisor. If that
ends, nobody would restart or replace this process any more, so it stops as if told by TERM: its jobs finish or go back.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

from pillion.config import Config
from pillion.errors import StoreError
from pillion.setup import Setup
from pillion.store import ops, rescue
from pillion.store.connection import Store
from pillion.types import Requeue
from pillion.worker.forking.channel import Channel
from pillion.worker.forking.messages import Alive, Hello, Message, Rescue, Rescued, Running
from pillion.worker.heartbeat import farewell
from pillion.worker.identity import rss_kb
from pillion.worker.reaper import Reaper
from pillion.worker.runner import Finished
from pillion.worker.service import Service
from pillion.worker.worker import Worker

log = logging.getLogger("pillion")

TRY_AGAIN = 1.0
FOR_EVER = 3600.0


class SupervisedWorker(Worker):
    """One of the processes of `pillion worker --processes N`. It owns `channel`, which is open until it has ended."""

    def __init__(self, setup: Setup, config: Config, channel: Channel) -> None:
        super().__init__(setup, config)
        self._done = 0
        self._link = Link(channel, rescue=self._rescue, leave=self._alone)
        self._watchdog.report = self._report
        self._link.say(Hello(self.identity))

    def run(self) -> int:
        with suppress(AttributeError, io.UnsupportedOperation):  # no stderr, or one without a descriptor
            faulthandler.register(signal.SIGQUIT, all_threads=True)  # works while C code holds the interpreter
        return super().run()

    def _say_running(self) -> None:
        super()._say_running()
        self._link.say(Running())

    def _services(self) -> list[Service]:
        return [*super()._services(), self._link]

    def _rescue(self, identity: str) -> int:
        return sum(rescue_process(station.store, station.reaper, identity) for station in self.stations)

    def _settled(self, finished: Sequence[Finished]) -> None:
        super()._settled(finished)
        before, limit = self._done, self.config.max_jobs
        self._done += sum(type(item.outcome) is not Requeue for item in finished)
        if limit and before < limit <= self._done:
            self._report()

    def _report(self) -> None:
        busy = sum(fetcher.executor.busy for fetcher in self.fetchers)
        self._link.say(Alive(rss_kb() * 1024, busy, self._done))

    def _alone(self) -> None:
        log.warning("the supervisor is gone; stopping")
        self._hear("TERM")


class Link(Service):
    """The conversation with the supervisor."""

    name = "supervisor"

    def __init__(self, channel: Channel, *, rescue: Callable[[str], int], leave: Callable[[], None]) -> None:
        super().__init__()
        self._channel = channel
        self._rescue = rescue
        self._leave = leave
        self._waiting: list[str] = []

    def say(self, message: Message) -> None:
        """Tell the supervisor something. Never waits: if it does not read, it may have to do without."""
        self._channel.send(message)

    def turn(self) -> float:
        _wait(self._channel.fileno(), TRY_AGAIN if self._waiting else None)
        messages = self._channel.receive()
        if messages is None:
            self._leave()
            return FOR_EVER
        self._waiting += [message.identity for message in messages if isinstance(message, Rescue)]
        self._waiting = [identity for identity in self._waiting if not self._rescued(identity)]
        return 0.0

    def join(self, timeout: float) -> bool:  # noqa: ARG002 - as every service's
        """It sleeps on the channel, and ends with the process."""
        return True

    def _rescued(self, identity: str) -> bool:
        try:
            moved = self._rescue(identity)
        except StoreError as error:
            log.warning("could not rescue the jobs of %s yet: %s", identity, error)
            return False
        log.info("%s is dead; %d of its jobs are back in their queues", identity, moved)
        self.say(Rescued(identity))
        return True


def rescue_process(store: Store, reaper: Reaper, identity: str) -> int:
    """Fence every owner of a process that is known to be dead, and give its jobs back; how many were moved.

    Safe beside other reapers, and to call again after an error.
    """
    keys = store.keys
    listed = ops.pipeline("owners", [("ZRANGE", key, 0, -1) for key in (keys.lease, keys.salvage)])
    owners = {ops.text(name) for names in store.run(listed) for name in names}
    moved = 0
    for owner in sorted(owner for owner in owners if owner.startswith(f"{identity}/")):
        if store.run(rescue.fence(keys, owner, None)):
            moved += reaper.salvage(owner)
    store.run(ops.batch(farewell(keys, identity), safe=True))
    return moved


def _wait(descriptor: int, seconds: float | None) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll(None if seconds is None else seconds * 1000)

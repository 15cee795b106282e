"""The poller moves what is due: members of `retry` and `schedule` whose time has come go to their queues.

Every process polls, at random moments that spread over the fleet, so that together they look about every five
seconds. A poll reads due members (200 at most per script), takes each through client middleware as a new push, and
moves them all in one script that checks each member again. So:

- a crash between reading and moving changes nothing: the members are still due, the next poller finds them;
- two pollers move a member once: whoever comes second finds it gone;
- what middleware stops is removed and reported, what it raises for is tried again a minute later, and what cannot be
  read goes to the dead set. Nothing of that holds the others up.

The sets are shared by every program on this Redis. Most members may be of classes and queues that this process has
never heard of; they are moved all the same, with their class given to middleware as a name.

How long to sleep: with P processes and a wish of one poll per A seconds over the whole fleet, each process sleeps P*A
seconds on average. Below ten processes the sleep is uniform in 0.5 to 1.5 times that, which keeps single processes
regular; from ten on in 0 to 2 times, because evenly spread random polls matter more than regular ones (Sidekiq 8.1).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pillion.activejob import real_name
from pillion.config import Config
from pillion.errors import BadPayload, Refused, StoreError
from pillion.events import Events, JobStopped, PayloadRejected
from pillion.payload import decode
from pillion.promotion import promote
from pillion.setup import Setup
from pillion.store import ops
from pillion.store.connection import Store
from pillion.store.ops import MAX_BATCH, Move
from pillion.types import Payload
from pillion.worker.service import Service

log = logging.getLogger("pillion")

TRY_AGAIN = 60.0
MANY_PROCESSES = 10
FIRST_WAIT = 5.0


class Poller(Service):
    """Polls both sets, in turn, until nothing is due or its share of work is done."""

    name = "poller"

    def __init__(
        self, store: Store, setup: Setup, config: Config, report: Callable[[BaseException, dict[str, Any]], None]
    ) -> None:
        super().__init__()
        self.fleet = 1
        self._store = store
        self._setup = setup
        self._config = config
        self._events: Events = setup.events
        self._report = report
        self._first = True

    def turn(self) -> float:
        if self._first:
            self._first = False
            return self._first_wait()
        try:
            self.poll()
        except StoreError as error:
            log.warning("poller: could not look for due jobs: %s", error)
        return self.interval()

    def poll(self) -> int:
        """Move everything that is due now, in alternating batches of both sets. Returns how many were moved."""
        keys = self._store.keys
        open_sets, moved = [keys.retry, keys.schedule], 0
        while open_sets and not self.stopping:
            for source in list(open_sets):
                count, full = self._try_batch(source)
                moved += count
                if not full:
                    open_sets.remove(source)
        return moved

    def interval(self) -> float:
        """Seconds until this process polls again."""
        config = self._config
        average = config.poll_interval_average or self.fleet * config.average_scheduled_poll_interval
        spread = (0.5, 1.5) if self.fleet < MANY_PROCESSES else (0.0, 2.0)
        return average * config.rng.uniform(*spread)

    def _first_wait(self) -> float:
        """A fleet that starts together does not poll together."""
        average = self._config.poll_interval_average
        return self._config.rng.uniform(0, min(FIRST_WAIT, average or FIRST_WAIT))

    def _try_batch(self, source: str) -> tuple[int, bool]:
        """A set that the server refuses to read or move does not keep the other one waiting."""
        try:
            return self._batch(source)
        except Refused as error:
            log.error("poller: %s", error)
            return 0, False

    def _batch(self, source: str) -> tuple[int, bool]:
        """Move one batch: (how many, whether there may be more)."""
        now, members = self._store.run(ops.due(source))
        if not members:
            return 0, False
        moves = [self._move(member, score, now) for member, score in members]
        config = self._config
        results = self._store.run(
            ops.promote(
                self._store.keys,
                source,
                moves,
                dead_max=config.dead_max_jobs,
                dead_timeout=config.dead_timeout_in_seconds,
                now=now,
            )
        )
        for move, result in zip(moves, results, strict=True):
            if isinstance(result, str):
                log.error("poller: the server refused to put a due job into queue %s: %s", move.queue, result)
        count = sum(result is True for result in results)
        return count, len(members) == MAX_BATCH and count > 0  # a batch that cannot be moved is left for the next turn

    def _move(self, member: bytes, score: float, now: float) -> Move:
        """What becomes of one due member. Never raises."""
        try:
            return self._pushed(member, score, now)
        except BadPayload as bad:
            self._events.emit(PayloadRejected(queue="", raw=member, reason=bad.reason))
            return Move(member, score, "dead", now, payload=member)
        except (Exception, SystemExit) as error:
            self._report(error, {"context": "client middleware raised for a due job; it is tried again in a minute"})
            return Move(member, score, "later", now + TRY_AGAIN)

    def _pushed(self, member: bytes, score: float, now: float) -> Move:
        payload = decode(member)
        promoted = promote(member, payload, self._setup, self._store)
        if promoted is None:
            self._stopped(payload)
            return Move(member, score, "drop", now)
        return Move(member, score, "push", now + TRY_AGAIN, promoted.raw, promoted.queue)

    def _stopped(self, payload: Payload) -> None:
        name = real_name(payload["class"], payload.get("wrapped"))
        log.info("client middleware stopped a due job: %s %s", name, payload["jid"])
        if self._events.wanted(JobStopped):
            self._events.emit(JobStopped(jid=payload["jid"], name=name, queue=payload["queue"], payload=payload))

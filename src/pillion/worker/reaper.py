"""The reaper rescues the claims of the dead: every process looks for owners whose lease ran out and gives back their
jobs.

An owner is dead when the *server's* clock says that its lease is over; nobody compares clocks of two hosts. Rescuing
has two steps, both safe beside other reapers and after a crash half-way. *Fence*: the owner's name is struck off, so
whatever it still sends answers FENCED. *Salvage*: each claim goes back to the head of its queue, oldest first in
line.

Poison pills. A job that kills its process would be rescued for ever, so crashes are counted per jid:

- the first time, a jid counts if it was among the `concurrency` oldest claims of the dead owner, for claims start in
  order and only those can have been running. It is a *suspect* from then on;
- suspects are started alone and marked (see `isolation.py`). From then on only a crash after its mark counts against
  it, and where an owner had marked one, only that one is counted;
- at the third count within 72 hours it goes to the dead set with the reason, or nowhere if it said `dead: false`.

Outage amnesty. After an outage of the server all leases are over at once and everybody is alive. So nobody is fenced
until some owner, whichever, has renewed without a break for one full lease: by then the living have renewed theirs. The
server itself keeps this `pulse` (`store/lua/shared/pulse.lua`), so a reaper that has just started may act at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from pillion.config import Config
from pillion.errors import BadPayload, PoisonPill, StoreError
from pillion.events import Events, JobRescued
from pillion.payload import decode, splice, stamp
from pillion.store import ops, rescue
from pillion.store.connection import Store
from pillion.store.ops import MAX_BATCH
from pillion.store.rescue import Lapsed, Rescue
from pillion.types import Payload
from pillion.worker.service import Service

log = logging.getLogger("pillion")

PILL_COUNT = 3
ROUNDS_PER_LEASE = 4


class Reaper(Service):
    """Looks for dead owners about four times per lease. `died` is called with (job, error) for each poison pill."""

    name = "reaper"

    def __init__(
        self,
        store: Store,
        config: Config,
        events: Events,
        died: Callable[[Payload, BaseException], None],
    ) -> None:
        super().__init__()
        self._store = store
        self._config = config
        self._events = events
        self._died = died
        self._told = False

    def turn(self) -> float:
        try:
            self.reap()
        except StoreError as error:
            log.warning("reaper: could not look for dead owners: %s", error)
        return self._config.lease / ROUNDS_PER_LEASE * self._config.rng.uniform(0.8, 1.2)

    def reap(self) -> int:
        """Fence every owner whose lease ran out and give its claims back. Returns how many claims were moved."""
        run, keys, lease_ms = self._store.run, self._store.keys, int(self._config.lease * 1000)
        lapsed = run(rescue.lapsed(keys, lease_ms))
        moved = sum(self.salvage(owner) for owner in lapsed.fenced)
        if not lapsed.steady:
            self._tell_of_the_wait(lapsed)
            return moved
        self._told = False
        for owner in lapsed.expired:
            if run(rescue.fence(keys, owner, lease_ms)):
                log.warning("rescuing the jobs of %s: its lease ran out", owner)
                moved += self.salvage(owner)
        return moved

    def _tell_of_the_wait(self, lapsed: Lapsed) -> None:
        """Nobody may be fenced yet; whoever waits for a job should know."""
        if lapsed.expired and not self._told:
            self._told = True
            names = ", ".join(lapsed.expired)
            log.info("if %s should be dead, its jobs come back in about %g s", names, self._config.lease)

    def salvage(self, owner: str) -> int:
        """Give back all claims of a fenced owner, newest first, in batches. Returns how many this call moved."""
        keys, config = self._store.keys, self._config
        fields = self._store.run(ops.index(keys, owner))
        claims = sorted(ops.index_claims(fields).items())
        blame = _blame(fields, [n for n, _ in claims])
        moved = 0
        for batch in _batches(claims) or [()]:  # an owner without claims is to be forgotten, too
            rescues = self._rescues(owner, batch, blame) if batch else []
            op = rescue.salvage(
                keys, owner, rescues, dead_max=config.dead_max_jobs, dead_timeout=config.dead_timeout_in_seconds
            )
            salvaged = self._store.run(op)
            done = set(salvaged)
            moved += len(done)
            self._tell(owner, [each for each in rescues if each.n in done])
        return moved

    def _rescues(self, owner: str, claims: Sequence[tuple[int, str]], blame: Blame) -> list[Rescue]:
        payloads = self._store.run(ops.held_payloads(self._store.keys, owner, [n for n, _ in claims]))
        jobs = [_read(raw) for raw in payloads]
        jids = [job["jid"] if job else "" for job in jobs]
        counts = self._store.run(rescue.rescue_counts(self._store.keys, jids))
        rescues = []
        for (n, queue), raw, job, jid, count in zip(claims, payloads, jobs, jids, counts, strict=True):
            counts_now = bool(jid) and blame.falls_on(n, count)
            if counts_now and job and raw and count + 1 >= PILL_COUNT:
                rescues.append(self._pill(n, queue, raw, job))
            else:
                rescues.append(Rescue(n, queue, jid, counted=counts_now))
        return rescues

    def _pill(self, n: int, queue: str, raw: bytes, job: Payload) -> Rescue:
        """Bury a job that took its process along three times."""
        now = self._config.clock.now()
        if job.get("dead") is False:
            return Rescue(n, queue, job["jid"], verb="drop", payload=raw)  # for the death handlers
        changes: dict[str, Any] = {
            "queue": queue,
            "error_message": f"poison pill: the process died {PILL_COUNT} times while it ran this job",
            "error_class": "PoisonPill",
            "failed_at": job.get("failed_at", stamp(now, self._config.wire)),
        }
        return Rescue(n, queue, job["jid"], verb="dead", at=now, payload=splice(raw, changes))

    def _tell(self, owner: str, rescues: Sequence[Rescue]) -> None:
        for each in rescues:
            pill = each.verb != "return"
            if pill:
                log.error("job %s killed its process %d times; it will not run again", each.jid, PILL_COUNT)
                self._died(_read(each.payload) or {"jid": each.jid}, PoisonPill("the process died while it ran"))
            self._events.emit(
                JobRescued(
                    jid=each.jid or None,
                    queue=each.queue,
                    owner=owner,
                    rescues=PILL_COUNT if pill else int(each.counted),
                    dead=each.verb == "dead",
                    dropped=each.verb == "drop",
                )
            )


class Blame(msgspec.Struct, frozen=True):
    """Which claims of a dead owner may have killed it.

    Attributes:
        marked: suspects that had been started alone.
        oldest: as many as could run at once, and so may have been running.
    """

    marked: frozenset[int]
    oldest: frozenset[int]

    def falls_on(self, n: int, crashes: int) -> bool:
        """Whether this crash counts against claim `n`, after so many earlier ones.

        A suspect runs only after it was marked. One without a mark was waiting, for its turn or another capsule's.
        """
        return n in self.marked if self.marked else n in self.oldest and not crashes


def _blame(fields: Mapping[bytes, bytes], numbers: Sequence[int]) -> Blame:
    """Whom to blame among an owner's claims. The mark of a suspect that came to its end may still be there."""
    oldest = numbers[: int(fields.get(b"c", b"0"))]
    return Blame(frozenset(ops.index_marks(fields) & set(numbers)), frozenset(oldest))


def _batches(claims: Sequence[tuple[int, str]]) -> list[Sequence[tuple[int, str]]]:
    """Newest first, so that what is interrupted leaves the oldest nearest to the head of the queue."""
    ends = range(len(claims), 0, -MAX_BATCH)
    return [claims[max(end - MAX_BATCH, 0) : end] for end in ends]


def _read(raw: bytes | None) -> Payload | None:
    try:
        return decode(raw) if raw else None
    except BadPayload:
        return None

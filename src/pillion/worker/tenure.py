"""What a fetcher holds, and its conversation with the server about it: join, step, re-sync, leave.

The tenure knows exactly which claims are ours (`mine`) and which outcomes wait to be written (`outbox`). A settlement
leaves the outbox only when the server has said so: by answering the step that carried it, or by a re-sync that no
longer lists it. So every outcome is written at most once and none is forgotten, whatever happens to the connection in
between.

One thread owns a tenure. Errors of the store pass through; the next call repairs what they left in doubt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import msgspec

from pillion.config import Config
from pillion.errors import Refused, StoreError
from pillion.store import ops, rescue
from pillion.store.connection import Store
from pillion.store.ops import FENCED, MAX_BATCH, STALE, Held, Op, Owner, Stepped, Want, tray_of
from pillion.types import Claim, Discard
from pillion.worker.runner import Finished

log = logging.getLogger("pillion")

Queues: TypeAlias = Callable[[int], tuple[tuple[str, int], ...]]
"""Given how many jobs are wanted, the queues to look into and how many to take from each."""

MARGIN_PER_LEASE = 12
NAMES_TO_TRY = 5
REFUSED_REST = 1.0


class Turned(msgspec.Struct):
    """What one conversation brought.

    Attributes:
        claims: new claims in the order of claiming, adopted ones first.
        written: settlements that are in Redis now.
        suspects: whether any jid is under suspicion.
        lost: the owner whose lease we lost, or None.
        refused: queues and claims that the server refused to touch, with its words.
        wanted: how many jobs were asked for.
        hears: whether the server was asked to tell of the next push.
    """

    claims: list[Claim] = []
    written: list[Finished] = []
    suspects: bool = False
    lost: str | None = None
    refused: list[tuple[str, str]] = []
    wanted: int = 0
    hears: bool = False


class Tenure:
    """The owner of one fetcher, through all its connections and epochs."""

    def __init__(self, store: Store, prefix: str, concurrency: int, config: Config) -> None:
        self.session = store.session()
        self.owner: Owner | None = None
        self.mine: set[int] = set()
        self.outbox: dict[int, Finished] = {}
        self.refused: dict[int, float] = {}
        self.valid_until = float("-inf")
        self.tracking = False
        self._keys = store.keys
        self._prefix = prefix
        self._concurrency = concurrency
        self._config = config
        self._steady = config.clock.steady
        self._lease_ms = int(config.lease * 1000)
        self._epoch = 0
        self._before: str | None = None
        self._tray = 1
        self._doubtful: set[int] = set()
        self._must_resync = False
        self._news = Turned()
        self._next_look: Want | None = None
        self._looking: tuple[Want, float] | None = None

    def add(self, finished: Iterable[Finished]) -> None:
        """Put outcomes into the outbox, but those of claims that are not ours any more."""
        for item in finished:
            n = item.claim.n
            if n in self.mine and n not in self._doubtful:
                self.outbox[n] = item

    @property
    def has_outcomes(self) -> bool:
        """Whether there is an outcome to write now."""
        return next(self._writable(), None) is not None

    def _writable(self) -> Iterator[Finished]:
        """The outbox without what the server refused a moment ago, which must not keep the others waiting."""
        if not self.refused:
            return iter(self.outbox.values())
        now = self._steady()
        return (item for n, item in self.outbox.items() if self.refused.get(n, now) <= now)

    def get_ready(self, count: int, queues: Queues) -> None:
        """Make a step that only looks for work ready, so that news of some is answered without delay: with `look`."""
        if self.owner is None or self._must_resync or not self.tracking or not self.session.is_open:
            return
        self._next_look = Want(count, self._tray, queues(count))
        self.session.get_ready(self._op(self.owner, (), self._next_look, wake=True))

    def look(self) -> None:
        """Send the step that is ready, if one is; the next `step` brings what it found. Raises Ambiguous."""
        want, sent = self._next_look, self._steady()
        try:
            if want is not None and self.session.begin():
                self._looking = want, sent
        except StoreError:
            self._must_resync = True
            raise

    @property
    def is_looking(self) -> bool:
        """Whether a step is under way whose answer the next one brings."""
        return self._looking is not None

    def step(self, count: int, queues: Queues, *, wake: bool) -> Turned:
        """Renew, write up to 200 outcomes and claim up to `count` jobs; first repair what an earlier error left.

        Raises StoreError: nothing is known to have happened; the next call finds out, and brings what this one has
        found out before it failed.
        """
        turned = self._news
        if self._prepare(turned):
            self._converse(turned, count, queues, wake)
        self._news = Turned()
        return turned

    def _converse(self, turned: Turned, count: int, queues: Queues, wake: bool) -> None:
        batch: Sequence[Finished] = ()
        if self._looking is not None:
            (want, sent), self._looking = self._looking, None
            turned.wanted, turned.hears = want.count, True
            reply = self._answer((), sent, self.session.finish)
        else:
            batch = list(islice(self._writable(), MAX_BATCH))
            want = Want(count, self._tray, queues(count) if count else ())
            turned.wanted, turned.hears = count, wake
            reply = self._send(batch, want, wake and self.tracking)
        if isinstance(reply, Stepped):
            # Trays that stayed empty are offered again: a server that tracks keys remembers every name it was given.
            self._tray = max([self._tray, *(tray_of(n) + 1 for n, _, _ in reply.claims)])
            self._take(turned, batch, reply)
        elif reply == FENCED:
            self._drop_all(turned)
        elif reply == STALE:
            self._must_resync = True

    def lose_sight_of(self, claims: Iterable[Claim]) -> None:
        """Forget claims that could not be handed on: the next step finds them again, by a re-sync."""
        self.mine.difference_update(claim.n for claim in claims)
        self._must_resync = True

    def keep_only(self, in_hand: Iterable[int]) -> None:
        """The same of every claim but these and those with an outcome here."""
        self.mine &= {*in_hand, *self.outbox, *(claim.n for claim in self._news.claims)}
        self._must_resync = True

    def audit(self) -> bool:
        """Compare what the server lists with what we know; a difference is an alarm and makes the next step re-sync."""
        if self.owner is None or self._must_resync:
            return True
        fields = self.session.call(ops.index(self._keys, self.owner.name))
        held = ops.index_claims(fields)
        if held.keys() == self.mine:
            return True
        log.error(
            "%s: the server lists %d claims, we know of %d; re-syncing", self.owner.name, len(held), len(self.mine)
        )
        self._must_resync = True
        return False

    def mark(self, claim: Claim, *, instead_of: Claim | None = None) -> bool:
        """Note on the server that a suspect is about to run. False: it is not ours any more."""
        before = None if instead_of is None else instead_of.n
        return self.owner is not None and self.session.call(ops.mark(self._keys, self.owner, claim.n, before))

    def suspicion(self, jids: Sequence[str]) -> list[bool]:
        """Which of these jids crashed with a process lately."""
        return self.session.call(ops.suspicion(self._keys, jids))

    def absolve(self, claim: Claim, jid: str) -> None:
        """A suspect has an outcome: forget its crashes."""
        if self.owner is not None:
            self.session.call(ops.absolve(self._keys, self.owner, claim.n, jid))

    def leave(self) -> None:
        """Give the lease back if nothing is held, and close the connection. Never raises."""
        try:
            if self.owner is not None and self.session.is_open and not (self._must_resync or self.is_looking):
                self.session.call(ops.leave(self._keys, self.owner.name))
        except StoreError as error:
            log.warning("%s: could not leave (%s); its lease runs out by itself", self.owner, error)
        self.session.close()

    def _prepare(self, turned: Turned) -> bool:
        """Have a connection, a lease and no doubt. False if the lease turned out to be lost."""
        if self._must_resync and self._looking is not None:  # its answer, still to come, would be taken for another's
            self._looking = None
            self.session.close()
        if not self.session.is_open:
            self.session.open()
            self.tracking = self.session.track()
        if self.owner is None:
            self._let_go_of_the_old()
            self._join()
        elif self._must_resync:
            return self._resync(turned)
        return True

    def _let_go_of_the_old(self) -> None:
        """See that what the owner before us held is given back, however it lost its lease."""
        if self._before is not None:
            self.session.call(rescue.fence(self._keys, self._before, None))
            self._before = None

    def _join(self) -> None:
        for _ in range(NAMES_TO_TRY):
            self._epoch += 1
            name, sent = f"{self._prefix}.{self._epoch}", self._steady()
            if self.session.call(ops.join(self._keys, name, self._lease_ms, self._concurrency)):
                self.owner = Owner(name)
                self._confirm(sent)
                return
        raise Refused(f"could not join as {self._prefix}: {NAMES_TO_TRY} names were taken or fenced")

    def _send(self, batch: Sequence[Finished], want: Want, wake: bool) -> Stepped | str:
        assert self.owner is not None  # noqa: S101 - _prepare joined
        op = self._op(self.owner, batch, want, wake=wake)
        return self._answer(batch, self._steady(), lambda: self.session.call(op, looks=want.count > 0))

    def _op(self, owner: Owner, batch: Sequence[Finished], want: Want, *, wake: bool) -> Op[Stepped | str]:
        config = self._config
        return ops.step(
            self._keys,
            owner,
            self._lease_ms,
            batch,
            want,
            dead_max=config.dead_max_jobs,
            dead_timeout=config.dead_timeout_in_seconds,
            wake=wake,
        )

    def _answer(self, batch: Sequence[Finished], sent: float, ask: Callable[[], Stepped | str]) -> Stepped | str:
        """The answer to a step that left at `sent`. In doubt, the next conversation begins with a re-sync."""
        try:
            reply = ask()
        except BaseException:  # even one that nobody expects must not hide what the server has done
            self._doubtful = {item.claim.n for item in batch}
            self._must_resync = True
            raise
        if isinstance(reply, Stepped):
            self._confirm(sent)
        return reply

    def _confirm(self, sent: float) -> None:
        """Our lease stands for its full length from when the request left, less a margin."""
        self.valid_until = sent + self._config.lease * (1 - 1 / MARGIN_PER_LEASE)

    def _take(self, turned: Turned, batch: Sequence[Finished], reply: Stepped) -> None:
        assert self.owner is not None  # noqa: S101 - the step was answered
        unwritten = {subject for subject, _ in reply.errors}
        missed = set(reply.missed)
        for item in batch:
            n = item.claim.n
            if str(n) in unwritten:
                self.refused[n] = self._steady() + REFUSED_REST
                continue
            del self.outbox[n]
            self.refused.pop(n, None)
            self.mine.discard(n)
            if n not in missed:
                turned.written.append(item)
        owner = self.owner.name
        for n, queue, raw in reply.claims:
            turned.claims.append(Claim(owner, n, queue, raw))
            self.mine.add(n)
        turned.suspects = turned.suspects or reply.suspects > 0
        turned.refused += reply.errors

    def _resync(self, turned: Turned) -> bool:
        assert self.owner is not None  # noqa: S101 - only an owner can be in doubt
        sent = self._steady()
        held = self.session.call(ops.resync(self._keys, self.owner.name, self._lease_ms))
        if not isinstance(held, Held):
            self._drop_all(turned)
            return False
        self._confirm(sent)
        self.owner = Owner(self.owner.name, held.generation)
        for n in self._doubtful - held.claims.keys():
            turned.written.append(self.outbox.pop(n))
            self.refused.pop(n, None)
            self.mine.discard(n)
        self._doubtful = set()
        self.mine &= held.claims.keys()
        self._adopt(turned, self.owner.name, held)
        self._must_resync = False
        return True

    def _adopt(self, turned: Turned, owner: str, held: Held) -> None:
        """Take over claims that we do not know of. An index entry without a payload is only cleared away."""
        unknown = sorted(held.claims.keys() - self.mine)
        payloads = self.session.call(ops.held_payloads(self._keys, owner, unknown)) if unknown else []
        for n, raw in zip(unknown, payloads, strict=True):
            claim = Claim(owner, n, held.claims[n], raw or b"")
            self.mine.add(n)
            if raw is None:
                self.outbox[n] = Finished(claim, Discard("its payload was gone"))
            else:
                turned.claims.append(claim)
                turned.suspects = True  # perhaps: a re-sync does not say
        self._tray = max([self._tray, *(tray_of(n) + 1 for n in held.claims)])

    def _drop_all(self, turned: Turned) -> None:
        """The lease is lost and with it every claim."""
        turned.lost = self._before = self.owner.name if self.owner else None
        turned.claims.clear()
        self.owner, self.valid_until = None, float("-inf")
        self.mine.clear()
        self.outbox.clear()
        self.refused.clear()
        self._doubtful, self._must_resync = set(), False

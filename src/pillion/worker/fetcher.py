"""The fetcher: one thread, one connection, one owner. It renews the lease, settles what finished and claims what is
free.

Life is a loop of *turns*. A turn collects what the executor has finished, sends one step, hands out what came back,
and then sleeps until a job ends, a watched queue changes or a timer runs out. A busy worker makes about one step per
batch of jobs; an idle one makes one every second or two, to renew its lease and in case a wake-up got lost.

What can go wrong, and what then:

- *The reply to a step is lost.* The tenure re-syncs over a new connection: unknown claims are adopted, settlements
  that are still listed are sent again, the others were written.
- *FENCED.* Our lease ran out and others have our claims. Unstarted ones are dropped, running ones are marked lost and
  their outcomes will not count; the next turn joins under a new owner name.
- *The server cannot be reached, or refuses.* Outcomes wait, nothing is started once the lease could be gone, and the
  fetcher tries again with growing pauses.
- *An error that nobody expected.* What is in nobody's hands then is found again by a re-sync.
- *This process dies.* Every claim stands in its tray, the lease runs out, and somebody's reaper gives them back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from pillion import activejob
from pillion.config import Config
from pillion.errors import StoreError
from pillion.events import Events, LeaseLost, StoreBack, StoreDown
from pillion.registry import Registry
from pillion.running import Signals
from pillion.store.connection import Store
from pillion.store.ops import MAX_BATCH, MAX_CLAIM_BYTES
from pillion.store.refusals import cure_of
from pillion.types import Claim
from pillion.worker.bell import Bell
from pillion.worker.executor import Executor
from pillion.worker.head import read_head
from pillion.worker.herd import Herd
from pillion.worker.isolation import Gate
from pillion.worker.pace import Pace
from pillion.worker.queues import QueueOrder
from pillion.worker.runner import REQUEUE, Finished
from pillion.worker.service import Service
from pillion.worker.suspects import Suspects
from pillion.worker.tenure import REFUSED_REST, Tenure, Turned

log = logging.getLogger("pillion")

RENEWALS_PER_LEASE = 6
LINGER = 0.005
ALWAYS = 1 << 30
LOOK_AGAIN = 0.05
SHORTEST_PAUSE = 0.001
"""What poll() can do; it would make anything shorter as long as this."""
FEW_QUEUES = 16
BACKOFF_FIRST = 0.05
BACKOFF_MAX = 5.0
AUDIT_EVERY = 10.0
SHUN = 5.0
MOST_REFUSED = 20


class Fetcher(Service):
    """Feeds one executor from its capsule's queues and writes its outcomes back.

    Attributes:
        wake: ends the fetcher's sleep; for any thread.
        herd: how this fetcher shares wake-ups with those of the other processes.
        last_attempt: the steady time at which the last attempt ended, well or not; the watchdog looks at it.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        config: Config,
        registry: Registry,
        *,
        identity: str,
        shard: str = "",
        signals: Signals,
        gate: Gate,
        events: Events,
        settled: Callable[[Sequence[Finished]], None],
    ) -> None:
        super().__init__()
        place = f"{executor.capsule.name}@{shard}" if shard else executor.capsule.name
        self.name = f"fetcher.{place}"
        self.executor = executor
        self.tenure = Tenure(store, f"{identity}/{place}", executor.capsule.concurrency, config)
        self.herd = Herd(config)
        self.last_attempt = config.clock.steady()
        self.evicted = threading.Event()
        self._config = config
        self._registry = registry
        self._signals = signals
        self._events = events
        self._settled = settled
        self._order = QueueOrder(executor.capsule, config)
        self._watched = {store.keys.queue(name).encode() for name in self._order.names}
        self._watched |= {store.keys.paused.encode(), b""}
        self._pace = Pace(executor, config.clock)
        self._suspects = Suspects(self.tenure, executor, gate, config.clock)
        self._quiet = False
        self._evict = False
        self._came_short = False
        self._backoff = 0.0
        self._down_since: float | None = None
        self._shunned: dict[str, float] = {}
        self._next_audit = config.clock.steady() + AUDIT_EVERY
        self._bell = Bell()
        self.wake = executor.wake = self._bell.ring

    # -- called from other threads ---------------------------------------------------------------------------------

    def quiet(self) -> None:
        """Claim nothing more and give back what has not been started."""
        self._quiet = True
        self.wake()

    def evict(self) -> None:
        """Give back the claims of running jobs too; `evicted` is set when the server has them."""
        self._quiet = self._evict = True
        self.wake()

    def stop(self) -> None:
        super().stop()
        self.wake()

    @property
    def drained(self) -> bool:
        """Nothing runs here, nothing waits to, and every outcome is written."""
        return not (self.executor.held or self.executor.finished or self.tenure.mine)

    # -- the loop --------------------------------------------------------------------------------------------------

    def turn(self) -> float:
        """Converse once and sleep until there is a reason to do it again."""
        try:
            self._converse()
        except Exception:  # what is in nobody's hands now is not forgotten: a re-sync finds it again
            self.tenure.keep_only({*self.executor.in_hand, *self._suspects.waiting})
            self.executor.hands.answered(self.executor, well=False)
            raise
        return 0.0

    def _converse(self) -> None:
        self._collect()
        held_back = self._held_back() or self._down_since is not None  # for who is away no room is kept
        hands, executor = self.executor.hands, self.executor
        want = 0 if held_back else min(self._want(hands.ask), MAX_BATCH)
        tired = self.herd.is_tired()
        # Asking to be woken is dear for many queues, and in vain where there is something: first look, then ask.
        looks_first = self.herd.woken and len(self._order.names) > FEW_QUEUES
        wake = self._came_short and not (tired or looks_first)
        try:
            turned = self.tenure.step(want, self._sound_queues, wake=wake)
            self._hand_out(turned)
            hands.answered(executor, well=True)
            self._start_suspect()
            self._audit_now_and_then()
            self._recovered()
            self._came_short = len(turned.claims) < turned.wanted and not _is_full(turned.claims)
            self._report(turned.refused)
            self.herd.looked(found=bool(turned.claims))
            tired = tired and not turned.claims
            if self._may_rest(turned, turned.hears or tired, held_back):
                self._rest(short=self._came_short, hear=not tired)
        except StoreError as error:
            hands.answered(executor, well=False)
            self._trouble(error)
        finally:
            self._set_off()

    def _may_rest(self, turned: Turned, wake: bool, was_held_back: bool) -> bool:
        """Not while there is something to write or claim, nor before a step that came back short asked to be woken."""
        asked_in_vain = self._came_short and not wake
        full = _is_full(turned.claims) and self._want(self.executor.hands.room) > 0
        set_free = was_held_back and not self._held_back()
        return not (asked_in_vain or full or set_free or turned.lost or self.tenure.has_outcomes)

    def wait(self, seconds: float) -> None:
        """The fetcher sleeps inside its turns; only one that broke off is followed by a pause."""
        if seconds:
            super().wait(seconds)

    def after(self) -> None:
        """Write what is left, give the lease back."""
        try:
            self._collect()
            while (self.tenure.outbox or self.tenure.is_looking) and self.tenure.owner:
                before, looked = len(self.tenure.outbox), self.tenure.is_looking
                self._hand_out(self.tenure.step(0, self._order.next, wake=False))
                if len(self.tenure.outbox) == before and not looked:
                    break
        except StoreError as error:
            log.warning("%s: %d outcomes could not be written: %s", self.name, len(self.tenure.outbox), error)
        self.tenure.leave()

    def _collect(self) -> None:
        """Put into the outbox what has finished, and what is to be given back."""
        finished = self.executor.finished
        self.tenure.add([finished.popleft() for _ in range(len(finished))])
        if self._held_back():
            unstarted = list(self.executor.unstarted)
            self._give_back(self.executor.take_back(unstarted if self._evict else self._suspects.spare(unstarted)))
        else:
            self._give_back(self.executor.take_back(self._pace.overdue()))
        if self._quiet:
            self._give_back(self._suspects.give_up())
        if self._evict:
            running = list(self.executor.running.values())
            self._give_back(run.claim for run in running if run.claim.n not in self.tenure.outbox)

    def _give_back(self, claims: Iterable[Claim]) -> None:
        self.tenure.add([Finished(claim, REQUEUE) for claim in claims])

    def _held_back(self) -> bool:
        """Whether nothing may be claimed, whatever is free."""
        return self._quiet or self._suspects.must_wait

    def _want(self, room: Callable[[Executor, int], int]) -> int:
        """How many jobs to claim, given what says how many there is room for."""
        if self._held_back():
            return 0
        stuck = max(len(self.tenure.refused) - MOST_REFUSED, 0)  # else they would pile up without end
        return room(self.executor, -stuck if stuck else self._pace.prefetch())

    def _sound_queues(self, want: int) -> tuple[tuple[str, int], ...]:
        """The queues of a step, but for a while without those that the server refused to read."""
        queues = self._order.next(want)
        if not self._shunned:
            return queues
        now = self._config.clock.steady()
        self._shunned = {subject: end for subject, end in self._shunned.items() if end > now}
        return tuple(pair for pair in queues if pair[0] not in self._shunned)

    def _hand_out(self, turned: Turned) -> None:
        """Pass news on: claims to the executor, written outcomes to whoever waits for them."""
        if turned.lost:
            self._lose(turned.lost)
        self.executor.valid_until = self.tenure.valid_until
        if turned.written:
            self._settled(turned.written)
        if turned.claims:
            self._start(turned)
        self._suspects.absolve(turned.written)
        if self._evict and not any(run.claim.n in self.tenure.mine for run in list(self.executor.running.values())):
            self.evicted.set()

    def _start(self, turned: Turned) -> None:
        claims = turned.claims
        if self._quiet or self.stopping:
            self._give_back(claims)
            return
        if turned.suspects:
            claims = self._suspects.pick(claims)
        if self._suspects.shut_out:
            self._give_back(claims)
            return
        self._pace.dispatched(claims)
        self.executor.take(claims)

    def _set_off(self) -> None:
        """Let begin what was taken."""
        self.executor.start(self._is_async if self._registry.has_async else _never)

    def _lose(self, owner: str) -> None:
        """Our claims are somebody else's now."""
        running = [run for run in list(self.executor.running.values()) if run.claim.owner == owner]
        self._signals.lost_owners.add(owner)
        self.executor.take_back(list(self.executor.unstarted))
        self._suspects.forget()
        self._events.emit(LeaseLost(owner=owner, running=len(running)))

    def _start_suspect(self) -> None:
        if (claim := self._suspects.next()) is not None:
            self.executor.take([claim])

    def _is_async(self, raw: bytes) -> bool:
        head = read_head(raw)
        definition = activejob.find(self._registry, head.name, head.wrapped)
        return definition is not None and definition.runs_on_loop

    # -- sleeping --------------------------------------------------------------------------------------------------

    def _rest(self, *, short: bool, hear: bool) -> None:
        """Sleep until a job ends, a queue changes or the next step is due.

        With work in hand there is no hurry: outcomes gather until half of it is used up, or for a few milliseconds.
        """
        in_hand = not self._quiet and self._pace.has_work_in_hand()
        self.executor.wake_below = len(self.executor.unstarted) // 2 if in_hand else ALWAYS
        rest = self._longest_rest(short, hear)
        deadline = self._config.clock.steady() + (min(rest, LINGER) if in_hand else rest)
        if short and hear and self._is_free():
            self.tenure.get_ready(self._want(self.executor.hands.room), self._sound_queues)
        while not self.stopping:
            self.executor.asleep = True
            self._set_off()
            ended = bool(self.executor.finished) and not in_hand
            if not ended:
                self.herd.woken, ended = self._sleep(deadline - self._config.clock.steady(), hear=short and hear)
                if self.herd.woken and (pause := self.herd.hesitation()) >= SHORTEST_PAUSE:
                    self._sleep(pause)
                if self.herd.woken and not self.herd.is_tired():
                    self.tenure.look()
            self.executor.asleep = False
            if ended or short or self._config.clock.steady() >= deadline:
                return

    def _is_free(self) -> bool:
        """Whether the next step can be made ready before there is news: nothing will have changed by then."""
        executor = self.executor
        return executor.hands.alone and not executor.held and len(self._order.names) <= FEW_QUEUES

    def _longest_rest(self, short: bool, hear: bool) -> float:
        rest = self._config.lease / RENEWALS_PER_LEASE
        if short:
            rest = min(rest, self.herd.poll(hears=hear and self.tenure.tracking))
        if self._held_back() and not self._quiet:
            rest = min(rest, LOOK_AGAIN)
        if self.tenure.refused:
            rest = min(rest, REFUSED_REST)
        return min(rest, self._pace.patience())

    def _sleep(self, seconds: float, *, hear: bool = False) -> tuple[bool, bool]:
        """Wait for whoever wakes us and, with `hear`, for watched keys: (a queue changed, somebody woke us)."""
        session = self.tenure.session
        if hear and session.is_open and self._watched & session.heard():
            return True, False
        deadline = self._config.clock.steady() + seconds
        while (left := deadline - self._config.clock.steady()) > 0 and not self.stopping:
            rung, readable = self._bell.sleep(left, session.fileno() if hear and session.is_open else None)
            if rung:
                return False, True
            if readable and self._watched & session.changed():
                return True, False
        return False, False

    # -- trouble ---------------------------------------------------------------------------------------------------

    def _trouble(self, error: StoreError) -> None:
        steady = self._config.clock.steady
        self.last_attempt = steady()
        self.tenure.session.close()  # whatever it was: the next connection looks the address up again
        self._suspects.stand_aside()
        if self._down_since is None:
            self._down_since = steady()
            self._events.emit(StoreDown(error=error))
        self._backoff = min(max(self._backoff * 2, BACKOFF_FIRST), BACKOFF_MAX, self._config.lease / RENEWALS_PER_LEASE)
        self._set_off()
        self._sleep(self._backoff * self._config.rng.uniform(0.5, 1.5))

    def _recovered(self) -> None:
        now = self._config.clock.steady()
        self.last_attempt = now
        if self._down_since is not None:
            self._events.emit(StoreBack(seconds=now - self._down_since))
            self._down_since, self._backoff = None, 0.0

    def _report(self, refused: Sequence[tuple[str, str]]) -> None:
        now = self._config.clock.steady()
        for subject, words in refused:
            if self._shunned.get(subject, now) <= now:
                self._shunned[subject] = now + SHUN
                log.error("%s: the server refused to touch %s: %s%s", self.name, subject, words, cure_of(words))

    def _audit_now_and_then(self) -> None:
        now = self._config.clock.steady()
        if now >= self._next_audit:
            self._next_audit = now + AUDIT_EVERY
            self.tenure.audit()


def _is_full(claims: Sequence[Claim]) -> bool:
    """Whether one step could not have brought more."""
    return len(claims) == MAX_BATCH or sum(len(claim.raw) for claim in claims) >= MAX_CLAIM_BYTES


def _never(_raw: bytes) -> bool:
    return False

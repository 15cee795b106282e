"""The state machine: everything that can happen to a few jobs, three workers and two reapers, one step at a time.

It drives the real scripts through the real ops, tenures, reapers and pollers on a real server, whose clock it moves.
After every step it asks:

- does the server hold exactly what the reference expects (every reply has been compared on the way)?
- does every job stand in exactly one place, or is it rightly gone?
- does no worker believe that it may start a job which is not its own?

At the end it lets everybody who is alive go on for a while, and nothing may be left behind.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pillion.config import Config
from pillion.errors import StoreError, Unavailable
from pillion.payload import encode, splice
from pillion.registry import Registry
from pillion.setup import Setup
from pillion.store import ops
from pillion.store.ops import Held, Op, Parcel, Stepped
from pillion.store.rescue import Lapsed
from pillion.types import Claim, Dead, Discard, Done, Outcome, Requeue, Retry, Snooze
from pillion.worker.poller import Poller
from pillion.worker.reaper import Reaper
from pillion.worker.runner import Finished
from pillion.worker.tenure import Tenure
from tests.models.reference import FENCED, STALE, Reference, jid_of
from tests.models.server import Change, Fate, Wire, observe

BEGIN = 1_800_000_000.0
LEASE = 1.0
QUEUES = ("high", "low")
WORKERS, REAPERS = 3, 2
HOWS = ("done", "retry", "dead", "snooze", "drop", "requeue")
PASSES = (0.05, 0.1, 0.3, 0.45, 0.6, 1.0, 2.5)

ints = st.integers(0, 1_000)
meanwhiles = st.tuples(
    st.integers(0, 5), st.sampled_from(["nothing", "death", "all work", "another reaps", "another polls", "an outage"])
)
fates = st.lists(st.sampled_from(["ok", "ok", "lost", "never", "late"]), max_size=3)


class Driven:
    """The clock of every process, which is the server's too."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def now(self) -> float:
        return self._wire.now

    steady = now


class Hand:
    """A worker: a real tenure, and the claims it believes to hold."""

    def __init__(self, wire: Wire, config: Config, name: str) -> None:
        self.tenure = Tenure(wire.store, f"{name}/default", 3, config)
        self.claims: dict[int, Claim] = {}
        self.quiet = False

    def step(self, want: int, order: tuple[str, ...]) -> None:
        """One turn of a fetcher, without the running."""
        try:
            turned = self.tenure.step(want, lambda most: tuple((name, most) for name in order), wake=False)
        except StoreError:
            self.tenure.session.close()
            return
        if turned.lost:
            self.claims.clear()
        for claim in turned.claims:
            self.claims[claim.n] = claim
        for item in turned.written:
            self.claims.pop(item.claim.n, None)
        self.claims = {n: claim for n, claim in self.claims.items() if n in self.tenure.mine}

    def finish(self, claim: Claim, outcome: Outcome) -> None:
        self.tenure.add([Finished(claim, outcome)])

    @property
    def startable(self) -> list[Claim]:
        """Claims without an outcome, while the lease stands as far as this worker knows."""
        return [claim for n, claim in self.claims.items() if n not in self.tenure.outbox]


class Machine(RuleBasedStateMachine):
    """See the top of this file. `server` and `change` are set by whoever runs it."""

    server: ClassVar[Any]
    change: ClassVar[Change | None] = None

    # -- getting ready ---------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        logging.getLogger("pillion").disabled = True
        self.redis: redis.Redis = self.server.client()
        self.redis.flushall()
        self.wire = Wire(self.server.url, self.told, BEGIN, self.change)
        self.reference = Reference()
        self.made = 0
        self.workers = 0
        clock = Driven(self.wire)
        self.setup = Setup(self.server.url, registry=Registry(), lease=LEASE, clock=clock)
        self.config = self.setup.config
        store, config = self.wire.store, self.config
        self.hands = [self.new_hand() for _ in range(WORKERS)]
        self.reapers = [Reaper(store, config, self.setup.events, lambda job, error: None) for _ in range(REAPERS)]
        self.poller = Poller(store, self.setup, config, lambda error, context: None)
        for queue in QUEUES:
            self.push(queue, 3, None)
        for number in range(WORKERS):
            self.work(number, 1, list(QUEUES))

    def new_hand(self) -> Hand:
        self.workers += 1
        return Hand(self.wire, self.config, f"w{self.workers}:1:x")

    def told(self, op: Op[Any], result: Any) -> None:
        """The server has carried out an op: so does the reference, and both must have answered alike."""
        if op.script is None:
            return
        words = op.commands[-1]
        count = int(words[2])
        expected = self.reference.apply(op.script.name, words[3 : 3 + count], words[3 + count :])
        assert expected is None or answer(result) == expected, f"{op.name}: expected {expected}, got {answer(result)}"

    # -- clients ---------------------------------------------------------------------------------------------------

    @rule(queue=st.sampled_from(QUEUES), count=st.integers(1, 3), delay=st.none() | st.sampled_from(PASSES))
    def push(self, queue: str, count: int, delay: float | None) -> None:
        raws = [self.new_job(queue) for _ in range(count)]
        at = None if delay is None else self.wire.now + delay
        self.wire.store.run(ops.push(self.wire.store.keys, [Parcel(jid_of(raw), queue, raw, at) for raw in raws]))
        if at is None:
            self.arrived(queue, *raws)
        else:
            self.reference.sets["schedule"] |= {jid_of(raw): at for raw in raws}

    def new_job(self, queue: str, **fields: Any) -> bytes:
        self.made += 1
        return encode({"class": "A", "args": [self.made], "queue": queue, "jid": f"j{self.made}", **fields})

    def arrived(self, queue: str, *raws: bytes) -> None:
        for raw in raws:
            self.reference.queues.setdefault(queue, []).insert(0, jid_of(raw))

    # -- workers ---------------------------------------------------------------------------------------------------

    @rule(who=ints, want=st.integers(1, 4), order=st.permutations(QUEUES))
    def work(self, who: int, want: int, order: list[str]) -> None:
        hand = self.hands[who % WORKERS]
        hand.step(0 if hand.quiet else want, tuple(order))

    @rule(who=ints, want=st.integers(0, 4), met=fates)
    def work_in_trouble(self, who: int, want: int, met: list[Fate]) -> None:
        self.wire.fates = list(met)
        self.work(who, want, list(QUEUES))
        self.wire.fates = []

    @rule(who=ints, which=ints, hows=st.lists(st.sampled_from(HOWS), min_size=1, max_size=3))
    def finish(self, who: int, which: int, hows: list[str]) -> None:
        """Some jobs of a worker end, each in some way; the next step will say so."""
        hand, now = self.hands[who % WORKERS], self.wire.now
        for how, claim in zip(hows, hand.startable, strict=False):
            raw = splice(claim.raw, {"retry_count": which})
            hand.finish(
                claim,
                {
                    "done": Done(),
                    "retry": Retry(now + 0.5, raw),
                    "dead": Dead(now, raw),
                    "snooze": Snooze(now + 0.4, claim.raw),
                    "drop": Discard("not needed"),
                    "requeue": Requeue(),
                }[how],
            )

    @rule(who=ints, which=ints)
    def mark_and_audit(self, who: int, which: int) -> None:
        """A suspect is marked; the alarm is silent unless the lease is lost."""
        hand = self.hands[who % WORKERS]
        owner = hand.tenure.owner
        if owner is None or not hand.tenure.session.is_open:
            return
        if hand.startable:
            hand.tenure.mark(hand.startable[which % len(hand.startable)])
        assert hand.tenure.audit() or owner.name not in self.reference.places()["lease"]

    @rule(who=ints, quietly=st.booleans())
    def end(self, who: int, quietly: bool) -> None:
        """A worker stops, or dies and is not heard of again but, perhaps, by late bytes. Another one comes."""
        hand = self.hands[who % WORKERS]
        if quietly:
            for claim in hand.startable:
                hand.finish(claim, Requeue())
            hand.step(0, QUEUES)
            hand.tenure.leave()
        hand.tenure.session.close()
        self.hands[who % WORKERS] = self.new_hand()

    @precondition(lambda self: self.wire.late)
    @rule(which=ints)
    def late_bytes(self, which: int) -> None:
        self.wire.deliver(which % len(self.wire.late))

    # -- everybody else --------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from(PASSES), scripts=st.booleans())
    def time_passes(self, seconds: float, scripts: bool) -> None:
        """And perhaps the server forgets its scripts."""
        self.wire.now += seconds
        if scripts:
            self.redis.script_flush()

    @rule(who=ints, rounds=st.integers(1, 5))
    def only_the_others_go_on(self, who: int, rounds: int) -> None:
        """One worker, or two, stand still for so long that their leases may end, while the server is well."""
        for _ in range(rounds):
            self.wire.now += LEASE / 3
            for number, hand in enumerate(self.hands):
                if number not in (who % WORKERS, who % 7):
                    hand.step(0, QUEUES)

    @rule(who=ints, meanwhile=meanwhiles)
    def reap(self, who: int, meanwhile: tuple[int, str]) -> None:
        with self.interrupted(*meanwhile):
            self.reapers[who % REAPERS].reap()

    @rule(meanwhile=meanwhiles)
    def poll(self, meanwhile: tuple[int, str]) -> None:
        with self.interrupted(*meanwhile):
            self.poller.poll()

    @contextmanager
    def interrupted(self, number: int, what: str) -> Iterator[None]:
        """Let something happen right before that op of a reaper or poller, or let it die there."""
        self.wire.store.interruption = (number, lambda: self.meanwhile(what))
        with suppress(Unavailable):
            yield
        self.wire.store.interruption = None

    def meanwhile(self, what: str) -> None:
        if what == "all work":
            for hand in self.hands:
                hand.step(2, QUEUES)
        elif what == "another reaps":
            Reaper(self.wire.store, self.config, self.setup.events, lambda job, error: None).reap()
        elif what == "another polls":
            self.poller.poll()
        elif what == "an outage":
            self.wire.now += 1.1 * LEASE
        elif what == "death":
            raise Unavailable("died half-way")

    # -- operators, and Ruby ---------------------------------------------------------------------------------------

    @rule(verb=st.sampled_from(["push", "pop", "pause", "unpause", "clear"]), queue=st.sampled_from(QUEUES))
    def meddle_with_a_queue(self, verb: str, queue: str) -> None:
        """What Ruby's client and fetcher do, and what an operator may do to a queue."""
        waiting = self.reference.queues.setdefault(queue, [])
        if verb == "push":
            raw = self.new_job(queue, created_at=self.wire.now)
            self.redis.sadd("queues", queue)
            self.redis.lpush(f"queue:{queue}", raw)
            self.arrived(queue, raw)
        elif verb == "pop":
            raw = self.redis.rpop(f"queue:{queue}")
            if raw is not None:
                assert waiting.pop() == jid_of(raw)
                self.reference.gone.append(jid_of(raw))
        elif verb == "pause":
            self.redis.sadd("paused", queue)
            self.reference.paused.add(queue)
        elif verb == "unpause":
            self.redis.srem("paused", queue)
            self.reference.paused.discard(queue)
        else:
            self.redis.delete(f"queue:{queue}")
            self.reference.gone += self.reference.queues.pop(queue)

    @rule(
        source=st.sampled_from(["retry", "schedule", "dead"]), which=ints, verb=st.sampled_from(["run", "kill", "drop"])
    )
    def meddle_with_a_set(self, source: str, which: int, verb: str) -> None:
        members = self.redis.zrange(source, 0, -1)
        if not members:
            return
        raw = members[which % len(members)]
        assert self.redis.zrem(source, raw) == 1
        del self.reference.sets[source][jid_of(raw)]
        if verb == "run":
            self.redis.lpush("queue:low", raw)
            self.arrived("low", raw)
        elif verb == "kill":
            self.redis.zadd("dead", {raw: self.wire.now})
            self.reference.sets["dead"][jid_of(raw)] = self.wire.now
        else:
            self.reference.gone.append(jid_of(raw))

    # -- what must always hold -------------------------------------------------------------------------------------

    @invariant()
    def the_server_holds_what_the_reference_expects(self) -> None:
        found, expected = observe(self.redis, self.wire.store.keys, QUEUES), self.reference.places()
        assert found == expected

    @invariant()
    def every_job_stands_in_one_place(self) -> None:
        assert Counter(self.reference.whereabouts()) == Counter(f"j{n}" for n in range(1, self.made + 1))

    @invariant()
    def what_a_worker_may_start_is_its_own(self) -> None:
        for hand in self.hands:
            if hand.tenure.valid_until < self.wire.now:
                continue
            for claim in hand.startable:
                holder = self.reference.owners.get(claim.owner)
                assert holder is not None
                assert holder.expiry is not None
                assert holder.claims.get(claim.n) == (claim.queue, jid_of(claim.raw))

    # -- the end ---------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if hasattr(self, "poller"):
                self._settle_down()
        finally:
            logging.getLogger("pillion").disabled = False
            if hasattr(self, "wire"):
                self.wire.store.close()
                self.setup.store.close()

    def _settle_down(self) -> None:
        """Those who are alive go on for three leases; then every claim of the dead is back, and all can leave."""
        while self.wire.late:
            self.wire.deliver(0)
        for _ in range(10):
            self.wire.now += LEASE / 3
            for hand in self.hands:
                hand.step(0, QUEUES)
            for reaper in self.reapers:
                reaper.reap()
        self.the_server_holds_what_the_reference_expects()
        alive = {hand.tenure.owner.name for hand in self.hands if hand.tenure.owner is not None}
        assert set(self.reference.owners) == alive, "the claims of the dead did not come back"
        for hand in self.hands:
            for claim in hand.startable:
                hand.finish(claim, Requeue())
            hand.step(0, QUEUES)
            hand.tenure.leave()
        self.every_job_stands_in_one_place()
        left = {key.decode() for key in self.redis.keys("pillion:*")}
        assert {key for key in left if not key.startswith("pillion:rescued:")} <= {"pillion:fenced", "pillion:suspects"}


def answer(result: Any) -> Any:
    """An op's result in the reference's words."""
    match result:
        case Stepped():
            return [*result.missed], [(n, queue, jid_of(raw)) for n, queue, raw in result.claims]
        case Held():
            return result.generation, dict(result.claims)
        case Lapsed():
            return set(result.expired), set(result.fenced), result.steady
        case str():
            return {"FENCED": FENCED, "STALE": STALE}[result]
        case list():
            return [int(each) for each in result]
        case _:
            return result

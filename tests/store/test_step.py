"""The step script and its neighbours, one owner at a time, on a real server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import redis

from pillion.config import RedisSettings
from pillion.errors import Refused
from pillion.store import ops, rescue, scripts
from pillion.store.connection import Store
from pillion.store.ops import FENCED, STALE, Held, Op, Owner, Stepped, Want
from pillion.types import Claim, Dead, Discard, Done, Effect, Outcome, Requeue, Retry, Settlement, Snooze
from tests.servers import Server
from tests.waiting import wait_until

LEASE_MS = 60_000
NAME = "host:1:abc/default.1"
NOW = 1_800_000_000.0
N1, N2, N3 = (ops.claim_number(1, position) for position in range(3))
"""The claims of the first step."""


class Bench:
    """An owner with the few moves that these tests repeat."""

    def __init__(self, server: Server) -> None:
        self.store = Store(RedisSettings(url=server.url))
        self.keys = self.store.keys
        self.redis: redis.Redis = server.client()
        self.owner = Owner(NAME)
        self.tray = 1

    def join(self, name: str = NAME, concurrency: int = 10, now: float = NOW) -> bool:
        return self.store.run(ops.join(self.keys, name, LEASE_MS, concurrency, now))

    def renew(self, name: str, now: float) -> Stepped | str:
        """A step of any owner that does nothing else."""
        rules = {"dead_max": 100, "dead_timeout": 1_000.0}
        return self.store.run(ops.step(self.keys, Owner(name), LEASE_MS, (), Want(0, 1, ()), now=now, **rules))

    def push(self, queue: str, *payloads: str) -> None:
        self.redis.lpush(f"queue:{queue}", *payloads)

    def op(
        self,
        want: int = 0,
        queues: Sequence[str | tuple[str, int]] = ("q",),
        settled: Sequence[Settlement] = (),
        owner: Owner | None = None,
    ) -> Op[Stepped | str]:
        shares = tuple((queue, want) if isinstance(queue, str) else queue for queue in queues)
        return ops.step(
            self.keys,
            owner or self.owner,
            LEASE_MS,
            settled,
            Want(want, self.tray, shares if want else ()),
            dead_max=100,
            dead_timeout=1_000.0,
            now=NOW,
        )

    def step(
        self,
        want: int = 0,
        queues: Sequence[str | tuple[str, int]] = ("q",),
        settled: Sequence[Settlement] = (),
    ) -> Stepped:
        reply = self.store.run(self.op(want, queues, settled))
        assert isinstance(reply, Stepped), reply
        self.tray += len(queues) if want else 0
        return reply

    def claim(self, *payloads: str, queue: str = "q") -> list[Claim]:
        self.push(queue, *payloads)
        return [Claim(NAME, *claim) for claim in self.step(len(payloads), [queue]).claims]

    def settle(self, claim: Claim, outcome: Outcome, *effects: Effect) -> Stepped:
        return self.step(settled=[Settlement(claim, outcome, effects)])

    def index(self) -> dict[bytes, bytes]:
        return self.redis.hgetall(self.keys.index(NAME))  # type: ignore[return-value]

    def close(self) -> None:
        self.redis.delete(self.keys.lease, *(self.redis.keys("pillion:*") or ["-"]))
        self.store.close()


@pytest.fixture
def bench(server: Server) -> Iterator[Bench]:
    bench = Bench(server)
    yield bench
    bench.close()


def test_without_a_lease_nothing_happens(bench: Bench) -> None:
    bench.push("q", "a")
    assert bench.store.run(bench.op(want=1)) == FENCED
    assert bench.redis.lrange("queue:q", 0, -1) == [b"a"]


def test_a_lost_index_counts_as_a_lost_lease(bench: Bench) -> None:
    bench.join()
    bench.redis.delete(bench.keys.index(NAME))
    bench.push("q", "a")
    assert bench.store.run(bench.op(want=1)) == FENCED
    assert bench.redis.llen("queue:q") == 1


def test_an_older_generation_changes_nothing(bench: Bench) -> None:
    bench.join()
    held = bench.store.run(ops.resync(bench.keys, NAME, LEASE_MS, NOW))
    assert isinstance(held, Held)
    assert held.generation == 2
    bench.push("q", "a")
    assert bench.store.run(bench.op(want=1)) == STALE
    assert bench.redis.llen("queue:q") == 1
    assert isinstance(bench.store.run(bench.op(want=1, owner=Owner(NAME, 2))), Stepped)


def test_an_owner_name_is_taken_once_and_never_again_after_fencing(bench: Bench) -> None:
    assert bench.join()
    assert not bench.join()
    assert bench.store.run(rescue.fence(bench.keys, NAME, None))
    assert not bench.join()


@pytest.mark.rule("keys.queue")
@pytest.mark.rule("move.fetch", instead=True)
def test_claims_leave_the_queue_oldest_first_into_a_tray(bench: Bench) -> None:
    bench.join(concurrency=7)
    bench.push("q", "a", "b", "c")
    assert bench.step(want=2).claims == [(N1, "q", b"a"), (N2, "q", b"b")]
    assert bench.redis.lrange("queue:q", 0, -1) == [b"c"]
    assert bench.index() == {b"g": b"1", b"c": b"7", b"1": b"11 q"}
    assert bench.redis.lrange(bench.keys.tray(NAME, 1), 0, -1) == [b"a", b"b"]


def test_a_step_renews_the_lease_by_the_servers_clock(bench: Bench) -> None:
    bench.join()
    bench.redis.zadd(bench.keys.lease, {NAME: 1})
    bench.step()
    assert bench.redis.zscore(bench.keys.lease, NAME) == NOW * 1000 + LEASE_MS


@pytest.mark.rule("keys.retry", "keys.dead", "move.retry", "run.ack")
@pytest.mark.parametrize(
    ("outcome", "key", "member", "score"),
    [
        (Retry(NOW + 5, b"again"), "retry", b"again", NOW + 5),
        (Snooze(NOW + 6, b"later"), "schedule", b"later", NOW + 6),
        (Dead(NOW, b"gone"), "dead", b"gone", NOW),
    ],
)
def test_an_outcome_stands_in_its_place_and_the_claim_is_gone(
    bench: Bench, outcome: Outcome, key: str, member: bytes, score: float
) -> None:
    bench.join()
    (claim,) = bench.claim("a")
    bench.settle(claim, outcome)
    assert bench.redis.zrange(key, 0, -1, withscores=True) == [(member, score)]
    assert set(bench.index()) == {b"g", b"c"}
    assert not bench.redis.exists(bench.keys.tray(NAME, 1))


@pytest.mark.rule("run.ack")
@pytest.mark.parametrize("outcome", [Done(), Discard("not needed")])
def test_done_and_discard_leave_nothing(bench: Bench, outcome: Outcome) -> None:
    bench.join()
    (claim,) = bench.claim("a")
    assert bench.settle(claim, outcome).missed == ()
    assert set(bench.index()) == {b"g", b"c"}
    assert not bench.redis.exists("retry", "dead", "schedule", "queue:q")


@pytest.mark.rule("move.requeue", "b9.52")
def test_requeued_claims_are_the_next_to_run_in_their_old_order(bench: Bench) -> None:
    bench.join()
    claims = bench.claim("a", "b", "c")
    bench.push("q", "z")
    bench.step(settled=[Settlement(claim, Requeue()) for claim in claims])
    assert [raw for _, _, raw in bench.step(want=9).claims] == [b"a", b"b", b"c", b"z"]


def test_a_claim_that_is_not_held_any_more_settles_nothing(bench: Bench) -> None:
    bench.join()
    (claim,) = bench.claim("a")
    bench.settle(claim, Done())
    for outcome in (Done(), Retry(NOW, b"zombie"), Dead(NOW, b"zombie"), Requeue(), Snooze(NOW, b"zombie")):
        assert bench.settle(claim, outcome).missed == (N1,)
    assert not bench.redis.exists("retry", "dead", "schedule", "queue:q")


def test_done_claims_and_a_missed_one_in_one_step(bench: Bench) -> None:
    bench.join()
    claims = bench.claim("a", "b")
    gone = Claim(NAME, 9_999, "q", b"x")
    stepped = bench.step(settled=[Settlement(claim, Done()) for claim in (claims[0], gone, claims[1])])
    assert stepped.missed == (9_999,)
    assert set(bench.index()) == {b"g", b"c"}


@pytest.mark.rule("keys.dead", "move.dead", "b9.37")
def test_the_dead_set_is_trimmed_by_age_and_count(bench: Bench) -> None:
    bench.join()
    bench.redis.zadd("dead", {"ancient": NOW - 1_001, **{f"d{i}": NOW - 500 + i for i in range(150)}})
    (claim,) = bench.claim("a")
    bench.settle(claim, Dead(NOW, b"newest"))
    assert bench.redis.zcard("dead") == 99  # as Sidekiq's trimming: one less than the maximum
    assert bench.redis.zrange("dead", -1, -1) == [b"newest"]
    assert bench.redis.zscore("dead", "ancient") is None


@pytest.mark.rule("keys.paused")
@pytest.mark.rule("feature.pause", instead=True)
def test_a_paused_queue_is_skipped_from_the_next_step_on(bench: Bench) -> None:
    bench.join()
    bench.push("q", "a")
    bench.push("r", "b")
    bench.redis.sadd("paused", "q")
    assert bench.step(want=5, queues=["q", "r"]).claims == [(ops.claim_number(1, 0), "r", b"b")]
    bench.redis.srem("paused", "q")
    assert bench.step(want=5, queues=["q", "r"]).claims == [(ops.claim_number(3, 0), "q", b"a")]


def test_a_queue_of_the_wrong_type_is_reported_and_holds_nothing_up(bench: Bench) -> None:
    bench.join()
    bench.redis.set("queue:bad", "surprise")
    bench.push("q", "a")
    stepped = bench.step(want=5, queues=["bad", "q"])
    assert stepped.claims == [(ops.claim_number(1, 0), "q", b"a")]
    assert [subject for subject, _ in stepped.errors] == ["bad"]
    assert "WRONGTYPE" in stepped.errors[0][1]


@pytest.mark.rule("run.unacked", instead=True)
def test_a_destination_of_the_wrong_type_keeps_the_claim(bench: Bench) -> None:
    bench.join()
    first, second = bench.claim("a", "b")
    bench.redis.set("retry", "surprise")
    stepped = bench.step(settled=[Settlement(first, Retry(NOW, b"r")), Settlement(second, Done())])
    assert [subject for subject, _ in stepped.errors] == [str(N1)]
    assert bench.index() == {b"g": b"1", b"c": b"10", b"1": b"10 q"}
    assert bench.redis.lrange(bench.keys.tray(NAME, 1), 0, -1) == [b"a", b"b"]


@pytest.mark.parametrize("key", ["pillion:lease", f"pillion:inf:{NAME}"])
def test_our_own_key_of_the_wrong_type_is_loud_and_pops_nothing(bench: Bench, key: str) -> None:
    bench.join()
    bench.push("q", "a")
    bench.redis.delete(key)
    bench.redis.set(key, "surprise")
    with pytest.raises(Refused, match="WRONGTYPE"):
        bench.store.run(bench.op(want=1))
    assert bench.redis.lrange("queue:q", 0, -1) == [b"a"]


@pytest.mark.leaks_keys
def test_a_list_of_suspects_of_the_wrong_type_is_reported_and_holds_nothing_up(bench: Bench) -> None:
    bench.join()
    bench.push("q", "a")
    bench.redis.set(bench.keys.suspects, "surprise")
    stepped = bench.step(want=1)
    assert [raw for _, _, raw in stepped.claims] == [b"a"]
    assert [subject for subject, _ in stepped.errors] == ["suspects"]


def test_what_is_claimed_at_once_is_bounded_in_bytes(bench: Bench) -> None:
    bench.join()
    bench.push("q", *(f"{i}" * 400_000 for i in range(5)))
    assert [raw[:1] for _, _, raw in bench.step(want=5).claims] == [b"0", b"1", b"2"]
    assert bench.index()[b"1"] == b"111 q"
    assert bench.redis.llen("queue:q") == 2


def test_a_share_is_kept_while_others_have_jobs_and_leftovers_are_taken(bench: Bench) -> None:
    bench.join()
    bench.push("q", *"abcdefgh")
    bench.push("r", "x", "y")
    shares = [("q", 3), ("r", 3)]
    claims = bench.step(want=6, queues=shares).claims
    assert [queue for _, queue, _ in claims] == ["q", "q", "q", "r", "r", "q"]
    assert [raw for _, _, raw in claims] == [b"a", b"b", b"c", b"x", b"y", b"d"]
    assert [n for n, _, _ in claims] == [N1, N2, N3, ops.claim_number(2, 0), ops.claim_number(2, 1), N3 + 1]
    assert bench.store.run(ops.held_payloads(bench.keys, NAME, [N3 + 1])) == [b"d"]


def test_an_effect_runs_only_while_the_claim_is_held(bench: Bench) -> None:
    scripts.add_effect("tally", "return redis.pcall('INCRBY', keys[1], args[1])")
    bench.join()
    first, second = bench.claim("a", "b")
    effect = Effect("tally", ("tally",), (5,))
    bench.settle(first, Done(), effect)
    assert bench.redis.get("tally") == b"5"
    bench.settle(first, Done(), effect)  # not held any more
    assert bench.redis.get("tally") == b"5"
    stepped = bench.step(settled=[Settlement(second, Retry(NOW, b"r"), (effect, Effect("tally", ("other",), (1,))))])
    assert stepped.errors == ()
    assert (bench.redis.get("tally"), bench.redis.get("other")) == (b"10", b"1")
    bench.redis.delete("tally", "other")


def test_an_effect_that_fails_is_reported_and_the_settlement_stands(bench: Bench) -> None:
    scripts.add_effect("tally", "return redis.pcall('INCRBY', keys[1], args[1])")
    bench.join()
    (claim,) = bench.claim("a")
    bench.redis.lpush("tally", "not a number")
    stepped = bench.settle(claim, Done(), Effect("tally", ("tally",), (5,)))
    ((subject, words),) = stepped.errors
    assert subject == f"effect tally of {N1}"
    assert "WRONGTYPE" in words
    assert set(bench.index()) == {b"g", b"c"}


def test_an_effect_waits_until_its_outcome_can_be_written(bench: Bench) -> None:
    scripts.add_effect("tally", "return redis.pcall('INCRBY', keys[1], args[1])")
    bench.join()
    (claim,) = bench.claim("a")
    bench.redis.set("retry", "surprise")
    bench.push("q", "b")
    settled = [Settlement(claim, Retry(NOW, b"r"), (Effect("tally", ("tally",), (5,)),))]
    stepped = bench.step(want=1, settled=settled)
    assert [subject for subject, _ in stepped.errors] == [str(N1)]
    assert stepped.claims == [(ops.claim_number(2, 0), "q", b"b")]
    assert bench.redis.get("tally") is None
    bench.redis.delete("retry")
    bench.step(settled=settled)
    assert bench.redis.get("tally") == b"5"
    bench.redis.delete("tally")


def test_a_step_works_although_the_servers_memory_is_full(server: Server, bench: Bench) -> None:
    bench.join()
    bench.push("q", "a", "b")
    try:
        bench.redis.config_set("maxmemory", "1mb")
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            bench.redis.set("x", 1)
        claim = Claim(NAME, *bench.step(want=1).claims[0])
        bench.settle(claim, Retry(NOW, b"r"))
        assert bench.redis.zrange("retry", 0, -1) == [b"r"]
    finally:
        bench.redis.config_set("maxmemory", "0")


def test_a_resync_tells_what_is_held_and_shuts_out_the_past(bench: Bench) -> None:
    bench.join()
    bench.claim("a", "b")
    held = bench.store.run(ops.resync(bench.keys, NAME, LEASE_MS, NOW))
    assert held == Held(2, {N1: "q", N2: "q"})
    assert bench.store.run(ops.held_payloads(bench.keys, NAME, [N1, N2, N3])) == [b"a", b"b", None]


def test_leaving_needs_empty_hands(bench: Bench) -> None:
    bench.join()
    (claim,) = bench.claim("a")
    assert not bench.store.run(ops.leave(bench.keys, NAME))
    bench.settle(claim, Done())
    assert bench.store.run(ops.leave(bench.keys, NAME))
    assert bench.redis.zscore(bench.keys.lease, NAME) is None
    assert not bench.redis.exists(bench.keys.index(NAME))


def test_looking_at_many_empty_queues_is_one_command(bench: Bench) -> None:
    bench.join()
    bench.redis.config_resetstat()
    bench.step(5, [f"q{number}" for number in range(50)])
    calls = bench.redis.info("commandstats")
    assert calls["cmdstat_exists"]["calls"] == 1
    assert "cmdstat_llen" not in calls


@pytest.mark.rule("feature.pause", instead=True)
def test_an_idle_session_hears_a_push_and_an_unpause_but_not_its_own_lease(bench: Bench) -> None:
    bench.join()
    session = bench.store.session()
    session.open()
    assert session.track()
    wake = ops.step(
        bench.keys,
        bench.owner,
        LEASE_MS,
        (),
        Want(5, 1, (("q", 5), ("r", 5))),
        dead_max=9,
        dead_timeout=9.0,
        wake=True,
    )
    for change, key in (
        (lambda: bench.push("r", "a"), b"queue:r"),
        (lambda: bench.redis.sadd("paused", "q"), b"paused"),
    ):
        session.call(wake)
        session.changed()
        change()
        heard: set[bytes] = set()
        wait_until(
            lambda heard=heard, key=key: heard.update(session.changed()) or key in heard, what=f"news of {key!r}"
        )
        bench.redis.delete("queue:r")
    session.close()


def test_a_server_that_tracks_for_a_session_forgets_the_trays_that_are_gone(bench: Bench) -> None:
    """Redis 7.0 remembers every key of a script; what nobody writes again would stay in its memory for good."""
    bench.join()
    session = bench.store.session()
    session.open()
    assert session.track()
    settled: list[Settlement] = []
    remembered = []
    for tray in range(1, 21):
        bench.push("q", "a", "b")
        want = Want(5, tray, (("r", 5), ("q", 5)))
        rules = {"dead_max": 9, "dead_timeout": 9.0, "wake": True}
        done = session.call(ops.step(bench.keys, bench.owner, LEASE_MS, settled, want, **rules))
        assert isinstance(done, Stepped)
        assert len(done.claims) == 2
        settled = [Settlement(Claim(bench.owner.name, n, queue, raw), Done()) for n, queue, raw in done.claims]
        remembered.append(bench.redis.info("stats")["tracking_total_keys"])
    assert remembered[-1] <= remembered[4] + 1
    session.close()


# -- trays ---------------------------------------------------------------------------------------------------------


def test_a_tray_stays_until_all_of_it_is_settled(bench: Bench) -> None:
    bench.join()
    claims = bench.claim(*"abcdefgh")
    bench.step(settled=[Settlement(claim, Done()) for claim in (claims[0], claims[5])])
    assert bench.index()[b"1"] == b"01111011 q"
    assert bench.redis.llen(bench.keys.tray(NAME, 1)) == 8
    assert bench.store.run(ops.index(bench.keys, NAME)).keys() == {b"g", b"c", b"1"}
    assert list(ops.index_claims(bench.index())) == [claim.n for claim in claims if claim not in (claims[0], claims[5])]
    bench.step(settled=[Settlement(claim, Done()) for claim in claims])
    assert set(bench.index()) == {b"g", b"c"}
    assert not bench.redis.exists(bench.keys.tray(NAME, 1))


def test_what_is_gone_from_a_tray_does_not_fill_the_memory_while_a_long_job_keeps_it(bench: Bench) -> None:
    bench.join()
    claims = bench.claim(*(f"{i}" * 1000 for i in range(9)), "last")
    bench.step(settled=[Settlement(claim, Done()) for claim in claims[:5]])
    bench.step(settled=[Settlement(claim, Done()) for claim in claims[5:9]])
    assert bench.redis.lrange(bench.keys.tray(NAME, 1), 0, -1) == [b""] * 9 + [b"last"]
    assert bench.index()[b"1"] == b"---------1 q"
    assert ops.index_claims(bench.index()) == {claims[9].n: "q"}
    bench.settle(claims[9], Requeue())
    assert bench.redis.lrange("queue:q", 0, -1) == [b"last"]
    assert not bench.redis.exists(bench.keys.tray(NAME, 1))


def test_a_queue_name_may_hold_anything_that_a_name_may(bench: Bench) -> None:
    bench.join()
    queue = "a b 11 ünï"
    (claim,) = bench.claim("a", queue=queue)
    assert ops.index_claims(bench.index()) == {claim.n: queue}
    bench.push(queue, "b")
    assert bench.settle(claim, Requeue()).missed == ()
    assert bench.redis.lrange(f"queue:{queue}", 0, -1) == [b"b", b"a"]


def test_the_largest_batch_fits_a_tray(bench: Bench) -> None:
    bench.join()
    claims = bench.claim(*(str(n) for n in range(ops.MAX_BATCH)))
    assert len(claims) == ops.MAX_BATCH <= ops.TRAY
    stepped = bench.step(settled=[Settlement(claim, Done()) for claim in reversed(claims)])
    assert stepped.missed == ()
    assert set(bench.index()) == {b"g", b"c"}

"""Fencing and salvaging: what a reaper may do with the claims of the dead, beside others and after a crash half-way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pillion.store import ops
from pillion.store.ops import FENCED, Rescue
from tests.servers import Server
from tests.store.test_step import LEASE_MS, NAME, NOW, Bench

LATER = NOW + LEASE_MS / 1000 + 1


@pytest.fixture
def bench(server: Server) -> Iterator[Bench]:
    bench = Bench(server)
    bench.join()
    yield bench
    bench.close()


def fence(bench: Bench, now: float = LATER, *, force: bool = False) -> bool:
    return bench.store.run(ops.fence(bench.keys, NAME, force=force, now=now))


def salvage(bench: Bench, *rescues: Rescue) -> list[int]:
    return bench.store.run(ops.salvage(bench.keys, NAME, rescues, dead_max=100, dead_timeout=1000, now=LATER))


def test_a_lease_that_stands_cannot_be_fenced(bench: Bench) -> None:
    assert not fence(bench, NOW)
    assert bench.store.run(ops.expired(bench.keys, now=NOW)) == ([], [])


def test_an_owner_that_never_was_cannot_be_fenced(bench: Bench) -> None:
    assert not bench.store.run(ops.fence(bench.keys, "nobody", force=True))


def test_a_fenced_owner_is_told_so_and_found_again_until_it_is_salvaged(bench: Bench) -> None:
    bench.claim("a")
    assert bench.store.run(ops.expired(bench.keys, now=LATER)) == ([NAME], [])
    assert fence(bench)
    assert fence(bench)  # a second reaper may go on
    assert bench.store.run(bench.op(want=1)) == FENCED
    assert bench.store.run(ops.expired(bench.keys, now=LATER)) == ([], [NAME])
    salvage(bench, Rescue(1, "q", "j1"))
    assert bench.store.run(ops.expired(bench.keys, now=LATER)) == ([], [])


def test_force_fences_at_once(bench: Bench) -> None:
    assert fence(bench, NOW, force=True)


def test_salvaged_claims_are_next_in_their_old_order_and_nothing_is_left(bench: Bench) -> None:
    bench.claim("a", "b", "c")
    bench.push("q", "z")
    fence(bench)
    assert salvage(bench, *(Rescue(n, "q", f"j{n}") for n in (1, 2, 3))) == [3, 2, 1]
    assert bench.redis.lrange("queue:q", 0, -1) == [b"z", b"c", b"b", b"a"]
    assert bench.redis.keys("pillion:inf:*") == []
    assert not bench.redis.exists(bench.keys.salvage)


def test_two_reapers_move_a_claim_once(bench: Bench) -> None:
    bench.claim("a")
    fence(bench)
    assert salvage(bench, Rescue(1, "q", "j1", counted=True)) == [1]
    assert salvage(bench, Rescue(1, "q", "j1", counted=True)) == []
    assert bench.redis.lrange("queue:q", 0, -1) == [b"a"]
    assert bench.redis.get(bench.keys.rescued("j1")) == b"1"


def test_a_crash_between_two_batches_leaves_the_rest_to_be_found(bench: Bench) -> None:
    bench.claim("a", "b")
    fence(bench)
    salvage(bench, Rescue(2, "q", "j2"))
    assert bench.store.run(ops.expired(bench.keys, now=LATER)) == ([], [NAME])
    salvage(bench, Rescue(1, "q", "j1"))
    assert bench.redis.lrange("queue:q", 0, -1) == [b"b", b"a"]


def test_a_counted_jid_becomes_a_suspect_with_an_end(bench: Bench) -> None:
    bench.claim("a")
    fence(bench)
    salvage(bench, Rescue(1, "q", "j1", counted=True))
    assert bench.store.run(ops.suspicion(bench.keys, ["j1", "j2"])) == [True, False]
    assert 0 < bench.redis.ttl(bench.keys.rescued("j1")) <= 72 * 3600
    bench.store.run(ops.absolve(bench.keys, bench.owner, 1, "j1"))
    assert bench.store.run(ops.suspicion(bench.keys, ["j1"])) == [False]
    assert bench.store.run(ops.rescue_counts(bench.keys, ["j1"])) == [0]


def test_a_pill_is_buried_and_a_dropped_one_is_gone(bench: Bench) -> None:
    bench.claim("a", "b")
    fence(bench)
    salvage(bench, Rescue(1, "q", "j1", verb="dead", at=LATER, payload=b"pill"), Rescue(2, "q", "j2", verb="drop"))
    assert bench.redis.zrange("dead", 0, -1) == [b"pill"]
    assert not bench.redis.exists("queue:q")
    assert bench.redis.keys("pillion:inf:*") == []


def test_a_slot_with_two_payloads_gives_both_back(bench: Bench) -> None:
    bench.claim("a")
    bench.redis.lpush(bench.keys.slot(NAME, 1), "stray")
    fence(bench)
    salvage(bench, Rescue(1, "q", "j1"))
    assert sorted(bench.redis.lrange("queue:q", 0, -1)) == [b"a", b"stray"]


def test_a_queue_of_the_wrong_type_keeps_the_claim_for_later(bench: Bench) -> None:
    bench.claim("a")
    fence(bench)
    bench.redis.set("queue:q", "surprise")
    assert salvage(bench, Rescue(1, "q", "j1")) == []
    bench.redis.delete("queue:q")
    assert salvage(bench, Rescue(1, "q", "j1")) == [1]
    assert bench.redis.lrange("queue:q", 0, -1) == [b"a"]

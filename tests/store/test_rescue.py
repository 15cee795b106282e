"""Fencing and salvaging: what a reaper may do with the claims of the dead, beside others and after a crash half-way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pillion.store import ops, rescue
from pillion.store.ops import FENCED
from pillion.store.rescue import Lapsed, Rescue
from tests.servers import Server
from tests.store.test_step import LEASE_MS, N1, N2, N3, NAME, NOW, Bench

LEASE = LEASE_MS / 1000
LATER = NOW + LEASE + 1
WITNESS = "other:1:x/default.1"


@pytest.fixture
def bench(server: Server) -> Iterator[Bench]:
    bench = Bench(server)
    bench.join()
    yield bench
    bench.close()


def witness(bench: Bench, start: float, end: float) -> None:
    """Another owner that renews all the time."""
    bench.join(WITNESS, now=start)
    for i in range(7):
        bench.renew(WITNESS, start + (end - start) * i / 6)


def fence(bench: Bench, now: float = LATER) -> bool:
    witness(bench, NOW, now)
    return bench.store.run(rescue.fence(bench.keys, NAME, LEASE_MS, now=now))


def lapsed(bench: Bench, now: float = LATER) -> Lapsed:
    witness(bench, NOW, now)
    return bench.store.run(rescue.lapsed(bench.keys, LEASE_MS, now=now))


def lapsed_alone(bench: Bench, now: float) -> Lapsed:
    """The same where nobody renews."""
    return bench.store.run(rescue.lapsed(bench.keys, LEASE_MS, now=now))


def salvage(bench: Bench, *rescues: Rescue) -> list[int]:
    return bench.store.run(rescue.salvage(bench.keys, NAME, rescues, dead_max=100, dead_timeout=1000, now=LATER))


def test_a_lease_that_stands_cannot_be_fenced(bench: Bench) -> None:
    assert not fence(bench, NOW)
    assert lapsed(bench, NOW).expired == []


def test_an_owner_that_never_was_cannot_be_fenced(bench: Bench) -> None:
    assert not bench.store.run(rescue.fence(bench.keys, "nobody", None))


def test_a_fenced_owner_is_told_so_and_found_again_until_it_is_salvaged(bench: Bench) -> None:
    bench.claim("a")
    assert lapsed(bench) == Lapsed([NAME], [], True)
    assert fence(bench)
    assert fence(bench)  # a second reaper may go on
    assert bench.store.run(bench.op(want=1)) == FENCED
    assert lapsed(bench) == Lapsed([], [NAME], True)
    salvage(bench, Rescue(N1, "q", "j1"))
    assert lapsed(bench) == Lapsed([], [], True)


def test_who_is_known_to_be_dead_is_fenced_at_once(bench: Bench) -> None:
    assert bench.store.run(rescue.fence(bench.keys, NAME, None, now=NOW))


def test_salvaged_claims_are_next_in_their_old_order_and_nothing_is_left(bench: Bench) -> None:
    bench.claim("a", "b", "c")
    bench.push("q", "z")
    fence(bench)
    assert salvage(bench, *(Rescue(n, "q", f"j{n}") for n in (N1, N2, N3))) == [N3, N2, N1]
    assert bench.redis.lrange("queue:q", 0, -1) == [b"z", b"c", b"b", b"a"]
    assert bench.redis.keys(f"{bench.keys.index(NAME)}*") == []
    assert not bench.redis.exists(bench.keys.salvage)


def test_two_reapers_move_a_claim_once(bench: Bench) -> None:
    bench.claim("a")
    fence(bench)
    assert salvage(bench, Rescue(N1, "q", "j1", counted=True)) == [N1]
    assert salvage(bench, Rescue(N1, "q", "j1", counted=True)) == []
    assert bench.redis.lrange("queue:q", 0, -1) == [b"a"]
    assert bench.redis.get(bench.keys.rescued("j1")) == b"1"


def test_a_crash_between_two_batches_leaves_the_rest_to_be_found(bench: Bench) -> None:
    bench.claim("a", "b")
    fence(bench)
    salvage(bench, Rescue(N2, "q", "j2"))
    assert lapsed(bench) == Lapsed([], [NAME], True)
    salvage(bench, Rescue(N1, "q", "j1"))
    assert bench.redis.lrange("queue:q", 0, -1) == [b"b", b"a"]


def test_a_counted_jid_becomes_a_suspect_with_an_end(bench: Bench) -> None:
    bench.claim("a")
    fence(bench)
    salvage(bench, Rescue(N1, "q", "j1", counted=True))
    assert bench.store.run(ops.suspicion(bench.keys, ["j1", "j2"])) == [True, False]
    assert 0 < bench.redis.ttl(bench.keys.rescued("j1")) <= 72 * 3600
    bench.store.run(ops.absolve(bench.keys, bench.owner, N1, "j1"))
    assert bench.store.run(ops.suspicion(bench.keys, ["j1"])) == [False]
    assert bench.store.run(rescue.rescue_counts(bench.keys, ["j1"])) == [0]


@pytest.mark.leaks_keys
@pytest.mark.parametrize("broken", ["counter", "suspects"])
def test_a_broken_count_of_crashes_does_not_multiply_the_job(bench: Bench, broken: str) -> None:
    bench.claim("a")
    fence(bench)
    bench.redis.lpush(bench.keys.rescued("j1") if broken == "counter" else bench.keys.suspects, "surprise")
    assert salvage(bench, Rescue(N1, "q", "j1", counted=True)) == [N1]
    assert salvage(bench, Rescue(N1, "q", "j1", counted=True)) == []
    assert bench.redis.lrange("queue:q", 0, -1) == [b"a"]


def test_a_pill_is_buried_and_a_dropped_one_is_gone(bench: Bench) -> None:
    bench.claim("a", "b")
    fence(bench)
    salvage(bench, Rescue(N1, "q", "j1", verb="dead", at=LATER, payload=b"pill"), Rescue(N2, "q", "j2", verb="drop"))
    assert bench.redis.zrange("dead", 0, -1) == [b"pill"]
    assert not bench.redis.exists("queue:q")
    assert bench.redis.keys(f"{bench.keys.index(NAME)}*") == []


def test_a_claim_without_a_payload_is_cleared_away(bench: Bench) -> None:
    bench.claim("a")
    bench.redis.delete(bench.keys.tray(NAME, 1))
    fence(bench)
    assert salvage(bench, Rescue(N1, "q", "")) == [N1]
    assert bench.redis.keys(f"{bench.keys.index(NAME)}*") == []


def test_a_queue_of_the_wrong_type_keeps_the_claim_for_later(bench: Bench) -> None:
    bench.claim("a")
    fence(bench)
    bench.redis.set("queue:q", "surprise")
    assert salvage(bench, Rescue(N1, "q", "j1")) == []
    bench.redis.delete("queue:q")
    assert salvage(bench, Rescue(N1, "q", "j1")) == [N1]
    assert bench.redis.lrange("queue:q", 0, -1) == [b"a"]


# -- an outage is no death -----------------------------------------------------------------------------------------


def may_fence(bench: Bench, now: float) -> bool:
    """Whether a reaper may act at this moment; what `lapsed` says and what `fence` does agree."""
    steady = lapsed_alone(bench, now).steady
    assert bench.store.run(rescue.fence(bench.keys, NAME, LEASE_MS, now=now)) == steady
    return steady


def test_nobody_is_fenced_where_nobody_renewed(bench: Bench) -> None:
    assert not may_fence(bench, LATER)
    assert lapsed_alone(bench, LATER).expired == [NAME]


def test_an_owner_that_renewed_all_the_while_shows_that_the_others_could_have(bench: Bench) -> None:
    witness(bench, NOW, LATER)
    assert may_fence(bench, LATER)


def test_owners_that_relieve_each_other_show_it_too(bench: Bench) -> None:
    """A fleet whose every process has been restarted lately still tells the dead from an outage."""
    for i in range(5):
        bench.join(f"brief:{i}:x/default.1", now=NOW + i * LEASE / 4)
    assert may_fence(bench, NOW + LEASE)


@pytest.mark.parametrize("gap", [0.51, 1.0, 30.0])
def test_after_a_break_everybody_has_a_lease_of_time_to_renew(bench: Bench, gap: float) -> None:
    witness(bench, NOW, NOW + LEASE)
    back = NOW + LEASE + gap * LEASE
    assert not may_fence(bench, back)  # also before the first renewal
    witness(bench, back, back + 0.9 * LEASE)
    assert not may_fence(bench, back + 0.99 * LEASE)
    assert bench.renew(NAME, back + 0.99 * LEASE) != FENCED
    witness(bench, back + 0.9 * LEASE, back + 2 * LEASE)
    assert may_fence(bench, back + 2 * LEASE)


def test_the_beginning_of_a_fleet_is_a_break_too(bench: Bench) -> None:
    witness(bench, NOW + LEASE * 0.7, LATER)
    assert not may_fence(bench, NOW + LEASE * 1.4)
    witness(bench, LATER, NOW + LEASE * 1.8)
    assert may_fence(bench, NOW + LEASE * 1.8)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_jump_of_the_servers_clock_fences_nobody_alive(bench: Bench, jump: float) -> None:
    witness(bench, NOW, NOW + LEASE)
    bench.renew(NAME, NOW + LEASE)
    jumped = NOW + LEASE + jump
    assert not may_fence(bench, jumped)
    witness(bench, jumped, jumped + 0.9 * LEASE)
    assert not may_fence(bench, jumped + 0.9 * LEASE)
    assert bench.renew(NAME, jumped + 0.9 * LEASE) != FENCED
    witness(bench, jumped + 0.9 * LEASE, jumped + 2 * LEASE)
    assert lapsed_alone(bench, jumped + 2 * LEASE).steady


@pytest.mark.parametrize("renewal", ["step", "resync", "join"])
def test_every_kind_of_renewal_counts(bench: Bench, renewal: str) -> None:
    witness(bench, NOW, NOW + 0.9 * LEASE)
    now = NOW + 1.3 * LEASE
    if renewal == "step":
        bench.renew(WITNESS, now)
    elif renewal == "resync":
        bench.store.run(ops.resync(bench.keys, WITNESS, LEASE_MS, now))
    else:
        bench.join("third:1:x/default.1", now=now)
    assert may_fence(bench, NOW + 1.7 * LEASE)


def test_the_pulse_ends_with_the_last_owner(bench: Bench) -> None:
    witness(bench, NOW, LATER)
    bench.store.run(ops.leave(bench.keys, WITNESS))
    assert bench.redis.exists(bench.keys.pulse)
    bench.store.run(ops.leave(bench.keys, NAME))
    assert not bench.redis.exists(bench.keys.pulse)
    bench.join("next:1:x/default.1")
    bench.store.run(rescue.fence(bench.keys, "next:1:x/default.1", None))
    assert not bench.redis.exists(bench.keys.pulse)

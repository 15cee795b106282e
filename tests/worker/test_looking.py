"""A fetcher that sleeps has its next step ready, and sends it at the first news: what becomes of it, come what may."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pillion.errors import StoreError
from pillion.types import Claim
from pillion.worker import Worker
from pillion.worker.fetcher import Fetcher
from pillion.worker.runner import REQUEUE, Finished
from tests.servers import Server
from tests.worker.harness import Harness, harness

QUEUES = (("default", 10),)


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    with harness(server) as bed:
        yield bed


@pytest.fixture
def fetcher(bed: Harness) -> Iterator[Fetcher]:
    """One that has joined, whose thread was never started; its next step is ready."""
    fetcher = Worker(bed.setup, embedded=True).fetchers[0]
    fetcher.tenure.step(0, lambda _: QUEUES, wake=True)
    fetcher.tenure.get_ready(2, lambda _: QUEUES)
    yield fetcher
    fetcher.tenure.session.close()


def step(fetcher: Fetcher, want: int = 2) -> list[bytes]:
    return [claim.raw for claim in fetcher.tenure.step(want, lambda _: QUEUES, wake=True).claims]


def raw(number: int) -> str:
    return f'{{"class":"Looked","args":[{number}],"jid":"{number}"}}'


def test_a_step_that_was_sent_ahead_answers_for_the_next_one(bed: Harness, fetcher: Fetcher) -> None:
    for number in range(3):
        bed.raw(raw(number))
    fetcher.tenure.look()
    assert step(fetcher, want=0) == [raw(0).encode(), raw(1).encode()]
    assert step(fetcher) == [raw(2).encode()]
    assert bed.redis.llen("queue:default") == 0


def test_what_is_ready_is_dropped_once_something_else_was_asked(bed: Harness, fetcher: Fetcher) -> None:
    assert step(fetcher) == []
    bed.raw(raw(0))
    fetcher.tenure.look()
    assert not fetcher.tenure.is_looking
    assert bed.redis.llen("queue:default") == 1
    assert step(fetcher) == [raw(0).encode()]


def test_nothing_is_made_ready_in_doubt(bed: Harness, fetcher: Fetcher) -> None:
    assert step(fetcher) == []
    fetcher.tenure.lose_sight_of([])
    fetcher.tenure.get_ready(2, lambda _: QUEUES)
    fetcher.tenure.look()
    assert not fetcher.tenure.is_looking


def test_claims_of_a_look_whose_answer_is_lost_are_adopted(bed: Harness, fetcher: Fetcher) -> None:
    bed.raw(raw(0))
    fetcher.tenure.look()
    bed.redis.ping()
    fetcher.tenure.session.close()
    with pytest.raises(StoreError):
        step(fetcher)
    assert step(fetcher) == [raw(0).encode()]
    assert fetcher.tenure.audit()


def test_a_look_over_a_dead_connection_is_in_doubt_until_a_re_sync(bed: Harness, fetcher: Fetcher) -> None:
    bed.redis.client_kill_filter(_type="normal", skipme=True)
    bed.raw(raw(0))
    with pytest.raises(StoreError):
        look_and_step(fetcher)
    assert step(fetcher) == [raw(0).encode()]
    assert fetcher.tenure.audit()


def look_and_step(fetcher: Fetcher) -> None:
    """Twice, as the first may go out before the hang-up is heard."""
    for _ in range(2):
        fetcher.tenure.look()
        step(fetcher)
        fetcher.tenure.get_ready(2, lambda _: QUEUES)


def test_an_answer_that_nobody_took_is_not_taken_for_another(bed: Harness, fetcher: Fetcher) -> None:
    bed.raw(raw(0))
    fetcher.tenure.look()
    fetcher.tenure.lose_sight_of([])
    assert step(fetcher) == [raw(0).encode()]
    assert fetcher.tenure.audit()
    fetcher.tenure.get_ready(2, lambda _: QUEUES)
    fetcher.tenure.look()
    with pytest.raises(StoreError):
        fetcher.tenure.absolve(Claim("o", 1, "default", b""), "jid")


def test_a_fetcher_that_stops_while_it_looks_gives_back_what_it_found(bed: Harness, fetcher: Fetcher) -> None:
    bed.raw(raw(0))
    fetcher.tenure.look()
    fetcher.stop()
    fetcher.after()
    assert bed.redis.lrange("queue:default", 0, -1) == [raw(0).encode()]
    assert not bed.redis.keys("pillion:inf:*")


def test_a_fetcher_that_stops_while_it_looks_in_vain_writes_its_outcomes_all_the_same(
    bed: Harness, fetcher: Fetcher
) -> None:
    bed.raw(raw(0))
    claims = fetcher.tenure.step(1, lambda _: QUEUES, wake=True).claims
    fetcher.tenure.get_ready(2, lambda _: QUEUES)
    fetcher.tenure.look()
    fetcher.tenure.add([Finished(claim, REQUEUE) for claim in claims])
    fetcher.stop()
    fetcher.after()
    assert bed.redis.lrange("queue:default", 0, -1) == [raw(0).encode()]
    assert bed.redis.zcard("pillion:lease") == 0


def test_a_tenure_that_looks_does_not_leave(bed: Harness, fetcher: Fetcher) -> None:
    """Its connection has an answer to come, which must not be taken for another's; the lease runs out by itself."""
    fetcher.tenure.look()
    fetcher.tenure.leave()
    assert bed.redis.zcard("pillion:lease") == 1


def test_claims_of_an_owner_whose_lease_was_taken_out_by_hand_are_given_back(bed: Harness, fetcher: Fetcher) -> None:
    """Nobody else would look for them: their owner stands on no list any more."""
    bed.raw(raw(0))
    assert step(fetcher) == [raw(0).encode()]
    assert fetcher.tenure.owner is not None
    lost = fetcher.tenure.owner.name
    bed.redis.delete("pillion:lease")
    assert fetcher.tenure.step(0, lambda _: QUEUES, wake=False).lost == lost
    assert step(fetcher) == []
    assert fetcher.tenure.owner.name != lost
    assert bed.redis.zscore("pillion:salvage", lost) is not None
    assert Worker(bed.setup, embedded=True).stations[0].reaper.reap() == 1
    assert bed.redis.lrange("queue:default", 0, -1) == [raw(0).encode()]

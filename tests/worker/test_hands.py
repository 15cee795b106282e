"""The hands of a capsule, shared by the executors of several shards: who may claim how much, and nobody starves."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any

import pytest

from pillion.config import Capsule
from pillion.registry import Registry
from pillion.worker.hands import Hands
from pillion.worker.loop import LoopThread


class Holder:
    """An executor as the hands see it."""

    def __init__(self, hands: Hands) -> None:
        self.held = 0
        self.woken = 0
        self.ran: list[int] = []
        self.go = threading.Event()
        hands.join(self)

    def run(self, n: int) -> None:
        self.ran.append(n)

    def run_on_loop(self, n: int) -> bool:
        return False

    def wake_fetcher(self) -> None:
        self.woken += 1


def hands_of(count: int, concurrency: int = 10) -> tuple[Hands, list[Holder]]:
    hands = Hands(Capsule(concurrency=concurrency), Registry(), LoopThread())
    return hands, [Holder(hands) for _ in range(count)]


def claim(hands: Hands, holder: Holder, found: int, ahead: int = 0) -> int:
    """One step of a fetcher that finds so many jobs at most; how many it asked for."""
    asked = hands.ask(holder, ahead)
    holder.held += min(asked, found)
    hands.answered(holder, well=True)
    return asked


def test_a_single_executor_has_all_slots_and_what_is_claimed_ahead() -> None:
    hands, [one] = hands_of(1)
    assert claim(hands, one, 4, ahead=3) == 13
    assert hands.room(one, 0) == 6
    one.held = 20
    assert hands.ask(one, 0) == 0


def test_what_one_has_asked_for_is_not_offered_to_another() -> None:
    hands, [one, other] = hands_of(2)
    assert hands.ask(one, 0) == 10
    assert hands.ask(other, 0) == 0
    hands.answered(one, well=True)
    assert hands.ask(other, 0) == 10


def test_what_was_not_found_is_free_again() -> None:
    hands, [one, other] = hands_of(2)
    claim(hands, one, 0)
    assert claim(hands, other, 10) == 10
    assert other.held == 10


def test_who_found_everything_asked_for_is_woken_when_it_was_not_found() -> None:
    hands, [one, other] = hands_of(2)
    assert hands.ask(one, 0) == 10
    assert hands.ask(other, 0) == 0
    hands.answered(other, well=True)
    hands.answered(one, well=True)
    assert (one.woken, other.woken) == (0, 1)
    assert hands.ask(other, 0) == 10
    hands.answered(other, well=True)
    assert not hands.hungry


def test_who_finds_no_room_is_woken_and_gets_its_share_from_a_busy_neighbour() -> None:
    hands, [busy, late] = hands_of(2)
    claim(hands, busy, 100)
    assert claim(hands, late, 100) == 0
    taken = []
    for _ in range(10):  # one job after the other ends
        busy.held -= 1
        hands.feed_the_hungry()
        taken.append((claim(hands, busy, 100), claim(hands, late, 100)))
    assert late.woken >= 1
    assert taken[0] == (0, 1)  # the first slot that is free goes to who waited
    assert busy.held + late.held <= 10
    assert late.held >= 1


def test_with_one_slot_two_shards_take_turns() -> None:
    hands, holders = hands_of(2, concurrency=1)
    turns = []
    for _ in range(20):
        for i, holder in enumerate(holders):
            if claim(hands, holder, 1):
                turns.append(i)
        for holder in holders:
            if holder.held:
                holder.held = 0
                hands.feed_the_hungry()
    assert turns.count(0) >= 5
    assert turns.count(1) >= 5


@pytest.mark.parametrize("well", [True, False])
def test_a_hungry_shard_that_finds_nothing_or_is_away_leaves_its_share_to_the_others(well: bool) -> None:
    hands, [busy, away] = hands_of(2)
    claim(hands, busy, 100)
    assert hands.ask(away, 0) == 0
    busy.held = 9
    if well:
        assert hands.ask(away, 0) == 1
    hands.answered(away, well=well)
    assert not hands.hungry
    assert hands.ask(busy, 0) == 1


def test_many_shards_never_claim_more_than_the_capsule_can_run() -> None:
    hands, holders = hands_of(5)
    threads = [
        threading.Thread(target=lambda each=each: [claim(hands, each, 3) for _ in range(50)]) for each in holders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert hands.held == 10


def test_a_job_that_waited_for_another_on_the_loop_sees_none_of_its_context_variables() -> None:
    tenant: ContextVar[int | None] = ContextVar("tenant_of_hands", default=None)
    seen: SimpleQueue[int | None] = SimpleQueue()
    loop = LoopThread()
    hands = Hands(Capsule(concurrency=1), Registry(), loop)

    kept: list[Any] = []

    class Starter(Holder):
        def run_on_loop(self, n: int) -> bool:
            kept.append(loop.task(self.job(n)))
            return True

        async def job(self, n: int) -> None:
            try:
                seen.put(tenant.get())
                tenant.set(n)
            finally:
                hands.release_on_loop()

    holder = Starter(hands)
    hands.put_on_loop(holder, range(3))
    assert [seen.get(timeout=10) for _ in range(3)] == [None, None, None]
    assert loop.stop(10)

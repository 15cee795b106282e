"""When a fetcher looks again: not for claims that have begun, and not twice for one sleep."""

from __future__ import annotations

import pytest

from pillion.config import Capsule, Config
from pillion.registry import Registry
from pillion.running import Signals
from pillion.setup import Setup
from pillion.types import Claim
from pillion.worker.executor import Executor
from pillion.worker.hands import Hands
from pillion.worker.loop import LoopThread
from pillion.worker.pace import MAX_AGE, Pace
from pillion.worker.runner import Runner


class Clock:
    """A clock that a test moves."""

    seconds = 1_000.0

    def now(self) -> float:
        return self.seconds

    def steady(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def executor(clock: Clock) -> Executor:
    hands = Hands(Capsule(concurrency=2), Registry(), LoopThread())
    return Executor(hands, Runner(Setup("redis://nowhere.invalid"), Config(clock=clock), Signals()), clock)


def claims(*numbers: int) -> list[Claim]:
    return [Claim("owner", n, "default", b"{}") for n in numbers]


def taken(executor: Executor, pace: Pace, *numbers: int) -> None:
    executor.unstarted |= {claim.n: claim for claim in claims(*numbers)}
    pace.dispatched(claims(*numbers))


def test_the_wait_ends_when_the_oldest_claim_that_nobody_has_begun_is_overdue(clock: Clock, executor: Executor) -> None:
    pace = Pace(executor, clock)
    assert pace.patience() == float("inf")
    taken(executor, pace, 1, 2)
    clock.seconds += 0.2
    taken(executor, pace, 3, 4)
    assert pace.patience() == pytest.approx(MAX_AGE - 0.2)
    del executor.unstarted[1]
    assert pace.patience() == pytest.approx(MAX_AGE - 0.2)
    del executor.unstarted[2]
    assert pace.patience() == pytest.approx(MAX_AGE)  # what has begun is nothing to give back
    clock.seconds += MAX_AGE + 0.001
    assert pace.overdue() == [3, 4]


def test_jobs_of_a_second_are_never_claimed_ahead_however_their_ends_bunch(clock: Clock, executor: Executor) -> None:
    """Looks come when jobs end. Two within a millisecond must not be taken for a thousand per second."""
    pace = Pace(executor, clock)
    ahead = []
    for n in range(40):
        taken(executor, pace, 2 * n, 2 * n + 1)
        clock.seconds += 1
        for number in (2 * n, 2 * n + 1):
            ahead.append(pace.prefetch())
            del executor.unstarted[number]
            clock.seconds += 0.0006
        ahead.append(pace.prefetch())
    assert ahead == [0] * 120


def test_jobs_of_microseconds_are_claimed_ahead_for_20_ms(clock: Clock, executor: Executor) -> None:
    pace, ahead = Pace(executor, clock), 0
    for n in range(500):
        taken(executor, pace, n)
        del executor.unstarted[n]
        clock.seconds += 0.001
        ahead = pace.prefetch()
    assert 18 <= ahead <= 20


def test_a_sleeping_fetcher_is_woken_once(executor: Executor) -> None:
    woken: list[bool] = []
    executor.wake = lambda: woken.append(True)
    executor.unstarted |= {claim.n: claim for claim in claims(1, 2, 3)}
    executor.asleep = True
    executor.run(1)  # there is no lease, so it is given back
    executor.run(2)
    assert len(woken) == 1
    executor.asleep = True
    executor.run(3)
    assert len(woken) == 2
    assert len(executor.finished) == 3

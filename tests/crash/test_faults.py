"""Faults of the published table that the short tier leaves out, each played a few times: do they still work.

Servers that misbehave have tests of their own, in `tests/servers_misbehave`.
"""

from __future__ import annotations

import pytest

from tests.crash import catalogue
from tests.crash.fault import Fault, Scenario
from tests.crash.trial import Block, play_block
from tests.servers import available_kinds

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(240)]

MODULES = ("client", "fleets", "network", "orders", "owners", "storm")
SEED = 20
TRIALS = 2


def others() -> list[type[Fault]]:
    return [fault for fault in catalogue.EVERY if fault.__module__.rpartition(".")[2] in MODULES]


@pytest.mark.parametrize("fault", others(), ids=lambda fault: fault.id)
def test_a_fault_loses_nothing(fault: type[Fault]) -> None:
    if why := fault.unable():
        pytest.skip(why)
    kinds = tuple(available_kinds()[-1:])
    trials = 1 if issubclass(fault, Scenario) and fault.block <= 10 else TRIALS
    scores = list(play_block(Block(SEED, fault, 0, trials, kinds, untimed=True)))
    assert [words for score in scores for words in score.wrong] == []
    assert len(scores) == trials
    assert all(score.accepted for score in scores)

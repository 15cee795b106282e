"""The fuzzed worker in the suite: some hundred inputs for each door, and what it must notice if the worker is worse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.bed import Bed
from tests.fuzz.inputs import Inputs
from tests.servers import Server

PER_EXAMPLE = 10
FUZZ = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.fixture
def bed(server: Server) -> Iterator[Bed]:
    bed = Bed(server)
    yield bed
    bed.close()


def fuzz(door: Callable[[list[Any]], object], draw: Callable[[Inputs], object]) -> None:
    """Send what Hypothesis draws through a door, some at a time."""

    @FUZZ
    @given(st.randoms(use_true_random=False))
    def send(chance: Any) -> None:
        inputs = Inputs(chance)
        door([draw(inputs) for _ in range(PER_EXAMPLE)])

    send()


def test_any_bytes_in_a_queue_end_in_an_outcome_and_none_is_lost(bed: Bed) -> None:
    fuzz(bed.consume, Inputs.stored)


def test_any_bytes_that_are_due_move_to_a_queue_or_to_the_dead_set(bed: Bed) -> None:
    fuzz(bed.promote, Inputs.stored)


def test_any_bytes_that_are_due_come_through_client_middleware(bed: Bed) -> None:
    fuzz(bed.promote_through, Inputs.stored)


def test_any_value_that_is_pushed_is_refused_or_can_be_read_by_everybody(bed: Bed) -> None:
    fuzz(bed.push, Inputs.pushed)

"""The state machine on every server, and its negative control: with a fault put into a script it must object."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.models.machine import Machine
from tests.models.server import Change
from tests.servers import Server

EXAMPLES = 25
"""How many histories; `python -m tests.models` goes through thousands."""

COMMON = settings(
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
    deadline=None,
    database=None,
)


def histories(server: Server, change: Change | None, chosen: settings) -> None:
    """Run the machine on this server with this fault."""
    kind = type("ThisMachine", (Machine,), {"server": server, "change": change})
    run_state_machine_as_test(kind, settings=chosen)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_history_loses_a_job_or_gives_it_to_two(server: Server) -> None:
    histories(server, None, settings(COMMON, max_examples=EXAMPLES))


FAULTS = {
    "generations do not count": Change("step", "if generation < tonumber(current) then return 'STALE' end", ""),
    "a step renews nothing": Change("step", "redis.call('ZADD', lease, 'XX', now + ARGV[3], owner)", ""),
    "a step takes what is paused": Change("step", "not paused[ARGV[12 + 2 * q]] and ", ""),
    "a claim leaves its tray behind": Change("step", "if #lists > 0 then redis.call('UNLINK', unpack(lists)) end", ""),
    "a resync raises no generation": Change("resync", "'HINCRBY', KEYS[2], 'g', 1", "'HINCRBY', KEYS[2], 'g', 0"),
    "an outage is not noticed": Change("lapsed", "pulse.is_steady(KEYS[3], now, ARGV[2]) and 1 or 0", "1"),
    "a fenced owner keeps its lease": Change("fence", "redis.call('ZREM', KEYS[1], owner)", ""),
}  # fmt: skip
QUICK = settings(COMMON, max_examples=300, phases=[Phase.generate], derandomize=True)


@pytest.fixture(scope="module")
def one_server() -> Iterator[Server]:
    """Of one kind: what is to be found here does not depend on it."""
    server = Server("valkey")
    try:
        yield server.start()
    finally:
        server.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_machine_finds_a_fault_in_a_script(one_server: Server, fault: str) -> None:
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        histories(one_server, FAULTS[fault], QUICK)

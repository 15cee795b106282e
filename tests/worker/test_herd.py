"""Idle fetchers beside many others: who is told of a push, who looks in vain, and that nobody sleeps on."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

import pillion
from pillion.config import Capsule, Config
from pillion.worker import herd
from pillion.worker.fetcher import FEW_QUEUES, Fetcher
from pillion.worker.herd import Herd
from tests.servers import Server
from tests.store.relay import Relay
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

ran = threading.Event()


@pillion.job
def tells_that_it_ran() -> None:
    ran.set()


@pytest.fixture
def bed(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    """Workers that look only when they are told to, and then at once."""
    monkeypatch.setattr(herd, "POLL", (600.0, 600.0))
    monkeypatch.setattr(herd, "MOST", 0.0)
    with harness(server, lease=3600.0, heartbeat=30.0, poll_interval_average=600.0) as bed:
        bed.redis.config_resetstat()
        yield bed


def idle(bed: Harness, fleet: int) -> Fetcher:
    """The fetcher of a worker that sleeps, and believes in so many others."""
    fetcher = bed.start().fetchers[0]
    wait_until(lambda: steps(bed) == 2 and bed.redis.scard("processes") == 1, what="an idle worker")
    fetcher.herd.fleet = fleet
    return fetcher


def steps(bed: Harness) -> int:
    """How many steps there have been; each renews its lease."""
    stats = bed.server.info("commandstats")
    return int(stats.get("cmdstat_zadd", {}).get("calls", 0)) - 1  # the join wrote it first


def take_away(bed: Harness) -> None:
    """A job is pushed, and somebody else has it."""
    with bed.redis.pipeline() as pipe:
        pipe.lpush("queue:default", "{}").rpop("queue:default").execute()


def lose(bed: Harness, times: int) -> None:
    for _ in range(times):
        before = steps(bed)
        take_away(bed)
        wait_until(lambda before=before: steps(bed) > before, what="a look in vain")


def test_in_a_large_fleet_who_looked_in_vain_again_and_again_does_not_hear_for_one_sleep(bed: Harness) -> None:
    fetcher = idle(bed, fleet=1_000)
    lose(bed, herd.IN_VAIN + 1)
    before = steps(bed)
    for _ in range(10):
        take_away(bed)
    fetcher.wake()
    wait_until(lambda: steps(bed) > before, what="a look by itself")
    assert steps(bed) == before + 1
    lose(bed, 1)


def test_a_tired_fetcher_finds_what_is_there_when_it_looks_and_is_awake_again(bed: Harness) -> None:
    fetcher = idle(bed, fleet=1_000)
    lose(bed, herd.IN_VAIN + 1)
    ran.clear()
    bed.push("tells_that_it_ran")
    fetcher.wake()
    assert ran.wait(10)
    ran.clear()
    wait_until(lambda: fetcher.drained, what="its outcome")
    bed.push("tells_that_it_ran")
    assert ran.wait(10)


def test_in_a_small_fleet_nobody_gets_tired(bed: Harness) -> None:
    idle(bed, fleet=herd.SMALL_FLEET)
    lose(bed, 3 * herd.IN_VAIN)
    ran.clear()
    bed.push("tells_that_it_ran")
    assert ran.wait(10)


def test_a_push_between_a_step_and_its_answer_wakes(bed: Harness) -> None:
    relay = Relay(str(bed.server.socket_path))
    bed.setup.configure(relay.url)
    worker = bed.start()
    wait_until(lambda: steps(bed) == 2 and bed.redis.scard("processes") == 1, what="an idle worker")
    ran.clear()
    relay.until = b"invalidate"
    worker.fetchers[0].wake()
    wait_until(lambda: steps(bed) == 3, what="a step whose answer is on its way")
    bed.raw('{"class":"tells_that_it_ran","args":[],"jid":"a"}')
    assert ran.wait(10)
    worker.stop()
    relay.close()


def test_who_serves_many_queues_looks_before_it_asks_to_be_woken_again(bed: Harness) -> None:
    queues = (*((f"q{number}", 0) for number in range(FEW_QUEUES)), ("default", 0))
    bed.setup.configure(capsules=(Capsule(queues=queues),))
    idle(bed, fleet=1)
    looked, asked = steps(bed), asks(bed)
    for number in (1, 2, 3):
        take_away(bed)
        wait_until(lambda number=number: asks(bed) == asked + number, what="a step that asks to be woken")
    assert steps(bed) == looked + 6


def asks(bed: Harness) -> int:
    return int(bed.server.info("commandstats")["cmdstat_client|caching"]["calls"])


def test_an_idle_worker_gives_the_server_no_new_names_to_remember(bed: Harness) -> None:
    fetcher = idle(bed, fleet=1)
    look(bed, fetcher)
    before = bed.server.info("stats")["tracking_total_keys"]
    for _ in range(10):
        look(bed, fetcher)
    assert bed.server.info("stats")["tracking_total_keys"] == before


def look(bed: Harness, fetcher: Fetcher) -> None:
    before = steps(bed)
    fetcher.wake()
    wait_until(lambda: steps(bed) > before, what="a look")


def test_who_finds_a_job_is_not_tired() -> None:
    one = Herd(Config(rng=random.Random(1)))
    one.fleet = 1_000
    for found in (False, False, False, False, True):
        one.woken = True
        one.looked(found=found)
    one.woken = True
    assert not one.is_tired()


def test_the_fleet_polls_no_faster_than_it_can_use() -> None:
    one = Herd(Config(rng=random.Random(1)))
    one.fleet = 100
    assert 1.0 <= one.poll(hears=True) <= 2.0
    one.fleet = 1_000
    assert 4.0 <= one.poll(hears=True) <= 8.0
    assert 1.0 <= one.poll(hears=False) <= 2.0

"""What is counted, in which slots and under which names, and what is not."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

import pillion
from pillion.api import Metrics
from pillion.registry import default
from pillion.store import ops
from pillion.store.keys import Keyspace
from pillion.types import Claim, Done, Outcome, Requeue
from pillion.worker.runner import Finished
from pillion.worker.stats import Counts, Stats, flush_commands
from tests.servers import Server
from tests.worker.harness import Harness, harness

AT_22_03 = datetime(2022, 7, 22, 22, 3, tzinfo=UTC).timestamp()
CLAIM = Claim("owner", 1, "default", b"")


def counted(*jobs: tuple[str, float], outcome: Outcome | None = None) -> Counts:
    """The counts after these jobs, (name, milliseconds) each."""
    stats = Stats()
    stats.add([Finished(CLAIM, outcome or Done(), (), name, ms / 1000) for name, ms in jobs])
    return stats.take()


def flushed(counts: Counts) -> dict[Any, list[tuple[Any, ...]]]:
    """The commands of a flush, by key."""
    commands: dict[Any, list[tuple[Any, ...]]] = {}
    for verb, key, *rest in flush_commands(Keyspace(), counts, AT_22_03):
        commands.setdefault(key, []).append((verb, *rest))
    return commands


@pytest.mark.rule("b9.59", "metrics.slots", "keys.histogram", "keys.minutes")
def test_times_fall_into_sidekiqs_slots_and_keys() -> None:
    counts = counted(*(("App::FooJob", ms) for ms in (10, 46, 47, 48, 300, 301, 302, 3e8)))
    assert counts.slots == Counter({("App::FooJob", slot): n for slot, n in {0: 1, 3: 3, 7: 3, 25: 1}.items()})
    assert flushed(counts).keys() >= {"h|App::FooJob-22-22:3", "j|220722|22:03", "j|220722|22:0"}


@pytest.mark.rule("metrics.slots")
@pytest.mark.parametrize(("ms", "slot"), [(0, 0), (19.9, 0), (20, 1), (334_999, 24), (335_000, 25)])
def test_a_bound_belongs_to_the_next_slot(ms: float, slot: int) -> None:
    assert counted(("A", ms)).slots == {("A", slot): 1}


@pytest.mark.rule("metrics.slots")
def test_a_slot_is_full_at_65535(bed: Harness) -> None:
    counts = counted(("A", 1))
    counts.slots["A", 0] = 70_000
    bed.setup.store.run(ops.batch(flush_commands(Keyspace(), counts, AT_22_03)))
    reads = ("GET", "u16", "#0", "GET", "u16", "#1")
    assert bed.redis.execute_command("BITFIELD_RO", "h|A-22-22:3", *reads) == [65_535, 0]


@pytest.mark.rule("process.stats", "keys.stat")
def test_both_counters_are_flushed_though_nothing_failed() -> None:
    commands = flushed(counted(("A", 1)))
    assert commands["stat:processed"] == [("INCRBY", 1)]
    assert commands["stat:failed"] == [("INCRBY", 0)]
    assert commands["stat:failed:2022-07-22"] == [("INCRBY", 0), ("EXPIRE", 157_680_000)]


@pytest.mark.rule("process.stats", "metrics.flush")
def test_nothing_is_flushed_when_nothing_ran() -> None:
    assert flushed(counted()) == {}


@pytest.mark.rule("metrics.shutdown", "run.counts", instead=True)
def test_a_job_that_is_given_back_is_not_counted() -> None:
    assert flushed(counted(("A", 1), outcome=Requeue())) == {}


@pytest.mark.rule("metrics.bar", instead=True)
def test_a_name_with_a_bar_has_no_metrics_but_is_counted() -> None:
    commands = flushed(counted(("a|b", 1)))
    assert commands["stat:processed"] == [("INCRBY", 1)]
    assert not any(key.startswith(("j|", "h|")) for key in commands)


@pytest.mark.rule("keys.old-metrics")
@pytest.mark.parametrize(("wire", "digits"), [("8", 6), ("7", 8), ("6", 8)])
def test_a_worker_flushes_under_the_names_of_its_wire(server: Server, wire: str, digits: int) -> None:
    with harness(server, wire=wire) as bed, default.restored():

        @pillion.job(name=f"CompatWire{wire}")
        def plain() -> None: ...

        worker = bed.start()
        bed.push(plain.definition.name)
        bed.settled(1)
        worker.stop()
        found = {len(key.split(b"|")[1]) for key in bed.redis.keys("j|*") if bed.redis.ttl(key) <= 28_800}
        assert found == {digits}
        assert len(bed.redis.keys(f"h|CompatWire{wire}-*")) == (wire == "8")
        assert len(bed.redis.keys(f"CompatWire{wire}-*")) == (wire != "8")
        totals = Metrics(bed.client).top_jobs().job_results[plain.definition.name].totals
        assert totals["p"] == 1


@pytest.mark.rule("metrics.class", instead=True)
def test_an_alias_counts_under_the_name_of_the_definition(bed: Harness) -> None:
    @pillion.job(name="CompatNew", aliases=["CompatOld"])
    def renamed() -> None: ...

    worker = bed.start()
    bed.push("CompatOld")
    bed.push("CompatNew")
    bed.settled(2)
    worker.stop()
    fields = {field: n for key in bed.redis.keys("j|*") for field, n in bed.redis.hgetall(key).items()}
    assert {field for field in fields if field.endswith(b"|p")} == {b"CompatNew|p"}

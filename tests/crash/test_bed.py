"""The chaos bed notices what it is there to notice: here are faults that really lose, double or leave something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import ClassVar

import pytest

from pillion.store import rescue
from tests.crash import chaosbed
from tests.crash.account import Run, surplus, wait_of, was_hit
from tests.crash.chaosbed import ChaosBed
from tests.crash.fault import Fault, Needs, Score
from tests.crash.mix import Quick
from tests.crash.results import Results, Row, load, save
from tests.crash.trial import Block, play_block
from tests.servers import Kind

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


class Mischief(Fault):
    """A fault of these tests; jobs wait in a queue that nobody serves."""

    id, title = "T0", "a test of the bed itself"
    needs = Needs(kinds=("threads",), workers=2, pills=False)


class Nothing(Mischief):
    def inject(self, bed: ChaosBed, rng: Random) -> None:
        bed.plan("nothing")


class Thief(Mischief):
    """Takes a job out of a queue."""

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        bed.pushed.accept([bed.push(Quick, 1, queue="unserved")])
        assert bed.redis.lpop("queue:unserved")


class Copier(Mischief):
    """Puts a second copy of a job beside the first."""

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        bed.pushed.accept([bed.push(Quick, 1, queue="unserved")])
        bed.redis.rpush("queue:unserved", bed.redis.lindex("queue:unserved", 0))


class Stranger(Mischief):
    """Pushes what nobody accounts for."""

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        bed.push(Quick, 1)


class Litter(Mischief):
    """Leaves a tray behind that belongs to nobody."""

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        bed.redis.rpush("pillion:inf:gone:1:x/default.1:7", "{}")


class Robber(Mischief):
    """Fences an owner that is alive."""

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        assert bed.store.run(rescue.fence(bed.store.keys, bed.owners()[0], None))


class Sandman(Mischief):
    """Stops a worker for good."""

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        bed.pause(bed.victim(rng))


class Hidden(Mischief):
    """Leaves a job where nobody looks."""

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        bed.pushed.accept([bed.push(Quick, 1, queue="unserved")])


class Silent(Mischief):
    """Buries a job without a reason."""

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        jid = bed.push(Quick, 1, queue="unserved")
        bed.pushed.accept([jid])
        bed.redis.zadd("dead", {bed.redis.lpop("queue:unserved"): 1})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaosbed, "PATIENCE", 4.0)


def played(fault: type[Fault], kind: Kind, trials: int = 1) -> Iterator[Score]:
    """Trials of this fault."""
    return play_block(Block(1, fault, 0, trials, (kind,), untimed=True))


def test_where_nothing_happens_nothing_is_wrong(kind: Kind) -> None:
    for score in played(Nothing, kind, 3):
        assert (score.wrong, score.lost, score.stranded, score.again) == ([], [], [], 0)
        assert score.accepted >= 10


CAUGHT: dict[type[Fault], str] = {
    Thief: "I2",
    Copier: "I5",
    Stranger: "I3",
    Litter: "I8",
    Robber: "I4",
    Sandman: "I12",
    Hidden: "I1",
    Silent: "I1",
}


@pytest.mark.parametrize("fault", CAUGHT, ids=lambda fault: fault.__name__)
def test_it_notices(fault: type[Fault], kind: Kind) -> None:
    [score] = played(fault, kind)
    assert CAUGHT[fault] in {words.partition(":")[0] for words in score.wrong}, score.wrong
    if fault is Thief:
        assert len(score.lost) == 1
    if fault is Hidden:
        assert len(score.stranded) == 1


def test_a_bed_in_which_something_went_wrong_is_not_used_again(kind: Kind) -> None:
    used: list[int] = []

    class Once(Thief):
        seen: ClassVar[list[int]] = used

        def inject(self, bed: ChaosBed, rng: Random) -> None:
            self.seen.append(bed.server.port)
            if len(self.seen) == 1:
                super().inject(bed, rng)

    first, second = played(Once, kind, 2)
    assert (bool(first.wrong), second.wrong) == (True, [])
    assert len(set(used)) == 2


# --- the account -----------------------------------------------------------------------------------------------------


def ran(started: float, ended: float | None, word: str | None = "end", attempt: int = 1, pid: int = 1) -> Run:
    return Run("j", attempt, pid, started, ended, word if ended is not None else None)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([ran(1, 2)], 0),
        ([ran(1, 2, "fail"), ran(3, 4, attempt=2)], 0),
        ([ran(1, 2, "later"), ran(3, 4)], 0),
        ([ran(1, 2), ran(3, 4)], 1),
        ([ran(1, None), ran(3, 4), ran(5, 6)], 2),
        ([ran(1, 2, "fail"), ran(3, 4, "fail"), ran(5, 6, attempt=2)], 1),
    ],
)
def test_runs_that_were_not_called_for_are_counted(runs: list[Run], expected: int) -> None:
    assert surplus(runs) == expected


def test_a_run_is_explained_only_if_the_fault_met_it() -> None:
    assert was_hit(ran(1, None, pid=7), {7: 2.0})
    assert was_hit(ran(1, 2.1, pid=7), {7: 2.0})
    assert not was_hit(ran(1, 1.5, pid=7), {7: 2.0})
    assert not was_hit(ran(1, None, pid=8), {7: 2.0})


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], None),
        ([ran(1, None), ran(12, 13)], 2),
        ([ran(11, 12)], 1),
        ([ran(1, 11)], None),
        ([ran(1, 2, "fail"), ran(15, 16, attempt=2)], None),
    ],
)
def test_recovery_is_the_wait_for_the_next_start(runs: list[Run], expected: float | None) -> None:
    assert wait_of(runs, 10.0) == expected


RECOVERIES: list[tuple[float | None, list[str]]] = [(1.234, []), (0.5, []), (None, ["j"]), (0.5, [])]


def test_results_are_kept_as_they_were_measured(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results, row = Results(), Row()
    for recovery, lost in RECOVERIES:
        row.add(Score(accepted=3, lost=lost, recovery=recovery, wrong=["I2: lost"] * len(lost), plan="p"))
    row.blocks = [4]
    results.merge("T1", row, seed=9)
    save(results, path)
    again = load(path)
    again.merge("T1", row, seed=8)
    found = again.row("T1")
    assert (found.n, found.accepted, found.lost, found.broken) == (8, 24, 2, 2)
    assert (found.median, found.longest, found.blocks, again.seeds) == (0.5, 1.23, [4], [8, 9])

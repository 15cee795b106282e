"""The soak's machinery: a short one, whose account must be exact, and the arithmetic of slopes and accounts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.soak import account, journal, page, report, series
from tests.crash.soak.account import Fault, Run, draw_up, explained
from tests.crash.soak.report import Windows
from tests.crash.soak.run import Plan, Soak
from tests.crash.soak.slopes import Slope, blocks, percentile, slope, student

SHORT = Plan(
    12, "", rate=20, lease=2, fault_mean=2.5, sample_every=0.5, rewrite_every=5, roll_every=6, later=60, poll=0.5
)
"""Seconds; half a minute with its start and end."""


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_a_short_soak_accounts_for_every_job(tmp_path: Path, figures: Callable[[str], None]) -> None:
    seed = str(random.SystemRandom().randrange(10**9))
    plan = Plan(**{**vars(SHORT), "seed": seed, "warm_up": 2.0})
    told: list[str] = []
    Soak(plan, tmp_path, told.append).run()
    result = report.evaluate(tmp_path)
    figures(f"  seed {seed}: {result['faults']}, {line(result, 'account')['found']}")
    assert told
    exact = ("lost", "foreign", "unexplained", "drained", "keys left over", "exit codes", "ends that nobody asked for")
    assert {what: line(result, what)["found"] for what in exact if not line(result, what)["passed"]} == {}
    assert line(result, "account")["found"]["accepted"] > 100
    assert result["errors"] == []
    judged = {(each["who"].split()[0], each["figure"]) for each in result["lines"] if "figure" in each}
    roles = ("group-sheltered-child", "group-sheltered-supervisor", "async-sheltered", "producer-sync")
    assert {(role, figure) for role in roles for figure in series.FIGURES} <= judged
    assert {("server", "clients"), ("server", "keys")} <= judged
    assert {what for what, *_ in journal.read(tmp_path / journal.VITALS)} == {"blocks", "tasks"}
    assert "| Accepted |" in page.section(json.loads(json.dumps(result)))


def line(result: dict[str, object], what: str) -> report.Line:
    lines = result["lines"]
    assert isinstance(lines, list)
    return next(each for each in lines if each["what"] == what)


# --- slopes -------------------------------------------------------------------------------------------------------


def test_a_straight_line_has_its_slope_and_no_doubt() -> None:
    found = slope([(60.0 * i, 5 + 2 * i / 60) for i in range(121)])
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))
    assert found.mean == pytest.approx(7, abs=0.1)


def test_the_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    """Also at the few points that a soak has."""
    rng = random.Random(1)
    hits = 0
    for _ in range(1000):
        found = slope([(600.0 * i, 3 * i / 6 + rng.gauss(0, 1)) for i in range(7)], block=600)
        assert found is not None
        hits += found.low <= 3 <= found.high
    assert 925 <= hits <= 975


def test_samples_that_repeat_each_other_do_not_make_a_slope_surer() -> None:
    rng = random.Random(2)
    few = [(300.0 * i, rng.gauss(0, 1)) for i in range(20)]
    many = [(at + second, value) for at, value in few for second in range(300)]
    one, other = slope(few), slope(many)
    assert one is not None
    assert other is not None
    assert other.high - other.low == pytest.approx(one.high - one.low)


def test_too_little_to_tell() -> None:
    assert slope([(i, i) for i in range(899)]) is None
    assert slope([]) is None


def test_blocks_are_means() -> None:
    assert blocks([(0, 1), (5, 3), (10, 7)], 10) == [(2.5, 2), (10, 7)]


@pytest.mark.parametrize(("free", "point"), [(2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (20, 2.086), (60, 2.000)])
def test_points_of_students_distribution(free: int, point: float) -> None:
    assert student(free) == pytest.approx(point, rel=0.05 if free < 3 else 0.01)


def test_percentiles() -> None:
    assert percentile(range(1, 101), 0.99) == 100
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([], 0.5) == 0


@pytest.mark.parametrize(
    ("name", "value", "low", "flat"),
    [
        ("rss", 5, 2, False),
        ("rss", 5, 0.5, True),
        ("rss", -3, -4, True),
        ("fds", 2, 1, False),
        ("fds", 2, -1, True),
        ("threads", 0.3, 0.2, True),
    ],
)
def test_what_counts_as_flat(name: str, value: float, low: float, flat: bool) -> None:
    assert series.is_flat(name, Slope(value, low, 2 * value - low, 0, 20, 2)) is flat


def test_windows_that_overlap_are_one() -> None:
    windows = Windows([(5, 6), (1, 3), (2, 4)])
    assert windows.windows == [(1, 4), (5, 6)]
    assert [windows.meet(*each) for each in ((0, 0.5), (0, 2), (4.1, 4.9), (4.1, 7), (7, 8))] == [0, 1, 0, 1, 0]


# --- accounts -----------------------------------------------------------------------------------------------------


def written(
    folder: Path, *, pushes: str = "", runs: str = "", faults: str = "", standing: str = "{}"
) -> account.Account:
    """The account of a folder with these files."""
    for name, text in ((journal.PUSHES, pushes), (journal.RUNS, runs), (journal.FAULTS, faults)):
        (folder / name).write_text("".join(f"{each.strip()}\n" for each in text.split(";") if each.strip()))
    (folder / journal.STANDING).write_text(standing)
    return draw_up(folder)


def test_an_accepted_job_that_neither_ran_nor_stands_is_lost(tmp_path: Path) -> None:
    found = written(
        tmp_path,
        pushes="accepted 1 a b c; refused 2 3 Unavailable",
        runs="start 2 a 1 7 -; end 3 a 1 7; start 2 b 1 7 -; fail 3 b 1 7",
        standing='{"retry": ["c"]}',
    )
    assert (found.accepted, found.refused, found.runs, found.lost) == (3, 3, 2, ["b"])


def test_what_a_killed_server_forgot_is_no_loss_of_ours(tmp_path: Path) -> None:
    found = written(tmp_path, pushes="accepted 1 a; accepted 2.5 b", faults="begin 3.5 1 kill-redis 0; over 4 1")
    assert (found.lost, found.forgotten) == (["a"], ["b"])


def test_a_job_that_nobody_pushed_is_foreign_and_one_without_an_answer_is_not(tmp_path: Path) -> None:
    found = written(tmp_path, pushes="maybe 1 a b", runs="start 2 a 1 7 -; end 3 a 1 7; start 2 x 1 7 -; end 3 x 1 7")
    assert (found.foreign, found.maybe, found.maybe_ran, found.lost) == (["x"], 2, 1, [])


def test_a_retry_is_no_repetition_and_a_repetition_needs_a_fault(tmp_path: Path) -> None:
    runs = "start 2 a 1 7 -; fail 3 a 1 7; start 5 a 2 7 -; end 6 a 2 7"
    runs += ";start 2 b 1 7 -; end 3 b 1 7; start 9 b 1 8 -; end 10 b 1 8"
    pushes = "accepted 1 a b"
    assert written(tmp_path, pushes=pushes, runs=runs).unexplained == ["b"]
    found = written(tmp_path, pushes=pushes, runs=runs, faults="begin 3.5 1 kill-child 7; over 3.5 1")
    assert (found.repeated, found.unexplained) == (1, [])


@pytest.mark.parametrize(
    ("fault", "explains"),
    [
        (Fault("kill-child", 11, 11, 7), True),
        (Fault("kill-child", 11, 11, 9), False),
        (Fault("kill-child", 19, 19, 7), False),
        (Fault("stop-async", 5, 9, 7), True),
        (Fault("stop-async", 5, 7, 7), False),
        (Fault("stop-async", 18, 19.5, 8), True),
        (Fault("drop", 12.5, 12.5), True),
        (Fault("drop", 19, 19), False),
        (Fault("kill-zygote", 11, 11, 7), False),
        (Fault("script-flush", 11, 11), False),
    ],
)
def test_only_what_could_have_done_it_explains_a_repetition(fault: Fault, explains: bool) -> None:
    """A job ran from 10 to 12 in process 7, and again from 20 in process 8."""
    assert explained(Run(1, 10, 7, 12), Run(1, 20, 8, 21), [fault]) is explains

"""The verdict: an example of each rule, what is told first, and that nothing flickers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillion.api.metrics import Mark
from pillion.api.overview import ClassTimes, LongRun, Point, ProcessNow, QueueNow, ServerFacts, Snapshot
from pillion.api.rules import RULES, length, span
from pillion.api.runs import Percentiles, Times
from pillion.api.stats import Figures
from pillion.api.verdict import FINE, Verdict, judge
from pillion.api.work import Work
from tests.api.conftest import NOW
from tests.pages import BY_NAME, names

FIGURES = Figures(
    processed=0,
    failed=0,
    scheduled_size=0,
    retry_size=0,
    dead_size=0,
    enqueued=0,
    processes_size=0,
    workers_size=0,
    default_queue_latency=0.0,
    queues={},
)
GB = 1 << 30
SERVER = ServerFacts("Valkey", "9.1.2", 1, 10, GB // 4, GB // 2, GB, "noeviction", "7.2.4")
WORKER = ProcessNow("vm:1:a", 5, 12, NOW - 3, False, ["mailers"])


def snapshot(**fields: Any) -> Snapshot:
    """A moment at which all is well, but for `fields`."""
    calm: dict[str, Any] = {
        "at": NOW,
        "figures": FIGURES,
        "queues": [],
        "processes": [WORKER],
        "causes": [],
        "longest": [],
        "marks": [],
        "throughput": [],
        "classes": [],
        "server": SERVER,
    }
    return Snapshot(**(calm | fields))


def queue(name: str = "mailers", size: int = 412, latency: float = 1.0, **fields: Any) -> QueueNow:
    given: dict[str, Any] = {"paused": False, "fault": None, "processes": 1, "slots": 12, "growth": None}
    return QueueNow(name=name, size=size, latency=latency, **(given | fields))


def minutes(klass: str, *of: tuple[int, int, float], end: float = NOW) -> ClassTimes:
    """The last minutes of a class: runs, failed ones, milliseconds that one of the others took."""
    last = end // 60 * 60
    begun = [last - 60 * (len(of) - 1 - n) for n in range(len(of))]
    return ClassTimes(
        klass,
        [(at, runs, failed, (runs - failed) * ms) for at, (runs, failed, ms) in zip(begun, of, strict=True) if runs],
    )


def mark(minutes_ago: float, label: str = "a1f3c9") -> Mark:
    return Mark(datetime.fromtimestamp(NOW - 60 * minutes_ago, UTC), label, "")


def running(seconds: float, p95: float, sample: int = 50) -> LongRun:
    job = {"class": "RebuildIndex", "jid": "j1", "args": []}
    work = Work("vm:1:a", "t1", {"queue": "low", "payload": json.dumps(job), "run_at": int(NOW - seconds)})
    return LongRun(work, "RebuildIndex", seconds, Percentiles(sample, sample, Times(p95 / 2, p95, p95)))


def told(**fields: Any) -> Verdict:
    return judge(snapshot(**fields))


# -- silence -------------------------------------------------------------------------------------------------------


def test_when_all_is_well_it_says_just_that() -> None:
    verdict = told(queues=[queue(), queue("empty", 0, 0.0)])
    assert (verdict.level, verdict.sentence, verdict.since) == ("ok", FINE, None)
    assert (verdict.action, verdict.link, verdict.rule, verdict.seen) == (None, "", "", {})


@pytest.mark.parametrize(
    "fields",
    [
        {"processes": []},
        {"processes": [], "queues": [queue(paused=True)]},
        {"queues": [queue(latency=59.0)]},
        {"queues": [queue("idle", 0, 900.0, processes=0)]},
        {"classes": [minutes("Mailer", *[(100, 0, 5.0)] * 50, *[(100, 1, 5.0)] * 10)]},
        {"classes": [minutes("Mailer", *[(100, 40, 5.0)] * 50, *[(100, 60, 5.0)] * 10)]},
        {"classes": [minutes("Mailer", *[(100, 0, 5.0)] * 20, *[(100, 0, 50.0)] * 40)], "marks": [mark(40)]},
        {"classes": [minutes("Mailer", *[(100, 0, 400.0)] * 60)], "marks": [mark(40)]},
        {"classes": [minutes("Mailer", *[(1, 0, 400.0)] * 15, *[(1, 0, 2_100.0)] * 45)], "marks": [mark(45)]},
        {"longest": [running(4_000.0, 660.0)]},
        {"longest": [running(100.0, 1.0)]},
        {"longest": [running(9_000.0, 60.0, sample=3)]},
        {"server": msgspec.structs.replace(SERVER, memory=GB, limit=0)},
        {"server": msgspec.structs.replace(SERVER, policy="allkeys-lru", limit=0)},
    ],
)
def test_what_is_no_reason_for_a_word(fields: dict[str, Any]) -> None:
    assert told(**fields).level == "ok"


# -- a rule each ---------------------------------------------------------------------------------------------------


def test_no_worker() -> None:
    verdict = told(processes=[], queues=[queue(latency=360.0), queue("low", 1)])
    assert verdict.sentence == "413 jobs wait, the oldest for 6 min, and no worker runs."
    assert (verdict.rule, verdict.level, verdict.link) == ("no_workers", "alarm", "workers")
    assert verdict.action is not None
    assert verdict.action.command == "pillion worker APP"
    stopping = msgspec.structs.replace(WORKER, stopping=True)
    assert told(processes=[stopping], queues=[queue()]).rule == "no_workers"


def test_a_queue_that_nobody_serves() -> None:
    verdict = told(queues=[queue("reports", 1, 30.0, processes=0), queue("low", 7, 90.0, processes=0)])
    assert verdict.sentence == "No worker serves low: 7 jobs wait, the oldest for 2 min."
    assert (verdict.rule, verdict.level, verdict.link) == ("unserved", "alarm", "queues/low")
    assert verdict.values == {"queue": "low", "jobs": 7, "wait": 90.0}


def test_a_queue_that_cannot_be_read() -> None:
    verdict = told(queues=[queue(fault="WRONGTYPE", size=0)])
    assert verdict.sentence == "No worker can take from mailers: its key is no list (WRONGTYPE)."
    assert (verdict.rule, verdict.level) == ("unreadable", "alarm")


def test_a_queue_that_is_behind() -> None:
    verdict = told(queues=[queue(size=18_412, latency=251.0, growth=-30.0), queue("low", 5, 70.0)])
    assert verdict.sentence == (
        "mailers is 4 min behind: 18,412 jobs wait, 5 of 12 slots are busy. At this rate it is clear in 10 min."
    )
    assert (verdict.rule, verdict.level, verdict.since) == ("behind", "alarm", NOW - 251.0 + 60.0)
    assert told(queues=[queue(latency=100.0)]).level == "notice"
    growing = told(queues=[queue(latency=251.0, growth=2.0)])
    assert growing.sentence.endswith("It grows by 120 a minute.")
    assert told(queues=[queue(latency=251.0, growth=-0.001)]).sentence.endswith("slots are busy.")


def test_each_queue_may_have_its_own_target() -> None:
    late = snapshot(queues=[queue(latency=251.0)])
    assert judge(late, targets={"mailers": 300.0}).level == "ok"
    assert judge(late, targets={"mailers": 10.0}).level == "alarm"


def test_a_queue_that_somebody_paused() -> None:
    verdict = told(queues=[queue(paused=True, latency=360.0)])
    assert verdict.sentence == "mailers is paused: 412 jobs wait, the oldest for 6 min."
    assert (verdict.rule, verdict.level) == ("paused", "notice")
    assert verdict.action is not None
    assert (verdict.action.verb, verdict.action.target) == ("resume", "mailers")
    assert told(queues=[queue(paused=True, latency=5.0)]).level == "ok"


def test_a_class_that_fails_more_than_before() -> None:
    runs = minutes("SendDigest", *[(100, 1, 5.0)] * 52, *[(100, 50, 5.0)] * 8)
    verdict = told(classes=[runs], marks=[mark(50, "old"), mark(9)])
    assert verdict.sentence == (
        "SendDigest fails since deploy a1f3c9: 402 of 1,000 runs in the last 10 min, 1.0% before."
    )
    assert (verdict.rule, verdict.level, verdict.link) == ("failing", "alarm", "failures")
    assert verdict.since == NOW - 7 * 60
    without = told(classes=[runs], marks=[mark(50, "old")])
    assert without.sentence.startswith("SendDigest fails: 402 of")


def test_a_class_that_is_slower_since_a_deploy() -> None:
    runs = minutes("SendDigest", *[(100, 0, 400.0)] * 20, *[(100, 0, 2_100.0)] * 40)
    verdict = told(classes=[runs], marks=[mark(40)])
    assert verdict.sentence == (
        "SendDigest takes 2.1 s on average since deploy a1f3c9, 40 min ago; it took 400 ms before."
    )
    assert (verdict.rule, verdict.level, verdict.link) == ("slower", "notice", "classes/SendDigest")
    assert verdict.since == NOW - 2_400


def test_a_job_that_runs_far_longer_than_its_class() -> None:
    verdict = told(longest=[running(7_200.0, 660.0)])
    assert verdict.sentence == "A RebuildIndex has been running for 2 h; nearly all take less than 11 min."
    assert verdict.action is not None
    assert (verdict.rule, verdict.action.verb, verdict.action.target) == ("stuck", "stack", "j1")


def test_a_server_whose_memory_runs_out() -> None:
    full = told(server=msgspec.structs.replace(SERVER, memory=int(0.97 * GB)))
    assert (full.rule, full.level) == ("memory", "alarm")
    assert full.sentence == "Valkey uses 97% of its memory. When it is full, no job can be pushed."
    assert told(server=msgspec.structs.replace(SERVER, memory=int(0.9 * GB))).level == "notice"
    before = Point(NOW - 100, {}, GB // 2 - 20_000_000)
    half = msgspec.structs.replace(SERVER, memory=GB // 2)
    soon = told(server=half, trail=[before, Point(NOW, {}, GB // 2)])
    assert (soon.level, soon.sentence) == (
        "alarm",
        "Valkey uses 50% of its memory; at this rate it is full in 45 min. When it is full, no job can be pushed.",
    )
    slow = msgspec.structs.replace(before, memory=GB // 2 - 2_000_000)
    assert told(server=half, trail=[slow, Point(NOW, {}, GB // 2)]).level == "ok"


def test_a_server_that_deletes_jobs() -> None:
    verdict = told(server=msgspec.structs.replace(SERVER, policy="allkeys-lru"))
    assert verdict.sentence == "Valkey deletes jobs when its memory is full: maxmemory-policy is allkeys-lru."
    assert (verdict.rule, verdict.level) == ("evicting", "notice")


def test_the_page_names_every_rule_in_their_order() -> None:
    assert names(BY_NAME["api.md"].table("Rule", "Level", "When")) == [rule.__name__ for rule in RULES]


def test_every_rule_has_an_example_here() -> None:
    text = Path(__file__).read_text("utf-8")
    assert [rule.__name__ for rule in RULES if f'"{rule.__name__}"' not in text] == []


# -- which one, and when -------------------------------------------------------------------------------------------


def test_an_alarm_is_told_before_a_notice_and_an_earlier_rule_before_a_later() -> None:
    late, stopped = queue(latency=251.0), queue("low", 7, 900.0, paused=True)
    lost = queue("reports", 3, 10.0, processes=0)
    assert told(queues=[stopped, late]).rule == "behind"
    assert told(queues=[stopped, late, lost]).rule == "unserved"


def test_what_has_just_begun_is_told_after_two_minutes() -> None:
    verdict = judge(snapshot())
    for seconds, level in ((0, "ok"), (60, "ok"), (119, "ok"), (121, "alarm")):
        here = snapshot(at=NOW + seconds, queues=[queue(processes=0)])
        verdict = judge(here, verdict)
        assert verdict.level == level
    assert verdict.since == NOW


def test_what_has_lasted_by_itself_is_told_at_once() -> None:
    verdict = judge(snapshot(queues=[queue(latency=251.0)]), judge(snapshot()))
    assert (verdict.level, verdict.since) == ("alarm", NOW - 191.0)
    young = judge(snapshot(queues=[queue(latency=100.0)]), judge(snapshot()))
    assert young.level == "ok"


def test_what_was_never_told_is_forgotten_when_it_is_gone() -> None:
    seen = judge(snapshot(queues=[queue(processes=0)]), judge(snapshot()))
    assert judge(snapshot(at=NOW + 30), seen).seen == {}


def test_what_is_over_is_said_for_five_minutes() -> None:
    verdict = judge(snapshot(queues=[queue(latency=251.0)]))
    over = judge(snapshot(at=NOW + 10), verdict)
    assert (over.level, over.rule, over.action) == ("notice", "over", None)
    assert over.sentence == "Mailers was behind until 11:43 UTC; that is over."
    assert over.values["until"] == NOW
    assert judge(snapshot(at=NOW + 299), over).rule == "over"
    assert judge(snapshot(at=NOW + 301), over).level == "ok"


def test_what_comes_back_within_that_time_is_told_at_once_and_since_its_first_time() -> None:
    verdict = judge(snapshot(queues=[queue(processes=0)]))
    verdict = judge(snapshot(at=NOW + 60), verdict)
    verdict = judge(snapshot(at=NOW + 120, queues=[queue(processes=0)]), verdict)
    assert (verdict.rule, verdict.since) == ("unserved", NOW)


def test_what_holds_is_told_before_what_is_over() -> None:
    verdict = judge(snapshot(processes=[], queues=[queue()]))
    verdict = judge(snapshot(at=NOW + 10, queues=[queue(paused=True, latency=900.0)]), verdict)
    assert (verdict.rule, verdict.level) == ("paused", "notice")


# -- words ---------------------------------------------------------------------------------------------------------


def test_durations_are_short() -> None:
    assert [span(seconds) for seconds in (-1, 0, 45, 89, 90, 240, 5_399, 5_400, 129_599, 129_600)] == [
        "0 s",
        "0 s",
        "45 s",
        "89 s",
        "2 min",
        "4 min",
        "90 min",
        "2 h",
        "36 h",
        "2 days",
    ]
    assert [length(ms) for ms in (3.2, 999, 2_100, 59_000, 240_000)] == ["3 ms", "999 ms", "2.1 s", "59.0 s", "4 min"]


numbers = st.integers(0, 10**7)
times = st.floats(0, 1e6)
queues_of_any_kind = st.builds(
    QueueNow,
    name=st.text(max_size=5),
    size=numbers,
    latency=times,
    paused=st.booleans(),
    fault=st.none() | st.text(max_size=5),
    processes=numbers,
    slots=numbers,
    growth=st.none() | st.floats(-1e6, 1e6),
)
classes_of_any_kind = st.builds(
    ClassTimes,
    klass=st.text(max_size=5),
    minutes=st.lists(st.tuples(st.floats(NOW - 4_000, NOW + 100), numbers, numbers, st.floats(0, 1e9)), max_size=8),
)
servers_of_any_kind = st.builds(
    ServerFacts,
    store=st.just(""),
    version=st.just(""),
    uptime_days=numbers,
    connections=numbers,
    memory=numbers,
    peak=numbers,
    limit=numbers,
    policy=st.sampled_from(["", "noeviction", "allkeys-lru"]),
)
moments = st.builds(
    snapshot,
    at=st.floats(NOW, NOW + 1_000),
    queues=st.lists(queues_of_any_kind, max_size=4),
    processes=st.lists(st.just(WORKER), max_size=1),
    classes=st.lists(classes_of_any_kind, max_size=2),
    marks=st.lists(st.just(mark(30)), max_size=2),
    longest=st.lists(st.builds(running, times, times), max_size=2),
    server=servers_of_any_kind,
    trail=st.lists(st.builds(Point, at=st.floats(NOW - 200, NOW), sizes=st.just({}), memory=numbers), max_size=3),
)


@given(st.lists(moments, max_size=5))
def test_whatever_it_is_shown_there_is_one_sentence(shown: list[Snapshot]) -> None:
    verdict: Verdict | None = None
    for moment in sorted(shown, key=lambda each: each.at):
        verdict = judge(moment, verdict)
        assert verdict.sentence
        assert (verdict.level == "ok") == (verdict.since is None)
        assert len(verdict.seen) < 50

"""Bad input in front of a whole worker: every row that `decode` refuses or takes, odd fields, keys of the wrong type.

Whatever it is, the worker stays, the next job runs, and what can never run stands in the dead set as it was.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from pillion.config import Capsule
from pillion.errors import UsageError
from pillion.events import StoreDown
from tests.servers import Server
from tests.unit.test_bad_payloads import DEAD, RUN, job
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

ran: SimpleQueue[tuple[str, Any]] = SimpleQueue()
LEASE = 2.0


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    while not ran.empty():
        ran.get()
    with harness(server, capsules=(Capsule(concurrency=3, queues=(("broken", 0), ("default", 0))),)) as bed:
        yield bed


@pillion.job
def swallows(*args: Any) -> None:
    running = pillion.current_job()
    assert running is not None
    ran.put((running.jid, list(args)))


def survives(bed: Harness) -> None:
    bed.push("swallows", "the next job")
    assert ran.get(timeout=10)[1] == ["the next job"]


@pytest.mark.rule("move.malformed", "b9.38")
def test_all_that_can_never_run_is_buried_as_it_was_and_all_that_can_runs(bed: Harness) -> None:
    for number, (_, raw, _) in enumerate(DEAD):
        bed.raw(raw)
        bed.raw(job(b"[]", **{"class": "swallows", "jid": f"between {number}"}))
    for name, args, _ in RUN:
        bed.raw(job(args, **{"class": "swallows", "jid": name}))
    bed.start()
    between = Counter(ran.get(timeout=30)[0] for _ in DEAD)
    assert between == Counter(f"between {number}" for number in range(len(DEAD)))
    expected = {name: value for name, _, value in RUN}
    assert dict(ran.get(timeout=30) for _ in RUN) == expected
    wait_until(lambda: bed.redis.zcard("dead") == len(DEAD), what="the dead set")
    assert set(bed.redis.zrange("dead", 0, -1)) == {raw for _, raw, _ in DEAD}
    bed.settled(2 * len(DEAD) + len(RUN))
    assert not bed.redis.exists("retry", "queue:default")


ODD = [
    ("the last of two jids", b'{"class":"swallows","args":[],"jid":"a","jid":"odd"}', "odd"),
    ("no jid", b'{"class":"swallows","args":[]}', ""),
    ("another queue", job(**{"class": "swallows", "jid": "odd", "queue": "elsewhere"}), "odd"),
    ("a hostile queue", job(**{"class": "swallows", "jid": "odd", "queue": "*\n../" * 900}), "odd"),
    ("a time to come", job(**{"class": "swallows", "jid": "odd", "at": 4_000_000_000}), "odd"),
    *[
        (
            f"created at {when!r}",
            job(**{"class": "swallows", "jid": "odd", "created_at": when, "enqueued_at": when}),
            "odd",
        )
        for when in (1.5, 1795347718276, "2026-11-22T12:00:00Z", -1, None, [], "soon")
    ],
    ("a batch that is gone", job(**{"class": "swallows", "jid": "odd", "bid": "gone"}), "odd"),
    ("ten thousand tags", job(**{"class": "swallows", "jid": "odd", "tags": ["x"] * 10_000}), "odd"),
    ("a jid of lines and markup", job(**{"class": "swallows", "jid": "a\n<script>"}), "a\n<script>"),
]


@pytest.mark.parametrize(("raw", "jid"), [pytest.param(raw, jid, id=name) for name, raw, jid in ODD])
def test_an_odd_job_runs_now(bed: Harness, raw: bytes, jid: str) -> None:
    bed.raw(raw)
    bed.start()
    assert ran.get(timeout=10) == (jid, [])
    bed.settled(1)
    assert bed.redis.keys("queue:*") == []


@pytest.mark.parametrize("reason", [5, None, ValueError("gone")], ids=repr)
def test_a_reason_to_discard_is_told_in_words(reason: Any) -> None:
    with pytest.raises(UsageError, match=r"expected a reason in words, got \w+; write discard"):
        pillion.discard(reason)


def test_one_jid_in_two_jobs_runs_twice(bed: Harness) -> None:
    for number in (1, 2):
        bed.raw(job(b"[%d]" % number, **{"class": "swallows", "jid": "twin"}))
    bed.start()
    assert sorted([ran.get(timeout=10), ran.get(timeout=10)]) == [("twin", [1]), ("twin", [2])]


@pytest.mark.parametrize("found", ["string", "hash", "stream", "zset"])
def test_a_queue_of_another_type_holds_up_no_other(bed: Harness, found: str, caplog: pytest.LogCaptureFixture) -> None:
    make = {
        "string": lambda: bed.redis.set("queue:broken", "surprise"),
        "hash": lambda: bed.redis.hset("queue:broken", "a", "b"),
        "stream": lambda: bed.redis.xadd("queue:broken", {"a": "b"}),
        "zset": lambda: bed.redis.zadd("queue:broken", {"a": 1}),
    }
    make[found]()
    bed.start()
    for _ in range(20):
        survives(bed)
    assert len(re.findall("refused to touch broken", caplog.text)) == 1  # told once, then left alone for a while


@pytest.mark.leaks_keys
@pytest.mark.parametrize("broken", ["lease", "index"])
def test_a_key_of_ours_of_another_type_is_loud_and_takes_nothing(bed: Harness, broken: str) -> None:
    trouble: SimpleQueue[StoreDown] = SimpleQueue()
    bed.setup.events.subscribe(StoreDown, trouble.put)
    bed.start()
    survives(bed)
    bed.settled(1)
    key = "pillion:lease"
    if broken == "index":
        (key,) = (name.decode() for name in bed.redis.keys("pillion:inf:*"))
    with bed.redis.pipeline(transaction=True) as pipe:
        pipe.delete(key).set(key, "surprise").lpush("queue:default", job(**{"class": "swallows", "jid": "waits"}))
        pipe.execute()
    assert "WRONGTYPE" in str(trouble.get(timeout=10).error)
    assert bed.redis.llen("queue:default") == 1
    assert ran.empty()
    bed.redis.delete(key)
    assert ran.get(timeout=20) == ("waits", [])


@pytest.mark.parametrize("score", ["+inf", "9e15", "-inf", "0"])
def test_a_lease_that_somebody_edited_is_put_right_by_the_next_step(bed: Harness, score: str) -> None:
    bed.start()
    survives(bed)
    ((owner, _),) = bed.redis.zrange("pillion:lease", 0, -1, withscores=True)
    bed.redis.zadd("pillion:lease", {owner: score})
    survives(bed)
    seconds, micros = bed.redis.time()
    now = seconds * 1000 + micros / 1000
    wait_until(
        lambda: now < (bed.redis.zscore("pillion:lease", owner) or 0) <= now + (LEASE + 30) * 1000, what="a sane lease"
    )
    assert [name for name, _ in bed.redis.zrange("pillion:lease", 0, -1, withscores=True)] == [owner]


def test_a_payload_in_the_schedule_that_is_no_job_is_buried_with_what_stands_beside_it_moved(bed: Harness) -> None:
    for number, (_, raw, _) in enumerate(DEAD):
        bed.redis.zadd("schedule", {raw: 1.0 + number})
    bed.redis.zadd("schedule", {job(**{"class": "swallows", "jid": "due"}): 1000.0, "never": "+inf"})
    bed.start()
    assert ran.get(timeout=20) == ("due", [])
    wait_until(lambda: bed.redis.zcard("dead") == len(DEAD), what="the dead set")
    assert bed.redis.zrange("schedule", 0, -1) == [b"never"]
    assert set(bed.redis.zrange("dead", 0, -1)) == {raw for _, raw, _ in DEAD}

"""Queues as people see them: walks that miss nothing while the queue moves, exact deletions, pause."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

import pillion
from pillion import Client, PayloadError, Refused, Worker
from pillion.api import Queue, Queues, QueueSummary, Stats
from pillion.store import reads, repair
from pillion.store.reads import Place
from tests.api.conftest import NOW, Clock, NewClient, Say, job
from tests.waiting import wait_until


def fill(look: redis.Redis, count: int, queue: str = "default") -> list[str]:
    """Jobs with the jids j0, j1, ..., the first being the oldest."""
    jids = [f"j{n}" for n in range(count)]
    look.lpush(f"queue:{queue}", *(job(jid, n) for n, jid in enumerate(jids)))
    look.sadd("queues", queue)
    return jids


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("api.queue-size", "api.latency")
def test_size_and_latency(say: Say, client: Client, look: redis.Redis) -> None:
    queue = Queue(client=client)
    assert (say(queue.size), say(queue.latency)) == (0, 0.0)
    look.lpush("queue:default", job("old", enqueued_at=int((NOW - 90) * 1000)), job("new", enqueued_at=int(NOW * 1000)))
    assert (say(queue.size), say(queue.latency)) == (2, 90.0)


@pytest.mark.rule("b9.45", "api.latency")
@pytest.mark.parametrize(
    ("tail", "latency"),
    [
        (b"{}", 0.0),
        (b"not json", 0.0),
        (job("j", enqueued_at=NOW - 7.5), 7.5),  # seconds, as Sidekiq 7 writes them
        (job("j", enqueued_at=int(NOW * 1000) - 7500), 7.5),
        (job("j", created_at=NOW - 3.5), 3.5),
        (job("j", enqueued_at="soon"), 0.0),
        (job("j", enqueued_at=NOW + 60.5), 0.0),  # pushed by a host whose clock is ahead
    ],
)
def test_latency_whoever_wrote_the_oldest_job(
    say: Say, client: Client, look: redis.Redis, tail: bytes, latency: float
) -> None:
    look.lpush("queue:default", tail, job("new", enqueued_at=NOW))
    assert say(Queue(client=client).latency) == pytest.approx(latency)


@pytest.mark.rule("api.queue-all", "api.queues")
def test_all_queues_by_name_and_by_size(say: Say, client: Client, look: redis.Redis) -> None:
    fill(look, 2, "b")
    fill(look, 3, "c")
    look.sadd("queues", "a")
    assert [queue.name for queue in say.walk(Queues(client))] == ["a", "b", "c"]
    assert [queue.name for queue in say(Queues(client).all)] == ["a", "b", "c"]
    assert list(say(Queues(client).sizes).items()) == [("c", 3), ("b", 2), ("a", 0)]
    assert list(say(Stats(client).queues).items()) == [("c", 3), ("b", 2), ("a", 0)]


@pytest.mark.rule("api.summaries", instead=True)
def test_what_cannot_be_read_spoils_no_other_summary(say: Say, client: Client, look: redis.Redis) -> None:
    look.lpush("queue:good", job("j", enqueued_at=NOW - 2.5))
    look.lpush("queue:bad", b"not json", b"not json")
    look.set("queue:string", "text")
    look.sadd("queues", "good", "bad", "string", "empty")
    look.sadd("paused", "good")
    found = say(Stats(client).queue_summaries)
    assert found[:2] == [QueueSummary("bad", 2, 0.0, False), QueueSummary("good", 1, 2.5, True)]
    by_name = {summary.name: summary for summary in found[2:]}
    assert by_name["empty"] == QueueSummary("empty", 0, 0.0, False)
    assert by_name["string"].size == 0
    assert "WRONGTYPE" in by_name["string"].fault
    assert say(Stats(client).read).queues == {"bad": 2, "good": 1, "empty": 0, "string": 0}


def test_a_queue_of_the_wrong_type_says_so(say: Say, client: Client, look: redis.Redis) -> None:
    look.set("queue:default", "text")
    with pytest.raises(Refused, match="WRONGTYPE"):
        say.walk(Queue(client=client))


# --- walking ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("api.queue-each", instead=True)
def test_a_walk_goes_from_the_newest_job_to_the_oldest(say: Say, client: Client, look: redis.Redis) -> None:
    jids = fill(look, 130)
    found = say.walk(Queue(client=client))
    assert [each.jid for each in found] == jids[::-1]
    assert [each.position for each in found] == list(range(130, 0, -1))
    assert say.walk(Queue("empty", client)) == []


@pytest.mark.rule("b9.44")
@pytest.mark.parametrize("every", [1, 2, 3])
def test_deleting_while_walking_visits_every_job(say: Say, client: Client, look: redis.Redis, every: int) -> None:
    jids = fill(look, 160)
    visited = say.each(Queue(client=client), lambda each: each.delete() if int(each.jid[1:]) % every == 0 else None)
    assert [each.jid for each in visited] == jids[::-1]
    left = [json.loads(raw)["jid"] for raw in look.lrange("queue:default", 0, -1)]
    assert left == [jid for jid in jids[::-1] if int(jid[1:]) % every]


@pytest.mark.rule("api.queue-each", instead=True)
def test_what_waits_all_the_while_is_seen_once_while_jobs_come_and_go(
    say: Say, client: Client, look: redis.Redis
) -> None:
    """Workers take the oldest, give one back to the head, clients push: Sidekiq's walk repeats and skips here."""
    jids = fill(look, 200)
    steps = 0

    def move(_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps % 10 == 0:
            look.rpop("queue:default", 3)
            look.lpush("queue:default", job(f"new{steps}"))
            look.rpush("queue:default", job(f"back{steps}"))

    seen = [each.jid for each in say.each(Queue(client=client), move)]
    waited = {json.loads(raw)["jid"] for raw in look.lrange("queue:default", 0, -1)} & set(jids)
    assert len(waited) > 100
    assert waited <= set(seen)
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("taken", [0, 5, 50, 60])
def test_from_the_oldest_on_nothing_is_missed_either(say: Say, client: Client, look: redis.Redis, taken: int) -> None:
    jids = fill(look, 120)
    queue = Queue(client=client)
    first = say(queue.page, oldest_first=True)
    assert [each.jid for each in first.entries] == jids[:50]
    if taken:
        look.rpop("queue:default", taken)
    look.lpush("queue:default", job("new"))
    rest, after = [], first.next
    while after is not None:
        page = say(queue.page, after, oldest_first=True)
        rest += [each.jid for each in page.entries]
        after = page.next
    assert rest == [*jids[max(50, taken) :], "new"]


def test_pages_are_bounded_by_bytes(say: Say, client: Client, look: redis.Redis) -> None:
    look.lpush("queue:default", *(job(f"j{n}", "x" * 400_000) for n in range(5)))
    page = say(Queue(client=client).page)
    assert [each.jid for each in page.entries] == ["j4", "j3", "j2"]
    assert [each.jid for each in say(Queue(client=client).page, page.next).entries] == ["j1", "j0"]
    assert page.next == page.entries[-1].place


def test_a_walk_may_look_for_text(say: Say, client: Client, look: redis.Redis) -> None:
    fill(look, 5_000)
    look.lpush("queue:default", job("needle", "hay"))
    fill(look, 10)
    queue = Queue(client=client)
    assert [each.jid for each in say.walk(queue.scan('"hay"'))] == ["needle"]
    assert say.walk(queue.scan("[")) != []
    assert say.walk(queue.scan("nowhere")) == []


@pytest.mark.rule("api.record-bad")
def test_what_is_no_json_is_shown_raw(say: Say, client: Client, look: redis.Redis) -> None:
    look.lpush("queue:default", b"not \xff json", b'"text"', b"{}", b'{"args":' + b"[" * 2_000)
    deep, empty, text, bad = say.walk(Queue(client=client))
    assert (bad.item, bad.args, bad.jid, bad.klass) == ({}, ["not \ufffd json"], "", None)
    assert (text.item, empty.item, deep.item) == ({}, {}, {})
    assert (deep.fault or "").startswith("nested deeper")
    assert say(bad.delete)
    assert look.llen("queue:default") == 3


# --- finding and deleting ---------------------------------------------------------------------------------------------


@pytest.mark.rule("api.find-job")
def test_a_job_is_found_by_its_own_jid_only(say: Say, client: Client, look: redis.Redis) -> None:
    jids = fill(look, 4_100)
    look.lpush("queue:default", job("other", "j1", {"jid": "j1"}))
    queue = Queue(client=client)
    assert say(queue.find_job, "j1").args == [1]
    assert say(queue.find_job, jids[-1]).jid == jids[-1]
    assert say(queue.find_job, "j4100") is None


def test_an_odd_jid_is_found_too(say: Say, client: Client, look: redis.Redis) -> None:
    for jid in ('a"b', "é", "a/b", "a.b*"):
        look.lpush("queue:default", job(jid), job("a.bc"))
        assert say(Queue(client=client).find_job, jid).jid == jid


@pytest.mark.rule("api.delete", "move.by-hand")
def test_a_job_is_deleted_once_by_its_exact_bytes(say: Say, client: Client, look: redis.Redis) -> None:
    spaced = b'{ "jid": "j",  "class":"Plain","args":[1.0e+20], "big":123456789012345678901234567890 }'
    look.lpush("queue:default", job("a"), spaced, job("b"))
    queue = Queue(client=client)
    found = say(queue.find_job, "j")
    assert found.value == spaced
    assert say(found.delete) is True
    assert say(found.delete) is False
    assert look.lrange("queue:default", 0, -1) == [job("b"), job("a")]


@pytest.mark.parametrize("shift", [-1, 1, 400, 900, -900])
def test_a_job_that_has_moved_is_deleted_where_it_is(say: Say, client: Client, look: redis.Redis, shift: int) -> None:
    jids = fill(look, 2_000)
    found = say(Queue(client=client).find_job, "j1000")
    if shift < 0:
        look.rpop("queue:default", -shift)
    else:
        look.rpush("queue:default", *(job(f"back{n}") for n in range(shift)))
    before = look.llen("queue:default")
    assert say(found.delete) is True
    assert look.llen("queue:default") == before - 1
    assert job("j1000", 1000) not in look.lrange("queue:default", 0, -1)
    assert say(Queue(client=client).find_job, jids[1_001]) is not None


def test_of_twins_one_is_deleted(say: Say, client: Client, look: redis.Redis) -> None:
    look.lpush("queue:default", job("twin"), job("twin"), job("twin"))
    first, _, last = say.walk(Queue(client=client))
    assert say(last.delete)
    assert say(first.delete)
    assert look.lrange("queue:default", 0, -1) == [job("twin")]


@pytest.mark.rule("api.delete-job")
def test_a_job_is_deleted_by_its_jid(say: Say, client: Client, look: redis.Redis) -> None:
    fill(look, 300)
    queue = Queue(client=client)
    assert say(queue.delete_job, "j150") is True
    assert say(queue.delete_job, "j150") is False
    assert look.llen("queue:default") == 299


@pytest.mark.rule("api.delete-job")
def test_all_jobs_of_a_class_are_deleted_and_no_others(say: Say, client: Client, look: redis.Redis) -> None:
    wrapper = {"class": "Sidekiq::ActiveJob::Wrapper", "wrapped": "Mail"}
    for n in range(1_200):
        fields = [{"class": "Mail"}, {"class": "Other", "of": "Mail"}, wrapper][n % 3]
        look.lpush("queue:default", job(f"j{n}", n, **fields))
    assert say(Queue(client=client).delete_by_class, "Mail") == 800
    left = [json.loads(raw)["jid"] for raw in look.lrange("queue:default", 0, -1)[::-1]]
    assert left == [f"j{n}" for n in range(1_200) if n % 3 == 1]


def test_what_is_cut_out_is_never_more_than_asked(say: Say, client: Client, look: redis.Redis) -> None:
    """Jobs that workers took between the page and the cut are not there; those around them stay."""
    fill(look, 50)
    page = say(Queue(client=client).page)
    look.rpop("queue:default", 10)
    look.lpush("queue:default", job("new"))
    assert sum(say(each.delete) for each in page.entries) == 40
    assert look.lrange("queue:default", 0, -1) == [job("new")]


@pytest.mark.parametrize("moved", [-900, 900])
def test_many_jobs_that_have_all_moved_far_are_still_cut_out(client: Client, look: redis.Redis, moved: int) -> None:
    """One search tells how far: a page of deletions never costs a search for each job."""
    fill(look, 3_000)
    found, _ = client.store.run(reads.queue_page("queue:default", Place(2_001, b""), most=20))
    if moved < 0:
        look.rpop("queue:default", -moved)
    else:
        look.rpush("queue:default", *(job(f"back{n}") for n in range(moved)))
    gone = Place(1_990, job("never there"))
    done = client.store.run(repair.cut("queue:default", [gone, *found], "no job"))
    assert done == [False, *[True] * 20]
    assert look.llen("queue:default") == 3_000 + moved - 20
    assert not {place.raw for place in found} & {*look.lrange("queue:default", 0, -1)}


@pytest.mark.rule("api.clear", "move.by-hand")
def test_clearing_takes_jobs_and_name_and_nothing_else(say: Say, client: Client, look: redis.Redis) -> None:
    fill(look, 3)
    fill(look, 2, "other")
    look.rpush("pillion:inf:owner:1", job("claimed"))
    assert say(Queue(client=client).clear) == 3
    assert say(Queue(client=client).clear) == 0
    assert look.smembers("queues") == {b"other"}
    assert look.exists("queue:default") == 0
    assert look.llen("queue:other") == 2
    assert look.exists("pillion:inf:owner:1") == 1


# --- pausing ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("api.paused")
@pytest.mark.rule("feature.pause", instead=True)
def test_a_paused_queue_is_not_served_until_it_is_resumed(say: Say, new_client: NewClient, look: redis.Redis) -> None:
    ran: list[str] = []

    class ApiPaused(pillion.Job):
        def perform(self, queue: str) -> None:
            ran.append(queue)

    client = new_client(clock=pillion.Config().clock, registry=pillion.registry.default, queues=["held", "open"])
    held, opened = Queue("held", client), Queue("open", client)
    assert say(held.is_paused) is False
    assert (say(held.pause), say(held.pause), say(held.is_paused)) == (True, False, True)
    assert look.smembers("paused") == {b"held"}
    worker = Worker(client.setup, embedded=True)
    worker.start()
    try:
        for queue in ("held", "open"):
            ApiPaused.set(client=client, queue=queue).perform_async(queue)
        wait_until(lambda: ran, what="the job in the open queue")
        assert (ran, say(held.size), say(opened.size)) == (["open"], 1, 0)
        assert (say(held.resume), say(held.resume)) == (True, False)
        wait_until(lambda: len(ran) == 2, what="the job in the queue that was paused")
        assert look.exists("paused") == 0
    finally:
        assert worker.stop(5) == []


def test_a_name_that_no_queue_can_have_is_not_paused(say: Say, client: Client, look: redis.Redis) -> None:
    with pytest.raises(PayloadError, match="queue name"):
        say(Queue("no such\nqueue", client).pause)
    assert look.exists("paused") == 0


def test_latency_follows_the_clock(client: Client, clock: Clock, look: redis.Redis) -> None:
    look.lpush("queue:default", job("j", enqueued_at=NOW))
    [record] = Queue(client=client)
    assert record.latency == 0
    clock.at += 12.5
    assert record.latency == 12.5

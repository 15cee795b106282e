"""Schedule, retry set and dead set as people see them: walks, single moves, and all entries at once."""

from __future__ import annotations

import json
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from pillion import Client, PayloadError, Refused, UsageError
from pillion.api import Bulk, DeadSet, Queue, RetrySet, ScheduledSet, Stats, moving
from pillion.api.faces import run
from pillion.errors import BadPayload
from tests.api.conftest import NOW, Clock, NewClient, Say, job
from tests.servers import Server

SETS = {"schedule": ScheduledSet, "retry": RetrySet, "dead": DeadSet}


def fill(look: redis.Redis, key: str, count: int, at: float = NOW, step: float = 1.0, **fields: Any) -> list[str]:
    """Entries j00000, j00001, ...; their jids in the order of the set, by score and then by bytes."""
    look.zadd(key, {job(f"j{n:05}", n, **fields): at + n * step for n in range(count)})
    return [json.loads(raw)["jid"] for raw in look.zrange(key, 0, -1)]


def members(look: redis.Redis, key: str) -> dict[bytes, float]:
    return dict(look.zrange(key, 0, -1, withscores=True))


def queued(look: redis.Redis, queue: str = "default") -> list[dict[str, Any]]:
    """The jobs of a queue, the one that is taken next first."""
    return [json.loads(raw) for raw in look.lrange(f"queue:{queue}", 0, -1)[::-1]]


# --- walking and finding ----------------------------------------------------------------------------------------------


@pytest.mark.rule("api.set-each", "api.set-size")
@pytest.mark.parametrize("key", SETS)
def test_a_walk_goes_from_the_highest_score_down(say: Say, client: Client, look: redis.Redis, key: str) -> None:
    jids = fill(look, key, 130)
    entries = SETS[key](client)
    found = say.walk(entries)
    assert [each.jid for each in found] == jids[::-1]
    assert [each.score for each in found] == [NOW + n for n in reversed(range(130))]
    assert say(entries.size) == 130
    up = say(entries.page, lowest_first=True)
    assert [each.jid for each in up.entries] == jids[:50]
    assert [each.jid for each in say(entries.page, up.next, 100, lowest_first=True).entries] == jids[50:]


@pytest.mark.rule("b9.44")
@pytest.mark.parametrize("step", [1.0, 0.0], ids=["apart", "one-score"])
@pytest.mark.parametrize("every", [1, 3])
def test_deleting_while_walking_visits_every_entry_once(
    say: Say, client: Client, look: redis.Redis, every: int, step: float
) -> None:
    jids = fill(look, "retry", 160, step=step)
    doomed = {jid for n, jid in enumerate(jids) if n % every == 0}
    entries = RetrySet(client)
    visited = say.each(entries, lambda each: each.delete() if each.jid in doomed else None)
    assert [each.jid for each in visited] == jids[::-1]
    assert [each.jid for each in say.walk(entries)] == [jid for jid in jids[::-1] if jid not in doomed]


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("step", [1.0, 0.0], ids=["apart", "one-score"])
def test_what_stands_all_the_while_is_seen_once(
    say: Say, client: Client, look: redis.Redis, step: float, up: bool
) -> None:
    """Between two pages the entry read last goes, or gets another score; others come before and behind it."""
    jids = fill(look, "retry", 200, step=step)
    entries, seen, after = RetrySet(client), list[str](), None
    while True:
        page = say(entries.page, after, 20, lowest_first=up)
        seen += [each.jid for each in page.entries]
        after = page.next
        if after is None:
            break
        if len(seen) % 40:
            look.zrem("retry", after.raw)
        else:
            look.zadd("retry", {after.raw: NOW - 1_000 if up else NOW + 1_000})
        look.zadd("retry", {job(f"low{len(seen)}"): NOW - 500, job(f"high{len(seen)}"): NOW + 500})
    ours = [jid for jid in seen if jid.startswith("j")]
    assert ours == (jids if up else jids[::-1])


def test_pages_are_bounded_by_bytes(say: Say, client: Client, look: redis.Redis) -> None:
    look.zadd("dead", {job(f"j{n}", "x" * 400_000): NOW + n for n in range(5)})
    page = say(DeadSet(client).page)
    assert [each.jid for each in page.entries] == ["j4", "j3", "j2"]
    assert [each.jid for each in say(DeadSet(client).page, page.next).entries] == ["j1", "j0"]
    assert page.next == page.entries[-1].spot


def test_scores_that_no_clock_has_are_walked_over(say: Say, client: Client, look: redis.Redis) -> None:
    look.zadd("schedule", {b"low": "-inf", b"high": "+inf", b"mid": 1.5, b"small": 5e-324})
    page, found = say(ScheduledSet(client).page, most=1), list[bytes]()
    while True:
        found += [each.value for each in page.entries]
        if page.next is None:
            break
        look.zrem("schedule", page.next.raw)
        page = say(ScheduledSet(client).page, page.next, 1)
    assert found == [b"high", b"mid", b"small", b"low"]


@pytest.mark.rule("api.set-scan")
def test_a_scan_finds_text_or_a_pattern_in_the_bytes(say: Say, client: Client, look: redis.Redis) -> None:
    fill(look, "retry", 3_000)
    look.zadd("retry", {job("mail", "x@example.org"): NOW})
    entries = RetrySet(client)
    assert {each.jid for each in say.walk(entries.scan("@example"))} == {"mail"}
    assert {each.jid for each in say.walk(entries.scan('*"jid": "j0000?"*'))} == {f"j0000{n}" for n in range(10)}
    assert {each.score for each in say.walk(entries.scan("mail"))} == {NOW}
    assert say.walk(entries.scan("nowhere")) == []


@pytest.mark.rule("api.set-fetch")
def test_fetch_by_score_range_and_jid(say: Say, client: Client, look: redis.Redis) -> None:
    jids = fill(look, "retry", 5)
    look.zadd("retry", {job("twin"): NOW + 2})
    entries = RetrySet(client)
    assert {each.jid for each in say(entries.fetch, NOW + 2)} == {jids[2], "twin"}
    assert [each.jid for each in say(entries.fetch, NOW + 2, "twin")] == ["twin"]
    assert [each.jid for each in say(entries.fetch, (NOW + 3, datetime.fromtimestamp(NOW + 9, UTC)))] == jids[3:]
    assert say(entries.fetch, NOW + 0.5) == []
    [entry] = say(entries.fetch, NOW)
    score, _, jid = entry.id.partition("|")
    assert [each.value for each in say(entries.fetch, float(score), jid)] == [entry.value]


@pytest.mark.rule("api.set-find")
def test_a_job_is_found_by_its_own_jid_only(say: Say, client: Client, look: redis.Redis) -> None:
    fill(look, "dead", 2_500)
    look.zadd("dead", {job("other", "j00007", {"jid": "j00007"}): NOW + 9_999, job("a[b]*?\\é"): NOW, b"j00007": NOW})
    entries = DeadSet(client)
    assert say(entries.find_job, "j00007").args == [7]
    assert say(entries.find_job, "a[b]*?\\é").score == NOW
    assert say(entries.find_job, "j0000") is None


@pytest.mark.rule("api.entry")
def test_an_entry_says_when_and_what(client: Client, look: redis.Redis) -> None:
    look.zadd("retry", {job("j", error_class="KeyError", error_message="no"): NOW + 0.25, b"bad": NOW})
    entry, bad = RetrySet(client)
    assert (entry.score, entry.at, entry.id) == (
        NOW + 0.25,
        datetime.fromtimestamp(NOW + 0.25, UTC),
        f"{NOW + 0.25!r}|j",
    )
    assert (entry.is_error, entry.error_class, entry.queue) == (True, "KeyError", "default")
    assert (bad.is_error, bad.args, bad.jid, bad.queue) == (False, ["bad"], "", None)


# --- single entries ---------------------------------------------------------------------------------------------------


@pytest.mark.rule("b9.39", "api.set-delete")
def test_of_two_with_one_score_one_is_deleted_by_jid(say: Say, client: Client, look: redis.Redis) -> None:
    look.zadd("retry", {job("a"): NOW, job("b"): NOW})
    assert say(RetrySet(client).delete_job, "a", NOW) is True
    assert members(look, "retry") == {job("b"): NOW}
    assert say(RetrySet(client).delete_job, "a", NOW) is False
    assert say(RetrySet(client).delete_job, "b", NOW + 1) is False
    assert say(RetrySet(client).delete_job, "b") is True
    assert say(RetrySet(client).delete_job, "b") is False


def test_an_entry_that_was_given_another_time_meanwhile_is_not_touched(
    say: Say, client: Client, look: redis.Redis
) -> None:
    """Somebody has rescheduled it since: what the person saw is no more."""
    look.zadd("retry", {job("j"): NOW})
    [entry] = say.walk(RetrySet(client))
    look.zadd("retry", {job("j"): NOW + 5})
    for verb in (entry.delete, entry.retry, entry.kill, entry.add_to_queue):
        assert say(verb) is False
    assert say(entry.reschedule, NOW + 9) is False
    assert entry.score == NOW
    assert members(look, "retry") == {job("j"): NOW + 5}
    assert queued(look) == []


@pytest.mark.rule("b9.43")
@pytest.mark.rule("api.reschedule", instead=True)
def test_rescheduling_changes_the_score_and_no_byte(say: Say, client: Client, look: redis.Redis) -> None:
    """Sidekiq serialises the job anew: other spacing makes a second entry there."""
    spaced = b'{ "class":"Plain", "args":[1.0e+20, "\\u00e9"],  "jid":"j" }'
    look.zadd("schedule", {spaced: NOW})
    [entry] = say.walk(ScheduledSet(client))
    assert say(entry.reschedule, datetime.fromtimestamp(NOW + 300, UTC)) is True
    assert entry.score == NOW + 300
    assert members(look, "schedule") == {spaced: NOW + 300}
    assert say(entry.reschedule, NOW + 600.5) is True
    assert members(look, "schedule") == {spaced: NOW + 600.5}
    with pytest.raises(PayloadError, match="naive"):
        say(entry.reschedule, datetime(2030, 1, 1))  # noqa: DTZ001


@pytest.mark.rule("b9.40", "api.retry")
@pytest.mark.parametrize(("count", "then"), [(2, 1), (0, -1), (None, None), ("odd", "odd")])
def test_retrying_by_hand_takes_one_off_the_count(
    say: Say, client: Client, look: redis.Redis, count: Any, then: Any
) -> None:
    fields = {} if count is None else {"retry_count": count}
    look.zadd("retry", {job("j", 1, enqueued_at=1, **fields): NOW + 100, job("other"): NOW + 100})
    [entry] = say(RetrySet(client).fetch, NOW + 100, "j")
    assert say(entry.retry) is True
    assert say(entry.retry) is False
    assert members(look, "retry") == {job("other"): NOW + 100}
    [pushed] = queued(look)
    assert (pushed["jid"], pushed.get("retry_count"), pushed["enqueued_at"]) == ("j", then, int(NOW * 1000))
    assert look.smembers("queues") == {b"default"}


@pytest.mark.rule("api.add-to-queue")
def test_adding_to_the_queue_keeps_the_count_and_every_other_byte(say: Say, client: Client, look: redis.Redis) -> None:
    raw = b'{"class":"Plain","args":[1.0e+20,"\\u00e9"],"jid":"j","queue":"late","retry_count":2}'
    look.zadd("schedule", {raw: NOW + 100})
    [entry] = say.walk(ScheduledSet(client))
    assert say(entry.add_to_queue) is True
    assert look.lrange("queue:late", 0, -1) == [raw[:-1] + b',"enqueued_at":%d}' % int(NOW * 1000)]
    assert look.exists("schedule") == 0


@pytest.mark.parametrize("wire", ["8", "7", "6"])
def test_the_time_of_the_push_has_the_form_of_the_wire(
    say: Say, new_client: NewClient, look: redis.Redis, wire: str
) -> None:
    look.zadd("retry", {job("j"): NOW})
    [entry] = say.walk(RetrySet(new_client(wire=wire)))
    assert say(entry.retry)
    stored = queued(look)[0]["enqueued_at"]
    assert (stored, type(stored)) == ((int(NOW * 1000), int) if wire == "8" else (NOW, float))


@pytest.mark.rule("api.add-to-queue")
def test_client_middleware_sees_a_job_that_is_moved_by_hand(say: Say, client: Client, look: redis.Redis) -> None:
    def choose(job_class: object, payload: dict[str, Any], queue: str, pool: object) -> Generator[None]:
        assert (job_class, queue) == ("Plain", "default")
        if payload["args"] == ["stop"]:
            return
        if payload["args"] == ["raise"]:
            raise LookupError("no such tenant")
        payload["queue"] = "chosen"
        yield

    client.setup.client_middleware.add(choose)
    look.zadd("retry", {job("a"): NOW, job("b", "stop"): NOW + 1, job("c", "raise"): NOW + 2})
    c, b, a = say.walk(RetrySet(client))
    with pytest.raises(LookupError, match="no such tenant"):
        say(c.retry)
    assert say(b.retry) is False  # stopped, and so removed, as when the poller meets it
    assert say(a.retry) is True
    assert [each["jid"] for each in queued(look, "chosen")] == ["a"]
    assert members(look, "retry") == {job("c", "raise"): NOW + 2}


@pytest.mark.parametrize("middleware", [False, True])
def test_a_job_in_its_queue_has_no_time_any_more(say: Say, client: Client, look: redis.Redis, middleware: bool) -> None:
    """Sidekiq never stores `at`; other programs do, and it would send the job back to the schedule if pushed again."""

    def through(job_class: object, payload: dict[str, Any], queue: str, pool: object) -> Generator[None]:
        yield

    if middleware:
        client.setup.client_middleware.add(through)
    look.zadd("schedule", {job("j", at=NOW + 5): NOW + 5})
    assert say(say.walk(ScheduledSet(client))[0].add_to_queue)
    [pushed] = queued(look)
    assert "at" not in pushed


@pytest.mark.parametrize("raw", [b"not json", b'{"class":"Plain","args":[],"jid":"j"}', job("j", queue=7)])
def test_what_cannot_be_queued_stays_and_says_why(say: Say, client: Client, look: redis.Redis, raw: bytes) -> None:
    look.zadd("dead", {raw: NOW})
    [entry] = say.walk(DeadSet(client))
    with pytest.raises(BadPayload):
        say(entry.retry)
    assert members(look, "dead") == {raw: NOW}
    assert say(entry.delete)


def test_what_the_server_refuses_stays_as_it_was(say: Say, client: Client, look: redis.Redis) -> None:
    look.zadd("retry", {job("j"): NOW + 50})
    look.set("queue:default", "text")
    look.set("dead", "text")
    [entry] = say.walk(RetrySet(client))
    with pytest.raises(Refused, match=r"WRONGTYPE.*stays where it was"):
        say(entry.retry)
    with pytest.raises(Refused, match="WRONGTYPE"):
        say(entry.kill)
    with pytest.raises(Refused, match="WRONGTYPE"):
        say(RetrySet(client).kill_all)
    assert members(look, "retry") == {job("j"): NOW + 50}


@pytest.mark.rule("api.remove-job", instead=True)
def test_neighbours_of_one_score_never_leave_the_set(say: Say, client: Client, server: Any, look: redis.Redis) -> None:
    """Sidekiq takes all of one score out and puts the others back; here only the one is ever touched."""
    fill(look, "retry", 20, step=0.0)
    with server.client() as other, other.monitor() as monitor:
        [entry] = say(RetrySet(client).fetch, NOW, "j00007")
        assert say(entry.retry)
        look.ping()
        written = []
        for heard in iter(monitor.next_command, None):
            if heard["command"] == "PING":
                break
            written += [heard["command"]] if heard["command"].split()[0] in {"ZREM", "ZADD", "ZREMRANGEBYSCORE"} else []
    assert len(written) == 1
    assert written[0].startswith("ZREM retry")
    assert look.zcard("retry") == 19


# --- death ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def deaths(client: Client) -> list[tuple[dict[str, Any], BaseException]]:
    """What this process's death handlers heard; one raises, one is a coroutine."""
    heard: list[tuple[dict[str, Any], BaseException]] = []

    def broken(dead: dict[str, Any], error: BaseException) -> None:
        raise RuntimeError("a broken handler")

    async def listening(dead: dict[str, Any], error: BaseException) -> None:
        heard.append((dead, error))

    client.setup.death_handlers += [broken, listening]
    return heard


@pytest.mark.rule("b9.42", "api.dead-kill", "move.by-hand")
def test_killing_by_hand_tells_death_handlers_once_or_not(
    say: Say, client: Client, look: redis.Redis, deaths: list[tuple[dict[str, Any], BaseException]]
) -> None:
    assert say(DeadSet(client).kill, job("quiet"), notify_failure=False) is True
    assert deaths == []
    assert say(DeadSet(client).kill, job("loud", 1)) is True
    [(dead, error)] = deaths
    assert (dead["jid"], dead["args"], type(error), str(error)) == ("loud", [1], RuntimeError, "Job killed by API")
    given = KeyError("own")
    assert say(DeadSet(client).kill, {"class": "Plain", "args": [], "jid": "fields"}, ex=given) is True
    assert deaths[1][1] is given
    assert len(members(look, "dead")) == 3
    assert set(members(look, "dead").values()) == {NOW}


@pytest.mark.rule("api.entry-kill")
def test_killing_an_entry_moves_its_bytes_and_tells(
    say: Say, client: Client, look: redis.Redis, deaths: list[tuple[dict[str, Any], BaseException]]
) -> None:
    raw = b'{ "class":"Plain","args":[1.0e+20],"jid":"j" }'
    look.zadd("retry", {raw: NOW + 50, job("quiet"): NOW})
    entry, quiet = say.walk(RetrySet(client))
    assert say(entry.kill) is True
    assert say(entry.kill) is False
    assert say(quiet.kill, notify_failure=False) is True
    assert members(look, "dead") == {raw: NOW, job("quiet"): NOW}
    assert [dead["jid"] for dead, _ in deaths] == ["j"]
    with pytest.raises(UsageError, match="dead set"):
        say(say.walk(DeadSet(client))[0].kill)
    with pytest.raises(UsageError, match="dead set"):
        say(DeadSet(client).kill_all)
    assert look.zcard("dead") == 2


@pytest.mark.rule("api.dead-trim")
def test_the_dead_set_is_trimmed_by_age_and_number(say: Say, new_client: NewClient, look: redis.Redis) -> None:
    client = new_client(dead_max_jobs=3, dead_timeout_in_seconds=100)
    look.zadd("dead", {job(f"j{n}"): NOW - 30 * n for n in range(6)})
    assert say(DeadSet(client).trim) == 4
    assert list(members(look, "dead")) == [job("j1"), job("j0")]
    say(DeadSet(client).kill, job("untrimmed"), trim=False, notify_failure=False)
    assert look.zcard("dead") == 3
    say(DeadSet(client).kill, job("trimmed"), notify_failure=False)
    assert look.zcard("dead") == 2


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("b9.41", "api.kill-all")
def test_killing_all(say: Say, new_client: NewClient, look: redis.Redis) -> None:
    client, heard = new_client(dead_max_jobs=1_000), list[str]()
    client.setup.death_handlers.append(lambda dead, error: heard.append(dead["jid"]))
    jids = fill(look, "retry", 500)
    tally = say(RetrySet(client).kill_all)
    assert (tally.moved, tally.failed, tally.gone, look.zcard("retry"), look.zcard("dead")) == (500, 0, 0, 0, 500)
    assert heard == []
    fill(look, "schedule", 3)
    assert say(ScheduledSet(client).kill_all, notify_failure=True).moved == 3
    assert heard == jids[:3]


@pytest.mark.rule("api.retry-all", instead=True)
@pytest.mark.parametrize("key", SETS)
def test_retrying_all_moves_each_once_lowest_first(say: Say, client: Client, look: redis.Redis, key: str) -> None:
    jids = fill(look, key, 650, retry_count=3)
    tally = say(SETS[key](client).retry_all)
    assert (tally.moved, tally.stopped, tally.gone, tally.failed, tally.newer) == (650, 0, 0, 0, 0)
    assert look.zcard(key) == 0
    assert [(each["jid"], each["retry_count"]) for each in queued(look)] == [(jid, 2) for jid in jids]
    assert say(SETS[key](client).retry_all).moved == 0


@pytest.mark.rule("api.add-all")
def test_adding_all_scheduled_jobs_to_their_queues(say: Say, client: Client, look: redis.Redis) -> None:
    jids = fill(look, "schedule", 300, retry_count=3)
    assert say(ScheduledSet(client).add_all_to_queue).moved == 300
    assert [(each["jid"], each["retry_count"]) for each in queued(look)] == [(jid, 3) for jid in jids]


@pytest.mark.rule("api.retry-all", instead=True)
def test_what_cannot_be_moved_holds_up_no_other(say: Say, client: Client, look: redis.Redis) -> None:
    """Sidekiq has popped it by then, and stops there."""

    def choose(job_class: object, payload: dict[str, Any], queue: str, pool: object) -> Generator[None]:
        if payload["args"] == [2]:
            return
        if payload["args"] == [3]:
            raise LookupError("no such tenant")
        yield

    client.setup.client_middleware.add(choose)
    jids = fill(look, "retry", 6)
    look.zadd("retry", {b"not json": NOW, job("refused", queue="string"): NOW, job("last"): NOW + 1})
    look.set("queue:string", "text")
    tally = say(RetrySet(client).retry_all)
    assert (tally.moved, tally.stopped, tally.gone, tally.failed) == (5, 1, 0, 3)
    assert {fault.jid for fault in tally.faults} == {"", jids[3], "refused"}
    assert {each.value for each in say.walk(RetrySet(client))} == {
        b"not json",
        job(jids[3], 3),
        job("refused", queue="string"),
    }
    assert len(queued(look)) == 5


@pytest.mark.rule("api.retry-all", "api.set-pop", instead=True)
@pytest.mark.parametrize("ahead", [15, 20_000, 100_000], ids=["behind", "ahead", "beyond"])
def test_what_fails_again_at_once_is_not_retried_for_ever(
    say: Say, client: Client, clock: Clock, look: redis.Redis, ahead: float
) -> None:
    """Each job that is moved comes back as a failure of this moment, before and behind where the walk stands."""

    def fail_again(job_class: object, payload: dict[str, Any], queue: str, pool: object) -> Generator[None]:
        clock.at += 0.001
        failed = job(payload["jid"], "again", retry_count=payload["retry_count"] + 1, failed_at=int(clock.at * 1000))
        look.zadd("retry", {failed: clock.at + ahead})
        yield

    client.setup.client_middleware.add(fail_again)
    jids = fill(look, "retry", 450, step=60.0, retry_count=3)
    tally = say(RetrySet(client).retry_all)
    assert tally.moved == 450
    assert [each["jid"] for each in queued(look)] == jids
    assert look.zcard("retry") == 450
    assert {entry.args[0] for entry in RetrySet(client)} == {"again"}


def test_a_walk_ends_although_clocks_disagree(say: Say, client: Client, look: redis.Redis) -> None:
    """A worker whose clock is behind stamps its failures with the past: the count of the snapshot still ends it."""

    def fail_again(job_class: object, payload: dict[str, Any], queue: str, pool: object) -> Generator[None]:
        count = payload["retry_count"] + 2
        failed = job(payload["jid"], retry_count=count, failed_at=1_000)
        look.zadd("retry", {failed: NOW + 100_000 - 1 / count})
        yield

    client.setup.client_middleware.add(fail_again)
    fill(look, "retry", 300, retry_count=0)
    look.zadd("retry", {job("top", retry_count=0): NOW + 100_000})
    assert say(RetrySet(client).retry_all).moved == 301


def test_a_walk_can_be_kept_and_gone_on_with(client: Client, look: redis.Redis) -> None:
    """A batch that was done although its progress was lost is not done twice."""
    jids = fill(look, "retry", 500, retry_count=1)
    entries = RetrySet(client)

    def decide(entry: Any) -> Any:
        return moving.to_queue(entries, entry, by_hand=True)

    bulk = Bulk(entries)
    begun = run(client.store, bulk.begin())
    first = run(client.store, bulk.batch(begun, decide))
    assert (first.left, first.tally.moved, look.zcard("retry")) == (300, 200, 300)
    again = run(client.store, bulk.batch(begun, decide))
    assert (again.left, again.tally.moved, look.zcard("retry")) == (300, 200, 100)
    last = run(client.store, bulk.batch(again, decide))
    assert look.zcard("retry") == 0
    assert last.tally.moved == 300
    assert [each["jid"] for each in queued(look)] == jids


@pytest.mark.rule("api.set-schedule")
def test_a_job_is_put_into_a_set_by_hand(say: Say, client: Client, look: redis.Redis) -> None:
    jid = say(
        RetrySet(client).schedule, NOW + 60, {"class": "Ruby::Job", "args": [1], "queue": "ruby", "retry_count": 2}
    )
    [(raw, score)] = members(look, "retry").items()
    assert json.loads(raw) == {"class": "Ruby::Job", "args": [1], "queue": "ruby", "retry_count": 2, "jid": jid}
    assert score == NOW + 60
    with pytest.raises(PayloadError, match="queue name"):
        say(RetrySet(client).schedule, NOW, {"class": "Ruby::Job", "args": [1]})
    with pytest.raises(PayloadError, match=r"args\[0\]"):
        say(RetrySet(client).schedule, NOW, {"class": "Ruby::Job", "args": [object()], "queue": "ruby"})
    assert look.zcard("retry") == 1


@pytest.mark.rule("api.set-clear")
@pytest.mark.parametrize("key", SETS)
def test_clearing_a_set(say: Say, client: Client, look: redis.Redis, key: str) -> None:
    fill(look, key, 3)
    look.sadd("queues", "default")
    assert say(SETS[key](client).clear) == 3
    assert say(SETS[key](client).clear) == 0
    assert look.exists(key) == 0
    assert look.smembers("queues") == {b"default"}


def test_all_of_it_keeps_to_its_prefix(say: Say, new_client: NewClient, server: Server, look: redis.Redis) -> None:
    client = new_client(redis={"url": server.url, "prefix": "{s0}:"})
    say(RetrySet(client).schedule, NOW, {"class": "Plain", "args": [], "queue": "mail", "jid": "a"})
    say(RetrySet(client).schedule, NOW, {"class": "Plain", "args": [], "queue": "mail", "jid": "b"})
    assert say(say(RetrySet(client).find_job, "b").kill) is True
    assert say(RetrySet(client).retry_all).moved == 1
    found = say(Stats(client).read)
    assert (found.queues, found.retry_size, found.dead_size) == ({"mail": 1}, 0, 1)
    assert [each.jid for each in say.walk(Queue("mail", client))] == ["a"]
    assert say(Queue("mail", client).pause)
    assert {key.partition(b":")[0] for key in look.keys("*")} == {b"{s0}"}
    assert say(Queue("mail", client).clear) == 1


def test_two_hands_move_an_entry_once(say: Say, client: Client, look: redis.Redis) -> None:
    fill(look, "retry", 100)
    mine, yours = say.walk(RetrySet(client)), say.walk(RetrySet(client))
    moved = [(say(a.retry), say(b.retry)) for a, b in zip(mine, yours, strict=True)]
    assert set(moved) == {(True, False)}
    assert look.llen("queue:default") == 100

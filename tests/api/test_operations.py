"""Operations: what each verb does, that nothing is lost or done twice wherever a driver stops, that undo is exact."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pillion import Client, UsageError
from pillion.api import (
    Audit,
    DeadSet,
    Operation,
    Operations,
    QuerySyntax,
    Search,
    Selection,
    adrive,
    drive,
    parked,
)
from pillion.api.faces import Call, Plan
from pillion.api.operations import VERBS
from pillion.api.query import parse
from pillion.api.record import JobRecord
from pillion.errors import PayloadError
from pillion.store.op import Op
from tests.api.conftest import NOW, Clock, NewClient, Say, job

KEYS = {"dead": "dead", "retry": "retry", "scheduled": "schedule"}


def stock(look: redis.Redis, count: int = 450) -> None:
    """In each place `count` jobs, in the sets seven at each score, of two classes."""
    for queue in ("low", "high"):
        raws = [job(f"{queue}{n}", n, **{"queue": queue, "class": "Odd" if n % 3 else "Even"}) for n in range(count)]
        look.lpush(f"queue:{queue}", *raws)
        look.sadd("queues", queue)
    for state, key in KEYS.items():
        failed = {} if state == "scheduled" else {"retry_count": 3, "error_class": "KeyError", "failed_at": NOW - 60}
        entries = {
            job(f"{state}{n}", n, **{**failed, "class": "Odd" if n % 3 else "Even"}): NOW - 50 + n // 7
            for n in range(count)
        }
        look.zadd(key, entries)


def contents(look: redis.Redis) -> dict[str, Any]:
    """Every queue and set as it is, to the byte: lists in their order, sets with their scores."""
    found: dict[str, Any] = {"queues": look.smembers("queues")}
    for key in sorted(look.scan_iter(count=1_000)):
        kind = look.type(key)
        if kind == b"list" and key.startswith(b"queue:"):
            found[key.decode()] = look.lrange(key, 0, -1)
        elif kind == b"zset" and b"pillion" not in key:
            found[key.decode()] = look.zrange(key, 0, -1, withscores=True)
    return found


def jids(found: dict[str, Any]) -> list[str]:
    """Every jid that is anywhere, sorted: none may be missing, none be there twice."""
    raws = [raw for key, some in found.items() if key.startswith("queue:") for raw in some]
    raws += [raw for key, some in found.items() if key in KEYS.values() for raw, _ in some]
    return sorted(json.loads(raw)["jid"] for raw in raws)


def finish(say: Say, client: Client, operation: Operation) -> Operation:
    """Drive it to its end in this colour."""
    if say.colour == "sync":
        return drive(operation.id, client)
    return say.runner.run(adrive(operation.id, client))


def do(say: Say, client: Client, verb: Any, target: Any, **options: Any) -> Operation:
    """Start and drive one."""
    return finish(say, client, say(Operations(client).start, verb, target, by="ann", **options))


def undo(say: Say, client: Client, done: Operation) -> Operation:
    return finish(say, client, say(Operations(client).undo, done.id))


# --- what each verb does ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["retry", "scheduled", "dead"])
@pytest.mark.parametrize(("verb", "count"), [("retry", 2), ("requeue", 3)])
def test_jobs_go_to_their_queue(say: Say, client: Client, look: redis.Redis, state: str, verb: str, count: int) -> None:
    stock(look)
    done = do(say, client, verb, f"state:{state} class:Odd")
    assert (done.state, done.moved, done.looked, done.total, done.fraction) == ("done", 300, 450, 450, 1.0)
    queued = [json.loads(raw) for raw in look.lrange("queue:default", 0, -1)[::-1]]
    assert [item["jid"] for item in queued[:2]] == [f"{state}{n}" for n in (1, 2)]
    assert {item.get("retry_count") for item in queued} == ({None} if state == "scheduled" else {count})
    assert all(item["enqueued_at"] == int(NOW * 1000) for item in queued)
    assert look.zcard(KEYS[state]) == 150
    assert (done.undo_until, done.result()) == (None, "moved 300")
    assert done.undo_reason


@pytest.mark.parametrize("state", ["queued", "retry", "scheduled", "dead"])
def test_delete_and_back(say: Say, client: Client, look: redis.Redis, state: str) -> None:
    stock(look)
    before = contents(look)
    done = do(say, client, "delete", f"state:{state} class:Even")
    count = 300 if state == "queued" else 150
    assert (done.state, done.moved) == ("done", count)
    assert jids(contents(look)) == [jid for jid in jids(before) if not (jid.startswith(places(state)) and third(jid))]
    back = undo(say, client, done)
    assert (back.state, back.restored, back.lost, back.fraction) == ("undone", count, 0, 1.0)
    assert look.exists(f"pillion:parked:{done.id}") == 0
    if state != "queued":
        assert contents(look) == before
        return
    for queue in ("low", "high"):  # to the end that workers take from, in their order
        kept, returned = [[raw for raw in before[f"queue:{queue}"] if third(raw) is odd] for odd in (False, True)]
        assert look.lrange(f"queue:{queue}", 0, -1) == kept + returned


def places(state: str) -> tuple[str, ...]:
    return ("low", "high") if state == "queued" else (state,)


def third(of: str | bytes) -> bool:
    """Whether a job is of the class Even."""
    jid = of if isinstance(of, str) else json.loads(of)["jid"]
    return int("".join(filter(str.isdigit, jid))) % 3 == 0


def test_all_of_a_queue_comes_back_to_the_byte_and_place(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    before = contents(look)
    done = do(say, client, "delete", "state:queued queue:low")
    assert look.llen("queue:low") == 0
    assert undo(say, client, done).restored == 450
    assert contents(look) == before


@pytest.mark.parametrize("state", ["queued", "retry", "scheduled"])
def test_kill_and_back(say: Say, client: Client, look: redis.Redis, clock: Clock, state: str) -> None:
    stock(look)
    before = contents(look)
    clock.at += 100
    done = do(say, client, "kill", f"state:{state} class:Odd")
    count = 600 if state == "queued" else 300
    assert (done.state, done.moved, look.zcard("dead")) == ("done", count, 450 + count)
    assert look.zcount("dead", NOW + 100, NOW + 100) == count
    assert jids(contents(look)) == jids(before)
    assert undo(say, client, done).restored == count
    assert jids(contents(look)) == jids(before)
    if state != "queued":
        assert contents(look) == before


@pytest.mark.parametrize("state", ["queued", "retry", "dead"])
def test_move_and_back(say: Say, client: Client, look: redis.Redis, state: str) -> None:
    stock(look)
    look.lpush("queue:bulk", job("there"))
    before = contents(look)
    target = f"state:{state}" + " queue:low" * (state == "queued")
    done = do(say, client, "move", target, to="bulk")
    assert (done.state, done.moved, done.options) == ("done", 450, {"to": "bulk"})
    assert jids(contents(look)) == jids(before)
    if state == "queued":  # at the head, in their order
        moved = look.lrange("queue:bulk", 0, -1)
        assert [json.loads(raw)["jid"] for raw in moved] == ["there", *(f"low{n}" for n in reversed(range(450)))]
        assert {json.loads(raw)["queue"] for raw in moved[1:]} == {"bulk"}
    else:
        after = look.zrange(KEYS[state], 0, -1, withscores=True)
        assert {json.loads(raw)["queue"] for raw, _ in after} == {"bulk"}
        assert sorted(score for _, score in after) == sorted(score for _, score in before[KEYS[state]])
    assert undo(say, client, done).restored == 450
    found = contents(look)
    found["queues"] = before["queues"]
    assert found == before


@pytest.mark.parametrize("state", ["queued", "retry,scheduled,dead"])
@pytest.mark.parametrize("meanwhile", [False, True])
def test_clear_and_back(say: Say, client: Client, look: redis.Redis, state: str, meanwhile: bool) -> None:
    stock(look)
    before = contents(look)
    done = do(say, client, "clear", f"state:{state}")
    assert (done.state, done.moved) == ("done", 900 if state == "queued" else 1_350)
    cleared = ["queue:high", "queue:low"] if state == "queued" else ["dead", "retry", "schedule"]
    assert look.exists(*cleared) == 0
    assert look.scard("queues") == (0 if state == "queued" else 2)
    if meanwhile:
        look.lpush("queue:low", job("new"))
        look.zadd("retry", {job("new"): NOW})
    back = undo(say, client, done)
    assert (back.state, back.restored) == ("undone", done.moved)
    after = contents(look)
    if meanwhile:
        assert after["queue:low"][0] == job("new") or state != "queued"
        assert (job("new"), NOW) in after["retry"]
        look.lrem("queue:low", 1, job("new"))
        look.zrem("retry", job("new"))
        after = contents(look)
    assert after == before
    assert [look.ttl(key) for key in cleared] == [-1] * len(cleared)  # no job stands under a key that expires


def test_reschedule(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    at = datetime.fromtimestamp(NOW - 20, UTC)  # among those that it walks over
    done = do(say, client, "reschedule", "state:retry class:Odd", at=at)
    assert (done.state, done.moved, done.options) == ("done", 296, {"at": repr(NOW - 20)})  # four stood there
    odd = [score for raw, score in look.zrange("retry", 0, -1, withscores=True) if not third(raw)]
    assert odd == [NOW - 20] * 300


def test_without_a_state_every_place_that_fits_is_gone_through(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look, 30)
    assert do(say, client, "kill", "class:Odd").moved == 4 * 20
    assert do(say, client, "retry", "class:Odd").moved == 100
    assert look.llen("queue:default") + look.llen("queue:low") + look.llen("queue:high") == 60 - 40 + 100


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "target", "options", "words"),
    [
        ("erase", "state:dead", {}, "one of retry"),
        ("retry", "", {}, "at least one term"),
        ("retry", "state:queued", {}, "retry or scheduled or dead"),
        ("kill", "state:dead", {}, "queued or retry or scheduled"),
        ("delete", "state:running", {}, "got running"),
        ("clear", "state:dead class:A", {}, "whole places"),
        ("clear", "queue:low", {}, "whole places"),
        ("move", "state:dead", {}, "`to=` with move"),
        ("delete", "state:dead", {"to": "low"}, "`to=` with move"),
        ("reschedule", "state:retry", {}, "`at=` with reschedule"),
        ("reschedule", "state:dead", {"at": NOW}, "retry or scheduled"),
        ("delete", Selection.parse(["dead||1.0|j", "queued|a|1|j"]), {}, None),
        ("retry", Selection.parse(["dead||1.0|j", "queued|a|1|j"]), {}, "got"),
        ("clear", Selection.parse(["dead||1.0|j"]), {}, "whole places"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    say: Say, client: Client, look: redis.Redis, verb: Any, target: Any, options: dict[str, Any], words: str | None
) -> None:
    for ask in (Operations(client).preview, Operations(client).start):
        by = {"by": "ann"} if ask.__name__ == "start" else {}
        if words is None:
            assert say(ask, verb, target, **options, **by)
            continue
        with pytest.raises(UsageError, match=words):
            say(ask, verb, target, **options, **by)
    assert (look.dbsize() == 0) is (words is not None)


def test_other_refusals(say: Say, client: Client) -> None:
    verbs = Operations(client)
    with pytest.raises(QuerySyntax):
        say(verbs.start, "delete", "stat:dead", by="ann")
    with pytest.raises(PayloadError, match="queue name"):
        say(verbs.start, "move", "state:dead", by="ann", to="no such\n")
    with pytest.raises(UsageError, match="rate"):
        say(verbs.start, "delete", "state:dead", by="ann", rate=-1.0)
    for verb in (verbs.advance, verbs.pause, verbs.resume, verbs.stop, verbs.undo):
        with pytest.raises(UsageError, match="of the last 7 days"):
            say(verb, "nothing")
    assert say(verbs.read, "nothing") is None


# --- wherever a driver stops ------------------------------------------------------------------------------------------


def carry_out(client: Client, plan: Plan[Any], most: int = 10_000, *, again: bool = False) -> bool:
    """Carry out the first `most` exchanges of a plan and drop it, as a driver that dies; whether it came to its end.

    With `again` each op that may be sent again is: its first reply is lost.
    """
    answer: Any = None
    try:
        step = next(plan)
        for _ in range(most):
            assert isinstance(step, Op | Call)
            answer = step.fn(*step.args) if isinstance(step, Call) else client.store.run(step)
            if again and isinstance(step, Op) and step.safe:
                answer = client.store.run(step)
            step = plan.send(answer)
    except StopIteration:
        return True
    plan.close()
    return False


def up_to_the_batch(client: Client, plan: Plan[Any]) -> Op[Any]:
    """Carry out a driver's plan up to the script that moves its first batch, and give that."""
    step = next(plan)
    while not (isinstance(step, Op) and step.name in ("operation_set", "operation_queue")):
        assert isinstance(step, Op)
        step = plan.send(client.store.run(step))
    return step


CASES: dict[str, dict[str, Any]] = {
    "delete of a set": {"verb": "delete", "target": "state:dead class:Odd"},
    "delete of a queue": {"verb": "delete", "target": "state:queued class:Odd"},
    "kill of a set": {"verb": "kill", "target": "state:retry class:Odd"},
    "kill of a queue": {"verb": "kill", "target": "state:queued class:Odd"},
    "move of a set": {"verb": "move", "target": "state:retry", "to": "bulk"},
    "move of a queue": {"verb": "move", "target": "state:queued class:Odd", "to": "bulk"},
    "clear": {"verb": "clear", "target": "state:queued,dead"},
    "retry": {"verb": "retry", "target": "state:dead,retry class:Even"},
    "reschedule": {"verb": "reschedule", "target": "state:retry,scheduled", "at": NOW + 7},
}


def expected(say: Say, client: Client, look: redis.Redis, case: str) -> tuple[Any, Operation, Any, Operation | None]:
    """What an operation that nobody breaks off does, and what its undo does."""
    stock(look)
    options = dict(CASES[case])
    done = do(say, client, options.pop("verb"), options.pop("target"), **options)
    after = contents(look)
    back = undo(say, client, done) if done.undo_until else None
    return after, done, contents(look), back


def free(look: redis.Redis, operation: str) -> None:
    """Let the lease of a dead driver run out."""
    assert float(look.hget(f"pillion:operation:{operation}", "until") or 0) > 0
    look.hset(f"pillion:operation:{operation}", "until", "1")


@pytest.mark.parametrize("case", CASES)
def test_a_driver_that_dies_between_any_two_exchanges_leaves_the_rest_to_another(
    client: Client, look: redis.Redis, case: str
) -> None:
    say = Say("sync")
    after, done, back, undone = expected(say, client, look, case)
    verbs = Operations(client)
    for exchanges in range(1, 40):
        look.flushall()
        stock(look)
        options = dict(CASES[case])
        started = verbs.start(options.pop("verb"), options.pop("target"), by="ann", **options)
        if carry_out(client, verbs.plan_advance(started.id, batches=1_000), exchanges):
            break
        assert verbs.advance(started.id).busy
        free(look, started.id)
        ended = drive(started.id, client)
        assert contents(look) == after, exchanges
        assert (ended.state, ended.result(), ended.looked) == (done.state, done.result(), done.looked), exchanges
        if undone is None:
            continue
        verbs.undo(started.id)
        if not carry_out(client, verbs.plan_advance(started.id, batches=1_000), exchanges):
            free(look, started.id)
        returned = drive(started.id, client)
        assert (contents(look), returned.state, returned.result()) == (back, "undone", undone.result()), exchanges
    else:
        pytest.fail("the operation has no end")
    assert exchanges > 3


@pytest.mark.parametrize("case", CASES)
def test_a_lost_reply_does_nothing_twice(client: Client, look: redis.Redis, case: str) -> None:
    say = Say("sync")
    after, done, back, undone = expected(say, client, look, case)
    look.flushall()
    stock(look)
    verbs, options = Operations(client), dict(CASES[case])
    started = verbs.start(options.pop("verb"), options.pop("target"), by="ann", **options)
    assert carry_out(client, verbs.plan_advance(started.id, batches=1_000), again=True)
    ended = verbs.read(started.id)
    assert ended is not None
    assert (contents(look), ended.state, ended.result()) == (after, "done", done.result())
    if undone is None:
        return
    assert carry_out(client, verbs.plan_undo(started.id), again=True)
    assert carry_out(client, verbs.plan_advance(started.id, batches=1_000), again=True)
    assert contents(look) == back


def test_two_drivers_never_walk_one_operation_at_once(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    verbs = Operations(client)
    started = say(verbs.start, "delete", "state:dead", by="ann")
    first = verbs.plan_advance(started.id, batches=1_000)
    client.store.run(next(first))  # it has the lease  # type: ignore[arg-type]
    first.close()
    before = contents(look)
    second = say(verbs.advance, started.id)
    assert (second.busy, second.moved, contents(look)) == (True, 0, before)


def test_a_driver_that_has_lost_its_lease_moves_nothing(client: Client, look: redis.Redis) -> None:
    stock(look)
    verbs = Operations(client)
    started = verbs.start("delete", "state:dead", by="ann")
    slow = verbs.plan_advance(started.id, batches=1_000)
    batch = up_to_the_batch(client, slow)
    free(look, started.id)
    other = verbs.advance(started.id)
    assert (other.moved, other.busy) == (200, False)
    free_again = look.zcard("dead")
    with pytest.raises(StopIteration) as ended:
        slow.send(client.store.run(batch))
    assert (look.zcard("dead"), ended.value.value.moved) == (free_again, 200)
    assert drive(started.id, client).moved == 450


def test_jobs_that_others_have_moved_are_gone(client: Client, look: redis.Redis) -> None:
    stock(look)
    verbs = Operations(client)
    for target, take in {
        "state:dead": lambda: look.zremrangebyrank("dead", 0, 9),
        "state:queued queue:low": lambda: look.ltrim("queue:low", 10, -1),
    }.items():
        started = verbs.start("delete", target, by="ann")
        plan = verbs.plan_advance(started.id, batches=1_000)
        batch = up_to_the_batch(client, plan)
        take()  # between the page and the batch
        plan.send(client.store.run(batch))
        plan.close()
        free(look, started.id)
        done = drive(started.id, client)
        assert (done.moved, done.gone) == (440, 10)
        assert undo(Say("sync"), client, done).restored == 440


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_pause_resume_stop_and_undo_of_a_part(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    before, verbs = contents(look), Operations(client)
    started = say(verbs.start, "delete", "state:dead", by="ann")
    assert say(verbs.open) == [started.id]
    assert say(verbs.advance, started.id).moved == 200
    assert say(verbs.pause, started.id).state == "paused"
    assert (say(verbs.open), say(verbs.advance, started.id).moved) == ([], 200)
    assert finish(say, client, started).state == "paused"
    with pytest.raises(UsageError, match="done or stopped or failed, got one that is paused"):
        say(verbs.undo, started.id)
    assert say(verbs.resume, started.id).state == "running"
    stopped = say(verbs.stop, started.id)
    assert (stopped.state, stopped.moved, say(verbs.open)) == ("stopped", 200, [])
    assert stopped.undo_until is not None
    assert undo(say, client, stopped).restored == 200
    assert contents(look) == before


def test_a_pause_holds_from_the_next_batch_on(client: Client, look: redis.Redis) -> None:
    stock(look)
    verbs = Operations(client)
    started = verbs.start("delete", "state:dead", by="ann")
    plan = verbs.plan_advance(started.id, batches=1_000)
    batch = up_to_the_batch(client, plan)
    verbs.pause(started.id)
    with pytest.raises(StopIteration) as ended:
        plan.send(client.store.run(batch))
    assert (ended.value.value.state, look.zcard("dead")) == ("paused", 450)


def test_what_is_over_can_not_be_changed(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look, 10)
    verbs, done = Operations(client), do(say, client, "delete", "state:dead")
    for verb in (verbs.pause, verbs.resume, verbs.stop):
        with pytest.raises(UsageError, match="got one that is done"):
            say(verb, done.id)
    assert undo(say, client, done).state == "undone"
    with pytest.raises(UsageError, match="got one that is undone"):
        say(verbs.undo, done.id)
    with pytest.raises(UsageError, match="can be undone"):
        say(verbs.undo, do(say, client, "retry", "state:retry").id)


def test_undo_ends_after_ten_minutes(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look, 10)
    verbs = Operations(client)
    started = say(verbs.start, "delete", "state:dead", by="ann")
    say(verbs.advance, started.id)
    key = f"pillion:parked:{started.id}"
    assert 600 < look.ttl(key) <= 7 * 86_400  # as long as it goes on
    done = finish(say, client, started)
    assert 0 < look.ttl(key) <= 600
    assert 86_400 < look.ttl(f"pillion:operation:{started.id}") <= 7 * 86_400
    assert done.undo_until is not None
    assert abs((done.undo_until - datetime.fromtimestamp(look.time()[0], UTC)).total_seconds() - 600) < 30
    look.delete(key)
    look.hset(f"pillion:operation:{started.id}", "undo_until", "1")
    assert say(verbs.read, started.id).undo_until is None
    with pytest.raises(UsageError, match="brought back"):
        say(verbs.undo, started.id)
    assert look.zcard("dead") == 0


def test_what_somebody_has_moved_since_does_not_come_back_twice(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    killed = do(say, client, "kill", "state:retry")
    assert DeadSet(client).fetch(NOW)
    dead = [entry for entry in DeadSet(client) if entry.jid in ("retry7", "retry8")]
    assert [dead[0].retry(), dead[1].delete()] == [True, True]
    back = undo(say, client, killed)
    assert (back.restored, back.lost) == (448, 2)
    moved = do(say, client, "move", "state:queued queue:low", to="bulk")
    look.rpop("queue:bulk", 5)  # workers took them
    back = undo(say, client, moved)
    assert (back.restored, back.lost) == (445, 5)
    assert [json.loads(raw)["jid"] for raw in look.lrange("queue:low", 0, -1)] == [f"low{n}" for n in range(449, 4, -1)]
    deleted = do(say, client, "delete", "state:scheduled")
    raw, score = parked_entry(look, deleted)
    look.zadd("schedule", {raw: score + 5})  # pushed once more
    back = undo(say, client, deleted)
    assert (back.restored, back.lost, look.zscore("schedule", raw)) == (449, 1, score + 5)


def parked_entry(look: redis.Redis, operation: Operation) -> tuple[bytes, float]:
    """The first parked job, and its score."""
    line, _, raw = look.lindex(f"pillion:parked:{operation.id}", 0).partition(b"\n")
    return raw, float(json.loads(line)[1])


def test_more_than_is_kept_cannot_be_undone(
    say: Say, client: Client, look: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked, "MOST_BYTES", 20_000)
    stock(look)
    for verb, target in (("delete", "state:dead"), ("clear", "state:retry"), ("delete", "state:queued")):
        preview = say(Operations(client).preview, verb, target)
        assert (preview.undoable, "are kept for an undo" in preview.reason) == (False, True)
        done = do(say, client, verb, target)
        assert (done.state, done.moved) == ("done", preview.count)
        assert (done.undo_until, "weigh more" in done.undo_reason) == (None, True)
        assert look.keys("pillion:parked:*") == []
        with pytest.raises(UsageError, match="brought back"):
            say(Operations(client).undo, done.id)


def test_all_that_is_parked_together_has_a_cap(
    say: Say, client: Client, look: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked, "MOST_BYTES_OF_ALL", 100_000)
    stock(look)
    assert do(say, client, "delete", "state:dead").undo_until is not None
    assert not say(Operations(client).preview, "delete", "state:retry").undoable
    assert do(say, client, "delete", "state:retry").undo_until is None
    assert do(say, client, "delete", "state:scheduled class:Even jid:scheduled3").undo_until is not None


def test_without_undo_nothing_is_parked(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look, 20)
    done = do(say, client, "delete", "state:dead,queued", undo=False)
    assert (done.moved, done.undo_until, look.keys("pillion:parked:*")) == (60, None, [])


# --- a snapshot -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [0.0, -3_600.0], ids=["clocks agree", "clocks differ"])
def test_it_ends_while_jobs_fail_again_at_once(
    say: Say, client: Client, clock: Clock, look: redis.Redis, skew: float
) -> None:
    """Each job that is retried fails and stands in the set again before the next one is looked at."""
    entries = {job(f"j{n:03}", retry_count=0, failed_at=NOW - 7_200): NOW + n * 10 for n in range(300)}
    look.zadd("retry", entries)
    runs = 0

    def fail_again(job_class: object, payload: dict[str, Any], queue: str, pool: object) -> Generator[None]:
        nonlocal runs
        runs += 1
        clock.at += 0.5
        failed = {"retry_count": 1, "failed_at": clock.at + skew, "run": runs}
        look.zadd("retry", {job(payload["jid"], **failed): NOW + 2_500 + runs / 1_000})
        yield

    client.setup.client_middleware.add(fail_again)
    done = do(say, client, "retry", "state:retry")
    assert done.state == "done"
    assert done.moved == runs
    if skew:
        assert runs == 300  # the snapshot had no more
    else:
        assert (runs, done.newer > 0) == (300, True)
    assert look.zcard("retry") == 300


def test_what_is_pushed_meanwhile_is_left_alone(say: Say, client: Client, clock: Clock, look: redis.Redis) -> None:
    stock(look)
    verbs = Operations(client)
    started = say(verbs.start, "delete", "state:queued", by="ann")
    clock.at += 1
    look.lpush("queue:low", *(job(f"new{n}", enqueued_at=clock.at) for n in range(5)))
    look.rpush("queue:low", job("back"))  # a worker gives one back: it was there all the while
    done = finish(say, client, started)
    assert done.moved == 900
    left = [json.loads(raw)["jid"] for raw in look.lrange("queue:low", 0, -1)]
    assert left == [*(f"new{n}" for n in range(4, -1, -1)), "back"]


def test_workers_may_take_jobs_meanwhile(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look, 2_000)
    verbs, taken = Operations(client), list[bytes]()
    started = say(verbs.start, "move", "state:queued queue:low class:Odd", by="ann", to="bulk")
    while (now := say(verbs.advance, started.id)).is_open:
        taken += look.rpop("queue:low", 60) or []
    left = [json.loads(raw)["jid"] for raw in look.lrange("queue:low", 0, -1)]
    bulk = [json.loads(raw)["jid"] for raw in look.lrange("queue:bulk", 0, -1)]
    gone = [json.loads(raw)["jid"] for raw in taken]
    assert sorted(left + bulk + gone) == sorted(f"low{n}" for n in range(2_000))
    assert now.moved == len(bulk) > 500
    assert all(third(jid) for jid in left)
    assert bulk == sorted(bulk, key=lambda jid: -int(jid[3:]))


# --- what cannot be moved ---------------------------------------------------------------------------------------------


def test_middleware_sees_what_goes_to_a_queue(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)

    def judge(job_class: object, payload: dict[str, Any], queue: str, pool: object) -> Generator[None]:
        n = payload["args"][0]
        if n % 10 == 0:
            return
        if n % 10 == 1:
            raise ValueError(f"no {n}")
        payload["seen"] = True
        yield

    client.setup.client_middleware.add(judge)
    done = do(say, client, "retry", "state:dead")
    assert (done.moved, done.stopped, done.failed, len(done.faults)) == (360, 45, 45, 20)
    assert (done.faults[0].jid, done.faults[0].reason) == ("dead1", "no 1")
    assert done.result() == "moved 360, stopped 45, failed 45"
    assert look.zcard("dead") == 45
    assert all(json.loads(raw)["seen"] for raw in look.lrange("queue:default", 0, -1))


def test_a_queue_of_the_wrong_type_holds_up_its_own_jobs_only(say: Say, client: Client, look: redis.Redis) -> None:
    look.set("queue:odd", "text")
    look.zadd("retry", {job(f"j{n}", queue="odd" if n % 2 else "even"): NOW + n for n in range(10)})
    done = do(say, client, "retry", "state:retry")
    assert (done.moved, done.failed) == (5, 5)
    assert "WRONGTYPE" in done.faults[0].reason
    assert [score for _, score in look.zrange("retry", 0, -1, withscores=True)] == [NOW + n for n in range(1, 10, 2)]


@pytest.mark.parametrize(
    ("verb", "key", "state"),
    [("kill", "dead", "queued"), ("kill", "dead", "retry"), ("move", "queue:bulk", "queued")],
)
def test_a_goal_of_the_wrong_type_fails_it_as_a_whole(
    say: Say, client: Client, look: redis.Redis, verb: Any, key: str, state: str
) -> None:
    stock(look, 20)
    look.delete(key)
    look.set(key, "text")
    before = contents(look)
    done = do(say, client, verb, f"state:{state}", **({"to": "bulk"} if verb == "move" else {}))
    assert (done.state, done.moved, contents(look)) == ("failed", 0, before)
    assert "WRONGTYPE" in done.error or "another type" in done.error
    assert say(Operations(client).open) == []


def test_what_is_no_json_can_be_deleted_killed_and_brought_back(say: Say, client: Client, look: redis.Redis) -> None:
    look.zadd("retry", {b"not \xff json\nat all": NOW, b"": NOW + 1})
    look.lpush("queue:low", b"no\x00ne", b"\n\n")
    look.sadd("queues", "low")
    before = contents(look)
    for verb in ("delete", "kill", "move"):
        options = {"to": "bulk"} if verb == "move" else {}
        done = do(say, client, verb, "state:retry,queued", **options)
        assert done.moved == 4
        assert undo(say, client, done).restored == 4
        look.srem("queues", "bulk")
        assert contents(look) == before
    assert do(say, client, "retry", "state:retry").failed == 2


def test_odd_queue_names_and_scores(say: Say, client: Client, look: redis.Redis) -> None:
    name = 'a:b "c" é*'
    look.lpush(f"queue:{name}", job("j"))
    look.sadd("queues", name)
    look.zadd("schedule", {job("low"): "-inf", job("high"): "+inf", job("odd"): 0.1 + 0.2})
    before = contents(look)
    done = do(say, client, "delete", "state:queued,scheduled")
    assert (done.moved, done.total) == (4, 4)
    assert undo(say, client, done).restored == 4
    assert contents(look) == before


# --- preview ----------------------------------------------------------------------------------------------------------


def test_a_preview_counts_exactly(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    preview = say(Operations(client).preview, "delete", "state:dead,queued class:Odd")
    assert (preview.count, preview.exact, preview.searched, preview.total) == (900, True, 1_350, 1_350)
    assert (len(preview.samples), preview.undoable, preview.reason) == (5, True, "")
    assert preview.queues == {"low": 300, "high": 300, "default": 300}
    assert preview.newest == datetime.fromtimestamp(NOW - 50 + 64, UTC)
    assert preview.oldest == datetime.fromtimestamp(NOW - 50, UTC)
    assert do(say, client, "delete", "state:dead,queued class:Odd").moved == 900


def test_a_preview_that_has_not_seen_all_says_so(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    preview = say(Operations(client).preview, "retry", "state:dead,retry class:Odd", budget=500)
    assert (preview.exact, preview.searched, preview.total) == (False, 500, 900)
    assert preview.count == 300 + 34
    assert (preview.undoable, preview.reason) == (False, "A retry cannot be undone.")


def test_a_preview_of_whole_places_looks_at_few(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look, 3_000)
    preview = say(Operations(client).preview, "clear", "state:queued,dead", budget=1_000)
    assert (preview.count, preview.exact, preview.searched) == (9_000, True, 600)
    assert (len(preview.samples), preview.undoable) == (5, True)


def test_a_preview_of_nothing(say: Say, client: Client) -> None:
    preview = say(Operations(client).preview, "delete", "state:dead")
    assert (preview.count, preview.exact, preview.samples, preview.oldest, preview.newest) == (0, True, [], None, None)
    done = do(say, client, "delete", "state:dead")
    assert (done.state, done.moved, done.fraction, done.undo_until) == ("done", 0, 1.0, None)


def test_a_preview_of_a_move_leaves_out_what_is_there(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look, 20)
    for target, count in (("state:queued", 20), ("state:queued,dead", 40), ("state:dead queue:low", 0)):
        preview = say(Operations(client).preview, "move", target, to="low")
        assert (preview.count, preview.exact) == (count, True)
    assert do(say, client, "move", "state:queued,dead", to="low").moved == 40


# --- what is marked ---------------------------------------------------------------------------------------------------


def marked(say: Say, client: Client, text: str) -> Selection:
    hits = say(Search(text, client).page, None, 500).hits
    return Selection.parse(str(hit.ref) for hit in hits)


@pytest.mark.parametrize("verb", ["delete", "kill", "retry", "move"])
def test_marked_jobs(say: Say, client: Client, look: redis.Redis, verb: Any) -> None:
    stock(look)
    before = contents(look)
    states = {"retry": "dead,retry", "kill": "queued,retry"}.get(verb, "queued,dead")
    selection = marked(say, client, f"state:{states} class:Even args:3")
    assert len(selection.refs) > 50
    options = {"to": "bulk"} if verb == "move" else {}
    preview = say(Operations(client).preview, verb, selection, **options)
    assert (preview.count, preview.exact, len(preview.samples)) == (len(selection.refs), True, 5)
    done = do(say, client, verb, selection, **options)
    assert (done.moved, done.gone, done.filter) == (len(selection.refs), 0, str(selection))
    wanted = {ref.jid for ref in selection.refs}
    if verb == "delete":
        assert set(jids(before)) - set(jids(contents(look))) == wanted
    else:
        assert jids(before) == jids(contents(look))
    if verb == "retry":
        assert {json.loads(raw)["jid"] for raw in look.lrange("queue:default", 0, -1)} == wanted
        return
    assert undo(say, client, done).restored == len(wanted)
    assert jids(contents(look)) == jids(before)


def test_marked_jobs_that_have_moved_are_found_near_by_or_gone(say: Say, client: Client, look: redis.Redis) -> None:
    look.lpush("queue:low", *(job(f"j{n}", n) for n in range(3_000)))
    look.sadd("queues", "low")
    selection = Selection.parse(f"queued|low|{n + 1}|j{n}" for n in (100, 1_500, 1_501, 2_900))
    look.rpop("queue:low", 400)
    look.lrem("queue:low", 1, job("j1501", 1_501))
    done = do(say, client, "delete", selection)
    assert (done.moved, done.gone, done.looked, done.total) == (2, 2, 4, 4)
    assert look.llen("queue:low") == 2_597


def test_a_marked_job_is_not_mistaken_for_another(say: Say, client: Client, look: redis.Redis) -> None:
    """Another holds its jid as an argument, at the same score; twins are two."""
    look.zadd("dead", {job("other", "j1"): NOW, job("j1"): NOW, job("j1", 2): NOW, job("j1", 3): NOW + 1})
    done = do(say, client, "delete", Selection.parse([f"dead||{NOW!r}|j1"]))
    assert done.moved == 1
    assert [json.loads(raw)["jid"] for raw in look.zrange("dead", 0, -1)].count("j1") == 2
    assert do(say, client, "delete", Selection.parse([f"dead||{NOW!r}|nobody"])).gone == 1


# --- progress, drivers ------------------------------------------------------------------------------------------------


def test_progress_is_told_and_outlives_who_drives(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    verbs, seen = Operations(client), list[Operation]()
    started = say(verbs.start, "delete", "state:queued,dead", by="ann")
    assert (started.looked, started.total, started.fraction, started.is_open) == (0, 1_350, 0.0, True)
    assert 0 < say(verbs.advance, started.id, batches=2).fraction < 1
    assert say(verbs.read, started.id).moved == 400
    if say.colour == "sync":
        drive(started.id, client, seen.append)
    else:
        say.runner.run(adrive(started.id, client, seen.append))
    assert seen[-1].state == "done"
    assert [each.id for each in say(verbs.recent)] == [started.id]


def test_recent_ones_are_newest_first_and_capped(say: Say, client: Client, clock: Clock, look: redis.Redis) -> None:
    verbs, made = Operations(client), list[str]()
    for n in range(205):
        clock.at = NOW + n
        made.append(verbs.start("delete", "state:dead", by="ann").id)
    assert [each.id for each in say(verbs.recent, 3)] == made[:-4:-1]
    assert look.zcard("pillion:operations") == 200
    clock.at = NOW + 8 * 86_400
    last = say(verbs.start, "delete", "state:dead", by="ann")
    assert [each.id for each in say(verbs.recent)] == [last.id]


def test_a_rate_is_kept(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    verbs = Operations(client)
    started = say(verbs.start, "retry", "state:dead", by="ann", rate=0.5)
    first = say(verbs.advance, started.id, batches=10)
    assert (first.moved, first.rate, first.wait > 300) == (200, 0.5, True)
    second = say(verbs.advance, started.id, batches=10)
    assert (second.moved, second.busy, second.wait > 300) == (200, False, True)
    look.hset(f"pillion:operation:{started.id}", "ready", "1")
    assert say(verbs.advance, started.id).moved == 400


def test_a_fast_rate_comes_to_its_end(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    assert do(say, client, "retry", "state:dead", rate=100_000.0).moved == 450


def test_whoever_stops_driving_leaves_it_at_a_safe_point(client: Client, look: redis.Redis) -> None:
    stock(look)

    class Stop(Exception):
        pass

    def stop(now: Operation) -> None:
        raise Stop

    verbs = Operations(client)
    started = verbs.start("delete", "state:dead", by="ann", rate=1_000.0)
    with pytest.raises(Stop):
        drive(started.id, client, stop)
    now = verbs.read(started.id)
    assert now is not None
    assert (now.state, now.moved, now.busy, look.zcard("dead")) == ("running", 200, False, 250)

    async def cancelled() -> None:
        task = asyncio.create_task(adrive(started.id, client))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert verbs.advance(started.id).state == "running"


def test_through_a_prefix(say: Say, new_client: NewClient, server: Any, look: redis.Redis) -> None:
    client = new_client(redis={"url": server.url, "prefix": "{s0}"})
    look.lpush("{s0}queue:low", job("a"), job("b"))
    look.sadd("{s0}queues", "low")
    look.zadd("{s0}dead", {job("c"): NOW})
    before = {key: look.dump(key) for key in look.scan_iter()}
    done = do(say, client, "delete", "state:queued,dead")
    assert done.moved == 3
    assert all(key.startswith(b"{s0}") for key in look.scan_iter())
    assert undo(say, client, done).restored == 3
    assert {key: look.dump(key) for key in look.scan_iter() if b"pillion" not in key} == before


def test_all_of_it_is_audited(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look, 30)
    done = do(say, client, "delete", "state:dead   class:Odd")
    say(Operations(client).undo, done.id, by="bob")
    finish(say, client, done)
    stopped = say(Operations(client).start, "kill", "state:retry", by="ann")
    say(Operations(client).stop, stopped.id, by="bob")
    notes = [
        (note.by, note.verb, note.filter, note.count, note.result, note.operation)
        for note in say(Audit(client).page).entries
    ]
    filter_text = "state:dead class:Odd"
    assert notes[::-1] == [
        ("ann", "delete", filter_text, None, "started", done.id),
        ("ann", "delete", filter_text, 20, "done: moved 20", done.id),
        ("bob", "delete", filter_text, 20, "undo started", done.id),
        ("ann", "delete", filter_text, 20, "undone: restored 20", done.id),
        ("ann", "kill", "state:retry", None, "started", stopped.id),
        ("bob", "kill", "state:retry", 0, "stopped: moved 0", stopped.id),
    ]


# --- a model ----------------------------------------------------------------------------------------------------------

TEXTS = ["class:A", "args:3", "-class:A", "jid:j3,j7,j11", "error:key", "queue:low", "tag:eu", "-tag:eu args:1"]
JOBS = st.lists(
    st.tuples(
        st.sampled_from(["queued:low", "queued:high", "retry", "scheduled", "dead"]),
        st.sampled_from(["A", "B"]),
        st.integers(0, 3),  # the score
        st.sampled_from(["low", "bulk"]),
        st.booleans(),
    ),
    max_size=40,
)
AIMS = st.sampled_from(["retry", "requeue", "kill", "delete", "move", "reschedule"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JOBS, AIMS, st.lists(st.sampled_from(TEXTS), min_size=1, max_size=2))
def test_it_agrees_with_a_plain_model(
    client: Client, look: redis.Redis, jobs: list[Any], verb: Any, texts: list[str]
) -> None:
    """What is meant goes where the verb says, all else stays as it is, and undo restores every set."""
    look.flushall()
    where: dict[str, tuple[str, JobRecord]] = {}
    for n, (place, name, score, queue, marked) in enumerate(jobs):
        state, _, of = place.partition(":")
        fields = {"tags": ["eu"]} if marked else {"error_class": "KeyError"}
        raw = job(f"j{n}", n, **{"class": name, "queue": of or queue, **fields})
        if of:
            look.lpush(f"queue:{of}", raw)
            look.sadd("queues", of)
        else:
            look.zadd(KEYS[state], {raw: NOW + score})
        where[f"j{n}"] = (place, JobRecord(raw, of or None))
    before, query = contents(look), parse(" ".join(texts))
    wanted = {
        jid
        for jid, (place, record) in where.items()
        if place.partition(":")[0] in VERBS[verb]
        and query.matches(place.partition(":")[0], record, NOW)
        and not (verb == "move" and record.queue == "bulk")
        and not (verb == "reschedule" and record["args"][0] < 0)
    }
    options = {"move": {"to": "bulk"}, "reschedule": {"at": NOW + 9}}.get(verb, {})
    preview = Operations(client).preview(verb, query, **options)
    done = do(Say("sync"), client, verb, query, **options)
    assert (preview.count, preview.exact, done.moved, done.state) == (len(wanted), True, len(wanted), "done")
    after = contents(look)
    there = {jid: place for place, found in by_place(after).items() for jid in found}
    assert there.keys() == where.keys() - (wanted if verb == "delete" else set())
    for jid, (place, record) in where.items():
        if jid not in wanted:
            assert there[jid] == place
        elif verb != "delete":
            home = place if place.startswith("queued") is False else "queued:bulk"
            goals = {"kill": "dead", "move": home, "reschedule": place}
            assert there[jid] == goals.get(verb, f"queued:{record.queue}")
    if done.undo_until:
        assert undo(Say("sync"), client, done).restored == len(wanted)
        found = contents(look)
        assert {key: found.get(key) for key in KEYS.values()} == {key: before.get(key) for key in KEYS.values()}
        assert {key: sorted(some) for key, some in by_place(found).items()} == {
            key: sorted(some) for key, some in by_place(before).items()
        }


def by_place(found: dict[str, Any]) -> dict[str, list[str]]:
    """The jids of each place."""
    names = {key: state for state, key in KEYS.items()}
    places = {f"queued:{key[6:]}": raws for key, raws in found.items() if key.startswith("queue:")}
    places |= {names[key]: [raw for raw, _ in some] for key, some in found.items() if key in names}
    return {place: [json.loads(raw)["jid"] for raw in raws] for place, raws in places.items()}

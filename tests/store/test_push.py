"""What a push leaves on the server, single and in bulk, from threads and from asyncio."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis

import pillion
from pillion.errors import (
    ConfigError,
    MaybeEnqueued,
    NotReplicated,
    PartlyEnqueued,
    PayloadError,
    PillionError,
    QueueFull,
    Refused,
    Unavailable,
)
from pillion.setup import Setup
from pillion.store.op import command
from tests.conftest import NewServer
from tests.servers import Server
from tests.store.conftest import Face, NewFace
from tests.store.relay import Relay
from tests.waiting import wait_until

NOW = 1_800_000_000.5
JOB = {"class": "HardWorker", "args": ["bob", 5]}


class StillClock:
    """A clock that stands."""

    def now(self) -> float:
        return NOW

    def steady(self) -> float:
        return 1.0


@pytest.fixture
def still(new_face: NewFace, server: Server) -> Face:
    """A face at a moment that stands, with chance that repeats."""
    return new_face(server.url, clock=StillClock(), rng=random.Random(5))


def standing(server: Server, queue: str = "default", db: int = 0) -> list[dict[str, Any]]:
    """The jobs of a queue, the next one first."""
    return [json.loads(raw) for raw in server.client(db=db).lrange(f"queue:{queue}", 0, -1)[::-1]]


def due(server: Server) -> list[tuple[float, dict[str, Any]]]:
    """What is scheduled: (time, job), the earliest first."""
    return [(score, json.loads(raw)) for raw, score in server.client().zrange("schedule", 0, -1, withscores=True)]


def nothing_stands(server: Server) -> bool:
    return server.client().keys("*") == []


# --- one job ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("fields.jid", "b9.3", "b9.4")
def test_a_job_stands_in_its_queue_as_sidekiq_would_have_written_it(still: Face, server: Server) -> None:
    jid = still.push({**JOB, "queue": "mail", "retry": 3})
    assert jid is not None
    assert re.fullmatch("[0-9a-f]{24}", jid)
    assert server.client().smembers("queues") == {b"mail"}
    [raw] = server.client().lrange("queue:mail", 0, -1)
    ms = int(NOW * 1000)
    assert raw.decode() == (
        f'{{"retry":3,"queue":"mail","class":"HardWorker","args":["bob",5],"jid":"{jid}",'
        f'"created_at":{ms},"enqueued_at":{ms}}}'
    )


@pytest.mark.rule("keys.queue", "push.bulk")
def test_jobs_of_one_queue_are_taken_in_the_order_of_their_pushes(face: Face, server: Server) -> None:
    jids = [face.push({"class": "Job", "args": [n]}) for n in range(3)]
    jids += face.push_bulk({"class": "Job", "args": [[n] for n in range(3, 6)]})
    assert [job["jid"] for job in standing(server)] == jids
    assert [job["args"] for job in standing(server)] == [[n] for n in range(6)]


@pytest.mark.rule("push.one")
def test_a_push_is_one_round_trip(new_face: NewFace, relay: Relay) -> None:
    face = new_face({"url": relay.url, "timeout": 2.0})
    face.push(JOB)
    relay.asked.clear()
    relay.gather = 2  # nothing reaches the server before both commands stand there
    assert face.push(JOB) is not None
    assert relay.names() == ["SADD", "LPUSH"]


@pytest.mark.rule("push.bulk", "push.bulk-later")
def test_a_bulk_push_is_one_round_trip_per_batch(new_face: NewFace, relay: Relay, own_server: Server) -> None:
    face = new_face(relay.url)
    face.push_bulk({"class": "Job", "args": [[n] for n in range(5)], "batch_size": 2})
    assert relay.names() == ["SADD", "LPUSH"] * 3
    assert [job["args"] for job in standing(own_server)] == [[n] for n in range(5)]
    relay.asked.clear()
    face.push_bulk({"class": "Job", "args": [[1]] * 3, "at": NOW * 2})
    assert relay.names() == ["ZADD"]


@pytest.mark.rule("push.later", "keys.queues", "b9.20")
@pytest.mark.parametrize("given", [{"at": NOW + 60}, {"at": 2_000_000_000}])
def test_a_job_for_later_goes_to_the_schedule(still: Face, server: Server, given: dict[str, Any]) -> None:
    jid = still.push({**JOB, **given})
    [(score, job)] = due(server)
    assert score == given["at"]
    assert job["jid"] == jid
    assert not {"at", "enqueued_at"} & job.keys()
    assert server.client().keys("*") == [b"schedule"]


@pytest.mark.rule("client.in", "b9.19")
@pytest.mark.parametrize("at", [NOW, NOW - 60, 0, -5])
def test_a_time_that_has_come_means_now(still: Face, server: Server, at: float) -> None:
    still.push({**JOB, "at": at})
    [job] = standing(server)
    assert "at" not in job
    assert job["enqueued_at"] == int(NOW * 1000)
    assert due(server) == []


@pytest.mark.rule("fields.created_at", "fields.unknown", "b9.3", "b9.4")
def test_what_the_caller_gave_is_kept(face: Face, server: Server) -> None:
    assert face.push({**JOB, "jid": "abc", "created_at": 17, "tags": ["a"], "mine": {"b": [1]}}) == "abc"
    [job] = standing(server)
    assert {name: job[name] for name in ("jid", "created_at", "tags", "mine")} == {
        "jid": "abc",
        "created_at": 17,
        "tags": ["a"],
        "mine": {"b": [1]},
    }


MALFORMED: list[tuple[Any, str]] = [
    ({"class": "A"}, "without `args`"),
    ({"args": []}, "without `class`"),
    ([1], "`class` and `args`, got a list"),
    ({"class": "A", "args": "x"}, "`args` to be a list"),
    ({"class": "A", "args": [], "queue": ""}, "valid queue name"),
    ({"class": "A", "args": [], "queue": None}, "valid queue name"),
    ({"class": "A", "args": [{"when": {1, 2}}]}, r'args\[0\]\["when"\]'),
    ({"class": "A", "args": [], "at": "soon"}, "`at` to be a number"),
    ({"class": "A", "args": [], "at": 1_800_000_000_000}, "before the year 10000"),
    ({"class": "A", "args": [], "retry_for": 1_000_000_001}, "retry_for"),
]


@pytest.mark.rule("check.mapping", "check.args", "check.at", "check.queue", "b9.1", "b9.2")
def test_a_malformed_job_is_refused_before_anything_is_sent(face: Face, server: Server) -> None:
    for item, words in MALFORMED:
        with pytest.raises(PayloadError, match=words):
            face.push(item)
    assert nothing_stands(server)


def test_retry_for_takes_a_duration(face: Face, server: Server) -> None:
    import datetime as dt

    face.push({**JOB, "retry_for": dt.timedelta(hours=48)})
    assert standing(server)[0]["retry_for"] == 172_800


@pytest.mark.rule("server.prefix", instead=True)
def test_a_prefix_moves_everything(new_face: NewFace, server: Server) -> None:
    face = new_face({"url": server.url, "prefix": "{s0}"})
    face.push(JOB)
    face.push({**JOB, "at": NOW * 2})
    assert sorted(server.client().keys("*")) == [b"{s0}queue:default", b"{s0}queues", b"{s0}schedule"]


# --- bulk -------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("bulk.result")
@pytest.mark.rule("b9.10", instead=True)
def test_a_thousand_and_one_jobs(face: Face, server: Server) -> None:
    rows = [[n] for n in range(1_001)]
    jids = face.push_bulk({"class": "Job", "args": rows})
    jobs = standing(server)
    assert [job["jid"] for job in jobs] == jids
    assert len(set(jids)) == 1_001
    assert [job["args"] for job in jobs] == rows


@pytest.mark.rule("bulk.size")
@pytest.mark.rule("b9.10", instead=True)
def test_a_lazy_iterable_is_read_batch_by_batch_and_counted(face: Face, server: Server) -> None:
    seen: list[int] = []

    def rows() -> Iterator[list[int]]:
        for n in range(1_001):
            if n in (0, 1_000):
                seen.append(int(server.client().llen("queue:default")))
            yield [n]

    assert face.push_bulk({"class": "Job", "args": rows()}) == 1_001
    assert seen == [0, 1_000]
    assert [job["args"] for job in standing(server)] == [[n] for n in range(1_001)]


@pytest.mark.rule("bulk.result", "b9.17")
def test_without_rows_nothing_is_pushed(face: Face, server: Server) -> None:
    assert face.push_bulk({"class": "Job", "args": []}) == []
    assert face.push_bulk({"class": "Job", "args": iter(())}) == 0
    assert nothing_stands(server)


@pytest.mark.rule("b9.16")
@pytest.mark.rule("bulk.jid", instead=True)
def test_an_explicit_jid_is_for_one_job(face: Face, server: Server) -> None:
    assert face.push_bulk({"class": "Job", "args": [[1]], "jid": "mine"}) == ["mine"]
    with pytest.raises(PayloadError, match="no explicit jid in a bulk push of 2 jobs"):
        face.push_bulk({"class": "Job", "args": [[1], [2]], "jid": "mine"})
    with pytest.raises(PayloadError, match="bulk push of many jobs"):
        face.push_bulk({"class": "Job", "args": iter([[1]]), "jid": "mine"})
    assert [job["jid"] for job in standing(server)] == ["mine"]


@pytest.mark.rule("bulk.at", "bulk.size", "b9.15")
def test_each_job_keeps_its_own_time_over_batches(still: Face, server: Server) -> None:
    times = [NOW + 50 - 10 * n for n in range(4)] + [NOW - 5]
    jids = still.push_bulk({"class": "Job", "args": [[n] for n in range(5)], "at": times, "batch_size": 2})
    assert [(score, job["args"], job["jid"]) for score, job in due(server)] == [
        (NOW + 50 - 10 * n, [n], jids[n]) for n in (3, 2, 1, 0)
    ]
    assert [job["args"] for job in standing(server)] == [[4]]
    assert not any({"at", "enqueued_at"} & job.keys() for _, job in due(server))


@pytest.mark.rule("bulk.at")
def test_one_time_is_for_all_jobs(still: Face, server: Server) -> None:
    still.push_bulk({"class": "Job", "args": iter([[1], [2]]), "at": NOW + 60})
    assert [score for score, _ in due(server)] == [NOW + 60] * 2


@pytest.mark.rule("bulk.spread", "b9.14")
def test_a_bulk_push_can_be_spread(still: Face, server: Server) -> None:
    still.push_bulk({"class": "Job", "args": [[n] for n in range(40)], "spread_interval": 10})
    times = [score for score, _ in due(server)]
    assert len(set(times)) == 40
    assert NOW < times[0] < NOW + 2 < NOW + 8 < times[-1] <= NOW + 10
    assert all("spread_interval" not in job for _, job in due(server))
    server.reset()
    still.push_bulk({"class": "Job", "args": [[n] for n in range(40)], "spread_interval": 0.1})
    assert NOW + 4 < due(server)[-1][0] <= NOW + 5  # over five seconds at least


MALFORMED_BULK: list[tuple[dict[str, Any], str]] = [
    ({"args": [[1], 2]}, "list of lists, got int"),
    ({"args": [[1], "ab"]}, "list of lists, got str"),
    ({"args": "ab"}, "iterable of lists, got str"),
    ({"args": {"a": 1}}, "iterable of lists, got dict"),
    ({"args": 5}, "iterable of lists, got int"),
    ({}, "iterable of lists, got NoneType"),
    ({"args": [[1], [2]], "at": [NOW]}, "one 'at' per job, got 1 for 2 jobs"),
    ({"args": iter([[1]]), "at": [NOW]}, "got 1 for an unknown number of jobs"),
    ({"args": [[1]], "at": []}, "non-empty list"),
    ({"args": [[1]], "at": ["soon"]}, "list of epoch seconds"),
    ({"args": [[1]], "at": [True]}, "list of epoch seconds"),
    ({"args": [[1]], "at": None}, "'at' to be epoch seconds"),
    ({"args": [[1]], "at": float("nan")}, "'at' to be epoch seconds"),
    ({"args": [[1]], "at": 1_800_000_000_000}, "'at' to be epoch seconds"),
    ({"args": [[1]], "at": [1_800_000_000_000]}, "list of epoch seconds"),
    ({"args": [[1]], "at": NOW, "spread_interval": 5}, "one of 'at' and 'spread_interval'"),
    ({"args": [[1]], "spread_interval": -5}, "positive number of seconds"),
    ({"args": [[1]], "spread_interval": "5"}, "positive number of seconds"),
    ({"args": [[1]], "batch_size": 0}, "'batch_size' to be a positive whole number"),
    ({"args": [[1]], "batch_size": True}, "'batch_size' to be a positive whole number"),
    ({"args": [[1]], "queue": ""}, "valid queue name"),
]


@pytest.mark.rule("bulk.rows", "bulk.at", "bulk.spread", "b9.11", "b9.12", "b9.13")
def test_a_malformed_bulk_push_sends_nothing(face: Face, server: Server) -> None:
    for given, words in MALFORMED_BULK:
        with pytest.raises(PayloadError, match=words):
            face.push_bulk({"class": "Job", **given})
    assert nothing_stands(server)


def test_a_bad_row_in_a_later_batch_tells_what_went_before_it(face: Face, server: Server) -> None:
    rows: list[Any] = [[1], [2], [3], "x"]
    with pytest.raises(PartlyEnqueued, match=r"^2 jobs are enqueued, 0 are not.*list of lists, got str") as caught:
        face.push_bulk({"class": "Job", "args": rows, "batch_size": 2})
    assert list(caught.value.confirmed) == [job["jid"] for job in standing(server)]
    assert isinstance(caught.value.__cause__, PayloadError)


def test_so_does_an_iterable_that_raises(face: Face, server: Server) -> None:
    def rows() -> Iterator[list[int]]:
        yield from ([1], [2])
        raise LookupError("the cursor is gone")

    with pytest.raises(LookupError) as caught:
        face.push_bulk({"class": "Job", "args": rows(), "batch_size": 2})
    assert caught.value.__notes__ == ["pillion: 2 jobs of earlier batches are enqueued"]
    assert len(standing(server)) == 2


# --- middleware -------------------------------------------------------------------------------------------------------


def only_odd(job_class: Any, job: dict[str, Any], queue: str, pool: Any) -> Iterator[None]:
    if job["args"][0] % 2:
        yield


def by_number(job_class: Any, job: dict[str, Any], queue: str, pool: Any) -> Iterator[None]:
    job["queue"] = f"q{job['args'][0] % 3}"
    yield


@pytest.mark.rule("client.async", "bulk.result", "bulk.own", "middleware.stop", "b9.8")
def test_middleware_stops_single_jobs_and_jobs_of_a_bulk(face: Face, server: Server) -> None:
    face.setup.client_middleware.add(only_odd)
    assert face.push({"class": "Job", "args": [2]}) is None
    jids = face.push_bulk({"class": "Job", "args": [[n] for n in range(4)], "batch_size": 2})
    assert [jids[0], jids[2]] == [None, None]
    assert [job["jid"] for job in standing(server)] == [jids[1], jids[3]]
    assert face.push_bulk({"class": "Job", "args": iter([[n] for n in range(5)])}) == 2
    assert face.push_bulk({"class": "Job", "args": [[2], [4]]}) == [None, None]


@pytest.mark.rule("push.bulk-queues", "middleware.client", "b9.9")
def test_middleware_may_change_the_queue_of_each_job(face: Face, server: Server) -> None:
    face.setup.client_middleware.add(by_number)
    face.push({"class": "Job", "args": [2]})
    face.push_bulk({"class": "Job", "args": [[n] for n in range(6)]})
    assert server.client().smembers("queues") == {b"q0", b"q1", b"q2"}
    assert [[job["args"][0] for job in standing(server, f"q{n}")] for n in range(3)] == [[0, 3], [1, 4], [2, 2, 5]]
    assert all(job["queue"] == "q1" for job in standing(server, "q1"))


def test_middleware_that_changes_a_job_in_place_changes_no_other(new_face: NewFace, server: Server) -> None:
    face = new_face(server.url, default_job_options={"queue": "default", "deep": {"list": []}})
    arguments = {"given": []}

    def mark(job_class: Any, job: dict[str, Any], queue: str, pool: Any) -> Iterator[None]:
        job["tags"].append(str(job["args"][0]))
        job["deep"]["list"].append(job["args"][0])
        job["mine"]["n"] = job["args"][0]
        yield

    face.setup.client_middleware.add(mark)
    item = {"class": "Job", "tags": ["all"], "mine": {"n": None}}
    face.push_bulk({**item, "args": [[n] for n in range(3)]})
    face.push({**item, "args": [3, arguments]})
    jobs = standing(server)
    assert [job["tags"] for job in jobs] == [["all", str(n)] for n in range(4)]
    assert [job["deep"] for job in jobs] == [{"list": [n]} for n in range(4)]
    assert [job["mine"] for job in jobs] == [{"n": n} for n in range(4)]
    assert item == {"class": "Job", "tags": ["all"], "mine": {"n": None}}
    assert face.setup.config.default_job_options["deep"] == {"list": []}


@pytest.mark.rule("check.after-middleware")
def test_what_middleware_leaves_is_checked_again(face: Face, server: Server) -> None:
    def spoil(job_class: Any, job: dict[str, Any], queue: str, pool: Any) -> Iterator[None]:
        job["args"] = [object()]
        yield

    face.setup.client_middleware.add(spoil)
    with pytest.raises(PayloadError, match=r"args\[0\]"):
        face.push(JOB)
    assert nothing_stands(server)


@pytest.mark.rule("client.async", "client.in", "client.set", "b9.19", "b9.21")
def test_a_job_class_and_its_setter_push_through_a_client(face: Face, server: Server) -> None:
    class Pushed(pillion.Job, queue="low", tags=["x"], name="Pushed::Job"):
        def perform(self, n: int) -> None: ...

    again = Pushed.set(client=face.client, queue="high")
    if face.colour == "sync":
        jids = [again.perform_async(n) for n in range(4)]
        again.perform_in(-60, 4)
        again.perform_in(3_600, 5)
    else:
        jids = [face.runner.run(again.aperform_async(n)) for n in range(4)]
        face.runner.run(again.aperform_in(-60, 4))
        face.runner.run(again.aperform_in(3_600, 5))
    assert len(set(jids)) == 4
    assert [job["args"] for job in standing(server, "high")] == [[n] for n in range(5)]
    assert [job["args"] for _, job in due(server)] == [[5]]
    assert standing(server, "high")[0]["tags"] == ["x"]


def test_a_client_is_given_a_setup_or_options() -> None:
    with pytest.raises(ConfigError, match="got both"):
        pillion.Client("redis://localhost", setup=Setup())


# --- once -------------------------------------------------------------------------------------------------------------


def test_a_jid_is_pushed_once_in_ten_minutes(face: Face, server: Server) -> None:
    client = server.client()
    for _ in range(3):
        assert face.push({**JOB, "jid": "abc"}, once=True) == "abc"
        assert face.push({**JOB, "jid": "later", "at": NOW * 2}, once=True) == "later"
    assert [job["jid"] for job in standing(server)] == ["abc"]
    assert [job["jid"] for _, job in due(server)] == ["later"]
    assert client.smembers("queues") == {b"default"}
    assert 590 < client.ttl("pillion:once:abc") <= 600
    client.delete("pillion:once:abc")
    face.push({**JOB, "jid": "abc"}, once=True)
    assert len(standing(server)) == 2


def test_without_once_nothing_is_compared(face: Face, server: Server) -> None:
    for _ in range(2):
        face.push({**JOB, "jid": "abc"})
    assert len(standing(server)) == 2
    assert server.client().keys("pillion:*") == []


def test_a_bulk_push_once(face: Face, server: Server) -> None:
    face.setup.client_middleware.add(by_number)
    jids = face.push_bulk({"class": "Job", "args": [[n] for n in range(4)]}, once=True)
    assert [job["jid"] for job in standing(server, "q0")] == [jids[0], jids[3]]
    assert len(server.client().keys("pillion:once:*")) == 4


def test_of_a_bulk_push_once_a_broken_queue_refuses_only_its_own_jobs(face: Face, server: Server) -> None:
    face.setup.client_middleware.add(by_number)
    server.client().set("queue:q1", "surprise")
    with pytest.raises(PartlyEnqueued, match="WRONGTYPE") as caught:
        face.push_bulk({"class": "Job", "args": [[n] for n in range(3)]}, once=True)
    assert list(caught.value.confirmed) == [standing(server, q)[0]["jid"] for q in ("q0", "q2")]
    [refused] = caught.value.unsent
    assert not server.client().exists(f"pillion:once:{refused}")  # so that it may be pushed again
    with pytest.raises(Refused, match="WRONGTYPE"):
        face.push({"class": "Job", "args": [1], "jid": refused}, once=True)


def test_once_and_durability_exclude_each_other(face: Face, server: Server) -> None:
    with pytest.raises(PayloadError, match="got both"):
        face.push(JOB, once=True, durability="replicated")
    with pytest.raises(PayloadError, match="'twice'"):
        face.push(JOB, durability="twice")
    assert nothing_stands(server)


# --- durability -------------------------------------------------------------------------------------------------------


def test_a_replicated_push_waits_for_a_replica(new_face: NewFace, new_server: NewServer) -> None:
    primary, replica = new_server("--repl-diskless-sync-delay", "0"), new_server()
    face = new_face(primary.url)
    replica.client().replicaof("127.0.0.1", primary.port)
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up", what="the replica to follow")
    jid = face.push(JOB, durability="replicated")
    assert [json.loads(raw)["jid"] for raw in replica.client().lrange("queue:default", 0, -1)] == [jid]
    jids = face.push_bulk({"class": "Job", "args": [[1], [2]], "batch_size": 1}, durability="replicated")
    assert replica.client().llen("queue:default") == 3
    assert len(jids) == 2


def test_a_push_that_no_replica_confirms_says_so_and_stands(new_face: NewFace, own_server: Server) -> None:
    face = new_face({"url": own_server.url, "timeout": 0.2})  # no replica: the WAIT takes a tenth of a second
    before = face.run(command("CLIENT", "ID"))
    with pytest.raises(NotReplicated, match=r"^1 job\(s\) are on the primary, but 0 of 1 replica") as caught:
        face.push(JOB, durability="replicated")
    assert list(caught.value.jids) == [standing(own_server)[0]["jid"]]
    assert face.run(command("CLIENT", "ID")) == before  # the answer was waited for


def test_an_unconfirmed_batch_holds_up_no_other(new_face: NewFace, own_server: Server) -> None:
    face = new_face({"url": own_server.url, "timeout": 0.1})
    with pytest.raises(NotReplicated, match=r"^3 job\(s\)") as caught:
        face.push_bulk({"class": "Job", "args": [[1], [2], [3]], "batch_size": 1}, durability="replicated")
    assert list(caught.value.jids) == [job["jid"] for job in standing(own_server)]
    assert (caught.value.replicas, caught.value.wanted) == (0, 1)


def test_a_lost_answer_of_the_wait_is_not_a_lost_push(new_face: NewFace, relay: Relay, own_server: Server) -> None:
    face = new_face({"url": relay.url, "timeout": 0.4})
    face.push(JOB)
    relay.replies = 2
    with pytest.raises(NotReplicated) as caught:
        face.push(JOB, durability="replicated")
    assert list(caught.value.jids) == [standing(own_server)[1]["jid"]]


# --- what an error tells ----------------------------------------------------------------------------------------------


def three_queues(face: Face) -> PillionError:
    """Push jobs for three queues and a fourth one for later, all in one pipeline; it must fail."""
    face.setup.client_middleware.add(by_number)
    with pytest.raises(PillionError) as caught:
        face.push_bulk({"class": "Job", "args": [[0], [1], [2], [0]], "at": [0, 0, 0, 4e9]})
    return caught.value


def args_of(server: Server, queue: str, jids: Any) -> list[Any]:
    return [job["args"][0] for job in standing(server, queue) if job["jid"] in jids]


def test_a_reply_lost_half_way_sorts_the_jids(new_face: NewFace, relay: Relay, own_server: Server) -> None:
    face = new_face(relay.url)
    face.push(JOB)
    relay.replies = 2  # of SADD and of the first LPUSH
    error = three_queues(face)
    assert isinstance(error, MaybeEnqueued)
    assert (len(error.confirmed), len(error.unknown), len(error.unsent)) == (1, 3, 0)
    assert args_of(own_server, "q0", error.confirmed) == [0]
    wait_until(lambda: own_server.client().zcard("schedule") == 1, what="the server to run what it got")
    assert args_of(own_server, "q1", error.unknown) + args_of(own_server, "q2", error.unknown) == [1, 2]
    assert relay.names()[2:] == ["SADD", "LPUSH", "LPUSH", "LPUSH", "ZADD"]  # and never again


def test_what_was_refused_before_the_reply_was_lost_is_not_counted_as_done(
    new_face: NewFace, relay: Relay, own_server: Server
) -> None:
    face = new_face(relay.url)
    face.push(JOB)
    own_server.client().set("queue:q0", "surprise")
    relay.replies = 3
    error = three_queues(face)
    assert isinstance(error, MaybeEnqueued)
    assert (len(error.confirmed), len(error.unknown), len(error.unsent)) == (1, 2, 1)
    assert args_of(own_server, "q1", error.confirmed) == [1]


def test_what_never_left_whole_is_not_enqueued(new_face: NewFace, relay: Relay, own_server: Server) -> None:
    """A server that stops reading: of a pipeline larger than every buffer on the way, the end did not leave."""
    face = new_face({"url": relay.url, "timeout": 0.2}, max_payload=16_000_000)
    face.push(JOB)
    face.setup.client_middleware.add(by_number)
    relay.deaf = True
    rows = [[0, "small"], [1, "x" * 15_000_000], [2, "after it"]]
    with pytest.raises(MaybeEnqueued) as caught:
        face.push_bulk({"class": "Job", "args": rows})
    assert (len(caught.value.confirmed), len(caught.value.unknown), len(caught.value.unsent)) == (0, 1, 2)
    relay.cut()
    assert [len(standing(own_server, f"q{n}")) for n in (1, 2)] == [0, 0]


def test_a_push_of_which_no_job_left_whole_is_no_doubt_at_all(new_face: NewFace, relay: Relay) -> None:
    face = new_face({"url": relay.url, "timeout": 0.2}, max_payload=16_000_000)
    face.push(JOB)
    relay.deaf = True
    with pytest.raises(Unavailable, match="broke before a job had left"):
        face.push({"class": "Job", "args": ["x" * 15_000_000]})


def test_a_push_once_that_is_lost_twice_is_in_doubt(new_face: NewFace, relay: Relay, own_server: Server) -> None:
    face = new_face(relay.url)
    face.push(JOB, once=True)

    def heard(words: list[bytes]) -> None:
        relay.replies = 0 if words[0].startswith(b"EVAL") else None

    relay.heard = heard
    face.setup.client_middleware.add(by_number)
    with pytest.raises(MaybeEnqueued) as caught:
        face.push_bulk({"class": "Job", "args": [[0], [1]]}, once=True)
    assert list(caught.value.unknown) == [standing(own_server, q)[0]["jid"] for q in ("q0", "q1")]
    assert relay.names()[2:] == ["EVALSHA"] * 2


def test_a_queue_of_the_wrong_type_refuses_its_own_jobs(face: Face, server: Server) -> None:
    server.client().set("queue:q1", "surprise")
    error = three_queues(face)
    assert isinstance(error, PartlyEnqueued)
    assert "WRONGTYPE" in str(error)
    assert (len(error.confirmed), len(error.unsent)) == (3, 1)
    assert args_of(server, "q0", error.confirmed) + args_of(server, "q2", error.confirmed) == [0, 2]
    assert not isinstance(error, Refused)


def test_alone_it_is_refused(face: Face, server: Server) -> None:
    server.client().set("queue:default", "surprise")
    with pytest.raises(Refused, match="the server refused push: WRONGTYPE"):
        face.push(JOB)
    with pytest.raises(Refused, match="the server refused push_once: WRONGTYPE"):
        face.push(JOB, once=True)


def test_a_job_in_a_queue_that_is_not_listed_is_enqueued_all_the_same(face: Face, server: Server) -> None:
    server.client().set("queues", "surprise")
    with pytest.raises(PartlyEnqueued, match="WRONGTYPE") as caught:
        face.push(JOB)
    assert list(caught.value.confirmed) == [standing(server)[0]["jid"]]
    assert caught.value.unsent == ()


@pytest.mark.parametrize("lazy", [False, True])
def test_a_refused_batch_tells_about_the_earlier_ones(face: Face, server: Server, lazy: bool) -> None:
    face.setup.client_middleware.add(by_number)
    server.client().set("queue:q2", "surprise")
    rows = [[n] for n in range(5)]
    with pytest.raises(
        PartlyEnqueued, match=r"^2 jobs are enqueued, 1 are not \(.unsent\): the server refused"
    ) as caught:
        face.push_bulk({"class": "Job", "args": iter(rows) if lazy else rows, "batch_size": 1})
    error = caught.value
    jids = [standing(server, q)[0]["jid"] for q in ("q0", "q1")]
    assert (list(error.confirmed), error.unlisted) == (([], 2) if lazy else (jids, 0))
    assert len(error.unsent) == 1


@pytest.mark.parametrize("lazy", [False, True])
def test_a_lost_batch_tells_about_the_earlier_ones(
    new_face: NewFace, relay: Relay, own_server: Server, lazy: bool
) -> None:
    face = new_face(relay.url)
    face.push(JOB)
    relay.replies = 5
    rows = [[n] for n in range(5)]
    with pytest.raises(MaybeEnqueued, match="2 confirmed, 1 unknown, 0 unsent") as caught:
        face.push_bulk({"class": "Job", "args": iter(rows) if lazy else rows, "batch_size": 1})
    jids = [job["jid"] for job in standing(own_server)[1:]]
    assert (list(caught.value.confirmed), caught.value.unlisted) == (([], 2) if lazy else (jids[:2], 0))
    assert list(caught.value.unknown) == jids[2:]
    assert len(jids) == 3


def test_a_server_that_is_gone_after_the_first_batch(new_face: NewFace, own_server: Server) -> None:
    face = new_face(own_server.url)

    def rows() -> Iterator[list[int]]:
        yield [1]
        own_server.kill()
        yield [2]

    with pytest.raises(PartlyEnqueued, match=r"^1 jobs are enqueued, 1 are not .*cannot reach Redis") as caught:
        face.push_bulk({"class": "Job", "args": rows(), "batch_size": 1})
    assert caught.value.unlisted == 1


def test_a_full_server_refuses_the_job_and_says_what_to_do(own_face: Face, own_server: Server) -> None:
    own_face.push(JOB)
    own_server.client().config_set("maxmemory", "1mb")
    for options in ({}, {"once": True}):
        with pytest.raises(QueueFull, match=r"memory is full .* OOM .*raise maxmemory"):
            own_face.push(JOB, **options)
    assert len(standing(own_server)) == 1
    own_server.client().config_set("maxmemory", "0")
    assert own_face.push(JOB)


def test_a_user_without_permission_is_told_and_no_argument_is_repeated(own_face: Face, own_server: Server) -> None:
    client: redis.Redis = own_server.client()
    client.execute_command("ACL", "SETUSER", "default", "-lpush")
    with pytest.raises(Refused, match="NOPERM") as caught:
        own_face.push({"class": "Job", "args": ["confidential"]})
    assert "allow it to the user" in str(caught.value)
    assert "confidential" not in str(caught.value)

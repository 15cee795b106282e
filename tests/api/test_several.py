"""The API over several shards: sums, merged pages in order, one that is away, one that was picked."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from pillion import Client, Setup, UsageError
from pillion.api import DeadSet, Queue
from pillion.api.query import QuerySyntax
from pillion.api.several import Several
from pillion.errors import StoreError
from pillion.registry import Registry
from pillion.store import run_log
from pillion.store.run_log import Row
from tests.api.conftest import NOW, Clock, Say, job
from tests.pages import BY_NAME, names
from tests.servers import Server

NAMES = ("a", "b")


@pytest.fixture
def shards(server: Server, clock: Clock) -> Iterator[Several]:
    """Two shards on one server."""
    setup = Setup(
        redis=server.url, registry=Registry(), clock=clock, shards={name: {"prefix": f"{name}:"} for name in NAMES}
    )
    client = Client(setup=setup)
    yield Several.of(client)
    client.close()


@pytest.fixture
def one_away(server: Server, clock: Clock) -> Iterator[Several]:
    """A shard that answers, and one where nobody listens."""
    setup = Setup(
        redis=server.url,
        registry=Registry(),
        clock=clock,
        shards={"a": {"prefix": "a:"}, "gone": {"url": "unix:///nowhere/at/all.sock"}},
    )
    client = Client(setup=setup)
    yield Several.of(client)
    client.close()


def fill(look: redis.Redis, name: str, shard: str, *scores: float, **fields: Any) -> None:
    for score in scores:
        look.zadd(f"{shard}:{name}", {job(f"{shard}{score - NOW:g}", **fields): score})


def log(several: Several, shard: str, *began: float, error: str | None = None) -> None:
    store = several.client_of(shard).store
    for at in began:
        row = Row(
            f"{shard}{at - NOW:g}", "C", "q", 1, int(at * 1000), 0, None, "retry" if error else "done", error, error
        )
        for raw in run_log.pack({"vm:1:a/default.1": [row]}):
            store.run(run_log.append(store.keys, "failed" if error else "done", [raw], 1_000_000))


# -- which shards --------------------------------------------------------------------------------------------------


def test_the_shards_of_a_setup(shards: Several) -> None:
    assert shards.names == ["a", "b"]
    assert repr(shards) == "Several(a, b)"
    assert shards.client_of("b").store.keys.prefix == "b:"
    assert shards.pick("b").names == ["b"]
    assert shards.pick("b").client.store.keys.prefix == "b:"


def test_a_setup_without_shards_is_one(client: Client) -> None:
    assert Several.of(client).names == ["default"]
    assert Several.of(client).client is client


def test_what_is_no_shard_is_refused(shards: Several) -> None:
    with pytest.raises(UsageError, match="expected a shard of a, b, got 'c'"):
        shards.pick("a", "c")
    with pytest.raises(UsageError, match="expected one shard, got a, b; `pick` one of them"):
        _ = shards.client
    with pytest.raises(UsageError, match="expected at least one client by name"):
        Several({})


def test_clients_of_any_origin_can_be_put_together(
    say: Say, client: Client, shards: Several, look: redis.Redis
) -> None:
    look.incrby("stat:processed", 1)
    look.incrby("a:stat:processed", 10)
    many = Several({"main": client, "a": shards.client_of("a")})
    assert say(many.stats).value.processed == 11


# -- sums ----------------------------------------------------------------------------------------------------------


def test_figures_are_summed(say: Say, shards: Several, look: redis.Redis) -> None:
    for n, name in enumerate(NAMES, 1):
        look.set(f"{name}:stat:processed", 10 * n)
        look.sadd(f"{name}:queues", "default", f"only-{name}")
        look.lpush(f"{name}:queue:default", *(job(f"j{i}", enqueued_at=NOW - 5 * n) for i in range(n)))
        fill(look, "dead", name, NOW)
    figures = say(shards.stats)
    assert figures.away == {}
    assert (figures.value.processed, figures.value.enqueued, figures.value.dead_size) == (30, 3, 2)
    assert (figures.value.default_queue_latency, figures.value.queues) == (
        10.0,
        {"default": 3, "only-a": 0, "only-b": 0},
    )


def test_a_queue_on_several_shards_is_one(say: Say, shards: Several, look: redis.Redis) -> None:
    for n, name in enumerate(NAMES, 1):
        look.sadd(f"{name}:queues", "default", "odd")
        look.lpush(f"{name}:queue:default", *(job(f"j{i}", enqueued_at=NOW - 5 * n) for i in range(n)))
    look.set("b:queue:odd", "text")
    Queue("default", shards.client_of("a")).pause()
    default, odd = say(shards.queue_summaries).value
    assert (default.name, default.size, default.latency, default.paused, default.fault) == (
        "default",
        3,
        10.0,
        True,
        None,
    )
    assert odd.fault is not None


def test_a_process_that_serves_several_shards_is_one(say: Say, shards: Several, look: redis.Redis) -> None:
    def enter(shard: str, identity: str, busy: int) -> None:
        look.sadd(f"{shard}:processes", identity)
        look.hset(f"{shard}:{identity}", mapping={"info": json.dumps({"tag": shard}), "busy": busy, "concurrency": 5})

    enter("a", "vm:2:both", 1)
    enter("b", "vm:2:both", 2)
    enter("b", "vm:1:one", 4)
    found = say(shards.processes).value
    assert [(each.shard, each.value.identity, each.value.busy, each.value.concurrency) for each in found] == [
        ("b", "vm:1:one", 4, 5),
        ("a", "vm:2:both", 3, 5),
    ]


def test_what_runs_longest_comes_first(say: Say, shards: Several, look: redis.Redis) -> None:
    for n, name in enumerate(NAMES):
        look.sadd(f"{name}:processes", "vm:1:a")
        look.hset(f"{name}:vm:1:a", "info", "{}")
        for began in (NOW - n, NOW - 10 - n):
            row = {"queue": "q", "payload": job(f"{name}{began - NOW:g}").decode(), "run_at": int(began)}
            look.hset(f"{name}:vm:1:a:work", f"t{began}", json.dumps(row))
    assert [(each.shard, NOW - each.value.run_at.timestamp()) for each in say(shards.work).value] == [
        ("b", 11.0),
        ("a", 10.0),
        ("b", 1.0),
        ("a", 0.0),
    ]


def test_the_same_cause_is_summed(say: Say, shards: Several, look: redis.Redis) -> None:
    fault = {"error_class": "E", "error_message": "it broke"}
    fill(look, "dead", "a", NOW, NOW - 1, failed_at=NOW - 50, **fault)
    fill(look, "retry", "b", NOW, failed_at=NOW - 90, **fault)
    fill(look, "dead", "b", NOW, error_class="Other", failed_at=NOW)
    first, second = say(shards.causes).value
    assert (first.error_class, first.dead, first.retrying, first.count) == ("E", 2, 1, 3)
    assert first.first_seen is not None
    assert first.first_seen.timestamp() == NOW - 90
    assert second.error_class == "Other"
    assert [cause.error_class for cause in say(shards.causes, most=1).value] == ["E"]


def test_an_overview_of_each(say: Say, shards: Several, clock: Clock) -> None:
    before = say(shards.overview).value
    assert list(before) == ["a", "b"]
    clock.at += 10
    assert [len(each.trail) for each in say(shards.overview, before).value.values()] == [2, 2]


# -- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lowest_first", [True, False])
@pytest.mark.parametrize("most", [1, 3, 50])
def test_pages_of_a_set_come_in_order(
    say: Say, shards: Several, look: redis.Redis, most: int, lowest_first: bool
) -> None:
    fill(look, "dead", "a", *(NOW + n for n in range(0, 20, 2)))
    fill(look, "dead", "b", *(NOW + n for n in range(1, 6)))
    found, after = [], None
    while True:
        page = say(shards.set_page, "dead", after, most, lowest_first=lowest_first).value
        assert len(page.entries) <= most
        found += [(each.value.score - NOW, each.shard) for each in page.entries]
        after = page.next
        if after is None:
            break
    assert len(found) == 15
    assert found == sorted(found, key=lambda each: each[0], reverse=not lowest_first)
    assert {shard for _, shard in found} == {"a", "b"}


@pytest.mark.parametrize("most", [1, 4, 50])
def test_pages_of_runs_come_newest_first_and_their_cursors_are_texts(say: Say, shards: Several, most: int) -> None:
    log(shards, "a", *(NOW + n for n in range(0, 10, 2)))
    log(shards, "b", *(NOW + n for n in range(1, 6, 2)))
    log(shards, "b", NOW + 7, error="E")
    found, after = [], None
    while True:
        page = say(shards.runs_page, after, most).value
        found += [each.value.began - NOW for each in page.entries]
        if page.next is None:
            break
        after = json.loads(json.dumps(page.next))
    assert found == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert [each.shard for each in say(shards.runs_page, state="failed").value.entries] == ["b"]
    with pytest.raises(UsageError, match="expected the cursor of a page of runs"):
        say(shards.runs_page, {"a": "nonsense"})


def test_runs_that_a_shard_did_not_tell_of_yet_come_before_older_ones_of_another(say: Say, shards: Several) -> None:
    store = shards.client_of("a").store
    for n in range(120):
        began = int((NOW + n) * 1000)
        rows = [Row(f"a{n}.{i}", "C", "q", 1, began + i, 0, None, "retry", "E" * 200, None) for i in range(20)]
        for raw in run_log.pack({"vm:1:a/default.1": rows}):
            store.run(run_log.append(store.keys, "failed", [raw], 10_000_000))
    log(shards, "b", NOW + 0.5, NOW + 60.5)
    began, after = list[float](), None
    while True:
        page = say(shards.runs_page, after, 5_000).value
        began += [each.value.began for each in page.entries]
        after = page.next
        if after is None:
            break
    assert len(began) == 120 * 20 + 2
    assert began == sorted(began, reverse=True)


@pytest.mark.parametrize("most", [2, 5, 50])
def test_a_search_goes_through_all_shards(say: Say, shards: Several, look: redis.Redis, most: int) -> None:
    fill(look, "dead", "a", *(NOW + n for n in range(7)))
    fill(look, "dead", "b", *(NOW + n for n in range(3)))
    fill(look, "retry", "b", NOW)
    found, after, searched = [], None, 0
    for _ in range(20):
        page = say(shards.search_page, "state:dead", after, most).value
        assert len(page.entries) <= most + 1
        at = [-each.value.record.score for each in page.entries]
        assert at == sorted(at)
        found += [each.value.job.jid for each in page.entries]
        searched = max(searched, page.searched)
        if page.next is None:
            break
        after = json.loads(json.dumps(page.next))
    assert len(found) == len(set(found)) == 10
    assert searched >= 3
    with pytest.raises(QuerySyntax):
        say(shards.search_page, "state:nowhere")


# -- trouble -------------------------------------------------------------------------------------------------------


def test_a_shard_that_is_away_spoils_nothing(say: Say, one_away: Several, look: redis.Redis) -> None:
    look.set("a:stat:processed", 7)
    fill(look, "dead", "a", NOW)
    figures = say(one_away.stats)
    assert figures.value.processed == 7
    assert list(figures.away) == ["gone"]
    assert isinstance(figures.away["gone"], StoreError)
    for verb in (one_away.queue_summaries, one_away.processes, one_away.work, one_away.causes, one_away.overview):
        assert list(say(verb).away) == ["gone"]


def test_a_walk_comes_back_to_a_shard_that_was_away(say: Say, one_away: Several, look: redis.Redis) -> None:
    fill(look, "dead", "a", NOW, NOW + 1)
    page = say(one_away.set_page, "dead", None, 1)
    assert (len(page.value.entries), list(page.away)) == (1, ["gone"])
    assert set(page.value.next) == {"a", "gone"}
    rest = say(one_away.set_page, "dead", page.value.next, 5)
    assert [each.value.score for each in rest.value.entries] == [NOW]
    assert rest.value.next == {"gone": None}
    found = say(one_away.search_page, "state:dead")
    assert len(found.value.entries) == 2
    assert found.value.next == {"gone": None}


def test_where_none_answers_the_error_is_raised(say: Say, one_away: Several) -> None:
    with pytest.raises(StoreError):
        say(one_away.pick("gone").stats)
    with pytest.raises(StoreError):
        say(one_away.set_page, "dead", {"gone": None})


def test_one_set_of_each_name(say: Say, shards: Several, look: redis.Redis) -> None:
    fill(look, "retry", "a", NOW)
    fill(look, "schedule", "b", NOW)
    assert [len(say(shards.set_page, name).value.entries) for name in ("schedule", "retry", "dead")] == [1, 1, 0]
    assert DeadSet(shards.client_of("a")).size() == 0


def test_the_page_names_every_verb_and_each_has_both_colours() -> None:
    verbs = {name.removeprefix("ask_") for name in vars(Several) if name.startswith("ask_")}
    assert sorted(names(BY_NAME["api.md"].table("Verb of `Several`", ""))) == sorted(verbs)
    for verb in verbs:
        sync, twin = getattr(Several, verb), getattr(Several, f"a{verb}")
        assert (sync.__name__, twin.__name__) == (verb, f"a{verb}")
        assert inspect.signature(sync) == inspect.signature(twin)
        assert str(inspect.signature(sync).return_annotation).startswith("Merged[")
        assert inspect.iscoroutinefunction(twin)

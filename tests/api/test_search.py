"""Searching all states: what is found, in what order, at what cost, and that pages go on where the last one ended."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
import redis

from pillion import Client, UsageError
from pillion.api import Found, Hit, QuerySyntax, Ref, Search, Selection
from pillion.api.query import parse
from pillion.api.search import spoken
from tests.api.conftest import NOW, NewClient, Say, job
from tests.servers import Server


def all_pages(say: Say, search: Search, most: int = 50, budget: int = 10_000) -> tuple[list[Hit], list[Found]]:
    """Every hit, and the pages."""
    after, pages = None, list[Found]()
    while True:
        pages.append(say(search.page, after, most, budget))
        after = pages[-1].next
        if after is None:
            return [hit for page in pages for hit in page.hits], pages
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,300}", after)


def stock(look: redis.Redis) -> None:
    """300 jobs in each of two queues, 300 in each set."""
    for queue in ("low", "high"):
        look.lpush(f"queue:{queue}", *(job(f"{queue}{n}", n, queue=queue) for n in range(300)))
        look.sadd("queues", queue)
    for key in ("retry", "schedule", "dead"):
        look.zadd(key, {job(f"{key}{n}", n, error_class="E" * (key != "schedule")): NOW + n // 7 for n in range(300)})


@pytest.mark.parametrize("most", [1, 7, 50, 500])
def test_every_job_is_found_once_in_the_order_of_its_place(
    say: Say, client: Client, look: redis.Redis, most: int
) -> None:
    if most == 1:
        look.lpush("queue:low", *(job(f"low{n}") for n in range(9)))
        look.sadd("queues", "low")
    else:
        stock(look)
    hits, pages = all_pages(say, Search("", client), most)
    jids = [hit.job.jid for hit in hits]
    assert len(jids) == len(set(jids)) == pages[-1].total == pages[-1].searched == (9 if most == 1 else 1_500)
    assert [jid for jid in jids if jid.startswith("low")] == [
        f"low{n}" for n in reversed(range(9 if most == 1 else 300))
    ]
    if most > 1:
        order = list(dict.fromkeys(hit.state + (hit.job.queue or "") * (hit.state == "queued") for hit in hits))
        assert order == ["queuedhigh", "queuedlow", "retry", "scheduled", "dead"]
        scores = [hit.record.score for hit in hits if hit.state == "dead"]  # type: ignore[union-attr]
        assert scores == sorted(scores, reverse=True)
        due = [hit.record.score for hit in hits if hit.state == "scheduled"]  # type: ignore[union-attr]
        assert due == sorted(due)


@pytest.mark.parametrize("budget", [1, 60, 999])
@pytest.mark.parametrize("text", ["args:17", "jid:dead17,low17", "state:retry,queued queue:low", "error:e", "zzz"])
def test_a_small_budget_finds_the_same(say: Say, client: Client, look: redis.Redis, text: str, budget: int) -> None:
    if budget == 1:
        look.lpush("queue:low", *(job(f"low{n}", n, queue="low") for n in range(20)))
        look.sadd("queues", "low")
    else:
        stock(look)
    search = Search(text, client)
    whole, _ = all_pages(say, search, 500, 100_000)
    hits, pages = all_pages(say, search, 500, budget)
    assert [hit.ref for hit in hits] == [hit.ref for hit in whole]
    steps = [after.searched - before.searched for before, after in pairwise(pages)]
    assert max(steps, default=0) <= budget
    assert pages[-1].searched == pages[-1].total


def test_pages_say_how_much_they_looked_at(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    page = say(Search("zzz", client).page, None, 50, 700)
    assert (page.hits, page.searched, page.total, page.complete) == ([], 700, 1_500, False)
    assert page.sentence() == "searched the newest 700 of 1,500"
    page = say(Search("zzz", client).page, page.next, 50, 10_000)
    assert (page.complete, page.sentence()) == (True, "searched all 1,500")
    assert (spoken(99_999), spoken(2_100_000)) == ("99,999", "2.1 M")


def test_only_places_that_terms_allow_are_looked_at(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    for text, total in {
        "state:dead": 300,
        "state:dead,retry": 600,
        "queue:low": 1_200,  # entries of sets may be meant for it
        "state:queued queue:low": 300,
        "state:queued": 600,
        "wait:>1s": 600,
        "state:dead state:queued": 0,
    }.items():
        assert say(Search(text, client).page, None, 1, 0).total == total, text
    assert {hit.job.queue for hit in all_pages(say, Search("queue:low", client))[0]} == {"low"}


def test_what_runs_is_found_first(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    look.sadd("processes", "host:1:abc")
    row = '{"queue":"low","run_at":%d,"payload":%s}'
    for n in range(3):
        payload = '"' + job(f"run{n}", n).decode().replace('"', '\\"') + '"'
        look.hset("host:1:abc:work", f"t{n}", row % (int(NOW) - n, payload))
    page = say(Search("args:1", client).page, None, 3)
    assert (page.hits[0].state, page.hits[0].job.jid) == ("running", "run1")
    assert page.hits[0].ref is None
    hits, pages = all_pages(say, Search("", client), 100)
    assert [hit.job.jid for hit in hits[:3]] == ["run2", "run1", "run0"]
    assert {page.total for page in pages} == {1_503}
    assert pages[-1].searched == 1_503
    assert all_pages(say, Search("-state:running", client))[1][-1].total == 1_500


def test_pages_go_on_while_jobs_come_and_go(say: Say, client: Client, look: redis.Redis) -> None:
    """Workers take the oldest and clients push between two pages: what waits all the while is found once."""
    look.lpush("queue:low", *(job(f"j{n}", n) for n in range(400)))
    look.sadd("queues", "low")
    search, seen, after = Search("state:queued", client), list[str](), None
    while True:
        page = say(search.page, after, 30)
        seen += [hit.job.jid for hit in page.hits]
        after = page.next
        if after is None:
            break
        look.rpop("queue:low", 2)
        look.lpush("queue:low", *(job(f"new{len(seen)}-{n}") for n in range(3)))
    ours = [jid for jid in seen if jid.startswith("j")]
    assert len(ours) == len(set(ours))
    assert [f"j{n}" for n in reversed(range(60, 400))] == ours[:340]


@pytest.mark.parametrize("step", [1, 0], ids=["apart", "one-score"])
def test_pages_of_a_set_go_on_where_the_last_entry_is_gone(
    say: Say, client: Client, look: redis.Redis, step: int
) -> None:
    look.zadd("dead", {job(f"j{n:04}"): NOW + n * step for n in range(200)})
    search, seen, after = Search("state:dead", client), list[str](), None
    while True:
        page = say(search.page, after, 20)
        seen += [hit.job.jid for hit in page.hits]
        after = page.next
        if after is None:
            break
        look.zrem("dead", page.hits[-1].job.value)
        look.zadd("dead", {job(f"new{len(seen)}"): NOW + 999})
    ours = [jid for jid in seen if jid.startswith("j")]
    assert set(ours) == {f"j{n:04}" for n in range(200)}
    assert len(ours) - 200 <= (0 if step else 20)  # a rank is not known to the entry where all have one score


def test_a_cursor_stays_short_whatever_a_job_weighs(say: Say, client: Client, look: redis.Redis) -> None:
    look.zadd("dead", {job(f"j{n}", "x" * 300_000): NOW for n in range(6)})
    look.lpush("queue:low", *(job(f"q{n}", "y" * 300_000) for n in range(6)))
    look.sadd("queues", "low")
    hits, _ = all_pages(say, Search("", client), 1)
    assert len({hit.job.jid for hit in hits}) == 12


def test_scores_that_no_clock_has(say: Say, client: Client, look: redis.Redis) -> None:
    look.zadd("schedule", {job("low"): "-inf", job("high"): "+inf", job("mid"): 1.5, job("small"): 5e-324})
    hits, _ = all_pages(say, Search("state:scheduled", client), 1)
    assert [hit.job.jid for hit in hits] == ["low", "small", "mid", "high"]


def test_the_server_minds_capitals_as_little_as_we_do(say: Say, client: Client, look: redis.Redis) -> None:
    look.lpush("queue:low", job("q", "MiXeD É"))
    look.sadd("queues", "low")
    look.zadd("dead", {job("d", "mIxEd é"): NOW})
    for text, found in {
        "args:MIXED": ["q", "d"],
        "mixed": ["q", "d"],
        "class:plain": [],
        "class:Plain": ["q", "d"],
    }.items():
        assert [hit.job.jid for hit in say(Search(text, client).page).hits] == found, text


def test_what_cannot_be_read_is_found_by_its_bytes(say: Say, client: Client, look: redis.Redis) -> None:
    look.zadd("dead", {b"not \xff json": NOW})
    [hit] = say(Search('"NOT "', client).page).hits
    assert (hit.job.value, hit.job.jid) == (b"not \xff json", "")


def test_a_key_of_another_type_spoils_no_search_but_its_own(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    look.set("queue:odd", "text")
    look.sadd("queues", "odd")
    assert len(all_pages(say, Search("", client))[0]) == 1_500


def test_a_job_is_found_by_its_jid_wherever_it_is(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    look.zadd("dead", {job('o"dd'): NOW})
    assert say(Search("", client).job, "retry17").state == "retry"
    assert say(Search("", client).job, 'o"dd').state == "dead"
    assert say(Search("state:dead", client).job, "retry17") is None
    assert say(Search("", client).job, "retry") is None


@pytest.mark.parametrize("cursor", ["", "x", "!!", "é", "lqhxdWV1ZWQ6", "kwEC", "a" * 400])
def test_what_is_no_cursor_is_refused(say: Say, client: Client, cursor: str) -> None:
    with pytest.raises(UsageError, match="begin anew"):
        say(Search("", client).page, cursor)


def test_a_cursor_of_a_queue_that_is_empty_now(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    page = say(Search("", client).page, None, 10)
    look.delete("queue:high")
    rest, _ = all_pages(say, Search("", client), 500)
    assert [hit.ref for hit in say(Search("", client).page, page.next, 500).hits] == [hit.ref for hit in rest][:500]


def test_a_text_that_is_no_query_is_refused(client: Client) -> None:
    with pytest.raises(QuerySyntax):
        Search("stat:x", client)


def test_what_cannot_match_never_leaves_the_server(client: Client, look: redis.Redis) -> None:
    """The server looks for the text, so a page that finds nothing costs nothing to send."""
    look.lpush("queue:low", *(job(f"j{n}", "x" * 1_000) for n in range(4_000)))
    look.sadd("queues", "low")
    before = look.info("stats")["total_net_output_bytes"]
    assert Search("args:needle", client).page(None, 50, 4_000).hits == []
    assert look.info("stats")["total_net_output_bytes"] - before < 100_000


def test_through_a_prefix(say: Say, new_client: NewClient, server: Server, look: redis.Redis) -> None:
    client = new_client(redis={"url": server.url, "prefix": "{s0}"})
    look.zadd("{s0}dead", {job("a"): NOW})
    look.zadd("dead", {job("b"): NOW})
    assert [hit.job.jid for hit in say(Search("", client).page).hits] == ["a"]


# --- what is marked ---------------------------------------------------------------------------------------------------


def test_a_reference_is_text_and_back(say: Say, client: Client, look: redis.Redis) -> None:
    stock(look)
    look.zadd("dead", {job("a|b|c"): NOW + 0.1 + 0.2})
    hits, _ = all_pages(say, Search("", client), 500)
    texts = [str(hit.ref) for hit in hits if hit.ref is not None]
    assert [Ref.parse(text) for text in texts] == [hit.ref for hit in hits]
    assert str(Selection.parse(texts[:2] * 2)) == "2 marked jobs"
    assert str(Selection.parse(texts[:1])) == "1 marked job"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dead",
        "dead||x|j",
        "gone||1|j",
        "queued||1|j",
        "dead|low|1|j",
        "dead||nan|j",
        "queued|a|0|j",
        "dead||1|" + "j" * 1_000,
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"state\|queue\|at\|jid"):
        Ref.parse(text)


def test_no_selection_and_too_many(client: Client) -> None:
    for count in (0, 1_001):
        with pytest.raises(UsageError, match="1 to 1,000"):
            Selection.parse(f"dead||1.0|j{n}" for n in range(count))


def test_a_page_asks_for_little(client: Client, look: redis.Redis) -> None:
    """One exchange for the names, one for the sizes, one for each 2,000 jobs: not one for each chunk."""
    look.lpush("queue:low", *(job(f"j{n}") for n in range(10_000)))
    look.sadd("queues", "low")
    search: Any = Search("state:queued args:zzz", client)
    search.page()
    before = look.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    search.page(None, 50, 10_000)
    assert look.info("commandstats")["cmdstat_evalsha"]["calls"] - before <= 12


def test_the_query_of_a_search_is_kept(client: Client) -> None:
    assert Search("id:a", client).query == parse("jid:a")
    assert repr(Search("id:a", client)) == "Search('jid:a')"

"""Every place and every key of `pillion top`, at 80x24, with a live worker and 100,000 jobs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis

import pillion
from tests.servers import Server
from tests.top.conftest import Person, Play, fill
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

STOP = threading.Event()


@pillion.job(name="TopLong")
def long_job(n: int) -> None:
    STOP.wait(60)


@pytest.fixture
def few(look: redis.Redis) -> redis.Redis:
    """90 that wait, 3 that are dead, 3 retries, 4 scheduled."""
    fill(look, 100)
    return look


@pytest.fixture
def worker(server: Server) -> Iterator[Harness]:
    """A live worker that runs a job."""
    STOP.clear()
    with harness(server) as bed:
        bed.start()
        bed.push("TopLong", 1)
        wait_until(
            lambda: any(bed.redis.hgetall(name + b":work") for name in bed.redis.smembers("processes")), what="it runs"
        )
        yield bed
        STOP.set()


@pytest.mark.rule("tools.top", instead=True)
def test_every_place_shows_a_live_worker_and_a_hundred_thousand_jobs(
    worker: Harness, look: redis.Redis, play: Play
) -> None:
    look.sadd("paused", "mailers", "default")
    wait_until(lambda: look.scard("paused") == 2, what="paused")
    fill(look)

    async def story(person: Person) -> None:
        await person.sees(
            "wait", "running", "90,000", "mailers", "60,000", "TimeoutError: timed out after #", "TopLong"
        )
        assert len(person.screen) == 24
        assert all(len(line) <= 80 for line in person.screen)
        await person.goes(2, "60,000", "30,000", "paused", "3 queues")
        await person.goes(3, "TopLong", "1 jobs run")
        await person.goes(4, "running", "queued", "100 shown, searched the newest", "of 100,001")
        await person.goes(5, "TimeoutError: timed out after # s", "2 causes")
        await person.goes(6, "in 1 d", "SendDigest", "of 3,334")
        await person.goes(7, "in 1 d", "TimeoutError", "of 3,333")
        await person.goes(8, "Resize", "TimeoutError", "of 3,333")
        await person.goes(9, "running", "1 processes")
        await person.goes(1, "runs a minute")

    play(story)


def test_the_stack_of_a_running_job(worker: Harness, play: Play) -> None:
    async def story(person: Person) -> None:
        await person.goes(3, "TopLong")
        await person.press("s")
        await person.sees("what ", "is doing", "STOP.wait(60)")
        await person.press("escape")
        await person.until(lambda: len(person.app.screen_stack) == 1)
        await person.press("enter")
        await person.sees("class", "TopLong", "process")
        await person.press("escape", "9")
        await person.sees("1 processes")
        await person.press("enter")
        await person.sees("STOP.wait(60)")

    play(story, size=(110, 40))


def test_a_worker_that_is_embedded_cannot_be_stopped_from_here(worker: Harness, play: Play) -> None:
    async def story(person: Person) -> None:
        await person.goes(9, "1 processes")
        await person.press("S")
        await person.sees("stop ", "Enter: yes")
        await person.press("enter")
        await person.sees("embedded")

    play(story, size=(200, 24))


def test_quiet_is_asked_for(look: redis.Redis, play: Play) -> None:
    look.sadd("processes", "host:1:abc")
    look.hset("host:1:abc", mapping={"info": '{"queues":["a"],"started_at":1}', "concurrency": 5, "busy": 0, "beat": 1})

    async def story(person: Person) -> None:
        await person.goes(9, "1 processes")
        await person.press("Q")
        await person.sees("quiet host:1:abc")
        await person.press("escape")
        await person.until(lambda: len(person.app.screen_stack) == 1)
        assert not look.exists("host:1:abc-signals")
        await person.press("Q")
        await person.sees("quiet host:1:abc")
        await person.press("enter")
        await person.sees("hears it with its next beat")
        assert look.lrange("host:1:abc-signals", 0, -1) == [b"TSTP"]

    play(story)


def test_delete_wants_the_number_typed_and_can_be_undone(few: redis.Redis, play: Play) -> None:
    async def story(person: Person) -> None:
        await person.goes(8, "3 shown")
        await person.press("x", "space")
        await person.sees("2 marked")
        await person.press("D")
        await person.sees("delete 2 jobs: 2 marked jobs", "type 2 and Enter")
        await person.type("3")
        await person.sees("that is not 2")
        assert few.zcard("dead") == 3
        await person.type("2")
        await person.sees("deleted 2", "u undoes it")
        assert few.zcard("dead") == 1
        await person.press("u")
        await person.sees("brought back 2")
        assert few.zcard("dead") == 3
        await person.press("u")
        await person.sees("nothing to undo")

    play(story)


def test_a_question_that_is_refused_changes_nothing(few: redis.Redis, play: Play) -> None:
    async def story(person: Person) -> None:
        await person.goes(8, "3 shown")
        for key in ("D", "r", "R"):
            await person.press(key)
            await person.until(lambda: len(person.app.screen_stack) == 2)
            await person.press("escape")
            await person.sees("nothing was done")
        assert few.zcard("dead") == 3

    play(story)


def test_retry_of_one_and_of_all_that_match(few: redis.Redis, play: Play) -> None:
    async def story(person: Person) -> None:
        await person.goes(8, "3 shown")
        await person.press("r")
        await person.sees("retry 1 job")
        await person.press("enter")
        await person.sees("retried 1")
        await person.goes(7, "3 shown")
        await person.press("slash")
        await person.type("class:Send*")
        await person.sees("2 shown", "filter: class:Send*")
        await person.press("R")
        await person.sees("retry 2 jobs: state:retry class:Send*")
        await person.press("enter")
        await person.sees("retried 2")
        assert (few.zcard("dead"), few.zcard("retry")) == (2, 1)

    play(story)


def test_kill_all_that_are_marked_by_a(few: redis.Redis, play: Play) -> None:
    async def story(person: Person) -> None:
        await person.goes(6, "4 shown")
        await person.press("A")
        await person.sees("all that match are marked")
        await person.press("K")
        await person.sees("kill 4 jobs: state:scheduled")
        await person.press("enter")
        await person.sees("killed 4")
        assert (few.zcard("schedule"), few.zcard("dead")) == (0, 7)

    play(story)


def test_a_list_stands_still_while_rows_are_marked(few: redis.Redis, play: Play) -> None:
    async def story(person: Person) -> None:
        await person.goes(8, "3 shown")
        await person.press("x")
        await person.sees("1 marked")
        looks = person.app.looks
        few.delete("dead")
        await person.pilot.pause(0.6)
        assert (person.app.looks, len(person.app.listing.rows)) == (looks, 3)
        await person.press("escape")
        await person.sees("0 shown")

    play(story)


def test_filters_of_both_kinds(few: redis.Redis, play: Play) -> None:
    async def story(person: Person) -> None:
        await person.goes(2, "3 queues")
        await person.press("slash")
        await person.type("!mail")
        await person.sees("2 queues", "filter: !mail")
        await person.press("escape")
        await person.sees("3 queues")
        await person.goes(4, "100 shown")
        await person.press("slash")
        await person.type("klass:x")
        await person.sees("filter: there is no `klass:`")
        assert person.app.line.display
        await person.press("escape")
        await person.goes(4, "100 shown")

    play(story)


@pytest.mark.parametrize(
    ("words", "seen"),
    [("q default", "queue:default"), (f"j {5:024}", f"jid:{5:024}"), ("dead", "3 shown"), ("nowhere", "no place")],
)
def test_jumping(words: str, seen: str, few: redis.Redis, play: Play) -> None:
    async def story(person: Person) -> None:
        await person.sees("runs a minute")
        await person.press("colon")
        await person.type(words)
        await person.sees(seen)

    play(story, size=(120, 30))


def test_opening_goes_on_from_queues_and_failures_to_their_jobs(few: redis.Redis, play: Play) -> None:
    async def story(person: Person) -> None:
        await person.goes(2, "3 queues")
        await person.press("enter")
        await person.sees("filter: state:queued queue:mailers", "60 shown")
        await person.goes(5, "causes")
        await person.press("enter")
        await person.sees("filter: state:dead,retry cause:")
        await person.press("enter")
        await person.sees("arguments", "TimeoutError")
        await person.press("escape")
        await person.goes(5, "causes")
        await person.press("R")
        await person.sees("retry ", "cause:")

    play(story, size=(120, 30))


def test_pause_and_resume(few: redis.Redis, play: Play) -> None:
    async def story(person: Person) -> None:
        await person.goes(2, "3 queues")
        await person.press("p")
        await person.sees("mailers paused")
        assert few.smembers("paused") == {b"mailers"}
        await person.press("p")
        await person.sees("mailers resumed")
        assert few.smembers("paused") == set()

    play(story)


def test_pages(look: redis.Redis, play: Play) -> None:
    fill(look, 1_000)

    async def story(person: Person) -> None:
        await person.goes(4, "100 shown", "] more")
        first = [row.key for row in person.app.listing.rows]
        await person.press("right_square_bracket")
        await person.sees("[ first page")
        assert not {row.key for row in person.app.listing.rows} & {*first}
        await person.press("left_square_bracket")
        await person.until(lambda: [row.key for row in person.app.listing.rows] == first)

    play(story, size=(120, 30))


def test_help_copy_look_and_leave(few: redis.Redis, play: Play) -> None:
    async def story(person: Person) -> None:
        await person.press("question_mark")
        await person.sees("search language", "Capital letters")
        await person.press("escape")
        await person.goes(8, "3 shown")
        await person.press("c")
        await person.sees(f"copied {person.app.listing.rows[0].item.job.jid}")
        looks = person.app.looks
        await person.press("f5")
        await person.until(lambda: person.app.looks > looks)
        await person.press("escape")
        await person.sees("runs a minute")
        await person.press("q")

    play(story)


def test_read_only_changes_nothing(few: redis.Redis, play: Play) -> None:
    async def story(person: Person) -> None:
        await person.sees("read-only")
        await person.goes(8, "3 shown")
        await person.press("x", "A", "D", "K", "r", "R", "u")
        await person.goes(2, "3 queues")
        await person.press("p")
        await person.pilot.pause(0.1)
        assert (len(person.app.screen_stack), person.app.marked, few.exists("paused")) == (1, {}, 0)

    play(story, read_only=True)


def test_a_server_that_goes_and_comes_back(own_server: Server, server: Server) -> None:
    import asyncio

    from pillion import Client
    from pillion.api import Several
    from pillion.cli.top.app import Top

    async def evening() -> None:
        app = Top(Several.of(Client(own_server.url)), every=0.1)
        async with app.run_test(size=(80, 24)) as pilot:
            person = Person(app, pilot)
            await person.goes(2, "0 queues")
            own_server.kill()
            await person.sees("Redis does not answer, looking again")
            own_server.restart()
            await person.sees("0 queues")

    asyncio.run(evening())


def test_nothing_in_a_job_steers_the_screen(look: redis.Redis, play: Play) -> None:
    look.sadd("queues", "[red]x[/]")
    look.lpush("queue:[red]x[/]", '{"class":"[bold]A\\u001b[2J","args":["[/]"],"jid":"1","queue":"x"}')

    async def story(person: Person) -> None:
        await person.goes(2, "[red]x[/]")
        await person.goes(4, "[bold]A\\x1b[2J")
        await person.press("enter")
        await person.sees("[bold]A\\x1b[2J", "[/]")

    play(story)

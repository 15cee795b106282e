"""A tenant and a locale on their way with a job: from the push through every set to the run, by all three vehicles.

`setup.carry` between Python programs, `cattr` and `locale` as Rails writes them; one job carries all three. The second
half asks what client middleware may know on that way: whether a job is pushed, or has become due.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar, copy_context
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from pillion.contrib import i18n
from pillion.contrib.current_attributes import persist
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

tenant: ContextVar[str] = ContextVar("tenant", default="nobody's")
account: ContextVar[int | None] = ContextVar("account", default=None)
locale: ContextVar[str] = ContextVar("locale", default="en")

seen: SimpleQueue[tuple[int, str, int | None, str]] = SimpleQueue()


def _travel(fail: int) -> None:
    running = pillion.current_job()
    assert running
    seen.put((running.attempt, tenant.get(), account.get(), locale.get()))
    if running.attempt <= fail:
        raise ValueError("not yet")


class Travels(pillion.Job, name="travels", retry=1, retry_in=lambda: 3_600):
    def perform(self, fail: int = 0) -> None:
        _travel(fail)


@pillion.job(name="atravels", retry=1, retry_in=lambda: 3_600)
async def atravels(fail: int = 0) -> None:
    _travel(fail)


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    while not seen.empty():
        seen.get()
    with harness(server) as bed:
        bed.setup.carry(tenant)
        persist("cattr", account, setup=bed.setup)
        i18n.persist(locale, setup=bed.setup)
        yield bed


def abroad(act: Callable[[], object], *, of: str = "acme", user: int | None = 7, speaking: str = "de") -> None:
    """Act where tenant, account and locale are these, and nowhere else."""

    def within() -> None:
        tenant.set(of)
        account.set(user)
        locale.set(speaking)
        act()

    copy_context().run(within)


def make_due(bed: Harness) -> None:
    (member,) = wait_until(lambda: bed.redis.zrange("retry", 0, -1), what="the retry")
    bed.redis.zadd("retry", {member: 1})


WAYS: dict[str, Callable[[Any], object]] = {
    "now": lambda job: job.perform_async(),
    "in": lambda job: job.perform_in(0.2),
    "bulk": lambda job: job.perform_bulk([()]),
    "bulk, later": lambda job: job.perform_bulk([()], spread_interval=0.01),
    "set": lambda job: job.set(wait=0.1).perform_async(),
}


@pytest.mark.rule("fields.locale", "fields.cattr", "context.load")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("job", [Travels, atravels], ids=["thread", "loop"])
def test_from_the_push_to_the_run_and_no_further(bed: Harness, job: Any, way: str) -> None:
    abroad(lambda: WAYS[way](job.set(client=bed.client)))
    for member in bed.redis.zrange("schedule", 0, -1):
        bed.redis.zadd("schedule", {member: 1})
    bed.start()
    assert seen.get(timeout=10) == (1, "acme", 7, "de")
    job.set(client=bed.client).perform_async()
    assert seen.get(timeout=10) == (1, "nobody's", None, "en")


@pytest.mark.rule("fields.locale", "context.again")
@pytest.mark.parametrize("job", [Travels, atravels], ids=["thread", "loop"])
def test_through_a_retry_to_the_dead_set_and_back(bed: Harness, job: Any) -> None:
    abroad(lambda: job.set(client=bed.client).perform_async(2))
    bed.start()
    assert seen.get(timeout=10) == (1, "acme", 7, "de")
    make_due(bed)
    assert seen.get(timeout=10) == (2, "acme", 7, "de")
    (dead,) = wait_until(lambda: bed.members("dead"), what="the dead job")
    assert (dead["ctx"], dead["cattr"], dead["locale"]) == ({"tenant": "acme"}, {"account": 7}, "de")
    abroad(lambda: bed.client.push(dead), of="another", user=8, speaking="fr")  # as a page sends it back to its queue
    assert seen.get(timeout=10)[1:] == ("acme", 7, "de")


@pytest.mark.rule("fields.locale")
def test_ruby_s_locale_is_used_and_a_strange_or_missing_one_is_the_default(bed: Harness) -> None:
    bed.start()
    for given, used in (("pt-BR", "pt-BR"), (None, "en"), (5, "en"), ("", "en"), ({"a": 1}, "en")):
        bed.push("travels", locale=given)
        assert seen.get(timeout=10)[3] == used
    abroad(lambda: bed.push("travels", locale="pt-BR"))
    assert seen.get(timeout=10)[3] == "pt-BR"


@pytest.mark.rule("fields.locale")
def test_no_locale_is_written_where_none_is_set_and_no_other_than_text(bed: Harness) -> None:
    language: ContextVar[Any] = ContextVar("language")
    i18n.persist(language, setup=bed.setup)  # once more: the latest variable counts
    bed.push("travels")
    assert "locale" not in bed.waiting()[0]

    def push() -> None:
        language.set(5)
        bed.push("travels")

    with pytest.raises(pillion.PayloadError, match="locale: expected text"):
        copy_context().run(push)


def test_attributes_that_are_carried_once_more_replace_those_of_the_same_key(bed: Harness) -> None:
    """As after a reload of the file that configures; what stood there first must not keep the new ones out."""
    persist("cattr_1", locale, setup=bed.setup)
    persist("cattr", account, tenant, setup=bed.setup)
    abroad(lambda: bed.push("travels"))
    (job,) = bed.waiting()
    assert (job["cattr"], job["cattr_1"]) == ({"account": 7, "tenant": "acme"}, {"locale": "de"})
    assert len(bed.setup.client_middleware) == len(bed.setup.server_middleware) == 3


# --- a push, or a promotion -------------------------------------------------------------------------------------------

Heard = SimpleQueue[tuple[str, bool, bool]]


def listener(heard: Heard, client: pillion.Client) -> Callable[..., Generator[None]]:
    """A bare generator function that notes each job; for a promoted one it pushes another, which is none."""

    def listen(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Generator[None]:
        del queue, pool
        promoted = pillion.is_promotion(job)
        heard.put((str(job["class"]), promoted, isinstance(job_class, str)))
        if promoted and job["class"] == "travels":
            client.push({"class": "told", "args": [], "queue": "elsewhere"})
        yield
        assert pillion.is_promotion(job) is promoted

    return listen


@pytest.mark.rule("middleware.again")
@pytest.mark.parametrize("source", ["schedule", "retry"])
def test_client_middleware_can_tell_a_promotion_from_a_push(bed: Harness, source: str) -> None:
    heard: Heard = SimpleQueue()
    bed.setup.client_middleware.add(listener(heard, bed.client))
    push = Travels.set(client=bed.client)
    if source == "schedule":
        push.perform_in(3_600)
        (member,) = bed.redis.zrange("schedule", 0, -1)
        bed.redis.zadd("schedule", {member: 1})
    else:
        push.perform_async(1)
    bed.start()
    assert heard.get(timeout=10) == ("travels", False, False)
    if source == "retry":
        make_due(bed)
    assert heard.get(timeout=10) == ("travels", True, True)
    assert heard.get(timeout=10) == ("told", False, True)
    push.perform_async()
    assert heard.get(timeout=10) == ("travels", False, False)
    wait_until(lambda: seen.qsize() >= 2, what="the jobs")


def test_outside_of_client_middleware_nothing_is_a_promotion() -> None:
    assert pillion.is_promotion({}) is False
    assert pillion.is_promotion({"class": "travels"}) is False


def test_what_middleware_makes_of_a_stored_job_is_stored_though_python_takes_it_for_equal(bed: Harness) -> None:
    def settle(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Generator[None]:
        del job_class, queue, pool
        job |= {"retry": True, "count": 1.0, "nested": {"on": [True]}}
        yield

    bed.setup.client_middleware.add(settle)
    stored = b'{"class":"NobodysTravel","args":[1.50],"jid":"j","queue":"far","retry":1,"count":1,"nested":{"on":[1]}}'
    bed.redis.zadd("schedule", {stored: 1})
    bed.start()
    (raw,) = wait_until(lambda: bed.redis.lrange("queue:far", 0, -1), what="the due job")
    known, kept = b'"retry":true,"count":1.0,"nested":{"on":[true]}', b'"args":[1.50]'
    assert known in raw
    assert kept in raw


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        ({"queue": 5}, "`queue` is not a name"),
        ({"class": 5}, "`class` is an int"),
        ({"args": "x"}, "`args` is a str"),
        ({"jid": "j" * 300}, "`jid` is longer"),
    ],
)
def test_what_middleware_spoils_of_a_stored_job_is_not_moved(bed: Harness, spoilt: dict[str, Any], says: str) -> None:
    """Neither to a queue, where it can never run, nor to the dead set: the next poll may meet a better middleware."""
    told: SimpleQueue[str] = SimpleQueue()

    def spoil(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Generator[None]:
        del job_class, queue, pool
        job |= spoilt
        yield

    bed.setup.client_middleware.add(spoil)
    bed.setup.error_handlers.append(lambda error, context, config: told.put(str(error)))
    stored = b'{"class":"NobodysTravel","args":[],"jid":"j","queue":"far"}'
    bed.redis.zadd("schedule", {stored: 1})
    bed.start()
    assert f"got NobodysTravel: {says}" in told.get(timeout=10)
    wait_until(lambda: bed.redis.zscore("schedule", stored) != 1, what="the next try")
    assert bed.redis.zrange("schedule", 0, -1) == [stored]

"""Pushes wait for the transaction around them: with SQLAlchemy, its asyncio sessions, and Django."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import django
import pytest
from django.conf import settings
from sqlalchemy import create_engine, event, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

import pillion
from pillion import registry, testing
from pillion.client import Client
from pillion.config import Capsule
from pillion.contrib.sqlalchemy import push_after_commit
from pillion.delivery import RedisDelivery, deliver_as_before, deliver_here
from pillion.store.ops import Parcel
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

if not settings.configured:
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    settings.configure(DATABASES={"default": sqlite, "other": dict(sqlite)}, USE_TZ=True)
    django.setup()

from django.db import connections, transaction

from pillion.contrib import django as our_django


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


@pillion.job(name="SendInvoice")
def send_invoice(number: int) -> None: ...


@pillion.job(name="AuditLine", after_commit=False)
def audit_line(number: int) -> None: ...


class Recorder(RedisDelivery):
    """Redis, and a note of each round trip: its colour and its jobs."""

    def __init__(self) -> None:
        self.trips: list[tuple[str, int]] = []

    def send(self, client: Client, parcels: Sequence[Parcel], **how: Any) -> None:
        self.trips.append(("sync", len(parcels)))
        super().send(client, parcels, **how)

    async def asend(self, client: Client, parcels: Sequence[Parcel], **how: Any) -> None:
        self.trips.append(("async", len(parcels)))
        await super().asend(client, parcels, **how)


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    with harness(server) as bed:
        yield bed


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    token = deliver_here(recorder)
    yield recorder
    deliver_as_before(token)


@pytest.fixture
def sessions(tmp_path: Any) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(f"sqlite:///{tmp_path}/orders.db")
    Base.metadata.create_all(engine)
    made = sessionmaker(engine)
    push_after_commit(made)
    yield made
    engine.dispose()


def numbers(bed: Harness) -> list[int]:
    """What has been pushed."""
    return [job["args"][0] for job in bed.waiting()]


def invoice(bed: Harness, number: int) -> str | None:
    return send_invoice.set(client=bed.client).perform_async(number)


# --- SQLAlchemy -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("transaction.commit")
def test_a_push_waits_for_the_commit_and_its_jid_does_not(bed: Harness, sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.add(Order(id=1))
        jid = invoice(bed, 1)
        assert not bed.waiting()
    (job,) = bed.waiting()
    assert (job["jid"], job["args"]) == (jid, [1])
    assert "after_commit" not in job


@pytest.mark.rule("transaction.commit")
def test_nothing_is_pushed_after_a_rollback(bed: Harness, sessions: sessionmaker[Session], caplog: Any) -> None:
    with suppress(KeyError), caplog.at_level(logging.INFO), sessions.begin() as session:
        session.add(Order(id=1))
        jid = invoice(bed, 1)
        raise KeyError
    assert not bed.redis.keys()
    assert f"rolled back with their transaction, so not pushed: jobs 1 ({jid})" in caplog.text


def test_a_savepoint_takes_its_pushes_along(bed: Harness, sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        invoice(bed, 1)
        with session.begin_nested():
            invoice(bed, 2)
            with session.begin_nested() as inner:
                invoice(bed, 3)
                inner.rollback()
            with session.begin_nested():
                invoice(bed, 4)
        with session.begin_nested() as outer:
            with session.begin_nested():
                invoice(bed, 5)
            invoice(bed, 6)
            outer.rollback()
        invoice(bed, 7)
    assert numbers(bed) == [1, 2, 4, 7]


def test_a_released_savepoint_is_rolled_back_with_the_rest(bed: Harness, sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        with session.begin_nested():
            invoice(bed, 1)
        session.rollback()
        invoice(bed, 2)
    assert numbers(bed) == [2]


def test_a_released_savepoint_is_no_commit(bed: Harness, sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        session.add(Order(id=1))
        with session.begin_nested():
            invoice(bed, 1)
    assert not bed.redis.keys()


@pytest.mark.rule("transaction.bulk", instead=True)
def test_every_verb_waits(bed: Harness, sessions: sessionmaker[Session], recorder: Recorder) -> None:
    job = send_invoice.set(client=bed.client)
    with sessions.begin():
        job.perform_in(60, 0)
        assert len(job.perform_bulk([(1,), (2,)])) == 2
        assert job.perform_bulk((row,) for row in (3, 4)) == 2
        job.set(queue="other").perform_async(5)
        bed.client.push({"class": "Elsewhere", "args": [6]})
        job.set(once=True).perform_async(7)
        assert not recorder.trips
        assert not bed.redis.keys()
    assert numbers(bed) == [1, 2, 3, 4, 6, 7]
    assert [job["args"] for job in bed.waiting("other")] == [[5]]
    assert [job["args"] for job in bed.members("schedule")] == [[0]]
    assert recorder.trips == [("sync", 7), ("sync", 1)]  # `once` goes another way


def test_a_round_trip_stays_bounded(bed: Harness, sessions: sessionmaker[Session], recorder: Recorder) -> None:
    with sessions.begin():
        send_invoice.set(client=bed.client).perform_bulk([(n,) for n in range(1500)])
    assert recorder.trips == [("sync", 1000), ("sync", 500)]


@pytest.mark.rule("transaction.opt-out")
def test_who_does_not_want_to_wait_says_so(bed: Harness, sessions: sessionmaker[Session]) -> None:
    with suppress(KeyError), sessions.begin():
        send_invoice.set(client=bed.client, after_commit=False).perform_async(1)
        audit_line.set(client=bed.client).perform_async(2)
        audit_line.set(client=bed.client).perform_bulk([(3,)])
        bed.client.push({"class": "Elsewhere", "args": [4]}, after_commit=False)
        audit_line.set(client=bed.client, after_commit=True).perform_async(5)
        assert numbers(bed) == [1, 2, 3, 4]
        raise KeyError
    assert numbers(bed) == [1, 2, 3, 4]
    assert not any("after_commit" in job for job in bed.waiting())


def test_outside_of_a_transaction_nothing_waits(bed: Harness, sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        invoice(bed, 1)
        assert numbers(bed) == [1]
        session.add(Order(id=1))
        session.commit()
        invoice(bed, 2)
        assert numbers(bed) == [1, 2]


def test_another_thread_does_not_wait_and_what_a_thread_was_given_does(
    bed: Harness, sessions: sessionmaker[Session]
) -> None:
    def run(target: Callable[[], object]) -> None:
        thread = threading.Thread(target=target)
        thread.start()
        thread.join(10)

    with sessions.begin():
        run(lambda: invoice(bed, 1))
        context = copy_context()
        run(lambda: context.run(invoice, bed, 2))
        assert numbers(bed) == [1]
    assert numbers(bed) == [1, 2]


@pytest.mark.parametrize(
    "use",
    [
        lambda session: session.add(Order(id=1)),
        lambda session: session.execute(select(Order)),
        flush := lambda session: session.flush(),
    ],
    ids=["add", "execute", "flush"],
)
def test_a_session_that_was_begun_elsewhere_counts_once_it_is_used(
    bed: Harness, sessions: sessionmaker[Session], use: Callable[[Session], object]
) -> None:
    """As in a web framework that opens it for the handler."""
    with sessions() as session:
        copy_context().run(session.begin)
        if use is flush:
            copy_context().run(session.add, Order(id=1))
        invoice(bed, 1)
        use(session)
        invoice(bed, 2)
        assert numbers(bed) == [1]
        copy_context().run(session.commit)
        assert numbers(bed) == [1, 2]


def test_of_two_sessions_the_one_used_last_decides(bed: Harness, sessions: sessionmaker[Session]) -> None:
    with sessions() as first, sessions() as second:
        first.begin()
        second.begin()
        invoice(bed, 1)
        second.commit()
        assert numbers(bed) == [1]
        invoice(bed, 2)
        assert numbers(bed) == [1]
        first.commit()
        assert numbers(bed) == [1, 2]


def test_a_session_that_only_read_may_just_be_closed(bed: Harness, sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        session.scalars(select(Order)).all()
        invoice(bed, 1)
        assert not bed.waiting()
    assert numbers(bed) == [1]


def test_what_an_earlier_transaction_wrote_does_not_count(bed: Harness, sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        session.scalars(select(Order)).all()
        session.execute(insert(Order).values(id=1))
        session.commit()
        session.scalars(select(Order)).all()
        invoice(bed, 1)
    assert numbers(bed) == [1]


@pytest.mark.parametrize(
    "write",
    [
        lambda session: (session.add(Order(id=1)), session.flush()),
        lambda session: session.add(Order(id=1)),
        lambda session: session.execute(insert(Order).values(id=1)),
    ],
    ids=["flushed", "added", "executed"],
)
def test_closing_without_a_commit_drops_what_belongs_to_lost_writes(
    bed: Harness, sessions: sessionmaker[Session], write: Callable[[Session], object], caplog: Any
) -> None:
    with sessions() as session:
        write(session)
        jid = invoice(bed, 1)
    assert not bed.redis.keys()
    assert f"closed before it committed what it wrote, so not pushed: jobs 1 ({jid})" in caplog.text


def test_a_session_that_is_forgotten_leaves_a_warning(
    bed: Harness, sessions: sessionmaker[Session], caplog: Any
) -> None:
    session = sessions()
    session.begin()
    jid = invoice(bed, 1)
    del session
    gc.collect()
    assert not bed.redis.keys()
    assert f"neither committed, rolled back nor closed, so not pushed: jobs 1 ({jid})" in caplog.text


def test_what_a_job_left_open_does_not_hold_up_the_next_one(server: Server, sessions: sessionmaker[Session]) -> None:
    """As a scoped session does that nobody removes: it stays in the worker's thread, which goes on to other jobs."""
    left: list[Session] = []
    pushed: list[int] = []
    with registry.default.restored(), harness(server, capsules=(Capsule(concurrency=1),)) as bed:

        @pillion.job(name="FarInvoice", queue="far")
        def far_invoice(number: int) -> None: ...

        def push(number: int) -> None:
            far_invoice.set(client=bed.client).perform_async(number)
            pushed.append(bed.redis.llen("queue:far"))

        @pillion.job(name="LeavesOpen")
        def leaves_open() -> None:
            left.append(sessions())
            left[0].begin()
            push(1)

        @pillion.job(name="PushesAndCommits")
        def pushes_and_commits() -> None:
            push(2)
            with sessions.begin():
                nested.set(client=bed.client).perform_inline()
                push(4)

        @pillion.job(name="NestedInvoice")
        def nested() -> None:
            push(3)  # what it is run in has not committed

        for job in (leaves_open, pushes_and_commits):
            job.set(client=bed.client).perform_async()
        bed.start()
        bed.settled(2)
        assert pushed == [0, 1, 1, 1]
        left[0].close()
        assert [job["args"][0] for job in bed.waiting("far")] == [2, 3, 4, 1]


def test_once_the_database_has_rolled_back_nothing_waits_any_more(
    bed: Harness, sessions: sessionmaker[Session]
) -> None:
    with sessions.begin() as session:
        session.add(Order(id=1))
    with sessions() as session:
        invoice(bed, 1)
        session.add(Order(id=1))
        invoice(bed, 2)
        with pytest.raises(IntegrityError):
            session.flush()
        invoice(bed, 3)  # to tell somebody of it
        assert numbers(bed) == [1, 3]
    assert numbers(bed) == [1, 3]


def test_a_commit_that_fails_pushes_nothing(bed: Harness, sessions: sessionmaker[Session]) -> None:
    def refuse(*given: object) -> None:
        raise RuntimeError("the disk is full")

    with sessions() as session:
        session.add(Order(id=1))
        invoice(bed, 1)
        event.listen(session, "before_commit", refuse)
        with pytest.raises(RuntimeError, match="disk"):
            session.commit()
    assert not bed.redis.keys()


def test_an_error_of_the_push_reaches_who_commits_and_the_commit_stands(
    bed: Harness, sessions: sessionmaker[Session]
) -> None:
    nowhere = pillion.Client("redis://127.0.0.1:1")
    with sessions() as session:
        session.add(Order(id=1))
        lost = send_invoice.set(client=nowhere).perform_async(1)
        invoice(bed, 2)
        with pytest.raises(pillion.Unavailable) as raised:
            session.commit()
        assert "the transaction is committed" in raised.value.__notes__[0]
        assert f"1 ({lost})" in raised.value.__notes__[0]
        assert numbers(bed) == [2]  # it held up none of the others
        assert session.get(Order, 1)
        invoice(bed, 3)
        session.commit()
    assert numbers(bed) == [2, 3]


def test_a_wrong_push_fails_at_the_call(bed: Harness, sessions: sessionmaker[Session]) -> None:
    with sessions.begin(), pytest.raises(pillion.PayloadError):
        bed.client.push({"class": "SendInvoice", "args": [object()]})
    assert not bed.redis.keys()


def test_middleware_may_stop_what_would_wait(bed: Harness, sessions: sessionmaker[Session]) -> None:
    def stop(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
        if job["args"] != [1]:
            yield

    bed.setup.client_middleware.add(stop)
    with sessions.begin():
        assert invoice(bed, 1) is None
        assert invoice(bed, 2)
    assert numbers(bed) == [2]


def test_latency_counts_from_the_commit(bed: Harness, sessions: sessionmaker[Session]) -> None:
    with sessions.begin():
        invoice(bed, 1)
        pushed = time.time()
        wait_until(lambda: time.time() > pushed + 0.02, what="some time to pass")
    (job,) = bed.waiting()
    assert job["enqueued_at"] >= job["created_at"] + 20


def test_a_fake_collects_at_the_commit(bed: Harness, sessions: sessionmaker[Session]) -> None:
    with testing.fake() as jobs:
        with sessions.begin():
            invoice(bed, 1)
            assert not len(jobs)
        assert [job["args"] for job in jobs] == [[1]]
    assert not bed.redis.keys()


@pytest.mark.parametrize("sort", ["scoped_session", "class", "session", "open session", "twice"])
def test_what_may_be_registered(bed: Harness, tmp_path: Any, sort: str) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/orders.db")
    own = type("OwnSession", (Session,), {})
    made = sessionmaker(engine, class_=own)
    session: Any = scoped_session(made) if sort == "scoped_session" else made()
    if sort == "open session":
        session.begin()
    for _ in range(1 + (sort == "twice")):
        push_after_commit(made if sort == "twice" else own if sort == "class" else session)
    session.get_bind()
    if sort != "open session":
        session.begin()
    invoice(bed, 1)
    assert not bed.waiting()
    session.commit()
    assert numbers(bed) == [1]
    session.close()
    engine.dispose()


def test_plain_sessions_need_no_greenlet() -> None:
    program = """
        import sys
        sys.modules["greenlet"] = None
        from pillion.contrib.sqlalchemy import push_after_commit
        from sqlalchemy.orm import sessionmaker
        made = sessionmaker()
        push_after_commit(made)
        with made.begin():
            pass
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=30)


def test_registering_again_changes_nothing(bed: Harness, sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        invoice(bed, 1)
        push_after_commit(session)
    assert numbers(bed) == [1]
    asyncio_sessions = async_sessionmaker()
    push_after_commit(asyncio_sessions)
    before = asyncio_sessions.kw["sync_session_class"]
    push_after_commit(asyncio_sessions)
    assert asyncio_sessions.kw["sync_session_class"] is before


# --- its asyncio sessions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", ["maker", "scoped", "session"])
def test_asyncio_sessions(bed: Harness, tmp_path: Any, sort: str, recorder: Recorder) -> None:
    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/orders.db")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        made = async_sessionmaker(engine)
        session: Any = made()
        if sort == "session":
            push_after_commit(session)
        else:
            for _ in range(2):
                push_after_commit(made if sort == "maker" else async_scoped_session(made, asyncio.current_task))
            session = made()
        await in_a_transaction(session)
        await session.close()
        await engine.dispose()
        await bed.client.aclose()

    async def in_a_transaction(session: AsyncSession) -> None:
        job = send_invoice.set(client=bed.client)
        session.add(Order(id=1))
        await job.aperform_async(1)
        await session.flush()
        async with session.begin_nested() as savepoint:
            await job.aperform_async(2)
            await savepoint.rollback()
        await job.aperform_bulk([(3,), (4,)])
        assert not bed.redis.keys()
        await session.commit()
        assert numbers(bed) == [1, 3, 4]
        assert recorder.trips == [("async", 3)]  # the loop was not blocked
        await session.scalars(select(Order))
        await job.aperform_async(5)
        await session.rollback()
        await job.aperform_async(6)
        assert numbers(bed) == [1, 3, 4, 6]

    asyncio.run(main())


def test_tasks_do_not_wait_for_each_other(bed: Harness, tmp_path: Any) -> None:
    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/orders.db")
        made = async_sessionmaker(engine)
        push_after_commit(made)
        inside, leave = asyncio.Event(), asyncio.Event()

        async def one() -> None:
            async with made.begin() as session:
                await session.execute(select(1))
                await send_invoice.set(client=bed.client).aperform_async(1)
                inside.set()
                await leave.wait()

        task = asyncio.create_task(one())
        await inside.wait()
        await send_invoice.set(client=bed.client).aperform_async(2)
        assert numbers(bed) == [2]
        leave.set()
        await task
        await engine.dispose()
        await bed.client.aclose()

    asyncio.run(main())
    assert numbers(bed) == [2, 1]


# --- Django -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def databases() -> Iterator[None]:
    our_django.push_after_commit()
    our_django.push_after_commit()
    our_django.push_after_commit("other")
    yield
    connections.close_all()


@pytest.mark.rule("transaction.commit")
@pytest.mark.parametrize("using", ["default", "other"])
def test_django_commits(bed: Harness, databases: None, using: str) -> None:
    with transaction.atomic(using=using):
        jid = invoice(bed, 1)
        send_invoice.set(client=bed.client).perform_bulk([(2,), (3,)])
        assert jid
        assert not bed.redis.keys()
    assert numbers(bed) == [1, 2, 3]
    assert bed.waiting()[0]["jid"] == jid
    invoice(bed, 4)
    assert numbers(bed) == [1, 2, 3, 4]


@pytest.mark.rule("transaction.commit")
def test_django_rolls_back(bed: Harness, databases: None) -> None:
    with suppress(KeyError), transaction.atomic():
        invoice(bed, 1)
        raise KeyError
    assert not bed.redis.keys()


def test_django_s_savepoints(bed: Harness, databases: None) -> None:
    with transaction.atomic():
        invoice(bed, 1)
        with suppress(KeyError), transaction.atomic():
            invoice(bed, 2)
            raise KeyError
        with transaction.atomic():
            invoice(bed, 3)
    assert numbers(bed) == [1, 3]


def test_django_and_who_does_not_want_to_wait(bed: Harness, databases: None) -> None:
    with suppress(KeyError), transaction.atomic():
        audit_line.set(client=bed.client).perform_async(1)
        raise KeyError
    assert numbers(bed) == [1]


def test_django_and_an_error_of_the_push(databases: None) -> None:
    nowhere = pillion.Client("redis://127.0.0.1:1")
    with pytest.raises(pillion.Unavailable) as raised, transaction.atomic():
        lost = send_invoice.set(client=nowhere).perform_async(1)
    assert (
        f"the transaction is committed; this befell the jobs that waited for it: 1 ({lost})"
        in raised.value.__notes__[0]
    )


def test_both_at_once(bed: Harness, sessions: sessionmaker[Session], databases: None) -> None:
    with sessions.begin():
        invoice(bed, 1)
        assert not bed.waiting()
    with transaction.atomic():
        invoice(bed, 2)
        assert numbers(bed) == [1]
    assert numbers(bed) == [1, 2]

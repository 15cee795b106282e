"""Calls that both type checkers must accept. Checked by `tests/unit/test_typing.py`, never run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar, assert_type

import pillion
from pillion.job import FunctionJob

T = TypeVar("T")


class HardWorker(pillion.Job, queue="default", retry=5, customer={"id": 1}):
    def perform(self, name: str, count: int = 1) -> int:
        self.logger.info("%s %s %s", self.jid, self.bid, self.interrupted())
        assert_type(self.attempt, int)
        return count


class Heir(HardWorker, queue="slow"): ...


class AsyncWorker(pillion.Job, name="Billing::AsyncWorker", aliases=["Old"]):
    async def perform(self, name: str, *, loud: bool = False) -> bytes:
        return name.encode()

    @staticmethod
    def retry_in(count: int, error: BaseException, job: dict[str, Any]) -> int:
        return count


class Stub(pillion.Job, queue="ruby"): ...


class StaticWorker(pillion.Job):
    @staticmethod
    def perform(a: int, *rest: str) -> None: ...


class Export(pillion.Job, Generic[T]):
    def perform(self, what: str) -> list[T]:
        return []


@pillion.job
def plain(user_id: int, template: str = "welcome") -> str:
    return template


@pillion.job(queue="mailers", retry=3, tags=["mail"], customer=5)
async def send_email(user_id: int, *, template: str = "welcome") -> bool:
    return True


@pillion.job(retry_in=lambda count, error, job: 10, retries_exhausted=lambda job, error: print(job))
def with_blocks() -> None: ...


class WithBlocks(pillion.Job, retry_in=lambda count: count * 10, retries_exhausted=lambda job: print(job["jid"])):
    def perform(self) -> None: ...


@pillion.job(retry_in=lambda count, error: None if isinstance(error, OSError) else count)
def with_a_short_block() -> None: ...


async def aplain(user_id: int) -> int:
    return user_id


decorated: FunctionJob[[int], Any] = pillion.job(aplain)
TOMORROW = datetime.now(UTC) + timedelta(days=1)


def classes() -> None:
    assert_type(HardWorker.perform_async("bob", 5), str | None)
    assert_type(HardWorker.perform_async("bob", count=5), str | None)
    HardWorker.perform_async(name="bob")
    HardWorker.perform_in(300, "bob")
    HardWorker.perform_in(timedelta(minutes=5), "bob", count=2)
    HardWorker.perform_at(TOMORROW, "bob")
    HardWorker.perform_at(1_800_000_000, "bob", 5)
    assert_type(HardWorker.perform_inline("bob"), int | None)
    assert_type(HardWorker.perform_bulk([("bob", 1), ["eve"]]), list[str | None])
    assert_type(HardWorker.perform_bulk((str(n),) for n in range(3)), int)
    HardWorker.perform_bulk([("bob",)], at=[TOMORROW], batch_size=100)
    HardWorker.perform_bulk([("bob",)], at=1_800_000_000, spread_interval=None)
    critical = HardWorker.set(queue="critical", wait=5, customer=6)
    assert_type(critical.set(once=True).perform_async("bob"), str | None)
    assert_type(critical.perform_inline("bob"), int | None)
    assert_type(HardWorker().perform("bob"), int)
    Heir.perform_async("bob", 5)
    Heir.set(wait_until=TOMORROW).perform_async("bob", 5)
    AsyncWorker.perform_async("bob", loud=True)
    assert_type(AsyncWorker.perform_inline("bob"), bytes | None)
    assert_type(AsyncWorker.set(retry=False).perform_inline("bob"), bytes | None)
    StaticWorker.perform_async(1, "a", "b")
    Export[int].perform_async("users")


def stubs() -> None:
    Stub.perform_async(1, "two", [3])
    Stub.perform_in(60, {"any": "thing"})
    Stub.set(queue="other").perform_async(1)
    Stub.perform_bulk([(1,)])


def functions() -> None:
    assert_type(plain(7), str)
    assert_type(plain.perform_async(7), str | None)
    plain.perform_async(user_id=7, template="hi")
    plain.perform_in(60, 7, "hi")
    plain.perform_at(TOMORROW, 7)
    assert_type(plain.perform_inline(7), str | None)
    assert_type(plain.set(queue="q").perform_inline(7), str | None)
    assert_type(plain.perform_bulk([(1,), (2, "hi")]), list[str | None])
    send_email.perform_async(7, template="hi")
    assert_type(send_email.perform_inline(7), bool | None)
    with_blocks.perform_async()
    decorated.perform_async(7)


async def twins() -> None:
    assert_type(await HardWorker.aperform_async("bob", 5), str | None)
    await HardWorker.aperform_in(60, "bob")
    await HardWorker.aperform_at(TOMORROW, "bob", count=2)
    assert_type(await HardWorker.aperform_inline("bob"), int | None)
    assert_type(await HardWorker.aperform_bulk([("bob",)]), list[str | None])
    assert_type(await HardWorker.aperform_bulk(iter([("bob",)])), int)
    assert_type(await AsyncWorker.aperform_inline("bob", loud=True), bytes | None)
    await Stub.aperform_async(1, 2, 3)
    assert_type(await send_email(7), bool)
    await send_email.aperform_async(7, template="hi")
    await send_email.set(wait=5).aperform_async(7)
    assert_type(await send_email.aperform_inline(7), bool | None)
    assert_type(await plain.aperform_inline(7), str | None)


def clients() -> None:
    client = pillion.Client()
    assert_type(client.enqueue(HardWorker, "bob", 5), str | None)
    client.enqueue(Heir, "bob", count=5)
    client.enqueue(AsyncWorker, "bob", loud=True)
    client.enqueue(Stub, 1, "two", [3])
    client.enqueue(plain, 7, template="hi")
    client.enqueue(with_blocks)
    client.enqueue_to("critical", HardWorker, "bob")
    client.enqueue_in(timedelta(minutes=5), HardWorker, "bob", 5)
    assert_type(client.enqueue_to_in("critical", 60, send_email, 7, template="hi"), str | None)


async def aclients() -> None:
    client = pillion.Client()
    assert_type(await client.aenqueue(HardWorker, "bob", 5), str | None)
    await client.aenqueue_to("critical", plain, 7)
    await client.aenqueue_in(60, send_email, 7)
    await client.aenqueue_to_in("critical", 60, Heir, "bob")


class Audit(pillion.Middleware):
    def __call__(self, job_instance: object, job: dict[str, Any], queue: str) -> Iterator[None]:
        assert_type(self.config, pillion.Config)
        yield
        with self.redis() as conn:
            conn.incr("audited")
        self.logger.info("%s", self.pool.keys)

"""Calls that both type checkers must refuse, each marked `# E:`. Checked by `tests/unit/test_typing.py`, never run."""

from __future__ import annotations

from datetime import UTC, datetime

import pillion


class HardWorker(pillion.Job):
    def perform(self, name: str, count: int = 1) -> int:
        return count


class Heir(HardWorker, queue="slow"): ...


class AsyncWorker(pillion.Job):
    async def perform(self, name: str, *, loud: bool = False) -> bytes:
        return b""


class Needy(pillion.Job):
    def __init__(self, user: str) -> None: ...

    def perform(self, name: str) -> None: ...


@pillion.job
def plain(user_id: int, template: str = "welcome") -> str:
    return template


@pillion.job(queue="mailers")
async def send_email(user_id: int, *, template: str) -> bool:
    return True


NOW = datetime.now(UTC)


def classes() -> None:
    HardWorker.perform_async()  # E: a required argument is missing
    HardWorker.perform_async(5)  # E: of the wrong type
    HardWorker.perform_async("bob", "five")  # E: the second of the wrong type
    HardWorker.perform_async("bob", 5, 6)  # E: too many
    HardWorker.perform_async("bob", cuont=5)  # E: no such keyword
    HardWorker.perform_in(60)  # E: the interval is no argument
    HardWorker.perform_in("soon", "bob")  # E: no interval
    HardWorker.perform_in(60, 5)  # E: of the wrong type
    HardWorker.perform_at("tomorrow", "bob")  # E: no moment
    HardWorker.perform_at(NOW, "bob", "five")  # E: of the wrong type
    HardWorker.perform_inline(5)  # E: of the wrong type
    HardWorker.perform_bulk(["bob"])  # E: a string is no row
    HardWorker.perform_bulk([("bob",)], at="tomorrow")  # E: no moment
    HardWorker.perform_bulk([("bob",)], att=NOW)  # E: no such option
    HardWorker.set(queue="critical").perform_async(5)  # E: of the wrong type
    HardWorker.set(queue="critical").set(wait=5).perform_in(60)  # E: a required argument is missing
    Heir.perform_async(5)  # E: of the wrong type
    AsyncWorker.perform_async("bob", loud="yes")  # E: of the wrong type
    AsyncWorker.perform_async("bob", True)  # E: keyword only
    Needy.perform_async("bob")  # E: a worker could not build it
    result: str = HardWorker.perform_async("bob")  # E: None where middleware stopped it
    print(result)


def functions() -> None:
    plain("seven")  # E: of the wrong type
    plain.perform_async("seven")  # E: of the wrong type
    plain.perform_async()  # E: a required argument is missing
    plain.perform_in(60, "seven")  # E: of the wrong type
    plain.set(retry=0).perform_async(7, 8)  # E: of the wrong type
    send_email.perform_async(7)  # E: a required keyword is missing
    send_email.perform_async(7, "hi")  # E: keyword only
    send_email.perform_async(7, template=5)  # E: of the wrong type


async def twins() -> None:
    await HardWorker.aperform_async(5)  # E: of the wrong type
    await HardWorker.aperform_in(60)  # E: a required argument is missing
    await HardWorker.aperform_at(NOW, 5)  # E: of the wrong type
    await HardWorker.aperform_inline(5)  # E: of the wrong type
    await HardWorker.aperform_bulk(["bob"])  # E: a string is no row
    await HardWorker.set(wait=5).aperform_async("bob", "five")  # E: of the wrong type
    await plain.aperform_async("seven")  # E: of the wrong type
    await send_email.aperform_async(7)  # E: a required keyword is missing
    await send_email.set(wait=5).aperform_in(60, 7, template=5)  # E: of the wrong type


def clients() -> None:
    client = pillion.Client()
    client.enqueue(HardWorker)  # E: a required argument is missing
    client.enqueue(HardWorker, 5)  # E: of the wrong type
    client.enqueue("HardWorker", "bob")  # E: no job class
    client.enqueue(print, "bob")  # E: no job
    client.enqueue_to("critical", HardWorker, "bob", "five")  # E: of the wrong type
    client.enqueue_to(HardWorker, "bob")  # E: no queue
    client.enqueue_in("soon", HardWorker, "bob")  # E: no interval
    client.enqueue_in(60, plain, "seven")  # E: of the wrong type
    client.enqueue_to_in("critical", 60, send_email, 7, template=5)  # E: of the wrong type
    client.enqueue(plain)  # E: a required argument is missing


async def aclients() -> None:
    client = pillion.Client()
    await client.aenqueue(HardWorker, 5)  # E: of the wrong type
    await client.aenqueue_to("critical", send_email, 7)  # E: a required keyword is missing
    await client.aenqueue_in(60, plain)  # E: a required argument is missing
    await client.aenqueue_to_in("critical", 60, HardWorker, "bob", "five")  # E: of the wrong type


def definitions() -> None:
    @pillion.job(retry_in=5)  # E: no function
    def retried() -> None: ...

    @pillion.job(aliases=5)  # E: no names
    def renamed() -> None: ...

    retried.perform_async()
    renamed.perform_async()

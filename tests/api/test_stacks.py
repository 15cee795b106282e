"""Where running jobs stand: threads, tasks and what these wait for, a loop that is held up; asking and answering."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import pytest

import pillion
from pillion import Client
from pillion.api.stacks import Answer, Stack, Stacks
from pillion.api.work import WorkSet
from pillion.config import Capsule
from pillion.store import stacks as ops
from pillion.worker import stacks as listening
from tests.api.conftest import Say
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

gate = threading.Event()
"""What the jobs of these tests wait for."""


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    gate.clear()
    with harness(server, capsules=(Capsule(concurrency=5),)) as bed:
        yield bed
        gate.set()


def deeper() -> None:
    gate.wait(20)  # with password="geheim"


@pillion.job(name="StackedThread")
def in_a_thread() -> None:
    deeper()


async def passes() -> None:
    while not gate.is_set():  # noqa: ASYNC110 - the gate belongs to another thread
        await asyncio.sleep(0.05)


async def second() -> None:
    await passes()


@pillion.job(name="StackedTask")
async def in_a_task() -> None:
    await second()


@pillion.job(name="StackedGather")
async def in_a_gather() -> None:
    await asyncio.gather(second(), passes())


@pillion.job(name="StackedGroup")
async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(second())


@pillion.job(name="StackedWait")
async def in_a_wait() -> None:
    await asyncio.wait([asyncio.create_task(passes())])


@pillion.job(name="StackedAlone")
async def for_another_task() -> None:
    await asyncio.create_task(passes())


@pillion.job(name="StackedBlock")
async def holds_the_loop_up() -> None:
    deeper()


def recursion(depth: int) -> None:
    if depth:
        recursion(depth - 1)
    else:
        gate.wait(20)


@pillion.job(name="StackedDeep")
def very_deep() -> None:
    recursion(600)


def running(bed: Harness, *names: str) -> pillion.Worker:
    """A worker in which these jobs run."""
    for name in names:
        bed.push(name)
    worker = bed.start()
    wait_until(lambda: sum(fetcher.executor.busy for fetcher in worker.fetchers) == len(names), what="all running")
    return worker


def seen(bed: Harness, worker: pillion.Worker, there: Callable[[Stack], bool] = bool, jid: str | None = None) -> Stack:
    """The stack of the one job that runs, once it has come so far."""

    def look() -> Stack | None:
        answer = Stacks(bed.client).show(worker.identity, jid)
        return answer.stacks[0] if answer is not None and answer.stacks and there(answer.stacks[0]) else None

    return wait_until(look, what="a stack")


def at(depth: int, stack: Stack) -> list[str]:
    """The functions of our own at a depth."""
    return [line.function for line in stack.lines if line.depth == depth and line.file == __file__]


# -- what is seen --------------------------------------------------------------------------------------------------


def test_the_lines_of_a_thread_begin_with_the_job(bed: Harness, say: Say) -> None:
    worker = running(bed, "StackedThread")
    stack = seen(bed, worker, lambda stack: stack.lines[-1].function == "wait")
    assert (stack.klass, stack.queue, stack.kind, stack.left_out) == ("StackedThread", "default", "thread", 0)
    first, second_line = stack.lines[:2]
    assert (first.file, first.function, first.source, first.depth) == (__file__, "in_a_thread", "deeper()", 0)
    assert second_line.function == "deeper"
    assert second_line.line == line_of(deeper, "gate.wait")
    assert stack.seconds >= 0
    [work] = wait_until(lambda: WorkSet(bed.client).all(), what="the work row")
    assert (stack.jid, stack.thread) == (work.job.jid, work.thread_id)


def line_of(fn: Any, text: str) -> int:
    assert isinstance(fn, FunctionType)
    lines, start = inspect.getsourcelines(fn)
    return start + next(i for i, line in enumerate(lines) if text in line)


def test_secrets_in_source_lines_are_masked(bed: Harness) -> None:
    stack = seen(bed, running(bed, "StackedThread"), lambda stack: stack.lines[-1].function == "wait")
    [line] = [line for line in stack.lines if line.function == "deeper"]
    assert line.source == "gate.wait(20)  # with password=***"


def test_the_lines_of_a_task_are_those_of_what_it_awaits(bed: Harness) -> None:
    stack = seen(bed, running(bed, "StackedTask"), lambda stack: stack.lines[-1].function == "sleep")
    assert (stack.kind, at(0, stack)) == ("task", ["in_a_task", "second", "passes"])
    assert stack.thread.count("-") == 1


@pytest.mark.parametrize(
    ("name", "job", "below"),
    [
        ("StackedGather", "in_a_gather", ["second", "passes", "passes"]),
        ("StackedGroup", "in_a_group", ["second", "passes"]),
        ("StackedWait", "in_a_wait", ["passes"]),
        ("StackedAlone", "for_another_task", ["passes"]),
    ],
)
def test_tasks_that_a_task_waits_for_stand_below_it(bed: Harness, name: str, job: str, below: list[str]) -> None:
    worker = running(bed, name)
    stack = seen(bed, worker, lambda stack: at(1, stack) == below)
    assert (at(0, stack), at(1, stack)) == ([job], below)


def test_a_task_that_holds_the_loop_up_is_seen_at_its_line(bed: Harness) -> None:
    stack = seen(bed, running(bed, "StackedBlock"), lambda stack: stack.lines[-1].function == "wait")
    assert (stack.kind, at(0, stack)) == ("task", ["holds_the_loop_up", "deeper"])


def test_a_very_deep_stack_keeps_both_ends(bed: Harness) -> None:
    jid = bed.push("StackedDeep")
    worker = bed.start()
    stack = seen(bed, worker, lambda stack: stack.lines[-1].function == "wait", jid)
    assert (len(stack.lines), stack.lines[0].function) == (listening.MOST_LINES_OF_ONE, "very_deep")
    assert stack.left_out > 400
    everything = seen(bed, worker)
    assert (len(everything.lines), everything.lines[-1].function) == (listening.MOST_LINES, "wait")


def test_a_job_in_a_process_of_its_own_shows_no_lines(bed: Harness) -> None:
    worker = running(bed, "StackedThread")
    [run] = worker.fetchers[0].executor.running.values()
    stack = listening.stack_of(Isolated(run), listening.all_frames(), 1.0, 40)  # type: ignore[arg-type]
    assert (stack.kind, stack.lines) == ("process", [])


class Isolated:
    """A run as it would be with `isolation="process"`."""

    def __init__(self, run: Any) -> None:
        self.run = run
        self.definition = self

    name, isolation = "Isolated", object()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.run, name)


# -- asking --------------------------------------------------------------------------------------------------------


def test_all_jobs_or_one(bed: Harness, say: Say) -> None:
    worker = running(bed, "StackedThread", "StackedTask", "StackedThread")
    asker = Stacks(bed.client)
    answer: Answer = say(asker.show, worker.identity)
    assert (answer.identity, len(answer.stacks), answer.left_out) == (worker.identity, 3, 0)
    assert [stack.seconds for stack in answer.stacks] == sorted((s.seconds for s in answer.stacks), reverse=True)
    jid = answer.stacks[1].jid
    one: Answer = say(asker.show, worker.identity, jid)
    assert [stack.jid for stack in one.stacks] == [jid]
    assert say(asker.show, worker.identity, "nobody").stacks == []


def test_ask_now_and_read_later(bed: Harness, say: Say) -> None:
    worker = running(bed, "StackedThread")
    asker = Stacks(bed.client)
    number = say(asker.ask, worker.identity)
    answer: Answer = wait_until(lambda: say(asker.read, number), what="the answer")
    assert [stack.klass for stack in answer.stacks] == ["StackedThread"]
    assert say(asker.read, number) == answer
    assert 0 < bed.redis.ttl(f"pillion:stacks:{number}") <= 60
    assert not bed.redis.exists(f"pillion:ask:{worker.identity}")


def test_whoever_waits_leaves_the_answer_as_it_was(client: Client, say: Say) -> None:
    client.store.run(ops.answer(client.store.keys, "n1", Answer("vm:1:a", 1.0, [])))
    for _ in range(2):
        assert client.store.run(ops.wait(client.store.keys, "n1", 0.5)) == Answer("vm:1:a", 1.0, [])
    assert 0 < client.store.run(ops.batch([("TTL", "pillion:stacks:n1")]))[0] <= 60


def test_nobody_answers_for_a_process_that_is_not_there(client: Client, say: Say, look: Any) -> None:
    asker = Stacks(client)
    assert say(asker.show, "vm:1:gone", patience=0.05) is None
    assert 0 < look.ttl("pillion:ask:vm:1:gone") <= 30
    for _ in range(50):
        say(asker.ask, "vm:1:gone")
    assert look.llen("pillion:ask:vm:1:gone") == 20
    assert say(asker.read, "never asked") is None


def test_answers_that_cannot_be_read_count_as_none(client: Client, say: Say, look: Any) -> None:
    look.rpush("pillion:stacks:n2", "not json")
    assert say(Stacks(client).read, "n2") is None


# -- the worker's side ---------------------------------------------------------------------------------------------


def test_questions_that_cannot_be_read_are_passed_over(bed: Harness) -> None:
    worker = running(bed, "StackedThread")
    key = f"pillion:ask:{worker.identity}"
    bed.redis.rpush(key, "not json", "{}", json.dumps({"number": "n3"}))
    wait_until(lambda: bed.redis.exists("pillion:stacks:n3"), what="the answer to the one that can")
    assert not bed.redis.exists(key)


def test_an_idle_worker_sleeps_until_it_is_asked(bed: Harness) -> None:
    worker = pillion.Worker(bed.setup, embedded=True)
    listener = worker.stations[0].stacks
    assert listener.turn() == listening.LOOK_EVERY
    asleep = threading.Thread(target=listener.wait, args=(20.0,))
    asleep.start()
    bed.push("StackedThread")
    bed.redis.rpush("pillion:ask:vm:1:other", "{}")
    bed.redis.expire("pillion:ask:vm:1:other", 30)
    asleep.join(0.3)
    assert asleep.is_alive()
    number = Stacks(bed.client).ask(worker.identity)
    asleep.join(10)
    assert not asleep.is_alive()
    assert listener.turn() == listening.LOOK_EVERY
    assert Stacks(bed.client).read(number) is not None
    listener.after()


def test_a_worker_that_stops_wakes_its_listener(bed: Harness) -> None:
    listener = pillion.Worker(bed.setup, embedded=True).stations[0].stacks
    listener.start()
    wait_until(lambda: listener._told, what="the listener")
    listener.stop()
    assert listener.join(10)


def test_it_answers_while_the_worker_is_quiet(bed: Harness) -> None:
    worker = running(bed, "StackedThread")
    worker.quiet()
    assert seen(bed, worker).klass == "StackedThread"


def test_it_listens_again_after_an_outage(own_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "AGAIN_AFTER", 0.05)
    gate.clear()
    with harness(own_server) as bed:
        worker = bed.start()
        assert Stacks(bed.client).show(worker.identity) is not None
        own_server.kill()
        own_server.restart()
        wait_until(lambda: Stacks(bed.client).show(worker.identity, patience=0.3), what="an answer")


def test_a_server_that_cannot_tell_is_asked_every_second(bed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = pillion.Worker(bed.setup, embedded=True)
    listener = worker.stations[0].stacks
    monkeypatch.setattr(listener._session, "track", lambda: False)
    number = Stacks(bed.client).ask(worker.identity)
    assert listener.turn() == listening.LOOK_OFTEN
    assert Stacks(bed.client).read(number) is not None
    listener.after()


def test_no_more_stacks_than_there_is_room_for(bed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = running(bed, "StackedThread", "StackedThread", "StackedThread")
    monkeypatch.setattr(listening, "MOST_STACKS", 2)
    answer = Stacks(bed.client).show(worker.identity)
    assert answer is not None
    assert (len(answer.stacks), answer.left_out) == (2, 1)
    monkeypatch.setattr(listening, "MOST_BYTES", 10)
    answer = Stacks(bed.client).show(worker.identity)
    assert answer is not None
    assert (len(answer.stacks), answer.left_out) == (0, 3)


def test_signals_of_dashboards_stay_where_they_are(bed: Harness) -> None:
    worker = pillion.Worker(bed.setup, embedded=True)
    key = f"{worker.identity}-signals"
    bed.redis.lpush(key, "TTIN")
    Stacks(bed.client).ask(worker.identity)
    worker.stations[0].stacks.turn()
    assert bed.redis.lrange(key, 0, -1) == [b"TTIN"]
    worker.stations[0].stacks.after()
    bed.redis.delete(key)

"""What Pillion gives to other people's tests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pillion
from pillion import setup as setups
from pillion import testing

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    ran.clear()
    yield
    setups.default.client_middleware.clear()
    setups.default.server_middleware.clear()
    testing.everywhere("disabled")


class Parent(pillion.Job, queue="family"):
    def perform(self, children: int) -> str:
        ran.append(("parent", self.jid))
        for number in range(children):
            child.perform_async(number)
        return "done"


@pillion.job
def child(number: int) -> None:
    ran.append(("child", number))


@pillion.job
async def achild(number: int) -> int:
    await asyncio.sleep(0)
    ran.append(("achild", number))
    return number * 2


@pillion.job
def broken() -> None:
    raise ValueError("broken")


@pytest.mark.rule("testing.fake", "testing.look", "testing.modes", "fields.class")
def test_fake_collects_and_runs_nothing() -> None:
    with testing.fake() as jobs:
        jid = Parent.perform_async(2)
        child.perform_in(60, 7)
        assert ran == []
        (parent,) = jobs.of(Parent)
        assert (parent["jid"], parent["queue"], parent["args"]) == (jid, "family", [2])
        assert "enqueued_at" in parent
        (later,) = jobs.of(child)
        assert later["at"] > 0
        assert "enqueued_at" not in later
        assert [job["class"] for job in jobs.of(queue="family")] == ["Parent"]
        assert [job["class"] for job in jobs] == ["Parent", "child"]


@pytest.mark.rule("testing.drain", "b9.68")
def test_drain_runs_what_jobs_push_too() -> None:
    with testing.fake() as jobs:
        Parent.perform_async(2)
        assert jobs.drain() == 3
        assert [kind for kind, _ in ran] == ["parent", "child", "child"]
        assert len(jobs) == 0


@pytest.mark.rule("testing.look")
def test_drain_of_one_class_leaves_the_others() -> None:
    with testing.fake() as jobs:
        Parent.perform_async(1)
        child.perform_async(9)
        assert jobs.drain("Parent") == 1
        assert [job["args"] for job in jobs.of(child)] == [[9], [0]]
        jobs.clear(child)
        assert len(jobs) == 0


@pytest.mark.rule("testing.one", "testing.drain")
def test_perform_one_takes_the_oldest_and_raises_what_it_raises() -> None:
    with testing.fake() as jobs:
        with pytest.raises(pillion.UsageError, match="expected a pushed job"):
            jobs.perform_one()
        broken.perform_async()
        Parent.perform_async(0)
        with pytest.raises(ValueError, match="broken"):
            jobs.perform_one()
        assert jobs.perform_one() == "done"


def test_async_jobs_run_in_both_worlds() -> None:
    with testing.fake() as jobs:
        achild.perform_async(1)
        assert jobs.perform_one(achild) == 2

    async def main() -> None:
        with testing.fake() as jobs:
            await achild.aperform_async(2)
            child.perform_async(3)
            assert await jobs.adrain() == 2

    asyncio.run(main())
    assert ran == [("achild", 1), ("achild", 2), ("child", 3)]


@pytest.mark.rule("testing.inline")
@pytest.mark.rule("testing.chain", instead=True)
def test_inline_runs_at_once_through_both_chains() -> None:
    class Stamp:
        def __call__(self, job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
            job["stamped"] = True
            yield

    class See:
        def __call__(self, job: object, payload: dict[str, Any], queue: str) -> Iterator[None]:
            ran.append(payload["stamped"])
            yield

    setups.default.client_middleware.add(Stamp)
    setups.default.server_middleware.add(See)
    with testing.inline():
        child.perform_async(5)
        with pytest.raises(ValueError, match="broken"):
            broken.perform_async()
    assert ran == [True, ("child", 5), True]


def test_inline_in_a_running_loop_asks_for_the_awaitable_twin() -> None:
    async def main() -> None:
        with testing.inline():
            await achild.aperform_async(1)
            with pytest.raises(pillion.UsageError, match="aperform_inline"):
                achild.perform_async(2)

    asyncio.run(main())


@pytest.mark.rule("testing.scope", "b9.67")
def test_modes_hold_for_their_context_only_and_do_not_nest() -> None:
    inside = threading.Event()
    leave = threading.Event()
    other: list[int] = []

    def elsewhere() -> None:
        with testing.fake() as jobs:
            inside.set()
            leave.wait(5)
            other.append(len(jobs))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    inside.wait(5)
    with testing.fake() as jobs:
        child.perform_async(1)
        assert len(jobs) == 1
        with pytest.raises(pillion.UsageError, match="already set"), testing.inline():
            pass
    leave.set()
    thread.join()
    assert other == [0]


@pytest.mark.rule("testing.modes", "testing.scope")
def test_everywhere_switches_the_process() -> None:
    jobs = testing.everywhere("fake")
    assert jobs is not None
    thread = threading.Thread(target=child.perform_async, args=(1,))
    thread.start()
    thread.join()
    assert len(jobs) == 1
    with pytest.raises(pillion.UsageError, match="expected"):
        testing.everywhere("fkae")  # type: ignore[arg-type]


@pytest.mark.rule("testing.fake")
def test_validation_is_that_of_production() -> None:
    with testing.fake(), pytest.raises(pillion.PayloadError, match=r"args\[0\]"):
        child.perform_async(object())  # type: ignore[arg-type]


def test_once_counts_a_jid_once() -> None:
    with testing.fake() as jobs:
        for _ in range(2):
            pillion.Client().push({"class": "child", "args": [1], "jid": "same"}, once=True)
        assert len(jobs) == 1


def test_the_fixtures_work_in_somebody_elses_suite(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        """
import pillion
import pytest

ran = []

@pillion.job
def hello(name):
    ran.append(name)

def test_fake(pillion_fake):
    hello.perform_async("fake")
    assert [job["args"] for job in pillion_fake.of(hello)] == [["fake"]]
    assert ran == []

def test_inline(pillion_inline):
    hello.perform_async("inline")
    assert ran == ["inline"]

def test_live(pillion_worker):
    jid = hello.perform_async("live")
    event = pillion_worker.wait_for(jid)
    assert event.error is None
    assert ran == ["inline", "live"]

@pillion.job(queue="count")
def count(name):
    ran.append(name)

def test_live_serves_every_queue(pillion_worker):
    assert pillion_worker.wait_for(count.perform_async("counted")).queue == "count"

def test_live_says_where_a_job_is(pillion_worker):
    jid = hello.set(queue="lost").perform_async("never")
    with pytest.raises(TimeoutError) as caught:
        pillion_worker.wait_for(jid, timeout=0.1)
    where = "it is in queue 'lost', which this worker does not serve (it serves default, count)"
    assert str(caught.value) == f"job {jid} was not settled within 0.1 s: {where}"
"""
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:valkey", "-p", "no:cacheprovider", "test_theirs.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "5 passed" in done.stdout, done.stdout + done.stderr

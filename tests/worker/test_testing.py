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
from pillion import registry, testing
from pillion import setup as setups

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


@pytest.mark.rule("testing.chain")
def test_a_test_may_have_a_server_chain_of_its_own_which_is_empty_at_first() -> None:
    def adds(word: str) -> Any:
        def around(job: object, payload: dict[str, Any], queue: str) -> Iterator[None]:
            ran.append(word)
            yield

        return around

    setups.default.server_middleware.add(adds("the app's"))
    with testing.inline():
        with testing.server_middleware() as chain:
            child.perform_async(1)
            chain.add(adds("the test's"))
            child.perform_async(2)
        child.perform_async(3)
    assert ran == [("child", 1), "the test's", ("child", 2), "the app's", ("child", 3)]


@pytest.mark.rule("testing.inline")
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


# --- jobs of Rails ----------------------------------------------------------------------------------------------------


def of_rails(name: str, *arguments: Any) -> dict[str, Any]:
    """What Rails writes for a job of this class."""
    return {
        "class": "Sidekiq::ActiveJob::Wrapper",
        "wrapped": name,
        "args": [{"job_class": name, "arguments": list(arguments)}],
    }


class Billed(pillion.Job, name="BilledJob", aliases=["OldBilledJob"]):
    def perform(self, number: int, *, urgent: bool = False) -> tuple[int, bool, str]:
        assert self.context is not None
        return number, urgent, self.context.name


@pillion.job(name="AsyncBilledJob")
async def async_billed(customer: str) -> str:
    return customer


KEYWORDS = {"urgent": True, "_aj_ruby2_keywords": ["urgent"]}


@pytest.mark.rule("testing.hash", "fields.activejob", "fields.wrapped")
def test_a_job_that_rails_wrapped_is_performed_under_its_real_class() -> None:
    met: list[Any] = []

    def look(instance: Any, job: dict[str, Any], queue: str) -> Iterator[None]:
        met.append((type(instance), job["class"], job["args"], job["kwargs"], queue))
        yield

    setups.default.server_middleware.add(look)
    with testing.fake() as jobs:
        job = of_rails("BilledJob", 17, KEYWORDS)
        assert jobs.process_job(job) == (17, True, "BilledJob")
        assert jobs.process_job(of_rails("OldBilledJob", 18)) == (18, False, "BilledJob")
        customer = {"_aj_globalid": "gid://shop/Customer/5"}
        assert asyncio.run(jobs.aprocess_job(of_rails("AsyncBilledJob", customer))) == "gid://shop/Customer/5"
        with pytest.raises(pillion.UnknownJob, match="NobodysJob"):
            jobs.process_job(of_rails("NobodysJob"))
        with pytest.raises(pillion.PayloadError, match="expected ActiveJob's hash"):
            jobs.process_job(of_rails("BilledJob") | {"args": [1, 2]})
    assert job["args"] == [{"job_class": "BilledJob", "arguments": [17, KEYWORDS]}]
    assert met[0] == (Billed, "Sidekiq::ActiveJob::Wrapper", [17], {"urgent": True}, "default")


@pytest.mark.rule("testing.drain", "testing.inline", "fields.activejob")
def test_draining_and_inline_unwrap_what_was_pushed_as_rails_pushes_it() -> None:
    client = pillion.Client()
    results: list[Any] = []

    def keep(instance: Any, job: dict[str, Any], queue: str) -> Iterator[None]:
        results.append((yield))

    setups.default.server_middleware.add(keep)
    with testing.fake() as jobs:
        client.push(of_rails("BilledJob", 1))
        client.push(of_rails("AsyncBilledJob", "eve"))
        assert len(jobs.of(Billed)) == len(jobs.of("AsyncBilledJob")) == 1
        assert jobs.drain(Billed) == 1
        assert jobs.drain() == 1
    with testing.inline():
        client.push(of_rails("BilledJob", 2))
    assert results == [(1, False, "BilledJob"), "eve", (2, False, "BilledJob")]


@pytest.mark.rule("fields.activejob")
def test_a_job_for_the_wrapper_itself_gets_the_hash() -> None:
    with registry.default.restored():

        @pillion.job(name="Sidekiq::ActiveJob::Wrapper")
        def wrapper(given: dict[str, Any]) -> Any:
            return given["arguments"]

        with testing.fake() as jobs:
            assert jobs.process_job(of_rails("BilledJob", 17, KEYWORDS)) == [17, KEYWORDS]


@pytest.mark.rule("testing.hash")
def test_a_hash_needs_a_class_and_arguments_only() -> None:
    with testing.fake() as jobs:
        assert jobs.process_job({"class": "BilledJob", "args": [5]}) == (5, False, "BilledJob")
        assert jobs.process_job({"class": "BilledJob", "args": [5], "kwargs": {"urgent": True}})[1:] == (
            True,
            "BilledJob",
        )  # type: ignore[index]
        assert jobs.process_job({"class": "BilledJob", "args": [5], "kwargs": None}) == (5, False, "BilledJob")
        for wrong in ({"class": "BilledJob"}, {"args": []}, {"class": 5, "args": []}):
            with pytest.raises(pillion.PillionError):
                jobs.process_job(wrong)


# --- fixtures ---------------------------------------------------------------------------------------------------------


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

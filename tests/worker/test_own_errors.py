"""Errors that no code expects, in our own code around a job: the job is not forgotten, and the worker goes on."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

import pillion
from pillion.store.connection import Session
from pillion.types import Claim
from pillion.worker import Worker
from pillion.worker.fetcher import Fetcher
from pillion.worker.runner import Finished, Run, Runner
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import harness


class OwnErrors(pillion.Job):
    def perform(self) -> None:
        return


class OwnErrorsAsync(pillion.Job):
    async def perform(self) -> None:
        return


class HandedOn(pillion.Job):
    ran = threading.Event()

    def perform(self) -> None:
        self.ran.set()


class Resting(random.Random):
    """Chance, which waits for the job before it says how long a fetcher is to rest from trouble."""

    def uniform(self, a: float, b: float) -> float:
        if threading.current_thread().name.startswith("pillion.fetcher"):
            assert HandedOn.ran.wait(10)
        return super().uniform(a, b)


def once(function: Callable[..., Any], *, after: bool = False, when: Callable[..., bool] | None = None) -> Any:
    """The same function, which goes wrong once: before it has done anything, or after."""
    left = [1]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        hit = bool(left) and (when is None or when(*args, **kwargs)) and bool(left.pop())
        if hit and not after:
            raise MemoryError
        result = function(*args, **kwargs)
        if hit:
            raise MemoryError
        return result

    return wrapped


@pytest.mark.parametrize("name", ["OwnErrors", "OwnErrorsAsync"])
@pytest.mark.parametrize("place", ["begin", "finish"])
def test_a_job_with_which_we_could_not_deal_has_failed(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    monkeypatch.setattr(Runner, place, once(getattr(Runner, place)))
    with harness(server) as bed:
        worker = bed.start()
        jid = bed.push(name)
        wait_until(lambda: bed.members("retry"), what="the job to be retried")
        [job] = bed.members("retry")
        assert (job["jid"], job["error_class"]) == (jid, "MemoryError")
        bed.push(name)
        bed.settled(2)
        wait_until(lambda: worker.fetchers[0].drained, what="nothing to be left in hand")


def test_what_is_no_job_at_all_is_buried_if_we_could_not_even_say_so(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runner, "begin", once(Runner.begin))
    with harness(server) as bed:
        bed.start()
        bed.raw(b"no job")
        wait_until(lambda: bed.redis.zrange("dead", 0, -1) == [b"no job"], what="it to be buried")


def test_claims_whose_answer_could_not_be_read_are_found_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has executed the step. Were the same tray offered again, the jobs in it would be lost."""
    step = once(Session.call, after=True, when=lambda _, op, **__: op.name == "step")
    monkeypatch.setattr(Session, "call", step)
    with harness(server) as bed:
        for _ in range(6):
            bed.push("OwnErrors")
        bed.start()
        bed.settled(6)


def test_claims_that_were_not_handed_on_are_found_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = once(Fetcher._hand_out, when=lambda _, turned: bool(turned.claims))
    monkeypatch.setattr(Fetcher, "_hand_out", handed)
    with harness(server) as bed:
        for _ in range(6):
            bed.push("OwnErrors")
        bed.start()
        bed.settled(6)


@pytest.mark.parametrize("name", ["OwnErrors", "OwnErrorsAsync"])
def test_a_job_that_is_just_beginning_is_not_taken_for_one_that_was_forgotten(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    begin, begun, go = Runner.begin, [], threading.Event()

    def slowly(self: Runner, claim: Claim, started: float) -> Run | Finished:
        begun.append(claim.n)
        if len(begun) == 1:
            assert go.wait(10)
        return begin(self, claim, started)

    monkeypatch.setattr(Runner, "begin", slowly)
    with harness(server) as bed:
        fetcher = bed.start().fetchers[0]
        bed.push(name)
        wait_until(lambda: begun, what="the job to begin")
        monkeypatch.setattr(Fetcher, "_collect", once(Fetcher._collect))
        fetcher.wake()
        wait_until(lambda: (owner := fetcher.tenure.owner) and owner.generation == 2, what="a re-sync")
        go.set()
        bed.push("OwnErrors")
        bed.settled(2)
        wait_until(lambda: fetcher.drained, what="nothing to be left in hand")
    assert len(begun) == 2


def test_claims_are_handed_on_before_a_fetcher_rests_from_trouble(own_server: Server) -> None:
    HandedOn.ran.clear()
    with harness(own_server, rng=Resting()) as bed:
        bed.redis.execute_command("ACL", "SETUSER", "default", "-hgetall")  # its audit asks for it, after claiming
        bed.push("HandedOn")
        worker = Worker(bed.setup, embedded=True)
        bed.workers.append(worker)
        worker.fetchers[0]._next_audit = 0.0
        worker.start()
        bed.settled(1)

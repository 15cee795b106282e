"""Executed, and the reply lost: the fault that no client can tell from a request that never arrived."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pillion.errors import MaybeEnqueued
from pillion.store import ops
from pillion.store.ops import STALE, Owner, Stepped, Want
from pillion.store.scripts import script
from pillion.types import Claim, Done, Settlement
from pillion.worker import Worker
from tests.crash.app import Held, HeldAsync, Quick, open_ledger
from tests.crash.bed import Bed, ended, jids_of
from tests.proxy import Mischief, Proxy, Words
from tests.servers import Server

pytestmark = pytest.mark.chaos

LOSSES: tuple[Mischief, ...] = ("lose_reply", "cut_reply", "swallow_reply")
"""The ways to lose the reply of a request that was executed."""


@pytest.fixture
def proxy(own_server: Server, tmp_path: Path) -> Iterator[Proxy]:
    """What everybody but the assertions talks through."""
    made = Proxy(own_server.folder / "p", own_server.socket_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def bed(own_server: Server, proxy: Proxy, tmp_path: Path) -> Iterator[Bed]:
    """A bed whose workers and pushes go through the proxy."""
    made = Bed(own_server, tmp_path, proxy.url, concurrency=5)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def worker(bed: Bed) -> Iterator[Worker]:
    """A worker in this process, with a lease and its scripts known to the server."""
    open_ledger(bed.ledger.path)
    made = Worker(bed.setup, embedded=True)
    made.start()
    try:
        bed.accuse("first")
        bed.push(Quick, 0, jid="first")
        bed.until(lambda: ended(bed, ["first"]) and bed.idle(), "the first job, which needs every script")
        yield made
    finally:
        let_go(bed)
        made.stop(2)


def let_go(bed: Bed) -> None:
    """Let every held job of this process come to its end."""
    (bed.folder / f"go-{os.getpid()}").touch()


# --- what the conditions of a trap ask -------------------------------------------------------------------------------


def is_step(words: Words) -> bool:
    """Whether this request is the step script."""
    return words[0] == b"EVALSHA" and words[1].decode() == script("step").sha


def claims(words: Words, reply: Any) -> bool:
    """A step that brings a job."""
    return is_step(words) and isinstance(reply, list) and bool(reply[3])


def settles(words: Words, reply: Any = None) -> bool:
    """A step that carries an outcome."""
    if not is_step(words):
        return False
    arguments = words[3 + int(words[2]) :]
    return int(arguments[8]) + int(arguments[9]) > 0


def is_mark(words: Words, reply: Any = None) -> bool:
    """Whether this request tells the server that a suspect starts."""
    return words[0] == b"EVALSHA" and words[1].decode() == script("mark").sha


def pushes(words: Words, reply: Any = None) -> bool:
    return words[0] == b"LPUSH"


def pushes_once(words: Words, reply: Any = None) -> bool:
    return words[0] in (b"EVALSHA", b"EVAL") and b"pillion:once" in b"".join(words[3:6])


# --- a worker whose step was executed --------------------------------------------------------------------------------


@pytest.mark.parametrize("mischief", LOSSES)
@pytest.mark.parametrize("job", [Held, HeldAsync])
def test_claims_whose_announcement_was_lost_are_adopted(
    bed: Bed, proxy: Proxy, worker: Worker, mischief: Mischief, job: type
) -> None:
    trap = proxy.trap(mischief, claims)
    jids = bed.push_many(job, 3, str(bed.folder))
    trap.wait()
    bed.until(lambda: set(jids) <= bed.ledger.count("start").keys(), "the claims to be adopted", timeout=3)
    let_go(bed)
    bed.until(bed.idle, "the jobs to be done")
    assert all(bed.ledger.count(what)[jid] == 1 for jid in jids for what in ("start", "end"))


def test_claims_are_adopted_though_the_next_reply_is_lost_too(bed: Bed, proxy: Proxy, worker: Worker) -> None:
    """The re-sync that found them succeeds, the step after it does not: what it found must not be forgotten."""
    first = proxy.trap("lose_reply", claims)
    second = proxy.trap("lose_reply", lambda words, reply: is_step(words) and first.sprung.is_set())
    jids = bed.push_many(Quick, 3, 0)
    second.wait()
    bed.until(lambda: ended(bed, jids) and bed.idle(), "the jobs to be done")
    assert all(bed.ledger.count("start")[jid] == 1 for jid in jids)


@pytest.mark.parametrize("lost", ["LINDEX", "ZMSCORE"])
def test_claims_are_adopted_though_one_of_the_questions_about_them_is_lost(
    bed: Bed, proxy: Proxy, worker: Worker, lost: str
) -> None:
    """While outcomes are in doubt as well. Accused jobs are asked about, and start one at a time."""
    suspects = [f"suspect-{i}" for i in range(3)]
    bed.accuse(*suspects)
    first = proxy.trap("lose_reply", lambda words, reply: settles(words) and claims(words, reply))
    second = proxy.trap("lose_reply", lambda words, reply: words[0].decode() == lost and first.sprung.is_set())
    jids = bed.push_many(Quick, 200, 1)
    for jid in suspects:
        bed.push(Quick, 5, jid=jid)
    second.wait()
    bed.until(lambda: ended(bed, [*jids, *suspects]) and bed.idle(), "the jobs to be done")
    assert all(bed.ledger.count("start")[jid] == 1 for jid in (*jids, *suspects))
    assert all(ran_alone(bed, jid) for jid in suspects)


def test_a_suspect_whose_mark_was_lost_runs_all_the_same(bed: Bed, proxy: Proxy, worker: Worker) -> None:
    bed.accuse("suspect")
    trap = proxy.trap("lose_reply", is_mark)
    bed.push(Quick, 1, jid="suspect")
    trap.wait()
    bed.until(lambda: ended(bed, ["suspect"]) and bed.idle(), "the job to be done")
    assert bed.ledger.count("start")["suspect"] == 1


def test_suspects_whose_announcement_was_lost_run_alone(bed: Bed, proxy: Proxy, worker: Worker) -> None:
    """Each takes longer than a renewal period: the worker converses meanwhile, and claims none of the others."""
    suspects, others = [f"suspect-{i}" for i in range(3)], [f"other-{i}" for i in range(3)]
    bed.accuse(*suspects)
    mixed = [jid for pair in zip(others, suspects, strict=True) for jid in pair]
    trap = proxy.trap("lose_reply", claims)
    bed.store.run(ops.push(bed.store.keys, [parcel(bed, jid, 250 if jid in suspects else 2) for jid in mixed]))
    trap.wait()
    bed.until(lambda: bed.ledger.facts("start", suspects[0]), "a suspect to start")
    late = bed.push_many(Quick, 20, 2)
    bed.until(lambda: ended(bed, [*mixed, *late]) and bed.idle(), "the jobs to be done")
    assert all(ran_alone(bed, jid) for jid in suspects)


def parcel(bed: Bed, jid: str, ms: int) -> ops.Parcel:
    """A job that takes a moment, ready to be pushed beside others."""
    made = bed.client.parcel(*bed.client.describe({"class": Quick, "args": [ms], "jid": jid}))
    assert made is not None
    return made


def ran_alone(bed: Bed, jid: str) -> bool:
    """Whether no other job ran while this one did."""
    [start], [end] = bed.ledger.facts("start", jid), bed.ledger.facts("end", jid)
    facts = bed.ledger.facts()
    return facts[facts.index(start) + 1] == end


@pytest.mark.parametrize("mischief", LOSSES)
def test_an_outcome_whose_receipt_was_lost_is_written_once(
    bed: Bed, proxy: Proxy, worker: Worker, mischief: Mischief
) -> None:
    me = os.getpid()
    jids = [bed.push(Held, str(bed.folder), fails) for fails in (0, 0, me)]
    bed.until(lambda: set(jids) <= bed.ledger.count("start").keys(), "the jobs to start")
    trap = proxy.trap(mischief, settles)
    let_go(bed)
    trap.wait()
    bed.until(lambda: not worker.fetchers[0].tenure.mine, "the outcomes to be known as written", timeout=3)
    assert bed.standing() == {"retry": [jids[2]]}
    worker.stop(2)
    assert bed.processed() == 1 + len(jids)
    assert all(bed.ledger.count("start")[jid] == 1 for jid in jids)


@pytest.mark.parametrize("mischief", ["close_early", "lose_reply"])
def test_many_losses_in_a_row_strand_nothing(bed: Bed, proxy: Proxy, worker: Worker, mischief: Mischief) -> None:
    jids = bed.push_many(Quick, 100, 5)
    for _ in range(12):
        proxy.trap(mischief, lambda words, reply: is_step(words)).wait()
    bed.until(lambda: ended(bed, jids) and bed.idle(), "the jobs to be done")
    assert all(bed.ledger.count("start")[jid] == 1 for jid in jids)


def test_late_bytes_of_an_old_connection_change_nothing(bed: Bed, proxy: Proxy, worker: Worker) -> None:
    """A step sits in the network while its sender gives up, re-syncs and goes on; then it arrives after all."""
    trap = proxy.trap("hold_back", lambda words, reply: is_step(words))
    trap.wait()
    [before] = bed.owners()
    jids = bed.push_many(Held, 2, str(bed.folder))
    bed.until(lambda: set(jids) <= bed.ledger.count("start").keys(), "the worker to go on")
    assert trap.let_go() == STALE.encode()
    assert bed.owners() == [before]
    assert set(bed.held(before).values()) == set(jids)


# --- the same, by hand -----------------------------------------------------------------------------------------------


def test_a_step_of_an_older_generation_settles_and_claims_nothing(bed: Bed) -> None:
    keys, run = bed.store.keys, bed.store.run
    jids = bed.push_many(Quick, 2, 0)
    old = Owner("somebody.1")
    assert run(ops.join(keys, old.name, 60_000, 5))
    want = Want(1, 1, (("default", 1),))
    first = run(ops.step(keys, old, 60_000, [], want, dead_max=10, dead_timeout=10.0))
    assert isinstance(first, Stepped)
    [(n, queue, raw)] = first.claims
    held = run(ops.resync(keys, old.name, 60_000))
    assert not isinstance(held, str)
    before = (bed.held(old.name), bed.standing())
    done = Settlement(Claim(old.name, n, queue, raw), Done())
    late = ops.step(keys, old, 60_000, [done], Want(1, 2, want.queues), dead_max=10, dead_timeout=10.0)
    assert run(late) == STALE
    assert (bed.held(old.name), bed.standing()) == before == ({n: jids[0]}, {"queue:default": [jids[1]]})
    new = Owner(old.name, held.generation)
    again = ops.step(keys, new, 60_000, [done], Want(0, 2, ()), dead_max=10, dead_timeout=10.0)
    assert isinstance(run(again), Stepped)
    assert bed.held(old.name) == {}
    assert run(ops.leave(keys, old.name))


# --- a push that was executed ----------------------------------------------------------------------------------------


@pytest.mark.rule("client.resend", instead=True)
@pytest.mark.parametrize("mischief", LOSSES)
def test_a_push_whose_reply_was_lost_says_so_and_is_not_repeated(bed: Bed, proxy: Proxy, mischief: Mischief) -> None:
    trap = proxy.trap(mischief, pushes)
    with pytest.raises(MaybeEnqueued) as caught:
        bed.push(Quick, 0)
    trap.wait()
    maybe = caught.value
    assert (maybe.confirmed, len(maybe.unknown), maybe.unsent) == ((), 1, ())
    assert bed.standing() == {"queue:default": list(maybe.unknown)}


async def apush(bed: Bed, item: dict[str, Any], **options: Any) -> list[str]:
    """Push from a loop of its own, and close its connections."""
    try:
        return jids_of(await bed.client.apush_bulk(item, **options))
    finally:
        await bed.setup.astore.close()


def test_the_same_from_asyncio(bed: Bed, proxy: Proxy) -> None:
    proxy.trap("lose_reply", pushes)
    with pytest.raises(MaybeEnqueued) as caught:
        asyncio.run(apush(bed, {"class": Quick, "args": [[0], [0]]}))
    assert bed.standing() == {"queue:default": list(reversed(caught.value.unknown))}


@pytest.mark.rule("bulk.atomic")
def test_of_a_bulk_push_the_earlier_batches_are_confirmed_and_the_later_ones_unsent(bed: Bed, proxy: Proxy) -> None:
    trap = proxy.trap("lose_reply", lambda words, _: pushes(words) and b"[2]" in words[2])
    with pytest.raises(MaybeEnqueued) as caught:
        bed.client.push_bulk({"class": Quick, "args": [[1], [2], [3]], "batch_size": 1})
    trap.wait()
    maybe = caught.value
    assert (len(maybe.confirmed), len(maybe.unknown)) == (1, 1)
    assert bed.standing() == {"queue:default": [*maybe.unknown, *maybe.confirmed]}


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("mischief", [*LOSSES, "close_early"])
def test_a_push_by_jid_is_repeated_by_itself_and_stands_there_once(
    bed: Bed, proxy: Proxy, mischief: Mischief, colour: str
) -> None:
    bed.push(Quick, 0, once=True, queue="warm")
    trap = proxy.trap(mischief, pushes_once)
    if colour == "sync":
        jids = bed.push_many(Quick, 2, 0, once=True)
    else:
        jids = asyncio.run(apush(bed, {"class": Quick, "args": [[0], [0]]}, once=True))
    trap.wait()
    assert bed.standing()["queue:default"] == jids[::-1]


def test_a_push_by_jid_does_not_deny_what_it_cannot_know(bed: Bed, proxy: Proxy) -> None:
    """Executed, the reply lost, and nobody there when it is repeated: it may be enqueued, and is."""
    bed.push(Quick, 0, once=True, queue="warm")
    trap = proxy.trap("lose_reply", lambda words, reply: pushes_once(words) and proxy.refuse())
    with pytest.raises(MaybeEnqueued) as caught:
        bed.push(Quick, 0, once=True)
    trap.wait()
    assert bed.standing()["queue:default"] == list(caught.value.unknown)

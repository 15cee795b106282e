"""Servers that answer, but not as they should: frozen, full, busy, forgetful."""

from __future__ import annotations

import os
import resource
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, ClassVar

import redis

from tests.crash.account import Account
from tests.crash.app import Quick
from tests.crash.bed import jids_of
from tests.crash.chaosbed import ChaosBed
from tests.crash.fault import Excuse, Fault, Needs
from tests.crash.ledger import now
from tests.servers import Server
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 0.05
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
CALM = Needs(pills=False)
"""Nobody dies by itself: whoever loses a lease then lost it to the fault."""


def robbed(bed: ChaosBed) -> Iterator[str]:
    """Live workers that were fenced."""
    if bed.ledger.facts("lost", since=bed.began) and bed.late < 0.3:
        yield "I4: a live worker was fenced"


class FrozenServer(Fault):
    """The server answers nobody, or refuses everything, for up to three leases."""

    id, title, trials = "T15", "server frozen, paused or with a full disk, for up to three leases", 300
    needs = Needs(pills=False, aof="everysec")

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        how, seconds = rng.choice(("stopped", "paused", "asleep", "without disk")), rng.uniform(0.1, 3.0)
        bed.plan(f"{how} for {seconds:.2f} s")
        bed.down()
        self._threads: list[threading.Thread] = []
        if how == "stopped":
            bed.server.pause()
        elif how == "paused":
            bed.redis.client_pause(int(seconds * 1000), all=rng.random() < 0.5)
        elif how == "asleep":
            words = ("DEBUG", "SLEEP", f"{seconds:.3f}")
            self._threads.append(threading.Thread(target=patiently, args=(bed.server, *words)))
            self._threads[0].start()
        else:
            written = [path.stat().st_size for path in bed.server.folder.rglob("*.aof*")]
            resource.prlimit(bed.server.pid, resource.RLIMIT_FSIZE, (max(written), resource.RLIM_INFINITY))
        bed.wait(seconds)

    def heal(self, bed: ChaosBed) -> None:
        resource.prlimit(bed.server.pid, resource.RLIMIT_FSIZE, NO_LIMIT)
        bed.server.resume()
        for thread in self._threads:
            thread.join()
        wait_until(lambda: takes_writes(bed.server), timeout=20, what="the server to take writes again")
        bed.up()

    def check(self, bed: ChaosBed, account: Account) -> Iterable[str]:
        return robbed(bed)


def patiently(server: Server, *words: str) -> None:
    """A command that takes long."""
    with server.client(socket_timeout=30) as client, suppress(redis.RedisError):
        client.execute_command(*words)


def takes_writes(server: Server) -> bool:
    try:
        with server.client(socket_timeout=1.0) as client:
            return bool(client.set("filler", "x", px=1))
    except redis.RedisError:
        return False


class FullMemory(Fault):
    """Memory is full, with noeviction: pushes are refused, all else goes on."""

    id, title, trials = "T16", "memory full (noeviction) while workers work", 300
    needs = CALM

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        seconds = rng.uniform(0.05, 2.0)
        bed.plan(f"full for {seconds:.2f} s")
        bed.redis.config_set("maxmemory", "1mb")
        bed.wait(seconds)

    def heal(self, bed: ChaosBed) -> None:
        bed.redis.config_set("maxmemory", "0")

    def check(self, bed: ChaosBed, account: Account) -> Iterable[str]:
        return robbed(bed)


class Scripts(Fault):
    """Scripts are flushed 20 times a second, keys are of another type for a moment, somebody's script never ends."""

    id, title, trials = "T17", "scripts flushed at 20 Hz, keys of another type, busy script", 1000
    needs = CALM

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        how = rng.choice(("flushed", "spoilt", "busy"))
        bed.plan(how)
        if how == "flushed":
            for _ in range(rng.randrange(2, 30)):
                bed.redis.script_flush()
                bed.wait(0.05)
        elif how == "spoilt":
            key = rng.choice(("paused", "pillion:suspects", "pillion:fenced", "processes", "stat:processed"))
            bed.plan(key)
            bed.redis.eval("redis.call('DEL', KEYS[1]) redis.call('XADD', KEYS[1], '*', 'a', 'b')", 1, key)
            bed.wait(rng.uniform(0.05, 1.5))
            bed.redis.delete(key)
        else:
            self._keep_busy(bed, rng.uniform(0.1, 2.0))

    def _keep_busy(self, bed: ChaosBed, seconds: float) -> None:
        bed.redis.config_set("busy-reply-threshold", 20)
        bed.down()
        endless = threading.Thread(target=patiently, args=(bed.server, "EVAL", "while true do end", "0"))
        endless.start()
        bed.wait(seconds)

        def killed() -> bool:
            with suppress(redis.RedisError):
                bed.redis.script_kill()
            endless.join(0.05)
            return not endless.is_alive()

        wait_until(killed, timeout=20, what="the script to be killed")
        bed.up()

    def check(self, bed: ChaosBed, account: Account) -> Iterable[str]:
        return robbed(bed)


class Forgetful(Fault):
    """The server is emptied, gets yesterday's backup, or loses the end of its file: what it forgot is lost, no more."""

    id, title, trials, block = "T18", "FLUSHALL, older backup, end of the AOF cut off", 100, 20
    needs = Needs(pills=False)
    waived: ClassVar[Mapping[str, str]] = {
        "I5": "a backup knows a job that runs already",
        "I6": "a backup brings claims back that were settled since",
        "I11": "claims that a backup brings back are found by the audit, within 10 s",
    }

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        how: Callable[[ChaosBed, Random], None] = rng.choice((self._flush, self._restore, self._cut))
        bed.plan(how.__name__.strip("_"))
        for worker in bed.workers:
            bed.hit(worker)
        how(bed, rng)
        bed.wait(SOON)
        self._until = now()
        bed.gone |= self._forgotten(bed)

    def _forgotten(self, bed: ChaosBed) -> set[str]:
        """What was accepted before the server was another one, and is not done."""
        return {jid for jid, at in bed.pushed.accepted.items() if at <= self._until} - bed.ledger.jids("end")

    def _flush(self, bed: ChaosBed, rng: Random) -> None:
        bed.redis.flushall()

    def _restore(self, bed: ChaosBed, rng: Random) -> None:
        folder = bed.server.folder
        backup = folder / "backup"
        bed.redis.bgrewriteaof()
        wait_until(lambda: not bed.redis.info("persistence")["aof_rewrite_in_progress"], what="the backup")
        bed.server.pause()
        shutil.copytree(folder / "appendonlydir", backup)
        bed.server.resume()
        bed.wait(rng.uniform(0.05, 1.0))
        bed.down()
        bed.server.kill()
        shutil.rmtree(folder / "appendonlydir")
        backup.rename(folder / "appendonlydir")

    def _cut(self, bed: ChaosBed, rng: Random) -> None:
        bed.down()
        bed.server.kill()
        newest = max(bed.server.folder.glob("appendonlydir/*.incr.aof"), key=lambda path: path.stat().st_mtime)
        os.truncate(newest, max(newest.stat().st_size - rng.randrange(1, 2000), 0))

    def heal(self, bed: ChaosBed) -> None:
        if not bed.server.alive():
            bed.server.restart()
            bed.up()

    def excuse(self, bed: ChaosBed) -> Excuse:
        """What was not done by then may be lost, and everything may run again: the server is another one."""
        return Excuse(lost=self._forgotten(bed), again=set(bed.pushed.accepted) | bed.pushed.unknown)


class Scheduler(Fault):
    """Hundreds of jobs come due in the same instant; the set is of another type for a moment, and a poller dies."""

    id, title, trials = "T19", "300 jobs due in one instant, broken schedule, poller killed", 1000
    clock = "inject"

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        at = bed.setup.config.clock.now() + rng.uniform(0.0, 0.5)
        bed.pushed.accept(jids_of(bed.client.push_bulk({"class": Quick, "args": [[0]] * 300, "at": at})))
        if rng.random() < 0.5:
            bed.plan("broken for a moment")
            bed.redis.eval(ASIDE, 2, "schedule", "aside")
            bed.wait(rng.uniform(0, 0.3))
            bed.redis.eval(BACK, 2, "schedule", "aside")
        bed.wait(rng.uniform(0, 0.5))
        bed.kill(bed.victim(rng))


ASIDE = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end
redis.call('SET', KEYS[1], 'x')
"""
BACK = """
redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end
"""

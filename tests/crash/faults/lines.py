"""What lies between workers and server, and what a process may use: bad lines, a failover, no descriptors left."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from random import Random
from typing import ClassVar

from tests.crash.chaosbed import ChaosBed
from tests.crash.fault import Excuse, Fault, Needs
from tests.crash.ledger import now
from tests.line import Line
from tests.servers import Server
from tests.waiting import wait_until

SOON = 0.1
NARROW = (20_000, 400_000)
FEW = 4
"""Descriptors that a worker may open beyond those it has, at most."""


class BadLine(Fault):
    """All that workers and producer say and hear is late, narrow, or in crumbs, for some leases."""

    id, title, trials = "T34", "line late by up to 0.2 s, narrow, or in crumbs of 1 to 50 bytes", 300
    needs = Needs(proxy=True, pills=False)
    waived: ClassVar[Mapping[str, str]] = {"I11": "what is slow recovers slowly"}

    def prepare(self, bed: ChaosBed) -> None:
        self._line = Line(str(bed.server.socket_path), bed.server.folder / "line")

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        assert bed.proxy is not None
        line, how, seconds = self._line, rng.choice(("late", "narrow", "crumbs")), rng.uniform(0.3, 3.0)
        bed.plan(f"{how} for {seconds:.2f} s")
        most = rng.uniform(0.0, 0.2)
        if how == "late":
            line.delay = lambda: rng.uniform(0, most)
        elif how == "narrow":
            line.rate = rng.uniform(*NARROW)
        else:
            line.piece = rng.randrange(1, 50)
        for worker in bed.workers:
            bed.hit(worker)
        bed.proxy.lead_to(bed.server.folder / "line")
        bed.wait(seconds)

    def heal(self, bed: ChaosBed) -> None:
        assert bed.proxy is not None
        self._line.mend()
        bed.proxy.lead_to(bed.server.socket_path)
        self._line.cut()


class NoDescriptors(Fault):
    """A worker has lost its connections, and may open no new ones: it has used up its descriptors."""

    id, title, trials = "T35", "no descriptors left when connections must be opened anew", 300
    needs = Needs(pills=False)

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        victim, seconds = bed.victim(rng), rng.uniform(0.1, 3.0)
        bed.plan(f"for {seconds:.2f} s")
        bed.hit(victim)
        self._victim, self._before = victim.pid, resource.prlimit(victim.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(victim.pid, resource.RLIMIT_NOFILE, (rng.randrange(FEW), self._before[1]))
        bed.redis.client_kill_filter(_type="normal", skipme=True)
        bed.wait(seconds)

    def heal(self, bed: ChaosBed) -> None:
        resource.prlimit(self._victim, resource.RLIMIT_NOFILE, self._before)


class Failover(Fault):
    """The server dies and its replica takes its place, with all it had or without the last of it."""

    id, title, trials, block = "T14", "failover to a replica, up to date or behind", 300, 20
    needs = Needs(proxy=True, pills=False, arguments=("--repl-diskless-sync-delay", "0"))
    waived: ClassVar[Mapping[str, str]] = {
        "I5": "a replica that was behind knows a job that runs already",
        "I6": "a replica that was behind brings claims back that were settled since",
        "I11": "claims that it brings back are found by the audit, within 10 s",
    }

    def prepare(self, bed: ChaosBed) -> None:
        self._others = [self._follow(bed)]

    def _follow(self, bed: ChaosBed) -> Server:
        """A replica of the bed's server, which has everything."""
        replica = Server(bed.server.kind).start(
            *bed.needs.arguments, "--replicaof", f"127.0.0.1 {bed.server.port}", aof="always"
        )
        wait_until(lambda: self._is_level(bed, replica), timeout=20, what="the replica to have everything")
        return replica

    @staticmethod
    def _is_level(bed: ChaosBed, replica: Server) -> bool:
        ours, theirs = bed.redis.info("replication"), replica.info("replication")
        return bool(theirs["master_link_status"] == "up" and theirs["slave_repl_offset"] >= ours["master_repl_offset"])

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        replica, behind = self._others[-1], rng.random() < 0.5
        seconds = rng.uniform(0.0, 0.5)
        bed.plan(f"behind by {seconds:.2f} s" if behind else "up to date")
        for worker in bed.workers:
            bed.hit(worker)
        self._cut = float("inf")
        if behind:
            wait_until(lambda: self._is_level(bed, replica), timeout=15, what="the replica to keep up")
            self._cut = now() - SOON  # what was on its way is not there
            replica.client().replicaof("NO", "ONE")
            bed.wait(seconds)
        else:
            bed.redis.client_pause(20_000, all=False)
            wait_until(lambda: self._is_level(bed, replica), timeout=15, what="the replica to have everything")
            replica.client().replicaof("NO", "ONE")
        bed.down()
        bed.server.kill()
        self._killed, self._behind = now(), behind

    def heal(self, bed: ChaosBed) -> None:
        assert bed.proxy is not None
        bed.gone |= self._late(bed)
        bed.server = self._others[-1]
        bed.redis = bed.server.client()
        bed.proxy.lead_to(bed.server.socket_path)
        bed.up()
        self._others.append(self._follow(bed))

    def excuse(self, bed: ChaosBed) -> Excuse:
        """What was accepted after the link was cut may be lost; what was done since may be done again."""
        known = set(bed.pushed.accepted) | bed.pushed.unknown
        return Excuse(lost=self._late(bed), again=known if self._behind else set())

    def _late(self, bed: ChaosBed) -> set[str]:
        """What was accepted while nothing was carried to the replica any more."""
        return {jid for jid, at in bed.pushed.accepted.items() if self._cut <= at <= self._killed + SOON}

    def close(self) -> None:
        for each in getattr(self, "_others", ()):
            each.close()

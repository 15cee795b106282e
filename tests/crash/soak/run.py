"""Drives a soak from its start to its account."""

from __future__ import annotations

import json
import platform
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import redis

from pillion.payload import decode
from pillion.version import __version__
from tests import leaks
from tests.crash.soak import journal
from tests.crash.soak.faults import Faults
from tests.crash.soak.fleet import ROOT, Fleet, signal_to
from tests.crash.soak.samples import Sampler
from tests.waiting import wait_until

TURN = 0.2
DRAIN = 240.0


@dataclass(frozen=True)
class Plan:
    """What a soak is to be. Seconds, but `rate`: jobs per second of each producer."""

    seconds: float
    seed: str
    rate: float = 33.0
    lease: float = 5.0
    fault_mean: float = 30.0
    sample_every: float = 10.0
    rewrite_every: float = 240.0
    roll_every: float = 1200.0
    later: int = 20_000
    warm_up: float = 900.0
    poll: float | None = None


class Soak:
    """One run, in a folder of its own."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self.plan, self.folder, self._say = plan, folder, say
        folder.mkdir(parents=True, exist_ok=True)
        self.fleet = Fleet(folder, options_of(plan), producers_of(plan))
        self.faults = Faults(self.fleet, plan.fault_mean, plan.lease, f"{plan.seed} faults")
        self._sampler = Sampler(self.fleet)
        self._due = dict.fromkeys(("sample", "rewrite", "roll"), 0.0)

    def run(self) -> None:
        """Everything; the folder then holds what happened."""
        try:
            self._run()
        finally:
            self.fleet.close()

    def _run(self) -> None:
        facts = {"plan": asdict(self.plan), **versions(self.fleet), "from": journal.now(), "began": time.time()}
        self._write(journal.FACTS, facts)
        self.fleet.wait_until_up()
        self.fleet.produce()
        chaos = threading.Thread(target=self.faults.run, daemon=True)
        chaos.start()
        facts["work_until"] = journal.now() + self.plan.seconds
        self._write(journal.FACTS, facts)
        self._work(facts["work_until"])
        self.faults.end()
        chaos.join(60)
        codes = self.fleet.stop("producer")
        facts["drained"] = self._drain()
        self._write(journal.STANDING, self._standing())
        codes |= self.fleet.stop("group") | self.fleet.stop("async")
        facts |= {"codes": codes, "faults": self.faults.counts, "errors": self.faults.errors, "to": journal.now()}
        with self.fleet.server.client() as client:
            facts["leaked"] = list(leaks.leaked(client))
        self._write(journal.FACTS, facts)

    def _work(self, until: float) -> None:
        began = journal.now()
        self._due |= {"rewrite": began + self.plan.rewrite_every, "roll": began + self.plan.roll_every}
        while (at := journal.now()) < until:
            self.fleet.keep()
            if self._is_due("sample", at, self.plan.sample_every):
                self._tell(began, until, self._sampler.take())
            if self._is_due("rewrite", at, self.plan.rewrite_every):
                self._rewrite()
            if self._is_due("roll", at, self.plan.roll_every):
                self.fleet.faults.note("roll", self.fleet.members["group-battered"].pid)
                signal_to(self.fleet.members["group-battered"].pid, signal.SIGUSR2)
            time.sleep(TURN)

    def _is_due(self, what: str, at: float, every: float) -> bool:
        if at < self._due[what]:
            return False
        self._due[what] = max(self._due[what] + every, at)
        return True

    def _rewrite(self) -> None:
        try:
            with self.fleet.server.client() as client:
                client.bgrewriteaof()
            self.fleet.faults.note("rewrite")
        except redis.RedisError:
            self.fleet.faults.note("no-rewrite")

    def _tell(self, began: float, until: float, sample: dict[str, Any]) -> None:
        server = sample["redis"] or {}
        rss: dict[str, int] = {}
        for each in sorted(sample["processes"], key=lambda each: (each["role"], each["rss"])):
            rss[each["role"]] = each["rss"] >> 20
        done = (sample["at"] - began) / 60
        self._say(
            f"{done:.1f} of {(until - began) / 60:.0f} min, {sum(self.faults.counts.values())} faults, waiting "
            f"{server.get('waiting')}, later {server.get('schedule')}, retry {server.get('retry')}, dead "
            f"{server.get('dead')}, keys {server.get('keys')}, clients {server.get('clients')}, load "
            f"{sample['load']:.1f}, MB {rss}"
        )

    def _drain(self) -> bool:
        """Wait until all has been done, as long as it takes; False where it does not end."""
        until = journal.now() + DRAIN

        def idle() -> bool:
            self.fleet.keep()
            return is_idle(self.fleet) or journal.now() > until

        wait_until(idle, timeout=DRAIN + 30, what="every job to be done")
        return journal.now() <= until

    def _standing(self) -> dict[str, list[str]]:
        with self.fleet.server.client() as client:
            places = {key.decode(): client.lrange(key, 0, -1) for key in client.scan_iter(match="queue:*")}
            places |= {name: client.zrange(name, 0, -1) for name in ("retry", "schedule", "dead")}
        return {name: [decode(raw)["jid"] for raw in members] for name, members in places.items() if members}

    def _write(self, name: str, what: object) -> None:
        (self.folder / name).write_text(json.dumps(what, indent=1))


def is_idle(fleet: Fleet) -> bool:
    """Whether no job waits, runs, or is due later."""
    try:
        with fleet.server.client() as client:
            busy = any(client.exists(name) for name in ("retry", "schedule"))
            busy = busy or any(True for _ in client.scan_iter(match="queue:*", count=1000))
            indexes = list(client.scan_iter(match="pillion:inf:*", _type="hash", count=1000))
            return not busy and not any(field.isdigit() for key in indexes for field in client.hkeys(key))
    except redis.RedisError:
        return False


def options_of(plan: Plan) -> dict[str, Any]:
    """The options of every worker and producer."""
    options: dict[str, Any] = {
        "redis": {"timeout": 1.0, "connect_timeout": 1.0},
        "lease": plan.lease,
        "heartbeat": 2.0,
        "timeout": 10.0,
        "skip_default_job_logging": True,
    }
    return options if plan.poll is None else {**options, "poll_interval_average": plan.poll}


def producers_of(plan: Plan) -> dict[str, Any]:
    """What both producers are told."""
    later_seconds = max(plan.seconds * 0.97 - 5, plan.seconds / 2)
    return {"rate": plan.rate, "later": plan.later, "later_seconds": later_seconds, "seed": plan.seed}


def versions(fleet: Fleet) -> dict[str, str]:
    """What ran."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    with fleet.server.client() as client:
        server: Any = client.info("server")
    return {
        "pillion": __version__,
        "commit": commit.strip(),
        "server": f"Redis {server['redis_version']}",
        "python": platform.python_version(),
    }


def new_seed() -> str:
    return str(random.SystemRandom().randrange(10**9))

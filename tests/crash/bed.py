"""The bed of the killing tests: one server, one ledger, and worker processes that a test may kill, freeze and replace.

Whatever a test starts here ends with it: every process is killed by its id at teardown, and a worker whose test died
leaves by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import redis

from pillion import Client, Job
from pillion.payload import decode
from pillion.setup import Setup
from pillion.store import ops
from pillion.store.connection import Store
from tests import leaks
from tests.crash.ledger import Ledger
from tests.crash.processes import Process
from tests.servers import Server
from tests.waiting import wait_until

LEASE = 1.0
REDIS = {"timeout": 0.4, "connect_timeout": 0.4}
"""Finite and short: a renewal period of this lease is a sixth of a second."""

FAST = {"lease": LEASE, "heartbeat": 1.0, "poll_interval_average": 0.3, "timeout": 5.0}


class Bed:
    """A server with its workers and its ledger. `url` is what workers and pushes use, the server's own if None."""

    def __init__(self, server: Server, folder: Path, url: str | None = None, **options: Any) -> None:
        self.server = server
        self.folder = folder
        self.ledger = Ledger(folder / "ledger")
        self.options = {"redis": {"url": url or server.url, **REDIS}, **FAST, **options}
        self.setup = Setup(**self.options)
        self.client = Client(setup=self.setup)
        self.store: Store = self.setup.store
        self.processes: list[Process] = []

    def start(self, **options: Any) -> Process:
        """Start a worker process; it is not waited for."""
        log = self.folder / f"worker-{len(self.processes) + 1}.log"
        process = Process({**self.options, "ledger": str(self.ledger.path), **options}, log)
        self.processes.append(process)
        return process

    def start_ready(self, **options: Any) -> Process:
        """Start a worker process and wait until it holds a lease."""
        process = self.start(**options)
        self.until(lambda: self.owners(process.pid), f"worker {process.pid} to join", process)
        return process

    def until(self, done: Callable[[], Any], what: str, *alive: Process, timeout: float = 15) -> Any:
        """Wait for something that `alive` processes have to bring about; fails with their logs if one ends instead."""

        def look() -> Any:
            for process in alive:
                assert process.code is None, f"{what}: worker {process.pid} ended with {process.code}\n{process.said()}"
            return done()

        try:
            return wait_until(look, timeout=timeout, what=what)
        except AssertionError:
            print("\n".join(f"--- {process.log.name}\n{process.said()[-3000:]}" for process in self.processes))
            raise

    # --- what a test does ---------------------------------------------------------------------------------------

    def push(self, job: type[Job], *args: object, once: bool = False, **fields: object) -> str:
        """Push one job; its jid. `fields` are those of the payload."""
        jid = self.client.push({"class": job, "args": list(args), **fields}, once=once)
        assert jid is not None
        return jid

    def push_many(self, job: type[Job], count: int, *args: object, once: bool = False, **fields: object) -> list[str]:
        """Push `count` jobs of the same arguments at once; their jids, the first to run first."""
        return jids_of(self.client.push_bulk({"class": job, "args": [list(args)] * count, **fields}, once=once))

    def accuse(self, *jids: str) -> None:
        """Make suspects of these jobs: as if each had been running when a process died."""
        with self.server.client() as client:
            client.zadd("pillion:suspects", dict.fromkeys(jids, time.time() + 3600))

    # --- what Redis says ----------------------------------------------------------------------------------------

    def owners(self, pid: int | None = None) -> list[str]:
        """Owners with a lease, of one process or of all, by name."""
        with self.server.client() as client:
            names = [name.decode() for name in client.zrange("pillion:lease", 0, -1)]
        return [name for name in sorted(names) if pid is None or name.split(":")[1] == str(pid)]

    def held(self, owner: str) -> dict[int, str]:
        """What an owner's index lists, by the claim's number: the job's jid."""
        fields = self.store.run(ops.index(self.store.keys, owner))
        numbers = sorted(ops.index_claims(fields))
        payloads = self.store.run(ops.held_payloads(self.store.keys, owner, numbers)) if numbers else []
        return {n: decode(raw)["jid"] for n, raw in zip(numbers, payloads, strict=True) if raw is not None}

    def held_by(self, pid: int) -> set[str]:
        """The jids of all claims of one process. What it sent before it died has been executed when this looks."""
        with self.server.client() as client:
            client.ping()  # readable sockets are served before the next command of this one
        return {jid for owner in self.owners(pid) for jid in self.held(owner).values()}

    def marked_by(self, pid: int) -> set[str]:
        """The jids among them that the process had marked as suspects that run."""
        found = set()
        for owner in self.owners(pid):
            fields = self.store.run(ops.index(self.store.keys, owner))
            marks = ops.index_marks(fields)
            found |= {jid for n, jid in self.held(owner).items() if n in marks}
        return found

    def standing(self) -> dict[str, list[str]]:
        """The jids in each place a job can stand, but in trays: queues by their name, `retry`, `schedule`, `dead`."""
        with self.server.client() as client:
            places = {key.decode(): client.lrange(key, 0, -1) for key in client.scan_iter(match="queue:*")}
            places |= {name: client.zrange(name, 0, -1) for name in ("retry", "schedule", "dead")}
        return {name: [decode(raw)["jid"] for raw in members] for name, members in places.items() if members}

    def idle(self) -> bool:
        """Whether no job waits, runs, or is due later. False while the server is down."""
        try:
            with self.server.client() as client:
                busy = any(client.exists(name) for name in ("retry", "schedule"))
                busy = busy or any(True for _ in client.scan_iter(match="queue:*", count=1000))
                indexes = list(client.scan_iter(match="pillion:inf:*", _type="hash", count=1000))
                return not busy and not any(field.isdigit() for key in indexes for field in client.hkeys(key))
        except redis.RedisError:
            return False

    def leftovers(self) -> list[str]:
        """Keys of ours that nobody needs when all workers have left."""
        with self.server.client() as client:
            keys = [key.decode() for key in client.scan_iter(match="pillion:*", count=1000)]
        stay = ("pillion:fenced", "pillion:suspects", "pillion:rescued:", "pillion:once:", "pillion:runs")
        return sorted(key for key in keys if not key.startswith(stay))

    def leftovers_of(self, *alive: Process) -> list[str]:
        """The same where only these workers are left, and idle."""
        owners = [name for process in alive for name in self.owners(process.pid)]
        return sorted([*(f"pillion:inf:{name}" for name in owners), "pillion:lease", "pillion:pulse"])

    def processed(self) -> int:
        """`stat:processed`; exact once all workers have left in good order."""
        with self.server.client() as client:
            return int(client.get("stat:processed") or 0)

    # --- the end ------------------------------------------------------------------------------------------------

    def stop_all(self) -> None:
        """End all workers in good order, and check that they leave nothing behind and complained about nothing."""
        alive = [process for process in self.processes if process.code is None]
        self.until(lambda: self.leftovers() == self.leftovers_of(*alive), "the dead to be forgotten", *alive)
        for process in alive:
            assert process.stop() == 0, process.said()
        assert self.leftovers() == [], self.leftovers()
        leaks.check(self.server)
        self.check_logs()

    def check_logs(self) -> None:
        """No worker, dead or alive, met an error that nobody expected, or took an outage for a fault of its own."""
        for process in self.processes:
            said = process.said()
            assert "Traceback" not in said, f"{process.log}:\n{said[-6000:]}"
            assert "has been stuck" not in said, f"{process.log}:\n{said[-6000:]}"

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for process in self.processes:
            process.kill()
            process.close()
        self.store.close()
        self.ledger.close()


def jids_of(pushed: Sequence[str | None] | int) -> list[str]:
    """What a bulk push of a list returns, where no middleware stops anything."""
    assert not isinstance(pushed, int)
    return [jid for jid in pushed if jid is not None]


def ended(bed: Bed, jids: Iterable[str]) -> bool:
    """Whether each of these jobs has run to its end at least once."""
    return set(jids) <= bed.ledger.count("end").keys()

"""A stage: one keyspace on a server that many share, with processes, jobs and a ledger of its own.

Failpoint trials (`scenes.py`) and mutation checks (`mutations.py`) play on it. What everybody expects at the end stands
in `finish`: every job done, the dead forgotten, everybody gone in good order, and none of our keys left.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from pillion import Client, Job
from pillion.payload import decode
from pillion.setup import Setup
from tests.crash.ledger import Ledger
from tests.crash.victim import PATIENCE, Actor, Quick
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import wait_until

LEASE = 0.6
GOES = ("inf:", "lease", "pulse", "salvage")
"""Keys of ours that stand only while somebody holds jobs."""

_numbers = itertools.count(1)


class Stage:
    """Where a play is played. `faults` says what was broken; empty is good.

    Attributes:
        jids: the jobs that were accepted.
        again: how many runs there were beyond one for each attempt.
        patience: how long anything may take.
        proxy: what its workers talk through, if that is not the server itself.
    """

    def __init__(self, server: Server, folder: Path, *, url: str | None = None, mutation: str = "") -> None:
        folder.mkdir(parents=True)
        self.server, self.folder, self.mutation = server, folder, mutation
        self.prefix = f"t{next(_numbers)}x{os.getpid()}:"
        self.ledger = Ledger(folder / "ledger")
        self.setup_options: dict[str, Any] = {
            "redis": {"url": url or server.url, "prefix": self.prefix, "timeout": 0.4, "connect_timeout": 0.4},
            "lease": LEASE,
            "heartbeat": 0.3,
            "poll_interval_average": 0.1,
            "timeout": 5.0,
            "concurrency": 3,
            "queues": ["default", "other"],
        }
        own = {**self.setup_options, "redis": {**self.setup_options["redis"], "url": server.url}}
        self.setup = Setup(**own)
        self.client = Client(setup=self.setup)
        self.store = self.setup.store
        self.redis = redis.Redis(unix_socket_path=str(server.socket_path), socket_timeout=5)
        self.processes: list[Actor] = []
        self.jids: set[str] = set()
        self.faults: list[str] = []
        self.again = 0
        self.patience = PATIENCE
        self.proxy: Proxy | None = None

    # -- what is done ----------------------------------------------------------------------------------------------

    def push(self, job: type[Job], count: int, *args: object, **fields: Any) -> list[str]:
        """Push so many jobs; their jids."""
        pushed = [self.client.push({"class": job, "args": list(args), **fields}) for _ in range(count)]
        jids = [jid for jid in pushed if jid]
        self.jids |= set(jids)
        return jids

    def push_named(self, name: str, count: int) -> None:
        """Push jobs of a class that this process does not define."""
        for _ in range(count):
            self.jids.add(str(self.client.push({"class": name, "args": []})))

    def accuse(self, *jids: str) -> None:
        """Make suspects of these jobs."""
        self.redis.zadd(self.key("pillion:suspects"), dict.fromkeys(jids, time.time() + 3600))

    def start(self, role: str = "worker", *, options: dict[str, Any] | None = None, **changes: Any) -> Actor:
        """Start a process of `victim.py`; `changes` are to its options of `Setup`."""
        everything = {"ledger": str(self.ledger.path), "setup": {**self.setup_options, **changes}, "point": ""}
        everything |= {"once": False, "doubt": False, "mutation": self.mutation, **(options or {})}
        process = Actor(role, everything, self.folder / f"log-{len(self.processes) + 1}")
        self.processes.append(process)
        return process

    def start_ready(self, **changes: Any) -> Actor:
        """Start a worker and wait until it has joined."""
        process = self.start(**changes)
        self.until(lambda: self.owners(process.pid), "the worker to join")
        return process

    def let_go(self, process: Actor) -> None:
        """Let the held jobs of this process come to their end."""
        (self.folder / f"go-{process.pid}").touch()

    def finish(self, codes: tuple[int, ...] = (0,)) -> None:
        """Everything gets done, and everybody leaves with one of these exit codes and without a trace."""
        self.until(self.is_quiet, "all to be done")
        self.until(lambda: not self.leftovers(self.living()), "the dead to be forgotten")
        for process in self.processes:
            if process.is_alive() and process.role != "supervisor":
                self.until(lambda pid=process.pid: self.is_ready(pid), "the process to have started")
            process.tell(signal.SIGTERM)
        for process in self.processes:
            process.join(PATIENCE)
            self.check(process.exitcode in codes, f"a process ended with {process.exitcode}\n{self.logs()}")
        left = self.leftovers(set())
        self.check(not left, f"left behind: {left}")
        self.judge()

    def judge(self) -> None:
        """Compare what was accepted with what ran."""
        starts = Counter((fact.jid, fact.attempt) for fact in self.ledger.facts("start"))
        self.again = sum(count - 1 for count in starts.values())
        missing = self.jids - self.ledger.count("end").keys()
        self.check(not missing, f"lost: {sorted(missing)}")

    def check(self, holds: bool, fault: str) -> None:
        """Note a fault where something does not hold."""
        if not holds:
            self.faults.append(fault)

    def until(self, done: Callable[[], object], what: str) -> None:
        """Wait; raises AssertionError with all that is known where it takes too long."""
        try:
            wait_until(done, timeout=self.patience, what=what)
        except AssertionError as error:
            missing = sorted(self.jids - self.ledger.count("end").keys())
            known = f"not done {missing}; standing {self.standing()}; ours {self.leftovers(set())}"
            raise AssertionError(f"{error}; {known}\n{self.logs()}") from None

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for process in self.processes:
            process.tell(signal.SIGCONT)
            process.kill()
        for key in self.keys("*"):
            self.redis.delete(key)
        self.redis.close()
        self.store.close()
        self.ledger.close()

    # -- questions -------------------------------------------------------------------------------------------------

    def key(self, name: str) -> str:
        return f"{self.prefix}{name}"

    def keys(self, pattern: str) -> list[str]:
        """The keys of this stage."""
        return [key.decode() for key in self.redis.scan_iter(match=self.key(pattern), count=5000)]

    def is_ready(self, pid: int | None) -> bool:
        """Whether the process has its signal handlers."""
        return any(fact.pid == pid for fact in self.ledger.facts("ready"))

    def started(self) -> set[str]:
        """The jobs that have begun to run."""
        return set(self.ledger.count("start"))

    def ended(self) -> set[str]:
        """The jobs that have run to their end."""
        return set(self.ledger.count("end"))

    def standing(self) -> dict[str, list[str]]:
        """The jids in each place where a job waits."""
        found = {key: self.redis.lrange(key, 0, -1) for key in self.keys("queue:*")}
        for name in ("retry", "schedule", "dead"):
            if self.redis.type(self.key(name)) == b"zset":
                found[name] = self.redis.zrange(self.key(name), 0, -1)
        return {key: [decode(raw)["jid"] for raw in members] for key, members in found.items() if members}

    def owners(self, pid: int | None = None) -> list[str]:
        """Owners with a lease, of one process or of all."""
        names = [name.decode() for name in self.redis.zrange(self.key("pillion:lease"), 0, -1)]
        return [name for name in names if pid is None or name.split(":")[1] == str(pid)]

    def is_quiet(self) -> bool:
        """Whether every job has run to its end, and none is held or waits."""
        self._let_retries_be_due()
        if not self.jids <= self.ended() or self.standing():
            return False
        fields = [self.redis.hkeys(self.key(f"pillion:inf:{name}")) for name in self.owners()]
        return not any(field.isdigit() for each in fields for field in each)

    def _let_retries_be_due(self) -> None:
        if self.redis.type(self.key("retry")) == b"zset":
            for member, score in self.redis.zrange(self.key("retry"), 0, -1, withscores=True):
                if score > 1:
                    self.redis.zadd(self.key("retry"), {member: 1}, xx=True)

    def living(self) -> set[str]:
        """The owners that are alive: of each process the last name that it took; all that share a forced identity."""
        ours = {str(process.pid) for process in self.processes}
        forced = {name for name in self.owners() if name.split(":")[1] not in ours}
        names = [name for name in self.owners() if name not in forced and Path(f"/proc/{name.split(':')[1]}").exists()]
        alive = [name.rpartition(".") for name in names]
        last = {place: max(int(epoch) for at, _, epoch in alive if at == place) for place, _, _ in alive}
        return forced | {f"{place}.{epoch}" for place, epoch in last.items()}

    def leftovers(self, living: set[str]) -> list[str]:
        """Keys of ours that nobody needs where only these owners are left, and idle."""
        needed = {f"inf:{name}" for name in living} | ({"lease", "pulse"} if living else set())
        names = [key.removeprefix(self.key("pillion:")) for key in self.keys("pillion:*")]
        return sorted(name for name in names if name not in needed and name.startswith(GOES))

    def logs(self) -> str:
        """The ends of all logs."""
        logs = sorted(self.folder.glob("log-*"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2500:]}" for log in logs)

    def is_not_stuck(self, queue: str) -> None:
        """Whoever serves this queue takes another job."""
        [last] = self.push(Quick, 1, 0, queue=queue)
        self.until(lambda: last in self.ended(), "the process to take another job")

"""The bed of the chaos: a server, some workers that are replaced when they die, a producer, and a memory of each trial.

One bed serves a block of trials (see `fault.py`). What a fault does to processes goes through `kill`, `pause` and
`hit`, so that `account.py` can tell which second runs are explained.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import redis

from tests.crash.bed import Bed
from tests.crash.fault import Needs, WorkerKind
from tests.crash.invariants import expected_keys, seen_wrong
from tests.crash.ledger import now
from tests.crash.processes import Pid, Process, descendants
from tests.crash.producer import Pushed, Ruby
from tests.crash.state import State, look, pid_of
from tests.proxy import Proxy
from tests.servers import Kind, Server
from tests.waiting import wait_until

PATIENCE = 30.0
HASTEN = "for _, m in ipairs(redis.call('ZRANGE', 'retry', 0, -1)) do redis.call('ZADD', 'retry', 'XX', 1, m) end"
QUEUES = ["default", "other"]
OPTIONS: dict[str, Any] = {"concurrency": 4, "queues": QUEUES, "poll_interval_average": 0.2, "timeout": 1.0}


@dataclass(frozen=True)
class Hit:
    """A process that the fault touched, from when on."""

    pid: int
    since: float


class ChaosBed(Bed):
    """A bed that keeps running. The attributes below are of the trial that is being played.

    Attributes:
        began: when.
        marked: when the recovery clock started; None before.
        pushed: what became of the pushes.
        hits: the processes that were touched. A supervisor may have doomed one in the trial before, and kill it now.
        touched: jids that the fault itself says may run again.
        buried: jids that were seen in the dead set.
        gone: jids that a server forgot, as the fault says.
        outages: from when to when the server was away.
        late: how much longer than asked this process slept at worst: how late the machine is.
        bound: what the recovery may take, in seconds.
        wrong: invariants that were seen broken while the trial was played.
    """

    def __init__(self, folder: Path, kind: WorkerKind, server: Kind, needs: Needs, ruby: str = "") -> None:
        started = Server(server).start(*needs.arguments, aof=needs.aof)
        self.proxy: Proxy | None = Proxy(started.folder / "p", started.socket_path) if needs.proxy else None
        super().__init__(started, folder, self.proxy and self.proxy.url, **{**OPTIONS, **needs.options})
        self.kind, self.needs = kind, needs
        self.began, self.hits = 0.0, []
        self.ever_hit: set[int] = set()
        self.redis = started.client()
        self.ruby = Ruby(ruby, f"unix://{started.socket_path}") if ruby else None
        self.seen: dict[int, Pid] = {}
        self.team: list[Process] = []
        self.begin(0.0)

    def begin(self, bound: float) -> None:
        """A new trial."""
        doomed = {hit.pid for hit in self.hits if hit.since > self.began and self.kind == "supervised"}
        self.began = now()
        self.marked: float | None = None
        self.pushed = Pushed()
        self.hits: list[Hit] = [Hit(pid, self.began) for pid in doomed]
        self.touched: set[str] = set()
        self.buried: set[str] = set()
        self.gone: set[str] = set()
        self.outages: list[tuple[float, float]] = []
        self.late = 0.0
        self.bound = bound
        self.wrong: list[str] = []
        self._down: float | None = None
        self._plan: list[str] = []

    # --- workers ------------------------------------------------------------------------------------------------

    @property
    def supervisor(self) -> Process | None:
        """The supervisor, where there is one."""
        return self.team[0] if self.kind == "supervised" and self.team else None

    @property
    def workers(self) -> list[Pid]:
        """The worker processes that live and have joined."""
        joined = sorted({pid_of(owner) for owner in self.owners()})
        found = [self._seen(pid) for pid in joined]
        return [process for process in found if process is not None and process.alive]

    def victim(self, rng: Random) -> Pid:
        """A worker process that is at work."""
        return rng.choice(wait_until(lambda: self.workers, timeout=PATIENCE, what="a worker to be at work"))

    def replace(self) -> None:
        """Start what is missing: a worker for each that ended, or a supervisor, which does that itself."""
        ended = [process for process in self.team if not process.alive]
        for process in ended:
            if process.pid not in self.ever_hit | self.hit_pids():
                self.wrong.append(f"I12: {process} ended by itself with {process.wait()}: {process.said()[-800:]}")
            self.team.remove(process)
        if self.kind == "supervised":
            if not self.team:
                self.team.append(self.start(processes=self.needs.workers))
        else:
            self.team += [self.start() for _ in range(self.needs.workers - len(self.team))]

    def start(self, **options: Any) -> Process:
        process = super().start(**options)
        self.seen[process.pid] = process
        return process

    def start_team(self) -> None:
        """Start all workers and wait until they have joined."""
        self.replace()
        self.until(lambda: len(self.workers) >= self.needs.workers, "the workers to join", timeout=4 * PATIENCE)

    def family(self) -> list[Pid]:
        """A supervisor's zygotes and workers."""
        assert self.supervisor is not None
        return [process for pid in descendants(self.supervisor.pid) if (process := self._seen(pid)) is not None]

    def _seen(self, pid: int) -> Pid | None:
        """The process of that number, which lives, or did when it was looked at first."""
        if pid not in self.seen:
            try:
                self.seen[pid] = Pid(pid, self.team[0].log if self.team else self.folder / "log")
            except ProcessLookupError:
                return None
        return self.seen[pid]

    # --- what a fault does --------------------------------------------------------------------------------------

    def kill(self, process: Pid) -> None:
        """SIGKILL; the recovery clock starts, where it does with the injection."""
        self.hit(process)
        self.mark()
        process.kill()

    def pause(self, process: Pid) -> None:
        """SIGSTOP."""
        self.hit(process)
        process.pause()

    def resume(self, process: Pid) -> None:
        """SIGCONT."""
        process.resume()

    def hit(self, process: Pid) -> None:
        """Note that the fault touches this process from now on."""
        self.hits.append(Hit(process.pid, now()))
        self.ever_hit.add(process.pid)

    def hit_pids(self) -> set[int]:
        """All that were touched, and those that a job of the mix ended."""
        return {hit.pid for hit in self.hits} | {fact.pid for fact in self.ledger.facts("deadly", since=self.began)}

    def touch(self, jids: Iterable[str]) -> None:
        """These jobs may run again, for a reason that the fault knows."""
        self.touched.update(jids)

    def mark(self) -> None:
        """Start the recovery clock, if it does not run yet."""
        if self.marked is None:
            self.marked = now()

    def plan(self, words: str) -> None:
        """Note what was drawn."""
        self._plan.append(words)

    def planned(self) -> str:
        return "; ".join(self._plan)

    def down(self) -> None:
        """The server is away from now on."""
        self._down = now()

    def up(self) -> None:
        """It is back."""
        if self._down is not None:
            self.outages.append((self._down, now()))
        self._down = None

    def wait(self, seconds: float) -> None:
        """Let time pass, and notice how late the machine is."""
        began = now()
        time.sleep(seconds)
        self.late = max(self.late, now() - began - seconds)

    # --- quiescence ---------------------------------------------------------------------------------------------

    def look(self) -> State | None:
        """Everything that stands in the server, checked on the way; None while it is away."""
        known = set(self.pushed.accepted.copy())
        try:
            state = look(self.redis)
        except redis.RedisError:
            return None
        self.buried |= state.dead
        self.wrong += [words for words in seen_wrong(self, state, known) if words not in self.wrong]
        return state

    def settle(self, healed: float) -> State | None:
        """Wait until every accepted job is done or dead, and nothing of the dead is left; None if that never comes."""
        deadline = now() + PATIENCE
        renewed = (time.time() - (now() - healed) + self.options["lease"]) * 1000
        next_look = 0.0
        while now() < deadline:
            self.replace()
            if not self.missing() or now() >= next_look:
                state = self.look()
                if state is not None and self.is_quiet(state, renewed):
                    return state
                self.hasten()
                next_look = now() + 0.2
                self.wait(0.04)
            self.wait(0.008)
        return None

    def hasten(self) -> None:
        """Make due what waits to be tried again, as somebody at a dashboard might: the delay has a jitter of 10 s."""
        with suppress(redis.RedisError):
            self.redis.eval(HASTEN, 0)

    def missing(self) -> set[str]:
        """Accepted jobs that have not come to an end, as far as the ledger tells, and were not forgotten."""
        self.adopt_children()
        return self.pushed.accepted.keys() - self.ledger.jids("end") - self.buried - self.gone

    def adopt_children(self) -> None:
        """What jobs of the mix have pushed."""
        self.pushed.unknown.update(fact.jid for fact in self.ledger.facts("tried", since=self.began))
        for fact in self.ledger.facts("pushed", since=self.began):
            self.pushed.accept([fact.jid], fact.at)

    def is_quiet(self, state: State, renewed: float) -> bool:
        """Whether nothing waits or is held, only the living hold leases, and all have renewed since the fault."""
        alive = {pid for pid in state.pids(renewed) if (process := self._seen(pid)) is not None and process.alive}
        at_work = alive == state.pids() and len(alive) >= self.needs.workers
        return not self.missing() and not state.waiting and at_work and state.keys == expected_keys(state)

    def tidy(self) -> None:
        """Take away what nobody needs after a trial: the dead jobs that have been accounted for."""
        self.redis.delete("dead")

    def close(self) -> None:
        """End everything, whatever state it is in."""
        if self.ruby is not None:
            self.ruby.close()
        for process in self.seen.values():
            process.resume()
        for pid in [process for process in self.seen.values() if not isinstance(process, Process)]:
            pid.kill()
        super().close()
        for process in self.seen.values():
            process.close()
        if self.proxy is not None:
            self.proxy.close()
        self.server.close()

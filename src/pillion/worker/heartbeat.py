"""The heartbeat shows this process to every dashboard: its row, what it runs, its counters; and it hears their signals.

All of it is Sidekiq's layout, and none of it decides about a job: rescue goes by leases, so a process whose row has
expired loses nothing. A beat is one script that also runs when the server's memory is full, and one for the counters.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from pillion.config import Config
from pillion.errors import StoreError
from pillion.store import ops, repair
from pillion.store.connection import Store
from pillion.store.keys import PROCESS_TTL, Keyspace
from pillion.store.op import Refusal
from pillion.store.ops import Command, Word
from pillion.store.refusals import cure_of
from pillion.worker import identity as identities
from pillion.worker.executor import Executor
from pillion.worker.frames import thread_id
from pillion.worker.run_log import RunLog
from pillion.worker.runner import Run
from pillion.worker.service import Service
from pillion.worker.stats import Stats, flush_commands

log = logging.getLogger("pillion")

ROWS_PER_COMMAND = 1_000  # Lua passes at most about 8,000 words to a command
SIGNALS = ("TERM", "TSTP", "TTIN")
PRUNE_EVERY = 6
SLOW_RTT_US = 50_000
SLOW_READINGS = 5


class Heartbeat(Service):
    """Beats every `config.heartbeat` seconds.

    `obey` is called with TERM, TSTP or TTIN from the process's signal list, unless the worker is embedded in another
    program, which dashboards must not stop; `fleet` with the number of processes seen.
    `first` is called after the first beat and after every one that found the row gone, `beat` after each.
    """

    name = "heartbeat"

    def __init__(
        self,
        store: Store,
        config: Config,
        stats: Stats,
        runs: RunLog | None,
        executors: Sequence[Executor],
        *,
        embedded: bool,
        obey: Callable[[str], None],
        fleet: Callable[[int], None],
        beat: Callable[[bool], None],
    ) -> None:
        super().__init__()
        self.identity = identities.identity()
        self.quiet = False
        self._store = store
        self._config = config
        self._stats = stats
        self._runs = runs
        self._executors = executors
        self._obey = obey
        self._fleet = fleet
        self._beat = beat
        self._count = 0
        started = config.clock.now()
        self._started = started
        self._steady_start = config.clock.steady()
        self._info = identities.info(config, started, embedded=embedded)
        self._rtt_us = 0
        self._refused: set[tuple[Word, str]] = set()
        self._rtts: deque[int] = deque(maxlen=SLOW_READINGS)
        self._embedded = embedded

    def turn(self) -> float:
        try:
            self.beat()
        except StoreError as error:
            log.warning("heartbeat: %s", error)
        return self._config.heartbeat

    def after(self) -> None:
        """Flush the counters and take the row down."""
        try:
            self.flush()
            if self._runs is not None:
                self._runs.flush(self._store, everything=True)
            self._write(farewell(self._store.keys, self.identity), safe=True)
        except StoreError as error:
            log.warning("heartbeat: could not take the process row down: %s", error)

    def beat(self) -> None:
        """Write counters, work and row, hear signals."""
        self.flush()
        self._measure_rtt()
        *_, exists, _, _, signal, fleet = self._write([*self._work(), *self._row()], safe=True)
        self._fleet(int(fleet or 1))
        if signal:
            self._hear(ops.text(signal))
        self._beat(exists == 0)
        if self._runs is not None:
            self._runs.flush(self._store)
        if self._count % PRUNE_EVERY == 0:
            self._prune()
        self._count += 1

    def flush(self) -> None:
        """Add the counters to Redis; put them back if that fails. A lost reply can count twice, never less."""
        counts = self._stats.take()
        commands = flush_commands(self._store.keys, counts, self._config.clock.now(), self._config.wire)
        if not commands:
            return
        try:
            self._write(commands)
        except BaseException:
            self._stats.put_back(counts)
            raise

    def _write(self, commands: Sequence[Command], *, safe: bool = False) -> list[Any]:
        """Run commands together. What one of them is refused is told once, and keeps none of the others back."""
        replies = self._store.run(ops.batch(commands, safe=safe))
        for (verb, key, *_), reply in zip(commands, replies, strict=True):
            if isinstance(reply, Refusal) and (verb, reply) not in self._refused:
                self._refused.add((verb, reply))
                log.error("heartbeat: the server refused %s of %s: %s%s", verb, key, reply, cure_of(reply))
        return replies

    def _row(self) -> list[Command]:
        keys, row = self._store.keys, self._store.keys.process(self.identity)
        fields: dict[str, Word] = {
            "info": self._info,
            "concurrency": self._config.concurrency,
            "busy": sum(executor.busy for executor in self._executors),
            "beat": repr(self._config.clock.now()),
            "rtt_us": self._rtt_us,
            "quiet": "true" if self.quiet else "false",
            "rss": identities.rss_kb(),
        }
        return [
            ("SADD", keys.processes, self.identity),
            ("EXISTS", row),
            ("HSET", row, *(word for pair in fields.items() for word in pair)),
            ("EXPIRE", row, PROCESS_TTL),
            ("RPOP", keys.signals(self.identity)),
            ("SCARD", keys.processes),
        ]

    def _work(self) -> list[Command]:
        keys = [self._store.keys.work(self.identity)]
        if self._config.wire == "6":
            keys.append(self._store.keys.workers(self.identity))
        runs = [run for executor in self._executors for run in list(executor.running.values())]
        commands: list[Command] = []
        for key in keys:
            commands.append(("UNLINK", key))
            for start in range(0, len(runs), ROWS_PER_COMMAND):
                part = runs[start : start + ROWS_PER_COMMAND]
                rows = [word for run in part for word in (thread_id(run), self._work_row(run))]
                commands += [("HSET", key, *rows), ("EXPIRE", key, PROCESS_TTL)]
        return commands

    def _work_row(self, run: Run) -> bytes:
        run_at = self._started + (run.started - self._steady_start)
        row = {"queue": run.claim.queue, "payload": run.claim.raw.decode("utf-8", "replace"), "run_at": int(run_at)}
        return msgspec.json.encode(row)

    def _measure_rtt(self) -> None:
        before = self._config.clock.steady()
        self._store.run(ops.command("PING"))
        self._note_rtt(int((self._config.clock.steady() - before) * 1_000_000))

    def _note_rtt(self, micros: int) -> None:
        """Remember how long the server took for nothing; warn if it was slow five times in a row."""
        self._rtt_us = micros
        self._rtts.append(micros)
        if len(self._rtts) == SLOW_READINGS and min(self._rtts) > SLOW_RTT_US:
            log.warning(
                "Redis is slow: it took %s us to answer five PINGs in a row, %d is the most to expect; look for a busy "
                "server, slow commands, or a long way there",
                ", ".join(map(str, self._rtts)),
                SLOW_RTT_US,
            )
            self._rtts.clear()

    def _hear(self, signal: str) -> None:
        if self._embedded:
            log.info("heartbeat: signal %r is not for a worker inside another program", signal[:20])
        elif signal in SIGNALS:
            self._obey(signal)
        else:
            log.warning(
                "heartbeat: unknown signal %r in the list is ignored; known are %s", signal[:20], ", ".join(SIGNALS)
            )

    def _prune(self) -> None:
        """Strike processes without a row off the list, at most once a minute over the fleet."""
        keys, run = self._store.keys, self._store.run
        if not run(repair.may_prune(keys)):
            return
        listed = [ops.text(name) for name in _members(self._store, keys.processes)]
        infos: list[Any] = run(ops.pipeline("rows", [("HGET", keys.process(name), "info") for name in listed]))
        if dead := [name for name, info in zip(listed, infos, strict=True) if info is None]:
            run(repair.prune(keys, dead))


def farewell(keys: Keyspace, identity: str) -> list[Command]:
    """The commands that take a process off the dashboards."""
    gone: list[Command] = [("SREM", keys.processes, identity), ("UNLINK", keys.work(identity))]
    return [*gone, ("UNLINK", keys.workers(identity)), ("UNLINK", keys.process(identity))]


def _members(store: Store, key: str) -> Iterable[bytes]:
    cursor: Any = 0
    while True:
        cursor, members = store.run(ops.command("SSCAN", key, cursor, "COUNT", 200))
        yield from members
        if int(cursor) == 0:
            return

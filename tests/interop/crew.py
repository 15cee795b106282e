"""The mixed fleet: seats in which a Ruby or a Pillion worker sits until a killer ends it and puts the next one there.

A seat's `end` says what the process still had in its hands: for Ruby what its `Recorder` saw it take and not send back,
for Pillion what stands in the trays of its owners.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from pillion.payload import decode
from pillion.store import ops
from pillion.store.keys import Keyspace
from tests.conftest import Ruby
from tests.interop.recorder import Handover, Recorder
from tests.interop.sides import HERE, Sidekiq
from tests.servers import Server
from tests.worker.cli import environment

ROOT = HERE.parents[1]
PATIENCE = 25
KEYS = Keyspace()
LEASE = "1.5"
TERM_TIMEOUT = 4
"""Seconds; 6.4.1 pushes back what it cannot finish half a second before. That must be later than the end of a BRPOP,
which blocks for 2 s, or an idle thread of the same process takes the job again and is interrupted as it does."""

DECK = [True, True, False]
QUEUES = {"ruby": ("ruby", "both"), "python": ("python", "both")}


@dataclass(frozen=True)
class End:
    """The end of one worker.

    Attributes:
        side: "ruby" or "python".
        killed: by SIGKILL; else it was told to stop and left in order.
        hands: the jids that it held and had not given back.
        returned: the jids that Ruby sent back into a queue or a set.
        handovers: every job that Redis and this Ruby process handed each other.
    """

    side: str
    pid: int
    killed: bool
    hands: frozenset[str]
    returned: frozenset[str] = frozenset()
    handovers: tuple[Handover, ...] = ()


class Seat(ABC):
    """One worker at a time."""

    side: str

    def __init__(self, server: Server, folder: Path, ledger: Path) -> None:
        self.server = server
        self.folder = folder
        self.ledger = ledger
        self.count = 0
        self.sit()

    @abstractmethod
    def sit(self) -> None:
        """Start the next process; it is not waited for."""

    @abstractmethod
    def end(self, *, kill: bool) -> End:
        """End the process and say what it left."""

    @abstractmethod
    def close(self) -> None:
        """End it, whatever state it is in."""


class RubySeat(Seat):
    """Ruby's Sidekiq, behind a recorder."""

    side = "ruby"

    def __init__(self, server: Server, folder: Path, ledger: Path, ruby: Ruby) -> None:
        self._ruby = ruby
        super().__init__(server, folder, ledger)

    def sit(self) -> None:
        self.count += 1
        self._recorder = Recorder(self.server.socket_path, self.folder / f"r{id(self):x}-{self.count}")
        self._sidekiq = Sidekiq(
            self._ruby,
            self.server,
            *QUEUES["ruby"],
            file=HERE / "fleet.rb",
            timeout=TERM_TIMEOUT,
            url=self._recorder.url,
            wait=False,
            FLEET_LEDGER=str(self.ledger),
        )

    def end(self, *, kill: bool) -> End:
        self._sidekiq.end(signal.SIGKILL if kill else signal.SIGTERM, PATIENCE)
        self._recorder.close()
        pid, record = self._sidekiq.pid, self._recorder
        self._sidekiq.close()
        return End(self.side, pid, kill, frozenset(record.held), frozenset(record.returned), tuple(record.handovers))

    def close(self) -> None:
        self._sidekiq.close()
        self._recorder.close()


class PillionSeat(Seat):
    """`pillion worker`, as people run it."""

    side = "python"

    def sit(self) -> None:
        self.count += 1
        flags = [word for queue in QUEUES["python"] for word in ("-q", queue)]
        env = environment(
            REDIS_URL=self.server.url,
            FLEET_LEDGER=str(self.ledger),
            PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            PILLION_WIRE="6",
            PILLION_LEASE=LEASE,
            PILLION_POLL_INTERVAL_AVERAGE="0.2",
        )
        self.log = self.folder / f"pillion-{id(self):x}-{self.count}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pillion", "worker", str(HERE / "fleet.py"), "-c", "2", "-t", "3", *flags],
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def end(self, *, kill: bool) -> End:
        pid = self._process.pid
        assert self._process.poll() is None, f"it ended by itself\n{self.log.read_text()[-3000:]}"
        self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        self._process.wait(PATIENCE)
        return End(self.side, pid, kill, frozenset(held_by(self.server, pid)))

    def close(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)


def held_by(server: Server, pid: int) -> set[str]:
    """The jids in the trays of a dead process of ours. What it sent before it died has been executed by then."""
    with server.client() as client:
        client.ping()  # readable sockets are served before the next command of this one
        return {jid for jids in in_trays(client, f"*:{pid}:*").values() for jid in jids}


def in_trays(client: redis.Redis, owners: str = "*") -> dict[str, list[str]]:
    """The jids of what each owner holds. A reaper may be at work meanwhile."""
    held = {}
    for key in client.scan_iter(match=f"pillion:inf:{owners}", _type="hash", count=1000):
        owner = key.decode().removeprefix("pillion:inf:")
        numbers = list(ops.index_claims(client.hgetall(key)))
        pairs = [divmod(n, ops.TRAY) for n in numbers]
        found = [client.lindex(KEYS.tray(owner, tray), position) for tray, position in pairs]
        held[owner] = [decode(raw)["jid"] for raw in found if raw]
    return held


def standing(client: redis.Redis) -> dict[str, list[str]]:
    """The jids in each place where a job can stand, the trays of each owner included."""
    queues = list(client.scan_iter(match="queue:*", _type="list", count=1000))
    places: dict[str, list[bytes]] = {key.decode(): client.lrange(key, 0, -1) for key in queues}
    places |= {name: client.zrange(name, 0, -1) for name in ("retry", "schedule", "dead")}
    jids = {name: [decode(raw)["jid"] for raw in members] for name, members in places.items()}
    return {name: found for name, found in (jids | in_trays(client)).items() if found}


class Killer:
    """Ends one of its seats at a time, at moments and by signals that a seed decides, for `seconds`."""

    def __init__(self, seats: Sequence[Seat], seconds: float, pause: float, rng: random.Random) -> None:
        self.ends: list[End] = []
        self._seats = seats
        self._pause = pause
        self._seconds = seconds
        self._rng = rng
        self._deck: list[bool] = []
        self._over = threading.Event()

    def work(self) -> None:
        timer = threading.Timer(self._seconds, self._over.set)
        timer.start()
        try:
            while not self._over.wait(self._rng.uniform(0, 2 * self._pause)):
                seat = self._rng.choice(self._seats)
                self.ends.append(seat.end(kill=self._draw()))
                seat.sit()
        finally:
            timer.cancel()

    def _draw(self) -> bool:
        """Two of three are killed, and no run of luck leaves one of the signals out."""
        if not self._deck:
            self._deck = self._rng.sample(DECK, len(DECK))
        return self._deck.pop()

    def stop(self) -> None:
        """End no more."""
        self._over.set()


class Thread(threading.Thread):
    """A thread of the fleet; `check` raises what ended it."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(name=getattr(work, "__qualname__", "killer"), daemon=True)
        self._work = work
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # told by `check`
            self.error = error

    def check(self) -> None:
        if self.error is not None:
            raise AssertionError(f"the {self.name} thread ended") from self.error

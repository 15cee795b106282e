"""What goes wrong in the soak, at moments of a Poisson process. Each fault notes when it began and when it was over.

A line of the journal: `begin NUMBER KIND PID`, and `over NUMBER`. The sheltered workers are spared what would end them:
they are stopped for less than their supervisor's patience, or, where there is none, for up to two leases.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable

import redis

from tests.crash.soak.fleet import Fleet, pause, signal_to
from tests.waiting import wait_until

CALM = 1.2
"""Seconds of standing still that a supervisor forgives."""

WEIGHTS = {
    "kill-child": 4,
    "kill-zygote": 2,
    "kill-supervisor": 2,
    "kill-async": 2,
    "stop-child": 2,
    "stop-async": 3,
    "stop-sheltered": 2,
    "stall": 3,
    "reset": 3,
    "drop": 4,
    "kill-redis": 3,
    "script-flush": 2,
    "client-kill": 3,
}


class Faults:
    """Injects until `over`, one every `mean` seconds on average; they may overlap. `lease` in seconds."""

    def __init__(self, fleet: Fleet, mean: float, lease: float, seed: str) -> None:
        self._fleet, self._mean, self._lease = fleet, mean, lease
        self._rng = random.Random(seed)
        self._over = threading.Event()
        self._server = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._number = 0
        self.errors: list[str] = []
        self.counts = dict.fromkeys(WEIGHTS, 0)

    def run(self) -> None:
        """The thread's work."""
        while not self._over.wait(self._rng.expovariate(1 / self._mean)):
            self.inject(self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0])

    def inject(self, kind: str) -> None:
        """One fault, in a thread of its own."""
        self._number += 1
        self.counts[kind] += 1
        thread = threading.Thread(target=self._do, args=(kind, self._number, self._rng.random()), daemon=True)
        self._threads = [other for other in self._threads if other.is_alive()] + [thread]
        thread.start()

    def end(self) -> None:
        """No more; returns when all are over."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _do(self, kind: str, number: int, chance: float) -> None:
        work: Callable[[int, float], object] = getattr(self, f"_{kind.replace('-', '_')}")
        try:
            work(number, chance)
        except Exception as error:  # told in the result
            self.errors.append(f"{kind}: {error!r}"[:500])
        finally:
            self._fleet.faults.note("over", number)

    def _begin(self, number: int, kind: str, pid: int = 0) -> None:
        self._fleet.faults.note("begin", number, kind, pid)

    def _any(self, chance: float, *roles: str) -> int:
        """One process of these roles; 0 where there is none just now."""
        pids = [pid for role in roles for pid in self._fleet.pids(role)]
        return pids[int(chance * len(pids))] if pids else 0

    def _kill(self, number: int, kind: str, pid: int) -> None:
        self._begin(number, kind, pid)
        if pid:
            signal_to(pid, signal.SIGKILL)

    def _stop(self, number: int, kind: str, pid: int, seconds: float) -> None:
        self._begin(number, kind, pid)
        if pid:
            pause(pid, seconds)

    # --- the kinds ----------------------------------------------------------------------------------------------

    def _kill_child(self, number: int, chance: float) -> None:
        self._kill(number, "kill-child", self._any(chance, "group-battered-child"))

    def _kill_zygote(self, number: int, chance: float) -> None:
        self._kill(number, "kill-zygote", self._any(chance, "group-battered-zygote"))

    def _kill_supervisor(self, number: int, chance: float) -> None:
        self._kill(number, "kill-supervisor", self._any(chance, "group-battered-supervisor"))

    def _kill_async(self, number: int, chance: float) -> None:
        self._kill(number, "kill-async", self._any(chance, "async-battered"))

    def _stop_child(self, number: int, chance: float) -> None:
        pid = self._any(chance, "group-battered-child")
        self._stop(number, "stop-child", pid, 2 * self._lease * (1 - chance))

    def _stop_async(self, number: int, chance: float) -> None:
        pid = self._any(chance * 7 % 1, "async-battered", "async-sheltered")
        self._stop(number, "stop-async", pid, 2 * self._lease * chance)

    def _stop_sheltered(self, number: int, chance: float) -> None:
        pid = self._any(chance, "group-sheltered-child")
        self._stop(number, "stop-sheltered", pid, CALM * (1 - chance))

    def _stall(self, number: int, chance: float) -> None:
        self._begin(number, "stall")
        seconds = 2 * self._lease * chance**2
        self._fleet.order(f"stall {seconds:.3f}")
        time.sleep(seconds)

    def _reset(self, number: int, _chance: float) -> None:
        self._begin(number, "reset")
        self._fleet.order("reset")

    def _drop(self, number: int, chance: float) -> None:
        self._begin(number, "drop")
        self._fleet.order(f"drop {1 + int(chance * 8)}")

    def _kill_redis(self, number: int, chance: float) -> None:
        with self._server:
            self._begin(number, "kill-redis")
            self._fleet.server.kill()
            time.sleep(chance * 2)
            self._fleet.server.restart()

    def _script_flush(self, number: int, _chance: float) -> None:
        self._begin(number, "script-flush")
        self._ask(lambda client: client.script_flush())

    def _client_kill(self, number: int, chance: float) -> None:
        self._begin(number, "client-kill")

        def kill(client: redis.Redis) -> None:
            others = [each["id"] for each in client.client_list() if each["id"] != str(client.client_id())]
            for other in others[int(chance * len(others)) :][:5]:
                client.client_kill_filter(_id=other)

        self._ask(kill)

    def _ask(self, question: Callable[[redis.Redis], object]) -> None:
        """Do something with the server, as soon as it is there."""

        def done() -> bool:
            try:
                with self._fleet.server.client() as client:
                    question(client)
            except redis.RedisError:
                return False
            return True

        wait_until(done, timeout=30, what="the server")

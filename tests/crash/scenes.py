"""Trials of failpoints: play the scene that leads a process to a point, let it go wrong there, and draw up the account.

In all of them:

- every accepted job runs to its end; it runs again only where a process died or stood still for longer than its lease,
  or dropped what it held because of an error that nobody expected;
- a process that went on is not stuck: it takes another job, and leaves in good order when it is told to;
- when all have left, none of our keys is left.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pillion.store import ops
from pillion.store.ops import Owner, Want
from tests.crash.failpoints import EXIT_CODE, Action, Point
from tests.crash.stage import LEASE, Stage
from tests.crash.victim import ACCEPTED, MAYBE, Actor, Apart, FailsOnce, Held, Quick, QuickAsync
from tests.servers import Server
from tests.waiting import wait_until

STILL = 1.6 * LEASE
LONG_LEASE = 2.0
MOST_RUNS = 3
EXIT_STUCK = 70


class Trial(Stage):
    """One point, one action. `reached` says whether somebody came by."""

    def __init__(
        self, point: Point, action: Action, server: Server, folder: Path, nth: int = 1, mutation: str = ""
    ) -> None:
        super().__init__(server, folder, mutation=mutation)
        self.point, self.action, self.nth = point, action, nth
        self.reached = False

    def __str__(self) -> str:
        return f"{self.point.name}, {self.action}, time {self.nth}"

    def play(self) -> Trial:
        """Run the trial to its end; see `faults` and `reached`."""
        scenes: dict[str, Callable[[], None]] = {
            "work": self._play_work,
            "doubt": self._play_doubt,
            "stop": self._play_stop,
            "push": lambda: self._play_push(once=False),
            "once": lambda: self._play_push(once=True),
            "isolated": self._play_isolated,
            "supervised": self._play_supervised,
        }
        try:
            scenes[self.point.scene]()
        except AssertionError as error:
            self.faults.append(str(error))
        finally:
            self.reached = self._is_hit()
            self.close()
        return self

    # -- the scenes ------------------------------------------------------------------------------------------------

    def _play_work(self) -> None:
        self._plant_a_dead_owner()
        self._plant_jobs()
        hero = self._start_armed("worker", queues=["default", "other", "own"])
        self.until(lambda: self._is_hit() or self.is_quiet(), "the point to be reached or all to be done")
        told = not self._is_hit() and not self._soon(self._is_hit)
        if told:
            hero.tell(signal.SIGTERM)
            self.until(lambda: self._is_hit() or not hero.is_alive(), "the point to be reached at the end")
        self._go_on(hero, told)

    def _play_doubt(self) -> None:
        """The reply of a step that claims was lost; the point is in what follows."""
        self._plant_jobs()
        hero = self._start_armed("worker", doubt=True, queues=["default", "other", "own"])
        self.until(lambda: self._is_hit() or self.is_quiet(), "the point to be reached")
        self._go_on(hero, False)

    def _play_stop(self) -> None:
        """Running jobs are given back, because they do not end in time."""
        held = set(self.push(Held, 3, str(self.folder)))
        hero = self._start_armed("worker", timeout=0.1)
        self.until(lambda: self._is_hit() or held <= self.started(), "the jobs to start")
        hero.tell(signal.SIGTERM)
        self.until(lambda: self._is_hit() or not hero.is_alive(), "the point to be reached")
        self.let_go(self.start())
        self.finish(self._codes())

    def _play_push(self, *, once: bool) -> None:
        producer = self._start_armed("producer", once=once)
        self.until(lambda: not producer.is_alive(), "the producer to end")
        standing = Counter(jid for jids in self.standing().values() for jid in jids)
        accepted, maybe, begun = (set(self.ledger.count(what)) for what in (ACCEPTED, MAYBE, "pushing"))
        self.jids |= accepted
        self.check(accepted <= standing.keys(), f"lost: {accepted - standing.keys()}")
        self.check(max(standing.values(), default=0) <= 1, f"there twice: {standing}")
        told = begun if self.action == "exit" else accepted | maybe
        self.check(standing.keys() <= told, f"pushed, and nobody was told: {standing.keys() - told}")
        self.check(not (once and maybe and self.action == "close"), f"a push by jid was given up: {maybe}")

    def _play_isolated(self) -> None:
        self.push(Apart, 4)
        self._start_armed("isolated")
        self.until(lambda: self._is_hit() or self.is_quiet(), "the point to be reached")
        self.start("isolated")
        self.finish((*self._codes(), EXIT_STUCK))

    def _play_supervised(self) -> None:
        """Where nothing has gone wrong when all jobs run, one of the processes is killed."""
        held = set(self.push(Held, 3, str(self.folder)))
        boss = self._start_armed("supervisor", lease=LONG_LEASE, processes=2)
        self.until(lambda: self._is_hit() or held <= self.started(), "the jobs to start")
        if not self._is_hit():
            os.kill(self.ledger.facts("start")[0].pid, signal.SIGKILL)
            self.until(self._is_hit, "the point to be reached")
        if self.action in ("exit", "raise") and self.point.process in ("supervisor", "zygote"):
            self.until(lambda: self.is_quiet() or not boss.is_alive(), "the jobs to be done, or its end")
        if not boss.is_alive():  # as the zygote's first fork failed, or by itself
            self.start(lease=LONG_LEASE)
        self.finish((*self._codes(), EXIT_CODE))

    # -- the parts of a scene --------------------------------------------------------------------------------------

    def _plant_a_dead_owner(self) -> None:
        run, keys, name = self.store.run, self.store.keys, "dead:1:x/default.1"
        self.push(Quick, 2, 1)
        assert run(ops.join(keys, name, 50, 5))
        run(ops.step(keys, Owner(name), 50, [], Want(2, 1, (("default", 2),)), dead_max=10, dead_timeout=10.0))

    def _plant_jobs(self) -> None:
        accused = f"accused-{self.prefix}"
        self.accuse(accused)
        self.push(Quick, 4, 2)
        self.push(QuickAsync, 3, 2)
        self.push(FailsOnce, 1)
        self.push(Quick, 1, 1, jid=accused)
        for _ in range(2):
            self.push(Quick, 1, 1, at=time.time() + 0.15, queue="other")

    def _start_armed(self, role: str, *, once: bool = False, doubt: bool = False, **changes: Any) -> Actor:
        point = {"point": self.point.name, "action": self.action, "nth": self.nth, "seconds": STILL}
        return self.start(role, options={**point, "once": once, "doubt": doubt}, **changes)

    def _go_on(self, hero: Actor, told: bool) -> None:
        """It went wrong or not: who is needed takes over, everything gets done, and who lives is not stuck."""
        if told or (self.action == "exit" and self._is_hit()):
            self.until(lambda: not hero.is_alive(), "the process to end")
        if self.action in ("exit", "sleep") or told:
            self.start()
        self.until(self.is_quiet, "all to be done")
        if hero.is_alive() and not told:
            self.is_not_stuck("own")
        self.finish(self._codes())

    def _codes(self) -> tuple[int, ...]:
        """How processes may end: where the main thread met the error, with that."""
        return {"exit": (0, EXIT_CODE), "raise": (0, 1)}.get(self.action, (0,))

    def judge(self) -> None:
        super().judge()
        starts = Counter((fact.jid, fact.attempt) for fact in self.ledger.facts("start"))
        twice = {key: count for key, count in starts.items() if count > 1}
        exact = self.action == "close" and self.point.scene in ("work", "doubt") and not self.ledger.facts("lost")
        self.check(not (exact and twice), f"ran again although nobody died: {twice}")
        self.check(max(starts.values(), default=0) <= MOST_RUNS, f"ran too often: {twice}")

    def _is_hit(self) -> bool:
        """By what every armed process notes, and by the file that it makes first."""
        return bool(self.ledger.facts("hit"))

    def _soon(self, done: Callable[[], object]) -> bool:
        """Whether this comes true in a moment: some places are reached a little after the last job's end."""
        try:
            return bool(wait_until(done, timeout=0.6))
        except AssertionError:
            return False

    def is_quiet(self) -> bool:
        if self.point.scene == "supervised" and self._is_hit():
            for pid in {fact.pid for fact in self.ledger.facts("start")}:
                (self.folder / f"go-{pid}").touch()
        return super().is_quiet()

"""A fetcher's crash suspects: which of its claims must run alone, and how far that has come.

A suspect waits here until the gate is ours, everything else has ended and every outcome is written. Then the server
is told that it starts (the mark), it runs alone, and when its outcome is written its earlier crashes are forgotten.
If the process dies in between, the mark tells the next reaper whom to blame.

One that takes long gets company after a while: the gate opens, the others go on, and it keeps the mark until the next
suspect starts and takes that over. So nobody waits for it, and there is never more than one to blame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from pillion.clock import Clock
from pillion.errors import StoreError
from pillion.types import Claim
from pillion.worker import isolation
from pillion.worker.executor import Executor
from pillion.worker.head import read_head
from pillion.worker.isolation import Gate
from pillion.worker.runner import REQUEUE, Finished
from pillion.worker.tenure import Tenure


class Suspects:
    """The suspects among one fetcher's claims. Used by the fetcher's thread only."""

    def __init__(self, tenure: Tenure, executor: Executor, gate: Gate, clock: Clock) -> None:
        self._tenure = tenure
        self._executor = executor
        self._gate = gate
        self._steady = clock.steady
        self._waiting: deque[Claim] = deque()
        self._alone: Claim | None = None
        self._since = 0.0
        self._marked: Claim | None = None
        self._started: dict[int, Claim] = {}
        gate.add(lambda: executor.held)

    def __bool__(self) -> bool:
        """Whether a suspect waits or runs."""
        return bool(self._waiting) or self._alone is not None

    @property
    def must_wait(self) -> bool:
        """Whether nothing but a suspect of ours may start: there is one, or another fetcher has one."""
        return bool(self) or self.shut_out

    @property
    def shut_out(self) -> bool:
        """Whether another fetcher has the gate."""
        return self._gate.shuts_out(self)

    @property
    def waiting(self) -> list[int]:
        """The claims that wait here for their turn."""
        return [claim.n for claim in self._waiting]

    def pick(self, claims: Sequence[Claim]) -> list[Claim]:
        """Keep the suspects among new claims; the others are returned."""
        try:
            flags = self._tenure.suspicion([read_head(claim.raw).jid for claim in claims])
        except StoreError:
            self._tenure.lose_sight_of(claims)
            raise
        self._waiting.extend(claim for claim, suspect in zip(claims, flags, strict=True) if suspect)
        return [claim for claim, suspect in zip(claims, flags, strict=True) if not suspect]

    def next(self) -> Claim | None:
        """The suspect to start now, marked on the server; None while there is none or something is still in flight."""
        now = self._steady()
        self._look_after_the_running(now)
        if not self:
            self._gate.free(self)
            return None
        if self._alone is not None or self._executor.held >= self._executor.hands.slots:
            return None
        if not self._gate.take(self, now) or not self._gate.clear(now, len(self._started)):
            return None
        if self._executor.finished or self._tenure.has_outcomes:
            return None
        marked = self._tenure.mark(self._waiting[0], instead_of=self._marked)
        claim = self._waiting.popleft()
        if not marked:
            return None
        self._alone = self._marked = self._started[claim.n] = claim
        self._since = now
        return claim

    def _look_after_the_running(self, now: float) -> None:
        """Forget the suspects that have ended, and open the gate beside one that takes long."""
        mine = self._tenure.mine
        self._started = {n: claim for n, claim in self._started.items() if n in mine}
        if self._marked is not None and self._marked.n not in mine:
            self._marked = None
        if self._alone is not None and (self._alone.n not in mine or now - self._since > isolation.PATIENCE):
            self._alone = None
            self._gate.free(self)

    def absolve(self, written: Iterable[Finished]) -> None:
        """Forget the crashes of the suspect whose outcome has been written."""
        for item in written:
            claim = self._started.get(item.claim.n)
            if claim is not None and item.outcome is not REQUEUE:
                self._tenure.absolve(claim, read_head(claim.raw).jid)

    def spare(self, numbers: Iterable[int]) -> list[int]:
        """`numbers` without the suspects that are about to run."""
        return [n for n in numbers if n not in self._started]

    def give_up(self) -> list[Claim]:
        """Hand over those that wait; the one that runs goes on."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def stand_aside(self) -> None:
        """Our server is away: nobody waits for a suspect that cannot start now, nor for long beside one that runs."""
        if self._alone is None or self._steady() - self._since > isolation.PATIENCE:
            self._gate.free(self)

    def forget(self) -> None:
        """Our claims are lost, and the suspects among them."""
        self._waiting.clear()
        self._started.clear()
        self._alone = self._marked = None
        self._gate.free(self)

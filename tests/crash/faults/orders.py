"""Processes that are told to stop, once or again and again, at any moment; and jobs that end theirs every time."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from random import Random

from tests.crash.account import Account
from tests.crash.chaosbed import ChaosBed
from tests.crash.fault import Fault, Needs
from tests.crash.ledger import now
from tests.crash.pills import WAYS, MixPill
from tests.crash.processes import Pid, Process

PILL_COUNT = 3
BURIED_WITHIN = 60.0
DEADLINE = 1.0
GRACE = 3.0 + 2.0
"""What a worker takes beyond its deadline at most: three seconds for `finally` blocks, and its loops' ends."""

SLOW = 3.0
"""A machine with other things to do."""

HOWS = ("TERM", "INT", "INT twice", "TERM again and again", "TSTP, then TERM", "TTIN, then TERM", "USR1", "HUP", "boot")
WEIGHTS = (25, 10, 10, 15, 20, 5, 3, 4, 8)


class Told(Fault):
    """A worker, or a whole family, is told to stop: by TERM, INT, TSTP first, many at once, while it starts."""

    id, title = "T9", "signals: TERM, INT, INT twice, TSTP, TTIN, HUP, many at once, while starting"
    needs = Needs(options={"timeout": DEADLINE}, pills=False)
    clock = "inject"

    def __init__(self) -> None:
        self._late: list[str] = []

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        how = rng.choices(HOWS, WEIGHTS)[0]
        bed.plan(how)
        whole = bed.supervisor is not None and rng.random() < 0.5
        if bed.supervisor is not None and whole:
            self._tell(bed, bed.supervisor, how if how != "boot" else "TERM", rng, bed.family())
        elif how == "boot" and bed.supervisor is None:
            starting = bed.start()
            bed.team.append(starting)
            bed.wait(rng.uniform(0, 0.15))
            self._tell(bed, starting, "TERM", rng)
        else:
            self._tell(bed, bed.victim(rng), how, rng)

    def _tell(self, bed: ChaosBed, who: Pid, how: str, rng: Random, family: Iterable[Pid] = ()) -> None:
        for each in (who, *family):
            bed.hit(each)
        bed.mark()
        if how == "TSTP, then TERM":
            who.signal(signal.SIGTSTP)
            bed.wait(rng.uniform(0, 0.5))
        elif how == "TTIN, then TERM":
            who.signal(signal.SIGTTIN)
        first = {"INT": "INT", "INT twice": "INT", "USR1": "USR1", "HUP": "HUP"}.get(how, "TERM")
        told = now()
        who.signal(signal.Signals[f"SIG{first}"])
        for _ in range(20 if how == "TERM again and again" else 0):
            who.signal(signal.SIGTERM)
        if how == "INT twice":
            bed.wait(rng.uniform(0, 0.3))
            who.signal(signal.SIGINT)
        self._leave(bed, who, told, how)

    def _leave(self, bed: ChaosBed, who: Pid, told: float, how: str) -> None:
        """It ends, in time, and well where the signal is one that it knows."""
        bound = DEADLINE + GRACE + SLOW
        try:
            who.gone(bound + 20)
        except AssertionError as error:
            self._late.append(str(error)[:300])
            who.kill()
        took = now() - told
        if took > bound + bed.late:
            self._late.append(f"{how}: it left after {took:.1f} s, the deadline is {DEADLINE:g} s")
        code = who.code if isinstance(who, Process) else 0
        if code not in (0, None) and how not in ("USR1", "HUP", "boot") and code != -signal.SIGTERM:
            self._late.append(f"{how}: it ended with {code}: {who.said()[-500:]}")
        if any(each.alive for each in bed.family()) if bed.supervisor is who else False:
            self._late.append(f"{how}: the supervisor left children behind")

    def check(self, bed: ChaosBed, account: Account) -> Iterable[str]:
        late, self._late = self._late, []
        return late


class Pill(Fault):
    """A job kills its process whenever it runs, in one of several ways: after three deaths it is buried, alone."""

    id, title = "T8", f"a job that kills its process each time: {', '.join(WAYS)}"
    needs = Needs(pills=False)
    waived = {"I11": "the pill's own crashes are what would be measured"}  # noqa: RUF012 - as the base class has it
    block = 20

    def __init__(self) -> None:
        self._pill = ""
        self._dropped = False

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        way, self._dropped = rng.choice(WAYS), rng.random() < 0.2
        bed.plan(f"{way}, {'dropped' if self._dropped else 'kept'}")
        self._pill = bed.push(MixPill, way, **({"dead": False} if self._dropped else {}))
        bed.pushed.unknown.add(self._pill)

    def heal(self, bed: ChaosBed) -> None:
        bed.until(lambda: self._is_over(bed), "the pill to be out of the way", timeout=BURIED_WITHIN)

    def _is_over(self, bed: ChaosBed) -> bool:
        bed.replace()
        state = bed.look()
        gone = state is not None and self._pill not in state.where.keys() - state.dead
        return gone and self._deaths(bed) >= PILL_COUNT

    def _deaths(self, bed: ChaosBed) -> int:
        return len(bed.ledger.facts("deadly", self._pill))

    def check(self, bed: ChaosBed, account: Account) -> Iterable[str]:
        if (deaths := self._deaths(bed)) != PILL_COUNT:
            yield f"the pill killed {deaths} processes"
        if (self._pill in bed.buried) is self._dropped:
            yield f"the pill is {'' if self._dropped else 'not '}in the dead set"
        if innocent := bed.buried - {self._pill}:
            yield f"buried beside the pill: {sorted(innocent)}"

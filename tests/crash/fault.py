"""What a fault is. Every row of the published table is a subclass of `Fault`, in `faults/<area>.py`.

A *trial* is one fault in a bed that keeps running:

    jobs of all kinds are pushed      some wait, some run, some are due later; a producer goes on pushing
    a random pause                    so that the fault meets any moment of a step
    inject(bed, rng)                  the mischief; it may take its time
    heal(bed)                         the end of it; missing workers are then replaced by the bed
    settle                            wait until every accepted job is done, or dead with a reason
    account                           invariants, recovery time, what ran twice

`rng` is seeded by campaign, fault and trial, and must decide everything that is random about the fault: the same seed
gives the same plan. A *block* is the life of one bed: some trials in a row, with one kind of server and of worker, both
drawn from the block's seed. One fault object lives as long as its bed, so it may keep what it knows between trials.

What a fault did to processes it does through the bed (`bed.kill`, `bed.pause`, `bed.resume`, or `bed.hit` for other
mischief): that is how the account knows which second runs are explained. A job that ran twice without having been in
the hands of a process that was hit is an error, as is one that is missing.

A fault that does not fit into a bed (a process alone, a shutdown, a fleet of its own) is a `Scenario`: its `play` is
one whole trial, and it says itself what it counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

if TYPE_CHECKING:
    from tests.crash.account import Account
    from tests.crash.chaosbed import ChaosBed

WorkerKind: TypeAlias = Literal["threads", "async", "supervised"]
"""Worker processes whose jobs run on threads, those whose jobs run on the loop, and a supervisor with `--processes`."""


@dataclass(frozen=True)
class Needs:
    """What kind of bed a fault needs.

    Attributes:
        kinds: the kinds of workers; each block draws one.
        servers: the kinds of servers, None for all there are; each block draws one.
        workers: how many worker processes.
        proxy: whether workers (and the Pillion producer) talk through `bed.proxy`.
        aof: as of `Server.start`.
        arguments: further command line options of the server.
        options: further options of the workers' `Setup`, e.g. {"timeout": 1.0}.
        pills: whether the mix may hold jobs that kill their process.
    """

    kinds: tuple[WorkerKind, ...] = ("threads", "async", "supervised")
    servers: tuple[str, ...] | None = None
    workers: int = 3
    proxy: bool = False
    aof: Any = "always"
    arguments: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    pills: bool = True


@dataclass
class Excuse:
    """Jids that the fault itself explains: lost by a server that forgot, run again by something the bed cannot see."""

    lost: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)


@dataclass
class Score:
    """What one trial came to. A `Scenario` fills it itself; for faults in a bed the bed does.

    Attributes:
        accepted: how many jobs were pushed and confirmed.
        lost: jids that are nowhere and never ran to an end.
        again: how many jobs ran more than once.
        stranded: jids that stand somewhere and did not come to an end in time.
        excused: how many jobs were lost in a way that the fault explains (a server that forgot).
        recovery: seconds until all that was in flight had started again, None where the fault has no such time.
        wrong: a sentence for each invariant that does not hold.
        plan: what was drawn, for the record.
        played: False where the bed itself broke, so that this is no trial.
    """

    accepted: int = 0
    lost: list[str] = field(default_factory=list)
    again: int = 0
    stranded: list[str] = field(default_factory=list)
    excused: int = 0
    recovery: float | None = None
    wrong: list[str] = field(default_factory=list)
    plan: str = ""
    played: bool = True


class Fault:
    """One row of the table. Subclasses set the class attributes and write `inject`, mostly `heal`, seldom the rest.

    Attributes:
        id: of the table, e.g. "T1".
        title: a few words for the page.
        trials: how many the published run wants.
        block: how many trials one bed serves.
        needs: the bed.
        clock: from when recovery is measured: from the injection (a kill), or from the end of the fault (an outage).
        waived: invariants that cannot hold under this fault, each with the reason, e.g. {"I4": "..."}.
        short: whether `make test` plays it, too.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    trials: ClassVar[int] = 300
    block: ClassVar[int] = 20
    needs: ClassVar[Needs] = Needs()
    clock: ClassVar[Literal["inject", "heal"]] = "heal"
    waived: ClassVar[Mapping[str, str]] = {}
    short: ClassVar[bool] = False

    @classmethod
    def unable(cls) -> str:
        """Why this machine cannot play it; empty where it can."""
        return ""

    def prepare(self, bed: ChaosBed) -> None:
        """Once, when the bed stands and its workers have joined."""

    def inject(self, bed: ChaosBed, rng: Random) -> None:
        """Do it. `bed.plan(...)` notes what was drawn."""
        raise NotImplementedError

    def heal(self, bed: ChaosBed) -> None:
        """End it."""

    def excuse(self, bed: ChaosBed) -> Excuse:
        """After quiescence: what the fault itself explains."""
        return Excuse()

    def check(self, bed: ChaosBed, account: Account) -> Iterable[str]:
        """After quiescence: a sentence for each demand of this fault's own that is not met."""
        return ()

    def close(self) -> None:
        """The last trial of the block is over."""


class Scenario(Fault):
    """A fault with a stage of its own instead of a bed. `folder` is empty and goes with the trial."""

    block = 10

    def play(self, rng: Random, folder: Path, server: str) -> Score:
        """One whole trial; `server` is "redis" or "valkey". What it raises counts as wrong, with its words."""
        raise NotImplementedError

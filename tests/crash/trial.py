"""One trial, and the block of trials that one bed serves. `campaign.py` plays blocks side by side."""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from random import Random

from tests import leaks
from tests.crash.account import draw_up
from tests.crash.bed import LEASE
from tests.crash.chaosbed import ChaosBed
from tests.crash.fault import Fault, Scenario, Score
from tests.crash.invariants import found_wrong
from tests.crash.ledger import now
from tests.crash.producer import Producer
from tests.servers import Kind, available_kinds

REAP_INTERVAL = LEASE / 4 * 1.2
BOUND = LEASE + REAP_INTERVAL + 2.0
PHASE = LEASE / 3
"""Two periods of renewal: a fault meets any moment of a step."""

DEADLY_SHARE = 0.04
RUBY_SHARE = 0.25
REMAINS = Path(tempfile.gettempdir()) / "pillion-chaos"


@dataclass(frozen=True)
class Block:
    """Some trials in a row in one bed. Seed, fault and number decide everything that is random about it.

    With `untimed` a late recovery is not wrong (I11): the machine is busy with other things.
    """

    seed: int
    fault: type[Fault]
    number: int
    trials: int
    kinds: tuple[Kind, ...]
    ruby: str = ""
    untimed: bool = False

    def rng(self, what: object) -> Random:
        return Random(f"{self.seed} {self.fault.id} {self.number} {what}")

    def __str__(self) -> str:
        return f"--seed {self.seed} --only {self.fault.id} --block {self.number}"


def play_block(block: Block) -> Iterator[Score]:
    """The trials of a block, one after the other. After one that went wrong the rest is played in a new bed."""
    rng = block.rng("bed")
    servers = tuple(block.fault.needs.servers or block.kinds)
    server: Kind = rng.choice([kind for kind in block.kinds if kind in servers] or list(block.kinds))
    first = 0
    while first < block.trials:
        for score in play_bed(block, server, first):
            first += 1
            yield score


def play_bed(block: Block, server: Kind, first: int) -> Iterator[Score]:
    """The trials from `first` on, up to the end of the block or one that went wrong."""
    fault = block.fault()
    if isinstance(fault, Scenario):
        try:
            for number in range(first, block.trials):
                yield labelled(play_scenario(fault, block.rng(number), server), block, number, server)
        finally:
            fault.close()
        return
    folder = Path(tempfile.mkdtemp(prefix="pillion-bed-"))
    kind = block.rng("kind").choice(fault.needs.kinds)
    bed = ChaosBed(folder, kind, server, fault.needs, block.ruby if block.rng("ruby").random() < RUBY_SHARE else "")
    wrong = False
    try:
        bed.start_team()
        fault.prepare(bed)
        for number in range(first, block.trials):
            bed.begin(inf if block.untimed else BOUND)
            score = labelled(play(bed, fault, block.rng(number)), block, number, f"{server}, {kind}")
            wrong = bool(score.wrong)
            if wrong:
                score.wrong.append(f"remains in {keep(bed, block, number)}")
            yield score
            if wrong:
                return
        bed.until(lambda: not leaked(bed), "keys to go that outlived their rule", timeout=3 * LEASE)
    finally:
        fault.close()
        bed.close()
        shutil.rmtree(folder, ignore_errors=True)


def leaked(bed: ChaosBed) -> str:
    """What `leaks.py` complains about; what it does not read at one moment may change meanwhile."""
    try:
        leaks.check(bed.server)
    except AssertionError as found:
        return str(found)
    return ""


def play(bed: ChaosBed, fault: Fault, rng: Random) -> Score:
    """One trial in a bed that is quiet, and quiet again afterwards."""
    deadly = bed.needs.pills and rng.random() < DEADLY_SHARE
    producer = Producer(bed.client, bed.kind, bed.pushed, Random(rng.random()), deadly=deadly, ruby=bed.ruby)
    if deadly:
        bed.plan("a job that ends its process")
    try:
        producer.start()
        bed.wait(rng.uniform(0, PHASE))
        bed.look()
        fault.inject(bed, rng)
        fault.heal(bed)
        if fault.clock == "heal":
            bed.mark()
        healed = now()
        bed.replace()
        bed.wait(rng.uniform(0, 0.1))
    finally:
        producer.stop()
    quiet = bed.settle(healed)
    score = score_of(bed, fault, quiet is not None)
    bed.tidy()
    return score


def score_of(bed: ChaosBed, fault: Fault, quiet: bool) -> Score:
    """Draw up the account of the trial and check it."""
    state = bed.look()
    if state is None:
        return Score(len(bed.pushed.accepted), wrong=["the server cannot be read"], plan=bed.planned())
    excuse = fault.excuse(bed)
    bed.touch(excuse.again)
    bed.gone |= excuse.lost
    account = draw_up(bed, state)
    excused = account.lost & excuse.lost
    account = replace(account, lost=account.lost - excused)
    wrong = [*bed.wrong, *found_wrong(bed, account), *fault.check(bed, account)]
    wrong = [words for words in wrong if words.partition(":")[0] not in fault.waived]
    if not quiet and not wrong:
        wrong.append(f"I12: not all workers went on; leases {state.leases}, wanted {bed.needs.workers} workers")
    tainted = bool(bed.ledger.facts("deadly", since=bed.began))  # its own crash would be measured, too
    return Score(
        accepted=len(bed.pushed.accepted),
        lost=sorted(account.lost),
        again=len(account.extra),
        stranded=sorted(account.stranded),
        excused=len(excused),
        recovery=None if tainted else account.recovery,
        wrong=[words for words in wrong if not (tainted and words.startswith("I11"))],
        plan=bed.planned(),
    )


def play_scenario(fault: Scenario, rng: Random, server: Kind) -> Score:
    """One trial of a fault that has a stage of its own."""
    with tempfile.TemporaryDirectory(prefix="pillion-scene-") as folder:
        try:
            return fault.play(rng, Path(folder), server)
        except Exception:
            return Score(wrong=[traceback.format_exc(limit=-6)])


def labelled(score: Score, block: Block, number: int, stage: str) -> Score:
    """The same with a plan that says how to play it again."""
    score.plan = f"{block}, trial {number} ({stage}): {score.plan}"
    return score


def keep(bed: ChaosBed, block: Block, number: int) -> Path:
    """Copy the ledger, the logs and the server's data of a trial that went wrong to where they stay."""
    to = REMAINS / f"{block.seed}-{block.fault.id}-{block.number}-{number}"
    shutil.copytree(bed.folder, to, dirs_exist_ok=True)
    shutil.copytree(bed.server.folder, to / "server", dirs_exist_ok=True, ignore=lambda _, names: {"s", "p"} & {*names})
    return to


def kinds() -> tuple[Kind, ...]:
    """The servers that this machine has."""
    return tuple(available_kinds())

"""`make chaos`: break everything again and again, and account for every job. See docs/reliability.md.

make chaos                                      60 trials of each fault
make chaos ARGS="--only T1,T4 --trials 300"     these, so many
make chaos ARGS="--seed 7 --only T1 --block 3"  one block again, with the plan that its seed makes
make chaos ARGS="--publish --minutes 60"        go on with the published run, for an hour
make chaos ARGS="--page"                        write docs/reliability.md from its results
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from pathlib import Path

from tests.crash import catalogue, page
from tests.crash.campaign import Campaign, Order, default_beds, say
from tests.crash.fault import Score
from tests.crash.results import PUBLISHED, Results, load, save, versions
from tests.crash.trial import Block, kinds, play_block

USUAL = 60
PUBLISHED_SEED = 20_261_122


def main(words: list[str]) -> int:
    """Returns 1 where anything was lost, stranded or otherwise wrong."""
    asked = parsed(words)
    if asked.page:
        page.write(load(PUBLISHED))
        return 0
    path = PUBLISHED if asked.publish else asked.results
    results = load(path) if path else Results()
    seed = asked.seed if asked.seed is not None else PUBLISHED_SEED if asked.publish else random.randrange(10**6)
    faults = [catalogue.by_id(name) for name in asked.only.split(",")] if asked.only else list(catalogue.FAULTS)
    trials = asked.trials or (None if asked.publish else USUAL)
    servers = tuple(asked.servers.split(",")) if asked.servers else kinds()
    producer = "" if asked.no_ruby else ruby()
    order = Order(faults, trials, asked.beds, seed, asked.minutes, servers, producer, asked.untimed)
    if asked.block is not None:
        return again(order, asked.block)
    say(f"seed {seed}, {asked.beds} beds, {', '.join(servers)}" + ", Ruby pushes, too" * bool(order.ruby))
    progress = Progress(order)
    results.versions = versions(servers)
    Campaign(order, results, lambda: path and save(results, path), progress.told).run()
    if asked.publish:
        page.write(results)
    return progress.sum_up(results)


def parsed(words: list[str]) -> argparse.Namespace:
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__, formatter_class=formatter)
    parser.add_argument("--only", help="faults, e.g. T1,T4")
    parser.add_argument("--trials", type=int, help=f"of each ({USUAL}; with --publish what the fault wants)")
    parser.add_argument("--beds", type=int, default=default_beds(), help="side by side (%(default)s)")
    parser.add_argument("--seed", type=int, help="decides all plans (random)")
    parser.add_argument("--minutes", type=float, help="begin nothing new after so many")
    parser.add_argument("--servers", help="redis,valkey (all there are)")
    parser.add_argument("--no-ruby", action="store_true", help="let only Pillion push")
    parser.add_argument("--untimed", action="store_true", help="a late recovery is not wrong: the machine is busy")
    parser.add_argument("--block", type=int, help="play one block of one fault again, here, and show each trial")
    parser.add_argument("--results", type=Path, help="a file to add the results to")
    parser.add_argument("--publish", action="store_true", help="add to docs/reliability/results.json, write the page")
    parser.add_argument("--page", action="store_true", help="only write docs/reliability.md")
    return parser.parse_args(words)


def ruby() -> str:
    """The Ruby that has Sidekiq, if there is one."""
    return shutil.which("ruby") or ""


def again(order: Order, number: int) -> int:
    """Play one block in this process and show everything."""
    [fault] = order.faults
    wrong = 0
    for score in play_block(Block(order.seed, fault, number, order.trials or fault.block, order.kinds, order.ruby)):
        say(shown(score))
        wrong += bool(score.wrong)
    return int(wrong > 0)


def shown(score: Score) -> str:
    """A trial in a line, and what was wrong in more."""
    took = "-" if score.recovery is None else f"{score.recovery:.2f} s"
    line = f"{score.accepted:4} jobs, {score.again:3} ran again, recovery {took:>7}: {score.plan}"
    return "\n".join([line, *(f"  WRONG {words}" for words in score.wrong)])


class Progress:
    """Tells how far it is, and at the end what came of it."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._trials = 0
        self._wrong = 0
        self._began = self._said = time.monotonic()

    def told(self, block: Block, score: Score) -> None:
        """One more trial."""
        self._trials += 1
        self._wrong += bool(score.wrong)
        if score.wrong:
            say(shown(score))
        if time.monotonic() - self._said > 10:
            self._said = time.monotonic()
            say(f"{self._trials} trials, {self._wrong} wrong, {self._per_minute():.0f} a minute; now {block.fault.id}")

    def sum_up(self, results: Results) -> int:
        for fault in self._order.faults:
            say(page.line(fault, results.row(fault.id)))
        say(f"{self._trials} trials in {(time.monotonic() - self._began) / 60:.1f} min, {self._wrong} wrong")
        return int(self._wrong > 0)

    def _per_minute(self) -> float:
        return self._trials / (time.monotonic() - self._began) * 60


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m tests.crash.soak --minutes 125 --seed 7 --out FILE`; `--evaluate FOLDER` judges a run from its folder.

Progress goes to standard error, the result as JSON to FILE and in words to standard output. `--page` prints the section
for docs/reliability.md from a result instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.crash.soak import page, report
from tests.crash.soak.run import Plan, Soak, new_seed

LATER_PER_SECOND = 2.7


def main() -> int:
    given = arguments()
    if given.page:
        print(page.section(json.loads(given.page.read_text())))
        return 0
    folder = given.evaluate or given.folder or Path(f"/tmp/pillion-soak-{time.time():.0f}")
    if not given.evaluate:
        seed = given.seed or new_seed()
        seconds = given.minutes * 60
        plan = Plan(
            seconds,
            seed,
            rate=given.rate,
            fault_mean=given.faults,
            later=min(Plan.later, int(LATER_PER_SECOND * seconds)),
            warm_up=min(Plan.warm_up, seconds / 4),
        )
        say(f"seed {seed}, in {folder}")
        Soak(plan, folder, say).run()
    result = report.evaluate(folder)
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(report.words(result))
    return 0 if result["passed"] else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=125.0)
    parser.add_argument("--seed")
    parser.add_argument("--faults", type=float, default=Plan.fault_mean, help="mean seconds from one to the next")
    parser.add_argument("--rate", type=float, default=Plan.rate, help="jobs per second of each of the two producers")
    parser.add_argument("--folder", type=Path, help="where the run leaves its files")
    parser.add_argument("--out", type=Path, help="where the result goes")
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER")
    parser.add_argument("--page", type=Path, metavar="RESULT")
    return parser.parse_args()


def say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

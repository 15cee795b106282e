"""The short tier of `make chaos`: sixty trials of each of its five faults, and not one job lost.

All are played in one campaign, several beds side by side, by the same command that the published run uses. CHAOS_SEED
repeats one, CHAOS_TRIALS makes a longer run of it. How long a recovery takes is for the published run to say: other
tests run on this machine at the same time.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash import catalogue
from tests.crash.fault import Fault
from tests.crash.page import line
from tests.crash.processes import ROOT
from tests.crash.results import Results, load
from tests.servers import available_kinds

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]

TRIALS = int(os.environ.get("CHAOS_TRIALS", "60"))
SHORT = [fault for fault in catalogue.FAULTS if fault.short]


@pytest.fixture(scope="module")
def seed() -> str:
    return os.environ.get("CHAOS_SEED") or str(random.SystemRandom().randrange(10**6))


@pytest.fixture(scope="module")
def results(seed: str, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the campaign came to."""
    path: Path = tmp_path_factory.mktemp("chaos") / "results.json"
    server = os.environ.get("CRASH_KIND", available_kinds()[-1])
    words = f"--only {','.join(fault.id for fault in SHORT)} --trials {TRIALS} --seed {seed} --servers {server}"
    command = [sys.executable, "-m", "tests.crash", *words.split(), "--untimed", "--results", str(path)]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, timeout=900)
    assert path.exists(), done.stderr
    return load(path)


def test_the_short_tier_plays_the_five_faults_of_the_promise() -> None:
    assert {fault.id for fault in SHORT} == {"T1", "T2", "T4", "T6", "T11"}


@pytest.mark.rule("move.fetch", instead=True)
@pytest.mark.parametrize("fault", SHORT, ids=lambda fault: fault.id)
def test_no_job_is_lost_whatever_happens(
    fault: type[Fault], results: Results, seed: str, figures: Callable[[str], None]
) -> None:
    row = results.row(fault.id)
    figures(f"  CHAOS_SEED={seed} {line(fault, row)}")
    assert "\n\n".join(row.stories) == ""
    assert (row.lost, row.stranded, row.broken) == (0, 0, 0)
    assert row.n >= TRIALS
    assert row.accepted >= 10 * row.n

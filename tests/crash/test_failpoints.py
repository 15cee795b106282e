"""Every place between two effects, with everything that can go wrong there. `make chaos ARGS="--only T38"` has more."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crash.failpoints import CASES, POINTS, Action, Point, place_of
from tests.crash.scenes import Trial
from tests.servers import Server

pytestmark = pytest.mark.chaos

TIMES = 2
LANES = 16
SCENES = sorted({point.scene for point in POINTS})
SOURCES = sorted((Path(__file__).parents[2] / "src").rglob("*"))


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("scene", SCENES)
def test_nothing_is_lost_wherever_a_process_goes_wrong(
    scene: str, own_server: Server, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    rng = random.Random(38)
    cases = [case for case in CASES if case[0].scene == scene] * TIMES

    odd: list[str] = []

    def play(number: int, point: Point, action: Action) -> Trial:
        """One that goes wrong, or does not come by its place, is told of and played once more."""
        nth = 1 if number < len(cases) / TIMES else rng.randint(1, point.visits)
        trial = Trial(point, action, own_server, tmp_path / str(number), nth).play()
        if trial.reached and not trial.faults:
            return trial
        odd.append(f"{trial}: {' / '.join(trial.faults) or 'not reached'}")
        return Trial(point, action, own_server, tmp_path / str(len(cases) + number), nth).play()

    with ThreadPoolExecutor(LANES) as lanes:
        trials = list(lanes.map(play, range(len(cases)), *zip(*cases, strict=True)))
    wrong = [f"{trial}: {fault}" for trial in trials for fault in trial.faults]
    assert not wrong, "\n".join(wrong)
    assert [str(trial) for trial in trials if not trial.reached] == []
    jobs, again = sum(len(trial.jids) for trial in trials), sum(trial.again for trial in trials)
    figures(f"{len(trials)} trials of scene {scene}: {jobs} jobs accepted, none lost, {again} runs more than needed")
    if odd:
        figures(f"played twice: {'; '.join(odd)[:400]}")


def test_every_place_still_exists_and_has_a_name_of_its_own() -> None:
    assert [name for name, count in Counter(point.name for point in POINTS).items() if count > 1] == []
    assert all(callable(place_of(point)[2]) for point in POINTS if point.where)


def test_what_is_shipped_has_no_switch_for_any_of_this() -> None:
    words = re.compile(r"fail_?point|chaos|inject|sabotage|\bcrash_?test", re.IGNORECASE)
    texts = {path: path.read_text() for path in SOURCES if path.suffix in (".py", ".lua")}
    assert texts
    assert {str(path) for path, text in texts.items() if words.search(text)} == set()

"""A check that cannot fail proves nothing: with each rule broken the bed complains, and without it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.crash.mutations import PLAYS
from tests.crash.sabotage import MUTATIONS
from tests.servers import Kind, Server, available_kinds

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(300)]

LANES, TRIES = 4, 4
Played: TypeAlias = dict[tuple[str, str], Future[list[str]]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Every play, well and broken, several side by side: the faults that it found."""
    kind = available_kinds()[-1]
    with ThreadPoolExecutor(LANES) as lanes:
        plays = {(name, broken): lanes.submit(play, kind, name, broken, tmp_path_factory.mktemp("play"))
                 for name in PLAYS for broken in ("", name)}  # fmt: skip
        yield plays


def play(kind: Kind, name: str, broken: str, folder: Path) -> list[str]:
    """The faults of a play. With the rule broken a play may miss the moment, so it gets more than one."""
    faults: list[str] = []
    for number in range(TRIES if broken else 1):
        server = Server(kind)
        try:
            faults = PLAYS[name](server.start(), folder / f"play-{number}", broken).faults
        finally:
            server.close()
        if faults:
            break
    return faults


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_bed_notices_that_a_rule_is_broken(name: str, played: Played, figures: Callable[[str], None]) -> None:
    assert played[name, ""].result() == [], "the play goes wrong although the rule is kept"
    found = played[name, name].result()
    assert found, f"nobody noticed {name}"
    figures(f"{name}: {found[0].splitlines()[0][:160]}")


def test_there_is_a_play_for_each() -> None:
    assert list(PLAYS) == list(MUTATIONS)

"""The explorer in the suite, its negative control, and that it is the scripts' own order of writes that it explores."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import pillion
from tests.models.bounds import BROKEN, SUITE
from tests.models.explorer import Found, explore
from tests.models.scripts import WRITES

LUA = Path(pillion.__file__).parent / "store/lua"
READS = {
    "LINDEX",
    "ZSCORE",
    "HGET",
    "HMGET",
    "HEXISTS",
    "EXISTS",
    "TIME",
    "SMEMBERS",
    "LLEN",
    "ZCARD",
    "HKEYS",
    "HGETALL",
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bounds", SUITE)
def test_no_order_of_things_loses_a_job_gives_it_to_two_or_strands_it(
    bounds: str, record_property: Callable[[str, object], None]
) -> None:
    states = explore(SUITE[bounds])
    record_property("states", states)
    print(f"{bounds}: {states:,} states")
    assert states > 300


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rule", BROKEN)
def test_the_explorer_finds_what_a_missing_rule_allows(rule: str) -> None:
    bounds, missing, why = BROKEN[rule]
    with pytest.raises(Found) as found:
        explore(bounds._replace(broken=frozenset(missing)))
    assert re.search(why, found.value.why), found.value


@pytest.mark.parametrize("name", WRITES)
def test_the_scripts_write_in_the_order_that_is_explored(name: str) -> None:
    """Who changes the order of a script's writes must change `scripts.py` too, and see what the explorer says."""
    files = sorted((LUA / name).glob("*.lua")) or [LUA / f"{name}.lua"]
    calls = re.findall(r"redis\.p?call\('([A-Z]+)'", "".join(file.read_text() for file in files))
    assert [verb for verb in calls if verb not in READS] == [words.split()[0] for words in WRITES[name]]

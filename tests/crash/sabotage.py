"""Mutations: rules that Pillion keeps, each with a way to break it in the running process.

`apply` does so from outside, in a worker that a test has forked: it replaces a function, or words in the text of a
script. A bed that does not notice one of them proves nothing about the rule; `mutations.py` shows that ours does.
`CRASH_MUTATION="no re-sync" make chaos ARGS="--only T4"` breaks it in the workers of the random bed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgspec

from pillion.store import connection, op
from pillion.store.scripts import Script
from pillion.worker.suspects import Suspects
from pillion.worker.tenure import Tenure

ASKED = "CRASH_MUTATION"
LEASE_CHECK = "if not redis.call('ZSCORE', lease, owner) then return 'FENCED' end\n"
INDEX_CHECK = "if not current then return 'FENCED' end\n"
GENERATION_CHECK = "if generation < tonumber(current) then return 'STALE' end\n"
NEW_PLACE_FIRST = """  elseif write(tray, number, KEYS[key + i], verb, score, payload) then
    trays.let_go(tray, number)
    marks[#marks + 1] = 's:' .. n
  else unsettled[number] = true end
"""
OLD_PLACE_FIRST = """  else
    trays.let_go(tray, number)
    write(tray, number, KEYS[key + i], verb, score, payload)
  end
"""
STEADY = "  return last and now >= tonumber(last) and now - last <= lease / 2 and now - since >= tonumber(lease)\n"


def apply(name: str) -> None:
    """Break this rule in this process."""
    MUTATIONS[name]()


def apply_asked() -> None:
    """Break the rule that the environment names, for `make chaos` with broken workers."""
    if name := os.environ.get(ASKED):
        apply(name)


def no_resync() -> None:
    """After a lost reply, take it for granted that the request was not executed."""

    def forget(self: Any, turned: Any) -> bool:
        self._doubtful, self._must_resync = set(), False
        return True

    Tenure._resync = forget  # type: ignore[method-assign]
    Tenure.audit = lambda self: True  # type: ignore[method-assign, assignment]


def no_generation() -> None:
    """Carry out the late bytes of an old connection."""
    rewrite({"step": [(GENERATION_CHECK, "")]})


def no_fencing() -> None:
    """Let an owner go on that has lost its lease."""
    rewrite({"step": [(LEASE_CHECK, ""), (INDEX_CHECK, "current = current or 0\n")]})


def old_place_first() -> None:
    """Strike a claim off before its outcome is written."""
    rewrite({"step": [(NEW_PLACE_FIRST, OLD_PLACE_FIRST)]})


def no_allow_oom() -> None:
    """Run no script while the server's memory is full."""
    names = ("step", "join", "resync", "leave", "batch", "fence", "salvage")
    rewrite({name: [("#!lua flags=allow-oom\n", "#!lua\n")] for name in names})


def no_amnesty() -> None:
    """Fence whoever is late, although nobody could renew."""
    rewrite({name: [(STEADY, "  return true\n")] for name in ("fence", "lapsed")})


def no_suspects() -> None:
    """Run the jobs that were part of a crash beside all others."""
    Suspects.pick = lambda self, claims: list(claims)  # type: ignore[method-assign, assignment]


def resending() -> None:
    """Send a push again when its reply was lost."""
    run = connection.Store.run

    def run_again(self: Any, asked: op.Op[Any]) -> Any:
        return run(self, msgspec.structs.replace(asked, safe=True))

    connection.Store.run = run_again  # type: ignore[method-assign]


MUTATIONS: Mapping[str, Callable[[], None]] = {
    "no re-sync": no_resync,
    "no generation": no_generation,
    "no fencing": no_fencing,
    "the old place first": old_place_first,
    "no allow-oom": no_allow_oom,
    "no amnesty": no_amnesty,
    "no suspects": no_suspects,
    "pushes sent again": resending,
}


def rewrite(changes: Mapping[str, list[tuple[str, str]]]) -> None:
    """Put other words into scripts. Raises AssertionError where what is to be replaced does not stand there once."""
    original = op.script

    @cache
    def changed(name: str) -> Script:
        script = original(name)
        text = script.text
        for old, new in changes.get(name, ()):
            assert text.count(old) == 1, f"{name}.lua does not hold once:\n{old}"
            text = text.replace(old, new)
        return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    op.script = changed

"""Ids of jobs: from the operating system's secure source, so that a forked child repeats none of its parent's."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import pillion
from pillion import config

FORKING = """
import os, random, sys
import pillion
from pillion import testing

@pillion.job
def forked() -> None: ...

def push(count: int = 50) -> list[str]:
    with testing.fake() as jobs:
        alone = [forked.perform_async() for _ in range(count)]
        bulk = forked.perform_bulk([()] * count)
        assert len(jobs) == 2 * count
    return alone + bulk

def forks() -> None:
    for _ in range(2):
        sys.stdout.flush()
        child = os.fork()
        if not child:
            print(*push(), sep="\\n", flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

if sys.argv[1] == "seeded":
    random.seed(1)
if sys.argv[1] != "after the import":
    print(*push(), sep="\\n")
forks()
print(*push(), sep="\\n")
"""


@pytest.mark.rule("fields.jid")
@pytest.mark.parametrize(("moment", "processes"), [("after the import", 3), ("after a push", 4), ("seeded", 4)])
def test_parent_and_children_never_give_one_jid_twice(moment: str, processes: int) -> None:
    words = [sys.executable, "-c", FORKING, moment]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    jids = done.stdout.split()
    assert len(jids) == len(set(jids)) == 100 * processes
    assert all(re.fullmatch("[0-9a-f]{24}", jid) for jid in jids)


@pytest.mark.rule("fields.jid")
def test_the_system_is_asked_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(config.os, "urandom", lambda count: asked.append(count) or bytes(range(count)))
    assert pillion.Config().new_jid() == "000102030405060708090a0b"
    assert asked == [12]

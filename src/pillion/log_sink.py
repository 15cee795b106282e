"""The handler that writes log lines and never waits: a blocked terminal, a full pipe or a full disk must not stop jobs.

`log.configure` puts one on the root logger. A line is written at once, by the thread that logged it, so what a job said
is out before the job can crash the process. When the other end does not read, lines are kept, up to 1 MB, and written
with the next line that finds room; beyond that they are dropped and counted, and the count is logged once there is room
again. Nothing is raised, ever. The process's death loses what was kept.

It does not wait on a network file system either, but cannot keep the kernel from doing so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import stat
import threading
import weakref
from collections import deque
from typing import Any, Final, TextIO

from pillion.clock import SystemClock

MAX_KEPT: Final = 1 << 20
_ONCE_MORE: Final = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CLOCK: Final = SystemClock()
_LAST_WAIT: Final = 1.0
"""Seconds that the end of the process waits for a blocked sink."""


class SinkHandler(logging.Handler):
    """Writes to a stream's file descriptor where it has one, else to the stream.

    Attributes:
        lost: lines dropped and not yet told about.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self.lost = 0
        self._kept: deque[bytes] = deque()
        self._size = 0
        self._fd, self._never_waits = _own_descriptor(stream)
        self._piece = MAX_KEPT if self._never_waits else select.PIPE_BUF
        self._poll = select.poll()
        if self._fd is not None:
            self._poll.register(self._fd, select.POLLOUT)
        renew = weakref.WeakMethod(self._renew)
        os.register_at_fork(after_in_child=lambda: (method := renew()) and method())

    def createLock(self) -> None:  # noqa: N802
        """One lock of our own, held by `with` in `emit`.

        The base class's `acquire(); try:` has a gap, and a `Shutdown` raised there in a job's thread would leave the
        log locked for good.
        """
        self.lock = _NoLock()  # type: ignore[assignment]
        self._mine = threading.RLock()  # a finalizer may log while this very thread is logging

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, keep it, or count it as lost. Never raises and never waits."""
        try:
            line = self._line(record)
            with self._mine:
                self._put(line)
                if self.lost and not self._kept:
                    self._tell_lost()
        except Exception:
            self.lost += 1

    def flush(self) -> None:
        """Write what is kept; waits up to a second for a blocked sink."""
        try:
            with self._mine:
                end = _CLOCK.steady() + _LAST_WAIT
                while self._kept and (left := end - _CLOCK.steady()) > 0 and self._ready(left):
                    self._drain()
        except Exception:
            self.lost += len(self._kept)

    def close(self) -> None:
        """Flush. The descriptor stays: `logging.config` closes handlers that go on being used."""
        self.flush()
        super().close()

    def dispose(self) -> None:
        """Flush, and give the descriptor back: the handler is not used any more."""
        self.close()
        with self._mine:
            fd, self._fd = self._fd, None
            if fd is not None:
                os.close(fd)

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode("utf-8", "backslashreplace")

    def _put(self, line: bytes) -> None:
        if self._fd is None:
            self.stream.write(line.decode())
            self.stream.flush()
            return
        self._drain()
        if self._kept and self._size + len(line) > MAX_KEPT:
            self.lost += 1
            return
        self._kept.append(line)
        self._size += len(line)
        self._drain()

    def _drain(self) -> None:
        """Write from the front for as long as the descriptor takes it."""
        while self._kept and (self._never_waits or self._ready(0)):
            line = self._kept.popleft()
            self._size -= len(line)
            try:
                written = os.write(self._fd or 0, line[: self._piece])
            except BlockingIOError:
                written = 0
            except OSError:  # nobody there any more, disk full, ...
                self.lost += 1
                continue
            if written < len(line):
                self._kept.appendleft(line[written:])
                self._size += len(line) - written
            if not written:
                return

    def _ready(self, seconds: float) -> bool:
        return bool(self._poll.poll(seconds * 1000))

    def _tell_lost(self) -> None:
        lost, self.lost = self.lost, 0
        words = "%d log lines were lost: the log could not be written"
        self._put(self._line(logging.LogRecord("pillion", logging.WARNING, __file__, 0, words, (lost,), None)))
        self.lost = lost if self.lost else 0

    def _renew(self) -> None:
        """In a forked child: a lock that nobody holds, and none of the parent's lines."""
        self._mine = threading.RLock()
        self._kept.clear()
        self._size = self.lost = 0


class _NoLock:
    """Stands in for the lock of `logging.Handler`."""

    def acquire(self) -> None:
        """Nothing."""

    def release(self) -> None:
        """Nothing."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *raised: Any) -> None:
        pass

    def _at_fork_reinit(self) -> None:
        pass


def _own_descriptor(stream: TextIO) -> tuple[int | None, bool]:
    """A descriptor that stays open when a job closes the stream, and whether writing to it never waits.

    That a pipe or a terminal was ready when asked is no promise that a write does not wait: others write to it as well,
    and a terminal waits until it has taken all. Not to wait is a property of the open file, which others share, hence
    it is opened once more. Where that cannot be done, asking and writing little at once has to do.
    """
    try:
        fd = stream.fileno()
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return os.dup(fd), True
        terminal = os.isatty(fd)
        if terminal or stat.S_ISFIFO(mode):
            with contextlib.suppress(OSError):
                return os.open(os.ttyname(fd) if terminal else f"/proc/self/fd/{fd}", _ONCE_MORE), True
        return os.dup(fd), False
    except (OSError, ValueError, AttributeError):
        return None, False

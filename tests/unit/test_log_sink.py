"""The log's handler on real pipes, terminals and files: it never waits, never raises, and says what it lost."""

from __future__ import annotations

import contextlib
import dis
import fcntl
import logging
import os
import pty
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import IO, Any

import pytest

from pillion import log_sink
from pillion.clock import SystemClock
from pillion.errors import Shutdown
from pillion.log_sink import MAX_KEPT, SinkHandler

PIPE_HOLDS = 65_536


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    """Closes what a test opened."""
    with contextlib.ExitStack() as stack:
        yield stack


def handler_on(opened: contextlib.ExitStack, stream: IO[str]) -> SinkHandler:
    handler = SinkHandler(stream)
    opened.callback(handler.dispose)
    return handler


def pipe(opened: contextlib.ExitStack) -> tuple[SinkHandler, int, int]:
    """A handler that writes to a pipe: (handler, read end, the write end the handler was given)."""
    reading, writing = os.pipe()
    opened.callback(lambda: close(reading))
    stream = opened.enter_context(os.fdopen(writing, "w"))
    return handler_on(opened, stream), reading, writing


def close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)


def say(handler: SinkHandler, words: str) -> None:
    handler.handle(logging.LogRecord("pillion", logging.INFO, __file__, 1, words, None, None))


def within(seconds: float, *work: Any) -> None:
    """Do each of `work` in a thread of its own; fail if one takes longer."""
    threads = [threading.Thread(target=each, daemon=True) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    assert not any(thread.is_alive() for thread in threads), "it waits"


def read_all(fd: int) -> str:
    """Everything that can be read without waiting."""
    os.set_blocking(fd, False)
    found = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(fd, 1 << 20):
            found += piece
    return found.decode()


def test_a_line_is_out_when_the_call_returns(opened: contextlib.ExitStack) -> None:
    handler, reading, _ = pipe(opened)
    say(handler, "hello")
    assert read_all(reading) == "hello\n"
    say(handler, "é \ud800")
    assert read_all(reading) == "é \\ud800\n"


def test_a_pipe_that_nobody_reads_blocks_nobody_and_the_loss_is_told(opened: contextlib.ExitStack) -> None:
    handler, reading, _ = pipe(opened)
    line = "x" * 999
    total = 4 * 1_000

    def flood() -> None:
        for _ in range(1_000):
            say(handler, line)

    within(20, flood, flood, flood, flood)
    assert 0 < handler.lost < total - MAX_KEPT // 1_000
    lost = handler.lost

    read = read_all(reading)
    while handler._kept:
        handler._drain()
        read += read_all(reading)
    say(handler, "after")
    *kept, after, told = (read + read_all(reading)).splitlines()
    assert set(kept) == {line}
    assert len(kept) == total - lost
    assert after == "after"
    assert told == f"{lost} log lines were lost: the log could not be written"
    say(handler, "again")
    assert read_all(reading) == "again\n"


def test_what_was_kept_comes_first_and_whole(opened: contextlib.ExitStack) -> None:
    handler, reading, _ = pipe(opened)
    words = [f"{n} " + "y" * 10_000 for n in range(20)]
    for each in words:
        say(handler, each)
    assert handler.lost == 0
    read = read_all(reading)
    assert PIPE_HOLDS - 8_192 < len(read) <= PIPE_HOLDS
    while handler._kept:
        handler._drain()
        read += read_all(reading)
    assert read.splitlines() == words


def test_the_end_of_the_process_waits_for_a_slow_reader_but_not_for_one_that_never_reads(
    opened: contextlib.ExitStack,
) -> None:
    handler, reading, _ = pipe(opened)
    say(handler, "z" * 200_000)
    read: list[bytes] = []

    def reader() -> None:
        while sum(map(len, read)) < 200_001:
            read.append(os.read(reading, 1_000))

    within(20, reader, handler.close)
    assert b"".join(read) == b"z" * 200_000 + b"\n"
    say(handler, "z" * 200_000)
    within(20, handler.close)


def test_who_shares_the_pipe_does_not_find_it_changed(opened: contextlib.ExitStack) -> None:
    handler, reading, writing = pipe(opened)
    assert not fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"full")
    os.set_blocking(writing, True)
    within(20, lambda: say(handler, "kept"))
    assert not fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK
    read_all(reading)
    handler.flush()
    assert read_all(reading) == "kept\n"


def test_a_pipe_that_somebody_else_has_filled_blocks_nobody(opened: contextlib.ExitStack) -> None:
    handler, _, writing = pipe(opened)
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x")
    os.set_blocking(writing, True)
    assert os.get_blocking(writing)
    within(20, lambda: say(handler, "kept"))
    assert list(handler._kept) == [b"kept\n"]


def test_a_stopped_terminal_blocks_nobody(opened: contextlib.ExitStack) -> None:
    master, slave = pty.openpty()
    opened.callback(close, master)
    handler = handler_on(opened, opened.enter_context(os.fdopen(slave, "w")))

    def flood() -> None:
        for _ in range(3_000):
            say(handler, "x" * 1_000)

    within(20, flood)
    assert handler.lost > 0


def test_a_socket_that_nobody_reads_blocks_nobody(opened: contextlib.ExitStack) -> None:
    ours, theirs = socket.socketpair()
    opened.enter_context(theirs)
    handler = handler_on(opened, opened.enter_context(os.fdopen(ours.detach(), "w")))

    def flood() -> None:
        for _ in range(3_000):
            say(handler, "x" * 1_000)

    within(20, flood)
    assert handler.lost > 0


def test_a_reader_that_is_gone_raises_nothing(opened: contextlib.ExitStack) -> None:
    handler, reading, _ = pipe(opened)
    os.close(reading)
    for _ in range(5):
        say(handler, "x")
    assert handler.lost == 5


def test_what_was_kept_for_a_reader_that_is_gone_is_given_up_at_once(opened: contextlib.ExitStack) -> None:
    handler, reading, _ = pipe(opened)
    for _ in range(20):
        say(handler, "x" * 10_000)
    kept = len(handler._kept)
    assert kept > 10
    os.close(reading)
    say(handler, "x")
    assert (len(handler._kept), handler.lost) == (0, kept + 1)


def test_flushing_ends_in_time_even_if_there_is_always_a_little_room(
    opened: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Leaping(SystemClock):
        """Every look at it takes two seconds."""

        at = 0.0

        def steady(self) -> float:
            self.at += 2.0
            return self.at

    handler, reading, _ = pipe(opened)
    say(handler, "x" * 100_000)
    read_all(reading)
    with monkeypatch.context() as patch:
        patch.setattr(log_sink, "_CLOCK", Leaping())
        handler.flush()
    assert handler._kept
    handler.flush()
    assert not handler._kept


def test_a_full_disk_raises_nothing_and_is_told_about_when_there_is_room(opened: contextlib.ExitStack) -> None:
    handler = handler_on(opened, opened.enter_context(open("/dev/full", "w")))  # noqa: PTH123, SIM115
    for _ in range(5):
        say(handler, "x")
    assert handler.lost == 5
    reading, writing = os.pipe()
    opened.callback(close, reading)
    assert handler._fd is not None
    os.dup2(writing, handler._fd)
    os.close(writing)
    say(handler, "y")
    assert read_all(reading) == "y\n5 log lines were lost: the log could not be written\n"


def test_a_job_that_closes_the_stream_does_not_silence_the_log(opened: contextlib.ExitStack, tmp_path: Any) -> None:
    path = tmp_path / "log"
    stream = path.open("w")
    handler = handler_on(opened, stream)
    say(handler, "before")
    stream.close()
    say(handler, "after")
    handler.close()
    say(handler, "after close")
    assert path.read_text() == "before\nafter\nafter close\n"


def test_lines_longer_than_all_that_may_be_kept_are_written_where_there_is_room(
    opened: contextlib.ExitStack, tmp_path: Any
) -> None:
    path = tmp_path / "log"
    handler = handler_on(opened, opened.enter_context(path.open("w")))
    say(handler, "x" * (2 * MAX_KEPT))
    assert path.stat().st_size == 2 * MAX_KEPT + 1


def test_lines_of_several_threads_stay_whole(opened: contextlib.ExitStack, tmp_path: Any) -> None:
    path = tmp_path / "log"
    handler = handler_on(opened, opened.enter_context(path.open("w")))
    kinds = ["a" * 5_000, "b" * 5_000, "c" * 5_000]
    within(30, *[lambda words=words: [say(handler, words) for _ in range(100)] for words in kinds])
    assert sorted(path.read_text().splitlines()) == sorted(kinds * 100)


def test_a_formatter_that_raises_costs_its_line_only(opened: contextlib.ExitStack) -> None:
    class Broken(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.msg == "bad":
                raise ValueError
            return super().format(record)

    handler, reading, _ = pipe(opened)
    handler.setFormatter(Broken())
    say(handler, "bad")
    say(handler, "good")
    assert read_all(reading) == "good\n1 log lines were lost: the log could not be written\n"


def test_logging_while_logging_does_not_lock_itself_out(opened: contextlib.ExitStack) -> None:
    class Chatty(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.getMessage().startswith("1 log lines were lost"):
                say(handler, "inner")  # as a finalizer might, here with the lock held
            return super().format(record)

    handler, reading, _ = pipe(opened)
    handler.setFormatter(Chatty())
    handler.lost = 1
    within(10, lambda: say(handler, "outer"))
    assert read_all(reading) == "outer\ninner\n1 log lines were lost: the log could not be written\n"


def test_a_forked_child_can_log_and_does_not_repeat_its_parents_lines(opened: contextlib.ExitStack) -> None:
    handler, reading, _ = pipe(opened)
    say(handler, "p" * (PIPE_HOLDS + 10))
    assert handler._kept
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with handler._mine:
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    read_all(reading)
    child = os.fork()
    if not child:
        say(handler, "child")
        os._exit(0)
    try:
        assert os.waitpid(child, 0)[1] == 0
    finally:
        release.set()
        holder.join()
    assert read_all(reading) == "child\n"
    handler.flush()
    assert read_all(reading) == "p" * 10 + "\n"


CHECKED = ("CALL", "RESUME", "JUMP_BACKWARD")
"""After these instructions, and only there, the interpreter looks whether another thread has raised something here."""


class RaiseAt:
    """Traces the handler in this thread, and raises Shutdown at the nth place where another thread's may arrive."""

    def __init__(self, n: int) -> None:
        self.left = n
        self.last: dict[FrameType, str] = {}

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename not in (log_sink.__file__, logging.__file__):
            return None
        frame.f_trace_opcodes = True
        return self.local

    def local(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            last = self.last.get(frame, "RESUME")
            self.last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if last.startswith(CHECKED):
                self.left -= 1
                if self.left == 0:
                    sys.settrace(None)
                    raise Shutdown
        return self.local


def test_a_shutdown_that_arrives_anywhere_does_not_lock_the_log(opened: contextlib.ExitStack) -> None:
    before = sys.gettrace()
    handler, reading, _ = pipe(opened)
    for n in range(1, 2_000):
        trace = RaiseAt(n)
        sys.settrace(trace)
        try:
            with contextlib.suppress(Shutdown):
                say(handler, "x")
        finally:
            sys.settrace(before)
        within(10, lambda: say(handler, "from another thread"))
        assert "from another thread\n" in read_all(reading), f"instruction {n}"
        if trace.left > 0:
            break
    assert 15 < n < 2_000

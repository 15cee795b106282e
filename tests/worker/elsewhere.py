"""A program on a system that is not Unix, as far as one can be had here: Windows' name, and none of Unix's modules.

Run by `test_elsewhere.py` with an address over TCP; prints `fine` at the end. The standard library's own modules are
imported before Unix goes, since those are the ones that Windows has others for.
"""

from __future__ import annotations

import asyncio
import importlib.abc
import logging.handlers
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import redis.asyncio  # redis-py and its own imports are not what is tried here
import redis.connection

MODULES = (
    "resource",
    "fcntl",
    "pwd",
    "grp",
    "termios",
    "tty",
    "pty",
    "syslog",
    "readline",
    "_posixsubprocess",
    "posix",
)
ATTRIBUTES: dict[ModuleType, list[str]] = {
    os: (
        "fork forkpty geteuid getuid getgid getegid getpgid getpgrp setsid setpgid killpg register_at_fork "
        "nice wait waitid chown getloadavg sysconf uname sched_getaffinity mkfifo WNOHANG O_NONBLOCK O_NOCTTY O_CLOEXEC"
    ).split(),
    select: "poll epoll POLLIN POLLOUT POLLERR POLLHUP PIPE_BUF".split(),
    socket: ["AF_UNIX", "SO_REUSEPORT", "TCP_USER_TIMEOUT"],
    signal: (
        "SIGTSTP SIGTTIN SIGUSR1 SIGUSR2 SIGKILL SIGHUP SIGCHLD SIGCONT SIGALRM SIGQUIT SIGSTOP SIGPIPE alarm pause "
        "pthread_sigmask pthread_kill setitimer siginterrupt sigwait SIG_BLOCK SIG_SETMASK"
    ).split(),
    time: "CLOCK_BOOTTIME CLOCK_MONOTONIC CLOCK_REALTIME clock_gettime clock_gettime_ns tzset".split(),
}


class NoUnix(importlib.abc.MetaPathFinder):
    """Finds none of Unix's modules."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name in MODULES:
            raise ImportError(f"no module {name} on this system", name=name)


def leave_unix() -> None:
    _ = asyncio, logging.handlers, multiprocessing, subprocess, tempfile, redis.connection
    unix, pair = socket.AF_UNIX, socket.socketpair
    vars(socket)["socketpair"] = lambda *_given: pair(unix)  # Windows has one that asyncio uses
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, NoUnix())
    for module, names in ATTRIBUTES.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.platform = "win32"


def main(url: str) -> None:
    import pillion
    from pillion import testing

    @pillion.job
    def doubled(number: int) -> int:
        return number * 2

    @pillion.job
    async def adoubled(number: int) -> int:
        return number * 2

    with testing.fake() as jobs:
        doubled.perform_async(3)
        adoubled.perform_in(60, 4)
        assert [job["args"] for job in jobs] == [[3], [4]]
        assert jobs.perform_one() == 6
        assert jobs.drain() == 1
    with testing.inline():
        assert doubled.perform_async(5) is not None
        assert adoubled.perform_async(5) is not None

    pillion.configure(url)
    doubled.perform_async(6)
    doubled.perform_in(60, 7)
    assert asyncio.run(adoubled.aperform_async(8)) is not None
    assert len(adoubled.perform_bulk([(1,), (2,)])) == 2
    assert pillion.Client(url).push({"class": "by_name", "args": []}) is not None

    refused("worker", lambda: pillion.Worker)
    refused("worker", lambda: pillion.embed)
    refused("embedded server", lambda: pillion.Setup({"url": None}).redis_settings())
    print("fine")


def refused(what: str, act: Any) -> None:
    """What does need Unix says so, and what to do."""
    import pillion

    told = f"{what} raised nothing"
    try:
        act()
    except (pillion.BootError, pillion.ConfigError) as error:
        told = str(error)
    assert f"{what} needs Linux or macOS, got Windows; " in told, told


if __name__ == "__main__":
    leave_unix()
    main(sys.argv[1])

"""What `ps` and `top` show of a worker: its title, `pillion 1.0 shop [3 of 10 busy] stopping`, and its threads' names.

The title needs the extra `title` (setproctitle); without it the title stays what it was. Threads are named on Linux,
for `ps -L` and `top -H`: `default.1`, `fetcher.default`, `heartbeat`."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from pillion.config import Config
from pillion.version import __version__
from pillion.worker import identity

MOST_SIGNS = 15
"""What Linux keeps of a thread's name."""


class Title:
    """Sets the title of this process."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._set = _setter()

    def show(self, busy: int, *, stopping: bool) -> None:
        """Say how many jobs run, and whether new ones are taken."""
        if self._set is not None:
            self._set(title(self._config, busy, stopping=stopping))


def name_process(role: str) -> None:
    """Say what a process is that runs no jobs itself."""
    if (setter := _setter()) is not None:
        setter(f"pillion {__version__} {role}")


def title(config: Config, busy: int, *, stopping: bool) -> str:
    """The words, as Sidekiq orders them."""
    words = ["pillion", __version__, identity.tag(config), f"[{busy} of {config.concurrency} busy]"]
    return " ".join(word for word in (*words, "stopping" * stopping) if word)


def _setter() -> Callable[[str], None] | None:
    try:
        from setproctitle import setproctitle
    except ImportError:
        return None
    setter: Callable[[str], None] = setproctitle
    return setter


def name_thread() -> None:
    """Tell the system this thread's name. A thread calls it first thing; a new one has its parent's name."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # no /proc here: the name is for people only
            Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(system_name(), "utf-8")


def system_name() -> str:
    """This thread's name as short as the system wants it. A number at its end tells it from its neighbours, and stays.

    Python 3.14 sets names by itself, and cuts `pillion.default.1` after `pillion.default`.
    """
    name = threading.current_thread().name.removeprefix("pillion.")
    head, dot, number = name.rpartition(".")
    tail = dot + number if number.isdigit() else ""
    return (head if tail else name)[: MOST_SIGNS - len(tail)] + tail

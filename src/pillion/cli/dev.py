"""`pillion dev APP`: everything in one terminal: a server if none is configured, a worker, and a new one on every save.

This process keeps the embedded server alive and supervises one `pillion worker` as its child, in a process group of its
own so that a Ctrl-C reaches it once, from here. A save of a Python or configuration file stops the child as any worker
stops (its jobs finish, or go back to their queue) and starts the next. Without `watchfiles` everything but the restart
works. If this process is killed with -9, the embedded server goes, and the child is left to be stopped by hand.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from pillion.cli import say
from pillion.cli.settings import use_for_worker, worker_options

if TYPE_CHECKING:
    from pillion.setup import Setup

FLAGS = {
    "concurrency": "-c",
    "environment": "-e",
    "tag": "-g",
    "queues": "-q",
    "require": "-r",
    "timeout": "-t",
    "file": "-C",
    "log_level": "--log-level",
}
QUICK_STOP = "3"
WATCHED = (".toml", ".yml", ".yaml")
LOOK_EVERY = 100  # milliseconds
GRACE = 15.0


@click.command("dev")
@click.argument("app", nargs=-1, metavar="[APP...]")
@worker_options
@click.option("--web/--no-web", default=True, help="The dashboard, on http://127.0.0.1:9300; shown unless --no-web.")
def command(app: tuple[str, ...], web: bool, **options: Any) -> int:
    """Embedded server, worker, dashboard and reload in one terminal.

    Starts a server of the project's own if no address is configured, runs a worker with APP, and restarts it when you
    save a file. Unless queues are configured, it serves those of every job that APP defines. Takes the flags of
    `pillion worker`. Ctrl-C stops all of it.
    """
    from pillion.cli.web import Beside

    setup = use_for_worker(app, options)
    environment = {**os.environ, **_server(setup)}
    words = [sys.executable, "-P", "-m", "pillion", "worker", *app, "--all-queues", *_flags(setup, options)]
    watch = _watcher(Path.cwd())
    shown = Beside.start(setup) if web else None
    try:
        return Supervisor(words, environment, setup.config.timeout).run(watch)
    finally:
        if shown is not None:
            shown.stop()


def _server(setup: Setup) -> dict[str, str]:
    """The variable that tells the worker about the embedded server; empty where an address is configured."""
    from pillion import embedded

    config = setup.config
    if config.redis.is_somewhere:
        return {}
    return {"PILLION_REDIS_URL": embedded.ensure(environment=config.environment, create=True)}


def _flags(setup: Setup, options: dict[str, Any]) -> list[str]:
    """The same command line for the worker; unless somebody said otherwise, a restart does not wait long for jobs."""
    words = ["-v"] if options["verbose"] else []
    for name, flag in FLAGS.items():
        value = options[name]
        for item in value if isinstance(value, tuple) else (value,):
            words += [flag, str(item)] if item is not None else []
    return words if "timeout" in setup.resolved.sources else [*words, "-t", QUICK_STOP]


class Supervisor:
    """Runs the worker, again after every change, until told to stop."""

    def __init__(self, words: list[str], environment: dict[str, str], timeout: float) -> None:
        self._words = words
        self._environment = environment
        self._patience = timeout + GRACE
        self._child: subprocess.Popen[bytes] | None = None
        self.stopping = threading.Event()

    def run(self, watch: Iterator[set[str]] | None) -> int:
        """Run until a signal, or until the worker ends by itself; returns the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._pass_on)
        if watch is None:
            return self._ended(self._start())
        return self._restart_on(watch)

    def _restart_on(self, watch: Iterable[set[str]]) -> int:
        child = None
        for changed in watch:
            if self.stopping.is_set():
                break
            if child is None:
                child = self._start()
            elif changed:
                say.note(f"pillion: {', '.join(sorted(changed))} changed, restarting the worker")
                self._stop(child)
                if self.stopping.is_set():
                    break
                child = self._start()
            elif child.poll() == 0:
                return 0
            elif self._has_just_failed(child):
                say.note(f"pillion: the worker ended with exit code {child.returncode}; save a file to start it again")
        return self._ended(child) if child else 0

    def _ended(self, child: subprocess.Popen[bytes]) -> int:
        """Wait for the worker and tell its exit code as ours; one that a signal ended as it should counts as done."""
        code = child.wait()
        if self.stopping.is_set() and -code in (signal.SIGINT, signal.SIGTERM):
            return 0
        return code if code >= 0 else 128 - code

    def _start(self) -> subprocess.Popen[bytes]:
        self._child = subprocess.Popen(self._words, env=self._environment, process_group=0)
        if self.stopping.is_set():  # a signal that came while the child was not there yet
            self._child.send_signal(signal.SIGTERM)
        return self._child

    def _stop(self, child: subprocess.Popen[bytes]) -> None:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(self._patience)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _has_just_failed(self, child: subprocess.Popen[bytes]) -> bool:
        if child.poll() is None or self._child is None:
            return False
        self._child = None
        return True

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self.stopping.set()
        child = self._child
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


def _watcher(folder: Path) -> Iterator[set[str]] | None:
    """Sets of changed files, empty ones in between; None, and a line that says why, where that cannot be had."""
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        say.note("pillion: no restart on save without watchfiles; to have it: pip install 'pillion[reload]'")
        return None
    changes = watch(
        folder,
        watch_filter=PythonFilter(extra_extensions=WATCHED),
        rust_timeout=LOOK_EVERY,
        yield_on_timeout=True,
        raise_interrupt=False,
    )
    return ({os.path.relpath(path, folder) for _, path in batch} for batch in changes)

"""The supervisor: one loop over signals, channels and the clock, without the app's code, a thread, or Redis.

    supervisor ──exec──> zygote            imports the app, forks
        │                  ├──fork──> child 1      a worker process as any other: own row, own leases
        └── a channel ─────┼──fork──> child 2
            to each        └──fork──> ...

Who is responsible for what:

- *A child* renews its own leases by stepping, and exits if a fetcher of its own is stuck (`watchdog.py`). After each
  look its watchdog reports here. One that has been silent for three periods hangs as a whole (frozen, or the
  interpreter held by C code): it is asked for its stacks (SIGQUIT), killed a second later, and then it is dead as any.
- *The zygote* is the parent of the children and tells at once when one has died.
- *The supervisor* then has a running child fence the dead one's owners and give its jobs back, without waiting for
  the lease. If nobody can, the lease runs out and any reaper does.

Killed with -9, each of them loses nothing. A child: as above. The zygote: its children run on, a new one is started.
The supervisor: every child finds its channel at its end and stops as if told by TERM, and the zygote ends.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pillion.clock import Clock
from pillion.worker.forking.channel import Channel
from pillion.worker.forking.messages import Alive, Exited, Forked, Hello, Message, Ready, Rescued, Running
from pillion.worker.supervisor.fleet import Fleet
from pillion.worker.supervisor.records import Child, Zygote
from pillion.worker.systemd import Systemd

log = logging.getLogger("pillion")

TICK = 0.5
BOOT_PATIENCE = 60.0
PERIODS = 3
PERIODS_PER_LEASE = 6
LEAST_SILENCE = 2.0
LAST_WORDS = 1.0
QUIET_PATIENCE = 900.0
STOP_GRACE = 15.0
DEAF_GRACE = 2.0
ZYGOTE_PATIENCE = 8.0
PR_SET_CHILD_SUBREAPER = 36
HANDLED = ("TERM", "INT", "TSTP", "TTIN", "USR2", "CHLD")


class Supervisor:
    """Runs until stopped by a signal. `command` gives the words that start a zygote with a descriptor's number."""

    def __init__(self, command: Callable[[int], Sequence[str]], environment: Mapping[str, str], clock: Clock) -> None:
        self._folder = _working_folder(environment)
        self._steady = clock.steady
        self._systemd = Systemd(environment)
        hidden = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")  # only this process speaks for the unit
        theirs = {name: value for name, value in environment.items() if name not in hidden}
        self.fleet = Fleet(lambda generation: Zygote(command, self._folder, theirs, generation, self._steady()))
        self._signals, self._wake = os.pipe()
        self._looked = self._awake_since = self._next_sign = self._steady()
        self._told_ready = False

    def run(self) -> int:
        """Supervise until everything has ended; returns the exit code."""
        adopt_orphans()
        with self._listening():
            while not self._is_over():
                self.fleet.settle(self._steady())
                self._wait(TICK)
                self._hear_signals()
                self._read()
                self._reap()
                self._judge(self._steady())
                self._tell_systemd()
            self._end_zygotes()
        return self.fleet.failed or 0

    def _is_over(self) -> bool:
        fleet = self.fleet
        return (fleet.stopping or fleet.failed is not None) and not fleet.children

    # -- what comes in ---------------------------------------------------------------------------------------------

    @contextmanager
    def _listening(self) -> Generator[None]:
        """Signals arrive as bytes in a pipe, each the number of one."""
        os.set_blocking(self._wake, False)
        os.set_blocking(self._signals, False)
        before = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        handlers = {name: signal.signal(_number(name), lambda _number, _frame: None) for name in HANDLED}
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            for name, handler in handlers.items():
                signal.signal(_number(name), handler)
            os.close(self._signals)
            os.close(self._wake)

    def _wait(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        for zygote in self.fleet.zygotes.values():
            if zygote.is_open:
                poll.register(zygote.channel.fileno(), select.POLLIN)
        for child in self.fleet.children.values():
            if child.deaf_since is None:
                poll.register(child.channel.fileno(), select.POLLIN)
        poll.poll(seconds * 1000)

    def _hear_signals(self) -> None:
        try:
            numbers = os.read(self._signals, 4096)
        except BlockingIOError:
            return
        for number in numbers:
            self._obey(signal.Signals(number))

    def _obey(self, number: signal.Signals) -> None:
        fleet, now = self.fleet, self._steady()
        if number in (signal.SIGTERM, signal.SIGINT):
            if not fleet.stopping:
                log.info("stopping %d processes", len(fleet.children))
                self._systemd.ending()
            fleet.stop(number, now)
        elif number == signal.SIGTSTP:
            fleet.go_quiet()
        elif number == signal.SIGUSR2 and not fleet.stopping:
            fleet.reload()
        elif number == signal.SIGTTIN:
            for child in fleet.children.values():
                log.warning("%s is %s: %d MB, %d jobs run", child, child.state, child.last.rss >> 20, child.last.busy)
                if child.state != "booting":
                    child.signal(number)

    def _read(self) -> None:
        for zygote in list(self.fleet.zygotes.values()):
            self._read_zygote(zygote)
        for child in list(self.fleet.children.values()):
            if child.deaf_since is None:
                self._read_child(child)

    def _read_zygote(self, zygote: Zygote) -> None:
        messages = _receive(zygote.channel) if zygote.is_open else []
        if messages is None:  # its end comes through `_reap`, with its exit code
            zygote.close()
        for message in messages or ():
            if isinstance(message, Ready):
                self.fleet.zygote_ready(zygote, message)
            elif isinstance(message, Forked | Exited) and (child := self.fleet.children.get(message.number)):
                if isinstance(message, Forked):
                    self.fleet.forked(child, message.pid)
                else:
                    self.fleet.child_ended(child, message.status, self._steady())

    def _read_child(self, child: Child) -> None:
        messages, now = _receive(child.channel), self._steady()
        if messages is None:
            child.deaf_since = now
        for message in messages or ():
            child.heard = now
            match message:
                case Hello(identity):
                    child.identity = identity
                case Running():
                    self.fleet.child_runs(child, now)
                case Alive():
                    child.last = message
                case Rescued(identity):
                    self.fleet.rescued(identity)
                case _:
                    log.error("%s said what it has no business to say: %r", child, message)

    def _reap(self) -> None:
        """Wait for zygotes, for children whose zygote is gone, and as process 1 of a container for anyone's."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            if zygote := self.fleet.zygotes.get(pid):
                self._read_zygote(zygote)
                self.fleet.zygote_ended(zygote, code, self._steady())
            for child in [child for child in self.fleet.children.values() if child.pid == pid]:
                self.fleet.child_ended(child, code, self._steady())

    # -- what time brings ------------------------------------------------------------------------------------------

    def _judge(self, now: float) -> None:
        """Look at every child: is it stuck, worn, late? Time that this process itself stood still does not count."""
        if now - self._looked > TICK + LEAST_SILENCE:
            self._awake_since = now
        self._looked = now
        settings = self.fleet.settings
        for child in list(self.fleet.children.values()):
            if child.deaf_since is not None and now - child.deaf_since > DEAF_GRACE:
                self._end_deaf(child, now)
            elif child.doomed_since is not None:
                self._kill_if(now - child.doomed_since > LAST_WORDS, child, "")
            elif settings is not None:
                self._judge_child(child, settings, now)

    def _judge_child(self, child: Child, settings: Ready, now: float) -> None:
        lasted = now - max(child.since, self._awake_since)
        silent = now - max(child.heard, self._awake_since)
        if child.state == "booting":
            self._kill_if(lasted > BOOT_PATIENCE, child, f"it did not start within {BOOT_PATIENCE:g} s")
            if lasted > ZYGOTE_PATIENCE and not child.pid:
                self._end_zygote_of(child)
        elif child.state == "stopping":
            late = lasted > settings.timeout + STOP_GRACE
            self._kill_if(late, child, f"it did not stop within {settings.timeout + STOP_GRACE:g} s")
        elif silent > max(PERIODS * settings.lease / PERIODS_PER_LEASE, LEAST_SILENCE):
            log.error("%s has been silent for %.1f s; killing it", child, silent)
            child.doomed_since = now
            child.signal(signal.SIGQUIT)
        elif child.state == "quiet":
            if (child.heard > child.since and not child.last.busy) or lasted > QUIET_PATIENCE:
                self.fleet.stop_child(child, now)
        else:
            self._weigh(child, settings)

    def _weigh(self, child: Child, settings: Ready) -> None:
        if child.worn:
            return
        if settings.max_memory and child.last.rss >= settings.max_memory:
            child.worn = True
            log.info("%s uses %d MB; replacing it", child, child.last.rss >> 20)
        elif settings.max_jobs and child.last.done >= settings.max_jobs:
            child.worn = True
            log.info("%s has run %d jobs; replacing it", child, child.last.done)

    def _kill_if(self, condition: bool, child: Child, why: str) -> None:
        if condition:
            if why:
                log.error("killing %s: %s", child, why)
            child.signal(signal.SIGKILL)

    def _end_deaf(self, child: Child, now: float) -> None:
        """Its channel is closed, so it cannot be supervised. Where nobody waits for it, its being gone is its end."""
        if not child.pid or not child.signal(signal.SIGKILL):
            self.fleet.child_ended(child, None, now)
        elif child.deaf_since is not None and now - child.deaf_since > ZYGOTE_PATIENCE:
            self._end_zygote_of(child)

    def _end_zygote_of(self, child: Child) -> None:
        """It neither forks nor waits for the dead: with it gone, its children become ours."""
        if not child.zygote.has_ended:
            log.error("the zygote (pid %d) does not answer; killing it", child.zygote.pid)
            child.zygote.signal(signal.SIGKILL)

    def _tell_systemd(self) -> None:
        if self.fleet.was_complete and not self._told_ready:
            self._told_ready = True
            self._systemd.ready()
        if self._systemd.is_watching and self._steady() >= self._next_sign:
            self._next_sign = self._steady() + self._systemd.turn()

    def _end_zygotes(self) -> None:
        for zygote in self.fleet.zygotes.values():
            zygote.close()
            zygote.signal(signal.SIGTERM)
        until = self._steady() + DEAF_GRACE
        while self.fleet.zygotes:
            if self._steady() >= until:
                for zygote in self.fleet.zygotes.values():
                    zygote.signal(signal.SIGKILL)
            self._wait(TICK)
            self._hear_signals()
            self._reap()


def adopt_orphans() -> None:
    """Become the parent of children whose zygote dies, where the kernel offers that (Linux), to learn how they end."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _working_folder(environment: Mapping[str, str]) -> Path:
    """Where to start zygotes: the name by which we were started here, so that a link may lead to a new release."""
    named, here = Path(environment.get("PWD", "")), Path.cwd()
    return named if named.is_absolute() and named.is_dir() and named.samefile(here) else here


def _receive(channel: Channel) -> list[Message] | None:
    try:
        return channel.receive()
    except msgspec.DecodeError as error:
        log.error("a process of another version of Pillion: %s", error)
        return None


def _number(name: str) -> signal.Signals:
    return signal.Signals[f"SIG{name}"]

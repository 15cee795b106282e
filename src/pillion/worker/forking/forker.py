"""A process with one thread and no connections that forks others when it is told to: the zygote, and the helper.

It has imported what its children need, so that they are there in milliseconds and share its memory. `Forker.run` is
its whole life: a loop over one channel and SIGCHLD. In a forked child `run` returns, and the child goes its own way;
in the forker itself it returns when the channel has ended.

The forker is the parent of its children. It alone waits for them and kills them, so a process id in its table means
that child and no other. Killed itself, it leaves them running; whoever holds the other end of their descriptors sees to
them.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from contextlib import suppress

import msgspec

from pillion.worker.forking.channel import Channel
from pillion.worker.forking.messages import Exited, Fork, Forked, Kill

PR_SET_PDEATHSIG = 1


class Birth(msgspec.Struct, frozen=True):
    """What a forked process knows about itself.

    Attributes:
        number: how its forker and whoever asked for it call it.
        descriptor: the open descriptor that came with the order.
        herald: as in the order.
        asked_by: the process that started its forker.
    """

    number: int
    descriptor: int
    herald: bool
    asked_by: int


class Forker:
    """Forks on request, waits for what it forked, and tells how that ended.

    With `mortal`, children are killed when the forker ends, by whatever cause; without, they live on.
    """

    def __init__(self, control: Channel, *, mortal: bool) -> None:
        self._control = control
        self._mortal = mortal
        self._asked_by = os.getppid()
        self._children: dict[int, int] = {}
        self._sleep, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._sleep, False)

    def run(self) -> Birth | None:
        """Fork until the channel ends. Returns the `Birth` in each child, None in the forker when it is over."""
        before = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        handler = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        birth = self._serve()
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGCHLD, handler)
        os.close(self._sleep)
        os.close(self._wake)
        if birth is None and self._mortal:
            for pid in self._children.values():
                os.kill(pid, signal.SIGKILL)
        return birth

    def _serve(self) -> Birth | None:
        while True:
            _wait(self._control.fileno(), self._sleep)
            with suppress(BlockingIOError):
                os.read(self._sleep, 4096)
            self._reap()
            messages = self._control.receive()
            if messages is None:
                return None
            for message in messages:
                if isinstance(message, Kill) and message.number in self._children:
                    os.kill(self._children[message.number], signal.SIGKILL)
                elif isinstance(message, Fork) and (birth := self._fork(message)):
                    return birth

    def _fork(self, order: Fork) -> Birth | None:
        descriptor = self._control.take_descriptor()
        with suppress(Exception):  # or what the app printed while it was imported appears in each child
            sys.stdout.flush()
        mine = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(descriptor)
            self._control.send(Exited(order.number, None))
            return None
        if pid == 0:
            self._become_child(mine)
            return Birth(order.number, descriptor, order.herald, self._asked_by)
        os.close(descriptor)
        self._children[order.number] = pid
        self._control.send(Forked(order.number, pid))
        return None

    def _become_child(self, forker: int) -> None:
        """Let go of everything that is the forker's."""
        os.setpgid(0, 0)
        if self._mortal:
            die_with_parent(forker)
        self._control.close()
        self._children.clear()

    def _reap(self) -> None:
        for number, pid in list(self._children.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self._children[number]
                self._control.send(Exited(number, os.waitstatus_to_exitcode(status)))


def die_with_parent(parent: int) -> None:
    """Be killed when the parent dies, where the kernel offers that (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _wait(*descriptors: int) -> None:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    poll.poll()

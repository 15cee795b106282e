"""What the supervisor knows of its processes: one `Child` per worker process, one `Zygote` per generation of code.

They hold descriptors and process ids and do what is done to one process: fork, signal, close. Who should run and who
should go is decided in `fleet.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

from pillion.worker.forking.channel import Channel
from pillion.worker.forking.messages import Alive, Fork, Ready

State: TypeAlias = Literal["booting", "running", "quiet", "stopping"]


class Child:
    """A worker process.

    Attributes:
        number: what its zygote calls it.
        slot: its place among the N, which whoever replaces it takes over.
        pid: 0 until the zygote has told it.
        state: booting -> running (-> quiet) -> stopping; it is forgotten when it has ended.
        since: when that began; all times are steady seconds.
        born, heard: when it was asked for, and when it last spoke.
        identity: under which it holds leases; empty until it has told it.
        worn: it has reached the limit of memory or of jobs.
        deaf_since: since when its end of the channel is closed; None while it is not.
        doomed_since: when it was asked for its stacks, before it is killed.
    """

    def __init__(self, number: int, slot: int, zygote: Zygote, channel: Channel, now: float) -> None:
        self.number = number
        self.slot = slot
        self.zygote = zygote
        self.generation = zygote.generation
        self.channel = channel
        self.pid = 0
        self.identity = ""
        self.state: State = "booting"
        self.since = self.born = self.heard = now
        self.last = Alive(0, 0, 0)
        self.worn = False
        self.deaf_since: float | None = None
        self.doomed_since: float | None = None

    def enter(self, state: State, now: float) -> None:
        self.state, self.since = state, now

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal. False if there is no such process any more."""
        if not self.pid:
            return True
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def __str__(self) -> str:
        return f"process {self.slot + 1} (pid {self.pid})"


class Zygote:
    """A process that has imported the app and forks workers.

    Attributes:
        generation: raised by each USR2; children of an older one are to be replaced.
        ready: what it said when it had imported the app; None before.
        is_open: whether its channel is.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        folder: Path,
        environment: Mapping[str, str],
        generation: int,
        now: float,
    ) -> None:
        self.generation = generation
        self.born = now
        self.ready: Ready | None = None
        self.channel, theirs = Channel.pair()
        self.is_open = True
        self._popen = subprocess.Popen(
            command(theirs.fileno()),
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            process_group=0,
            cwd=folder,
            env=environment,
        )
        theirs.close()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def has_ended(self) -> bool:
        return self._popen.returncode is not None

    def fork(self, number: int, *, herald: bool) -> Channel:
        """Ask for a process; the channel to it."""
        ours, theirs = Channel.pair()
        self.channel.send(Fork(number, herald), theirs.fileno())
        theirs.close()
        return ours

    def ended(self, status: int) -> None:
        """Somebody has waited for it."""
        self._popen.returncode = status
        self.close()

    def close(self) -> None:
        """Let it go: it ends when its channel does. Its children live on."""
        self.is_open = False
        self.channel.close()

    def signal(self, number: signal.Signals) -> None:
        if not self.has_ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def was_killed(status: int | None) -> bool:
    """Whether somebody else ended it, which says nothing about its code."""
    return status in (-signal.SIGKILL, -signal.SIGTERM)


def how(status: int | None) -> str:
    """How a process ended, in words."""
    if status is None:
        return "is gone"
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"

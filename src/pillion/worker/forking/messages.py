"""Everything that the processes of one `pillion worker` say to each other, on one page.

    supervisor  --Fork, Kill-->     zygote     --Ready, Forked, Exited-->    supervisor
    supervisor  --Rescue-->         child      --Hello, Running, Alive, Rescued-->  supervisor
    worker      --Fork, Kill-->     helper     --Forked, Exited-->           worker

A message is a frozen value, sent as one line of JSON over a pair of Unix sockets (`channel.py`). The end of the stream
is the message that cannot get lost: the other process is gone. Two versions of Pillion may meet in one worker, after
an upgrade and USR2: then `Ready` shows another `PROTOCOL`, and the supervisor keeps what it has.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

PROTOCOL = 1


class _Said(msgspec.Struct, frozen=True, tag=True, tag_field="say"):
    """What all messages have in common: their class's name tells them apart."""


class Ready(_Said, frozen=True):
    """The app is imported. Tells what the app's own code may have decided, for the supervisor imports none of it.

    Attributes:
        protocol: the version of this page.
        processes: how many children there should be.
        timeout, lease: as configured, in seconds.
        max_memory: bytes of resident memory from which a child is replaced; None for never.
        max_jobs: jobs after which it is; None for never.
    """

    protocol: int
    processes: int
    timeout: float
    lease: float
    max_memory: int | None = None
    max_jobs: int | None = None


class Fork(_Said, frozen=True):
    """Fork a process and give it the descriptor that comes with this message.

    Attributes:
        number: how both sides call it; never used twice on a channel.
        herald: it is the first of all, and tells the terminal what all have in common.
    """

    number: int
    herald: bool = False


class Forked(_Said, frozen=True):
    """It is there."""

    number: int
    pid: int


class Exited(_Said, frozen=True):
    """It is gone. `status` is its exit code, or minus the signal that killed it; None if it could not be forked."""

    number: int
    status: int | None


class Kill(_Said, frozen=True):
    """Send it SIGKILL. Asked of its parent, which alone can be sure that the process id still means this process."""

    number: int


class Hello(_Said, frozen=True):
    """A child's first words: the identity under which it is going to hold leases."""

    identity: str


class Running(_Said, frozen=True):
    """It has started and takes jobs."""


class Alive(_Said, frozen=True):
    """Its watchdog has looked at every fetcher: the process as a whole is not stuck.

    Attributes:
        rss: resident memory in bytes.
        busy: jobs that run now.
        done: jobs settled so far.
    """

    rss: int
    busy: int
    done: int


class Rescue(_Said, frozen=True):
    """A process of this identity is dead: fence its owners and give their jobs back."""

    identity: str


class Rescued(_Said, frozen=True):
    """That is done."""

    identity: str


Message: TypeAlias = Ready | Fork | Forked | Exited | Kill | Hello | Running | Alive | Rescue | Rescued

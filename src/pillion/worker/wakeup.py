"""Lets the main thread sleep until a signal comes, or another thread wants it.

Python runs a signal's handler in the main thread, when that gets to it. A main thread that goes to sleep on a lock or
a queue just as the signal arrives does not get to it: nothing wakes it. So it sleeps on a pipe, into which the
interpreter writes a byte for each signal the moment it arrives (`signal.set_wakeup_fd`)."""

from __future__ import annotations

import os
import signal


class Wakeup:
    """A pipe to sleep on. Made in the main thread, and kept until the process ends."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._in, False)
        self._before = signal.set_wakeup_fd(self._in, warn_on_full_buffer=False)

    def wake(self) -> None:
        """End the sleep, or the next one."""
        try:
            os.write(self._in, b"!")
        except BlockingIOError:
            return  # so many wake-ups are on their way that one more says nothing

    def sleep(self) -> None:
        """Sleep until a signal has come or somebody called `wake`, since the last sleep. It may end for nothing."""
        os.read(self._out, 4096)

    def restore(self) -> None:
        """Give signals back to whoever was woken by them before."""
        signal.set_wakeup_fd(self._before)

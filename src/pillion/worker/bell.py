"""What ends a fetcher's sleep: anybody may ring, from any thread, and a socket may have something to say.

A pipe, because a select can wait for it and for a socket at once. A ring that comes before the sleep ends it at once;
rings that come together are one. A crash leaves nothing."""

from __future__ import annotations

import os
import select
import weakref

RINGS = 4096


class Bell:
    """A fetcher's own."""

    def __init__(self) -> None:
        self._in, self._out = os.pipe()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        end = weakref.finalize(self, _close, self._in, self._out)  # once no job thread knows us any more
        end.atexit = False
        self._listening: tuple[tuple[int, ...], select.poll] = (), select.poll()

    def ring(self) -> None:
        """End the sleep."""
        try:
            os.write(self._out, b"!")
        except (BlockingIOError, OSError):
            return

    def sleep(self, seconds: float, socket: int | None = None) -> tuple[bool, bool]:
        """Wait that long for a ring, or for that descriptor to be readable: (somebody rang, it is readable)."""
        descriptors = (self._in,) if socket is None else (self._in, socket)
        if self._listening[0] != descriptors:
            poll = select.poll()
            for descriptor in descriptors:
                poll.register(descriptor, select.POLLIN)
            self._listening = descriptors, poll
        ready = [descriptor for descriptor, _ in self._listening[1].poll(max(seconds, 0.0) * 1000)]
        rung = self._in in ready
        if rung:
            self._quieten()
        return rung, len(ready) > rung

    def _quieten(self) -> None:
        try:
            while len(os.read(self._in, RINGS)) == RINGS:
                pass
        except BlockingIOError:
            return


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

"""Every background loop of a worker is a `Service`: one thread, a stop event, and a `turn` that is called until then.

`start` and `stop` may be called in any order, from any thread, any number of times. A turn that raises is reported and
followed by the next one after a pause: a loop ends because it was told to, never because something broke.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pillion.worker.title import name_thread

log = logging.getLogger("pillion")

PAUSE_AFTER_ERROR = 1.0


class Service:
    """One loop in a thread of its own. Subclasses give `turn`, which returns the seconds to wait before the next."""

    name = "service"

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin turning. Does nothing if already started or stopped."""
        with self._lock:
            if self._thread is not None or self._stopping.is_set():
                return
            self._thread = threading.Thread(target=self._run, name=f"pillion.{self.name}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask the loop to end after its current turn; returns at once. Safe before start."""
        self._stopping.set()

    def join(self, timeout: float) -> bool:
        """Wait until the loop has ended. False if it has not within `timeout` seconds."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def turn(self) -> float:
        """Do one round of work and return how many seconds to wait before the next."""
        raise NotImplementedError

    def before(self) -> None:
        """Called in the loop's thread before its first turn."""

    def after(self) -> None:
        """Called in the loop's thread after its last turn."""

    def wait(self, seconds: float) -> None:
        """Wait before the next turn, or less if asked to stop."""
        self._stopping.wait(seconds)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def _run(self) -> None:
        name_thread()
        self._guard(self.before)
        while not self._stopping.is_set():
            self.wait(self._turn())
        self._guard(self.after)

    def _turn(self) -> float:
        try:
            return self.turn()
        except Exception:
            log.exception("%s: a round of work failed; going on", self.name)
            return PAUSE_AFTER_ERROR

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:
            log.exception("%s: starting or ending it failed", self.name)

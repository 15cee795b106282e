"""Tells systemd how this process is: ready, stopping, alive. Only where it asked, by NOTIFY_SOCKET.

With `Type=notify` a unit counts as started when its worker takes jobs; with `WatchdogSec=` systemd restarts a process
that no longer says that it is alive, which it does twice per period. The protocol is one datagram per message to a Unix
socket (sd_notify(3)). A failure is logged and changes nothing else."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from pillion.worker.service import Service

log = logging.getLogger("pillion")

PATIENCE = 1.0


class Systemd(Service):
    """Says what systemd wants to hear; as a service, that this process is alive. Silent where nobody asked."""

    name = "systemd"

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._period = _watchdog_period(environ)

    @property
    def is_watching(self) -> bool:
        """Whether it wants to hear that this process is alive."""
        return bool(self._address) and self._period > 0

    def ready(self) -> None:
        """The worker takes jobs."""
        self._say("READY=1")

    def ending(self) -> None:
        """The worker has begun to stop."""
        self._say("STOPPING=1")

    def turn(self) -> float:
        self._say("WATCHDOG=1")
        return self._period / 2

    def _say(self, state: str) -> None:
        if not self._address:
            return
        path = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(path)
                sock.sendall(state.encode())
        except (OSError, ValueError) as error:
            log.warning("systemd: could not say %s to %s: %s", state, self._address, error)


def _watchdog_period(environ: Mapping[str, str]) -> float:
    """Seconds within which systemd wants to hear from this process; 0 if it does not."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return max(int(environ.get("WATCHDOG_USEC", "0")), 0) / 1e6
    except ValueError:
        return 0.0

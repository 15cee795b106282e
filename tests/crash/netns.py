"""A network of its own for a worker: a namespace with one cable to this machine, which a test may pull or make one-way.

Root only, Linux only. A process enters by `enter`, before it has threads.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from pathlib import Path
from typing import Literal

CLONE_NEWNET = 0x40000000
Way = Literal["to the server", "from the server", "both"]
_numbers = itertools.count(1)


class Cable:
    """Between the namespace `name` and here. `here` is our address, `there` the worker's."""

    def __init__(self) -> None:
        number = os.getpid() % 8000 * 4 + next(_numbers) % 4
        self.name = f"pl{number}"
        block = 4 * (number % 16_000)
        self.here = f"10.77.{block // 256 % 256}.{block % 256 + 1}"
        self.there = f"10.77.{block // 256 % 256}.{block % 256 + 2}"
        self._host, self._guest = f"{self.name}h", f"{self.name}g"
        ip("netns", "add", self.name)
        try:
            ip("link", "add", self._host, "type", "veth", "peer", "name", self._guest)
            ip("link", "set", self._guest, "netns", self.name)
            ip("addr", "add", f"{self.here}/30", "dev", self._host)
            ip("link", "set", self._host, "up")
            self._inside("addr", "add", f"{self.there}/30", "dev", self._guest)
            self._inside("link", "set", self._guest, "up")
            self._inside("link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def pull(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        ip("link", "set", self._host, "down")

    def swallow(self, way: Way) -> None:
        """Packets on this way vanish."""
        if way != "from the server":
            self._inside("route", "add", "blackhole", f"{self.here}/32")
        if way != "to the server":
            ip("route", "add", "blackhole", f"{self.there}/32")

    def restore(self, way: Way) -> None:
        """They arrive again."""
        if way != "from the server":
            self._inside("route", "del", "blackhole", f"{self.here}/32")
        if way != "to the server":
            ip("route", "del", "blackhole", f"{self.there}/32")

    def close(self) -> None:
        """Take it away, with both ends."""
        for words in (("route", "del", "blackhole", f"{self.there}/32"), ("link", "del", self._host)):
            subprocess.run(["ip", *words], check=False, capture_output=True)
        ip("netns", "del", self.name)

    def _inside(self, *words: str) -> None:
        ip("-n", self.name, *words)


def enter(name: str) -> None:
    """Move this process into the namespace."""
    with Path("/var/run/netns", name).open("rb") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {name}")


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"

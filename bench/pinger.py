"""How long a PING takes, again and again: `python -m bench.pinger PORT` until its stdin ends, then one line of JSON.

A process of its own, so that nothing else in the harness delays it.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time

from bench import ROOT
from bench.results import percentiles

PAUSE = 0.0005


def start(port: int) -> subprocess.Popen[str]:
    """Begin to ping."""
    words = [sys.executable, "-m", "bench.pinger", str(port)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def finish(pinger: subprocess.Popen[str]) -> dict[str, float]:
    """End it; its percentiles in ms."""
    out, _ = pinger.communicate()
    found: dict[str, float] = json.loads(out)
    return found


def main() -> None:
    connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = []
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        begun = time.perf_counter()
        connection.sendall(b"PING\r\n")
        connection.recv(64)
        times.append((time.perf_counter() - begun) * 1000)
    print(json.dumps(percentiles(times)))


if __name__ == "__main__":
    main()

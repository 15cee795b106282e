"""A proxy between a worker and its server: it adds latency, and counts the commands that clients send.

    python -m bench.proxy PORT MILLISECONDS     prints the port it listens on; after each line on stdin, the count

Half of the milliseconds are added each way. What a script calls inside the server does not pass here and is not
counted. One thread and a heap: it is no match for a server, but it says what it spent, and a peer that waits for the
network is not waiting for it.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import hiredis

from bench import ROOT

CHUNK = 262_144


class Proxy:
    """The process, seen from the harness."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.url = f"redis://127.0.0.1:{int(process.stdout.readline())}/0"

    def commands(self) -> float:
        """How many commands have passed."""
        return float(self._ask().split()[0])

    def cpu(self) -> float:
        """CPU seconds it has spent."""
        return float(self._ask().split()[1])

    def _ask(self) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


@contextmanager
def between(port: int, milliseconds: float) -> Iterator[Proxy]:
    """A proxy to the server on `port`, for the length of a block."""
    words = [sys.executable, "-m", "bench.proxy", str(port), str(milliseconds)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        try:
            yield Proxy(process)
        finally:
            process.terminate()


class Relay:
    """All connections, what is on its way, and the loop."""

    def __init__(self, port: int, delay: float) -> None:
        self.target, self.delay, self.commands = port, delay, 0
        self.selector = selectors.SelectSelector()  # epoll would round every wait up to a millisecond
        self.peers: dict[socket.socket, socket.socket] = {}
        self.readers: dict[socket.socket, hiredis.Reader] = {}
        self.flying: list[tuple[float, int, socket.socket, bytes]] = []
        self.numbers = count()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self._tell)
        print(self.listener.getsockname()[1], flush=True)

    def run(self) -> None:
        while True:
            self._deliver()
            for key, _ in self.selector.select(self._patience()):
                if key.data is not None:
                    key.data()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._read(key.fileobj)

    def _patience(self) -> float | None:
        """Seconds until the next delivery."""
        return max(0.0, self.flying[0][0] - time.perf_counter()) if self.flying else None

    def _tell(self) -> None:
        if not sys.stdin.readline():
            sys.exit()
        print(self.commands, time.process_time(), flush=True)

    def _accept(self) -> None:
        client, _ = self.listener.accept()
        server = socket.create_connection(("127.0.0.1", self.target))
        self.readers[client] = hiredis.Reader()
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peers[one] = other
            self.selector.register(one, selectors.EVENT_READ)

    def _read(self, end: socket.socket) -> None:
        if end not in self.peers:
            return
        try:
            data = end.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            self._close(end)
            return
        if (reader := self.readers.get(end)) is not None:
            reader.feed(data)
            while reader.gets() is not False:
                self.commands += 1
        heapq.heappush(self.flying, (time.perf_counter() + self.delay, next(self.numbers), self.peers[end], data))

    def _deliver(self) -> None:
        while self.flying and self.flying[0][0] <= time.perf_counter():
            _, _, end, data = heapq.heappop(self.flying)
            try:
                end.sendall(data)
            except OSError:
                self._close(end)

    def _close(self, end: socket.socket) -> None:
        for each in (end, self.peers.get(end)):
            if each is not None and each in self.peers:
                self.selector.unregister(each)
                del self.peers[each]
                self.readers.pop(each, None)
                each.close()


if __name__ == "__main__":
    Relay(int(sys.argv[1]), float(sys.argv[2]) / 2000).run()

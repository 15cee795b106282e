"""A bad line to a server: slow, narrow, in crumbs, or dead without anybody having been told.

It listens on a loopback port, or at a path, and passes bytes on to a Unix socket, one thread for each direction of each
connection, and knows nothing of what they mean; `proxy.py` does.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.proxy import hang_up, receive, send


class Line:
    """Passes everything on, as badly as it is told.

    Attributes:
        url: its address.
        server: the socket that new connections go to.
        delay: seconds that each piece is on its way, asked anew for each.
        piece: bytes that travel together, 0 for as many as come.
        rate: bytes per second, 0 for no limit.
    """

    def __init__(self, server: str, path: Path | None = None) -> None:
        self.server = server
        self.delay: Callable[[], float] = lambda: 0.0
        self.piece = 0
        self.rate = 0.0
        self._dead: set[socket.socket] = set()
        self._sockets: list[socket.socket] = []
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
            self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        else:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(str(path))
            self._listener.listen(64)
            self.url = f"unix://{path}"
        threading.Thread(target=self._accept, daemon=True).start()

    def die(self) -> None:
        """Carry nothing any more on connections that are open, and tell neither side. New ones are in order."""
        self._dead.update(self._sockets)

    def cut(self) -> None:
        """Close every connection."""
        for each in self._sockets:
            hang_up(each)

    def mend(self) -> None:
        """Be a good line for new connections, and for those that are not dead."""
        self.delay, self.piece, self.rate = lambda: 0.0, 0, 0.0

    def close(self) -> None:
        hang_up(self._listener)
        self._listener.close()
        self.cut()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                server.connect(self.server)
            except OSError:
                client.close()
                server.close()
                continue
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, server]
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        while data := receive(source):
            size = self.piece or len(data)
            for start in range(0, len(data), size):
                piece = data[start : start + size]
                time.sleep(self.delay() + (len(piece) / self.rate if self.rate else 0.0))
                if source in self._dead:
                    return
                if not send(target, piece):
                    break
        if source not in self._dead:
            hang_up(target)

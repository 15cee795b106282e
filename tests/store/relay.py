"""A loopback port in front of a server that counts, holds and cuts what goes through it. For the tests of the store.

Replies are told apart by their lines, so it suits pushes, whose replies have one line each. Connections that are open
keep their server when `server` changes; new ones go to the new one, as behind an address that has moved.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import hiredis

from tests.proxy import hang_up, receive, send

SMALL = 4_096
_MORE = object()


class Relay:
    """Listens on 127.0.0.1 and passes on to a Unix socket.

    Attributes:
        url: its address.
        server: the socket that new connections go to.
        opened: how many connections there have been.
        met: called for each new connection before it goes on, with its number from 1.
        heard: called for each command before it goes on.
        asked: every command that came through, in order.
        gather: commands that are held back until so many stand there, 0 for none.
        replies: how many lines of reply go on before everything is cut, None for no end.
        until: bytes of the server, before which nothing goes on that it says; then all of it does, in one piece.
        deaf: read nothing more from clients.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self.opened = 0
        self.met: Callable[[int], object] = lambda number: None
        self.heard: Callable[[list[bytes]], object] = lambda words: None
        self.asked: list[list[bytes]] = []
        self.gather = 0
        self.replies: int | None = None
        self.until = b""
        self.deaf = False
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._spawn(self._accept)

    def names(self) -> list[str]:
        """The verbs that came through, without what a connection says when it is new."""
        return [words[0].decode() for words in self.asked if words[0] not in (b"HELLO", b"CLIENT", b"SELECT")]

    def cut(self) -> None:
        """Close every connection."""
        for each in self._sockets:
            hang_up(each)

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
            self.opened += 1
            self.met(self.opened)
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                server.connect(self.server)
            except OSError:
                client.close()
                server.close()
                continue
            self._sockets += [client, server]
            self._spawn(self._requests, client, server)
            self._spawn(self._answers, client, server)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        reader, held, standing = hiredis.Reader(notEnoughData=_MORE), b"", 0
        while not self.deaf and (data := receive(client)):
            if self.deaf:
                break
            reader.feed(data)
            while (words := reader.gets()) is not _MORE:
                self.asked.append(words)
                self.heard(words)
                standing += 1
            held += data
            if standing >= self.gather and send(server, held):
                held, standing = b"", 0
        if not self.deaf:
            hang_up(server)

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        held = b""
        while data := receive(server):
            held += data
            if self.until not in held:
                continue
            data, held, self.until = held, b"", b""
            lines = data.splitlines(keepends=True)
            allowed = lines if self.replies is None else lines[: self.replies]
            if self.replies is not None:
                self.replies -= len(allowed)
            send(client, b"".join(allowed))
            if len(allowed) < len(lines):
                break
        hang_up(client)

    def _spawn(self, target: Callable[..., Any], *args: Any) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()

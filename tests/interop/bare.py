"""Redis without a client library: words out, replies in, over one socket; and what MONITOR shows.

It stands for a foreign client that speaks just enough of the protocol, and it sees the commands of others exactly as
the server does.
"""

from __future__ import annotations

import re
import socket
from codecs import escape_decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from tests.servers import Server

WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')


class Bare:
    """One connection that lives as long as its owner: `bare.call("LPUSH", "queue:default", payload)`."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(10)
        self._socket.connect(str(server.socket_path))
        self._replies = self._socket.makefile("rb")

    def call(self, *words: str | bytes) -> Any:
        """Send one command and return its reply; an error reply raises AssertionError."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        bulk = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._socket.sendall(b"*%d\r\n%s" % (len(parts), bulk))
        return self.reply()

    def reply(self) -> Any:
        """The next reply."""
        line = self._replies.readline()
        kind, rest = line[:1], line[1:-2]
        assert kind in (b"+", b":", b"$", b"*"), line
        if kind == b"+":
            return rest
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b":" or rest == b"-1":
            return int(rest) if kind == b":" else None
        return self._replies.read(int(rest) + 2)[:-2]

    def close(self) -> None:
        self._replies.close()
        self._socket.close()


Command = list[bytes]


@contextmanager
def monitored(server: Server) -> Iterator[Callable[[], list[Command]]]:
    """What every client sends: call the value for the commands since the last call, those inside scripts included."""
    ears, voice = Bare(server), Bare(server)
    try:
        assert ears.call("MONITOR") == b"OK"

        def heard() -> list[Command]:
            token = uuid4().hex.encode()
            voice.call("ECHO", token)
            lines = iter(lambda: words(ears.reply()), [b"ECHO", token])
            return list(lines)

        yield heard
    finally:
        ears.close()
        voice.close()


def words(line: bytes) -> Command:
    """The command in a line of MONITOR: `1339518083.1 [0 unix:/s] "SADD" "queues" "default"`."""
    return [escape_decode(word)[0] for word in WORD.findall(line.partition(b"] ")[2])]  # type: ignore[misc]

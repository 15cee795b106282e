"""A proxy between Pillion and Redis that goes wrong where a test says so, and otherwise passes everything on.

It speaks over Unix sockets, one thread for each direction of each connection, and reads both ways well enough to know
which reply answers which request. A *trap* waits for the exchange that its condition describes, does its mischief, and
is gone:

    lose_reply       the server executes the request, the reply is thrown away and the connection closed
    cut_reply        the same, but half of the reply arrives first
    swallow_reply    the same, but the connection stays open and silent
    close_early      the request goes on to the server, and the client's connection is closed at once
    hold_back        the request is kept, the client's side stays silent; `Trap.let_go()` delivers the late bytes
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import hiredis

Words: TypeAlias = list[bytes]
When: TypeAlias = Callable[[Words, Any], bool]
"""Whether an exchange is the one: (the words of the request, the reply). The reply is None in early mischiefs."""

Mischief: TypeAlias = Literal["lose_reply", "cut_reply", "swallow_reply", "close_early", "hold_back"]
EARLY = ("close_early", "hold_back")
READ = 65_536
PATIENCE = 10.0
_MORE = object()


class Trap:
    """One fault to come. `words` and `reply` are those of the exchange that sprang it."""

    def __init__(self, mischief: Mischief, when: When) -> None:
        self.mischief = mischief
        self.when = when
        self.words: Words = []
        self.reply: Any = None
        self.sprung = threading.Event()
        self._let_go = threading.Event()
        self._delivered = threading.Event()

    def wait(self) -> Trap:
        """Wait until it has sprung."""
        assert self.sprung.wait(PATIENCE), f"nothing sprang the trap to {self.mischief}"
        return self

    def let_go(self) -> Any:
        """Deliver the request that was held back, and return the server's reply, which nobody else sees."""
        self.wait()
        self._let_go.set()
        assert self._delivered.wait(PATIENCE), "the server did not answer the late request"
        return self.reply

    def take(self, words: Words, reply: Any) -> bool:
        """Spring, if this is the exchange."""
        if self.sprung.is_set() or not self.when(words, reply):
            return False
        self.words, self.reply = words, reply
        self.sprung.set()
        return True

    def deliver(self, server: socket.socket, data: bytes) -> None:
        """Send what was held back, once told to."""
        self._let_go.wait(PATIENCE)
        send(server, data)

    def answered(self, reply: Any) -> None:
        """The server's answer to what was held back."""
        self.reply = reply
        self._delivered.set()


class Proxy:
    """Listens at `path` and passes on to the server's socket."""

    def __init__(self, path: Path, server: Path) -> None:
        self.path = path
        self.url = f"unix://{path}"
        self._server = server
        self._traps: list[Trap] = []
        self._links: list[Link] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    def trap(self, mischief: Mischief, when: When) -> Trap:
        """Set a trap. Of several the oldest is asked first."""
        self._traps.append(Trap(mischief, when))
        return self._traps[-1]

    def disarm(self) -> bool:
        """Take away the traps that have not sprung. Returns whether there were none."""
        left, self._traps = self._traps, []
        return not left

    def lead_to(self, server: Path) -> None:
        """New connections go there from now on; those that are open are closed."""
        self._server = server
        for link in self._links:
            link.hang_up()

    def refuse(self) -> bool:
        """Let nobody in any more; those who are in stay. Returns True."""
        self.path.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Close everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listener.close()
        for link in self._links:
            link.close()

    def springs(self, early: bool, words: Words, reply: Any) -> Trap | None:
        """The trap that this exchange springs, if there is one."""
        for trap in self._traps:
            if (trap.mischief in EARLY) is early and trap.take(words, reply):
                self._traps.remove(trap)
                return trap
        return None

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                self._links.append(Link(self, client, self._server))
            except OSError:
                client.close()


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: Path) -> None:
        self._proxy = proxy
        self._client = client
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._server.connect(str(server))
        except OSError:
            self._server.close()
            raise
        self._asked: list[Words] = []
        self._held: Trap | None = None
        self._threads = [threading.Thread(target=pump, daemon=True) for pump in (self._requests, self._replies)]
        for thread in self._threads:
            thread.start()

    def hang_up(self) -> None:
        """End the conversation on both sides."""
        hang_up(self._client)
        hang_up(self._server)

    def close(self) -> None:
        """Close both sides; the threads end by that."""
        self.hang_up()
        for thread in self._threads:
            thread.join(1)
        self._client.close()
        self._server.close()

    def _requests(self) -> None:
        reader, data = new_reader(), b""
        while fresh := receive(self._client):
            data += fresh
            reader.feed(fresh)
            words = everything(reader)
            trap = next((t for w in words if (t := self._proxy.springs(True, w, None))), None)
            if trap is not None and trap.mischief == "hold_back":
                self._held = trap
                trap.deliver(self._server, data)
                return
            self._asked += words
            if not send(self._server, data):
                break
            data = b""
            if trap is not None:
                hang_up(self._client)
        half_close(self._server)

    def _replies(self) -> None:
        reader, data = new_reader(), b""
        while fresh := receive(self._server):
            data += fresh
            reader.feed(fresh)
            replies = [reply for reply in everything(reader) if not isinstance(reply, hiredis.PushNotification)]
            if self._held is not None:
                if replies:
                    self._held.answered(replies[-1])
                continue
            trap = self._sprung_by(replies)
            if trap is not None:
                self._break(trap, data)
                return
            if self._asked:
                continue  # nothing is passed on before it is clear what it is
            if not send(self._client, data):
                break
            data = b""
        hang_up(self._client)

    def _sprung_by(self, replies: list[Any]) -> Trap | None:
        asked, self._asked = self._asked[: len(replies)], self._asked[len(replies) :]
        pairs = zip(asked, replies, strict=True)
        return next((t for words, reply in pairs if (t := self._proxy.springs(False, words, reply))), None)

    def _break(self, trap: Trap, data: bytes) -> None:
        if trap.mischief == "cut_reply":
            send(self._client, data[: len(data) // 2])
        if trap.mischief != "swallow_reply":
            hang_up(self._client)


def new_reader() -> hiredis.Reader:
    return hiredis.Reader(notEnoughData=_MORE)


def everything(reader: hiredis.Reader) -> list[Any]:
    """All complete messages that stand in a reader."""
    messages = []
    while (message := reader.gets()) is not _MORE:
        messages.append(message)
    return messages


def receive(sock: socket.socket) -> bytes:
    """What comes next; nothing where the connection has ended."""
    try:
        return sock.recv(READ)
    except OSError:
        return b""


def send(sock: socket.socket, data: bytes) -> bool:
    """Whether it could be sent."""
    try:
        sock.sendall(data)
    except OSError:
        return False
    return True


def hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def half_close(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return

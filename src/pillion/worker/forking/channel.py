"""A pair of connected Unix sockets between two processes of one worker, for messages and now and then a descriptor.

Neither end ever waits for the other: what cannot be sent now is kept and goes out with the next message, up to a limit,
beyond which the other end counts as gone. Sockets are closed on exec and given up by `close`, so that the death of
the process at the other end, however it came, is the end of the stream here.
"""

from __future__ import annotations

import array
import os
import socket
import threading
from contextlib import suppress

import msgspec

from pillion.worker.forking.messages import Message

MAX_UNSENT = 1 << 20
READ_SIZE = 65_536
MOST_DESCRIPTORS = 16

_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


class Channel:
    """One end. `send` may be called from every thread, `receive` by one."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._lock = threading.Lock()
        self._unsent = b""
        self._read = b""
        self._descriptors: list[int] = []

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends, joined."""
        one, other = socket.socketpair()
        return cls(one), cls(other)

    @classmethod
    def of(cls, descriptor: int) -> Channel:
        """An end that was inherited, or came with a message, as a bare descriptor."""
        os.set_inheritable(descriptor, False)
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """The descriptor, for poll: readable means that `receive` has something to say. -1 once closed."""
        return self._sock.fileno()

    def send(self, message: Message, descriptor: int | None = None) -> bool:
        """Say something, with a copy of a descriptor if one is given. False if the other end is gone or does not read.

        The descriptor travels with the first byte of its message, so nothing may be left unsent before it.
        """
        data = _encode(message) + b"\n"
        with self._lock:
            try:
                self._flush()
                if descriptor is not None:
                    return not self._unsent and self._send_with(data, descriptor)
                if len(self._unsent) + len(data) > MAX_UNSENT:
                    return False
                self._unsent += data
                self._flush()
            except OSError:
                return False
            return True

    def receive(self) -> list[Message] | None:
        """What has been said since the last call, without waiting; None once the other end is gone.

        Raises msgspec.DecodeError for words that this version does not know.
        """
        gone = False
        with suppress(BlockingIOError):
            while not gone:
                try:
                    data, descriptors, _, _ = socket.recv_fds(self._sock, READ_SIZE, MOST_DESCRIPTORS)
                except ConnectionError:
                    data, descriptors = b"", []
                self._descriptors += descriptors
                self._read += data
                gone = not data
        *lines, self._read = self._read.split(b"\n")
        messages = [_decoder.decode(line) for line in lines]
        return None if gone and not messages else messages

    def take_descriptor(self) -> int:
        """The oldest descriptor that came and was not taken: one per message that was sent with one."""
        return self._descriptors.pop(0)

    def hang_up(self) -> None:
        """Make both ends see the end of the stream, this one included; from any thread."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end; the other one sees the end of the stream."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        self._sock.close()

    def _flush(self) -> None:
        with suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]

    def _send_with(self, data: bytes, descriptor: int) -> bool:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        self._unsent = data[self._sock.sendmsg([data], rights) :]
        return True

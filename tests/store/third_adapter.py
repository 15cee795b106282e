"""An adapter of somebody else's, written from docs/adapters.md alone: bare sockets and streams, no client library.

The tests of the contract run over it as over those that ship. It keeps to the page's seconds as deadlines: a server
that drips its answer byte by byte is given up in time, too. `opened` counts what was handed over, so that a test can
tell that it is in use; nothing else is kept between two calls."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import hiredis

from pillion.adapters import Address, Denied, Streams

AT_ONCE = 65_536


class BareSockets:
    """Opens sockets by itself."""

    def __init__(self) -> None:
        self.opened = 0

    def connect(self, address: Address) -> socket.socket:
        with ExitStack() as unless_handed_over:
            sock = dialled(address)
            unless_handed_over.callback(sock.close)
            for command in opening(address):
                deadline = time.monotonic() + address.timeout
                answer = Answer()
                sock.settimeout(address.timeout)
                sock.sendall(command)
                sock.settimeout(left(deadline))
                while not answer.whole(sock.recv(AT_ONCE)):
                    sock.settimeout(left(deadline))
            unless_handed_over.pop_all()
        self.opened += 1
        return sock

    async def aconnect(self, address: Address) -> Streams:
        async with asyncio.timeout(address.connect_timeout):
            if address.path is not None:
                reader, writer = await asyncio.open_unix_connection(address.path)
            else:
                tls = address.tls and address.tls.context()
                name = address.host if tls else None
                reader, writer = await asyncio.open_connection(
                    address.host, address.port, ssl=tls, server_hostname=name
                )
        with ExitStack() as unless_handed_over:
            unless_handed_over.callback(writer.transport.abort)  # at once: closing TLS politely would wait for the peer
            for command in opening(address):
                answer = Answer()
                async with asyncio.timeout(address.timeout):
                    writer.write(command)
                    while not answer.whole(await reader.read(AT_ONCE)):
                        pass
            unless_handed_over.pop_all()
        self.opened += 1
        return reader, writer


def opening(address: Address) -> Iterator[bytes]:
    """The commands of the handshake; each has one reply."""
    known = address.username or address.password
    who = ("AUTH", address.username or "default", address.password or "") if known else ()
    words = [("HELLO", "3", *who), *([("SELECT", str(address.db))] if address.db else [])]
    return map(hiredis.pack_command, words)


class Answer:
    """One reply, fed until it is whole."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()

    def whole(self, data: bytes) -> bool:
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._reader.feed(data)
        reply = self._reader.gets()
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            raise Denied(text, credentials=text.startswith(("WRONGPASS", "NOAUTH")))
        return reply is not False


def dialled(address: Address) -> socket.socket:
    """A socket that is connected, TLS included, before the time for it is over."""
    deadline = time.monotonic() + address.connect_timeout
    if address.path is not None:
        return joined(socket.AF_UNIX, address.path, deadline)
    sock = first_that_answers(address, deadline)
    if address.tls is None:
        return sock
    with ExitStack() as unless_wrapped:
        unless_wrapped.callback(sock.close)
        sock.settimeout(left(deadline))
        wrapped = address.tls.context().wrap_socket(sock, server_hostname=address.host)
        unless_wrapped.pop_all()
    return wrapped


def first_that_answers(address: Address, deadline: float) -> socket.socket:
    """A host may have several addresses."""
    failure = OSError("the host has no address")
    for family, _, _, _, place in socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
        try:
            return joined(family, place, deadline)
        except OSError as error:
            failure = error
    raise failure


def joined(family: int, place: Any, deadline: float) -> socket.socket:
    """A plain socket that is connected."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(left(deadline))
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock


def left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds

"""An adapter of somebody else's, written from docs/adapters.md alone: bare sockets, no client library.

The words of the handshake stand in one generator that knows no I/O; both colours carry it. `opened` counts what was
handed over, so that a test can tell that it is in use."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import ExitStack

import hiredis

from pillion.adapters import Address, Denied, Streams

AT_ONCE = 4_096
NOTHING = object()


class BareSockets:
    """Opens sockets by itself."""

    def __init__(self) -> None:
        self.opened = 0

    def connect(self, address: Address) -> socket.socket:
        with ExitStack() as to_close:
            sock = to_close.enter_context(reach(address))
            if address.tls is not None:
                sock = to_close.enter_context(address.tls.context().wrap_socket(sock, server_hostname=address.host))
            sock.settimeout(address.timeout)
            talk = handshake(address)
            to_send = next(talk)
            while to_send is not None:
                sock.sendall(to_send)
                to_send = answer(talk, sock.recv(AT_ONCE))
            to_close.pop_all()
        self.opened += 1
        return sock

    async def aconnect(self, address: Address) -> Streams:
        async with asyncio.timeout(address.connect_timeout):
            if address.path is not None:
                reader, writer = await asyncio.open_unix_connection(address.path)
            else:
                tls = address.tls and address.tls.context()
                reader, writer = await asyncio.open_connection(address.host, address.port, ssl=tls)
        with ExitStack() as to_close:
            to_close.callback(writer.close)
            talk = handshake(address)
            to_send = next(talk)
            while to_send is not None:
                writer.write(to_send)
                async with asyncio.timeout(address.timeout):
                    to_send = answer(talk, await reader.read(AT_ONCE))
            to_close.pop_all()
        self.opened += 1
        return reader, writer


def reach(address: Address) -> socket.socket:
    """A plain socket that is connected."""
    if address.path is None:
        return socket.create_connection((address.host, address.port), address.connect_timeout)
    with ExitStack() as to_close:
        sock = to_close.enter_context(socket.socket(socket.AF_UNIX))
        sock.settimeout(address.connect_timeout)
        sock.connect(address.path)
        to_close.pop_all()
    return sock


def handshake(address: Address) -> Generator[bytes, bytes, None]:
    """Gives what to send, takes what came; what it gives may be empty while replies are still to come."""
    who = () if address.password is None else ("AUTH", address.username or "default", address.password)
    words = [("HELLO", "3", *who), *([("SELECT", str(address.db))] if address.db else [])]
    reader, to_send = hiredis.Reader(notEnoughData=NOTHING), b"".join(map(hiredis.pack_command, words))
    for _ in words:
        while (reply := reader.gets()) is NOTHING:
            reader.feed((yield to_send))
            to_send = b""
        if isinstance(reply, hiredis.ReplyError):
            raise Denied(str(reply), credentials=str(reply).partition(" ")[0] in ("NOAUTH", "WRONGPASS"))


def answer(talk: Generator[bytes, bytes, None], data: bytes) -> bytes | None:
    """What to send next; None when the handshake is over."""
    if not data:
        raise ConnectionResetError("closed by the server")
    try:
        return talk.send(data)
    except StopIteration:
        return None

"""The adapter that opens connections by itself, with Python's own sockets and streams: the default.

A worker that needs no client library is 8 to 10 MB smaller and starts a tenth of a second sooner; opening a connection
is little more than `HELLO 3`. Times are deadlines: a server that drips its answer byte by byte is given up in time,
too. What fails is closed. `dial.py` finds it by its name; nothing is kept between two calls."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import hiredis

from pillion.store.adapter import Address, Denied, Streams
from pillion.store.exchange import pack
from pillion.store.op import Command

AT_ONCE = 65_536


class Sockets:
    """Opens sockets and streams; the same object for everybody."""

    def connect(self, address: Address) -> socket.socket:
        with ExitStack() as unless_handed_over:
            with _in_time():
                sock = _dialled(address)
            unless_handed_over.callback(sock.close)
            for command in _opening(address):
                deadline = time.monotonic() + address.timeout
                answer = _Answer()
                sock.settimeout(address.timeout)
                sock.sendall(command)
                sock.settimeout(_left(deadline))
                while not answer.whole(sock.recv(AT_ONCE)):
                    sock.settimeout(_left(deadline))
            unless_handed_over.pop_all()
        return sock

    async def aconnect(self, address: Address) -> Streams:
        import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

        with _in_time():
            reader, writer = await self._streams(address)
        with ExitStack() as unless_handed_over:
            unless_handed_over.callback(writer.transport.abort)  # at once: closing TLS politely would wait for the peer
            for command in _opening(address):
                answer = _Answer()
                async with asyncio.timeout(address.timeout):
                    writer.write(command)
                    while not answer.whole(await reader.read(AT_ONCE)):
                        pass
            unless_handed_over.pop_all()
        return reader, writer

    async def _streams(self, address: Address) -> Streams:
        import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

        async with asyncio.timeout(address.connect_timeout):
            if address.path is not None:
                return await asyncio.open_unix_connection(address.path)
            tls = address.tls and address.tls.context()
            name = address.host if tls else None
            return await asyncio.open_connection(address.host, address.port, ssl=tls, server_hostname=name)


@contextmanager
def _in_time() -> Generator[None]:
    """Say that it was the connecting that took too long."""
    try:
        yield
    except TimeoutError:
        raise TimeoutError("Timeout connecting to server") from None


def _opening(address: Address) -> Iterator[bytes]:
    """The commands of the handshake; each has one reply."""
    known = address.username or address.password
    who = ("AUTH", address.username or "default", address.password or "") if known else ()
    words: list[Command] = [("HELLO", "3", *who)]
    if address.db:
        words.append(("SELECT", address.db))
    return map(pack, words)


class _Answer:
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
            if "max number of clients" in text:  # this one has room again in a while, and another node has it now
                raise ConnectionError(text)
            raise Denied(text, credentials=text.startswith(("WRONGPASS", "NOAUTH")))
        return reply is not False


def _dialled(address: Address) -> socket.socket:
    """A socket that is connected, TLS included, before the time for it is over."""
    deadline = time.monotonic() + address.connect_timeout
    if address.path is not None:
        return _joined(socket.AF_UNIX, address.path, deadline)
    sock = _first_that_answers(address, deadline)
    if address.tls is None:
        return sock
    with ExitStack() as unless_wrapped:
        unless_wrapped.callback(sock.close)
        sock.settimeout(_left(deadline))
        wrapped = address.tls.context().wrap_socket(sock, server_hostname=address.host)
        unless_wrapped.pop_all()
    return wrapped


def _first_that_answers(address: Address, deadline: float) -> socket.socket:
    """A host may have several addresses; one that says nothing leaves the others their share of the time."""
    failure = OSError("the host has no address")
    places = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    for tried, (family, _, _, _, place) in enumerate(places):
        share = _left(deadline) / (len(places) - tried)
        try:
            return _joined(family, place, time.monotonic() + share)
        except OSError as error:
            failure = error
    raise failure


def _joined(family: int, place: Any, deadline: float) -> socket.socket:
    """A plain socket that is connected."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(_left(deadline))
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock


def _left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds

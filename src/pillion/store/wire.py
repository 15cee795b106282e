"""Carries an exchange over what an adapter has opened: a blocking socket, or asyncio streams.

One write for one exchange, then what comes back, until all replies are there. Used by `dial.py` for the first words of
a connection and by `connection.py` for everything after them. Nothing is opened or closed here, and nothing is sent
twice: where the replies do not all come, the caller hears `Ambiguous` and closes the connection."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import Any

import hiredis

from pillion.errors import Ambiguous
from pillion.store.adapter import Streams
from pillion.store.exchange import Exchange

READ_SIZE = 65_536


def drive(sock: socket.socket, exchange: Exchange[Any], at: str) -> None:
    """Carry an exchange over a blocking socket. `at` is the server's name for messages. Raises Ambiguous."""
    try:
        while exchange.waiting() or exchange.asking():
            if exchange.asking():
                post(sock, exchange.outgoing())
            while exchange.waiting():
                exchange.feed(some(sock.recv(READ_SIZE)))
    except (OSError, hiredis.HiredisError) as error:
        raise lost(exchange, at, error) from error


def post(sock: socket.socket, pieces: Iterable[bytes]) -> None:
    """Send what an exchange asks. Raises OSError."""
    for piece in pieces:
        sock.sendall(piece)


async def adrive(streams: Streams, exchange: Exchange[Any], at: str, timeout: float) -> None:  # noqa: ASYNC109
    """Carry an exchange over asyncio streams, within `timeout` seconds. Raises Ambiguous."""
    import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

    reader, writer = streams
    try:
        async with asyncio.timeout(timeout):
            while exchange.asking():
                for piece in exchange.outgoing():
                    writer.write(piece)
                    await writer.drain()
                while exchange.waiting():
                    exchange.feed(some(await reader.read(READ_SIZE)))
    except (OSError, hiredis.HiredisError) as error:
        raise lost(exchange, at, error) from error


def available(sock: socket.socket) -> Iterator[bytes]:
    """What can be read at once, TLS's own buffer included. Raises OSError where the server hung up."""
    patience = sock.gettimeout()
    sock.settimeout(0)
    try:
        while True:
            yield some(sock.recv(READ_SIZE))
    except BlockingIOError:
        return
    except OSError as error:
        if type(error).__name__ != "SSLWantReadError":  # TLS's way to say the same; importing ssl would cost 20 ms
            raise
    finally:
        sock.settimeout(patience)


def some(data: bytes) -> bytes:
    """The data, if there is any: none means that the server hung up."""
    if not data:
        raise ConnectionResetError("the server closed the connection")
    return data


def lost(exchange: Exchange[Any], at: str, error: Exception) -> Ambiguous:
    """What to raise where an exchange broke off."""
    return Ambiguous(
        f"lost the reply of Redis at {at} ({str(error) or type(error).__name__}); "
        "what was sent may or may not have been executed",
        exchange.accepted(),
    )

"""The proxy of the soak: `python -m tests.crash.soak.proxy PORT SOCKET`, told what to do by lines on standard input.

    stall SECONDS   nothing passes, in either direction; connections stay open, new ones too
    reset           every connection is cut off
    drop N          the next N replies are thrown away, and their connections closed

It does not read what passes. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import cast

HARD = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset."""


class Proxy:
    """All links, and what is wrong with them just now."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.links: set[Link] = set()
        self.drops = 0
        self.stalled = 0

    def obey(self, line: str) -> None:
        what, *more = line.split()
        if what == "reset":
            for link in list(self.links):
                link.cut()
        elif what == "drop":
            self.drops = int(more[0])
        elif what == "stall":
            self._stall(1)
            asyncio.get_running_loop().call_later(float(more[0]), self._stall, -1)

    def _stall(self, change: int) -> None:
        self.stalled += change
        for link in self.links:
            link.hold(bool(self.stalled))


class Link:
    """One connection, and its other half to the server."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client = Side(self, from_server=False)
        self.server = Side(self, from_server=True)

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_unix_connection(lambda: self.server, self.proxy.server)
        except OSError:
            self.cut()
            return
        self.proxy.links.add(self)
        self.hold(bool(self.proxy.stalled))

    def hold(self, stalled: bool) -> None:
        for side in (self.client, self.server):
            if side.transport is not None and not side.transport.is_closing():
                (side.transport.pause_reading if stalled else side.transport.resume_reading)()

    def cut(self) -> None:
        self.proxy.links.discard(self)
        for side in (self.client, self.server):
            if side.transport is not None:
                if not side.from_server and (sock := side.transport.get_extra_info("socket")):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, HARD)
                side.transport.abort()

    def close(self) -> None:
        self.proxy.links.discard(self)
        for side in (self.client, self.server):
            if side.transport is not None:
                side.transport.close()


class Side(asyncio.Protocol):
    """One of the two connections of a link."""

    def __init__(self, link: Link, *, from_server: bool) -> None:
        self._link = link
        self.from_server = from_server
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if not self.from_server:
            self.transport.pause_reading()
            self._task = asyncio.ensure_future(self._link.connect())

    def data_received(self, data: bytes) -> None:
        proxy = self._link.proxy
        if self.from_server and proxy.drops:
            proxy.drops -= 1
            self._link.cut()
            return
        other = self._link.client if self.from_server else self._link.server
        if other.transport is not None:
            other.transport.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._link.close()


async def serve(port: int, server: str) -> None:
    loop = asyncio.get_running_loop()
    proxy, orders = Proxy(server), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    await loop.create_server(lambda: Link(proxy).client, "127.0.0.1", port, backlog=256)
    print("ready", flush=True)
    while line := await orders.readline():
        proxy.obey(line.decode())


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))

"""An adapter of somebody else's, made known in code: it opens what the default one opens, and counts."""

from __future__ import annotations

import socket

from pillion.adapters import Address, Streams
from pillion.store.sockets import Sockets


class BareSockets(Sockets):
    """`opened` counts what was handed over, so that a test can tell that it is in use."""

    def __init__(self) -> None:
        self.opened = 0

    def connect(self, address: Address) -> socket.socket:
        sock = super().connect(address)
        self.opened += 1
        return sock

    async def aconnect(self, address: Address) -> Streams:
        streams = await super().aconnect(address)
        self.opened += 1
        return streams

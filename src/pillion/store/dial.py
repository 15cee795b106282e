"""Opens one connection: asks the Sentinels where the primary is, lets the adapter open it, and says who we are.

Used by `pool.py` for every connection there is, in both colours. Nothing of an op has been sent when it fails, so a
failure is `Unavailable`, or `Refused` where the server answered no. A connection that broke half-way is closed.

The first words cost one round trip for each connection, and none for each command: they name the connection and the
library, for whoever reads CLIENT LIST. A server that does not know them, or that does not let us say them, is used
all the same."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import hiredis
import msgspec

from pillion.config import RedisSettings
from pillion.errors import Ambiguous, ConfigError, Refused, Unavailable
from pillion.mask import mask_secrets
from pillion.store.adapter import Address, Denied, Streams, find
from pillion.store.address import Host, Sentinels, cure, describe, target_of, verifies
from pillion.store.exchange import Exchange
from pillion.store.libraries import Library
from pillion.store.op import Op, command, pipeline, text
from pillion.store.wire import adrive, drive
from pillion.version import __version__

log = logging.getLogger("pillion")

LIBRARY = "pillion"
KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
BROKEN = (OSError, EOFError, Ambiguous, hiredis.HiredisError)
_UNNAMEABLE = re.compile(r"[^!-~]")


class Dialer:
    """Opens connections to where the settings point.

    `role` is added to the connection's name. Raises ConfigError for settings that cannot be used.
    """

    def __init__(self, settings: RedisSettings, role: str | None = None) -> None:
        self.at = describe(settings)
        self.timeout = settings.timeout
        self._adapter = find(settings.adapter)
        self._target = target_of(settings)
        self.address = self._target.address
        self._role = role
        if settings.client is not None and not isinstance(self._adapter, Library):
            raise ConfigError(
                f"expected redis.url for the adapter {settings.adapter!r}, got a {type(settings.client).__name__}, "
                "which only the adapters redis-py and valkey-py can follow; pass a URL"
            )

    def warn(self) -> None:
        """Log that certificates are not checked, where it is so."""
        if not verifies(self.address):
            log.warning("Redis at %s: its certificate is not checked, so anyone may pose as it", self.at)

    def open(self) -> socket.socket:
        """A new connection for threads. Raises Unavailable or Refused."""
        with self._opening():
            address = self.address
            if self._target.sentinels is not None:
                address = self._ask(self._target.sentinels)
            sock = self._adapter.connect(address)
            try:
                _keep_alive(sock)
                sock.settimeout(self.timeout)
                drive(sock, self._greeting(), self.at)
            except BaseException:
                sock.close()
                raise
            return sock

    async def aopen(self) -> Streams:
        """A new connection of the running loop. Raises Unavailable or Refused."""
        with self._opening():
            address = self.address
            if self._target.sentinels is not None:
                address = await self._aask(self._target.sentinels)
            streams = await self._adapter.aconnect(address)
            try:
                _keep_alive(streams[1].get_extra_info("socket"))
                await adrive(streams, self._greeting(), self.at, self.timeout)
            except BaseException:
                streams[1].close()
                raise
            return streams

    @contextmanager
    def _opening(self) -> Generator[None]:
        try:
            yield
        except Denied as error:
            what = "the credentials" if error.credentials else "the connection"
            raise Refused(_told(f"Redis at {self.at} refused {what}", error)) from error
        except BROKEN as error:
            raise Unavailable(_told(f"cannot reach Redis at {self.at}", error)) from error

    def _greeting(self) -> Exchange[Any]:
        """The first words; what the server answers to them does not matter."""
        named = [("CLIENT", "SETNAME", self._name())]
        about = [("CLIENT", "SETINFO", "LIB-NAME", LIBRARY), ("CLIENT", "SETINFO", "LIB-VER", __version__)]
        return Exchange(pipeline("greeting", [*named, *about]))

    def _name(self) -> str:
        """`pillion:<host>:<pid>`, so that a line of CLIENT LIST leads to a process, unless it was given a name."""
        host = os.environ.get("DYNO") or socket.gethostname()
        name = self._target.name or f"{LIBRARY}:{host}:{os.getpid()}"
        return _UNNAMEABLE.sub("_", f"{name}:{self._role}" if self._role else name)

    # --- Sentinels ------------------------------------------------------------------------------------------------

    def _ask(self, sentinels: Sentinels) -> Address:
        """Where the primary is now, over connections that are closed again."""
        failures = []
        for host, port in sentinels.hosts:
            question = Exchange(_question(sentinels))
            try:
                with self._adapter.connect(self._like(sentinels, host, port)) as sock:
                    sock.settimeout(self.address.connect_timeout)
                    drive(sock, question, f"{host}:{port}")
                if found := question.result():
                    return self._moved(found)
                failures.append(f"{host}:{port} does not know it")
            except (*BROKEN, Denied, Refused) as error:
                failures.append(f"{host}:{port}: {error}")
        raise ConnectionError(f"no Sentinel tells where it is ({'; '.join(failures)})")

    async def _aask(self, sentinels: Sentinels) -> Address:
        failures = []
        for host, port in sentinels.hosts:
            question = Exchange(_question(sentinels))
            try:
                streams = await self._adapter.aconnect(self._like(sentinels, host, port))
                try:
                    await adrive(streams, question, f"{host}:{port}", self.address.connect_timeout)
                finally:
                    streams[1].close()
                if found := question.result():
                    return self._moved(found)
                failures.append(f"{host}:{port} does not know it")
            except (*BROKEN, Denied, Refused) as error:
                failures.append(f"{host}:{port}: {error}")
        raise ConnectionError(f"no Sentinel tells where it is ({'; '.join(failures)})")

    def _like(self, sentinels: Sentinels, host: str, port: int) -> Address:
        patience = self.address.connect_timeout
        where: dict[str, Any] = {"host": host, "port": port, "connect_timeout": patience, "timeout": patience}
        return msgspec.structs.replace(sentinels.like, **where)

    def _moved(self, found: Host) -> Address:
        return msgspec.structs.replace(self.address, host=found[0], port=found[1])


def _question(sentinels: Sentinels) -> Op[Host | None]:
    words = command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinels.master)
    return msgspec.structs.replace(words, parse=_host)


def _host(replies: Any) -> Host | None:
    return (text(replies[0][0]), int(replies[0][1])) if replies[0] else None


def _keep_alive(sock: Any) -> None:
    """Notice within seconds that the other side is gone, and send small commands at once."""
    if sock.family == getattr(socket, "AF_UNIX", None):  # which Windows has not
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _told(what: str, error: Exception) -> str:
    said = str(error) or type(error).__name__
    return f"{what}: {mask_secrets(said)}{cure(said)}"

"""Opens one connection: asks Sentinels or a cluster where the server is, lets the adapter open it, says who we are.

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
from pillion.store.adapter import DEFAULT, Adapter, Address, Denied, Streams, find, register
from pillion.store.address import cure, describe, target_of, verifies
from pillion.store.exchange import Exchange
from pillion.store.guides import Guide, Host
from pillion.store.libraries import Library
from pillion.store.op import pipeline
from pillion.store.sockets import Sockets
from pillion.store.wire import adrive, drive
from pillion.version import __version__

log = logging.getLogger("pillion")

LIBRARY = "pillion"
KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
BROKEN = (OSError, EOFError, UnicodeError, Ambiguous, hiredis.HiredisError)  # UnicodeError: a host that is no name
_UNNAMEABLE = re.compile(r"[^!-~]")


class Dialer:
    """Opens connections to where the settings point.

    `role` is added to the connection's name. Raises ConfigError for settings that cannot be used.
    """

    def __init__(self, settings: RedisSettings, role: str | None = None) -> None:
        self.at = describe(settings)
        self.timeout = settings.timeout
        self._adapter = _adapter_of(settings)
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
            if self._target.guide is not None:
                address = self._ask(self._target.guide)
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
            if self._target.guide is not None:
                address = await self._aask(self._target.guide)
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
            raise Unavailable(_told(f"cannot reach Redis at {self.at}", error, "; the command was not sent")) from error

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

    # --- guides ---------------------------------------------------------------------------------------------------

    def _ask(self, guide: Guide) -> Address:
        """Where the server is now, over connections that are closed again."""
        search = Search(guide)
        for host in guide.hosts():
            question = Exchange(guide.question())
            with search.at(host):
                with self._adapter.connect(self._like(guide, host)) as sock:
                    sock.settimeout(self.address.connect_timeout)
                    drive(sock, question, f"{host[0]}:{host[1]}")
                search.hear(host, question)
            if search.found is not None:
                break
        return self._found(search)

    async def _aask(self, guide: Guide) -> Address:
        search = Search(guide)
        for host in guide.hosts():
            question = Exchange(guide.question())
            with search.at(host):
                streams = await self._adapter.aconnect(self._like(guide, host))
                try:
                    await adrive(streams, question, f"{host[0]}:{host[1]}", self.address.connect_timeout)
                finally:
                    streams[1].close()
                search.hear(host, question)
            if search.found is not None:
                break
        return self._found(search)

    def _like(self, guide: Guide, host: Host) -> Address:
        patience = self.address.connect_timeout
        where: dict[str, Any] = {"host": host[0], "port": host[1], "connect_timeout": patience, "timeout": patience}
        return msgspec.structs.replace(guide.like, **where)

    def _found(self, search: Search) -> Address:
        if search.found is None:
            raise ConnectionError(f"no {search.guide.called} tells where it is ({'; '.join(search.failures)})")
        return msgspec.structs.replace(self.address, host=search.found[0], port=search.found[1])


def _adapter_of(settings: RedisSettings) -> Adapter:
    """The adapter that was chosen; a client that was handed over is followed by its own library."""
    if settings.client is None or settings.adapter != DEFAULT:
        return find(settings.adapter)
    return find("valkey-py" if type(settings.client).__module__.startswith("valkey") else "redis-py")


class Search:
    """What came of asking the hosts of a guide."""

    def __init__(self, guide: Guide) -> None:
        self.guide = guide
        self.found: Host | None = None
        self.failures: list[str] = []

    @contextmanager
    def at(self, host: Host) -> Generator[None]:
        """Note what goes wrong at one host: the others are still to be asked."""
        try:
            yield
        except (*BROKEN, Denied, Refused) as error:
            if isinstance(error, Denied) and self.guide.trusted:
                raise
            self.failures.append(f"{host[0]}:{host[1]}: {error}")

    def hear(self, host: Host, question: Exchange[Any]) -> None:
        """Take in an answer."""
        self.found = self.guide.told(host, question.result())
        if self.found is None:
            self.failures.append(f"{host[0]}:{host[1]} does not know it")


def _keep_alive(sock: Any) -> None:
    """Notice within seconds that the other side is gone, and send small commands at once."""
    if sock.family == getattr(socket, "AF_UNIX", None):  # which Windows has not
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _told(what: str, error: Exception, then: str = "") -> str:
    said = (str(error) or type(error).__name__).rstrip(".")
    return f"{what}: {mask_secrets(said)}{then}{cure(said)}"


register(DEFAULT, Sockets)

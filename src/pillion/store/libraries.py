"""The adapters over client libraries: redis-py, and valkey-py, which began as a copy of it and has kept its classes.

Either library is imported when its first connection opens. It resolves the host, connects, speaks TLS, authenticates
(also through a provider of credentials) and selects the database; its retries are off. Then its connection object
hands over socket or streams, and is dropped. `dial.py` finds the adapters here by their names."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

from pillion.errors import ConfigError
from pillion.store.adapter import Address, Colour, Denied, Streams, Tls, register

Arguments: TypeAlias = dict[str, Any]

PLAIN, SECURE, BY_PATH = "Connection", "SSLConnection", "UnixDomainSocketConnection"
TLS_ARGUMENTS = {
    "ssl_ca_certs": "ca_file",
    "ssl_ca_path": "ca_path",
    "ssl_ca_data": "ca_data",
    "ssl_certfile": "cert_file",
    "ssl_keyfile": "key_file",
    "ssl_password": "key_password",
    "ssl_min_version": "min_version",
    "ssl_ciphers": "ciphers",
    "ssl_include_verify_flags": "set_flags",
    "ssl_exclude_verify_flags": "clear_flags",
}
"""How the libraries call what `Tls` holds; `address.py` reads addresses and foreign clients by it."""


class Library:
    """The adapter over one of the two libraries, by the name of its package."""

    def __init__(self, package: str, extra: str | None = None) -> None:
        try:
            self._exceptions: Any = import_module(f"{package}.exceptions")
        except ImportError as error:
            cure = f"pip install 'pillion[{extra}]'" if extra else f"pip install {package}"
            raise ConfigError(f"redis.adapter: {package}-py is not installed; run {cure}") from error
        self._root: type[Exception] = getattr(self._exceptions, f"{package.title()}Error")
        self._package = package
        self._common = {"protocol": 3, "retry": None, **_left_to_us(package)}

    def connect(self, address: Address) -> socket.socket:
        with self._told():
            connection = self._class(address, "sync")(**self._arguments(address))
            connection.connect()
        sock, connection._sock = connection._sock, None
        return sock  # type: ignore[no-any-return]

    async def aconnect(self, address: Address) -> Streams:
        asked = _cancellations()
        with self._told():
            connection = self._class(address, "async")(**self._arguments(address))
            try:
                await connection.connect()
                _still_wanted(asked)
            except BaseException:
                _let_go(connection)
                _still_wanted(asked)
                raise
        return _let_go(connection, hang_up=False)

    def _arguments(self, address: Address) -> Arguments:
        where = {"path": address.path} if address.path else {"host": address.host, "port": address.port}
        provider = address.of_client.get("credential_provider")
        who = {"credential_provider": provider, "username": address.username, "password": address.password}
        patience = {"socket_timeout": address.timeout, "socket_connect_timeout": address.connect_timeout}
        given = {name: value for name, value in who.items() if value is not None}
        return {**where, **given, "db": address.db, **patience, **self._common, **self._tls(address.tls)}

    def _tls(self, tls: Tls | None) -> Arguments:
        if tls is None:
            return {}
        if self._package != "redis" and (tls.set_flags or tls.clear_flags):
            raise ConfigError(
                f"{self._package}-py cannot set the flags of a verification; use redis-py, or leave them out"
            )
        given = {name: getattr(tls, field) for name, field in TLS_ARGUMENTS.items() if getattr(tls, field)}
        reqs = "required" if tls.verify else "none"
        return {**given, "ssl_cert_reqs": reqs, "ssl_check_hostname": tls.verify and tls.check_hostname}

    def _class(self, address: Address, colour: Colour) -> type[Any]:
        """The library's class of this colour; a class of the user's own is taken as it is where it has the colour."""
        module = import_module(f"{self._package}.{'asyncio.' if colour == 'async' else ''}connection")
        kind = address.of_client.get("connection_class")
        if kind is not None and issubclass(kind, module.AbstractConnection) and "Sentinel" not in kind.__name__:
            return kind  # type: ignore[no-any-return]
        return getattr(module, BY_PATH if address.path else SECURE if address.tls else PLAIN)  # type: ignore[no-any-return]

    @contextmanager
    def _told(self) -> Generator[None]:
        """The library's errors in the contract's words."""
        named = self._exceptions
        try:
            yield
        except named.AuthenticationError as error:
            raise Denied(str(error), credentials=True) from error
        except (named.ConnectionError, named.TimeoutError, named.InvalidResponse) as error:
            raise ConnectionError(str(error)) from error
        except self._root as error:
            raise Denied(str(error)) from error


def _cancellations() -> int:
    """How often the running task was asked to end."""
    import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _still_wanted(asked: int) -> None:
    """Raise CancelledError where Python 3.11's `wait_for`, which both libraries use, has swallowed it."""
    if _cancellations() > asked:
        import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

        raise asyncio.CancelledError


def _let_go(connection: Any, *, hang_up: bool = True) -> Streams:
    """The streams of an asyncio connection, which has none any more."""
    streams: Any = connection._reader, connection._writer
    connection._reader = connection._writer = None
    if hang_up and streams[1] is not None:
        streams[1].close()
    return streams  # type: ignore[no-any-return]


def _left_to_us(package: str) -> Arguments:
    """Switch off what a library says or asks by itself: its own name, and what only one vendor's servers answer."""
    arguments: Arguments = {"lib_name": None, "lib_version": None}
    if package == "redis" and find_spec("redis.driver_info"):
        arguments = {"driver_info": None}
    if package == "redis" and find_spec("redis.maint_notifications"):
        from redis.maint_notifications import MaintNotificationsConfig

        arguments["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    return arguments


register("redis-py", lambda: Library("redis"))
register("valkey-py", lambda: Library("valkey", extra="valkey"))

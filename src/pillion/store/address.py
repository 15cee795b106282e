"""From `RedisSettings` to something that opens connections: the class and arguments redis-py needs, in either colour.

Called by `connection.py` when the first connection opens, so redis-py is imported no earlier. The address is looked
up again on every reconnect (Sentinel), retries are off, replies are bytes, the protocol is RESP3, and every timeout
is finite. From a client or pool that the user hands over only its class and arguments are taken."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from pillion.config import RedisSettings
from pillion.errors import ConfigError
from pillion.mask import mask_url

Colour: TypeAlias = Literal["sync", "async"]
Arguments: TypeAlias = dict[str, Any]

KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
# What a foreign client's arguments may say about the address and the credentials; all else is ours to decide.
TAKEN = (
    "host port path db username password credential_provider client_name ssl_keyfile ssl_certfile ssl_cert_reqs "
    "ssl_ca_certs ssl_ca_data ssl_ca_path ssl_check_hostname ssl_password ssl_min_version ssl_ciphers"
).split()


def connection_class(settings: RedisSettings, colour: Colour) -> tuple[type[Any], Arguments]:
    """The redis-py connection class to use and the arguments to make one with.

    Raises ConfigError when the settings name no address, or one that cannot be read.
    """
    kind, arguments = _address(settings)
    arguments |= {
        "socket_timeout": settings.timeout,
        "socket_connect_timeout": settings.connect_timeout,
        "protocol": 3,
        "decode_responses": False,
        "retry": None,
        "health_check_interval": 0,
        **_without_maintenance(),
    }
    if kind != "UnixDomainSocketConnection":
        arguments |= {"socket_keepalive": True, "socket_keepalive_options": _keepalive()}
    found = _class(kind, colour)
    return (_asking(found, _sentinel(settings, colour), colour) if settings.sentinels else found), arguments


def describe(settings: RedisSettings) -> str:
    """The address for messages, without credentials."""
    if settings.sentinels:
        return f"primary {settings.master!r} of sentinels {', '.join(settings.sentinels)}"
    if settings.client is not None:
        _, arguments = _from_client(settings.client)
        return str(arguments.get("path") or f"{arguments.get('host', 'localhost')}:{arguments.get('port', 6379)}")
    return mask_url(settings.url or "the embedded server")


def _address(settings: RedisSettings) -> tuple[str, Arguments]:
    if settings.client is not None:
        return _from_client(settings.client)
    if settings.url is None and not settings.sentinels:
        raise ConfigError("expected a Redis URL, got none; set REDIS_URL or pillion.configure(redis=...)")
    kind, arguments = _from_url(settings.url) if settings.url else ("Connection", {})
    return kind, arguments | (_tls(settings) if kind == "SSLConnection" else {})


def _from_url(url: str) -> tuple[str, Arguments]:
    from redis.connection import parse_url

    try:
        arguments = dict(parse_url(url))
    except ValueError as error:
        raise ConfigError(
            f"expected redis://localhost:6379/0, rediss://... or unix:///path, got {mask_url(url)!r} ({error})"
        ) from None
    found = arguments.pop("connection_class", None)
    return (found.__name__ if found else "Connection"), arguments


def _from_client(client: Any) -> tuple[str, Arguments]:
    pool = getattr(client, "connection_pool", client)
    kind, arguments = getattr(pool, "connection_class", None), getattr(pool, "connection_kwargs", None)
    if kind is None or not isinstance(arguments, dict):
        raise ConfigError(f"expected a redis-py client or connection pool, got {type(client).__name__}; or pass a URL")
    return kind.__name__, {name: value for name, value in arguments.items() if name in TAKEN and value is not None}


def _tls(settings: RedisSettings) -> Arguments:
    arguments: Arguments = {
        "ssl_ca_certs": settings.ca_file,
        "ssl_certfile": settings.cert_file,
        "ssl_keyfile": settings.key_file,
    }
    if settings.insecure_skip_verify:
        arguments |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    return {name: value for name, value in arguments.items() if value is not None}


def _class(kind: str, colour: Colour) -> type[Any]:
    import redis.asyncio.connection
    import redis.connection

    module: Any = redis.asyncio.connection if colour == "async" else redis.connection
    found = getattr(module, kind, None)
    if found is None:
        raise ConfigError(f"cannot open connections of class {kind}; pass a URL instead of this client")
    return found  # type: ignore[no-any-return]


def _keepalive() -> dict[int, int]:
    return {getattr(socket, name): value for name, value in KEEPALIVE.items() if hasattr(socket, name)}


def _without_maintenance() -> Arguments:
    """Switch off what newer redis-py does by itself: handshakes that only one vendor's servers answer."""
    try:
        from redis.maint_notifications import MaintNotificationsConfig
    except ImportError:
        return {}
    return {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}


def _sentinel(settings: RedisSettings, colour: Colour) -> Callable[[], Any]:
    """A call (or coroutine) that asks the Sentinels where the primary is now."""
    import redis.asyncio.sentinel
    import redis.sentinel

    if not settings.master:
        raise ConfigError("expected the name of the primary beside the sentinels, got none; set redis.master")
    module: Any = redis.asyncio.sentinel if colour == "async" else redis.sentinel
    hosts = [(host, int(port or 26379)) for host, _, port in (item.rpartition(":") for item in settings.sentinels)]
    ask = module.Sentinel(hosts, socket_timeout=settings.connect_timeout, retry=None)
    return lambda: ask.discover_master(settings.master)


def _asking(base: type[Any], ask: Callable[[], Any], colour: Colour) -> type[Any]:
    """A connection class that looks its address up each time it connects."""

    class Asking(base):  # type: ignore[misc]
        def _connect(self) -> Any:
            self.host, self.port = ask()
            return super()._connect()

    class AsyncAsking(base):  # type: ignore[misc]
        async def _connect(self) -> Any:
            self.host, self.port = await ask()
            return await super()._connect()

    return AsyncAsking if colour == "async" else Asking

"""From `RedisSettings` to something that opens connections: the class and arguments redis-py needs, in either colour.

Called by `pool.py` and `connection.py` when a first connection opens, so redis-py is imported no earlier. Sentinels
are asked on every reconnect, retries are off, the protocol is RESP3, and every timeout is finite. From a client or
pool that the user hands over its class and arguments are taken, never its connections."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from pillion.config import RedisSettings
from pillion.errors import ConfigError
from pillion.mask import mask_url

Colour: TypeAlias = Literal["sync", "async"]
Arguments: TypeAlias = dict[str, Any]
Host: TypeAlias = tuple[str, int]

SENTINEL_PORT = 26379
KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
# What an address or a foreign client may say about the server, the credentials and TLS; all else is ours to decide.
TAKEN = frozenset(
    "host port path db username password credential_provider client_name ssl_keyfile ssl_certfile ssl_cert_reqs "
    "ssl_ca_certs ssl_ca_data ssl_ca_path ssl_check_hostname ssl_password ssl_min_version ssl_ciphers "
    "ssl_include_verify_flags ssl_exclude_verify_flags".split()
)
OCSP = ("ssl_validate_ocsp", "ssl_validate_ocsp_stapled")
TLS_FILES = {"ca_file": "ssl_ca_certs", "cert_file": "ssl_certfile", "key_file": "ssl_keyfile"}
CURES = {
    "ostname mismatch": "connect by a name that its certificate holds, or have one issued for this name",
    "IP address mismatch": "connect by a name that its certificate holds, or have one issued for this address",
    "certificate has expired": "renew the server's certificate",
    "CERTIFICATE_VERIFY_FAILED": "if you trust the server, name the authority of its certificate: redis.ca_file",
    "WRONG_VERSION_NUMBER": "the server does not speak TLS on this port: write redis:// instead of rediss://",
    "RECORD_LAYER_FAILURE": "the server does not speak TLS on this port: write redis:// instead of rediss://",
    "invalid username-password": "check both; in an address, write %40 for @, %3A for :, %2F for / and %23 for #",
    "already authenticated": "put the password into the address: redis://:PASSWORD@host",
    "losed by server": "if it wants TLS on this port, write rediss://",
    "reset by peer": "if it wants TLS on this port, write rediss://",
    "Timeout connecting": "check host and port, and whether this port speaks TLS (rediss://) or not (redis://)",
}
"""What to do about a failure to connect, by words in its text; the first that fits counts."""


class Sentinels(msgspec.Struct, frozen=True):
    """Whom to ask where the primary `master` is, and the arguments to talk to them with."""

    hosts: tuple[Host, ...]
    master: str
    arguments: Arguments


class Target(msgspec.Struct, frozen=True):
    """What to connect to: redis-py's class for it, itself or by name, its arguments, and who knows where it is."""

    kind: str | type[Any]
    arguments: Arguments
    sentinels: Sentinels | None = None


def connection_class(settings: RedisSettings, colour: Colour) -> tuple[type[Any], Arguments]:
    """The redis-py connection class to use and the arguments to make one with.

    Raises ConfigError when the settings name no address, or one that cannot be used.
    """
    target = _target(settings)
    kind, arguments = _class(target.kind, colour), target.arguments | _ours(settings)
    if not issubclass(kind, _class("UnixDomainSocketConnection", colour)):
        arguments |= {"socket_keepalive": True, "socket_keepalive_options": _keepalive()}
    if target.sentinels is not None:
        kind = _asking(kind, _question(target.sentinels, settings, colour), colour)
    return kind, arguments


def verifies(arguments: Mapping[str, Any]) -> bool:
    """Whether the server's certificate, where it has one, must be valid and name the host."""
    return arguments.get("ssl_cert_reqs") != "none" and arguments.get("ssl_check_hostname") is not False


def describe(settings: RedisSettings) -> str:
    """The address for messages, without credentials."""
    if settings.sentinels:
        return f"primary {settings.master!r} of sentinels {', '.join(settings.sentinels)}"
    if settings.client is None:
        return mask_url(settings.url or "the embedded server")
    target = _from_client(settings.client)
    if target.sentinels is not None:
        return f"primary {target.sentinels.master!r} of its sentinels"
    host, port = target.arguments.get("host", "localhost"), target.arguments.get("port", 6379)
    return str(target.arguments.get("path") or f"{host}:{port}")


def cure(error: str) -> str:
    """What to do about a failure to connect, as the end of its sentence; empty where there is nothing to add."""
    return next((f"; {advice}" for words, advice in CURES.items() if words in error), "")


# --- where it is ------------------------------------------------------------------------------------------------------


def _target(settings: RedisSettings) -> Target:
    if settings.client is not None:
        target = _from_client(settings.client)
    elif settings.url or settings.sentinels:
        target = _from_url(settings.url or "redis://", settings)
    else:
        raise ConfigError("expected a Redis URL, got none; set REDIS_URL or pillion.configure(redis=...)")
    return _behind_sentinels(target, settings) if settings.sentinels else target


def _from_url(url: str, settings: RedisSettings) -> Target:
    from redis.connection import parse_url

    try:
        arguments = dict(parse_url(url))
    except ValueError:  # whose text may hold a piece of the password
        expected = "expected redis://localhost:6379/0, rediss://... or unix:///path"
        raise ConfigError(f"{expected}, got {mask_url(url)!r}; see the part after the last @") from None
    found = arguments.pop("connection_class", None)
    kind = found.__name__ if found else "Connection"
    secure = kind == "SSLConnection"
    if strange := sorted(name for name in arguments if name not in TAKEN or (name.startswith("ssl_") and not secure)):
        raise ConfigError(
            f"cannot use {', '.join(strange)} in the address {mask_url(url)}; remove it, and set redis.timeout, "
            "redis.connect_timeout or redis.pool_size if you need to"
        )
    return Target(kind, _plain_tls(arguments | _tls(settings, secure=secure)))


def _from_client(client: Any) -> Target:
    pool = getattr(client, "connection_pool", client)
    kind, arguments = getattr(pool, "connection_class", None), getattr(pool, "connection_kwargs", None)
    if not isinstance(kind, type) or not isinstance(arguments, dict):
        raise ConfigError(f"expected a redis-py client or connection pool, got {type(client).__name__}; or pass a URL")
    if any(arguments.get(name) for name in OCSP):
        raise ConfigError("cannot check OCSP answers as this client does; pass a URL instead, or a client without it")
    target = Target(kind, _taken(arguments))
    manager = getattr(pool, "sentinel_manager", None)
    if manager is None:
        return target
    known = (each.connection_pool.connection_kwargs for each in manager.sentinels)
    hosts = tuple((each["host"], each["port"]) for each in known)
    asking = _taken(manager.sentinel_kwargs) | {"ssl": bool(manager.sentinel_kwargs.get("ssl"))}
    return Target(kind, target.arguments, Sentinels(hosts, pool.service_name, asking))


def _taken(arguments: Mapping[str, Any]) -> Arguments:
    no_check = "ssl_cert_reqs" in arguments and arguments["ssl_cert_reqs"] is None
    taken = {name: value for name, value in arguments.items() if name in TAKEN and value is not None}
    return _plain_tls(taken | ({"ssl_cert_reqs": "none"} if no_check else {}))


def _behind_sentinels(target: Target, settings: RedisSettings) -> Target:
    if not settings.master:
        raise ConfigError("expected the name of the primary beside the sentinels, got none; set redis.master")
    if "path" in target.arguments:
        raise ConfigError("expected redis:// or rediss:// beside the sentinels, got a socket; Sentinels name a host")
    parts = (address.rpartition(":") for address in settings.sentinels)
    hosts = tuple((host, int(port or SENTINEL_PORT)) for host, _, port in parts)
    arguments = {name: value for name, value in target.arguments.items() if name.startswith("ssl_")}
    if target.kind == "SSLConnection":
        arguments["ssl"] = True
    return Target(target.kind, target.arguments, Sentinels(hosts, settings.master, arguments))


# --- how to connect ---------------------------------------------------------------------------------------------------


def _ours(settings: RedisSettings) -> Arguments:
    return {
        "socket_timeout": settings.timeout,
        "socket_connect_timeout": settings.connect_timeout,
        "protocol": 3,
        "retry": None,
        **_without_maintenance(),
    }


def _tls(settings: RedisSettings, *, secure: bool) -> Arguments:
    given = {name: getattr(settings, name) for name in TLS_FILES if getattr(settings, name) is not None}
    if not secure and (given or settings.insecure_skip_verify):
        name = next(iter(given), "insecure_skip_verify")
        raise ConfigError(f"redis.{name} is for TLS, and the address does not ask for it; write rediss://")
    for name, path in given.items():
        if not Path(path).is_file():
            raise ConfigError(f"redis.{name}: expected a PEM file, got {path}, which is none; check the path")
    arguments: Arguments = {TLS_FILES[name]: path for name, path in given.items()}
    return arguments | ({"ssl_cert_reqs": "none", "ssl_check_hostname": False} if settings.insecure_skip_verify else {})


def _plain_tls(arguments: Arguments) -> Arguments:
    """`ssl_cert_reqs` in redis-py's own words: other libraries write CERT_NONE for none, and `ssl` has an enum."""
    reqs = arguments.get("ssl_cert_reqs")
    if reqs is None:
        return arguments
    return arguments | {"ssl_cert_reqs": str(getattr(reqs, "name", reqs)).lower().removeprefix("cert_")}


def _class(kind: str | type[Any], colour: Colour) -> type[Any]:
    """redis-py's class of this colour; a class of the user's own is taken as it is where it has the colour."""
    import redis.asyncio.connection
    import redis.connection

    module: Any = redis.asyncio.connection if colour == "async" else redis.connection
    names = [kind] if isinstance(kind, str) else [each.__name__ for each in kind.__mro__]
    if isinstance(kind, type) and issubclass(kind, module.AbstractConnection) and "Sentinel" not in kind.__name__:
        return kind
    for name in names:
        if name in ("SSLConnection", "UnixDomainSocketConnection", "Connection"):
            return getattr(module, name)  # type: ignore[no-any-return]
    raise ConfigError(f"cannot open connections of class {names[0]}; pass a URL instead of this client")


def _keepalive() -> dict[int, int]:
    return {getattr(socket, name): value for name, value in KEEPALIVE.items() if hasattr(socket, name)}


def _without_maintenance() -> Arguments:
    """Switch off what newer redis-py does by itself: handshakes that only one vendor's servers answer."""
    try:
        from redis.maint_notifications import MaintNotificationsConfig
    except ImportError:
        return {}
    return {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}


def _question(sentinels: Sentinels, settings: RedisSettings, colour: Colour) -> Callable[[], Any]:
    """A call (or coroutine) that asks the Sentinels where the primary is now, over connections that it closes again."""
    import redis
    import redis.asyncio

    patience = settings.connect_timeout
    common = {"socket_timeout": patience, "socket_connect_timeout": patience, "retry": None, "decode_responses": True}
    arguments: Arguments = common | sentinels.arguments

    def ask() -> Host:
        failures = []
        for host, port in sentinels.hosts:
            with redis.Redis(host, port, **arguments) as client:
                try:
                    found: Any = client.sentinel_get_master_addr_by_name(sentinels.master)
                    if found:
                        return found[0], int(found[1])
                    failures.append(f"{host}:{port} does not know it")
                except redis.RedisError as error:
                    failures.append(f"{host}:{port}: {error}")
        raise redis.ConnectionError(f"no Sentinel tells where it is ({'; '.join(failures)})")

    async def aask() -> Host:
        failures = []
        for host, port in sentinels.hosts:
            async with redis.asyncio.Redis(host=host, port=port, **arguments) as client:
                try:
                    answer: Any = client.sentinel_get_master_addr_by_name(sentinels.master)
                    if found := await answer:
                        return found[0], int(found[1])
                    failures.append(f"{host}:{port} does not know it")
                except redis.RedisError as error:
                    failures.append(f"{host}:{port}: {error}")
        raise redis.ConnectionError(f"no Sentinel tells where it is ({'; '.join(failures)})")

    return aask if colour == "async" else ask


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

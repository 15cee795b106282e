"""From `RedisSettings` to an `Address`: where the server is, how to get in, and whom to ask where it has moved.

Called by `dial.py` when a first connection opens, and wherever an address is shown. Addresses are read here, once for
all adapters. From a client or pool that the user hands over its class and arguments are taken, never its connections.
Nothing here opens anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from pillion.config import RedisSettings
from pillion.errors import ConfigError
from pillion.mask import mask_url
from pillion.sharding import slot_of
from pillion.store.adapter import Address, Tls
from pillion.store.guides import Cluster, Guide, Host, Sentinels, nodes_of
from pillion.store.libraries import BY_PATH, PLAIN, SECURE, TLS_ARGUMENTS

Arguments: TypeAlias = dict[str, Any]

SENTINEL_PORT = 26379
WHERE = ("host", "port", "path", "db", "username", "password")
OCSP = ("ssl_validate_ocsp", "ssl_validate_ocsp_stapled")
TLS_FILES = {"ca_file": "ssl_ca_certs", "cert_file": "ssl_certfile", "key_file": "ssl_keyfile"}
TLS = frozenset({*TLS_ARGUMENTS, "ssl_cert_reqs", "ssl_check_hostname"})
EXPECTED = "expected redis://localhost:6379/0, rediss://... or unix:///path"
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
    "cluster support disabled": "it is no node of a cluster: write its address as redis.url instead of redis.cluster",
    "Timeout connecting": "check host and port, and whether this port speaks TLS (rediss://) or not (redis://)",
    "onnection refused": "start the server, or correct the address: REDIS_URL or pillion.configure(redis=...)",
    "onnect call failed": "start the server, or correct the address: REDIS_URL or pillion.configure(redis=...)",
    "service not known": "check the host's name in the address",
    "'idna' codec": "check the host's name in the address: between its dots stand 1 to 63 letters or digits",
    "No such file": "check the path of the socket, and that the server has `unixsocket` set to it",
    "DB index": "take a database that the server has: usual ones have 0 to 15, as in redis://host:6379/0",
}
"""What to do about a failure to connect, by words in its text; the first that fits counts."""


class Target(msgspec.Struct, frozen=True):
    """What to connect to, under which name, and who knows where it is."""

    address: Address
    name: str | None = None
    guide: Guide | None = None


def target_of(settings: RedisSettings) -> Target:
    """What settings point at. Raises ConfigError when they name no address, or one that cannot be used."""
    if settings.client is not None:
        target = _from_client(settings.client)
    elif settings.is_somewhere:
        target = _from_url(settings.url or "redis://", settings)
    else:
        raise ConfigError("expected a Redis URL, got none; set REDIS_URL or pillion.configure(redis=...)")
    if settings.sentinels:
        target = _behind_sentinels(target, settings)
    if settings.cluster:
        target = _in_cluster(target, settings)
    patience = {"connect_timeout": settings.connect_timeout, "timeout": settings.timeout}
    address = msgspec.structs.replace(target.address, **patience)
    return msgspec.structs.replace(target, address=address, name=settings.client_name or target.name)


def verifies(address: Address) -> bool:
    """Whether the server's certificate, where it has one, must be valid and name the host."""
    return address.tls is None or (address.tls.verify and address.tls.check_hostname)


def describe(settings: RedisSettings) -> str:
    """The address for messages, without credentials."""
    if settings.sentinels:
        return f"primary {settings.master!r} of sentinels {', '.join(settings.sentinels)}"
    if settings.cluster:
        return f"prefix {settings.prefix!r} of the cluster of {', '.join(settings.cluster)}"
    if settings.client is None:
        return mask_url(settings.url or "the embedded server")
    target = _from_client(settings.client)
    if isinstance(target.guide, Sentinels):
        return f"primary {target.guide.master!r} of its sentinels"
    return str(target.address)


def cure(error: str) -> str:
    """What to do about a failure to connect, as the end of its sentence; empty where there is nothing to add."""
    return next((f"; {advice}" for words, advice in CURES.items() if words in error), "")


# --- from an address --------------------------------------------------------------------------------------------------


def _from_url(url: str, settings: RedisSettings) -> Target:
    try:
        parts = urlsplit(url)
        said = _said(parts.query)
        where = _where(parts.scheme, parts.path, parts.hostname, parts.port, said)
    except ValueError:  # whose text may hold a piece of the password
        raise ConfigError(f"{EXPECTED}, got {mask_url(url)!r}; see the part after the last @") from None
    who = {"username": parts.username, "password": parts.password}
    where |= {name: unquote(value) for name, value in who.items() if value}
    secure = parts.scheme == "rediss"
    allowed = {*WHERE, "client_name", *(TLS if secure else ())}
    if strange := sorted(said.keys() - allowed):
        raise ConfigError(
            f"cannot use {', '.join(strange)} in the address {mask_url(url)}; remove it, and set redis.timeout, "
            "redis.connect_timeout or redis.pool_size if you need to"
        )
    tls = {name: value for name, value in said.items() if name in TLS} | _tls_files(settings, secure=secure)
    return Target(Address(**where, tls=_tls(tls) if secure else None), said.get("client_name"))


def _said(query: str) -> Arguments:
    """What the query of an address says. Raises ValueError for what cannot be meant."""
    return {name: READ.get(name, str)(value) for name, value in reversed(parse_qsl(query))}  # the first one counts


def _where(scheme: str, path: str, host: str | None, port: int | None, said: Arguments) -> Arguments:
    if scheme not in ("redis", "rediss", "unix"):
        raise ValueError(scheme)
    where: Arguments = {name: value for name, value in said.items() if name in WHERE}
    if scheme == "unix":
        return {**where, "path": unquote(path)}
    given = {"host": unquote(host or ""), "port": port or 0, "db": _number(path)}
    return {name: value for name, value in given.items() if value} | where


def _number(path: str) -> int:
    digits = path.replace("/", "")
    return int(digits) if digits.isdigit() else 0


def _yes(word: str) -> bool:
    return word.lower() not in ("0", "f", "false", "n", "no")


def _flags(names: str) -> list[int]:
    import ssl  # noqa: PLC0415 - costs 20 ms, and most connections are plain

    try:
        return [ssl.VerifyFlags[name.strip()] for name in names.strip("[]").split(",")]
    except KeyError as error:
        raise ValueError(str(error)) from None


READ: Mapping[str, Callable[[str], Any]] = {
    "db": int,
    "port": int,
    "ssl_check_hostname": _yes,
    "ssl_min_version": int,
    "ssl_include_verify_flags": _flags,
    "ssl_exclude_verify_flags": _flags,
}
"""How the query of an address is read where it is more than text."""


# --- from a client ----------------------------------------------------------------------------------------------------


def _from_client(client: Any) -> Target:
    pool = getattr(client, "connection_pool", client)
    kind, arguments = getattr(pool, "connection_class", None), getattr(pool, "connection_kwargs", None)
    if not isinstance(kind, type) or not isinstance(arguments, dict):
        raise ConfigError(f"expected a redis-py client or connection pool, got {type(client).__name__}; or pass a URL")
    if any(arguments.get(name) for name in OCSP):
        raise ConfigError("cannot check OCSP answers as this client does; pass a URL instead, or a client without it")
    address = _taken(arguments, secure=_looks_like(kind) == SECURE, connection_class=kind)
    target = Target(address, arguments.get("client_name"))
    manager = getattr(pool, "sentinel_manager", None)
    if manager is None:
        return target
    known = (each.connection_pool.connection_kwargs for each in manager.sentinels)
    hosts = tuple((each["host"], each["port"]) for each in known)
    like = _taken(manager.sentinel_kwargs, secure=bool(manager.sentinel_kwargs.get("ssl")))
    return Target(address, target.name, Sentinels(hosts, pool.service_name, like))


def _looks_like(kind: type[Any]) -> str:
    """Which of the libraries' classes a class is, or descends from."""
    found = next((each.__name__ for each in kind.__mro__ if each.__name__ in (PLAIN, SECURE, BY_PATH)), None)
    if found is None:
        raise ConfigError(f"cannot open connections of class {kind.__name__}; pass a URL instead of this client")
    return found


def _taken(arguments: Mapping[str, Any], *, secure: bool, **of_client: Any) -> Address:
    """The address among the arguments of a foreign client; all else is ours to decide."""
    where = {name: arguments[name] for name in WHERE if arguments.get(name) is not None}
    of_client["credential_provider"] = arguments.get("credential_provider")
    return Address(**where, tls=_tls(arguments) if secure else None, of_client=of_client)


# --- guides and TLS ---------------------------------------------------------------------------------------------------


def _behind_sentinels(target: Target, settings: RedisSettings) -> Target:
    if not settings.master:
        raise ConfigError("expected the name of the primary beside the sentinels, got none; set redis.master")
    if target.address.path:
        raise ConfigError("expected redis:// or rediss:// beside the sentinels, got a socket; Sentinels name a host")
    hosts = _hosts(settings.sentinels, SENTINEL_PORT)
    sentinels = Sentinels(hosts, settings.master, Address(tls=target.address.tls))
    return msgspec.structs.replace(target, guide=sentinels)


def _in_cluster(target: Target, settings: RedisSettings) -> Target:
    if target.guide is not None:
        raise ConfigError("expected one of redis.cluster and the sentinels, got both; a cluster fails over by itself")
    if target.address.path:
        raise ConfigError("expected redis:// or rediss:// beside redis.cluster, got a socket; its nodes name hosts")
    if target.address.db:
        raise ConfigError(f"expected database 0 beside redis.cluster, got {target.address.db}; a cluster has no other")
    nodes = nodes_of(_hosts(settings.cluster, target.address.port))
    return msgspec.structs.replace(target, guide=Cluster(nodes, slot_of(settings.prefix), target.address))


def _hosts(addresses: Iterable[str], usual_port: int) -> tuple[Host, ...]:
    parts = (address.rpartition(":") for address in addresses)
    return tuple((host.strip("[]"), int(port or usual_port)) for host, _, port in parts)


def _tls_files(settings: RedisSettings, *, secure: bool) -> Arguments:
    given = {name: getattr(settings, name) for name in TLS_FILES if getattr(settings, name) is not None}
    if not secure and (given or settings.insecure_skip_verify):
        name = next(iter(given), "insecure_skip_verify")
        raise ConfigError(f"redis.{name} is for TLS, and the address does not ask for it; write rediss://")
    for name, path in given.items():
        if not Path(path).is_file():
            raise ConfigError(f"redis.{name}: expected a PEM file, got {path}, which is none; check the path")
    arguments: Arguments = {TLS_FILES[name]: path for name, path in given.items()}
    return arguments | ({"ssl_cert_reqs": "none"} if settings.insecure_skip_verify else {})


def _tls(arguments: Mapping[str, Any]) -> Tls:
    """What arguments in the libraries' words say about TLS."""
    fields = {field: arguments[name] for name, field in TLS_ARGUMENTS.items() if arguments.get(name) is not None}
    for name in ("set_flags", "clear_flags"):
        fields[name] = tuple(fields.get(name, ()))
    checks = arguments.get("ssl_check_hostname")
    return Tls(**fields, verify=_must_be_valid(arguments), check_hostname=checks is None or bool(checks))


def _must_be_valid(arguments: Mapping[str, Any]) -> bool:
    """`ssl_cert_reqs` has many spellings: none, CERT_NONE, an enum's member; and None, where a client was given it."""
    reqs = arguments.get("ssl_cert_reqs", "required")
    return str(getattr(reqs, "name", reqs)).lower().removeprefix("cert_") != "none"

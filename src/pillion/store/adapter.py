"""What Pillion needs of a client library, and nothing else: the contract of an adapter, and the names that there are.

An adapter opens connections. It is asked for one at a given `Address`, in one of two colours, and hands over what it
has opened: a socket, or a pair of asyncio streams. From then on the connection is Pillion's: `dial.py` names it,
`pool.py` pools it, `wire.py` writes and reads its bytes. `docs/adapters.md` is the contract in full, with an example.

Three adapters ship (`sockets.py`, `libraries.py`); `register` makes another one known. Adapters come from code alone: a
file or the environment may choose among the names that are known, and nothing is imported because somebody named it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from pillion.errors import ConfigError
from pillion.given import closest

if TYPE_CHECKING:
    import asyncio
    import ssl

Colour: TypeAlias = Literal["sync", "async"]
Streams: TypeAlias = "tuple[asyncio.StreamReader, asyncio.StreamWriter]"


class Denied(Exception):
    """Raised by an adapter: the server answered, and does not let us in.

    The text is the server's own. `credentials` says whether user or password are to blame.
    """

    def __init__(self, text: str, *, credentials: bool = False) -> None:
        super().__init__(text)
        self.credentials = credentials


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """How to speak TLS with a server.

    Attributes:
        ca_file, ca_path, ca_data: the authorities to trust, as a PEM file, a folder, or text; none means the system's.
        cert_file, key_file, key_password: our own certificate and its key.
        verify: whether the server's certificate must be valid.
        check_hostname: whether it must also name the host; False where `verify` is.
        min_version: the oldest `ssl.TLSVersion` to accept; None means TLS 1.2.
        ciphers: an OpenSSL list of ciphers; None means Python's choice.
        set_flags, clear_flags: `ssl.VerifyFlags` to add and to take away.
    """

    ca_file: str | None = None
    ca_path: str | None = None
    ca_data: str | bytes | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = None
    verify: bool = True
    check_hostname: bool = True
    min_version: int | None = None
    ciphers: str | None = None
    set_flags: tuple[int, ...] = ()
    clear_flags: tuple[int, ...] = ()

    def context(self) -> ssl.SSLContext:
        """All of it as a context: wrap the socket with it and `server_hostname=address.host`."""
        import ssl  # noqa: PLC0415 - costs 20 ms, and most connections are plain

        context = ssl.create_default_context(cafile=self.ca_file, capath=self.ca_path, cadata=self.ca_data)
        context.minimum_version = ssl.TLSVersion(self.min_version or ssl.TLSVersion.TLSv1_2)
        context.check_hostname = self.verify and self.check_hostname
        context.verify_mode = ssl.CERT_REQUIRED if self.verify else ssl.CERT_NONE
        for flag in self.set_flags:
            context.verify_flags |= flag
        for flag in self.clear_flags:
            context.verify_flags &= ~flag
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file, self.key_password)
        if self.ciphers:
            context.set_ciphers(self.ciphers)
        return context

    def __repr__(self) -> str:
        return f"Tls(verify={self.verify}, check_hostname={self.check_hostname})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """For tracebacks, without secrets."""
        return [("verify", self.verify), ("check_hostname", self.check_hostname)]


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """One server, and how to get in. Its repr shows no password.

    Attributes:
        host, port: where it listens; unused where there is a `path`.
        path: a Unix socket.
        db: the database to select.
        username, password: whom to be; None for the server's default user, or for no authentication at all.
        tls: how to speak TLS; None means plain.
        connect_timeout: seconds that opening the connection may take.
        timeout: seconds that one answer of the handshake may take.
        of_client: what only the library of a client that was handed over understands: its connection class and its
            provider of credentials. Empty for every other adapter.
    """

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = None
    tls: Tls | None = None
    connect_timeout: float = 3.0
    timeout: float = 3.0
    of_client: Mapping[str, Any] = {}

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Address({self})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """For tracebacks, without secrets."""
        return [("at", str(self))]


@runtime_checkable
class Adapter(Protocol):
    """Opens connections. One object serves all threads, tasks and forked children of a process.

    What is handed over is connected (TLS included), authenticated, has answered `HELLO 3`, has `address.db` selected,
    and has nothing left to read. It belongs to the caller alone, and the adapter does not touch it again: not even when
    its own objects are collected.

    Raises:
        OSError: nobody answers, TLS fails, the connection breaks, or time runs out.
        Denied: the server answered no.
    """

    def connect(self, address: Address) -> socket.socket:
        """A blocking socket (or an `ssl.SSLSocket`)."""
        ...

    async def aconnect(self, address: Address) -> Streams:
        """The streams of the running loop; a cancelled call leaves nothing open."""
        ...


DEFAULT = "sockets"

Factory: TypeAlias = Callable[[], Adapter]

_known: dict[str, Factory] = {}
_made: dict[str, Adapter] = {}


def register(name: str, factory: Factory) -> None:
    """Make an adapter known as `name`, for `redis.adapter`. `factory` is called once, before its first connection.

    Raises ConfigError for a name that is taken by another factory.
    """
    if _known.setdefault(name, factory) is not factory:
        raise ConfigError(f"expected a new name for an adapter, got {name!r}, which is taken; pick another name")


def find(chosen: str | Adapter) -> Adapter:
    """The adapter of that name; an adapter itself is taken as it is. Raises ConfigError for anything else."""
    if isinstance(chosen, Adapter) and not isinstance(chosen, type):
        return chosen
    if not isinstance(chosen, str) or chosen not in _known:
        close = closest(chosen, _known) if isinstance(chosen, str) else None
        raise ConfigError(
            f"redis.adapter, or PILLION_REDIS_ADAPTER: expected one of {', '.join(_known)}, got {chosen!r}; "
            + (f"did you mean {close!r}? If not, " if close else "check the spelling, or ")
            + "make it known first: pillion.adapters.register(name, factory)"
        )
    return _made.get(chosen) or _made.setdefault(chosen, _known[chosen]())

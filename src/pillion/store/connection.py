"""The only place that talks to Redis: it opens connections, sends ops and reads their replies, in both colours.

redis-py opens, authenticates and pools the connections; an op's bytes go straight through their sockets, one write
for one exchange. Nothing is sent twice behind the caller's back:

- no connection: `Unavailable`, nothing was sent;
- refused (READONLY, NOREPLICAS, LOADING, UNBLOCKED): the server executed none of the refused commands, so these alone
  are sent again, once, over a new connection;
- sent, but the reply was lost: `Ambiguous`, unless the op says that it may be sent twice.

`Store` and `AsyncStore` run ops over a pool. A `Session` is one connection of its own, for a fetcher, that also hears
which watched keys have changed. After any doubt a socket is closed, never returned. A forked child opens its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import hiredis

from pillion.config import RedisSettings
from pillion.errors import Ambiguous, Refused, StoreError, Unavailable
from pillion.store.address import connection_class, describe
from pillion.store.exchange import Exchange, new_reader, news
from pillion.store.keys import Keyspace
from pillion.store.ops import Op
from pillion.store.pool import LoopPool, opening, thread_pool

T = TypeVar("T")
Find: TypeAlias = Callable[[], RedisSettings]

READ_SIZE = 65_536


class _Located:
    """A keyspace, and the server that it is on."""

    def __init__(self, settings: RedisSettings, find: Find | None = None) -> None:
        self.keys = Keyspace(settings.prefix)
        self._given = settings
        self._find = find
        self._found: RedisSettings | None = None

    @property
    def settings(self) -> RedisSettings:
        """Where the server is; found out when it is first needed."""
        if self._found is None:
            self._found = self._find() if self._find else self._given
        return self._found


class Store(_Located):
    """One keyspace on one Redis, for threads: `run(op)` borrows a pooled connection for the length of one exchange."""

    def __init__(self, settings: RedisSettings, find: Find | None = None) -> None:
        super().__init__(settings, find)
        self._pool: dict[str, Any] = {}

    def run(self, op: Op[T]) -> T:
        """Send an op and return its result.

        Raises Unavailable or PoolTimeout (nothing was sent), Refused, or Ambiguous (it may have happened).
        """
        try:
            return self._attempt(op)
        except (Ambiguous, Unavailable) as error:
            if not op.safe:
                raise
            first = error
        with _doubting(first):
            return self._attempt(op)

    def session(self) -> Session:
        """A connection of its own, outside the pool; nothing is opened yet."""
        return Session(self.settings)

    def close(self) -> None:
        """Close the connections that nobody uses just now. The store can be used again."""
        for pool in self._pool.values():
            pool.disconnect(inuse_connections=False)

    def _attempt(self, op: Op[T]) -> T:
        pool = self._pool.get("it") or self._open_pool()
        with opening(self.settings):
            connection = pool.get_connection()
        try:
            return self._exchange(connection, op)
        except Refused:
            raise
        except BaseException:
            connection.disconnect()
            raise
        finally:
            pool.release(connection)

    def _exchange(self, connection: Any, op: Op[T]) -> T:
        exchange = Exchange(op)
        drive(connection, exchange, self.settings)
        if exchange.again():
            connection.disconnect()
            with _standing(exchange), opening(self.settings):
                connection.connect()
            drive(connection, exchange, self.settings)
        return exchange.result()

    def _open_pool(self) -> Any:
        return self._pool.setdefault("it", thread_pool(self.settings))  # of the pools of two threads one is used


class AsyncStore(_Located):
    """The same for asyncio: one pool per event loop, closed when its loop ends."""

    def __init__(self, settings: RedisSettings, find: Find | None = None) -> None:
        super().__init__(settings, find)
        self._pools: dict[asyncio.AbstractEventLoop, LoopPool] = {}

    async def run(self, op: Op[T]) -> T:
        """Send an op and return its result. Raises as `Store.run`; a cancelled call closes its connection."""
        try:
            return await self._attempt(op)
        except (Ambiguous, Unavailable) as error:
            if not op.safe:
                raise
            first = error
        with _doubting(first):
            return await self._attempt(op)

    async def close(self) -> None:
        """Close the connections of the running loop's pool."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.close()

    def retire(self) -> None:
        """Close the connections of all loops, each on its own and when nobody uses them any more; from any thread."""
        while self._pools:
            loop, pool = self._pools.popitem()
            with suppress(RuntimeError):  # the loop has ended, and closed them
                loop.call_soon_threadsafe(pool.retire)

    async def _attempt(self, op: Op[T]) -> T:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop) or await self._open_pool(loop)
        connection = await pool.take()
        try:
            return await self._exchange(connection, op)
        except Refused:
            raise
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.give_back(connection)

    async def _exchange(self, connection: Any, op: Op[T]) -> T:
        exchange = Exchange(op)
        await adrive(connection, exchange, self.settings)
        if exchange.again():
            await connection.disconnect(nowait=True)
            with _standing(exchange), opening(self.settings):
                await connection.connect()
            await adrive(connection, exchange, self.settings)
        return exchange.result()

    async def _open_pool(self, loop: asyncio.AbstractEventLoop) -> LoopPool:
        for other in [other for other in self._pools if other.is_closed()]:
            del self._pools[other]
        self._pools[loop] = pool = LoopPool(self.settings)
        await pool.open()
        return pool


class Session:
    """One connection that a fetcher keeps: ops one at a time, and between them the news of watched keys.

    One thread owns it. After any error but `Refused` it is closed; `open()` starts anew.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._connection: Any = None
        self._reader = new_reader()
        self._changed: set[bytes] = set()

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def open(self) -> None:
        """Connect afresh. Raises Unavailable, or Refused where the server does not let us in."""
        self.close()
        kind, arguments = connection_class(self._settings, "sync")
        with opening(self._settings):
            connection = kind(**arguments)
            connection.connect()
        self._connection = connection
        self._reader, self._changed = new_reader(), set()

    def track(self) -> bool:
        """Turn on client tracking for the steps that ask for it. False where the server knows none."""
        try:
            self.call(Op("track", (("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP"),), lambda _: None))
        except Refused:
            return False
        return True

    def call(self, op: Op[T]) -> T:
        """Send an op and wait for its result. Raises Refused; on Ambiguous the connection is closed."""
        exchange = Exchange(op, self._reader, self._changed)
        try:
            drive(self._open_connection(), exchange, self._settings)
        except BaseException:
            self.close()
            raise
        return exchange.result()

    def fileno(self) -> int:
        """The socket's descriptor, for select: readable means `changed()` has something to say."""
        return socket_of(self._open_connection()).fileno()

    def changed(self) -> set[bytes]:
        """Keys that changed since the last call, without waiting. Raises Unavailable if the server hung up."""
        try:
            for data in _available(socket_of(self._open_connection()), self._settings.timeout):
                self._reader.feed(data)
            news(self._reader, self._changed)
        except (OSError, hiredis.HiredisError) as error:
            self.close()
            raise Unavailable(f"lost the connection to Redis at {describe(self._settings)}: {error}") from error
        changed, self._changed = self._changed, set()
        return changed

    def close(self) -> None:
        """Close the socket, whatever state it is in."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _open_connection(self) -> Any:
        if self._connection is None:
            raise Unavailable(f"the session with Redis at {describe(self._settings)} is closed")
        return self._connection


def drive(connection: Any, exchange: Exchange[Any], settings: RedisSettings) -> None:
    """Carry an exchange over a blocking socket. Raises Ambiguous when the replies do not all come."""
    sock = socket_of(connection)
    try:
        while exchange.asking():
            for piece in exchange.outgoing():
                sock.sendall(piece)
            while exchange.waiting():
                exchange.feed(_some(sock.recv(READ_SIZE)))
    except (OSError, hiredis.HiredisError) as error:
        raise _lost(exchange, settings, error) from error


async def adrive(connection: Any, exchange: Exchange[Any], settings: RedisSettings) -> None:
    """Carry an exchange over asyncio streams. Raises Ambiguous when the replies do not all come."""
    reader, writer = connection._reader, connection._writer
    try:
        async with asyncio.timeout(settings.timeout):
            while exchange.asking():
                for piece in exchange.outgoing():
                    writer.write(piece)
                    await writer.drain()
                while exchange.waiting():
                    exchange.feed(_some(await reader.read(READ_SIZE)))
    except (OSError, hiredis.HiredisError) as error:
        raise _lost(exchange, settings, error) from error


@contextmanager
def _standing(exchange: Exchange[Any]) -> Generator[None]:
    """Where nobody answers any more, the refusals stand; Unavailable would deny what the server did take."""
    try:
        yield
    except StoreError:
        exchange.result()
        raise


@contextmanager
def _doubting(first: StoreError) -> Generator[None]:
    """An op that may have happened the first time may have happened, however its second time ends."""
    try:
        yield
    except StoreError as second:
        if isinstance(first, Ambiguous):
            raise first from second
        raise


def socket_of(connection: Any) -> socket.socket:
    """The socket under a redis-py connection: ours to use from its handshake until it is given back."""
    sock = connection._sock
    if sock is None:
        raise Unavailable("the connection is closed")
    return sock  # type: ignore[no-any-return]


def _available(sock: socket.socket, timeout: float) -> Iterator[bytes]:
    """What can be read at once, TLS's own buffer included."""
    sock.settimeout(0)
    try:
        while True:
            yield _some(sock.recv(READ_SIZE))
    except BlockingIOError:
        return
    except OSError as error:
        if type(error).__name__ != "SSLWantReadError":  # TLS's way to say the same; importing ssl would cost 20 ms
            raise
    finally:
        sock.settimeout(timeout)


def _some(data: bytes) -> bytes:
    if not data:
        raise ConnectionResetError("the server closed the connection")
    return data


def _lost(exchange: Exchange[Any], settings: RedisSettings, error: Exception) -> Ambiguous:
    return Ambiguous(
        f"lost the reply of Redis at {describe(settings)} ({str(error) or type(error).__name__}); "
        "what was sent may or may not have been executed",
        exchange.accepted(),
    )

"""The only place that talks to Redis: it opens connections, sends ops and reads their replies, in both colours.

An adapter opens and authenticates the connections, `pool.py` pools them; an op's bytes go straight through their
sockets, one write for one exchange. Nothing is sent twice behind the caller's back:

- no connection: `Unavailable`, nothing was sent;
- refused (READONLY, NOREPLICAS, LOADING, UNBLOCKED): the server executed none of the refused commands, so these alone
  are sent again, once, over a new connection;
- sent, but the reply was lost: `Ambiguous`, unless the op says that it may be sent twice.

`Store` and `AsyncStore` run ops over a pool. A `Session` is one connection of its own, for a fetcher, that also hears
which watched keys have changed. After any doubt a socket is closed, never returned. A forked child opens its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import hiredis

from pillion.config import RedisSettings
from pillion.errors import Ambiguous, Refused, StoreError, Unavailable
from pillion.store.address import describe
from pillion.store.dial import Dialer
from pillion.store.exchange import Exchange, new_reader, news
from pillion.store.keys import Keyspace
from pillion.store.ops import Op
from pillion.store.pool import Line, LoopLine, LoopPool, ThreadPool
from pillion.store.wire import adrive, available, drive, lost, post

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
Find: TypeAlias = Callable[[], RedisSettings]


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
        self._pools: dict[int, ThreadPool] = {}

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

    def session(self, role: str = "fetcher") -> Session:
        """A connection of its own, outside the pool; nothing is opened yet. Its name ends in `role`."""
        return Session(self.settings, role)

    def close(self) -> None:
        """Close the connections that nobody uses just now. The store can be used again."""
        if pool := self._pools.get(os.getpid()):
            pool.close()

    def _attempt(self, op: Op[T]) -> T:
        pool = self._pools.get(os.getpid()) or self._open_pool()
        line = pool.take()
        try:
            return self._exchange(line, op)
        except Refused:
            raise
        except BaseException:
            line.close()
            raise
        finally:
            pool.give_back(line)

    def _exchange(self, line: Line, op: Op[T]) -> T:
        exchange = Exchange(op)
        drive(line.sock, exchange, line.at)
        if exchange.again():
            with _standing(exchange):
                line.open()
            drive(line.sock, exchange, line.at)
        return exchange.result()

    def _open_pool(self) -> ThreadPool:
        here = os.getpid()
        for other in self._pools.keys() - {here}:  # of the process that we were forked from, which goes on using it
            self._pools.pop(other, None)
        return self._pools.setdefault(here, ThreadPool(self.settings))  # of the pools of two threads one is used


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
        import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

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
        import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop) or await self._open_pool(loop)
        line = await pool.take()
        try:
            return await self._exchange(line, op)
        except Refused:
            raise
        except BaseException:
            line.close()
            raise
        finally:
            pool.give_back(line)

    async def _exchange(self, line: LoopLine, op: Op[T]) -> T:
        exchange, timeout = Exchange(op), self.settings.timeout
        await adrive(line.streams, exchange, line.at, timeout)
        if exchange.again():
            with _standing(exchange):
                await line.open()
            await adrive(line.streams, exchange, line.at, timeout)
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

    def __init__(self, settings: RedisSettings, role: str = "fetcher") -> None:
        self._settings = settings
        self._role = role
        self._line: Line | None = None
        self._reader = new_reader()
        self._changed: set[bytes] = set()
        self._ready: tuple[Exchange[Any], list[bytes]] | None = None
        self._begun: Exchange[Any] | None = None

    @property
    def is_open(self) -> bool:
        return self._line is not None

    def open(self) -> None:
        """Connect afresh. Raises Unavailable, or Refused where the server does not let us in."""
        self.close()
        line = Line(Dialer(self._settings, role=self._role))
        line.open()
        self._line = line
        self._reader, self._changed = new_reader(), set()

    def track(self) -> bool:
        """Turn on client tracking for the steps that ask for it. False where the server knows none."""
        try:
            self.call(Op("track", (("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP"),), lambda _: None))
        except Refused:
            return False
        return True

    def call(self, op: Op[T], *, looks: bool = False) -> T:
        """Send an op and wait for its result. Raises Refused; on Ambiguous the connection is closed.

        An op that `looks` at the watched keys makes older news of them old.
        """
        if self._begun is not None:
            self.close()  # what comes next would be the answer to another question
        self._ready = None
        return self._end(Exchange(op, self._reader, self._changed), looks)

    def get_ready(self, op: Op[Any]) -> None:
        """Make an op ready to leave at once, with `begin`, unless another is called before."""
        exchange = Exchange(op, self._reader, self._changed)
        self._ready = exchange, list(exchange.outgoing())

    def begin(self) -> bool:
        """Send the op that is ready, if one is. `finish` must be next. Raises Ambiguous and closes the connection."""
        if self._ready is None:
            return False
        (self._begun, pieces), self._ready = self._ready, None
        line = self._open_line()
        try:
            post(line.sock, pieces)
        except BaseException as error:
            broken = lost(self._begun, line.at, error) if isinstance(error, OSError) else error
            self.close()
            raise broken from error
        return True

    def finish(self) -> Any:
        """The result of the op that was begun; it `looks`. Raises as `call`."""
        if self._begun is None:
            raise Unavailable(f"the session with Redis at {describe(self._settings)} has begun nothing")
        begun, self._begun = self._begun, None
        return self._end(begun, looks=True)

    def _end(self, exchange: Exchange[T], looks: bool) -> T:
        try:
            line = self._open_line()
            drive(line.sock, exchange, line.at)
        except BaseException:
            self.close()
            raise
        if looks:
            self._changed.clear()
        return exchange.result()

    def fileno(self) -> int:
        """The socket's descriptor, for select: readable means `changed()` has something to say."""
        return self._open_line().sock.fileno()

    def changed(self) -> set[bytes]:
        """Keys that changed since the last call, without waiting. Raises Unavailable if the server hung up."""
        try:
            for data in available(self._open_line().sock):
                self._reader.feed(data)
            return self.heard()
        except (OSError, hiredis.HiredisError) as error:
            self.close()
            raise Unavailable(f"lost the connection to Redis at {describe(self._settings)}: {error}") from error

    def heard(self) -> set[bytes]:
        """The same, of what came along with an answer: the socket says nothing of it any more."""
        news(self._reader, self._changed)
        changed, self._changed = self._changed, set()
        return changed

    def close(self) -> None:
        """Close the socket, whatever state it is in."""
        line, self._line = self._line, None
        self._ready = self._begun = None
        if line is not None:
            line.close()

    def _open_line(self) -> Line:
        if self._line is None:
            raise Unavailable(f"the session with Redis at {describe(self._settings)} is closed")
        return self._line


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

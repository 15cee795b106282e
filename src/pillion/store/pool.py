"""Pools of connections, for threads and for event loops: who may have one, how many there are, and why there is none.

Used by `connection.py`, and by `lending.py` for a pool of redis-py's. A connection is opened when it is first needed,
and reused until it breaks, the one used last first; with `redis.idle_timeout`, what nobody has used for so long is
closed and never handed out. Each process and each event loop has a pool of its own: a forked child lets go of what it
inherited without a word to the server, and a loop's connections are closed when the loop ends. Nothing here sends a
command."""

from __future__ import annotations

import math
import os
import select
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pillion.config import RedisSettings
from pillion.errors import PoolTimeout, StoreError, Unavailable
from pillion.store.adapter import Streams
from pillion.store.dial import Dialer
from pillion.store.wire import available

if TYPE_CHECKING:
    import asyncio

_retiring: set[asyncio.Task[None]] = set()  # a loop itself does not keep its tasks alive


class Line:
    """One connection for threads, which can be closed and opened again."""

    __slots__ = ("_dialer", "_is_quiet", "_pid", "_sock", "at", "used")

    def __init__(self, dialer: Dialer) -> None:
        self.at = dialer.at
        self.used = 0.0
        self._dialer = dialer
        self._sock: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        return self._sock is not None

    @property
    def sock(self) -> socket.socket:
        """The open socket. Raises Unavailable where there is none."""
        if self._sock is None:
            raise Unavailable(f"the connection with Redis at {self.at} is closed")
        return self._sock

    def open(self) -> None:
        """Connect afresh. Raises Unavailable or Refused."""
        self.close()
        sock = self._dialer.open()
        self._sock, self._is_quiet, self._pid = sock, _quiet(sock), os.getpid()

    def is_fresh(self) -> bool:
        """Whether it can be used: open, not hung up, and with nothing left to read."""
        if self._sock is None:
            return False
        if self._is_quiet():
            return True
        try:  # TLS may have words of its own that say nothing
            return next(available(self._sock), None) is None
        except OSError:
            return False

    def close(self) -> None:
        """Hang up; in a forked child, let go of what the parent goes on using."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if self._pid == os.getpid():  # other children may hold copies, which would keep it open
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def __del__(self) -> None:
        self.close()


def _quiet(sock: socket.socket) -> Callable[[], bool]:
    """What tells at once whether there is nothing to read, nor an end of the connection to hear of."""
    if not hasattr(select, "poll"):  # Windows, where select knows no limit of descriptors
        return lambda: not select.select([sock], [], [], 0)[0]
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return lambda: not poll.poll(0)


class ThreadPool:
    """The connections of one process's threads."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._dialer = Dialer(settings)
        self._dialer.warn()
        self._free: list[Line] = []  # the one used last stands last
        self._out = 0
        self._turn = threading.Condition()

    def take(self) -> Line:
        """A connection, ready to use. Raises Unavailable, PoolTimeout or Refused."""
        if self._settings.idle_timeout is not None:
            self._close_before(time.monotonic() - self._settings.idle_timeout)
        with self._turn:
            if not (self._has_turn() or self._turn.wait_for(self._has_turn, self._settings.checkout_timeout)):
                raise _busy(self._settings)
            self._out += 1
            line = self._free.pop() if self._free else Line(self._dialer)
        try:
            if not line.is_fresh():
                line.open()
        except BaseException:
            self.give_back(line)
            raise
        return line

    def give_back(self, line: Line) -> None:
        """Take a connection in again, open or closed."""
        if self._settings.idle_timeout is not None:
            line.used = time.monotonic()
        with self._turn:
            self._out -= 1
            if line.is_open:
                self._free.append(line)
            self._turn.notify()

    def close(self) -> None:
        """Close the connections that nobody uses just now."""
        self._close_before(math.inf)

    def _close_before(self, until: float) -> None:
        """Close the free connections that were last used before then."""
        with self._turn:  # out of the pool before they are closed: nobody can be using them
            idle = [line for line in self._free if line.used < until]
            self._free = [line for line in self._free if line.used >= until]
        for line in idle:
            line.close()

    def _has_turn(self) -> bool:
        return self._out < self._settings.pool_size


class LoopLine:
    """One connection of an event loop, which can be closed and opened again."""

    __slots__ = ("_dialer", "_is_quiet", "_streams", "at", "used")

    def __init__(self, dialer: Dialer) -> None:
        self.at = dialer.at
        self.used = 0.0
        self._dialer = dialer
        self._streams: Streams | None = None

    @property
    def is_open(self) -> bool:
        return self._streams is not None

    @property
    def streams(self) -> Streams:
        """The open streams. Raises Unavailable where there are none."""
        if self._streams is None:
            raise Unavailable(f"the connection with Redis at {self.at} is closed")
        return self._streams

    async def open(self) -> None:
        """Connect afresh. Raises Unavailable or Refused."""
        self.close()
        self._streams = streams = await self._dialer.aopen()
        self._is_quiet = _quiet(streams[1].get_extra_info("socket"))

    def is_fresh(self) -> bool:
        """Whether it can be used. A loop that has not turned meanwhile has not heard that the server hung up."""
        if self._streams is None:
            return False
        reader, writer = self._streams
        return not (reader.at_eof() or reader.exception() or writer.is_closing()) and self._is_quiet()

    def close(self) -> None:
        """Hang up, as soon as the loop turns."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()

    async def end(self, patience: float) -> None:
        """Hang up, and wait until it is done."""
        import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with suppress(OSError):
                async with asyncio.timeout(patience):
                    await streams[1].wait_closed()


class LoopPool:
    """The connections of one event loop."""

    def __init__(self, settings: RedisSettings) -> None:
        import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

        self._settings = settings
        self._dialer = Dialer(settings)
        self._dialer.warn()
        self._turns = asyncio.Semaphore(settings.pool_size)
        self._free: list[LoopLine] = []  # the one used last stands last
        self._lines: set[LoopLine] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._end = self._until_the_loop_ends()

    async def open(self) -> None:
        """Bind to the running loop. Nothing is awaited in earnest."""
        await anext(self._end)

    async def close(self) -> None:
        """Close every connection, also those in use."""
        await self._end.aclose()

    def retire(self) -> None:
        """Close every connection as soon as nobody uses any. To be called on the loop."""
        import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

        task = asyncio.get_running_loop().create_task(self._retire())
        _retiring.add(task)
        task.add_done_callback(_retiring.discard)

    async def _retire(self) -> None:
        for _ in range(self._settings.pool_size):
            await self._turns.acquire()
        await self.close()

    async def take(self) -> LoopLine:
        """A connection, ready to use. Raises Unavailable, PoolTimeout or Refused."""
        await self._wait()
        line = self._free.pop() if self._free else LoopLine(self._dialer)
        self._lines.add(line)
        try:
            if not line.is_fresh():
                await line.open()
        except BaseException:
            self.give_back(line)
            raise
        return line

    async def _wait(self) -> None:
        if not self._turns.locked():
            await self._turns.acquire()  # at once
            return
        import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

        try:
            async with asyncio.timeout(self._settings.checkout_timeout):
                await self._turns.acquire()
        except TimeoutError:
            raise _busy(self._settings) from None

    def give_back(self, line: LoopLine) -> None:
        """Take a connection in again, open or closed."""
        if line.is_open:
            self._free.append(line)
            if self._settings.idle_timeout is not None:
                line.used = time.monotonic()
                self._look_again(self._settings.idle_timeout)
        else:
            self._lines.discard(line)
        self._turns.release()

    def _look_again(self, seconds: float) -> None:
        """Have the loop look for idle connections in so many seconds, unless it is about to."""
        if self._watch is None:
            import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

            self._watch = asyncio.get_running_loop().call_later(seconds, self._close_idle, seconds)

    def _close_idle(self, seconds: float) -> None:
        """Close the free connections that nobody has used for so many seconds."""
        until = time.monotonic() - seconds
        idle = {line for line in self._free if line.used <= until}
        self._free = [line for line in self._free if line not in idle]
        self._lines -= idle
        for line in idle:
            line.close()
        self._watch = None
        if self._free:
            self._look_again(self._free[0].used - until)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None]:
        """Closes the connections when the loop shuts its generators down, as `asyncio.run` and servers let it."""
        try:
            yield
        finally:
            self._free.clear()
            if self._watch is not None:
                self._watch.cancel()
            while self._lines:
                await self._lines.pop().end(self._settings.connect_timeout)


def thread_pool(settings: RedisSettings) -> Any:
    """A pool of redis-py's, for those who are lent a client of it: its connections are opened like all the others."""
    from redis.connection import BlockingConnectionPool, Connection
    from redis.exceptions import ConnectionError as Unreachable

    dialer = Dialer(settings, role="lent")

    class Dialed(Connection):
        def _connect(self) -> socket.socket:
            try:
                return dialer.open()
            except StoreError as error:
                raise Unreachable(str(error)) from error

    arguments: dict[str, Any] = {
        "connection_class": Dialed,
        "max_connections": settings.pool_size,
        "timeout": settings.checkout_timeout,
        "host": dialer.address.host,
        "port": dialer.address.port,
        "socket_timeout": settings.timeout,
        "protocol": 3,
        "retry": None,
        # The handshake is over; only its parser does not know yet.
        "redis_connect_func": lambda connection: connection._parser.on_connect(connection),
    }
    return BlockingConnectionPool(**arguments)


def _busy(settings: RedisSettings) -> PoolTimeout:
    return PoolTimeout(
        f"all {settings.pool_size} connections to Redis stayed busy for {settings.checkout_timeout} s; "
        "raise redis.pool_size, or look for a caller that holds them"
    )

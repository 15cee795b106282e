"""Pools of connections, for threads and for event loops: who may have one, how many there are, and why there is none.

Used by `connection.py` alone. redis-py opens and keeps the connections; each is opened when it is first needed and
reused until it breaks. A forked child starts with an empty pool. An event loop has a pool of its own, which is closed
when the loop ends. Nothing here sends a command."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import Any

from pillion.config import RedisSettings
from pillion.errors import PoolTimeout, Refused, Unavailable
from pillion.mask import mask_secrets
from pillion.store.address import Colour, connection_class, cure, describe, verifies

log = logging.getLogger("pillion")
_retiring: set[asyncio.Task[None]] = set()  # a loop itself does not keep its tasks alive


def thread_pool(settings: RedisSettings) -> Any:
    """A pool for the threads of this process and, each starting afresh, of its children."""
    from redis.connection import BlockingConnectionPool

    arguments = _pool_arguments(settings, "sync")
    arguments["timeout"] = settings.checkout_timeout
    return BlockingConnectionPool(**arguments)


class LoopPool:
    """The connections of one event loop.

    redis-py keeps them; who may have one is decided here, because its own waiting forgets a waiter when another one is
    cancelled at the wrong moment.
    """

    def __init__(self, settings: RedisSettings) -> None:
        from redis.asyncio.connection import ConnectionPool

        self._settings = settings
        self._turns = asyncio.Semaphore(settings.pool_size)
        self._pool = ConnectionPool(**_pool_arguments(settings, "async"))
        self._end = self._until_the_loop_ends()

    async def open(self) -> None:
        """Bind to the running loop. Nothing is awaited in earnest."""
        await anext(self._end)

    async def close(self) -> None:
        """Close every connection, also those in use."""
        await self._end.aclose()

    def retire(self) -> None:
        """Close every connection as soon as nobody uses any. To be called on the loop."""
        task = asyncio.get_running_loop().create_task(self._retire())
        _retiring.add(task)
        task.add_done_callback(_retiring.discard)

    async def _retire(self) -> None:
        for _ in range(self._settings.pool_size):
            await self._turns.acquire()
        await self.close()

    async def take(self) -> Any:
        """A connection, ready to use. Raises Unavailable, PoolTimeout or Refused."""
        await self._wait()
        try:
            with opening(self._settings):
                return await self._pool.get_connection()
        except BaseException:
            self._turns.release()
            raise

    async def _wait(self) -> None:
        if not self._turns.locked():
            await self._turns.acquire()  # at once
            return
        try:
            async with asyncio.timeout(self._settings.checkout_timeout):
                await self._turns.acquire()
        except TimeoutError:
            raise _busy(self._settings) from None

    async def give_back(self, connection: Any) -> None:
        try:
            await self._pool.release(connection)
        finally:
            self._turns.release()

    async def _until_the_loop_ends(self) -> AsyncGenerator[None]:
        """Closes the connections when the loop shuts its generators down, as `asyncio.run` and servers let it."""
        try:
            yield
        finally:
            await self._pool.disconnect()


@contextmanager
def opening(settings: RedisSettings) -> Generator[None]:
    """Turn redis-py's errors while connecting into ours. Nothing of an op was sent yet."""
    from redis import exceptions

    try:
        yield
    except exceptions.AuthenticationError as error:
        raise Refused(_told("Redis at {} refused the credentials", settings, error)) from error
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        if str(error).startswith("No connection available"):
            raise _busy(settings) from error
        raise Unavailable(_told("cannot reach Redis at {}", settings, error)) from error
    except exceptions.RedisError as error:
        raise Refused(_told("Redis at {} refused the connection", settings, error)) from error


def _pool_arguments(settings: RedisSettings, colour: Colour) -> dict[str, Any]:
    kind, arguments = connection_class(settings, colour)
    if not verifies(arguments):
        log.warning("Redis at %s: its certificate is not checked, so anyone may pose as it", describe(settings))
    return arguments | {"max_connections": settings.pool_size, "connection_class": kind}


def _busy(settings: RedisSettings) -> PoolTimeout:
    return PoolTimeout(
        f"all {settings.pool_size} connections to Redis stayed busy for {settings.checkout_timeout} s; "
        "raise redis.pool_size, or look for a caller that holds them"
    )


def _told(what: str, settings: RedisSettings, error: Exception) -> str:
    return f"{what.format(describe(settings))}: {mask_secrets(str(error))}{cure(str(error))}"

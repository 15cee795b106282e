"""Redis itself, for those who need more than jobs: a redis-py client on the same address, for threads.

Used by `Setup.redis` and the base class of middlewares. The connections are a pool of their own, opened as needed and
no more than `pool_size`, so what a borrower does to one (another database, tracking, a transaction left open) never
meets a push. Nothing is sent twice here either. What redis-py raises reaches the borrower as it is. After a fork the
child opens its own; when the process dies, the server closes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pillion.config import RedisSettings
from pillion.store.pool import thread_pool

if TYPE_CHECKING:
    from redis import Redis


class Lender:
    """Makes clients of one server. `find` tells where it is, when the first is asked for."""

    def __init__(self, find: Callable[[], RedisSettings]) -> None:
        self._find = find
        self._pool: dict[str, Any] = {}

    def client(self) -> Redis:
        """A redis-py client with replies in bytes. It holds a connection only while a command of it runs."""
        from redis import Redis

        pool = self._pool.get("it") or self._pool.setdefault("it", thread_pool(self._find()))
        return Redis(connection_pool=pool)

    def close(self) -> None:
        """Close the connections that nobody uses just now, and find the server anew for the next client."""
        for pool in (self._pool.pop(name) for name in list(self._pool)):
            pool.disconnect(inuse_connections=False)

"""The shards of a setup: each a keyspace on a server, with the stores that talk to it.

A setup without shards has one, called `default`. `Setup` makes them, clients push to them and a worker serves them all.
Nothing is connected before it is used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pillion.config import RedisSettings

if TYPE_CHECKING:
    from pillion.store.connection import AsyncStore, Store

DEFAULT = "default"


class Shard:
    """One keyspace on one server.

    Args:
        name: what configuration and logs call it.
        settings: where it is, as configured.
        find: tells where it is when the first connection is opened.
    """

    def __init__(self, name: str, settings: RedisSettings, find: Callable[[], RedisSettings]) -> None:
        self.name = name
        self.settings = settings
        self._find = find
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._astore: AsyncStore | None = None

    @property
    def store(self) -> Store:
        """The store that threads run ops on; it opens connections as they are needed."""
        store = self._store
        if store is not None:
            return store
        from pillion.store.connection import Store  # noqa: PLC0415 - see setup.py

        with self._lock:
            if self._store is None:
                self._store = Store(self.settings, self._find)
            return self._store

    @property
    def astore(self) -> AsyncStore:
        """The store for asyncio callers."""
        store = self._astore
        if store is not None:
            return store
        from pillion.store.connection import AsyncStore  # noqa: PLC0415 - see setup.py

        with self._lock:
            if self._astore is None:
                self._astore = AsyncStore(self.settings, self._find)
            return self._astore

    def close(self) -> None:
        """Close every connection, those of event loops as soon as nobody uses them."""
        if self._store is not None:
            self._store.close()
        if self._astore is not None:
            self._astore.retire()

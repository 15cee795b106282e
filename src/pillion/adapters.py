"""Who opens the connections to Redis: the words for an adapter of one's own. `docs/adapters.md` tells how.

For programs that bring another client library. Whoever is content with redis-py or valkey-py needs the option
`redis.adapter` at most. What stands here is defined in `store/adapter.py`."""

from __future__ import annotations

from pillion.store.adapter import Adapter, Address, Denied, Streams, Tls, register

__all__ = ["Adapter", "Address", "Denied", "Streams", "Tls", "register"]

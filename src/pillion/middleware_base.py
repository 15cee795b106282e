"""What a middleware class may inherit to have the configuration, a logger and Redis at hand: `pillion.Middleware`.

Sidekiq's `ClientMiddleware` and `ServerMiddleware` in one. The chain tells each instance whose it is, right after it
was made (`chain.py`). Nothing here runs a job or sends anything by itself.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from pillion.config import Config
from pillion.errors import UsageError

if TYPE_CHECKING:
    from redis import Redis

    from pillion.store.connection import Store


class Home(Protocol):
    """What a middleware may know of the setup that its chain belongs to."""

    @property
    def config(self) -> Config: ...

    @property
    def store(self) -> Store: ...

    def redis(self) -> AbstractContextManager[Redis]: ...


class Middleware:
    """A base class for client and server middleware that needs the configuration, a logger or Redis.

        class Audit(pillion.Middleware):
            def __call__(self, job_instance, job, queue):
                yield
                with self.redis() as conn:
                    conn.hincrby("audit", job["class"])

    Nobody has to inherit it: any class with a generator as `__call__` is a middleware. All of it is there from when the
    instance is called on, not yet in `__init__`; asking earlier, or outside of a chain, raises UsageError.
    """

    pillion_home: Home | None = None

    @property
    def config(self) -> Config:
        """The configuration of the process."""
        return self._home().config

    @property
    def logger(self) -> logging.Logger:
        """A logger named after the class: `pillion.middleware.Audit`."""
        return logging.getLogger(f"pillion.middleware.{type(self).__name__}")

    @property
    def pool(self) -> Store:
        """The setup's store. A push that goes elsewhere gives client middleware that store, as its argument `pool`."""
        return self._home().store

    def redis(self) -> AbstractContextManager[Redis]:
        """Redis itself: `with self.redis() as conn: conn.get("key")`; see `Setup.redis`."""
        return self._home().redis()

    def _home(self) -> Home:
        if self.pillion_home is None:
            name = type(self).__name__
            raise UsageError(
                f"{name}: expected a middleware that a chain of a setup has made, got one outside of it or in its "
                f"__init__; ask inside __call__, and register the class: setup.server_middleware.add({name})"
            )
        return self.pillion_home


def at_home(middleware: Any, home: Home | None) -> Any:
    """The middleware, told whose it is if it wants to know."""
    if home is not None and isinstance(middleware, Middleware):
        middleware.pillion_home = home
    return middleware

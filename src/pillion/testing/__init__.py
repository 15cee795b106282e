"""Testing support: collect jobs instead of pushing them, run them at once, or run them for real.

    from pillion import testing

    with testing.fake() as jobs:                 # nothing reaches Redis
        signup("bob@example.org")
        assert jobs.of(WelcomeMail)[0]["args"] == ["bob@example.org"]
        jobs.drain()                             # now run them, and what they enqueue

    with testing.inline():                       # every push runs the job at once
        signup("bob@example.org")

`fake()`, `inline()` and `disabled()` hold for the code in the block and whatever it calls or awaits, so tests may
run side by side; `everywhere("fake")` switches the whole process, e.g. from a `conftest.py`. Client middleware, checks
and the JSON round trip are those of production; `server_middleware()` is a chain of the test's own. With pytest
the fixtures `pillion_fake`, `pillion_inline` and `pillion_worker` do the same (see `plugin.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias, TypeVar

from pillion import inline as inlines
from pillion.client import Client
from pillion.delivery import (
    Delivery,
    Durability,
    RedisDelivery,
    deliver_as_before,
    deliver_everywhere,
    deliver_here,
    delivery_here,
)
from pillion.errors import UsageError
from pillion.loader import loaded
from pillion.middleware import Chain
from pillion.setup import Setup, is_worker
from pillion.setup import default as default_setup
from pillion.store.ops import Parcel
from pillion.testing.collected import Collected, runnable

__all__ = ["Collected", "Mode", "disabled", "everywhere", "fake", "inline", "server_middleware"]

Mode: TypeAlias = Literal["fake", "inline", "disabled"]
D = TypeVar("D", bound=Delivery)


@contextmanager
def fake() -> Generator[Collected]:
    """Collect the jobs pushed in this block; the block's value holds them."""
    with _here(Collected()) as jobs:
        yield jobs


@contextmanager
def inline() -> Generator[None]:
    """Run each job pushed in this block at once, in the caller; what it raises reaches the caller."""
    with _here(Inline()):
        yield


@contextmanager
def disabled() -> Generator[None]:
    """Push for real in this block, whatever the process's mode is."""
    with _here(RedisDelivery()):
        yield


@contextmanager
def server_middleware(setup: Setup | None = None) -> Generator[Chain]:
    """A server chain of the test's own, empty at first, around the jobs that are run in this block.

        with testing.server_middleware() as chain, testing.inline():
            chain.add(Tenant)

    It stands in for that of `setup`, the default one if None, whatever the app has added there; not side by side.
    """
    setup = setup or default_setup
    before, setup.server_middleware = setup.server_middleware, Chain("server", setup)
    try:
        yield setup.server_middleware
    finally:
        setup.server_middleware = before


def everywhere(mode: Mode) -> Collected | None:
    """Set the whole process's mode; `disabled` is the normal one. Returns the collected jobs for `fake`."""
    if mode not in ("fake", "inline", "disabled"):
        raise UsageError(f'expected "fake", "inline" or "disabled", got {mode!r}')
    jobs = Collected() if mode == "fake" else None
    deliver_everywhere(jobs or (Inline() if mode == "inline" else None))
    return jobs


class Inline(Delivery):
    """Runs what is pushed. A time in the future is not waited for."""

    def send(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        del once, durability
        for parcel in parcels:
            inlines.run(client.setup, *runnable(client.setup, parcel.raw))

    async def asend(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        del once, durability
        for parcel in parcels:
            await inlines.arun(client.setup, *runnable(client.setup, parcel.raw))


@contextmanager
def _here(chosen: D) -> Generator[D]:
    if delivery_here() is not None:
        raise UsageError("a testing mode is already set by an enclosing `with`; leave that block first")
    token = deliver_here(chosen)
    try:
        yield chosen
    finally:
        deliver_as_before(token)


if is_worker():
    logging.getLogger("pillion").warning(
        "pillion.testing is loaded in a worker process; import it in tests only, or its modes may swallow real jobs"
    )
loaded("testing")

"""Which client a push goes through: `set(...)`, else the `via` block around it, else the definition, else the default.

The default is the default setup's, and inside a job that of the setup whose worker runs it: what a job pushes goes
where the job came from.

Each of the first and the third may name a `client`, or a `pool` (another Redis, with the default setup's chains) and a
`client_class` to make one of. What is made is kept, so that pushes share connections: one client per pool and class, of
which the 256 latest stay. Called by the verbs of job classes (`setter.py`); a program that pushes with a client of its
own does not come here. Nothing is sent, and no connection opened.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from pillion import setup as setups
from pillion.client import Client
from pillion.errors import UsageError
from pillion.job_options import over
from pillion.running import current_job

MOST_KEPT = 256

_default = Client(setup=setups.default)
"""The client of the default setup, which job classes push through, but inside a job of another setup's worker."""

_via: ContextVar[Client | None] = ContextVar("pillion_via", default=None)


def client_for(own: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """The client of one push.

    Args:
        own: the definition's transport options.
        given: those of `set(...)`.

    Raises:
        ConfigError: a `pool` that no client can be made with.
    """
    around = _via.get()
    if not own and not given:
        return around or _standard()
    if around is None or given.get("client") is not None or given.get("pool") is not None:
        chosen = over(own, given)
    else:
        chosen = {"client": around, "client_class": given.get("client_class")}
    client, pool, kind = (chosen.get(name) for name in ("client", "pool", "client_class"))
    if kind is None and pool is None:
        return client or _standard()
    return _made(kind or Client, pool, client)


def _standard() -> Client:
    """The client of the setup whose worker runs the job that pushes; outside of jobs, of the default setup."""
    job = current_job()
    home = None if job is None else job.home
    return _default if home is None or home is setups.default else _made_of(home)


@contextmanager
def via(client: Client) -> Generator[Client]:
    """Push through another client in this block, and in what it calls or awaits: `with pillion.via(reports): ...`.

    What `set` says goes before it, what the job class says after it. Raises UsageError for anything but a client.
    """
    if not isinstance(client, Client):
        raise UsageError(f"expected a pillion.Client, got {type(client).__name__}; write via(pillion.Client(...))")
    token = _via.set(client)
    try:
        yield client
    finally:
        _via.reset(token)


def via_client() -> Client | None:
    """The client of the innermost `via` block, None outside of any."""
    return _via.get()


def default_client() -> Client:
    """The client of the default setup, which job classes push through."""
    return _default


@lru_cache(MOST_KEPT)
def _made_of(setup: Any) -> Client:
    return Client(setup=setup)


@lru_cache(MOST_KEPT)
def _made(kind: type[Client], pool: Any, around: Client | None) -> Client:
    if around is not None:
        return kind(setup=around.setup, pool=around)
    return kind() if pool is None else kind(pool=pool)

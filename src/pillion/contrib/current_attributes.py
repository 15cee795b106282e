"""Context variables that travel as Rails's current attributes do, so that Ruby and Python read each other's.

    user_id: ContextVar[int] = ContextVar("user_id")
    tenant: ContextVar[str] = ContextVar("tenant")

    @pillion.configure_server
    def configure(setup):
        persist("cattr", user_id, tenant, setup=setup)

In Ruby `Sidekiq::CurrentAttributes.persist("Myapp::Current")` reads and writes the same `cattr` of a job: an object
with one entry per attribute, here per variable, under its name. Further classes of attributes are `cattr_1`, `cattr_2`,
... Ruby and Python must give the same key to the same attributes. What is written is plain JSON, which every version of
Ruby's Sidekiq reads; where ActiveJob marked a value (a symbol, a model), it is read as `pillion.activejob` says.

A push writes the values that are set, unless the job has the key: then it is one that has travelled already (a retry, a
job of Ruby's that a worker of ours moves to its queue), it keeps its values, and the rest of the client chain sees
them. Around a run they are set. Entries that no variable belongs to are dropped, and so is a value of a strange shape:
the job runs. Between Python programs only, `setup.carry(...)` does the same with less; for a locale see `i18n.py`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pillion import setup as setups
from pillion.activejob import plain
from pillion.errors import ConfigError
from pillion.plain import check_plain
from pillion.running import MAX_LEVELS, check_variables
from pillion.setup import Setup
from pillion.types import Payload

KEY = "cattr"


def persist(key: str, *variables: ContextVar[Any], setup: Setup | None = None) -> None:
    """Carry these variables in the field `key` of each job, both ways; once more, and the latest ones count.

    Call it where both chains are built: for a worker in `configure_server`, for other programs in `configure_client`.

    Args:
        key: `cattr`, or `cattr_1` and so on for further groups.
        setup: whose chains it joins; the default setup's if None.

    Raises:
        ConfigError: no such key, no variable, or two of one name.
    """
    check_variables(key, variables)
    carried = _Attributes(key, _by_name(variables))
    chains = setup or setups.default
    for chain in (chains.client_middleware, chains.server_middleware):
        for old in chain.entries:
            if carried.replaces(getattr(old.middleware, "__self__", None)):
                chain.remove(old.middleware)
    chains.client_middleware.add(carried.around_push)
    chains.server_middleware.prepend(carried.around_run)


class _Attributes:
    """One group of variables, and the middleware for both chains."""

    def __init__(self, key: str, variables: dict[str, ContextVar[Any]]) -> None:
        if key != KEY and not key.removeprefix(f"{KEY}_").isdecimal():
            raise ConfigError(f'expected the key "cattr", "cattr_1", "cattr_2", ..., got {key!r}; Ruby reads no other')
        self._key = key
        self._variables = variables

    def replaces(self, other: object) -> bool:
        """Whether `other` is a group under the same key."""
        return isinstance(other, _Attributes) and other._key == self._key

    def around_push(self, job_class: object, job: Payload, queue: str, pool: Any) -> Iterator[None]:
        """Client: write what is set, or let the rest of the chain see what the job brought."""
        del job_class, queue, pool
        if self._key not in job:
            if values := self._values():
                job[self._key] = values
            yield
            return
        with self._set(job):
            yield

    def around_run(self, instance: object, job: Payload, queue: str) -> Iterator[None]:
        """Server: the job runs with the values it brought."""
        del instance, queue
        with self._set(job):
            yield

    def _values(self) -> dict[str, Any]:
        """What is set here. Raises PayloadError for what is not plain JSON."""
        values: dict[str, Any] = {}
        for name, variable in self._variables.items():
            value = variable.get(_UNSET)
            if value is not _UNSET:
                check_plain(value, name, f"context variable {name!r}", MAX_LEVELS)
                values[name] = value
        return values

    @contextmanager
    def _set(self, job: Payload) -> Generator[None]:
        found = job.get(self._key)
        values = found if isinstance(found, dict) else {}
        known = self._variables
        tokens = [known[name].set(plain(value)) for name, value in values.items() if name in known]
        try:
            yield
        finally:
            for token in reversed(tokens):
                token.var.reset(token)


def _by_name(variables: tuple[ContextVar[Any], ...]) -> dict[str, ContextVar[Any]]:
    found = {variable.name: variable for variable in variables}
    if not found or len(found) != len(variables):
        raise ConfigError(
            f"expected one or more context variables of different names, got {[each.name for each in variables]}; "
            "each travels under its name"
        )
    return found


_UNSET: Any = object()

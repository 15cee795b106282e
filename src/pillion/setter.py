"""The enqueue verbs: from a call with arguments to an item for the client.

    bind the arguments -> add the options of `set(...)` -> find the due time -> client.push

A `Setter` is a definition plus what one push, or many, should do differently. It never changes, so one can be kept and
used again: each push gets its own jid, and a `wait` counts from each push anew. Job classes and functions delegate
here (`job.py`); everything about Redis, middleware and payloads is the client's part (`client.py`). A crash before the
client has pushed leaves nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence, Sized
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, NoReturn, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from pillion import due
from pillion.enqueue import beside, item_of
from pillion.errors import ArgumentsError, ConfigError, UsageError
from pillion.job_options import fresh, over, sort_options, warn_of_foreign
from pillion.mask import mask_secrets
from pillion.registry import Definition
from pillion.routing import client_for

P = ParamSpec("P")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

Row: TypeAlias = list[Any] | tuple[Any, ...]
"""The positional arguments of one job of a bulk push."""

Item: TypeAlias = Mapping[str, Any]
Durability: TypeAlias = Literal["replicated"] | None


class Pusher(Protocol):
    """What the verbs need of a client; `pillion.Client` is one."""

    setup: Any

    def push(
        self, item: Item, *, once: bool = False, durability: Durability = None, after_commit: bool = True
    ) -> str | None: ...

    def push_bulk(
        self, item: Item, *, once: bool = False, durability: Durability = None, after_commit: bool = True
    ) -> list[str | None] | int: ...

    def run_inline(self, item: Item) -> Any: ...

    async def apush(
        self, item: Item, *, once: bool = False, durability: Durability = None, after_commit: bool = True
    ) -> str | None: ...

    async def apush_bulk(
        self, item: Item, *, once: bool = False, durability: Durability = None, after_commit: bool = True
    ) -> list[str | None] | int: ...

    async def arun_inline(self, item: Item) -> Any: ...


class Setter(Generic[P, R_co]):
    """A job with options for its next pushes. Immutable; `set` returns another one."""

    __slots__ = ("_options", "_timing", "_transport", "definition")

    def __init__(
        self,
        definition: Definition,
        options: Mapping[str, Any] | None = None,
        transport: Mapping[str, Any] | None = None,
        timing: Mapping[str, Any] | None = None,
    ) -> None:
        self.definition = definition
        self._options = options or {}
        self._transport = transport or {}
        self._timing = timing or {}

    def set(self, /, **options: Any) -> Setter[P, R_co]:
        """The same job with other options.

        Args:
            **options: `queue`, `retry`, `retry_for`, `retry_queue`, `dead`, `backtrace`, `tags`, `log_level` and free
                keys go into the payload; `wait` (seconds or timedelta) or `wait_until` (aware datetime or epoch
                seconds) schedule what `perform_async` and `perform_bulk` push; `once=True` makes a push idempotent by
                its `jid`; `durability="replicated"` waits for replicas; `client` pushes through another client, `pool`
                to another Redis, `client_class` through a client of that class;
                `after_commit=False` does not wait for a database transaction.

        Raises:
            ConfigError: an option has an impossible value.
            PayloadError: `wait` or `wait_until` is no time.
        """
        name = self.definition.name
        given = sort_options(name, options)
        if self.definition.kind != "stub":
            warn_of_foreign(name, name, given.wire)
        return Setter(
            self.definition,
            {**self._options, **given.wire},
            over(self._transport, given.transport),
            _checked_timing(name, given.timing) or self._timing,
        )

    def perform_async(self, /, *args: P.args, **kwargs: P.kwargs) -> str | None:
        """Push the job now (or when `set(wait=...)` says); returns its jid, or None where middleware stopped it.

        Raises:
            ArgumentsError: the arguments do not fit `perform`.
            PayloadError: an argument is not plain JSON.
            Unavailable, Refused, MaybeEnqueued: as `Client.push`.
        """
        client = self._client()
        return client.push(self._item(args, kwargs, self._later(client)), **self._beside())

    async def aperform_async(self, /, *args: P.args, **kwargs: P.kwargs) -> str | None:
        """`perform_async` for asyncio callers."""
        client = self._client()
        return await client.apush(self._item(args, kwargs, self._later(client)), **self._beside())

    def perform_in(self, interval: float | timedelta, /, *args: P.args, **kwargs: P.kwargs) -> str | None:
        """Push the job to run after `interval` (seconds or a timedelta), whatever `set(wait=...)` said.

        A number from 1,000,000,000 on is an epoch time; what is due already is pushed at once. Raises PayloadError for
        what is no time within ten years, else as `perform_async`.
        """
        client = self._client()
        return client.push(
            self._item(args, kwargs, due.after(self.definition.name, interval, _now(client))), **self._beside()
        )

    async def aperform_in(self, interval: float | timedelta, /, *args: P.args, **kwargs: P.kwargs) -> str | None:
        """`perform_in` for asyncio callers."""
        client = self._client()
        return await client.apush(
            self._item(args, kwargs, due.after(self.definition.name, interval, _now(client))), **self._beside()
        )

    def perform_at(self, when: float | datetime, /, *args: P.args, **kwargs: P.kwargs) -> str | None:
        """Push the job to run at `when`, an aware datetime or epoch seconds; else as `perform_in`."""
        client = self._client()
        return client.push(
            self._item(args, kwargs, due.moment(self.definition.name, when, _now(client))), **self._beside()
        )

    async def aperform_at(self, when: float | datetime, /, *args: P.args, **kwargs: P.kwargs) -> str | None:
        """`perform_at` for asyncio callers."""
        client = self._client()
        return await client.apush(
            self._item(args, kwargs, due.moment(self.definition.name, when, _now(client))), **self._beside()
        )

    @overload
    def perform_bulk(  # type: ignore[overload-overlap]  # a collection is an iterable with the better answer
        self,
        rows: Collection[Row],
        /,
        *,
        at: float | datetime | Sequence[float | datetime] | None = None,
        spread_interval: float | timedelta | None = None,
        batch_size: int | None = None,
    ) -> list[str | None]: ...
    @overload
    def perform_bulk(
        self,
        rows: Iterable[Row],
        /,
        *,
        at: float | datetime | None = None,
        spread_interval: float | timedelta | None = None,
        batch_size: int | None = None,
    ) -> int: ...
    def perform_bulk(self, rows: Iterable[Row], /, **plan: Any) -> list[str | None] | int:
        """Push one job per row of positional arguments, many in one round trip.

        Args:
            rows: lists or tuples. An iterable without `len()` is read batch by batch, in bounded memory.
            at: when they are due, one time for all or one per row.
            spread_interval: seconds over which they are spread at random instead.
            batch_size: jobs per round trip; 1,000, or 100 for scheduled ones.

        Returns:
            The jids in order, None where middleware stopped one; for an iterable without `len()`, how many were pushed.

        Raises:
            ArgumentsError: a row does not fit `perform`; the message has its number. With a collection nothing was
                pushed then; with another iterable earlier batches were.
        """
        client = self._client()
        return client.push_bulk(self._bulk_item(client, rows, **plan), **self._beside())

    @overload
    async def aperform_bulk(  # type: ignore[overload-overlap]
        self,
        rows: Collection[Row],
        /,
        *,
        at: float | datetime | Sequence[float | datetime] | None = None,
        spread_interval: float | timedelta | None = None,
        batch_size: int | None = None,
    ) -> list[str | None]: ...
    @overload
    async def aperform_bulk(
        self,
        rows: Iterable[Row],
        /,
        *,
        at: float | datetime | None = None,
        spread_interval: float | timedelta | None = None,
        batch_size: int | None = None,
    ) -> int: ...
    async def aperform_bulk(self, rows: Iterable[Row], /, **plan: Any) -> list[str | None] | int:
        """`perform_bulk` for asyncio callers."""
        client = self._client()
        return await client.apush_bulk(self._bulk_item(client, rows, **plan), **self._beside())

    @overload
    def perform_inline(self: Setter[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T | None: ...
    @overload
    def perform_inline(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co | None: ...
    def perform_inline(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the job here and now through both middleware chains and a JSON round trip, without Redis.

        Returns what `perform` returned, or None where middleware stopped it. Exceptions propagate; nothing is retried.
        """
        return self._client().run_inline(self._item(args, kwargs, None))

    @overload
    async def aperform_inline(
        self: Setter[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T | None: ...
    @overload
    async def aperform_inline(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co | None: ...
    async def aperform_inline(self, /, *args: Any, **kwargs: Any) -> Any:
        """`perform_inline` for asyncio callers: an async job is awaited on the running loop."""
        return await self._client().arun_inline(self._item(args, kwargs, None))

    perform_sync = perform_inline
    aperform_sync = aperform_inline

    def delay(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Not a verb here; raises UsageError with the one to use. So do the other names people bring along."""
        name = self.definition.name
        raise UsageError(
            f"{name}: expected one of Pillion's verbs, got one of another library; write {name}.perform_async(...) for "
            f"now, {name}.perform_in(300, ...) for later, {name}.set(queue=...).perform_async(...) for other options"
        )

    delay_for = delay_until = apply_async = send = enqueue = perform_later = delay

    def _client(self) -> Pusher:
        client: Pusher = client_for(self.definition.transport, self._transport)
        return client

    def _beside(self) -> dict[str, Any]:
        own, given = self.definition.transport, self._transport
        return beside(over(own, given)) if own or given else {}

    def _later(self, client: Pusher) -> float | None:
        """When `set(wait=...)` or `set(wait_until=...)` wants the job to run, or None for at once."""
        if not self._timing:
            return None
        if "wait" in self._timing:
            return due.after(self.definition.name, self._timing["wait"], _now(client))
        return due.moment(self.definition.name, self._timing["wait_until"], _now(client))

    def _item(self, args: Sequence[Any], kwargs: Mapping[str, Any], at: float | None) -> dict[str, Any]:
        return item_of(self.definition, args, kwargs, self._options, at)

    def _bulk_item(
        self,
        client: Pusher,
        rows: Iterable[Row],
        *,
        at: Any = None,
        spread_interval: float | timedelta | None = None,
        batch_size: int | None = None,
    ) -> dict[str, Any]:
        bound = _bind_rows(self.definition, rows)
        item: dict[str, Any] = {
            "class": self.definition,
            "args": list(bound) if isinstance(rows, Sized) else bound,
            **fresh(self._options),
        }
        plan = {
            "at": self._later(client)
            if at is None and spread_interval is None
            else _times(self.definition.name, at, _now(client)),
            "spread_interval": None
            if spread_interval is None
            else due.check_interval(self.definition.name, spread_interval),
            "batch_size": batch_size,
        }
        return item | {name: value for name, value in plan.items() if value is not None}

    def __repr__(self) -> str:
        given = {**self._options, **self._transport, **self._timing}
        return mask_secrets(f"<Setter {self.definition.name} {given}>")


def _now(client: Pusher) -> float:
    now: float = client.setup.config.clock.now()
    return now


def _checked_timing(owner: str, timing: Mapping[str, Any]) -> Mapping[str, Any]:
    if len(timing) > 1:
        raise ConfigError(f"{owner}: expected wait or wait_until, got both; a job is due once")
    if "wait" in timing:
        due.check_interval(owner, timing["wait"])
    if "wait_until" in timing:
        due.check_moment(owner, timing["wait_until"])
    return timing


def _bind_rows(definition: Definition, rows: Iterable[Row]) -> Iterator[list[Any]]:
    for number, row in enumerate(rows):
        if not isinstance(row, list | tuple):
            raise ArgumentsError(
                f"{definition.name}: expected rows of arguments (lists or tuples), got {type(row).__name__} as row "
                f"{number}; write perform_bulk([(1,), (2,)])"
            )
        try:
            positional, _ = definition.bind(row, {})
        except ArgumentsError as error:
            raise ArgumentsError(f"row {number}: {error}") from None
        yield positional


def _times(owner: str, at: Any, now: float) -> float | list[float] | None:
    """One time or many; a past one among many stays in the list, so that each row keeps its own."""
    if at is None:
        return None
    if isinstance(at, list | tuple):
        return [due.moment(owner, when, now) or due.check_moment(owner, when) for when in at]
    return due.moment(owner, at, now)

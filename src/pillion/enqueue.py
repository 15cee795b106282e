"""Sidekiq's and Resque's other way to push: `client.enqueue(HardWorker, "bob", 5)`, the job class as an argument.

`Client` inherits these verbs. They say what `HardWorker.set(client=client).perform_async("bob", 5)` says, with the same
checks, options and errors, so a client that is given wins over whatever the class or a `via` block names. Nothing here
talks to Redis; `item_of` is also how the verbs of job classes make what they give to a client (`setter.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeAlias, TypeVar

from pillion import due
from pillion.errors import UsageError
from pillion.job_options import ROUTE, fresh, sort_options
from pillion.registry import Definition, definition_of

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


Item: TypeAlias = Mapping[str, Any]

if TYPE_CHECKING:  # a protocol of a ParamSpec costs every program time when it starts

    class HasPerform(Protocol[P, R_co]):
        """Anything with a `perform`; how type checkers learn what a job class takes."""

        def perform(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    class HasFunction(Protocol[P, R_co]):
        """A function job; how type checkers learn what it takes."""

        definition: Definition

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    JobClass: TypeAlias = Callable[[], HasPerform[P, Any]] | HasFunction[P, Any]


class Enqueuing:
    """The verbs that take the job class as an argument; each has its twin for asyncio callers."""

    if TYPE_CHECKING:
        setup: Any

        def push(
            self, item: Item, *, once: bool = ..., durability: Any = ..., after_commit: bool = ...
        ) -> str | None: ...

        async def apush(
            self, item: Item, *, once: bool = ..., durability: Any = ..., after_commit: bool = ...
        ) -> str | None: ...

    def enqueue(self, job: JobClass[P], /, *args: P.args, **kwargs: P.kwargs) -> str | None:
        """Push a job now; returns its jid, or None where middleware stopped it.

        Args:
            job: a job class or a function job; its options apply, but those that choose a client.

        Raises:
            UsageError: it is neither; push by name with `client.push`.
            ArgumentsError, PayloadError, Unavailable, Refused, MaybeEnqueued: as `perform_async` of the job class.
        """
        item, beside = _call(self, job, args, kwargs)
        return self.push(item, **beside)

    async def aenqueue(self, job: JobClass[P], /, *args: P.args, **kwargs: P.kwargs) -> str | None:
        """`enqueue` for asyncio callers."""
        item, beside = _call(self, job, args, kwargs)
        return await self.apush(item, **beside)

    def enqueue_to(self, queue: str, job: JobClass[P], /, *args: P.args, **kwargs: P.kwargs) -> str | None:
        """`enqueue`, into another queue than the job's own."""
        item, beside = _call(self, job, args, kwargs, queue=queue)
        return self.push(item, **beside)

    async def aenqueue_to(self, queue: str, job: JobClass[P], /, *args: P.args, **kwargs: P.kwargs) -> str | None:
        """`enqueue_to` for asyncio callers."""
        item, beside = _call(self, job, args, kwargs, queue=queue)
        return await self.apush(item, **beside)

    def enqueue_in(
        self, interval: float | timedelta, job: JobClass[P], /, *args: P.args, **kwargs: P.kwargs
    ) -> str | None:
        """`enqueue`, to run after `interval`, in seconds or as a timedelta; see `Setter.perform_in`."""
        item, beside = _call(self, job, args, kwargs, interval=interval)
        return self.push(item, **beside)

    async def aenqueue_in(
        self, interval: float | timedelta, job: JobClass[P], /, *args: P.args, **kwargs: P.kwargs
    ) -> str | None:
        """`enqueue_in` for asyncio callers."""
        item, beside = _call(self, job, args, kwargs, interval=interval)
        return await self.apush(item, **beside)

    def enqueue_to_in(
        self, queue: str, interval: float | timedelta, job: JobClass[P], /, *args: P.args, **kwargs: P.kwargs
    ) -> str | None:
        """`enqueue_to` and `enqueue_in` in one."""
        item, beside = _call(self, job, args, kwargs, queue=queue, interval=interval)
        return self.push(item, **beside)

    async def aenqueue_to_in(
        self, queue: str, interval: float | timedelta, job: JobClass[P], /, *args: P.args, **kwargs: P.kwargs
    ) -> str | None:
        """`enqueue_to_in` for asyncio callers."""
        item, beside = _call(self, job, args, kwargs, queue=queue, interval=interval)
        return await self.apush(item, **beside)


def item_of(
    definition: Definition, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], at: float | None
) -> dict[str, Any]:
    """A call as a client takes it. Raises ArgumentsError where the arguments do not fit `perform`."""
    positional, named = definition.bind(args, kwargs)
    item: dict[str, Any] = {"class": definition, "args": positional}
    if options:
        item |= fresh(options)
    if named:
        item["kwargs"] = named
    if at is not None:
        item["at"] = at
    return item


def beside(transport: Mapping[str, Any]) -> dict[str, Any]:
    """What a client is given beside the item: the transport options but those that chose the client."""
    return {name: value for name, value in transport.items() if name not in ROUTE} if transport else {}


def _call(
    client: Any, job: object, args: Sequence[Any], kwargs: Mapping[str, Any], **plan: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to give to the client's push; `plan` holds the `queue` and the `interval` where the verb has them."""
    if not isinstance(client, Enqueuing):
        raise UsageError(f"expected a client to enqueue with, got {client!r:.80}; write pillion.Client().enqueue(...)")
    definition = definition_of(job)
    if definition is None:
        raise UsageError(
            f"expected a job class or a function job, got {job!r:.80}; a job that is known by name only is pushed with "
            'client.push({"class": "HardWorker", "args": [...]})'
        )
    name, at = definition.name, None
    options = sort_options(name, {"queue": plan["queue"]}).wire if "queue" in plan else {}
    if "interval" in plan:
        at = due.after(name, plan["interval"], client.setup.config.clock.now())
    return item_of(definition, args, kwargs, options, at), beside(definition.transport)

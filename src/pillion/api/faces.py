"""Each verb of the API, written once and spoken in both colours.

A verb is a *plan*: a generator that yields what it asks of Redis (an `Op`), is sent the answer, and returns its result.
`faces` makes of `plan_size` the two methods that callers use, `size()` for threads and `asize()` for asyncio; `run` and
`arun` carry plans out, and nothing else differs between the two. Plans are composed with `yield from`. What needs many
pages is a `Walk`, which both `for` and `async for` go through. A plan does no I/O itself; a crash or a cancel between
two of its steps leaves what the op before left, and each op leaves every job in one place."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeAlias, TypeVar

import msgspec

from pillion.client import Client
from pillion.config import Config
from pillion.routing import default_client, via_client
from pillion.setup import Setup
from pillion.store import reads
from pillion.store.connection import AsyncStore, Store
from pillion.store.keys import Keyspace
from pillion.store.op import Op

T = TypeVar("T")
C = TypeVar("C")
P = ParamSpec("P")
F = TypeVar("F", bound="HasClient")


class Call(msgspec.Struct, frozen=True):
    """A step of a plan that calls what the application handed in; if it answers with an awaitable, that is awaited."""

    fn: Callable[..., object]
    args: tuple[Any, ...] = ()


Plan: TypeAlias = Generator[Op[Any] | Call, Any, T]


def ask(op: Op[T]) -> Plan[T]:
    """The step that asks one thing: `size = yield from ask(op)`."""
    answer: T = yield op
    return answer


class HasClient(Protocol):
    """Whoever has verbs."""

    @property
    def client(self) -> Client: ...


class Face:
    """What every class of the API stands on: a client, and through it a server, a configuration and handlers.

    Without a client it is that of the `pillion.via` block around the call, or the default one.
    """

    def __init__(self, client: Client | None = None) -> None:
        self._client = client

    @property
    def client(self) -> Client:
        """Through which this object looks and acts."""
        return self._client or via_client() or default_client()

    @property
    def setup(self) -> Setup:
        """Its options and handlers."""
        setup: Setup = self.client.setup
        return setup

    @property
    def config(self) -> Config:
        """Its options, resolved."""
        return self.setup.config

    @property
    def keys(self) -> Keyspace:
        """The names of the keys on its server."""
        return self.client.store.keys


def faces(
    plan: Callable[Concatenate[F, P], Plan[T]],
) -> tuple[Callable[Concatenate[F, P], T], Callable[Concatenate[F, P], Coroutine[Any, Any, T]]]:
    """The two methods of a plan `plan_verb`: `verb` for threads, `averb` for asyncio."""

    def sync(self: F, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(self.client.store, plan(self, *args, **kwargs))

    async def twin(self: F, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await arun(self.client.astore, plan(self, *args, **kwargs))

    name = plan.__name__.removeprefix("plan_")
    shape = inspect.signature(plan)
    result = str(shape.return_annotation).removeprefix("Plan[").removesuffix("]")
    shape = shape.replace(return_annotation=result)
    dress(sync, plan, name, shape)
    dress(twin, plan, f"a{name}", shape, f"`{name}` for asyncio callers.")
    return sync, twin


def dress(
    method: Any, plan: Callable[..., object], name: str, shape: inspect.Signature, doc: str | None = None
) -> None:
    """Give a method that was made of a plan the name and the signature by which people know it."""
    method.__name__, method.__doc__, method.__module__ = name, doc or plan.__doc__, plan.__module__
    method.__qualname__ = f"{plan.__qualname__.rpartition('.')[0]}.{name}"
    method.__signature__ = shape


# --- the two runners --------------------------------------------------------------------------------------------------


def run(store: Store, plan: Plan[T]) -> T:
    """Carry out a plan over a store, for threads. What an op raises is raised in the plan, and, unless caught, here."""
    try:
        step = next(plan)
        while True:
            try:
                answer = store.run(step) if isinstance(step, Op) else _called(step)
            except Exception as error:
                step = plan.throw(error)
            else:
                step = plan.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        plan.close()


async def arun(store: AsyncStore, plan: Plan[T]) -> T:
    """`run` for asyncio."""
    try:
        step = next(plan)
        while True:
            try:
                answer = await store.run(step) if isinstance(step, Op) else await _acalled(step)
            except Exception as error:
                step = plan.throw(error)
            else:
                step = plan.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        plan.close()


def _called(call: Call) -> object:
    """Call and, where it needs one, give the answer an event loop in a thread of its own: there may be one here."""
    answer = call.fn(*call.args)
    if not inspect.isawaitable(answer):
        return answer
    import asyncio  # noqa: PLC0415 - costs 20 ms, and few handlers answer so
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - ... and this too

    with ThreadPoolExecutor(1) as one:
        return one.submit(asyncio.run, _wait(answer)).result()


async def _acalled(call: Call) -> object:
    answer = call.fn(*call.args)
    return await answer if inspect.isawaitable(answer) else answer


async def _wait(answer: Any) -> object:
    return await answer


# --- many pages -------------------------------------------------------------------------------------------------------


class Page(msgspec.Struct, Generic[T, C], frozen=True):
    """A part of a walk.

    Attributes:
        entries: what was found; may be none although there is more.
        next: where to go on, for the verb that gave this page; None at the end.
    """

    entries: list[T]
    next: C | None


class Walk(Generic[T]):
    """All pages of something, one after the other: `for entry in walk` or `async for entry in walk`. Nothing is kept.

    Each loop over it begins anew.
    """

    def __init__(self, face: Face, page: Callable[[Any], Plan[Page[T, Any]]]) -> None:
        self._face = face
        self._page = page

    def __iter__(self) -> Iterator[T]:
        cursor: Any = None
        while True:
            page = run(self._face.client.store, self._page(cursor))
            yield from page.entries
            cursor = page.next
            if cursor is None:
                return

    async def __aiter__(self) -> AsyncIterator[T]:
        cursor: Any = None
        while True:
            page = await arun(self._face.client.astore, self._page(cursor))
            for entry in page.entries:
                yield entry
            cursor = page.next
            if cursor is None:
                return


def whole(plan: Plan[list[T]]) -> Plan[Page[T, Any]]:
    """A plan that finds everything at once, as the only page of a walk."""
    return Page((yield from plan), None)


def names(key: str) -> Plan[list[str]]:
    """The names in a set, sorted, each once; read 1,000 at a time. A key that is no set has none."""
    found: set[str] = set()
    cursor = 0
    while True:
        cursor, some = yield from ask(reads.scan_names(key, cursor))
        found.update(some)
        if not cursor:
            return sorted(found)

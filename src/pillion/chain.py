"""Which middlewares there are, in which order, and how one is built: the list that `middleware.py` runs.

`Setup` owns two chains, one for the client and one for the server; user code registers at boot. What cannot work is
refused here, at registration, where it can be told from the signatures. Building an instance per job is the only thing
that happens later. Nothing here runs a job.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, TypeAlias

from pillion.errors import MiddlewareError
from pillion.middleware_base import Home, at_home
from pillion.middleware_base import Middleware as Base

Middleware: TypeAlias = Callable[..., Any]
"""A class whose instances are called, a generator function, or an object with `__call__`."""

Kind: TypeAlias = Literal["client", "server"]

_ARGUMENTS: Final[dict[Kind, tuple[str, ...]]] = {
    "client": ("job_class", "job", "queue", "pool"),
    "server": ("job_instance", "job", "queue"),
}
_SECRET: Final = ("secret", "password", "token", "key", "dsn", "credential", "auth")


class Entry:
    """One registered middleware with its options.

    Attributes:
        middleware: what was registered.
        args, kwargs: the options for its constructor.
        is_async: it is an async generator and attaches to async jobs only.
        make: builds what is called for one job; for a class a new instance each time.
    """

    __slots__ = ("args", "is_async", "kwargs", "make", "middleware")

    def __init__(
        self, middleware: Middleware, args: tuple[Any, ...], kwargs: dict[str, Any], home: Home | None = None
    ) -> None:
        self.middleware = middleware
        self.args = args
        self.kwargs = kwargs
        self.is_async = inspect.isasyncgenfunction(_body(middleware))
        self.make: Callable[[], Callable[..., Any]] = self._maker(home)

    @property
    def name(self) -> str:
        """Module and qualified name, for messages."""
        named = self.middleware if hasattr(self.middleware, "__qualname__") else type(self.middleware)
        return f"{named.__module__}.{named.__qualname__}"

    def describe(self) -> str:
        """The middleware as it was registered, with secrets masked: `ErrorLogger(foo=1, bar=2)`."""
        shown = [_short(value) for value in self.args]
        shown += [f"{key}={'***' if _is_secret(key) else _short(value)}" for key, value in self.kwargs.items()]
        name = self.name.rpartition(".")[2]
        return f"{name}({', '.join(shown)})" if shown else name

    def _maker(self, home: Home | None) -> Callable[[], Callable[..., Any]]:
        middleware = self.middleware
        if not isinstance(middleware, type):
            at_home(middleware, home)
            return lambda: middleware
        make: Callable[[], Callable[..., Any]]
        if not _fits(middleware, self.args, self.kwargs, self.name):
            make = self._make_unproved
        else:
            make = functools.partial(middleware, *self.args, **self.kwargs) if self.args or self.kwargs else middleware
        return (lambda: at_home(make(), home)) if issubclass(middleware, Base) else make

    def _make_unproved(self) -> Callable[..., Any]:
        try:
            made: Callable[..., Any] = self.middleware(*self.args, **self.kwargs)
        except TypeError as error:
            raise MiddlewareError(
                f"middleware {self.name} could not be built with the options it was registered with: {error}"
            ) from error
        return made


class Chain:
    """An ordered set of middlewares, outermost first; every middleware stands in it at most once.

    Reading never locks and never sees a half-made change: `entries` is a tuple that each change replaces.

    Args:
        kind: what the chain is for; with it, a middleware of the other kind is refused at registration.
        home: the setup it belongs to, for middlewares that inherit `pillion.Middleware`.
    """

    __slots__ = ("_home", "_lock", "entries", "kind")

    def __init__(self, kind: Kind | None = None, home: Home | None = None) -> None:
        self.kind: Kind | None = kind
        self._home = home
        self.entries: tuple[Entry, ...] = ()
        self._lock = threading.Lock()

    def add(self, middleware: Middleware, /, *args: Any, **kwargs: Any) -> None:
        """Put `middleware` innermost, built with these options. One that is there already moves and gets them.

        Raises:
            MiddlewareError: it cannot be a middleware of this chain, or the options do not fit its constructor.
        """
        entry = self._entry(middleware, args, kwargs)
        with self._lock:
            self.entries = (*self._without(middleware), entry)

    def prepend(self, middleware: Middleware, /, *args: Any, **kwargs: Any) -> None:
        """Put `middleware` outermost; otherwise as `add`."""
        entry = self._entry(middleware, args, kwargs)
        with self._lock:
            self.entries = (entry, *self._without(middleware))

    def insert_before(self, anchor: Middleware, middleware: Middleware, /, *args: Any, **kwargs: Any) -> None:
        """Put `middleware` directly outside `anchor`, or outermost where there is no `anchor`.

        One that is in the chain already moves there and keeps the options it has.
        """
        self._insert(anchor, middleware, args, kwargs, after=False)

    def insert_after(self, anchor: Middleware, middleware: Middleware, /, *args: Any, **kwargs: Any) -> None:
        """Put `middleware` directly inside `anchor`, or innermost where there is none; else as `insert_before`."""
        self._insert(anchor, middleware, args, kwargs, after=True)

    def remove(self, middleware: Middleware) -> None:
        """Take `middleware` out; no complaint when it is not there."""
        with self._lock:
            self.entries = self._without(middleware)

    def clear(self) -> None:
        """Take everything out."""
        with self._lock:
            self.entries = ()

    def exists(self, middleware: object) -> bool:
        """Whether `middleware` is in the chain; `in` asks the same."""
        return any(entry.middleware == middleware for entry in self.entries)

    def copy(self) -> Chain:
        """A chain of its own with the same entries."""
        twin = Chain(self.kind, self._home)
        twin.entries = self.entries
        return twin

    def describe(self) -> str:
        """The chain on one line, outermost first, as `pillion worker -v` prints it."""
        return " > ".join(entry.describe() for entry in self.entries) or "(none)"

    def __contains__(self, middleware: object) -> bool:
        return self.exists(middleware)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"<Chain {self.describe()}>"

    def _entry(self, middleware: Middleware, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entry:
        _check(middleware, args or kwargs, self.kind)
        return Entry(middleware, args, kwargs, self._home)

    def _without(self, middleware: Middleware) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.middleware != middleware)

    def _insert(
        self, anchor: Middleware, middleware: Middleware, args: tuple[Any, ...], kwargs: dict[str, Any], *, after: bool
    ) -> None:
        entry = self._entry(middleware, args, kwargs)
        with self._lock:
            entry = next((old for old in self.entries if old.middleware == middleware), entry)
            rest = self._without(middleware)
            missing = len(rest) if after else 0
            place = next((i + after for i, other in enumerate(rest) if other.middleware == anchor), missing)
            self.entries = (*rest[:place], entry, *rest[place:])


def _check(middleware: Middleware, options: object, kind: Kind | None) -> None:
    """Refuse at registration what is sure to fail at the first job."""
    name = getattr(middleware, "__qualname__", None) or repr(middleware)[:80]
    if not callable(middleware):
        raise refused(name, "it cannot be called")
    if isinstance(middleware, type):
        if not any("__call__" in base.__dict__ for base in middleware.__mro__):
            raise refused(name, "the class has no __call__")
    elif options:
        raise refused(name, "only a class takes options, and this is not one")
    body = _body(middleware)
    if inspect.iscoroutinefunction(body):
        raise refused(name, "it is a coroutine; one that awaits has an `async def __call__` with a yield in it")
    if kind == "client" and inspect.isasyncgenfunction(body):
        raise refused(name, "a client middleware is a plain generator, this one is async")
    if kind and _binds(body, ("self",) * isinstance(middleware, type) + _ARGUMENTS[kind], {}) is False:
        raise refused(name, f"a {kind} middleware is called with ({', '.join(_ARGUMENTS[kind])})")


def refused(name: str, why: str) -> MiddlewareError:
    return MiddlewareError(
        f"expected a middleware, a generator with one yield around the job, got {name}: {why}. Write a class with "
        "`def __call__(self, job_instance, job, queue): ... yield` (client: job_class, job, queue, pool)"
    )


def _fits(middleware: type, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> bool:
    """Whether the options are known to fit the constructor; raises when they are known not to."""
    fits = _binds(middleware, args, kwargs)
    if fits is False:
        given = ", ".join([*map(_short, args), *kwargs])
        raise MiddlewareError(
            f"the options of middleware {name} do not fit its constructor: expected "
            f"{inspect.signature(middleware)}, got ({given})"
        )
    return fits is True


def _binds(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool | None:
    """Whether a call fits the signature; None where it has none that can be read."""
    try:
        signature = inspect.signature(function)
    except Exception:  # builtins have none, and an annotation may be anything
        return None
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _body(middleware: Middleware) -> Callable[..., Any]:
    """The function that the job's call ends up in."""
    if isinstance(middleware, type):
        calls = (base.__dict__["__call__"] for base in middleware.__mro__ if "__call__" in base.__dict__)
        return next(calls, middleware)
    if inspect.isroutine(middleware) or isinstance(middleware, functools.partial):
        return middleware
    bound: Callable[..., Any] = middleware.__call__  # type: ignore[operator]
    return bound


def _is_secret(key: str) -> bool:
    return any(part in key.lower() for part in _SECRET)


def _short(value: object) -> str:
    try:
        shown = repr(value)
    except Exception:
        shown = f"<{type(value).__name__}>"
    return shown if len(shown) <= 60 else shown[:57] + "..."

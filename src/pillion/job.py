# pyright: reportArgumentType=false
# (pyright wants `cls: type[...]` in a classmethod; the self-type below is what lets both checkers read `perform`)
"""Jobs as people write them: `class HardWorker(pillion.Job)` and `@pillion.job`.

Defining a class or decorating a function puts one `Definition` into the registry, under the bare name that goes on
the wire. The enqueue verbs are `Setter`'s; the ones here only give them their types, so that a wrong argument is an
error in the editor. Nothing here knows about Redis; a worker runs what the registry holds and never comes here.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, ParamSpec, TypeAlias, TypeVar, overload

from pillion import registry
from pillion.define import define_class, define_function
from pillion.effective import JobOptions
from pillion.errors import ArgumentsError, DefinitionError
from pillion.job_options import sort_options
from pillion.registry import Definition, definition_of
from pillion.running import RunningJob
from pillion.setter import Row, Setter

if TYPE_CHECKING:
    from pillion.enqueue import HasPerform

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

MOST_SHOWN = 40

RetryIn: TypeAlias = (
    Callable[[int, BaseException, dict[str, Any]], object]
    | Callable[[int, BaseException], object]
    | Callable[[int], object]
    | Callable[[], object]
)
RetriesExhausted: TypeAlias = (
    Callable[[dict[str, Any], BaseException], object] | Callable[[dict[str, Any]], object] | Callable[[], object]
)


class Job:
    """A job class: `class HardWorker(pillion.Job, queue="default", retry=5)` with a `perform`, sync or `async def`.

    Class keywords are inherited, the nearest winning; the name and the aliases are not. Bases that take keywords of
    their own stand before `Job`.

    Args:
        name: the name on the wire, if not the class's.
        aliases: older names that this class still answers to.
        **options: `queue`, `retry` (bool or number), `retry_for` (seconds or timedelta), `retry_queue`, `dead`,
            `backtrace` (bool or lines), `tags`, `log_level`; every other key reaches middleware and survives retries.

    Two retry blocks may be class keywords or static methods: `retry_in(count, error, job)`, which gives seconds or
    None, and `retries_exhausted(job, error)`. They may take fewer arguments than that, the first ones.

    A class without `perform` is a stub for a job that runs elsewhere: it can push, not run. A worker makes a new
    instance for each run; calling `HardWorker().perform(...)` in a test needs nothing else.

    Attributes:
        context: the run this instance was made for, or None outside of a worker.
        job_options: the options that apply to the class's pushes, each with where it was given.

    Raises:
        DefinitionError: another job has this name, or the class cannot run.
        ConfigError: an option has an impossible value.
    """

    __pillion__: ClassVar[Definition]
    job_options: ClassVar[JobOptions] = JobOptions()
    context: RunningJob | None = None

    if TYPE_CHECKING:
        perform: Any  # so that a stub may be pushed with anything
    else:

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:  # type checkers are to see none, and so no arguments
            if (args or kwargs) and cls.__init__ is object.__init__:
                raise ArgumentsError(_misplaced(cls, args, kwargs))
            return super().__new__(cls)

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        retry_in: RetryIn | None = None,
        retries_exhausted: RetriesExhausted | None = None,
        **options: Any,
    ) -> None:
        super().__init_subclass__()
        hooks = {"retry_in": retry_in, "retries_exhausted": retries_exhausted}
        cls.__pillion__ = define_class(cls, name, aliases, hooks, options)
        registry.default.register(cls.__pillion__)

    @property
    def jid(self) -> str | None:
        """The id of the job this instance runs."""
        return self.context.jid if self.context else None

    @property
    def bid(self) -> str | None:
        """The id of the batch it belongs to."""
        return self.context.payload.get("bid") if self.context else None

    @property
    def attempt(self) -> int:
        """1 in the first run and outside of a worker, 2 in the first retry, and so on."""
        return self.context.attempt if self.context else 1

    @property
    def logger(self) -> logging.Logger:
        """A logger named after the job: `pillion.job.HardWorker`."""
        return logging.getLogger(f"pillion.job.{self.__pillion__.name}")

    def interrupted(self) -> bool:
        """True once the job should come to an end: the worker is stopping, or the lease is lost."""
        return self.context is not None and self.context.interrupted()

    @classmethod
    def set(cls: Callable[[], HasPerform[P, R]], **options: Any) -> Setter[P, R]:
        """This job with other options for its next pushes; see `Setter.set`."""
        return _setter(cls).set(**options)

    @classmethod
    def perform_async(cls: Callable[[], HasPerform[P, Any]], *args: P.args, **kwargs: P.kwargs) -> str | None:
        """Push the job now; returns its jid, or None where middleware stopped it. See `Setter.perform_async`."""
        return _setter(cls).perform_async(*args, **kwargs)

    @classmethod
    async def aperform_async(cls: Callable[[], HasPerform[P, Any]], *args: P.args, **kwargs: P.kwargs) -> str | None:
        """`perform_async` for asyncio callers."""
        return await _setter(cls).aperform_async(*args, **kwargs)

    @classmethod
    def perform_in(
        cls: Callable[[], HasPerform[P, Any]], interval: float | timedelta, /, *args: P.args, **kwargs: P.kwargs
    ) -> str | None:
        """Push the job to run after `interval`, in seconds or as a timedelta. See `Setter.perform_in`."""
        return _setter(cls).perform_in(interval, *args, **kwargs)

    @classmethod
    async def aperform_in(
        cls: Callable[[], HasPerform[P, Any]], interval: float | timedelta, /, *args: P.args, **kwargs: P.kwargs
    ) -> str | None:
        """`perform_in` for asyncio callers."""
        return await _setter(cls).aperform_in(interval, *args, **kwargs)

    @classmethod
    def perform_at(
        cls: Callable[[], HasPerform[P, Any]], when: float | datetime, /, *args: P.args, **kwargs: P.kwargs
    ) -> str | None:
        """Push the job to run at `when`, an aware datetime or epoch seconds. See `Setter.perform_at`."""
        return _setter(cls).perform_at(when, *args, **kwargs)

    @classmethod
    async def aperform_at(
        cls: Callable[[], HasPerform[P, Any]], when: float | datetime, /, *args: P.args, **kwargs: P.kwargs
    ) -> str | None:
        """`perform_at` for asyncio callers."""
        return await _setter(cls).aperform_at(when, *args, **kwargs)

    @overload
    @classmethod
    def perform_bulk(  # type: ignore[overload-overlap]  # a collection is an iterable with the better answer
        cls,
        rows: Collection[Row],
        /,
        *,
        at: float | datetime | Sequence[float | datetime] | None = None,
        spread_interval: float | timedelta | None = None,
        batch_size: int | None = None,
    ) -> list[str | None]: ...
    @overload
    @classmethod
    def perform_bulk(
        cls,
        rows: Iterable[Row],
        /,
        *,
        at: float | datetime | None = None,
        spread_interval: float | timedelta | None = None,
        batch_size: int | None = None,
    ) -> int: ...
    @classmethod
    def perform_bulk(cls, rows: Iterable[Row], /, **plan: Any) -> list[str | None] | int:
        """Push one job per row of positional arguments. See `Setter.perform_bulk`."""
        return _setter(cls).perform_bulk(rows, **plan)

    @overload
    @classmethod
    async def aperform_bulk(  # type: ignore[overload-overlap]
        cls,
        rows: Collection[Row],
        /,
        *,
        at: float | datetime | Sequence[float | datetime] | None = None,
        spread_interval: float | timedelta | None = None,
        batch_size: int | None = None,
    ) -> list[str | None]: ...
    @overload
    @classmethod
    async def aperform_bulk(
        cls,
        rows: Iterable[Row],
        /,
        *,
        at: float | datetime | None = None,
        spread_interval: float | timedelta | None = None,
        batch_size: int | None = None,
    ) -> int: ...
    @classmethod
    async def aperform_bulk(cls, rows: Iterable[Row], /, **plan: Any) -> list[str | None] | int:
        """`perform_bulk` for asyncio callers."""
        return await _setter(cls).aperform_bulk(rows, **plan)

    @overload
    @classmethod
    def perform_inline(
        cls: Callable[[], HasPerform[P, Coroutine[Any, Any, T]]], *args: P.args, **kwargs: P.kwargs
    ) -> T | None: ...
    @overload
    @classmethod
    def perform_inline(cls: Callable[[], HasPerform[P, R]], *args: P.args, **kwargs: P.kwargs) -> R | None: ...
    @classmethod
    def perform_inline(cls, *args: Any, **kwargs: Any) -> Any:
        """Run the job here and now, middleware included; returns `perform`'s result. See `Setter.perform_inline`."""
        return _setter(cls).perform_inline(*args, **kwargs)

    @overload
    @classmethod
    async def aperform_inline(
        cls: Callable[[], HasPerform[P, Coroutine[Any, Any, T]]], *args: P.args, **kwargs: P.kwargs
    ) -> T | None: ...
    @overload
    @classmethod
    async def aperform_inline(cls: Callable[[], HasPerform[P, R]], *args: P.args, **kwargs: P.kwargs) -> R | None: ...
    @classmethod
    async def aperform_inline(cls, *args: Any, **kwargs: Any) -> Any:
        """`perform_inline` for asyncio callers."""
        return await _setter(cls).aperform_inline(*args, **kwargs)

    perform_sync = perform_inline
    aperform_sync = aperform_inline

    @classmethod
    def queue_as(cls, queue: str) -> None:
        """Push to another queue from now on, as if the class had been defined with it."""
        definition = _setter(cls).definition
        definition.change_options(sort_options(definition.name, {"queue": queue}).wire)

    @classmethod
    def delay(cls, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Not a verb here; raises UsageError with the one to use. So do the other names people bring along."""
        _setter(cls).delay()

    delay_for = delay_until = apply_async = send = enqueue = perform_later = delay


def _setter(cls: Callable[[], HasPerform[P, R]]) -> Setter[P, R]:
    definition = definition_of(cls)
    if definition is None:
        raise DefinitionError("expected a subclass of pillion.Job, got Job itself; write class HardWorker(pillion.Job)")
    return Setter(definition)


def _misplaced(cls: type[Job], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """What to write instead of `Greet("x")`; of several arguments, or a long one, nothing is shown."""
    shown = "..."
    if len(args) == 1 and not kwargs and type(args[0]) in (str, int, float, bool):
        text = repr(args[0])
        text = f'"{text[1:-1]}"' if text[0] == "'" else text
        shown = text if len(text) <= MOST_SHOWN else shown
    name = cls.__name__
    return f"{name}: a job takes no arguments here; write {name}.perform_async({shown})"


class FunctionJob(Setter[P, R_co]):
    """A function that is a job: a plain call runs it here, the verbs push it. Made by `@pillion.job`."""

    __pillion__: Definition
    __wrapped__: Callable[P, R_co]
    job_options: ClassVar[JobOptions] = JobOptions()

    def __init__(self, definition: Definition, function: Callable[P, R_co]) -> None:
        super().__init__(definition)
        functools.update_wrapper(self, function)
        self.__pillion__ = definition
        if sys.version_info >= (3, 12) and definition.is_async:
            inspect.markcoroutinefunction(self)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function itself, here and now; nothing is pushed and no middleware runs."""
        return self.__wrapped__(*args, **kwargs)

    def __reduce__(self) -> str:
        return getattr(self, "__qualname__", self.definition.name)

    def __repr__(self) -> str:
        return f"<pillion job {self.definition.name} at {self.definition.where}>"


@overload
def job(function: Callable[P, R], /) -> FunctionJob[P, R]: ...
@overload
def job(
    *,
    name: str | None = None,
    aliases: Sequence[str] = (),
    retry_in: RetryIn | None = None,
    retries_exhausted: RetriesExhausted | None = None,
    **options: Any,
) -> Callable[[Callable[P, R]], FunctionJob[P, R]]: ...
def job(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    aliases: Sequence[str] = (),
    retry_in: Callable[..., object] | None = None,
    retries_exhausted: Callable[..., object] | None = None,
    **options: Any,
) -> Any:
    """Make a function, sync or `async def`, a job: `@pillion.job` or `@pillion.job(queue="mailers", retry=3)`.

    It stays a function: a plain call runs it. The options are those of `Job`; `retry_in` and `retries_exhausted` are
    functions here.

    Raises:
        DefinitionError: another job has this name, or it is not a function that can run.
        ConfigError: an option has an impossible value.
    """
    hooks: Mapping[str, Callable[..., object] | None] = {"retry_in": retry_in, "retries_exhausted": retries_exhausted}

    def define(function: Callable[P, R]) -> FunctionJob[P, R]:
        definition = define_function(function, name, aliases, hooks, options)
        made = FunctionJob(definition, function)
        definition.handle = made
        registry.default.register(definition)
        return made

    return define if function is None else define(function)

"""How a class or function becomes a `Definition`: its name, its place in the source, its inherited options, its checks.

Called once per definition, by `job.py`. What can be known to fail in a worker fails here instead, with the place shown.
Nothing is remembered; the registry decides what stays.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple

from pillion.errors import ArgumentsError, ConfigError, DefinitionError
from pillion.job_options import TIMING, Options, isolation_of, over, sort_options, warn_of_foreign
from pillion.registry import Definition, Place
from pillion.signature import signature_of

STATEMENT = "__pillion_statement__"

SIDEKIQ_OPTIONS = "sidekiq_options"

_PER_PUSH = {"jid", *TIMING}
_HOOKS: Mapping[str, tuple[str, ...]] = {
    "retry_in": ("count", "error", "job"),
    "retries_exhausted": ("job", "error"),
}


class _Statement(NamedTuple):
    """A class statement: where it stands and what stood between its parentheses. Kept in the class, for subclasses."""

    place: Place
    name: str | None
    aliases: Sequence[str]
    options: Options


def define_class(
    cls: type[Any],
    name: str | None,
    aliases: Sequence[str],
    hooks: Mapping[str, Callable[..., Any] | None],
    options: Mapping[str, Any],
) -> Definition:
    """The definition of a job class. It is a stub unless it has or inherits a `perform` that is not abstract.

    Retry blocks given as class keywords become its static methods, and are inherited as such.

    Raises:
        DefinitionError: `perform`, `__init__` or a retry block cannot be used as such.
        ConfigError: an option has an impossible value.
    """
    statement = _keep_statement(cls, name, aliases, options)
    place = statement.place
    _refuse_attribute(place, cls)
    _keep_hooks(place, cls, hooks)
    inherited = _inherited(cls)
    name = cls.__name__ if statement.name is None else statement.name
    perform: Any = getattr(cls, "perform", None)
    runs = callable(perform) and not getattr(perform, "__isabstractmethod__", False)
    if runs:
        _refuse_generator(place, perform)
        _refuse_constructor(place, cls)
        warn_of_foreign(name, f"{place.qualname} at {place.shown}", inherited.wire)
    raw = inspect.getattr_static(cls, "perform", None)
    takes_self = hasattr(type(raw), "__get__") and not isinstance(raw, staticmethod | classmethod)
    return Definition(
        name,
        cls,
        kind="class" if runs else "stub",
        place=place,
        aliases=statement.aliases,
        options=inherited.wire,
        transport=inherited.transport,
        isolation=isolation_of(f"{place.qualname} at {place.shown}", inherited.run),
        is_async=runs and _is_async(perform),
        signature=signature_of(name, perform, skip_self=takes_self) if runs else None,
        retry_in=_hook(place, "retry_in", getattr(cls, "retry_in", None), cls),
        retries_exhausted=_hook(place, "retries_exhausted", getattr(cls, "retries_exhausted", None), cls),
    )


def option_sources(definition: Definition) -> dict[str, str]:
    """Where each option of a definition was given: the nearest class, or the function, as `name at file:line`."""
    if definition.kind == "function":
        return dict.fromkeys(definition.options, f"{definition.name} at {definition.where}")
    sources: dict[str, str] = {}
    for base in reversed(getattr(definition.target, "__mro__", ())):
        statement: _Statement | None = base.__dict__.get(STATEMENT)
        if statement is not None:
            where = f"{base.__name__} at {statement.place.shown}"
            sources |= dict.fromkeys((*statement.options.wire, *statement.options.transport), where)
    return sources


def define_function(
    function: Callable[..., Any],
    name: str | None,
    aliases: Sequence[str],
    hooks: Mapping[str, Callable[..., Any] | None],
    options: Mapping[str, Any],
) -> Definition:
    """The definition of a job function; the caller sets its `handle`.

    Raises:
        DefinitionError: it is no function, or one without a name.
        ConfigError: an option has an impossible value.
    """
    place = _place_of_function(function)
    _refuse_generator(place, function)
    name = _function_name(function, name, place)
    given = _sorted(place, options)
    warn_of_foreign(name, f"{place.qualname} at {place.shown}", given.wire)
    return Definition(
        name,
        function,
        kind="function",
        place=place,
        aliases=aliases,
        options=given.wire,
        transport=given.transport,
        isolation=isolation_of(f"{place.qualname} at {place.shown}", given.run),
        is_async=_is_async(function),
        signature=signature_of(name, function),
        **{hook: _hook(place, hook, hooks.get(hook)) for hook in _HOOKS},
    )


def _keep_statement(cls: type[Any], name: str | None, aliases: Sequence[str], options: Mapping[str, Any]) -> _Statement:
    kept: _Statement | None = cls.__dict__.get(STATEMENT)
    if kept is None or name is not None or aliases or options:
        place = _place_of_class(cls)
        kept = _Statement(place, name, aliases, _sorted(place, options))
        setattr(cls, STATEMENT, kept)
    # else this is a copy that something made of the class, without its keywords: a slotted dataclass, attrs
    return kept


def _inherited(cls: type[Any]) -> Options:
    """The options of the class and its bases; the nearest wins, as for attributes."""
    wire: dict[str, Any] = {}
    transport: dict[str, Any] = {}
    run: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        statement: _Statement | None = base.__dict__.get(STATEMENT)
        if statement is not None:
            wire |= statement.options.wire
            transport = over(transport, statement.options.transport)
            run |= statement.options.run
    return Options(wire, transport, {}, run)


def _sorted(place: Place, options: Mapping[str, Any]) -> Options:
    given = sort_options(f"{place.qualname} at {place.shown}", options, defining=True)
    for name in _PER_PUSH & {*given.timing, *given.wire}:
        raise ConfigError(
            f"{place.qualname} at {place.shown}: {name!r} belongs to a push, not to the definition; use set({name}=...)"
        )
    return given


def _function_name(function: Callable[..., Any], name: str | None, place: Place) -> str:
    if isinstance(function, type):
        raise DefinitionError(
            f"expected a function under @pillion.job, got the class {place.qualname} at {place.shown}; "
            f"write class {function.__name__}(pillion.Job)"
        )
    if not callable(function) or hasattr(function, "__pillion__"):
        raise DefinitionError(
            f"expected a function under @pillion.job, got {function!r:.200}; "
            "write @pillion.job, or @pillion.job(queue=...) with options"
        )
    found: str = getattr(function, "__name__", "<lambda>") if name is None else name
    if found == "<lambda>":
        raise DefinitionError(
            f'expected a job with a name, got {place.qualname} at {place.shown}; write a def, or pass name="..."'
        )
    return found


def _refuse_generator(place: Place, function: Any) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(
            f"{place.qualname} at {place.shown}: expected a function or a coroutine function, got a generator, "
            "whose body nothing would run; remove the yield"
        )


def _refuse_attribute(place: Place, cls: type[Any]) -> None:
    found = getattr(cls, SIDEKIQ_OPTIONS, None)
    if found is None:
        return
    names = found if isinstance(found, Mapping) and found else ("queue", "retry")
    keywords = ", ".join(f"{name}=..." for name in names)
    raise DefinitionError(
        f"{place.qualname} at {place.shown}: expected options as keywords of the class, got the attribute "
        f"{SIDEKIQ_OPTIONS}, which nothing reads; write class {cls.__name__}(pillion.Job, {keywords})"
    )


def _refuse_constructor(place: Place, cls: type[Any]) -> None:
    signature = None if cls.__init__ is object.__init__ else signature_of("__init__", cls.__init__, skip_self=True)
    if signature is None:
        return
    try:
        signature.bind((), {})
    except ArgumentsError:
        raise DefinitionError(
            f"{place.qualname} at {place.shown}: expected a class that is built without arguments, got "
            f"__init__{signature}; a worker makes an instance per job, so pass what varies to perform"
        ) from None


def _keep_hooks(place: Place, cls: type[Any], hooks: Mapping[str, Callable[..., Any] | None]) -> None:
    for name, hook in hooks.items():
        if hook is None:
            continue
        if name in cls.__dict__:
            raise DefinitionError(
                f"{place.qualname} at {place.shown}: expected one {name}, got a class keyword and a method; remove one"
            )
        setattr(cls, name, hook if isinstance(hook, staticmethod) else staticmethod(hook))


def _hook(place: Place, name: str, hook: Any, cls: type[Any] | None = None) -> Callable[..., Any] | None:
    """The retry block as it is to be called: with all that `_HOOKS` offers, of which it may take only the first few."""
    if hook is None:
        return None
    offered = len(_HOOKS[name])
    raw = inspect.getattr_static(cls, name, None)
    method = inspect.isfunction(raw)
    problem, taken = None, None
    if not callable(hook) or _is_async(hook):
        problem = f"{hook!r:.80}, which is no plain function"
    elif signature := signature_of(name, hook):
        taken = signature.takes(offered)
        if taken is None or (method and _first_parameter(raw) == "self"):
            problem = f"{name}{signature}"
    if problem:
        raise DefinitionError(
            f"{place.qualname} at {place.shown}: expected a function that can be called as "
            f"{name}({', '.join(_HOOKS[name])}), got {problem}; "
            + ("in a class make it a @staticmethod" if method else "it may take fewer arguments, the first ones")
        )
    return _taking(hook, offered if taken is None else taken, offered)


def _taking(hook: Callable[..., Any], taken: int, offered: int) -> Callable[..., Any]:
    """`hook` for callers that offer more arguments than it takes."""
    if taken == offered:
        return hook

    @functools.wraps(hook)
    def call(*given: Any) -> Any:
        return hook(*given[:taken])

    return call


def _first_parameter(function: Any) -> str | None:
    code = function.__code__
    return code.co_varnames[0] if code.co_argcount else None


def _is_async(function: Any) -> bool:
    """Whether calling it gives something to await.

    A plain wrapper (`functools.wraps`) around a coroutine function counts as one: taken for a sync job, its coroutine
    would never run and nobody would notice.
    """
    return any(inspect.iscoroutinefunction(layer) for layer in _layers(function))


def _layers(function: Any) -> Iterator[Any]:
    """The callable, and what is wrapped in it."""
    seen: list[Any] = []
    while function is not None and not any(function is layer for layer in seen):
        seen.append(function)
        yield function
        if not inspect.isroutine(function):
            yield getattr(type(function), "__call__", None)  # noqa: B004 - the function itself is wanted
        function = function.func if isinstance(function, functools.partial) else getattr(function, "__wrapped__", None)


def _place_of_function(function: Any) -> Place:
    """The place of the innermost function: what a decorator made stands in the decorator's file."""
    bodies = [layer for layer in _layers(function) if inspect.isfunction(layer)]
    if not bodies:
        module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
        return Place(f"<{module}>", qualname or type(function).__qualname__, f"module {module}")
    code = bodies[-1].__code__
    return _place(bodies[-1].__globals__, code.co_filename, code.co_firstlineno, bodies[-1].__qualname__)


def _place_of_class(cls: type[Any]) -> Place:
    frame = inspect.currentframe()
    while frame is not None and not _is_statement(frame, cls):
        frame = frame.f_back
    if frame is None:
        return Place(f"<{cls.__module__}>", cls.__qualname__, f"module {cls.__module__}")
    line = cls.__dict__.get("__firstlineno__", frame.f_lineno)
    return _place(frame.f_globals, frame.f_code.co_filename, line, cls.__qualname__)


def _is_statement(frame: FrameType, cls: type[Any]) -> bool:
    """Whether the class statement runs in this frame, rather than what the statement called."""
    return frame.f_globals.get("__name__") == cls.__module__ and frame.f_code.co_name not in (
        "__init_subclass__",
        "__new__",
    )


def _place(namespace: Mapping[str, Any], code_file: str, line: int, qualname: str) -> Place:
    """Where code stands. The module's own file counts, since one file may be compiled under several names."""
    file = namespace.get("__file__")
    if not isinstance(file, str):
        return Place(f"<{namespace.get('__name__')}>", qualname, f"{code_file}:{line}")
    return Place(os.path.realpath(file), qualname, f"{file}:{line}")

"""The two middleware chains: what may see, change or stop a job on its way into Redis, and what wraps `perform`.

A middleware is a generator with one `yield`, where Ruby's has its `yield`. It comes as a class (an instance is made per
call from the options given at registration), as a bare generator function, or as an object with `__call__`:

    client  (job_class, job, queue, pool)    no yield: not pushed; the yield gives the job as the inner chain left it
    server  (job_instance, job, queue)       no yield: not performed; the yield gives what `perform` returned

An exception from further in is raised at the yield. A server middleware that swallows it has made the job done; a
client middleware that swallows one of another middleware has stopped the push. `Shutdown` and `CancelledError` cannot
be swallowed: they are raised again, and the log names the culprit. One that must await is an async generator; it
attaches to async jobs only.

Callers: the client and the poller (`run_client`), the executors (`run_sync`, `run_async`). They test `if entries:`
first, so an empty chain costs nothing. Every generator is resumed and closed by the call, thread and context that
started it, whatever happens, so context variables set before the yield can be reset after it. Nothing here touches
Redis: when the process dies in between, the job is still claimed and runs again, from its original bytes. The list of
middlewares itself is `chain.py`.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from types import GeneratorType
from typing import Any, Final, TypeAlias

from pillion.chain import Chain, Entry, Middleware, refused
from pillion.errors import MiddlewareError, Shutdown
from pillion.types import Payload

__all__ = ["SKIPPED", "Chain", "Entry", "Middleware", "Skipped", "run_async", "run_client", "run_sync"]

_END: Final = object()

_logger = logging.getLogger("pillion")


class Skipped:
    """The type of `SKIPPED`: false, so that `if result:` in a middleware reads as one expects."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "SKIPPED"


SKIPPED: Final = Skipped()
"""What `run_sync` and `run_async` return, and give the outer middlewares, when one did not yield."""


_Opened: TypeAlias = list[tuple[Entry, Any]]
_Judge: TypeAlias = Callable[[Entry, Any, Any], Any]


def run_client(
    entries: Iterable[Entry], job_class: object, payload: Payload, queue: str, pool: object
) -> Payload | None:
    """Send a job through a client chain.

    Args:
        entries: a `Chain`, or its `entries`.
        job_class: the class or function as the caller gave it, or only its name.

    Returns:
        `payload` with the changes made to it in place, or None when a middleware stopped the push: by not yielding, by
        `return False` after its yield, or by swallowing another's exception.

    Raises:
        MiddlewareError: a middleware broke the contract. Whatever else a middleware raised passes through.
    """
    opened: _Opened = []
    kept: Payload | None
    try:
        try:
            left: Payload | None = None
            for entry in entries:
                run = entry.make()(job_class, payload, queue, pool)
                if type(run) is not GeneratorType and not isinstance(run, Generator):
                    raise _not_a_generator(entry, run)
                opened.append((entry, run))
                if next(run, _END) is _END:
                    break
            else:
                left = payload
        except BaseException as error:
            kept = _fail(opened, error, _keep_or_stop)
        else:
            kept = _finish(opened, left, _keep_or_stop)
        return kept
    finally:
        if opened:
            _abandon(opened)


def run_sync(
    entries: Iterable[Entry], instance: object, payload: Payload, queue: str, call: Callable[[], Any]
) -> Any | Skipped:
    """Run `call` inside a server chain; async middlewares are left out.

    Returns:
        What `call` returned; None when a middleware swallowed its exception; `SKIPPED` when one did not yield.

    Raises:
        MiddlewareError: a middleware broke the contract. Everything else that is raised inside passes through.
    """
    opened: _Opened = []
    try:
        try:
            result: Any = SKIPPED
            for entry in entries:
                if entry.is_async:
                    continue
                run = entry.make()(instance, payload, queue)
                if type(run) is not GeneratorType and not _is_sync(entry, run):
                    continue
                opened.append((entry, run))
                if next(run, _END) is _END:
                    break
            else:
                result = call()
        except BaseException as error:
            return _fail(opened, error)
        return _finish(opened, result)
    finally:
        # Only an exception raised asynchronously in this thread (`Shutdown`), between two of our own lines, gets here
        # with generators still open: they must not be left to the garbage collector and its foreign context.
        if opened:
            _abandon(opened)


async def run_async(
    entries: Iterable[Entry], instance: object, payload: Payload, queue: str, call: Callable[[], Awaitable[Any]]
) -> Any | Skipped:
    """Await `call` inside a server chain of sync and async middlewares; otherwise as `run_sync`.

    Everything runs in the calling task, so a sync middleware blocks the loop for as long as it takes.
    """
    opened: _Opened = []
    try:
        result: Any = SKIPPED
        for entry in entries:
            run = entry.make()(instance, payload, queue)
            if type(run) is GeneratorType or _is_sync(entry, run):
                opened.append((entry, run))
                first = next(run, _END)
            else:
                opened.append((entry, run))
                first = await anext(run, _END)
            if first is _END:
                break
        else:
            result = await call()
    except BaseException as error:
        return await _afail(opened, error)
    return await _afinish(opened, result)


def _finish(opened: _Opened, result: Any, judge: _Judge | None = None) -> Any:
    """Resume what is open, innermost first, with the result. The last of `opened` stays listed until it has ended."""
    while opened:
        entry, run = opened[-1]
        try:
            answer = _send(entry, run, result)
            if judge is not None:
                result = judge(entry, answer, result)
        except BaseException as error:
            # This one has ended, and throwing into an ended generator only gives the error back.
            return _fail(opened, error, judge)
        del opened[-1]
    return result


def _fail(opened: _Opened, error: BaseException, judge: _Judge | None = None) -> Any:
    """Throw `error` into what is open, innermost first, until one swallows it; raise what is left of it."""
    rest: BaseException | None = error
    try:
        while opened and rest is not None:
            rest = _throw(*opened[-1], rest)
            del opened[-1]
        if rest is None:
            return _finish(opened, None, judge)
        raise rest
    finally:
        del error, rest  # or the error, its traceback and this frame would keep each other, and the job, alive


async def _afinish(opened: _Opened, result: Any) -> Any:
    while opened:
        entry, run = opened[-1]
        try:
            if isinstance(run, AsyncGenerator):
                await _asend(entry, run, result)
            else:
                _send(entry, run, result)
        except BaseException as error:
            return await _afail(opened, error)
        del opened[-1]
    return result


async def _afail(opened: _Opened, error: BaseException) -> Any:
    rest: BaseException | None = error
    try:
        while opened and rest is not None:
            entry, run = opened[-1]
            is_async = isinstance(run, AsyncGenerator)
            rest = await _athrow(entry, run, rest) if is_async else _throw(entry, run, rest)
            del opened[-1]
        if rest is None:
            return await _afinish(opened, None)
        raise rest
    finally:
        del error, rest


def _send(entry: Entry, run: Generator[Any, Any, Any], result: Any) -> Any:
    """Give the yield its value; what the generator returned."""
    if result is None:  # the common result of a job, and this way of asking builds no StopIteration
        if next(run, _END) is _END:
            return None
    else:
        try:
            run.send(result)
        except StopIteration as end:
            return end.value
    run.close()
    raise _second_yield(entry)


def _throw(entry: Entry, run: Generator[Any, Any, Any], error: BaseException) -> BaseException | None:
    """Raise `error` at the yield. What goes on outwards: `error`, another one, or None when it was swallowed."""
    traceback = error.__traceback__
    try:
        run.throw(error)
        run.close()
        return _second_yield(entry, error)
    except StopIteration as end:
        if end is not error and not _must_pass(entry, error):
            return None
    except BaseException as raised:
        if raised is not error and not _is_wrapped(raised, error):
            run.close()  # still open where `raised` is a `Shutdown` that came before the throw
            return raised
    error.__traceback__ = traceback  # a middleware that let it pass has no place in the job's backtrace
    return error


async def _asend(entry: Entry, run: AsyncGenerator[Any, Any], result: Any) -> None:
    try:
        await run.asend(result)
    except StopAsyncIteration:
        return
    await run.aclose()
    raise _second_yield(entry)


async def _athrow(entry: Entry, run: AsyncGenerator[Any, Any], error: BaseException) -> BaseException | None:
    traceback = error.__traceback__
    try:
        await run.athrow(error)
        await run.aclose()
        return _second_yield(entry, error)
    except StopAsyncIteration as end:
        if end is not error and not _must_pass(entry, error):
            return None
    except BaseException as raised:
        if raised is not error and not _is_wrapped(raised, error):
            return raised
    error.__traceback__ = traceback
    return error


def _keep_or_stop(entry: Entry, answer: Any, left: Payload | None) -> Payload | None:
    """What a client middleware's return value makes of the job."""
    if answer is None or answer is left:
        return left
    if answer is False:
        return None
    raise MiddlewareError(
        f"expected client middleware {entry.name} to return nothing, or False to stop the push, got "
        f"{type(answer).__name__}; change the job in place instead"
    )


def _must_pass(entry: Entry, error: BaseException) -> bool:
    """Whether the swallowed `error` is one that nobody may swallow; then it is logged who did."""
    cancelled = getattr(sys.modules.get("asyncio"), "CancelledError", Shutdown)  # importing it here would cost 60 ms
    if not isinstance(error, (Shutdown, cancelled)):
        return False
    _logger.warning(
        "middleware %s swallowed %s, which is raised again; catch Exception instead of BaseException there",
        entry.name,
        type(error).__name__,
    )
    return True


def _is_wrapped(raised: BaseException, error: BaseException) -> bool:
    """Whether `raised` is only Python's wrapping of a StopIteration that passed through a generator (PEP 479)."""
    stop = isinstance(error, (StopIteration, StopAsyncIteration))
    return stop and isinstance(raised, RuntimeError) and raised.__cause__ is error


def _abandon(opened: _Opened) -> None:
    while opened:
        entry, run = opened.pop()
        try:
            run.close()
        except Exception:
            _logger.exception("middleware %s failed while it was being closed", entry.name)


def _is_sync(entry: Entry, run: object) -> bool:
    if isinstance(run, Generator):
        return True
    if isinstance(run, AsyncGenerator):
        return False
    raise _not_a_generator(entry, run)


def _second_yield(entry: Entry, cause: BaseException | None = None) -> MiddlewareError:
    error = MiddlewareError(f"expected one yield from middleware {entry.name}, got a second; return after the first")
    error.__cause__ = cause
    return error


def _not_a_generator(entry: Entry, run: object) -> MiddlewareError:
    if inspect.iscoroutine(run):
        run.close()
    if isinstance(run, AsyncGenerator):
        return refused(entry.name, "a client middleware is a plain generator, this one is async")
    return refused(entry.name, f"calling it gave {type(run).__name__}, not a generator")

"""Running one job here and now, without a worker: `perform_inline` and the testing modes.

Server middleware and context are those of a worker; retries, the dead set and settlement are not: what the job raises
reaches the caller. Nothing is written to Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pillion.errors import UsageError
from pillion.middleware import SKIPPED, run_async, run_sync
from pillion.payload import decode
from pillion.registry import Definition
from pillion.running import RunningJob, enter, leave
from pillion.setup import Setup
from pillion.types import Payload


def run(setup: Setup, definition: Definition, raw: bytes) -> Any:
    """Perform a job in this thread and return what it returned; None where server middleware skipped it.

    An `async def` job runs on a loop of its own. Raises what the job raises, and UsageError inside a running loop.
    """
    if definition.is_async:
        _refuse_running_loop(definition)
        return asyncio.run(arun(setup, definition, raw))
    payload, running = _begin(setup, definition, raw)
    instance, perform = definition.start(running)
    with_context = _in_context(setup, running, payload)
    return with_context(lambda: _sync(setup, instance, payload, _bound(perform, payload)))


async def arun(setup: Setup, definition: Definition, raw: bytes) -> Any:
    """The same for asyncio callers. A plain `def` job runs in a thread, so that it cannot block the loop."""
    if not definition.is_async:
        return await asyncio.to_thread(run, setup, definition, raw)
    payload, running = _begin(setup, definition, raw)
    instance, perform = definition.start(running)
    token, carried = enter(running), setup.carrier.restore(payload)
    try:
        call: Callable[[], Awaitable[Any]] = _bound(perform, payload)
        if not setup.server_middleware:
            return await call()
        result = await run_async(setup.server_middleware, instance, payload, payload["queue"], call)
        return None if result is SKIPPED else result
    finally:
        setup.carrier.reset(carried)
        leave(token)


def _begin(setup: Setup, definition: Definition, raw: bytes) -> tuple[Payload, RunningJob]:
    payload = decode(raw)
    return payload, RunningJob.inline(payload, definition, setup)


def _bound(perform: Callable[..., Any], payload: Payload) -> Callable[[], Any]:
    return lambda: perform(*payload["args"], **(payload.get("kwargs") or {}))


def _sync(setup: Setup, instance: object, payload: Payload, call: Callable[[], Any]) -> Any:
    if not setup.server_middleware:
        return call()
    result = run_sync(setup.server_middleware, instance, payload, payload["queue"], call)
    return None if result is SKIPPED else result


def _in_context(setup: Setup, running: RunningJob, payload: Payload) -> Callable[[Callable[[], Any]], Any]:
    def within(call: Callable[[], Any]) -> Any:
        token, carried = enter(running), setup.carrier.restore(payload)
        try:
            return call()
        finally:
            setup.carrier.reset(carried)
            leave(token)

    return within


def _refuse_running_loop(definition: Definition) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(
        f"{definition.name} is `async def` and a loop is running here; await .aperform_inline(...) instead"
    )

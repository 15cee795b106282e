"""The one event loop of a worker process, in a thread of its own, started when the first async job is dispatched.

It runs jobs, and what the application's handlers await. Redis is spoken to by the fetchers' threads, so a job that
blocks the loop delays its neighbours but never a lease.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any

from pillion.worker.title import name_thread


class LoopThread:
    """Starts on first use. `call` may be used from every thread, `task` only on the loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._begun: set[asyncio.Task[None]] = set()

    def call(self, fn: Callable[[], object]) -> None:
        """Run `fn` on the loop soon."""
        loop = self._loop or self._start()
        try:
            loop.call_soon_threadsafe(fn)
        except RuntimeError:  # closed meanwhile: the process is leaving, and the claim is still in its tray
            return

    def task(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as a task, in an empty context: none of the variables of the job that ended before it.

        On the loop only. The caller keeps the task alive.
        """
        return asyncio.get_running_loop().create_task(job, context=Context())

    def run(self, awaitable: Awaitable[object], timeout: float | None = None) -> None:
        """Await something on the loop and wait until it has ended. On the loop itself it is only begun.

        Raises what it raises, and TimeoutError where it did not end in time; then it is cancelled.
        """
        if threading.get_ident() == self.ident:
            task = asyncio.get_running_loop().create_task(_awaited(awaitable))
            self._begun.add(task)
            task.add_done_callback(self._begun.discard)
            return
        future = asyncio.run_coroutine_threadsafe(_awaited(awaitable), self._loop or self._start())
        try:
            future.result(timeout)
        finally:
            future.cancel()

    def stop(self, timeout: float) -> bool:
        """End the loop. False if a task or callback kept it from ending within `timeout` seconds."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive():
            return True
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout)
        return not thread.is_alive()

    @property
    def ident(self) -> int | None:
        """The loop thread's ident, None before the first async job."""
        return self._thread.ident if self._thread else None

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=(loop,), name="pillion.loop", daemon=True)
                self._thread.start()
                self._loop = loop
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        name_thread()
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=0.5))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


async def _awaited(awaitable: Awaitable[object]) -> None:
    await awaitable

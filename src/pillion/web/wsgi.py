"""The dashboard for WSGI servers: each process gets an event loop in a thread of its own, through `a2wsgi`.

Made when the first request comes, and again after a fork: a thread does not survive one. A stream would hold a worker
of the server for as long as its tab is open, so under WSGI pages poll their fragments instead."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from starlette.types import ASGIApp

from pillion.errors import ConfigError
from pillion.web.site import Site

PATIENCE = 5.0


class Wsgi:
    """The WSGI application of an ASGI one."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site
        self._lock = threading.Lock()
        self._here: Host | None = None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = self._here
        if host is None or host.pid != os.getpid():
            with self._lock:
                host = self._here
                if host is None or host.pid != os.getpid():
                    host = self._here = Host(self._app)
        answer: Iterable[bytes] = host.middleware(environ, start_response)
        return answer

    def close(self) -> None:
        """Close the loop's connections, and end its thread."""
        host, self._here = self._here, None
        if host is not None and host.pid == os.getpid():
            host.close(self._site)


class Host:
    """An event loop in a thread, and a2wsgi's way into it; of the process `pid`."""

    def __init__(self, app: ASGIApp) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pillion-web", daemon=True)
        self.middleware = _middleware()(app, loop=self._loop)
        self._thread.start()

    def close(self, site: Site) -> None:
        """End it."""
        asyncio.run_coroutine_threadsafe(_let_go(site), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


async def _let_go(site: Site) -> None:
    """Close what this loop has opened."""
    for client in site.clients.values():
        await client.aclose()


def _middleware() -> Any:
    try:
        from a2wsgi import ASGIMiddleware  # noqa: PLC0415 - only WSGI hosts need it
    except ImportError:
        raise ConfigError(
            "expected the package a2wsgi for a WSGI host, found none; pip install 'pillion[web]'"
        ) from None
    return ASGIMiddleware

"""A small WSGI application that pushes a job per request, for `test_web_servers.py`. Redis comes from REDIS_URL.

It pushes once where it is imported, so that under `gunicorn --preload` the master has a connection before it forks.

    /push   push one job
    /who    the process, the server's name for the connection that a push uses, and for the master's
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import pillion
from pillion.errors import StoreError
from pillion.routing import default_client
from pillion.store.op import command


@pillion.job(name="Web::Wsgi")
def hello(path: str) -> None: ...


def connection() -> int:
    return int(default_client().setup.store.run(command("CLIENT", "ID")))


hello.perform_async("at import")
MASTER = {"pid": os.getpid(), "connection": connection()}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    try:
        status, answer = "200 OK", answer_to(environ["PATH_INFO"])
    except StoreError as error:
        status, answer = "503 Service Unavailable", {"error": type(error).__name__}
    body = json.dumps({"pid": os.getpid(), **answer}).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def answer_to(path: str) -> dict[str, Any]:
    if path == "/push":
        return {"jid": hello.perform_async(path)}
    return {"connection": connection(), "master": MASTER}

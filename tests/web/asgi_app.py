"""A small ASGI application that pushes a job per request, for `test_web_servers.py`. Redis comes from REDIS_URL.

/push      push one job from the event loop
/threads   push one from a worker thread, as a framework runs plain functions
/who       the process and the server's name for the connection that a push would use
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pillion
from pillion.errors import StoreError
from pillion.routing import default_client
from pillion.store.op import command

Message = MutableMapping[str, Any]


@pillion.job(name="Web::Asgi")
def hello(path: str) -> None: ...


async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[..., Awaitable[None]]) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    try:
        status, answer = 200, await answer_to(scope["path"])
    except StoreError as error:
        status, answer = 503, {"error": type(error).__name__}
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps({"pid": os.getpid(), **answer}).encode()})


async def answer_to(path: str) -> dict[str, Any]:
    if path == "/push":
        return {"jid": await hello.aperform_async(path)}
    if path == "/threads":
        return {"jid": await asyncio.to_thread(hello.perform_async, path)}
    return {"connection": await default_client().setup.astore.run(command("CLIENT", "ID"))}


async def lifespan(receive: Callable[[], Awaitable[Message]], send: Callable[..., Awaitable[None]]) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return

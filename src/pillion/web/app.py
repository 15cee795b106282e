"""`dashboard(...)`: the Starlette application and the object that a host application mounts.

A request passes the gate (`security.py`), finds its route (`routes.py`) and gets a `View`; pages come from `web/pages`,
buttons go to `actions.py`. Routes of extensions are added before the first request. A crash of the process leaves
nothing behind: whatever an action began stands in Redis and goes on (`pillion.api.operations`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from pillion.client import Client
from pillion.errors import UsageError
from pillion.routing import default_client
from pillion.shards import DEFAULT
from pillion.web.access import Auth, Role, nobody
from pillion.web.actions import ACTIONS, extended
from pillion.web.extension import Extension
from pillion.web.live import Live
from pillion.web.redaction import Redaction
from pillion.web.routes import routes
from pillion.web.security import Gate
from pillion.web.site import Options, Site
from pillion.web.wsgi import Wsgi


def dashboard(
    client: Client | Sequence[Client] | Mapping[str, Client] | None = None,
    *,
    auth: Auth | None = None,
    hosts: Iterable[str] = (),
    redact: Iterable[str] = (),
    see_args: Role | str = Role.OPERATOR,
    secret: str | bytes | None = None,
    **options: Any,
) -> Dashboard:
    """An ASGI application that shows and operates everything; mount it anywhere.

    Args:
        client: what to show: a client, several by name, or None for the default one with all its shards.
        auth: given the request, returns a `Role`, its name, a `User`, or None for nobody; may be async. Without it
            nobody is let in. `ANYONE_I_KNOW` lets everybody do everything.
        hosts: names under which the page is asked for, beside localhost: `"jobs.example.com"`, or with the scheme where
            a proxy hides it, `"https://jobs.example.com"`; `"*"` where the host application checks them already.
        redact: more patterns for names whose values are never shown, such as `"*_pin"`.
        see_args: the lowest role that sees arguments.
        secret: signs the hidden field of forms; give the same to all processes that serve one dashboard.
        options: the other attributes of `Options`: `app_url`, `title`, `challenge`, ...

    Raises ConfigError for a role that is none.
    """
    found = Options(auth=auth or nobody, hosts=tuple(hosts), **options)
    key = secret.encode() if isinstance(secret, str) else secret
    site = Site(_finder(client), found, Redaction(redact, Role.named(see_args)), key)
    site.actions.update(ACTIONS)
    return Dashboard(site)


class Dashboard:
    """The ASGI application. `wsgi()` is the same for WSGI servers, `register` adds an extension."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.live = Live(site)
        self._wsgi: list[Wsgi] = []
        self._gate: Gate | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._gate is None:
            self._gate = Gate(self._application(), self.site)
        await self._gate(scope, receive, send)

    def wsgi(self) -> Wsgi:
        """The same for WSGI hosts (Flask, Django under gunicorn). Its pages poll."""
        self._wsgi.append(Wsgi(self, self.site))
        return self._wsgi[-1]

    def close(self) -> None:
        """End what this process does in the background; operations that are open go on elsewhere."""
        self.site.operators.stop()
        for each in self._wsgi:
            each.close()

    def register(self, extension: Extension) -> None:
        """Add an extension. Raises UsageError once the first request was answered, and for a name that is taken."""
        if self._gate is not None:
            raise UsageError(f"the dashboard answers requests already; register {extension.name!r} before")
        if extension.name in [each.name for each in self.site.extensions]:
            raise UsageError(f"an extension called {extension.name!r} is registered already; choose another name")
        self.site.add(extension)
        for verb, action in extension.actions.items():
            self.site.actions[f"{extension.name}.{verb}"] = extended(action.fn, action.role)

    def _application(self) -> Starlette:
        return Starlette(routes=[*routes(self.site, self.live)], lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        """Where the server runs it: a mounted application is seldom told of the end."""
        yield
        await asyncio.to_thread(self.close)


def _finder(
    client: Client | Sequence[Client] | Mapping[str, Client] | None,
) -> Callable[[], Mapping[str, Client]]:
    """How to find the clients when the first request comes."""
    if isinstance(client, Mapping):
        return lambda: client
    if isinstance(client, Client):
        return lambda: by_shard(client)
    if client is not None:
        several = list(client)
        return lambda: {f"{DEFAULT}{number}" if number > 1 else DEFAULT: each for number, each in enumerate(several, 1)}
    return lambda: by_shard(default_client())


def by_shard(client: Client) -> dict[str, Client]:
    """A client for each shard of its setup."""
    shards = client.setup.shards
    if len(shards) == 1:
        return {shards[0].name: client}
    return {shard.name: Client(setup=client.setup, shard=shard.name) for shard in shards}

"""The dashboard: `dashboard(auth=...)` is an ASGI application to mount, `pillion web` serves it alone.

    from pillion.web import dashboard

    app.mount("/jobs", dashboard(auth=role_of))          # FastAPI, Starlette
    wsgi = dashboard(auth=role_of).wsgi()                # Flask, Django: live by polling

Needs `pip install 'pillion[web]'`. It looks and acts through `pillion.api` alone and holds no state that matters: a
process that serves it may be killed at any time."""

from __future__ import annotations

from pillion.web.access import ANYONE_I_KNOW, Auth, Role, User
from pillion.web.app import Dashboard, dashboard
from pillion.web.context import Page, View
from pillion.web.extension import Action, Extension, Route, Tab

__all__ = [
    "ANYONE_I_KNOW",
    "Action",
    "Auth",
    "Dashboard",
    "Extension",
    "Page",
    "Role",
    "Route",
    "Tab",
    "User",
    "View",
    "dashboard",
]

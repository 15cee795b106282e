"""From a `Page` to a response: a whole page, or one of its fragments with an ETag, so that an unchanged one is a 304.

Called by `app.py` for pages and by `trouble.py` for what went wrong. Templates escape everything; what they draw is
made of what `View` and `finalize` let through."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec
from jinja2 import TemplateNotFound
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from pillion.web.context import BadInput, NotThere, Page, View
from pillion.web.pages.base import around

FLASH = "pillion_flash"
LONGEST_FLASH = 2_000
FRAME = "frame.html"
NO_STORE = {"cache-control": "no-store"}


def draw(view: View, page: Page) -> Response:
    """The response for a page, or for the fragment that was asked for. Raises NotThere for one that it has not."""
    data = {**around(view), "static": view.static, "nonce": view.nonce, **page.data}
    if view.fragment is None:
        take_flash(view.request)
        text = view.site.environment.get_template(page.template).render(data)
        response = HTMLResponse(text, page.status, {**NO_STORE, "content-language": view.words.lang})
        if FLASH in view.request.cookies:
            response.delete_cookie(FLASH, path=view.root_path or "/")
        return response
    if view.fragment not in page.fragments:
        raise NotThere(f"expected one of {', '.join(page.fragments) or 'no'} fragments, got {view.fragment!r:.40}")
    return conditional(view.request, _block(view, page, data).encode(), "text/html; charset=utf-8")


def _block(view: View, page: Page, data: Mapping[str, Any]) -> str:
    """One block of a template, or of the frame around all pages."""
    name = str(view.fragment)
    for source in (page.template, FRAME):
        template = view.site.environment.get_template(source)
        if name in template.blocks:
            return "".join(template.blocks[name](template.new_context({"title": "", **data})))
    raise TemplateNotFound(f"{page.template}: no block {name}")


def conditional(request: Request, body: bytes, media_type: str) -> Response:
    """The body with its ETag, or 304 where the asker has it already."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    headers = {**NO_STORE, "etag": etag}
    if etag in [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, media_type)


def escaped_json(found: Any) -> bytes:
    """JSON that is harmless wherever it lands: `<`, `>` and `&` are escapes."""
    raw = msgspec.json.encode(found, enc_hook=str)
    return raw.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")


def json_response(found: Any, status: int = 200, **headers: str) -> Response:
    """A JSON response that nobody keeps."""
    return Response(escaped_json(found), status, {**NO_STORE, **headers}, "application/json")


# --- what an action says on the page that comes after it --------------------------------------------------------------


def back(view: View, to: str, level: str = "ok", key: str = "", **values: Any) -> Response:
    """303 to a path of this dashboard, with a sentence (a text key and its values) for the page there."""
    response = RedirectResponse(own_path(view, to), 303, NO_STORE)
    if key:
        said = json.dumps({"level": level, "key": key, "values": {name: _short(each) for name, each in values.items()}})
        text = base64.urlsafe_b64encode(said.encode()[:LONGEST_FLASH]).decode()
        secure = view.request.url.scheme == "https"
        response.set_cookie(
            FLASH, text, max_age=60, path=view.root_path or "/", httponly=True, samesite="lax", secure=secure
        )
    return response


def own_path(view: View, to: str) -> str:
    """`to` if it is a path within this dashboard, else the dashboard itself: nobody is sent elsewhere."""
    root = f"{view.root_path}/"
    fine = to.startswith(root) and not to.startswith("//") and to.isascii() and to.isprintable() and "\\" not in to
    return to if fine and "/../" not in f"{to.partition('?')[0]}/" else root


def take_flash(request: Request) -> None:
    """Read the sentence that the last action left, if any."""
    raw = request.cookies.get(FLASH, "")
    if not raw or len(raw) > 2 * LONGEST_FLASH:
        return
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(raw), type=dict[str, Any])
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return
    level, key, values = found.get("level"), found.get("key"), found.get("values")
    if level in ("ok", "notice", "alarm") and isinstance(key, str) and isinstance(values, dict):
        request.scope["pillion.flash"] = (level, key, {str(name): _short(each) for name, each in values.items()})


def _short(value: Any) -> Any:
    return value if isinstance(value, int | float | bool) else str(value)[:200]


__all__ = ["BadInput", "NotThere", "back", "conditional", "draw", "escaped_json", "json_response", "own_path"]

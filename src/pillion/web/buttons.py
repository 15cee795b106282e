"""POST `/do/VERB`: a button of a page, its confirmation, and the way back, for browsers with and without JavaScript."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from pillion.api.operations import Preview
from pillion.errors import PillionError, StoreError
from pillion.web.actions import act, must_type
from pillion.web.context import BadInput, Page, View
from pillion.web.drawing import back, draw
from pillion.web.form import Form

NOT_SENT_AGAIN = ("token", "back", "shown", "confirm")
LASTS = 365 * 86_400


async def press(view: View, verb: str) -> Response:
    """Do it and go back (303), or ask for confirmation (200). Raises as `actions.act`, except what a sentence tells."""
    form = form_of(view.request)
    home = form.get("back", most=4_000) or view.url()
    try:
        outcome = await act(view, verb, form)
    except StoreError:
        raise
    except (BadInput, PillionError) as error:
        return back(view, home, "alarm", "failed.error", reason=str(error))
    if outcome.preview is not None:
        return draw(view, confirmation(verb, outcome.preview, form, home))
    response = back(view, outcome.to or home, outcome.level, outcome.key, **outcome.values)
    for name, value in outcome.cookies.items():
        secure = view.request.url.scheme == "https"
        path = view.root_path or "/"
        response.set_cookie(
            f"pillion_{name}", value, max_age=LASTS, path=path, samesite="lax", httponly=True, secure=secure
        )
    return response


def form_of(request: Request) -> Form:
    """The form of a request that has passed the gate, which has read its body."""
    return Form.read(request.scope.get("pillion.body", b""), request.headers.get("content-type", ""))


def confirmation(verb: str, preview: Preview, form: Form, home: str) -> Page:
    """What would be done, and a form that sends the same once more."""
    data: dict[str, Any] = {
        "verb": verb,
        "preview": preview,
        "must_type": must_type(preview),
        "fields": [(name, value) for name, value in form.fields if name not in NOT_SENT_AGAIN],
        "back": home,
        "shown": form.get("shown"),
    }
    return Page("confirm.html", data)

"""What a page or an action that failed answers with: pages that explain, problems in JSON for the API.

Redis gone is a 503 that says what was tried and why it failed, and heals itself: it asks again by itself until Redis
answers. A bug is a 500 without details; its traceback goes to the log `pillion.web`."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import Response

from pillion.errors import PillionError, Refused, StoreError, UsageError
from pillion.mask import mask_secrets
from pillion.web.context import BadInput, Forbidden, NotThere, Page, View
from pillion.web.drawing import draw, json_response
from pillion.web.security import Refusal

LOG = logging.getLogger("pillion.web")
TRY_AGAIN = "2"
LOAD_AGAIN = "5"


def status_of(error: Exception) -> tuple[int, str]:
    """The status and the sentence for an error."""
    match error:
        case BadInput() | UsageError():
            return 400, mask_secrets(str(error))
        case Forbidden():
            return 403, str(error)
        case NotThere():
            return 404, str(error)
        case Refusal():
            return error.status, error.sentence
        case StoreError():
            return 503, mask_secrets(str(error))
        case TimeoutError():
            return 503, "Redis did not answer in time"
        case PillionError():
            return 409, mask_secrets(str(error))
        case _:
            LOG.error("the dashboard failed", exc_info=error)
            return 500, "something in Pillion failed; the log of this process says what"


def problem(error: Exception) -> Response:
    """The error as JSON: `{"error": {"status": 404, "message": "..."}}`."""
    status, sentence = status_of(error)
    headers = {"retry-after": TRY_AGAIN} if status == 503 else {}
    return json_response({"error": {"status": status, "message": sentence}}, status, **headers)


def page_of(view: View, error: Exception) -> Response:
    """The error as a page; as a bare sentence where only a fragment was asked for."""
    status, sentence = status_of(error)
    if view.fragment is not None:
        return _plain(view.request, status, sentence)
    gone = status == 503
    data = {"status": status, "reason": sentence, "refused": isinstance(error, Refused), "title": str(status)}
    response = draw(view, Page("gone.html" if gone else "trouble.html", data, (), status))
    if gone:
        response.headers["retry-after"] = TRY_AGAIN
    if gone and view.request.method == "GET":
        response.headers["refresh"] = LOAD_AGAIN  # with scripts the page comes back as soon as Redis does
    return response


def _plain(request: Request, status: int, sentence: str) -> Response:
    del request
    headers = {"cache-control": "no-store", **({"retry-after": TRY_AGAIN} if status == 503 else {})}
    return Response(f"{sentence}\n", status, headers, "text/plain")

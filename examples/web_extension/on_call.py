"""An extension of the dashboard: who is on call, with a page, a button, a row on every job page and texts of its own.

`extension(duty)` is what `dashboard.register` takes. It shows each thing an extension can bring: a tab and its page, an
action with a role, a template in our frame, a style sheet, texts in two languages, rows, and a middleware."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pillion.api import JobRecord, Stats
from pillion.web import Action, Extension, Page, Role, Route, Tab, View
from pillion.web.form import Form

HERE = Path(__file__).parent
RUNBOOKS = "https://runbooks.example/"
WORDS = {
    "en": {
        "on-call.title": "On call",
        "on-call.now": "{name} is on call. {count} jobs are dead.",
        "on-call.take": "Take over",
    },
    "de": {
        "on-call.title": "Bereitschaft",
        "on-call.now": "{name} hat Dienst. {count} Jobs sind tot.",
        "on-call.take": "Übernehmen",
    },
}


@dataclass
class Duty:
    """Who is on call; a real one would ask your rota."""

    name: str = "nobody"

    async def page(self, view: View) -> Page:
        """The page: what it shows is read when it is asked for, through the dashboard's own client."""
        figures = await Stats(view.client).aread()
        return view.page("on-call/duty.html", fragments=("duty",), duty=self, dead=figures.dead_size)

    async def take(self, view: View, form: Form) -> str | None:
        """The button. That an operator pressed it, on one of our pages, has been checked by now."""
        self.name = form.get("name", view.user.name, most=60)
        return view.url("ext", "on-call", "")

    def rows(self, view: View, job: JobRecord) -> list[tuple[str, str]]:
        """What it adds to the page of a job."""
        return [("Runbook", f"{RUNBOOKS}{job.display_class}"), (str(view.t("on-call.title")), self.name)]


class Stamp:
    """A middleware around its own pages: says who answered. It cannot loosen a header of the dashboard's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-on-call", b"1")]
            await send(message)

        await self._app(scope, receive, stamped)


def extension(duty: Duty) -> Extension:
    """What `dashboard.register` takes."""
    return Extension(
        "on-call",
        tabs=[Tab("on-call.title")],
        routes=[Route("/", duty.page)],
        actions={"take": Action(duty.take, Role.OPERATOR)},
        templates=HERE / "templates",
        static=HERE / "static",
        words=WORDS,
        job_rows=duty.rows,
        middleware=[Stamp],
    )

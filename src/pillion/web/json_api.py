"""The JSON API under `/api/v1`: everything that pages show and buttons do. One table; `openapi.py` describes it.

Reading is `GET`, acting is `POST /do/VERB` with a JSON object or a form of the same fields as the button's. It passes
the same gate, roles and redaction as the pages. Machines use a bearer token; without one, a POST must come from our own
page. What many shards show together is merged where that is a sum or a list, else `?shard=` picks one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

from msgspec.structs import replace
from starlette.responses import Response

from pillion.api import Deploy, Figures, History, Metrics, Process, ProcessSet, QueueSummary, Stats, WorkSet
from pillion.api.audit import Audit, Note
from pillion.api.causes import Causes, Survey
from pillion.api.operations import VERBS, Operations
from pillion.api.overview import Overview, ServerFacts
from pillion.api.runs import Run, RunCursor, Runs
from pillion.api.search import Search
from pillion.api.stacks import Answer as StackAnswer
from pillion.api.stacks import Stacks
from pillion.web import health, openapi, shapes
from pillion.web.actions import act, find_job, must_type, one_client, options_of, target_of
from pillion.web.buttons import form_of
from pillion.web.context import BadInput, Forbidden, NotThere, View
from pillion.web.drawing import conditional, escaped_json, json_response
from pillion.web.form import Form
from pillion.web.openapi import Param
from pillion.web.pages.overview import look

Read: TypeAlias = Callable[[View], Awaitable[Any]]
MOST = 100
PAGE = (Param("after", "text", "where to go on: the `next` of the page before"), Param("most", "number", "1 to 100"))


class Resource(NamedTuple):
    """An address that is read: path, function, the type of its answer, what it is, its query."""

    path: str
    read: Read
    type: Any
    summary: str
    params: tuple[Param, ...] = ()


def routes() -> Iterator[tuple[str, str, Callable[[View], Awaitable[Response]]]]:
    """Path, method and function of each address."""
    for resource in RESOURCES:
        yield resource.path, "GET", _reading(resource)
    yield "/openapi.json", "GET", _document
    yield "/do/{verb}", "POST", _acting


def _reading(resource: Resource) -> Callable[[View], Awaitable[Response]]:
    async def answer(view: View) -> Response:
        body = escaped_json(await resource.read(view))
        return conditional(view.request, body, "application/json")

    return answer


async def _acting(view: View) -> Response:
    outcome = await act(view, view.segment("verb"), form_of(view.request))
    preview = outcome.preview
    done = shapes.Done(
        done=preview is None,
        key=outcome.key,
        values=outcome.values,
        operation=None if outcome.operation is None else shapes.operation_of(outcome.operation),
        preview=None if preview is None else shapes.preview_of(view, preview, must_type(preview)),
        answer=outcome.answer,
    )
    return json_response(done, 200 if preview is None else 409)


async def _document(view: View) -> Response:
    found = [(each.path, each.type, each.summary, each.params) for each in RESOURCES]
    verbs = {verb: action.role.name.lower() for verb, action in view.site.actions.items()}
    return json_response(openapi.document(found, verbs, view.root_path))


# --- reading ----------------------------------------------------------------------------------------------------------


async def stats(view: View) -> list[Figures]:
    return [await Stats(client).aread() for client in view.clients]


async def history(view: View) -> dict[str, dict[str, int]]:
    counted = History(view.number("days", 30, 1, 180), client=view.client)
    return {"processed": await counted.aprocessed(), "failed": await counted.afailed()}


async def verdict(view: View) -> shapes.Judgement:
    _, found = await look(view)
    label, command = (found.action.label, found.action.command) if found.action else ("", "")
    return shapes.Judgement(found.level, found.sentence, found.since, label, command, found.link, found.rule)


async def server(view: View) -> ServerFacts:
    return await Overview(view.client).aserver()


async def queues(view: View) -> list[QueueSummary]:
    return [each for client in view.clients for each in await Stats(client).aqueue_summaries()]


async def jobs(view: View) -> shapes.Jobs:
    search = Search(view.text("q", most=2_000), one_client(view))
    found = await search.apage(view.text("after") or None, view.number("most", 50, 1, MOST))
    listed = [shapes.hit_of(view, hit) for hit in found.hits]
    return shapes.Jobs(listed, found.searched, found.total, found.next, found.sentence())


async def job(view: View) -> shapes.JobDetail:
    jid = view.segment("jid")
    hit = await find_job(view, jid)
    if hit is None:
        raise NotThere(f"there is no job {jid!r:.60}: it has ended, or never was")
    found = shapes.hit_of(view, hit)
    runs = await Runs(view.client).aof_job(jid, found.created_at)
    return shapes.JobDetail(found, [str(view.message(line)) for line in hit.job.error_backtrace[:500]], list(runs))


async def running(view: View) -> list[shapes.Running]:
    works = [work for client in view.clients for work in await WorkSet(client).aall()]
    most = view.number("most", MOST, 1, 1_000)
    return [shapes.running_of(view, work) for work in works[:most]]


async def processes(view: View) -> list[shapes.WorkerProcess]:
    found = list[shapes.WorkerProcess]()
    for client in view.clients:
        rows: list[Process] = await ProcessSet(clean=view.may("quiet"), client=client).aall()
        leader = await ProcessSet(clean=False, client=client).aleader()
        found += [shapes.process_of(each, leader) for each in rows]
    return found


async def causes(view: View) -> Survey:
    days = view.number("days", 0, 0, 180)
    survey = await Causes(view.client).asurvey(days or None, view.number("most", 50, 1, MOST))
    shown = [
        replace(each, message=str(view.message(each.message)), sample_message=str(view.message(each.sample_message)))
        for each in survey.causes
    ]
    return replace(survey, causes=shown)


async def runs(view: View) -> dict[str, Any]:
    after, state = view.text("after"), view.text("state") or None
    if state not in (None, "done", "failed"):
        raise BadInput(f"expected done or failed for `state`, got {state!r:.40}")
    page = await Runs(view.client).apage(
        RunCursor.parse(after) if after else None,
        view.number("most", 50, 1, MOST),
        klass=view.text("class") or None,
        state=state,  # type: ignore[arg-type]
        jid=view.text("jid") or None,
    )
    return {"runs": page.entries, "next": None if page.next is None else str(page.next)}


async def figures(view: View) -> dict[str, Any]:
    minutes, hours = view.number("minutes", 60, 1, 480), view.number("hours", 0, 0, 72)
    asked: dict[str, Any] = {"hours": hours} if hours else {"minutes": minutes}
    name, metrics = view.text("class"), Metrics(view.client)
    found = await metrics.afor_job(name, **asked) if name else await metrics.atop_jobs(**asked)
    results = {
        klass: {"totals": each.totals, "series": each.series, "histogram": each.hist, "average_ms": each.total_avg()}
        for klass, each in found.job_results.items()
    }
    times = {"granularity": found.granularity, "starts_at": found.starts_at, "ends_at": found.ends_at}
    return {**times, "classes": results, "deploys": found.marks}


async def deploys(view: View) -> dict[str, str]:
    return await Deploy(view.client).afetch()


async def operations(view: View) -> list[shapes.OperationState]:
    found = await Operations(view.client).arecent(view.number("most", 50, 1, MOST))
    return [shapes.operation_of(each) for each in found]


async def operation(view: View) -> shapes.OperationState:
    found = await Operations(view.client).aread(view.segment("id"))
    if found is None:
        raise NotThere("there is no such operation, or it is older than seven days")
    return shapes.operation_of(found)


async def preview(view: View) -> shapes.Previewed:
    verb: Any = view.segment("verb")
    if verb not in VERBS:
        raise NotThere(f"there is nothing to preview for {verb!r:.40}; known are {', '.join(VERBS)}")
    form = Form(list(view.request.query_params.multi_items()))
    found = await Operations(one_client(view)).apreview(verb, target_of(form), **options_of(view, form))
    return shapes.preview_of(view, found, must_type(found))


async def audit(view: View) -> dict[str, Any]:
    page = await Audit(view.client).apage(view.text("after", most=100) or None, view.number("most", 50, 1, MOST))
    notes: list[Note] = page.entries
    return {"notes": notes, "next": page.next}


async def stack(view: View) -> StackAnswer:
    if not view.may("stack"):
        raise Forbidden("stacks are for operators")
    found = await Stacks(view.client).aread(view.segment("number"))
    if found is None:
        raise NotThere("there is no answer yet, or it is older than a minute")
    return found


async def scale(view: View) -> health.Scale:
    return await health.scale(view.clients, view.request.query_params.getlist("queue")[:100])


Q = Param("q", "text", "a search: `state:dead class:Send* error:timeout`")
RESOURCES: tuple[Resource, ...] = (
    Resource("/stats", stats, list[Figures], "counters and sizes of each shard"),
    Resource(
        "/stats/history", history, dict[str, dict[str, int]], "runs by day", (Param("days", "number", "1 to 180"),)
    ),
    Resource("/verdict", verdict, shapes.Judgement, "what is wrong, in one sentence, and what to do"),
    Resource("/server", server, ServerFacts, "the Redis or Valkey behind this"),
    Resource("/queues", queues, list[QueueSummary], "every queue: size, wait, pause"),
    Resource("/jobs", jobs, shapes.Jobs, "search all states", (Q, *PAGE)),
    Resource("/jobs/{jid}", job, shapes.JobDetail, "one job, its backtrace and attempts"),
    Resource("/running", running, list[shapes.Running], "what runs, longest first", PAGE[1:]),
    Resource("/processes", processes, list[shapes.WorkerProcess], "worker processes"),
    Resource("/causes", causes, Survey, "failures by cause", (Param("days", "number", "0 (all) to 180"), *PAGE[1:])),
    Resource(
        "/runs",
        runs,
        dict[str, Run | Any],
        "the run log, newest first",
        (Param("class", "text", ""), Param("state", "text", "done or failed"), Param("jid", "text", ""), *PAGE),
    ),
    Resource(
        "/metrics",
        figures,
        dict[str, Any],
        "runs and times by class, or of one class with histograms",
        (Param("class", "text", ""), Param("minutes", "number", "1 to 480"), Param("hours", "number", "0 to 72")),
    ),
    Resource("/deploys", deploys, dict[str, str], "today's deploys: label by minute"),
    Resource("/operations", operations, list[shapes.OperationState], "recent operations", PAGE[1:]),
    Resource("/operations/{id}", operation, shapes.OperationState, "how far an operation is"),
    Resource(
        "/preview/{verb}", preview, shapes.Previewed, "what an action on jobs would do", (Q, Param("id", "text", ""))
    ),
    Resource("/audit", audit, dict[str, Any], "who did what", PAGE),
    Resource("/stack/{number}", stack, StackAnswer, "the answer to a question for stacks"),
    Resource(
        "/scale",
        scale,
        health.Scale,
        "the need for workers, for autoscalers",
        (Param("queue", "text", "repeat for more"),),
    ),
)

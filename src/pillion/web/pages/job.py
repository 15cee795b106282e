"""One job: where it is, what happened to it, what it was given, what went wrong, and what can be done now.

Its address carries where it stood (`?at=`), so that it is found at once; where it has moved since, it is searched. One
that is gone is told of from the run log, never by a bare 404."""

from __future__ import annotations

from typing import Any

import msgspec

from pillion import registry
from pillion.api import DeadSet, JobRecord, RetrySet, ScheduledSet
from pillion.api.runs import Run, Runs
from pillion.api.search import Hit, Search
from pillion.api.selection import Ref
from pillion.api.work import Work, WorkSet
from pillion.client import Client
from pillion.errors import UsageError
from pillion.web.context import Page, View
from pillion.web.format import NONE
from pillion.web.pages.fields import Field, fields_of
from pillion.web.pages.jobs import VERBS
from pillion.web.pages.listing import Row, row_of
from pillion.web.pages.snippets import snippets

SETS = {"scheduled": ScheduledSet, "retry": RetrySet, "dead": DeadSet}
NAMELESS = "-"  # in the address of a job that cannot be read
KNOWN = frozenset(
    "class wrapped args kwargs queue jid bid created_at enqueued_at failed_at retried_at at retry retry_count "
    "error_class error_message error_backtrace backtrace tags".split()
)


class Step(msgspec.Struct, frozen=True):
    """A line of the timeline: when, its text's key, what goes into it, and `ok`, `bad`, `now` or ""."""

    at: float | None
    key: str
    values: dict[str, Any] = {}
    kind: str = ""
    detail: str = ""


async def job(view: View) -> Page:
    """`/job/JID`"""
    jid, at = view.segment("jid"), view.text("at", most=500)
    found = await _find(view, jid, at)
    runs = await _runs(view, jid, found[1].job if found else None)
    if found is None:
        return view.page("job_gone.html", status=404, title=view.t("job.gone"), jid=jid, runs=runs)
    client, row, work = found
    usual = await Runs(client).apercentiles(row.job.display_class) if work else None
    args = view.args(row.job)
    definition = registry.default.get(row.job.klass or "")
    return view.page(
        "job.html",
        ("facts", "line"),
        title=row.job.display_class or view.t("job.unreadable"),
        row=row,
        job=row.job,
        work=work,
        usual=usual,
        verbs=[verb for verb in VERBS.get(row.state, ()) if view.may(verb)],
        steps=timeline(view, row, runs),
        runs=runs,
        args=args,
        extras=extras_of(view, row.job),
        fields=form_of(row.job, args, definition),
        definition=definition,
        snippets=snippets(row.job, args, definition) if args is not None else [],
        frames=row.job.error_backtrace,
        more=[line for extension in view.site.extensions for line in extension.rows(view, row.job)],
    )


async def _find(view: View, jid: str, at: str) -> tuple[Client, Row, Work | None] | None:
    """The job: where its address says, else running, else wherever it is now. O(all jobs) only in the end."""
    for name in _names(view):
        client = view.site.clients[name]
        if (hit := await _there(client, jid, at)) is not None:
            return client, row_of(hit, _shown(view, name)), None
        if (work := await WorkSet(client).afind_work(jid)) is not None:
            return client, row_of(Hit("running", work), _shown(view, name)), work
    for name in _names(view):
        client = view.site.clients[name]
        if (hit := await Search("", client).ajob(jid)) is not None:
            return client, row_of(hit, _shown(view, name)), None
    return None


def _names(view: View) -> list[str]:
    return [view.shard] if view.shard else view.shards


def _shown(view: View, name: str) -> str | None:
    """The shard, where several are shown."""
    return name if len(view.clients) > 1 else None


async def _there(client: Client, jid: str, at: str) -> Hit | None:
    """The job where it stood when the page before was made."""
    try:
        ref = Ref.parse(at) if at else None
    except UsageError:
        return None
    if ref is None or ref.state not in SETS or (ref.jid or NAMELESS) != jid:
        return None
    entries = await SETS[ref.state](client).afetch(ref.at, ref.jid)
    return Hit(ref.state, entries[0]) if entries else None


async def _runs(view: View, jid: str, job: JobRecord | None) -> list[Run]:
    """What the run log knows of it."""
    since = job.created_at.timestamp() if job and job.created_at else None
    for client in view.clients:
        if runs := await Runs(client).aof_job(jid, since):
            return runs
    return []


def timeline(view: View, row: Row, runs: list[Run]) -> list[Step]:
    """What happened, in order: pushed, each attempt that is known, and what comes next."""
    job = row.job
    steps = [Step(_at(job.created_at), "line.pushed", {"queue": job.queue or NONE})]
    for run in runs:
        kind = "bad" if run.failed else "ok"
        key = f"line.{'failed' if run.failed else run.outcome}"
        values = {"attempt": run.attempt, "span": run.seconds, "host": run.host}
        steps.append(Step(run.began, key, values, kind, view.message(run.error_message) or ""))
    if not runs and job.failed_at:
        steps.append(
            Step(_at(job.failed_at), "line.first_failed", {}, "bad", "" if job.retried_at else _error(view, job))
        )
        if job.retried_at:
            count = (job.retry_count or 0) + 1
            steps.append(Step(_at(job.retried_at), "line.last_failed", {"attempt": count}, "bad", _error(view, job)))
    last = {
        "queued": Step(_at(job.enqueued_at), "line.waits", {"queue": job.queue or NONE}, "now"),
        "running": Step(row.at, "line.runs", {}, "now"),
        "retry": Step(row.at, "line.next", {}, "now"),
        "scheduled": Step(row.at, "line.due", {}, "now"),
        "dead": Step(row.at, "line.died", {}, "bad"),
    }[row.state]
    return [step for step in steps if step.at is not None or step.key == "line.pushed"] + [last]


def extras_of(view: View, job: JobRecord) -> list[tuple[str, Any]]:
    """Fields that this page shows nowhere else: context, what other programs wrote."""
    return [(name, view.shown(value)) for name, value in job.item.items() if name not in KNOWN and value is not None]


def form_of(job: JobRecord, args: list[Any] | None, definition: Any) -> list[Field] | None:
    """The fields of "edit and retry"; None where the reader may not see all of the arguments."""
    if args is None or args != job.args or job["kwargs"] or job["encrypt"]:
        return None
    return fields_of(args, definition.signature if definition else None)


def _error(view: View, job: JobRecord) -> str:
    return f"{job.error_class}: {view.message(job.error_message)}" if job.error_class else ""


def _at(time: Any) -> float | None:
    return time.timestamp() if time is not None else None

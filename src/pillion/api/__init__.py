"""Looking into Redis and repairing what is there, for people: queues, sets, processes, figures, metrics, deploys.

Sidekiq's API with Sidekiq's meaning, over what Pillion and Ruby write alike. Dashboards, commands and scripts use it; a
worker never does, and no job should: what it shows has changed a moment later. Every verb that talks to Redis has a
twin for asyncio callers, `size()` and `asize()`, and every collection is gone through with `for` and `async for`.

    from pillion.api import DeadSet, Queue, Stats

    Stats().read().enqueued
    Queue("mailers").pause()
    for entry in DeadSet():
        if entry.error_class == "SMTPServerDisconnected":
            entry.retry()

Each verb says what it costs: N are the entries of a queue or set, and an exchange is one round trip. All of it goes
through a `pillion.Client`, by default the one that jobs are pushed through."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pillion.loader import loaded

if TYPE_CHECKING:
    from pillion.api.audit import Audit, Note
    from pillion.api.bulk import Bulk, Fault, Progress, Tally
    from pillion.api.causes import Cause, Causes, Survey
    from pillion.api.deploy import Deploy
    from pillion.api.driver import Operator, adrive, drive
    from pillion.api.faces import Page, Walk
    from pillion.api.metrics import LABELS, JobResult, Mark, Metrics, Result
    from pillion.api.operations import Operation, Operations, Preview
    from pillion.api.overview import Overview, Snapshot
    from pillion.api.processes import Process, ProcessSet
    from pillion.api.query import Query, QuerySyntax, Term
    from pillion.api.queue import Queue, QueuedJob, Queues, QueueSummary
    from pillion.api.record import JobRecord
    from pillion.api.runs import Percentiles, Run, RunCursor, Runs
    from pillion.api.search import Found, Hit, Search
    from pillion.api.selection import Ref, Selection
    from pillion.api.sets import DeadSet, JobSet, RetrySet, ScheduledSet, SortedEntry
    from pillion.api.several import Merged, Several
    from pillion.api.stacks import Stack, Stacks
    from pillion.api.stats import Figures, History, Stats
    from pillion.api.verdict import Verdict, judge
    from pillion.api.work import Work, WorkSet

__all__ = [
    "LABELS",
    "Audit",
    "Bulk",
    "Cause",
    "Causes",
    "DeadSet",
    "Deploy",
    "Fault",
    "Figures",
    "Found",
    "History",
    "Hit",
    "JobRecord",
    "JobResult",
    "JobSet",
    "Mark",
    "Merged",
    "Metrics",
    "Note",
    "Operation",
    "Operations",
    "Operator",
    "Overview",
    "Page",
    "Percentiles",
    "Preview",
    "Process",
    "ProcessSet",
    "Progress",
    "Query",
    "QuerySyntax",
    "Queue",
    "QueueSummary",
    "QueuedJob",
    "Queues",
    "Ref",
    "Result",
    "RetrySet",
    "Run",
    "RunCursor",
    "Runs",
    "ScheduledSet",
    "Search",
    "Selection",
    "Several",
    "Snapshot",
    "SortedEntry",
    "Stack",
    "Stacks",
    "Stats",
    "Survey",
    "Tally",
    "Term",
    "Verdict",
    "Walk",
    "Work",
    "WorkSet",
    "adrive",
    "drive",
    "judge",
]

_NAMES = {
    "audit": "Audit Note",
    "bulk": "Bulk Fault Progress Tally",
    "causes": "Cause Causes Survey",
    "deploy": "Deploy",
    "driver": "Operator adrive drive",
    "faces": "Page Walk",
    "metrics": "LABELS JobResult Mark Metrics Result",
    "operations": "Operation Operations Preview",
    "overview": "Overview Snapshot",
    "processes": "Process ProcessSet",
    "query": "Query QuerySyntax Term",
    "queue": "Queue QueuedJob Queues QueueSummary",
    "record": "JobRecord",
    "runs": "Percentiles Run RunCursor Runs",
    "search": "Found Hit Search",
    "selection": "Ref Selection",
    "sets": "DeadSet JobSet RetrySet ScheduledSet SortedEntry",
    "several": "Merged Several",
    "stacks": "Stack Stacks",
    "stats": "Figures History Stats",
    "verdict": "Verdict judge",
    "work": "Work WorkSet",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """A name or a module of this package, loaded when first asked for: `pillion status` has no use for most."""
    if name in _HOMES:
        found = getattr(import_module(f"pillion.api.{_HOMES[name]}"), name)
    elif name in _NAMES:
        found = import_module(f"pillion.api.{name}")
    else:
        raise AttributeError(f"module 'pillion.api' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_NAMES})


loaded("api")

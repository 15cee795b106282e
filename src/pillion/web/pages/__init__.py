"""The pages: `PAGES` is the table that `app.py` makes routes of. Every number on a page links to its rows."""

from __future__ import annotations

from pillion.web.context import PageRoute
from pillion.web.pages.base import counted
from pillion.web.pages.classes import classes, klass
from pillion.web.pages.failures import failures
from pillion.web.pages.job import job
from pillion.web.pages.jobs import dead, jobs, retries, scheduled
from pillion.web.pages.keeping import audit, operation, settings
from pillion.web.pages.overview import overview
from pillion.web.pages.queues import queue, queues
from pillion.web.pages.running import running, stack
from pillion.web.pages.workers import workers

PAGES = [
    PageRoute(path, name, counted(fn, title), title)
    for path, name, fn, title in (
        ("/", "overview", overview, "place.overview"),
        ("/queues", "queues", queues, "place.queues"),
        ("/queues/{name:path}", "queue", queue, "place.queues"),
        ("/jobs", "jobs", jobs, "place.jobs"),
        ("/job/{jid:path}", "job", job, "place.jobs"),
        ("/running", "running", running, "place.running"),
        ("/stack/{number}", "stack", stack, "stack.title"),
        ("/failures", "failures", failures, "place.failures"),
        ("/scheduled", "scheduled", scheduled, "place.scheduled"),
        ("/retries", "retries", retries, "place.retries"),
        ("/dead", "dead", dead, "place.dead"),
        ("/classes", "classes", classes, "place.classes"),
        ("/classes/{name:path}", "class", klass, "place.classes"),
        ("/workers", "workers", workers, "place.workers"),
        ("/operations/{id}", "operation", operation, "operation.title"),
        ("/audit", "audit", audit, "place.audit"),
        ("/settings", "settings", settings, "place.settings"),
    )
]

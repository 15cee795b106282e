"""What the JSON API says, as types: the OpenAPI document is made of them, and answers cannot differ from it.

Jobs are written by anyone, so every text goes through the redaction of the dashboard on its way here; viewers get
`null` for arguments. Times are epoch seconds (float), as on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from pillion.api import JobRecord, Process, SortedEntry, Work
from pillion.api.operations import Operation, Preview
from pillion.api.search import Hit
from pillion.web.context import View


class Job(msgspec.Struct, frozen=True, rename={"klass": "class"}):
    """A stored job.

    Attributes:
        ref: names it for an action (`id`); null of one that runs.
        state: `running`, `queued`, `retry`, `scheduled` or `dead`.
        args: null where the reader may not see them.
        at: when it is due, or died; null of a queued one.
        fault: why no worker can run it.
    """

    ref: str | None
    state: str
    jid: str
    klass: str
    queue: str | None
    args: list[Any] | None
    tags: list[str]
    created_at: float | None
    enqueued_at: float | None
    failed_at: float | None
    retried_at: float | None
    retry_count: int | None
    error_class: str | None
    error_message: str | None
    at: float | None
    latency: float
    fault: str | None


class JobDetail(msgspec.Struct, frozen=True):
    """A job with its backtrace and its attempts."""

    job: Job
    backtrace: list[str]
    runs: list[Any]


class Jobs(msgspec.Struct, frozen=True):
    """A page of a search: `next` is the `after` of the next one; `searched` of `total` jobs were looked at."""

    jobs: list[Job]
    searched: int
    total: int
    next: str | None
    sentence: str


class Running(msgspec.Struct, frozen=True):
    """A running job, as its process last said."""

    job: Job
    process: str
    thread: str
    began: float
    elapsed: float


class WorkerProcess(msgspec.Struct, frozen=True):
    """A worker process, as it last described itself."""

    identity: str
    hostname: str
    pid: int
    tag: str
    labels: list[str]
    queues: list[str]
    concurrency: int
    busy: int
    beat: float
    started_at: float
    rss_kb: int
    rtt_us: int
    stopping: bool
    embedded: bool
    leader: bool
    version: str


class OperationState(msgspec.Struct, frozen=True):
    """An operation, and how far it is (0 to 1)."""

    operation: Operation
    fraction: float
    open: bool


class Previewed(msgspec.Struct, frozen=True):
    """What an action would do. The same request with `shown`, and with `confirm` where `must_type`, does it."""

    verb: str
    filter: str
    count: int
    exact: bool
    samples: list[Job]
    oldest: datetime | None
    newest: datetime | None
    queues: dict[str, int]
    undoable: bool
    reason: str
    must_type: bool


class Done(msgspec.Struct, frozen=True):
    """What an action did: `key` and `values` as the page says it, the operation that was started, or a preview."""

    done: bool
    key: str
    values: dict[str, Any]
    operation: OperationState | None
    preview: Previewed | None
    answer: dict[str, Any]


class Judgement(msgspec.Struct, frozen=True):
    """What is wrong, in one sentence, and what to do; all is well where `level` is `ok`.

    Attributes:
        level: `ok`, `notice` (look when you can) or `alarm` (look now).
        since: when it began, epoch seconds.
        label, command: what to do, in words and for a terminal; "" where there is nothing.
        link: the page that shows it, below the dashboard.
        rule: which rule spoke.
    """

    level: str
    sentence: str
    since: float | None
    label: str
    command: str
    link: str
    rule: str


class Problem(msgspec.Struct, frozen=True):
    """What went wrong."""

    status: int
    message: str


class Wrong(msgspec.Struct, frozen=True):
    """The body of every answer from 400 on."""

    error: Problem


def job_of(view: View, state: str, record: JobRecord, ref: object = None) -> Job:
    """A job as this reader may see it."""
    shown = view.message
    return Job(
        ref=None if ref is None else str(ref),
        state=state,
        jid=record.jid,
        klass=record.display_class,
        queue=record.queue,
        args=view.args(record),
        tags=record.tags,
        created_at=_seconds(record.created_at),
        enqueued_at=_seconds(record.enqueued_at),
        failed_at=_seconds(record.failed_at),
        retried_at=_seconds(record.retried_at),
        retry_count=record.retry_count,
        error_class=record.error_class,
        error_message=shown(record.error_message),
        at=record.score if isinstance(record, SortedEntry) else None,
        latency=record.latency,
        fault=record.fault,
    )


def hit_of(view: View, hit: Hit) -> Job:
    """A hit of a search."""
    return job_of(view, hit.state, hit.job, hit.ref)


def running_of(view: View, work: Work) -> Running:
    """A running job."""
    began = work.run_at.timestamp()
    job = job_of(view, "running", work.job)
    return Running(job, work.process_id, work.thread_id, began, max(0.0, view.now - began))


def process_of(process: Process, leader: str) -> WorkerProcess:
    """A worker process."""
    return WorkerProcess(
        identity=process.identity,
        hostname=str(process["hostname"] or ""),
        pid=_whole(process["pid"]),
        tag=process.tag,
        labels=process.labels,
        queues=process.queues,
        concurrency=process.concurrency,
        busy=process.busy,
        beat=process.beat,
        started_at=process.started_at.timestamp(),
        rss_kb=process.rss,
        rtt_us=process.rtt_us,
        stopping=process.stopping,
        embedded=process.embedded,
        leader=process.identity == leader,
        version=process.version,
    )


def operation_of(operation: Operation) -> OperationState:
    """An operation."""
    return OperationState(operation, operation.fraction, operation.is_open)


def preview_of(view: View, preview: Preview, must_type: bool) -> Previewed:
    """A preview."""
    return Previewed(
        verb=preview.verb,
        filter=preview.filter,
        count=preview.count,
        exact=preview.exact,
        samples=[hit_of(view, hit) for hit in preview.samples],
        oldest=preview.oldest,
        newest=preview.newest,
        queues=preview.queues,
        undoable=preview.undoable,
        reason=preview.reason,
        must_type=must_type,
    )


def _seconds(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()


def _whole(value: Any) -> int:
    return value if type(value) is int else 0

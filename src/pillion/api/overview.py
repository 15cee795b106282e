"""Everything that the first page shows, of one moment: figures, queues and who serves them, causes, what runs longest.

One bounded read for pages, `pillion status` and the verdict (`verdict.py`), which judges a `Snapshot`. It reads what
workers and servers keep anyway; nothing is counted here, and nothing written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from pillion.activejob import real_name
from pillion.api.causes import Cause, Causes
from pillion.api.faces import Face, Plan, ask, faces
from pillion.api.metrics import Mark, Metrics, Result, Sums, bucket_of
from pillion.api.processes import Process, ProcessSet
from pillion.api.queue import Queues, QueueSummary
from pillion.api.runs import Percentiles, Runs
from pillion.api.stats import Figures, Stats, number
from pillion.api.work import Work, WorkSet
from pillion.checks import product
from pillion.errors import Refused
from pillion.store.op import command, text

MINUTES = 60
MOST_SHOWN = 5
MOST_FAILURES = 300
TRAIL, TRAIL_STEP, SHORTEST_TRAIL = 120.0, 10.0, 5.0


class QueueNow(msgspec.Struct, frozen=True):
    """A queue on the first page.

    Attributes:
        name, size, latency, paused, fault: as in `QueueSummary`.
        processes, slots: how many worker processes serve it, and how many jobs these can run at once in all.
        growth: jobs per second that it grows by (negative: shrinks), over two minutes at most; None until it is known.
    """

    name: str
    size: int
    latency: float
    paused: bool
    fault: str | None
    processes: int
    slots: int
    growth: float | None

    @property
    def clear_in(self) -> float | None:
        """Seconds until it is empty at this rate; None where it does not shrink, or that is not known."""
        return self.size / -self.growth if self.growth is not None and self.growth < 0 else None


class LongRun(msgspec.Struct, frozen=True):
    """A running job beside how long its class usually takes.

    Attributes:
        work: the job.
        klass: its class; of a Rails job the real one.
        seconds: how long it has been running.
        usual: percentiles of its class, from the run log.
    """

    work: Work
    klass: str
    seconds: float
    usual: Percentiles

    @property
    def share(self) -> float | None:
        """Elapsed time as a share of its class's p95; None where that is not known."""
        return self.seconds / self.usual.run.p95 if self.usual.run and self.usual.run.p95 else None


class Minute(msgspec.Struct, frozen=True):
    """What happened in one minute, all classes together: when it began (epoch seconds), runs, failed ones of them."""

    at: float
    runs: int
    failed: int


class ClassTimes(msgspec.Struct, frozen=True):
    """A class in the last hour.

    Attributes:
        minutes: (began, runs, failed ones of them, milliseconds that the others took), oldest first; none without runs.
    """

    klass: str
    minutes: list[tuple[float, int, int, float]]


class ServerFacts(msgspec.Struct, frozen=True):
    """The Redis or Valkey behind all this.

    Attributes:
        store: `Redis` or `Valkey`.
        version: of that.
        uptime_days, connections: since its start, and clients connected now.
        memory, peak, limit: bytes used, most ever used, and `maxmemory` (0: none).
        policy: `maxmemory-policy`.
        redis_version: what it calls itself before programs that only know Redis; of Redis the same as `version`.
    """

    store: str
    version: str
    uptime_days: int
    connections: int
    memory: int
    peak: int
    limit: int
    policy: str
    redis_version: str = ""


class Point(msgspec.Struct, frozen=True):
    """What was seen at one moment: how many jobs waited in each queue, and the bytes that the server used."""

    at: float
    sizes: Mapping[str, int]
    memory: int


class ProcessNow(msgspec.Struct, frozen=True):
    """A worker process on the first page: who, how many of its slots are busy, when it last beat (epoch seconds)."""

    identity: str
    busy: int
    concurrency: int
    beat: float
    stopping: bool
    queues: list[str]


class Snapshot(msgspec.Struct, frozen=True):
    """What `Overview.read` found.

    Attributes:
        at: when, epoch seconds.
        figures: totals and sizes.
        queues: the largest first.
        processes: those that have a row.
        causes: the five largest of dead and retrying jobs.
        longest: the five jobs that have been running longest.
        marks: deploys of the last hour, oldest first.
        throughput: the last sixty minutes, oldest first.
        classes: the same by class.
        server: the store's own facts.
        trail: what was seen in the last two minutes, oldest first, this moment included.
    """

    at: float
    figures: Figures
    queues: list[QueueNow]
    processes: list[ProcessNow]
    causes: list[Cause]
    longest: list[LongRun]
    marks: list[Mark]
    throughput: list[Minute]
    classes: list[ClassTimes]
    server: ServerFacts
    trail: list[Point] = []

    @property
    def busy(self) -> int:
        """Slots in use."""
        return sum(process.busy for process in self.processes)

    @property
    def slots(self) -> int:
        """Jobs that all processes can run at once."""
        return sum(process.concurrency for process in self.processes)


class Overview(Face):
    """The first page."""

    def plan_read(self, before: Snapshot | None = None) -> Plan[Snapshot]:
        """Everything at once. O(queues + processes + running jobs + classes), in some fifteen exchanges.

        `before`, the snapshot of a moment ago, gives rates of growth: hand in the last one. Of the dead and retrying
        jobs the newest 300 are grouped.
        """
        now, client = self.config.clock.now(), self.client
        figures = yield from Stats(client).plan_read()
        summaries = yield from Queues(client).plan_summaries()
        rows = yield from ProcessSet(clean=False, client=client).plan_all()
        ran = yield from Metrics(client).plan_top_jobs(minutes=MINUTES)
        causes = yield from Causes(client).plan_read(most=MOST_SHOWN, budget=MOST_FAILURES)
        longest = yield from self._longest(now)
        server = yield from self.plan_server()
        trail = _trail(before, Point(now, {each.name: each.size for each in summaries}, server.memory))
        served = _served(rows)
        return Snapshot(
            at=now,
            figures=figures,
            queues=[_queue(each, served.get(each.name, (0, 0)), trail) for each in summaries],
            processes=[_process(row) for row in rows],
            causes=causes,
            longest=longest,
            marks=ran.marks,
            throughput=_throughput(now, ran),
            classes=_classes(now, ran),
            server=server,
            trail=trail,
        )

    read, aread = faces(plan_read)

    def plan_server(self) -> Plan[ServerFacts]:
        """The store's version, uptime, connections and memory; empty where it does not tell. O(1)."""
        try:
            raw = yield from ask(command("INFO"))
        except Refused:
            raw = b""
        facts = dict(line.split(":", 1) for line in text(raw).splitlines() if ":" in line)
        store, version = product(facts) if facts else ("", "")
        return ServerFacts(
            store=store,
            version=version,
            uptime_days=number(facts.get("uptime_in_days")),
            connections=number(facts.get("connected_clients")),
            memory=number(facts.get("used_memory")),
            peak=number(facts.get("used_memory_peak")),
            limit=number(facts.get("maxmemory")),
            policy=facts.get("maxmemory_policy", ""),
            redis_version=facts.get("redis_version", ""),
        )

    server, aserver = faces(plan_server)

    def _longest(self, now: float) -> Plan[list[LongRun]]:
        works = (yield from WorkSet(self.client).plan_all())[:MOST_SHOWN]
        classes = {work.job.jid: real_name(work.job.klass or "", work.job["wrapped"]) for work in works}
        usual = yield from Runs(self.client).plan_percentiles_of(list(dict.fromkeys(classes.values())))
        return [
            LongRun(work, classes[work.job.jid], max(now - work.run_at.timestamp(), 0.0), usual[classes[work.job.jid]])
            for work in works
        ]


def _served(rows: Iterable[Process]) -> dict[str, tuple[int, int]]:
    """Per queue how many processes take from it, and how many jobs these can run at once."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row.stopping:
            continue
        for queue, slots in _slots(row).items():
            processes, before = found.get(queue, (0, 0))
            found[queue] = (processes + 1, before + slots)
    return found


def _slots(row: Process) -> dict[str, int]:
    """How many jobs of each of its queues a process can run at once; before Sidekiq 8 there are no capsules."""
    found = dict.fromkeys(row.queues, 0 if row.capsules else row.concurrency)
    for capsule in row.capsules.values():
        weights = capsule.get("weights") if isinstance(capsule, dict) else None
        for queue in weights if isinstance(weights, dict) else ():
            found[queue] += number(capsule.get("concurrency"))
    return found


def _queue(summary: QueueSummary, served: tuple[int, int], trail: Sequence[Point]) -> QueueNow:
    first, last = trail[0], trail[-1]
    growth = None
    if last.at - first.at >= SHORTEST_TRAIL and summary.name in first.sizes:
        growth = (summary.size - first.sizes[summary.name]) / (last.at - first.at)
    return QueueNow(
        summary.name, summary.size, summary.latency, summary.paused, summary.fault, served[0], served[1], growth
    )


def _trail(before: Snapshot | None, here: Point) -> list[Point]:
    """What was seen in the last two minutes, a point every ten seconds, and what is seen now."""
    earlier = [point for point in before.trail if 0 < here.at - point.at <= TRAIL] if before else []
    if len(earlier) > 1 and earlier[-1].at - earlier[-2].at < TRAIL_STEP:
        earlier.pop()  # the one before was that moment's now
    return [*earlier, here]


def _process(row: Process) -> ProcessNow:
    return ProcessNow(row.identity, row.busy, row.concurrency, row.beat, row.stopping, row.queues)


def _buckets(now: float) -> list[tuple[float, str]]:
    """The minutes of a chart, oldest first: when each began, and what metrics call it."""
    last = int(now) // 60 * 60
    begun = [float(last - 60 * n) for n in reversed(range(MINUTES))]
    return [(at, bucket_of(datetime.fromtimestamp(at, UTC), "minutely")) for at in begun]


def _throughput(now: float, ran: Result) -> list[Minute]:
    series = [result.series for result in ran.job_results.values()]

    def total(metric: str, bucket: str) -> int:
        return int(sum(each[metric][bucket] for each in series if metric in each))

    return [Minute(at, total("p", bucket), total("f", bucket)) for at, bucket in _buckets(now)]


def _classes(now: float, ran: Result) -> list[ClassTimes]:
    buckets, none = _buckets(now), Sums()
    found = []
    for name, result in ran.job_results.items():
        runs, failed, took = (result.series.get(metric, none) for metric in ("p", "f", "ms"))
        minutes = [(at, int(runs[key]), int(failed[key]), took[key]) for at, key in buckets if runs[key]]
        found.append(ClassTimes(name, minutes))
    return found

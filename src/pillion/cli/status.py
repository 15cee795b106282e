"""`pillion status`: what `sidekiqmon` prints, and above it in one sentence what is wrong and what to do.

It only reads, imports no app, and needs no terminal and no colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from pillion.cli import draw
from pillion.cli.looking import View, answered, reading_options, several_of, show
from pillion.version import __version__

if TYPE_CHECKING:
    from pillion.api.overview import Snapshot
    from pillion.api.processes import Process
    from pillion.api.queue import QueueSummary
    from pillion.api.several import Several
    from pillion.api.stats import Figures
    from pillion.api.verdict import Verdict

SECTIONS = ("all", "version", "overview", "processes", "queues")
FIGURES = (
    ("processed", "processed"),
    ("failed", "failed"),
    ("busy", "workers_size"),
    ("enqueued", "enqueued"),
    ("retries", "retry_size"),
    ("scheduled", "scheduled_size"),
    ("dead", "dead_size"),
)
LEVELS = ("ok", "notice", "alarm")


@click.command("status")
@click.argument("section", type=click.Choice(SECTIONS), default="all", metavar="[SECTION]")
@reading_options
def command(section: str, **options: Any) -> int:
    """Show how things are: all, or one of version, overview, processes and queues."""
    several = several_of(options)
    return show(options, lambda: look(several, section))


def look(several: Several, section: str) -> View:
    """All sections that are wanted."""
    from pillion.api.several import Merged

    wanted = SECTIONS[1:] if section == "all" else (section,)
    data: dict[str, Any] = {}
    texts: list[str] = []
    codes = [0]

    def heard(merged: Merged[Any]) -> Any:
        value, code = answered(merged)
        codes.append(code)
        return value

    if "version" in wanted or "overview" in wanted:
        snapshots: dict[str, Snapshot] = heard(several.overview())
        now = several.clients[several.names[0]].setup.config.clock.now()
        if "version" in wanted:
            data["version"], text = _version(several, snapshots, now)
            texts.append(text)
        if "overview" in wanted:
            data["overview"], text = _overview(snapshots, heard(several.stats()))
            texts.append(text)
    if "processes" in wanted:
        found = [each.value for each in heard(several.processes())]
        data["processes"] = [process_data(each) for each in found]
        texts.append(f"processes ({len(found)})\n{process_table(found, _now(several))}")
    if "queues" in wanted:
        queues = heard(several.queue_summaries())
        data["queues"] = [queue_data(each) for each in queues]
        texts.append(f"queues ({len(queues)})\n{queue_table(queues)}")
    return View(data if section == "all" else data[section], "\n\n".join(texts), max(codes))


def _now(several: Several) -> float:
    return float(several.clients[several.names[0]].setup.config.clock.now())


def _version(several: Several, snapshots: dict[str, Snapshot], now: float) -> tuple[dict[str, Any], str]:
    from pillion.store.address import describe

    servers = []
    for name, snapshot in snapshots.items():
        at = describe(several.clients[name].store.settings)
        servers.append({"shard": name, "store": snapshot.server.store, "version": snapshot.server.version, "at": at})
    lines = [f"{each['store'] or 'Redis'} {each['version']} at {each['at']}".replace("  ", " ") for each in servers]
    data = {"pillion": __version__, "time": draw.moment(now), "servers": servers}
    return data, "\n".join([f"pillion {__version__}", *lines, draw.moment(now)])


def _overview(snapshots: dict[str, Snapshot], figures: Figures) -> tuple[dict[str, Any], str]:
    verdict = verdict_of(snapshots)
    rows = [(name, getattr(figures, field)) for name, field in FIGURES]
    width = max(len(draw.number(value)) for _, value in rows)
    lines = draw.pairs((name, draw.number(value).rjust(width)) for name, value in rows)
    data = {"verdict": verdict_data(verdict), **dict(rows)}
    return data, f"{verdict_text(verdict)}\n\n{lines}"


def verdict_of(snapshots: dict[str, Snapshot]) -> Verdict:
    """The worst of the verdicts about some shards."""
    from pillion.api.verdict import judge

    verdicts = [judge(snapshot) for snapshot in snapshots.values()]
    return max(verdicts, key=lambda verdict: LEVELS.index(verdict.level))


def verdict_text(verdict: Verdict) -> str:
    """The sentence, and the command that helps below it."""
    text = f"{verdict.level}: {draw.safe(verdict.sentence)}"
    action = verdict.action
    if action is None:
        return text
    return f"{text}\n  help: {draw.safe(action.label)}" + (f": {draw.safe(action.command)}" if action.command else "")


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """The same for programs."""
    action = verdict.action.command or verdict.action.label if verdict.action else None
    return {"level": verdict.level, "sentence": verdict.sentence, "since": verdict.since, "action": action}


def process_table(found: Sequence[Process], now: float) -> str:
    """Processes, one a line."""
    heads = ("PROCESS", "BUSY", "SLOTS", "RSS", "BEAT", "UP", "STATE", "QUEUES")
    rows = [
        (
            *(each.identity, each.busy, each.concurrency, draw.size(each.rss * 1024)),
            *(draw.ago(each.beat, now), draw.span(now - each.started_at.timestamp())),
            *(state_of(each), ",".join(each.queues) or draw.NONE),
        )
        for each in found
    ]
    return draw.table(heads, rows, right=("BUSY", "SLOTS", "RSS", "BEAT", "UP"))


def state_of(process: Process) -> str:
    """`running`, `quiet`, and whether it is part of another program."""
    state = "quiet" if process.stopping else "running"
    return f"{state}, embedded" if process.embedded else state


def process_data(process: Process) -> dict[str, Any]:
    """A process for programs."""
    return {
        "identity": process.identity,
        "hostname": process["hostname"],
        "pid": process["pid"],
        "tag": process.tag,
        "labels": process.labels,
        "version": process.version,
        "busy": process.busy,
        "concurrency": process.concurrency,
        "queues": process.queues,
        "rss_kb": process.rss,
        "beat": process.beat,
        "started_at": process.started_at.timestamp(),
        "quiet": process.stopping,
        "embedded": process.embedded,
    }


def queue_table(queues: Iterable[QueueSummary], served: dict[str, tuple[int, int]] | None = None) -> str:
    """Queues, one a line; with `served` also how many processes and slots take from each."""
    heads = ["QUEUE", "SIZE", "LATENCY", *(["PROCESSES", "SLOTS"] if served is not None else []), "STATE"]
    rows = [
        (
            *(each.name, draw.number(each.size), draw.span(each.latency)),
            *(served.get(each.name, (0, 0)) if served is not None else ()),
            each.fault or ("paused" if each.paused else ""),
        )
        for each in queues
    ]
    return draw.table(heads, rows, right=("SIZE", "LATENCY", "PROCESSES", "SLOTS"))


def queue_data(queue: QueueSummary) -> dict[str, Any]:
    """A queue for programs."""
    return {
        "name": queue.name,
        "size": queue.size,
        "latency": round(queue.latency, 3),
        "paused": queue.paused,
        "fault": queue.fault,
    }

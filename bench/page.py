"""Writes docs/benchmarks.md and its charts from the raw results of one run. `make bench-page` calls it.

Nothing on the page is written by hand but the sentences below; a figure that was not measured does not appear.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench import figures, svg
from bench.results import Results, median
from bench.run import BARE
from bench.workloads import BY_NAME, Workload

SHOWN = {
    "rate": "jobs/s",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "p999": "p99.9 ms",
    "cpu_us": "CPU us per job",
    "redis_us": "Redis CPU us per job",
    "commands": "commands per job",
    "bytes": "bytes per job",
    "rss_mb": "RSS MB",
    "idle_mb": "RSS idle MB",
    "start_s": "start s",
    "idle_p999": "PING p99.9 idle, ms",
    "ping_p999": "PING p99.9 meanwhile, ms",
    "queued_bytes": "bytes per job",
    "payload_bytes": "of them payload",
    "early_mb": "RSS after a tenth, MB",
    "late_mb": "RSS at the end, MB",
    "cpu_ms": "CPU ms",
    "wall_ms": "wall ms",
}
HIDDEN = {("commands", "rate"), ("drain-1ms", "bytes")}
"""What a workload brings along and nobody should quote: rates of detours."""

BUSY = 0.3
"""A load average that a reader should know of."""

CHARTS = (
    ("drain", "rate", "Drain of no-op jobs, one process", "jobs/s", False),
    ("drain", "cpu_us", "Drain of no-op jobs: CPU of the worker", "us per job", True),
    ("drain", "redis_us", "Drain of no-op jobs: CPU of Redis", "us per job", True),
    ("drain-1ms", "rate", "The same with 1 ms of network latency", "jobs/s", False),
    ("enqueue", "cpu_us", "Enqueueing one by one: CPU", "us per job", False),
    ("io", "rate", "Jobs that wait 10 ms, concurrency 50", "jobs/s", False),
    ("latency-idle", "p50", "Enqueue to start, idle worker, median", "ms", True),
)

HEAD = """\
# Benchmarks

{about}

`make bench` measures all of this on your machine and prints the figures to reach; `make bench-page` writes this page
from `bench/results/published.json`, which holds every sample. `pillion load` fills and drains your own Redis.

Read the columns *per job* first: CPU per job moves little with the load of the machine, jobs per second move with
everything. Each figure is the median of its rounds, with the smallest and the largest where there was more than one;
*x* is the median of its ratio to Sidekiq in the same round. A difference below a tenth is none.
"""

METHOD = """\
## How it is measured

- One server for all, over TCP on this machine, emptied before each sample. It shares the cores with the workers.
- Rounds are interleaved: within a workload the peers follow each other, Pillion and Sidekiq first, and only then comes
  the next round. Those two are measured more often than the others.
- Each peer has an environment of its own with the versions below, and a file in `bench/peers` with its configuration
  and the reasons for it: results off, log at warning, the concurrency that the workload names.
- A queue is filled while no worker runs. A tenth of the jobs, at least 200, come first, to warm up; the clocks run from
  a job at the head to a job at the tail. What a peer fetched ahead before the first of them is not counted, which
  flatters those that prefetch by hundreds (Dramatiq, Celery).
- CPU is what the kernel accounts to all processes of a worker, or to the pushing process; Redis CPU is the server's own
  account. Commands are counted by a proxy between worker and server; what a script calls inside the server is not
  among them.
- Pillion runs with two middlewares, statistics and metrics, and at least once. What the others promise when a worker
  dies stands below; part of what they cost buys that.
- The latency of 1 ms is added by a proxy in Python. It needs a core of its own when much goes through it, so on two
  cores it holds back those that send most commands.
- A failed sample is left out and named.
"""


def write(results: Results, folder: Path) -> list[Path]:
    """Write the page and its charts below `folder`; returns their paths."""
    charts = folder / "benchmarks"
    charts.mkdir(exist_ok=True)
    written = []
    for workload, figure, *words in CHARTS:
        if rows := chart_rows(results, workload, figure):
            path = charts / f"{workload}-{figure.removesuffix('_us')}.svg"
            title, unit, logarithmic = words
            path.write_text(svg.bars(str(title), str(unit), rows, logarithmic=bool(logarithmic)))
            written.append(path)
    page = folder / "benchmarks.md"
    page.write_text("\n".join(parts(results)))
    return [page, *written]


def parts(results: Results) -> Iterator[str]:
    about = results.raw["about"]
    line = f"Measured {about['date']}: {about['server']}, {about['python']}, {about['machine']}, {about['system']}."
    busy = f" When it began, others kept {about['load']:.1f} of them busy." if about["load"] >= BUSY else ""
    changed = " **Pillion's code changed during the run: do not quote these figures.**" if about["changed"] else ""
    yield HEAD.format(about=line + busy + changed)
    yield from figures_to_reach(results)
    for name in dict.fromkeys(sample["workload"] for sample in results.samples):
        yield from section(results, BY_NAME[name])
    yield METHOD
    yield from participants(results)


def figures_to_reach(results: Results) -> Iterator[str]:
    yield "## Figures to reach\n"
    yield "| | must be | is | |\n|---|---|---|---|"
    for verdict in figures.verdicts(results):
        yield f"| {verdict.figure.name} | {verdict.must} | {verdict.got} | {verdict.word} |"
    yield ""


def section(results: Results, workload: Workload) -> Iterator[str]:
    """The charts and the table of one workload, best peer first."""
    yield f"## {workload.name}: {workload.what}\n"
    for name, figure, title, *_ in CHARTS:
        if name == workload.name and chart_rows(results, name, figure):
            yield f"![{title}](benchmarks/{name}-{figure.removesuffix('_us')}.svg)\n"
    columns = [figure for figure in SHOWN if measured(results, workload.name, figure)]
    beside = [columns[0]] if columns[0] == "rate" and results.peers(workload.name).count("sidekiq") else []
    heads = [SHOWN[figure] for figure in columns]
    if beside:
        heads.insert(1, "x")
    yield f"| | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}"
    for peer in ranked(results, workload):
        cells = [cell(results.values(workload.name, peer, figure)) for figure in columns]
        if beside:
            ratio = results.ratio(workload.name, "rate", peer, "sidekiq")
            cells.insert(1, "" if ratio is None else f"{ratio:.2f}")
        yield f"| {peer} | {' | '.join(cells)} |"
    yield ""


def measured(results: Results, workload: str, figure: str) -> bool:
    if (workload, figure) in HIDDEN:
        return False
    return any(results.values(workload, peer, figure) for peer in results.peers(workload))


def ranked(results: Results, workload: Workload) -> list[str]:
    """Most jobs/s first; where another figure leads, least first. What is no peer comes last."""
    lead = workload.lead[0]
    sign = -1 if lead == "rate" else 1
    values = {peer: results.middle(workload.name, peer, lead) or 0.0 for peer in results.peers(workload.name)}
    return sorted(values, key=lambda peer: (peer == BARE, sign * values[peer]))


def cell(values: list[float]) -> str:
    if not values:
        return ""
    middle = svg.figure(median(values))
    return middle if len(values) == 1 else f"{middle} [{svg.figure(min(values))}-{svg.figure(max(values))}]"


def chart_rows(results: Results, workload: str, figure: str) -> list[svg.Bar]:
    if workload not in BY_NAME or workload not in {sample["workload"] for sample in results.samples}:
        return []
    rows = [(peer, results.values(workload, peer, figure)) for peer in results.peers(workload)]
    found = [svg.Bar(peer, median(each), min(each), max(each), peer == figures.US) for peer, each in rows if each]
    return sorted(found, key=lambda row: -row.value if figure == "rate" else row.value)


def participants(results: Results) -> Iterator[str]:
    about = results.raw["about"]
    yield "## Who took part\n"
    yield "| | Versions | A job whose worker dies |\n|---|---|---|"
    runs = {"at least once": "runs again (at least once)", "at most once": "is lost (at most once)"}
    for name, peer in about["peers"].items():
        yield f"| {name} | {peer['versions']} | {runs[peer['promise']]} |"
    yield ""
    for name, why in about["skipped"].items():
        yield f"- {name} did not take part: {why}"
    for sample in results.raw["failed"]:
        yield f"- left out: {sample['workload']} of {sample['peer']}, round {sample['round'] + 1}: {sample['why']}"
    yield ""

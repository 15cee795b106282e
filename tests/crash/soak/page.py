"""The section of docs/reliability.md that a soak's result becomes. Every figure in it comes from the result."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from tests.crash.soak.report import Line, interval

COLUMNS = ("rss", "anon", "fds", "threads", "tasks")
HEADS = ("RSS, MB", "private, MB", "descriptors", "threads", "tasks")
SERVER = {
    "keys": "keys, without those that expire after hours",
    "clients": "clients",
    "lease": "leases",
    "memory": "memory without scheduled jobs, MB",
    "scripts": "scripts",
    "tracked": "keys remembered for client tracking",
}
LEAST_HOURS = 0.5


def section(result: dict[str, Any]) -> str:
    """The section, from its heading on."""
    return "\n".join(
        [*_head(result), "", *_jobs(result), "", *_slopes(result), "", *_server(result), "", *_rest(result)]
    )


def _head(result: dict[str, Any]) -> Iterator[str]:
    plan, faults, others = result["plan"], result["faults"], result["others"]
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items()))
    yield "## Soak"
    yield ""
    yield (
        f"{result['minutes']:.0f} minutes at about half the capacity of two supervised groups and two async workers: "
        f"{2 * plan['rate']:.0f} jobs per second and {plan['later']:,} scheduled ones, a lease of {plan['lease']:g} s, "
        f"{result['server']} with `appendfsync everysec`, a fault every {plan['fault_mean']:g} s on average. One group "
        f"and one async worker were spared all faults that end a process, to have lived through everything else. "
        f"Pillion {result['pillion']} (`{result['commit'][:7]}`), Python {result['python']}, seed {plan['seed']}. "
        "How: `make soak`."
    )
    yield ""
    rolls, rewrites = others.get("roll", 0), others.get("rewrite", 0)
    yield f"Faults: {kinds}. Besides, {rolls} rolling restarts and {rewrites} AOF rewrites."


def _jobs(result: dict[str, Any]) -> Iterator[str]:
    found = _line(result, "account")["found"]
    yield "| Accepted | Runs | Lost | Forgotten by the server | Ran twice | of them unexplained | Never pushed |"
    yield "|---|---|---|---|---|---|---|"
    figures = [found[name] for name in ("accepted", "runs", "lost", "forgotten", "repeated", "unexplained", "foreign")]
    yield f"| {' | '.join(f'{figure:,}' for figure in figures)} |"
    lost, accepted = found["lost"], found["accepted"]
    if not lost and accepted:
        yield ""
        yield f"With no job lost of {accepted:,}, at most {3 / accepted:.1e} of all are (95 %)."


def _slopes(result: dict[str, Any]) -> Iterator[str]:
    yield "Change per hour with its 95 % interval, by process, or for the mean of a role's processes over generations:"
    yield ""
    yield f"| Process | Hours | {' | '.join(HEADS)} |"
    yield f"|---|---|{'---|' * len(HEADS)}"
    series = [line for line in result["lines"] if "figure" in line and line["who"] != "server"]
    for who, lines in groupby(series, key=lambda line: line["who"]):
        by_figure = {line["figure"]: line for line in lines}
        hours = max(line["found"]["hours"] for line in by_figure.values())
        if hours >= LEAST_HOURS and "rss" in by_figure:
            cells = [_cell(by_figure.get(name)) for name in COLUMNS]
            yield f"| {_name(who)} | {hours:.1f} | {' | '.join(cells)} |"


def _server(result: dict[str, Any]) -> Iterator[str]:
    yield "| Redis | Mean | Change per hour |"
    yield "|---|---|---|"
    for line in result["lines"]:
        if line.get("who") == "server" and line["figure"] in SERVER:
            yield f"| {SERVER[line['figure']]} | {line['found']['mean']:.1f} | {_cell(line)} |"


def _rest(result: dict[str, Any]) -> Iterator[str]:
    lag = _line(result, "enqueue to start (ms)")["found"]
    logs = _line(result, "warnings and errors in logs")["found"]
    outside, within, rest = lag["outside"], lag["within"], lag["at rest"]
    yield (
        f"From push to start, outside fault windows (from a fault to two leases after it was healed; "
        f"{outside['jobs']:,} jobs): median {outside['p50']:.1f} ms, p99 {outside['p99']:.0f} ms. Within them p99 "
        f"{within['p99']:.0f} ms. While the machine did not keep others waiting either ({rest['jobs']:,} jobs): p99 "
        f"{rest['p99']:.0f} ms. Warnings and errors in logs: {logs['per second']:.2f} per second. Everything together "
        f"used {sum(result['cpu'].values()):.0f} % of a core."
    )
    failed = [line["what"] for line in result["lines"] if not line["passed"]]
    if failed:
        yield ""
        yield f"Not within their limits: {'; '.join(failed)}."


def _line(result: dict[str, Any], what: str) -> Line:
    return next(line for line in result["lines"] if line["what"] == what)


def _cell(line: Line | None) -> str:
    return "" if line is None else interval(line["found"])


def _name(who: str) -> str:
    """A role without the id of its process, which says nothing to a reader."""
    head, _, tail = who.rpartition(" ")
    return head if tail.isdigit() else who

"""The result of a soak, from its folder: a verdict for each line, as JSON, in words, and as a section for the docs.

It may also be drawn up while the soak runs; then the account of jobs is missing, and it has not passed.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.crash.soak import account, journal, series
from tests.crash.soak.pinger import EVERY
from tests.crash.soak.slopes import BLOCK, percentile

MOST_P99 = 50.0
MOST_LINES = 1.0
IN_TIME = 5.0
"""Milliseconds that a sleeper of `pinger.py` may be late on a machine that has time."""

CALM_LEASES = 2
LEAST_BLOCKS_OF_A_RUN = 12
OTHERS = ("roll", "rewrite", "rescued", "lease-lost")

Line = dict[str, Any]


def evaluate(folder: Path) -> dict[str, Any]:
    """Everything there is to say about a run."""
    facts = json.loads((folder / journal.FACTS).read_text())
    samples = [json.loads(line) for line in (folder / journal.SAMPLES).read_text().splitlines()]
    plan, began = facts["plan"], facts["from"]
    until = min(facts["work_until"], samples[-1]["at"])
    faults = account.faults_of(folder)
    lines = [*account_lines(folder, facts)] if "codes" in facts else []
    block = min(BLOCK, plan["seconds"] / LEAST_BLOCKS_OF_A_RUN)
    lines += series.lines(samples, folder, began, plan["warm_up"], block)
    lines += [latency(folder, faults, plan["lease"], until), log_lines(folder, until - began)]
    return {
        **{name: facts[name] for name in ("pillion", "commit", "server", "python", "plan")},
        "minutes": (until - began) / 60,
        "faults": dict(Counter(fault.kind for fault in faults)),
        "others": dict(Counter(what for what, *_ in journal.read(folder / journal.FAULTS) if what in OTHERS)),
        "cpu": cpu(samples),
        "errors": facts.get("errors", []),
        "lines": lines,
        "passed": "codes" in facts and all(line["passed"] for line in lines),
    }


def verdict(what: str, found: Any, passed: bool) -> Line:
    return {"what": what, "found": found, "passed": passed}


def account_lines(folder: Path, facts: dict[str, Any]) -> Iterator[Line]:
    """What became of the jobs, and how the processes ended."""
    found = account.draw_up(folder)
    figures = {name: len(value) if isinstance(value, list) else value for name, value in asdict(found).items()}
    yield verdict("account", figures, True)
    for name in ("lost", "foreign", "unexplained"):
        jids: list[str] = getattr(found, name)
        yield verdict(name, jids[:20], not jids)
    yield verdict("drained", facts["drained"], facts["drained"])
    yield verdict("keys left over", facts["leaked"], not facts["leaked"])
    yield verdict("faults that could not be injected", facts["errors"], not facts["errors"])
    odd = {name: code for name, code in facts["codes"].items() if code}
    yield verdict("exit codes", odd, not odd)
    ended = (words for what, _, *words in journal.read(folder / journal.FAULTS) if what == "ended")
    unasked = [f"{name} {code}" for name, code in ended if code != "-9"]
    yield verdict("ends that nobody asked for", unasked, not unasked)


def latency(folder: Path, faults: Sequence[account.Fault], lease: float, until: float) -> Line:
    """Milliseconds from push to start, where no fault was there, nor had been there two leases before.

    *At rest* are those among them that were pushed in ten seconds in which the machine was in time (`pinger.py`).
    """
    rough = Windows([(fault.at, min(fault.to, until) + CALM_LEASES * lease) for fault in faults])
    pings = [(float(at), float(p99)) for _, at, _, p99 in journal.read(folder / journal.PINGS)]
    rest = Windows([(at - EVERY, at) for at, p99 in pings if p99 <= IN_TIME])
    outside, within, at_rest = [], [], []
    for what, at, _jid, _attempt, _pid, *lag in journal.read(folder / journal.RUNS):
        if what == "start" and lag[0] != "-":
            start, took = float(at), float(lag[0])
            if rough.meet(start - took, start):
                within.append(took * 1000)
                continue
            outside.append(took * 1000)
            if rest.meet(start - took, start):
                at_rest.append(took * 1000)
    found: dict[str, Any] = {"all": len(outside) + len(within)}
    for name, lags in (("outside", outside), ("within", within), ("at rest", at_rest)):
        figures = {f"p{share:g}": percentile(lags, share / 100) for share in (50, 95, 99, 99.9)}
        found[name] = {"jobs": len(lags), **figures}
    return verdict("enqueue to start (ms)", found, found["outside"]["p99"] < MOST_P99)


class Windows:
    """Stretches of time, in order, with those that overlap made one."""

    def __init__(self, windows: Iterable[tuple[float, float]]) -> None:
        self.windows: list[tuple[float, float]] = []
        for begin, end in sorted(windows):
            if self.windows and begin <= self.windows[-1][1]:
                self.windows[-1] = (self.windows[-1][0], max(end, self.windows[-1][1]))
            else:
                self.windows.append((begin, end))
        self._begins = [begin for begin, _ in self.windows]

    def meet(self, begin: float, end: float) -> bool:
        """Whether one of them has a moment in common with this one."""
        i = bisect_right(self._begins, end) - 1
        return i >= 0 and self.windows[i][1] >= begin


def log_lines(folder: Path, seconds: float) -> Line:
    """Warnings and errors in the workers' logs, without those of jobs that fail on purpose; dumped stacks are none."""
    levels: Counter[str] = Counter()
    traces = 0
    for path in folder.glob("*.log"):
        for line in path.read_text(errors="replace").splitlines():
            if '"fail, runs again' not in line:
                levels[level_of(line)] += 1
                traces += "Traceback" in line
    rate = (levels["WARN"] + levels["ERROR"]) / max(seconds, 1)
    found = {"per second": rate, "levels": dict(levels), "tracebacks": traces}
    return verdict("warnings and errors in logs", found, rate < MOST_LINES and not traces)


def level_of(line: str) -> str:
    return next((level for level in ("INFO", "WARN", "ERROR") if f'"lvl":"{level}"' in line), "other")


def cpu(samples: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Per cent of one core, by role, over the whole run."""
    first: dict[int, float] = {}
    last: dict[int, tuple[str, float]] = {}
    for sample in samples:
        for each in sample["processes"]:
            first.setdefault(each["pid"], each["cpu"])
            last[each["pid"]] = (each["role"], each["cpu"])
    seconds = max(samples[-1]["at"] - samples[0]["at"], 1.0)
    found: dict[str, float] = defaultdict(float)
    for pid, (role, used) in last.items():
        found[role] += used - first[pid]
    return {role: round(used / seconds * 100, 2) for role, used in sorted(found.items())}


def words(result: dict[str, Any]) -> str:
    """The result as lines of text, what failed first."""
    faults, used = sum(result["faults"].values()), sum(result["cpu"].values())
    head = f"{result['minutes']:.0f} min, {faults} faults, {used:.0f} % of a core, seed {result['plan']['seed']}"
    lines = sorted(result["lines"], key=lambda line: bool(line["passed"]))
    return "\n".join([head, *(f"{'ok    ' if line['passed'] else 'FAILED'} {shown(line)}" for line in lines)])


def shown(line: Line) -> str:
    found = line["found"]
    if "figure" in line:
        return f"{line['what']}: {interval(found)} per hour, mean {found['mean']:.1f}, over {found['hours']:.2f} h"
    return f"{line['what']}: {found}"


def interval(found: dict[str, float]) -> str:
    return f"{found['value']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"

"""The figures that Pillion must reach, each compared with one run: what must be, what came out, and ok or MISSED.

Ratios are medians over the rounds of both peers' figures in the same round. What a run did not measure is told so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.catalog import AT_LEAST, PEERS
from bench.results import Results
from bench.run import BARE

Read = Callable[[Results], float | None]
US, RUBY, YJIT = "pillion", "sidekiq", "sidekiq-yjit"


@dataclass(frozen=True)
class Figure:
    """One line: `read` must be at most, or at least, `limit`."""

    name: str
    sign: str
    limit: float
    unit: str
    read: Read

    def holds(self, value: float) -> bool:
        return value <= self.limit if self.sign == "<=" else value >= self.limit


@dataclass(frozen=True)
class Verdict:
    """A figure and what a run gave for it."""

    figure: Figure
    value: float | None

    @property
    def word(self) -> str:
        return "not measured" if self.value is None else "ok" if self.figure.holds(self.value) else "MISSED"

    @property
    def must(self) -> str:
        return f"{self.figure.sign} {number(self.figure.limit)} {self.figure.unit}"

    @property
    def got(self) -> str:
        return "-" if self.value is None else f"{number(self.value)} {self.figure.unit}"


def middle(workload: str, figure: str, peer: str = US) -> Read:
    return lambda results: results.middle(workload, peer, figure)


def through(workload: str, figure: str, other: str = RUBY) -> Read:
    """Our figure through another's."""
    return lambda results: results.ratio(workload, figure, US, other)


def best_python(results: Results) -> float | None:
    """Our drain through that of the fastest Python peer that does not lose jobs either."""
    names = [peer.name for peer in PEERS if peer.promise == AT_LEAST and not peer.leads]
    ratios = [results.ratio("drain", "rate", US, name) for name in names]
    return min((ratio for ratio in ratios if ratio is not None), default=None)


def within(workload: str, above: str, below: str) -> Read:
    """One of our figures through another of ours."""

    def read(results: Results) -> float | None:
        one, other = results.middle(workload, US, above), results.middle(workload, US, below)
        return one / other if one is not None and other else None

    return read


FIGURES = (
    Figure("drain: CPU per job beside Sidekiq's", "<=", 0.2, "x", through("drain", "cpu_us")),
    Figure("drain: CPU per job", "<=", 10, "us", middle("drain", "cpu_us")),
    Figure("drain: jobs/s beside Sidekiq's", ">=", 5, "x", through("drain", "rate")),
    Figure("drain: jobs/s beside Sidekiq's with YJIT", ">=", 4, "x", through("drain", "rate", YJIT)),
    Figure("drain: jobs/s beside the best at-least-once Python peer's", ">=", 12, "x", best_python),
    Figure("drain: Redis CPU per job", "<=", 6, "us", middle("drain", "redis_us")),
    Figure("drain: commands per job", "<=", 0.15, "", middle("commands", "commands")),
    Figure("drain over 1 ms: jobs/s beside Sidekiq's", ">=", 3, "x", through("drain-1ms", "rate")),
    Figure("enqueue: CPU per job beside Sidekiq's", "<=", 0.65, "x", through("enqueue", "cpu_us")),
    Figure("bulk: jobs/s beside Sidekiq's", ">=", 2.5, "x", through("bulk", "rate")),
    Figure("I/O: 50 threads of 10 ms beside bare threads", ">=", 0.95, "x", through("io", "rate", BARE)),
    Figure("I/O: 1,000 async jobs of 100 ms beside bare tasks", ">=", 0.9, "x", through("aio-1000", "rate", BARE)),
    Figure("I/O: 200 async jobs of 10 ms beside bare tasks", ">=", 0.9, "x", through("aio-200", "rate", BARE)),
    Figure("CPU jobs: 2 processes beside bare ones", ">=", 0.9, "x", through("cpu", "rate", BARE)),
    Figure("latency idle: p50 beside Sidekiq's", "<=", 1, "x", through("latency-idle", "p50")),
    Figure("latency idle: p99 beside Sidekiq's", "<=", 1, "x", through("latency-idle", "p99")),
    Figure("latency at half load: p99 beside Sidekiq's", "<=", 2, "x", through("latency-half", "p99")),
    Figure("due jobs promoted", ">=", 30_000, "jobs/s", middle("due", "rate")),
    Figure("due jobs: PING p99.9 meanwhile", "<=", 10, "ms", middle("due", "ping_p999")),
    Figure("memory of an idle worker", "<=", 40, "MB", middle("latency-idle", "idle_mb")),
    Figure(
        "memory per queued job beside its payload", "<=", 1.15, "x", within("queued", "queued_bytes", "payload_bytes")
    ),
    Figure(
        "memory of a worker after all jobs beside a tenth of them",
        "<=",
        1.05,
        "x",
        within("soak", "late_mb", "early_mb"),
    ),
    Figure("import pillion beside import redis: CPU", "<=", 0.8, "x", within("import", "cpu_ms", "redis_cpu_ms")),
    Figure(
        "pillion --version beside import redis: CPU",
        "<=",
        1.2,
        "x",
        within("import", "version_cpu_ms", "redis_cpu_ms"),
    ),
)


def verdicts(results: Results) -> list[Verdict]:
    return [Verdict(figure, figure.read(results)) for figure in FIGURES]


def show(results: Results) -> int:
    """Print the table; returns 0."""
    idle = results.middle("due", US, "idle_p999")
    print(f"{'':55} {'must':>16} {'got':>14}")
    for verdict in verdicts(results):
        beside = f"  (idle: {number(idle)} ms)" if "PING" in verdict.figure.name and idle is not None else ""
        print(f"{verdict.figure.name:55} {verdict.must:>16} {verdict.got:>14}  {verdict.word}{beside}")
    return 0


def number(value: float) -> str:
    """Three figures, and no more than needed."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"

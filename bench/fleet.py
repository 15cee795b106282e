"""What a large fleet costs the server: `python -m bench.fleet`, or `--sizes 10,100 --queues 1`; see docs/scaling.md.

Real workers, up to 125 of them in one process (`bench/fleet_part.py`), each with an identity, a lease and connections
of its own, so that the server sees what so many processes would do. It is read from the server's own counters over
windows of some seconds:

- *idle*: nothing is pushed;
- *herd*: one job is pushed to a sleeping fleet, a few times, some seconds apart;
- *trickle*: single short jobs, twenty a second, to a fleet that has nothing else to do;
- *busy*: a job of five seconds per worker and five seconds, so half of the slots of the fleet are in use;
- *alone*: the fleet stands still, and one worker does each thing many times, to learn what it costs beside so many.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import ROOT, fleet_part
from bench.results import percentiles
from bench.run import machine, say
from bench.server import Server
from pillion.errors import StoreError
from pillion.worker.fetcher import Fetcher
from pillion.worker.heartbeat import Heartbeat

GENTLE = ["nice", "-n", "15", sys.executable]
PER_PART, LEAST_PARTS = 125, 2
START = 120.0
IDLE, BUSY, TRICKLE = 10.0, 10.0, 6.0
HERDS, CALM = 3, 3.0
TICK, TRICKLE_RATE = 0.05, 20
NAP = 5.0
REPEAT = 300

Figures = dict[str, float]


class Fleet:
    """Workers that are up, on an empty server."""

    def __init__(self, server: Server, workers: int, queues: int) -> None:
        self.server, self.workers, self.queues = server, workers, queues
        count = max(LEAST_PARTS, -(-workers // PER_PART))
        shares = [workers // count + (number < workers % count) for number in range(count)]
        self.parts = [self._part(share) for share in shares]
        for part in self.parts:
            assert part.stdout is not None
            if part.stdout.readline() != "ready\n":
                raise SystemExit("a part of the fleet did not start")
        until(lambda: server.client.scard("processes") == workers, START)

    def _part(self, workers: int) -> subprocess.Popen[str]:
        words = [self.server.url, str(workers), str(self.queues)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*GENTLE, "-m", "bench.fleet_part", *words], stdin=pipe, stdout=pipe, text=True, cwd=ROOT
        )

    def waited(self) -> list[float]:
        """How long jobs stood in their queues (ms), since the last call."""
        times: list[float] = []
        for part in self.parts:
            assert part.stdin is not None
            assert part.stdout is not None
            part.stdin.write("\n")
            part.stdin.flush()
            times += json.loads(part.stdout.readline())
        return times

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Nobody moves for the length of a block, which should be far less than a lease."""
        for part in self.parts:
            part.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for part in self.parts:
                part.send_signal(signal.SIGCONT)

    def push(self, number: int, seconds: float) -> None:
        """Push one job, to the queues in turn."""
        queue = f"q{number % self.queues}"
        job = {"class": "nap", "args": [time.time(), seconds], "queue": queue, "retry": False, "jid": f"{number:024x}"}
        self.server.client.lpush(f"queue:{queue}", json.dumps(job))

    def close(self) -> None:
        for part in self.parts:
            part.kill()
        for part in self.parts:
            part.wait()


class Window:
    """What the server did between two moments."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._begun, self._cpu, self._calls = time.perf_counter(), server.cpu(), calls(server)

    def end(self) -> Figures:
        """Per second: steps, other scripts, commands and CPU (percent of a core)."""
        now = calls(self._server)
        seconds = time.perf_counter() - self._begun
        cpu = self._server.cpu() - self._cpu
        counts = {name: count - self._calls.get(name, 0) for name, count in now.items()}
        steps = counts.get("zadd", 0)  # each step renews its lease, and nothing else here writes to a sorted set
        return {
            "seconds": seconds,
            "steps": steps / seconds,
            "scripts": counts.get("evalsha", 0) / seconds,
            "cpu": cpu / seconds * 100,
            "cpu_s": cpu,
            "step_count": steps,
        }


def calls(server: Server) -> dict[str, int]:
    stats: Any = server.client.info("commandstats")
    return {name.removeprefix("cmdstat_"): figures["calls"] for name, figures in stats.items()}


def until(done: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"the fleet did not do what it should in {seconds:.0f} s")
        time.sleep(0.1)


# -- what is measured -------------------------------------------------------------------------------------------------


def idle(fleet: Fleet) -> Figures:
    time.sleep(CALM)
    window = Window(fleet.server)
    time.sleep(IDLE)
    return window.end()


def herd(fleet: Fleet, calm: Figures) -> Figures:
    """Steps that one push brings, above the idle rate, and how long its job waited."""
    steps, cpu = [], []
    fleet.waited()
    for number in range(HERDS):
        time.sleep(CALM)
        window = Window(fleet.server)
        fleet.push(number, 0)
        time.sleep(1)
        found = window.end()
        steps.append(found["step_count"] - calm["steps"] * found["seconds"])
        cpu.append((found["cpu_s"] - calm["cpu"] / 100 * found["seconds"]) * 1000)
    middle = HERDS // 2
    waits = sorted(fleet.waited())
    return {"steps": sorted(steps)[middle], "cpu_ms": sorted(cpu)[middle], "wait_ms": waits[len(waits) // 2]}


def pushed(fleet: Fleet, rate: float, nap: float, seconds: float, settle: float) -> Figures:
    """Push single jobs at a steady rate; figures per job, of the time after `settle`."""
    jobs, begun, window = 0, time.perf_counter(), Window(fleet.server)
    counted, at = 0, settle
    while (now := time.perf_counter() - begun) < settle + seconds:
        if at and now >= at:
            window, counted, at = Window(fleet.server), jobs, 0.0
            fleet.waited()
        for _ in range(int(now * rate) - jobs):
            fleet.push(jobs, nap)
            jobs += 1
        time.sleep(TICK if rate > 1 / TICK else 1 / rate / 2)
    found = window.end()
    waits = percentiles(fleet.waited() or [float("nan")])
    count = jobs - counted
    per_job = {"steps_per_job": found["step_count"] / count, "cpu_us": found["cpu_s"] / count * 1e6}
    return found | per_job | {"jobs": count / found["seconds"], "p50": waits["p50"], "p99": waits["p99"]}


def state(server: Server) -> Figures:
    found: Any = server.client.info()
    names = ("connected_clients", "tracking_total_items", "used_memory")
    return {name: float(found[name]) for name in names} | {"client_mb": found["mem_clients_normal"] / 1e6}


def alone(fleet: Fleet) -> Figures:
    """The server's CPU (us) for one of each thing that a worker does now and then, beside a fleet that stands still."""
    station = fleet_part.worker(fleet.server.url, fleet.queues).stations[0]
    fetcher, beat = station.fetchers[0], station.heartbeat
    step(fetcher, wake=False)
    with fleet.frozen():
        time.sleep(0.2)
        return {
            "step": cost(fleet.server, lambda: step(fetcher, wake=False)),
            "armed": cost(fleet.server, lambda: step(fetcher, wake=True)),
            "beat": cost(fleet.server, beat.beat),
            "prune": cost(fleet.server, lambda: prune(fleet.server, beat), 3),
            "reap": cost(fleet.server, station.reaper.reap),
            "poll": cost(fleet.server, station.poller.poll),
        }


def step(fetcher: Fetcher, *, wake: bool) -> None:
    fetcher.tenure.step(fleet_part.CONCURRENCY, fetcher._order.next, wake=wake)


def prune(server: Server, heartbeat: Heartbeat) -> None:
    server.client.delete("process_cleanup")
    heartbeat._prune()


def cost(server: Server, act: Any, times: int = REPEAT) -> float:
    before = server.cpu()
    for _ in range(times):
        try:
            act()
        except StoreError as error:
            print(error, file=sys.stderr)
    return (server.cpu() - before) / times * 1e6


def measured(server: Server, workers: int, queues: int) -> dict[str, Any]:
    server.empty()
    fleet = Fleet(server, workers, queues)
    found: dict[str, Any] = {"workers": workers, "queues": queues}
    try:
        stages: dict[str, Callable[[], Figures]] = {
            "idle": lambda: idle(fleet),
            "state": lambda: state(server),
            "herd": lambda: herd(fleet, found["idle"]),
            "trickle": lambda: pushed(fleet, TRICKLE_RATE, 0, TRICKLE, 4),
            "busy": lambda: pushed(fleet, workers / NAP, NAP, BUSY, NAP + 2),
            "alone": lambda: alone(fleet),
        }
        for name, stage in stages.items():
            found[name] = stage()
            say(f"{workers} workers, {queues} queues, {name}: {json.dumps(found[name])}")
        return found
    finally:
        fleet.close()


# -- what is shown ----------------------------------------------------------------------------------------------------

ROWS = (
    ("idle: steps/s of the fleet", "idle", "steps", ".0f"),
    ("idle: CPU of the server, % of a core", "idle", "cpu", ".1f"),
    ("idle: connections", "state", "connected_clients", ".0f"),
    ("idle: memory of connections, MB", "state", "client_mb", ".1f"),
    ("herd: steps after one push", "herd", "steps", ".0f"),
    ("trickle: steps per job", "trickle", "steps_per_job", ".1f"),
    ("trickle: CPU of the server per job, us", "trickle", "cpu_us", ",.0f"),
    ("trickle: wait p50, ms", "trickle", "p50", ".1f"),
    ("trickle: wait p99, ms", "trickle", "p99", ".0f"),
    ("busy: jobs/s", "busy", "jobs", ".0f"),
    ("busy: steps per job", "busy", "steps_per_job", ".1f"),
    ("busy: CPU of the server per job, us", "busy", "cpu_us", ",.0f"),
    ("busy: wait p50, ms", "busy", "p50", ".1f"),
    ("alone: a step that finds nothing, us", "alone", "step", ".0f"),
    ("alone: the same, asking to be woken, us", "alone", "armed", ".0f"),
    ("alone: a heartbeat, us", "alone", "beat", ".0f"),
    ("alone: pruning `processes`, us", "alone", "prune", ".0f"),
    ("alone: a reaper's look, us", "alone", "reap", ".0f"),
    ("alone: a poller's look, us", "alone", "poll", ".0f"),
)


def table(points: Sequence[dict[str, Any]]) -> str:
    """One column per point, as Markdown."""
    heads = [f"{point['workers']:,} w, {point['queues']} q" for point in points]
    lines = ["| | " + " | ".join(heads) + " |", "|---" + "|---:" * len(points) + "|"]
    for title, part, name, form in ROWS:
        cells = [format(max(point[part][name], 0.0), form) if part in point else "-" for point in points]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description="What a large fleet costs the server.")
    parser.add_argument("--sizes", default="10,100,1000", help="worker processes (%(default)s)")
    parser.add_argument("--queues", default="1,10,200", help="queues that each of them serves (%(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results" / "fleet.json")
    parser.add_argument("--show", action="store_true", help="only print the table of that file")
    options = parser.parse_args()
    if options.show:
        print(table(json.loads(options.results.read_text())["points"]))
        return 0
    points: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="pillion-fleet-") as folder:
        server = Server(Path(folder) / "server", append_only=False)
        try:
            about = {"server": server.version(), "machine": machine(), "load": os.getloadavg()[0]}
            for queues in map(int, options.queues.split(",")):
                for workers in map(int, options.sizes.split(",")):
                    points.append(measured(server, workers, queues))
                    options.results.write_text(json.dumps({"about": about, "points": points}, indent=1) + "\n")
        finally:
            server.close()
    print(table(points))
    return 0


if __name__ == "__main__":
    sys.exit(main())

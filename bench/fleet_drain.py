"""The big drain: `python -m bench.fleet_drain`, ten million jobs queued and five million due, run by real workers.

Payloads are real ones, pushed in bulk through `pillion.Client` by two processes; the scheduled ones first, for a moment
that has passed when all the others are queued. Then `pillion worker` processes start. Once a second this process notes
what is left, the server's memory and the memory of each worker; another one pings the server all the while.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import linear_regression
from typing import Any

import pillion
from bench import ROOT, fleet_app, pinger
from bench.fleet_app import QUEUE, welcome
from bench.measure import Processes
from bench.run import machine, say
from bench.server import Server

PUSHERS, CALM = 2, 3.0
WARM = 0.1
GENTLE = ["nice", "-n", "10", sys.executable]
SAMPLE = 1_000
PUSH = "import sys; from bench.fleet_drain import push; push(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))"


def arguments(start: int, end: int) -> Iterator[tuple[Any, ...]]:
    for number in range(start, end):
        yield number, f"user{number}@example.org", {"template": "welcome", "locale": "en"}


def push(start: int, end: int, at: float) -> None:
    """Push these jobs; for the time `at` if it is not 0."""
    item = {"class": welcome, "args": arguments(start, end), "batch_size": 1_000}
    pillion.Client(os.environ["REDIS_URL"]).push_bulk(item | ({"at": at} if at else {}))


class Drain:
    """One run.

    Attributes:
        found: its figures so far.
    """

    def __init__(self, server: Server, folder: Path, options: argparse.Namespace) -> None:
        self._server, self._folder, self._options = server, folder, options
        self._environment = {**os.environ, "REDIS_URL": server.url, "PYTHONPATH": str(ROOT)}
        self.found: dict[str, Any] = {"queued": options.queued, "scheduled": options.scheduled}

    def run(self) -> None:
        self.found["idle_rss_mb"] = self._idle_worker()
        self._fill()
        self.found["ping_idle"] = self._pings(CALM)
        with ExitStack() as stack:
            workers = [self._worker(number) for number in range(self._options.workers)]
            for worker in workers:
                stack.callback(worker.stop)
            self._drain(workers)

    def _worker(self, number: int) -> Processes:
        words = [*GENTLE, "-m", "pillion", "worker", fleet_app.__name__, "-q", QUEUE, "-c", "10"]
        return Processes([[*words, "--log-level", "warning"]], self._environment, self._folder / f"worker{number}.log")

    def _idle_worker(self) -> float:
        worker = self._worker(9)
        while not self._server.client.scard("processes"):
            time.sleep(0.1)
        time.sleep(CALM)
        rss = worker.rss()
        worker.stop()
        self._server.empty()
        return rss

    def _pings(self, seconds: float) -> dict[str, float]:
        process = pinger.start(self._server.port)
        time.sleep(seconds)
        return pinger.finish(process)

    # -- filling -------------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        options, found = self._options, self.found
        due = time.time() + options.scheduled / options.fill_rate + 30
        empty = self._server.used_memory()
        found["scheduled_s"] = self._pushed(options.scheduled, due)
        found["scheduled"] = self._server.client.zcard("schedule")
        middle = self._server.used_memory()
        found["queued_s"] = self._pushed(options.queued, 0)
        found["queued"] = self._server.client.llen(f"queue:{QUEUE}")
        payloads = self._server.client.lrange(f"queue:{QUEUE}", 0, SAMPLE - 1)
        found["payload_bytes"] = sum(map(len, payloads)) / len(payloads)
        found["scheduled_bytes"] = (middle - empty) / max(found["scheduled"], 1)
        found["queued_bytes"] = (self._server.used_memory() - middle) / found["queued"]
        say(json.dumps(found))
        time.sleep(max(due - time.time(), 0))

    def _pushed(self, count: int, at: float) -> float:
        begun = time.perf_counter()
        shares = [(count * number // PUSHERS, count * (number + 1) // PUSHERS) for number in range(PUSHERS)]
        processes = [
            subprocess.Popen([*GENTLE, "-c", PUSH, str(start), str(end), str(at)], env=self._environment, cwd=ROOT)
            for start, end in shares
        ]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit("a push failed")
        return time.perf_counter() - begun

    # -- draining ------------------------------------------------------------------------------------------------------

    def _drain(self, workers: list[Processes]) -> None:
        left = self._left()
        begun, cpu = time.perf_counter(), self._server.cpu()
        total, ping, promoting = sum(left), pinger.start(self._server.port), left[1] > 0
        samples: list[dict[str, Any]] = []
        while sum(left) and time.perf_counter() - begun < self._options.patience:
            time.sleep(1)
            left = self._left()
            now = time.perf_counter() - begun
            rss = [round(worker.rss(), 2) for worker in workers]
            samples.append({"s": round(now, 2), "queued": left[0], "scheduled": left[1], "rss_mb": rss})
            if promoting and not left[1]:
                promoting = False
                self.found |= {"ping_promoting": pinger.finish(ping), "promoted_s": now}
                ping = pinger.start(self._server.port)
        seconds, done, cpu = time.perf_counter() - begun, total - sum(left), self._server.cpu() - cpu
        time.sleep(CALM)
        self.found["ping_after" if "promoted_s" in self.found else "ping_promoting"] = pinger.finish(ping)
        self.found |= {
            "drained": done,
            "seconds": seconds,
            "rate": done / seconds,
            "worker_cpu_us": sum(worker.cpu() for worker in workers) / done * 1e6,
            "redis_cpu_us": cpu / done * 1e6,
            "processed": int(self._server.client.get("stat:processed") or 0),
            "rss_slope_mb_per_million": self._slopes(samples, done),
            "samples": samples,
        }

    def _left(self) -> tuple[int, int]:
        client: Any = self._server.client
        return client.llen(f"queue:{QUEUE}"), client.zcard("schedule")

    def _slopes(self, samples: list[dict[str, Any]], done: int) -> list[float]:
        """MB that each worker grew per million jobs of all, once warm; least squares."""
        warm = samples[int(len(samples) * WARM) :]
        if len(warm) < 3:
            return []
        millions = [sample["s"] / samples[-1]["s"] * done / 1e6 for sample in warm]
        return [
            linear_regression(millions, [sample["rss_mb"][number] for sample in warm]).slope
            for number in range(len(warm[0]["rss_mb"]))
        ]


def table(found: dict[str, Any]) -> str:
    """The figures of a run, as Markdown."""
    first, last = found["samples"][0]["rss_mb"], found["samples"][-1]["rss_mb"]
    ping, idle = found["ping_promoting"], found["ping_idle"]
    rows = {
        "queued with `push_bulk`": f"{found['queued']:,} jobs in {found['queued_s']:.0f} s",
        "scheduled with `push_bulk`": f"{found['scheduled']:,} jobs in {found['scheduled_s']:.0f} s",
        "memory of a queued job, bytes": f"{found['queued_bytes']:.0f} for a payload of {found['payload_bytes']:.0f}",
        "memory of a scheduled job, bytes": f"{found['scheduled_bytes']:.0f}",
        "drained": f"{found['drained']:,} jobs in {found['seconds']:.0f} s: {found['rate']:,.0f} jobs/s",
        "counted as processed": f"{found['processed']:,}",
        "CPU of the workers per job, us": f"{found['worker_cpu_us']:.1f}",
        "CPU of the server per job, us": f"{found['redis_cpu_us']:.1f}",
        "PING p99 / p99.9 meanwhile, ms": f"{ping['p99']:.1f} / {ping['p999']:.1f}",
        "PING p99 / p99.9 before, ms": f"{idle['p99']:.1f} / {idle['p999']:.1f}",
        "an idle worker, MB": f"{found['idle_rss_mb']:.1f}",
        "each worker at the first second and the last, MB": f"{first} and {last}",
        "growth when warm, MB per million jobs": ", ".join(
            f"{slope:.2f}" for slope in found["rss_slope_mb_per_million"]
        ),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {title} | {value} |" for title, value in rows.items())])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet_drain", description="Ten million jobs and more.")
    parser.add_argument("--queued", type=int, default=10_000_000)
    parser.add_argument("--scheduled", type=int, default=5_000_000)
    parser.add_argument("--workers", type=int, default=2, help="worker processes (%(default)s)")
    parser.add_argument("--fill-rate", type=float, default=30_000, help="jobs/s that can be scheduled (%(default)s)")
    parser.add_argument("--patience", type=float, default=600, help="most seconds of the drain (%(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results" / "fleet-drain.json")
    parser.add_argument("--show", action="store_true", help="only print the figures of that file")
    options = parser.parse_args()
    if options.show:
        print(table(json.loads(options.results.read_text())))
        return 0
    with tempfile.TemporaryDirectory(prefix="pillion-drain-") as name, ExitStack() as stack:
        server = Server(Path(name) / "server", append_only=False)
        stack.callback(server.close)
        drain = Drain(server, Path(name), options)
        drain.found["about"] = {"server": server.version(), "machine": machine(), "load": os.getloadavg()[0]}
        drain.run()
        options.results.write_text(json.dumps(drain.found) + "\n")
    print(table(drain.found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

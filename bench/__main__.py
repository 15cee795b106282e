"""The command line: `python -m bench`. What it can do stands in `--help`.

Without options it makes a full run and prints the figures to reach. `--publish` makes of a run what the repository and
docs/benchmarks.md show.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from bench import ROOT, catalog, figures, page, workloads
from bench.results import Results
from bench.run import Plan, run

PUBLISHED = ROOT / "bench" / "results" / "published.json"
LATEST = ROOT / "build" / "bench" / "latest.json"
DOCS = ROOT / "docs"

SMOKE = ("drain", "commands", "enqueue", "aenqueue", "bulk", "io", "latency-idle", "queued", "import")


def main() -> int:
    options = parser().parse_args()
    if options.page:
        return write_page(read(options.results or PUBLISHED))
    if options.figures:
        return figures.show(read(options.results or LATEST))
    if not Path("/proc/self/stat").exists():
        sys.exit("python -m bench: expected Linux, got a system without /proc, where CPU and memory are read")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without ending what was started
    file = PUBLISHED if options.publish else options.results or LATEST
    results = Results(run(planned(options), file))
    print()
    figures.show(results)
    failed = results.raw["failed"]
    print(f"\n{len(results.samples)} samples in {file}; {len(failed)} left out")
    if options.publish:
        write_page(results)
    return 1 if options.smoke and (failed or not results.samples) else 0


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m bench", description="Pillion beside other job systems.")
    result.add_argument("--only", metavar="A,B", help=f"workloads: {', '.join(workloads.BY_NAME)}")
    result.add_argument("--peers", metavar="A,B", help=f"peers: {', '.join(catalog.BY_NAME)}")
    result.add_argument("--rounds", type=int, metavar="N", help="rounds of every workload; else each has its own")
    result.add_argument("--seconds", type=float, default=1.0, help="how long a peer is busy per sample (%(default)s)")
    result.add_argument("--quick", action="store_true", help="one round, short samples, small sizes")
    result.add_argument("--smoke", action="store_true", help="under a minute: does it still work, with one peer")
    result.add_argument("--results", type=Path, metavar="FILE", help="the raw results, if not build/bench/latest.json")
    result.add_argument("--publish", action="store_true", help="keep the results in the repository and write the page")
    result.add_argument("--figures", action="store_true", help="only print the figures to reach, from that file")
    result.add_argument(
        "--page", action="store_true", help="only write docs/benchmarks.md again, from the published results"
    )
    return result


def planned(options: argparse.Namespace) -> Plan:
    names = options.only.split(",") if options.only else list(SMOKE if options.smoke else workloads.BY_NAME)
    peers = options.peers.split(",") if options.peers else smoke_peers() if options.smoke else list(catalog.BY_NAME)
    unknown = [name for name in names if name not in workloads.BY_NAME]
    unknown += [name for name in peers if name not in catalog.BY_NAME]
    if unknown:
        sys.exit(f"python -m bench: expected names that --help lists, got {', '.join(unknown)}")
    small = options.quick or options.smoke
    return Plan(
        workloads=[workloads.BY_NAME[name] for name in names],
        peers=[catalog.BY_NAME[name] for name in peers],
        seconds=(0.25 if options.smoke else 0.5) if small else options.seconds,
        rounds=options.rounds or (1 if small else None),
        quick=small,
    )


def smoke_peers() -> list[str]:
    """Pillion and one other."""
    here = "sidekiq" if catalog.ruby_version(catalog.BY_NAME["sidekiq"]) else "huey"
    return ["pillion", here]


def read(file: Path) -> Results:
    if not file.is_file():
        sys.exit(f"python -m bench: expected results in {file}, found none; make a run first: make bench")
    return Results(json.loads(file.read_text()))


def write_page(results: Results) -> int:
    for path in page.write(results, DOCS):
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())

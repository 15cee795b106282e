"""One run: every chosen workload with every chosen peer, in rounds, so that what disturbs the machine disturbs all.

Within a round the peers of a workload follow each other, Pillion and Sidekiq first, so the samples that are compared
are nearest in time. A sample that fails is told and left out. Everything measured is written to the results file after
each sample; a run that is interrupted leaves what it had.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pillion
from bench import environments
from bench.catalog import Peer
from bench.lab import Lab, Sample
from bench.measure import TooSlow
from bench.workloads import Workload

BARE = "bare Python"


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        rounds: as every workload says if None, else so many for all.
        seconds: about how long a peer is busy with one sample.
        quick: whether fixed sizes are small as well.
    """

    workloads: Sequence[Workload]
    peers: Sequence[Peer]
    seconds: float
    rounds: int | None
    quick: bool

    def steps(self) -> Iterator[tuple[int, Workload, Peer | None]]:
        """Round, workload and peer of each sample; None for the bare program."""
        most = self.rounds or max(max(workload.rounds) for workload in self.workloads)
        for number in range(most):
            for workload in self.workloads:
                peers = [peer for peer in self.peers if self._takes(workload, peer, number)]
                yield from ((number, workload, peer) for peer in peers)
                if workload.bare and peers and self._takes(workload, peers[0], number):
                    yield number, workload, None

    def _takes(self, workload: Workload, peer: Peer, number: int) -> bool:
        if self.rounds is None:
            return workload.takes(peer, number)
        return workload.takes(peer, 0)


def run(plan: Plan, file: Path) -> dict[str, Any]:
    """Run the plan, write the raw results to `file`, and return them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pillion-bench-")))
        lab = stack.enter_context(Lab(folder, plan.seconds, quick=plan.quick))
        raw: dict[str, Any] = {"about": about(lab, plan), "samples": [], "failed": []}
        steps = list(present(plan, raw).steps())
        say(f"{raw['about']['server']}, {raw['about']['python']}, {raw['about']['machine']}")
        for position, step in enumerate(steps, 1):
            take(lab, step, raw, f"{position:4}/{len(steps)} {clock(raw)}")
            raw["about"]["changed"] = raw["about"]["code"] != code()
            write(raw, file)
    return raw


def about(lab: Lab, plan: Plan) -> dict[str, Any]:
    """What the figures were measured with."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "begun": time.time(),
        "seconds": plan.seconds,
        "quick": plan.quick,
        "server": lab.server.version(),
        "python": f"Python {platform.python_version()}",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "machine": machine(),
        "load": round(os.getloadavg()[0], 2),
        "code": code(),
        "changed": False,
        "peers": {},
        "skipped": {},
    }


def code() -> str:
    """A fingerprint of Pillion's source: a run during which it changes measures nothing in particular."""
    files = sorted(path for path in Path(pillion.__file__).parent.rglob("*") if path.suffix in {".py", ".lua"})
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def machine() -> str:
    """How many cores, and of what kind."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    return f"{os.cpu_count()} cores, {model}"


def present(plan: Plan, raw: dict[str, Any]) -> Plan:
    """The plan with the peers that can take part; the others are named."""
    here = []
    for peer in plan.peers:
        try:
            versions = environments.ready(peer)
        except environments.Missing as error:
            raw["about"]["skipped"][peer.name] = str(error)
            say(f"skipped {peer.name}: {error}")
        else:
            here.append(peer)
            raw["about"]["peers"][peer.name] = {"versions": versions, "promise": peer.promise}
    return Plan(plan.workloads, here, plan.seconds, plan.rounds, plan.quick)


def take(lab: Lab, step: tuple[int, Workload, Peer | None], raw: dict[str, Any], place: str) -> None:
    """Take one sample and say what came out."""
    number, workload, peer = step
    who = peer.name if peer else BARE
    begun = time.monotonic()
    told = f"{place}  {workload.name:<13} {who:<13}"
    try:
        sample = workload.run(lab, peer) if peer else bare(workload, lab)
    except (TooSlow, OSError) as error:
        raw["failed"].append({"workload": workload.name, "peer": who, "round": number, "why": str(error)})
        say(f"{told} left out: {error}{last_words(lab, peer)}")
        return
    where = {"workload": workload.name, "peer": who, "round": number, "took": round(time.monotonic() - begun, 2)}
    raw["samples"].append(where | {name: round(value, 5) for name, value in sample.items()})
    say(f"{told} {shown(workload, sample)}")


def bare(workload: Workload, lab: Lab) -> Sample:
    assert workload.bare is not None
    return workload.bare(lab)


def shown(workload: Workload, sample: Sample) -> str:
    figure, unit = workload.lead
    rest = {"cpu_us": "us CPU", "redis_us": "us Redis", "p99": "ms p99", "ping_p999": "ms PING p99.9"}
    also = [f"{sample[name]:9,.2f} {word}" for name, word in rest.items() if name in sample and name != figure]
    return "  ".join([f"{sample[figure]:12,.2f} {unit}", *also])


def last_words(lab: Lab, peer: Peer | None) -> str:
    """The end of the peer's log, where a sample failed."""
    log = lab.folder / f"{peer.name}.log" if peer else None
    lines = log.read_text(errors="replace").strip().splitlines()[-3:] if log and log.exists() else []
    return "".join(f"\n      | {line}" for line in lines)


def write(raw: dict[str, Any], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n  ".join(json.dumps(sample) for sample in raw["samples"])
    head = json.dumps({"about": raw["about"], "failed": raw["failed"]}, indent=1).removesuffix("\n}")
    file.write_text(f'{head},\n "samples": [\n  {lines}\n]}}\n')


def clock(raw: dict[str, Any]) -> str:
    minutes, seconds = divmod(int(time.time() - raw["about"]["begun"]), 60)
    return f"{minutes:2}:{seconds:02}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

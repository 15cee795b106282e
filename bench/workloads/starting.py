"""What it costs to import the library, and to ask Pillion for its version; fresh interpreters, one after another."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from bench.catalog import Peer
from bench.environments import interpreter
from bench.lab import Lab, Sample
from bench.results import median
from bench.workloads.workload import Workload

MODULES = {"streaq": "streaq", "taskiq": "taskiq, taskiq_redis"}
TIMES = 11


def imported(lab: Lab, peer: Peer) -> Sample:
    """Median CPU and wall milliseconds; for Pillion beside `import redis`, its command, and Python alone, in turns."""
    python = interpreter(peer)
    commands = {"": [python, "-c", f"import {MODULES.get(peer.name, peer.name)}"]}
    if peer.is_ours:
        commands["redis_"] = [python, "-c", "import redis"]
        commands["version_"] = [str(Path(python).with_name("pillion")), "--version"]
        commands["python_"] = [python, "-c", "pass"]
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(3 if lab.quick else TIMES):
        for name, words in commands.items():
            taken[name].append(timed(words))
    sample = {f"{name}cpu_ms": median(cpu for cpu, _ in each) for name, each in taken.items()}
    return sample | {f"{name}wall_ms": median(wall for _, wall in each) for name, each in taken.items()}


def timed(words: list[str]) -> tuple[float, float]:
    """CPU and wall milliseconds of a command."""
    begun = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise OSError(f"{' '.join(words)} ended with {process.returncode}")
    return (usage.ru_utime + usage.ru_stime) * 1000, (time.perf_counter() - begun) * 1000


WORKLOADS = (
    Workload("import", "import of the library, fresh interpreter", "import", imported, ("cpu_ms", "ms CPU"), (1, 1)),
)

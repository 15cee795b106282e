"""A census of the standard library: every module of this Python becomes a job. Run it: `python run.py`, or `make demo`.

    server ── worker process ── push ── watch ── check ── tables

It starts a server of its own in a temporary folder, a worker on `jobs.py`, pushes a job for every module, and watches.
Four more files are trouble on purpose: one that never appears, one with broken syntax, one that is no text, and one
that appears only after the first attempt. Only the worker moves their jobs through the retry set and the dead set.

At the end the summary must say what can be known beforehand: all modules but the broken ones. If it does not, or if the
worker dies, or after a minute, this says so and exits with 1. Whatever happened, server and worker are gone afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jobs
import view
from redis.exceptions import RedisError

import pillion
from pillion import embedded

HERE = Path(__file__).resolve().parent
LIBRARY = Path(sysconfig.get_path("stdlib"))
NOT_THE_LIBRARY = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
QUEUES = {"modules": 3, "packages": 1}
PATIENCE = 60.0
STOPPING = 15.0
LOOK = 0.1
CENSUS = "demo"


class Trouble(Exception):
    """The census failed. The message is for whoever watches."""


# --- server and worker ------------------------------------------------------------------------------------------------


@contextmanager
def scratch_server() -> Generator[Path]:
    """A server in a folder of its own, for us and for the processes we start. Both go when the block ends."""
    with tempfile.TemporaryDirectory(prefix="census-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for variable in [each for each in os.environ if each.startswith(("PILLION_", "REDIS_"))]:
            del os.environ[variable]
        os.environ["REDIS_URL"] = embedded.ensure(folder, create=True, announce=False)
        try:
            yield folder
        finally:
            leave_server(folder)


def leave_server(folder: Path) -> None:
    """Let the server go: it ends when nobody uses it any more. Wait for that, since its folder is to be removed."""
    embedded.release(folder)
    try:
        deadline = time.monotonic() + STOPPING
        while time.monotonic() < deadline and jobs.store().ping():
            time.sleep(0.02)
    except RedisError:
        pass
    jobs.store().close()


class Worker:
    """`pillion worker jobs.py`, a process of its own as in production. Its log goes to a file."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "worker.log"
        queues = [word for name, weight in QUEUES.items() for word in ("-q", f"{name},{weight}")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pillion", "worker", "jobs.py", *queues, "-t", "5"],
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that a Ctrl-C reaches it once, from us
            )

    def insist(self) -> None:
        """Raise Trouble if it does not run any more."""
        code = self.process.poll()
        if code is not None:
            raise Trouble(f"the worker (pid {self.process.pid}) ended too early, with {code}; {self.last_words()}")

    def stop(self) -> None:
        """TERM: running jobs end, others stay in Redis. Raises Trouble unless it leaves in time and with 0."""
        self.insist()
        self.process.terminate()
        try:
            code = self.process.wait(STOPPING)
        except subprocess.TimeoutExpired:
            raise Trouble(f"the worker did not stop within {STOPPING:g} s; {self.last_words()}") from None
        if code != 0:
            raise Trouble(f"the worker stopped with {code}; {self.last_words()}")

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-12:]
        return "\n    ".join(["its last words:", *lines] if lines else ["it said nothing"])


@contextmanager
def worker(folder: Path) -> Generator[Worker]:
    started = Worker(folder)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()


# --- the census -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What is counted: modules of the library, and files that are trouble on purpose."""

    modules: list[Path]
    late: Path
    hopeless: list[Path]

    @property
    def total(self) -> int:
        return len(self.modules) + 1 + len(self.hopeless)

    @property
    def expected(self) -> int:
        """How many files can be counted in the end."""
        return self.total - len(self.hopeless)


def plan(folder: Path, limit: int | None) -> Plan:
    found = sorted(path for path in LIBRARY.rglob("*.py") if not NOT_THE_LIBRARY & set(path.relative_to(LIBRARY).parts))
    if limit is not None:
        found = found[:: max(len(found) // limit, 1)][:limit]
    if not found:
        raise Trouble(f"no Python files in {LIBRARY}")
    broken, binary = folder / "broken.py", folder / "binary.py"
    broken.write_text("def unfinished(:\n")
    binary.write_bytes(bytes(range(256)))
    return Plan(found, folder / "late.py", [folder / "missing.py", broken, binary])


def push(planned: Plan) -> None:
    """One round trip for all modules and one for all packages. What is trouble goes first: it will take longest."""
    jobs.CountModule.set(retry=3).perform_async(CENSUS, str(planned.late))
    jobs.CountModule.perform_bulk([(CENSUS, str(path)) for path in (*planned.hopeless, *planned.modules)])
    packages = defaultdict(list)
    for path in planned.modules:
        packages[path.relative_to(LIBRARY).parts[0]].append(str(path))
    jobs.weigh.perform_bulk([(CENSUS, package, paths) for package, paths in packages.items()])
    jobs.summarise.perform_in(2, CENSUS, planned.total, len(packages))


def watch(planned: Plan, crew: Worker, started: float) -> dict[str, int]:
    """Show how it goes until the summary is there, and return it."""
    with view.watcher() as shown:
        while not (summary := jobs.notes(CENSUS, "summary")):
            crew.insist()
            now = snapshot(planned, time.time() - started)
            shown.show(now)
            if now.at > PATIENCE:
                raise Trouble(f"not done after {PATIENCE:g} s: {now}; {crew.last_words()}")
            if not planned.late.exists() and planned.late in jobs_in("retry"):
                planned.late.write_text("def better_late():\n    return 'than never'\n")
            time.sleep(LOOK)
    totals: dict[str, int] = summary["totals"]
    return totals


def snapshot(planned: Plan, at: float) -> view.Snapshot:
    """Ask Redis, in one round trip. These are Sidekiq's keys: a list per queue, sets sorted by time for the rest."""
    with jobs.store().pipeline(transaction=False) as asked:
        asked.hlen(f"census:{CENSUS}:counted")
        for name in ("schedule", "retry", "dead"):
            asked.zcard(name)
        asked.zrange("retry", 0, 0, withscores=True)
        for name in QUEUES:
            asked.llen(f"queue:{name}")
        counted, scheduled, retrying, dead, first, *waiting = asked.execute()
    return view.Snapshot(
        at=at,
        total=planned.total,
        counted=counted,
        queues=dict(zip(QUEUES, waiting, strict=True)),
        scheduled=scheduled,
        retrying=retrying,
        next_retry=first[0][1] - time.time() if first else None,
        dead=dead,
    )


def jobs_in(place: str) -> dict[Path, dict[str, Any]]:
    """The jobs in the retry set or the dead set, by the file each is about. Their members are the jobs, as JSON."""
    found = (json.loads(str(member)) for member in jobs.store().zrange(place, 0, -1))
    return {Path(job["args"][1]): job for job in found}


def check(planned: Plan, summary: dict[str, int], counted: dict[str, Any]) -> None:
    """What is known beforehand must have come out. Raises Trouble with everything that did not."""
    now = snapshot(planned, 0)
    facts = {
        "modules in the summary": (summary["modules"], planned.expected),
        "modules counted": (len(counted), planned.expected),
        "files in the dead set": (sorted(jobs_in("dead")), sorted(planned.hopeless)),
        "jobs left over": (sum(now.queues.values()) + now.scheduled + now.retrying, 0),
        "late file counted by a retry": (counted.get(str(planned.late), {}).get("attempt", 0) > 1, True),
    }
    wrong = [f"{what}: expected {due}, got {found}" for what, (found, due) in facts.items() if found != due]
    if wrong:
        raise Trouble("the census is wrong; " + "; ".join(wrong))


# --- all of it --------------------------------------------------------------------------------------------------------


def result(planned: Plan, totals: dict[str, int], counted: dict[str, Any], elapsed: float) -> view.Result:
    dead = jobs_in("dead")
    fates = [(path.name, error_of(dead[path]), dead[path]["retry_count"] + 1, "dead set") for path in planned.hopeless]
    late = counted[str(planned.late)]
    fates.append((planned.late.name, "not there at first", late["attempt"], "counted"))
    return view.Result({dotted(path): counted[str(path)] for path in planned.modules}, totals, fates, elapsed)


def error_of(job: dict[str, Any]) -> str:
    return f"{job['error_class']}: {job['error_message'].partition(':')[0]}"


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__")


def census(folder: Path, limit: int | None) -> None:
    planned = plan(folder, limit)
    with worker(folder) as crew:
        view.say(f"counting {planned.total} files of Python {sys.version.split()[0]}; worker: pid {crew.process.pid}")
        started = time.time()
        push(planned)
        summary = watch(planned, crew, started)
        elapsed = time.time() - started
        crew.stop()
    counted = jobs.notes(CENSUS, "counted")
    check(planned, summary, counted)
    view.report(result(planned, summary, counted, elapsed))


def at_least_one(word: str) -> int:
    number = int(word)
    if number < 1:
        raise ValueError(word)
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description="Count what is in the standard library, one job per module.")
    parser.add_argument(
        "--modules", type=at_least_one, metavar="N", help="only so many modules, spread over the library"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with scratch_server() as folder:
            census(folder, options.modules)
    except (Trouble, pillion.PillionError, RedisError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""docs/reliability.md, written from the results of the published run and the catalogue of faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.crash import catalogue
from tests.crash.fault import Fault
from tests.crash.results import Results, Row
from tests.crash.soak import page as soak

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
SOAK = PAGE.parent / "reliability" / "soak.json"

HEAD = """\
<!-- Made by `python -m tests.crash --page` from docs/reliability/results.json and tests/crash/page.py. Edit those. -->

# Reliability

## What is promised

Once a push returned a jid and the server keeps the write, the job runs **at least once**, or stands in the retry,
schedule or dead set with its reason, unless it was told to be dropped. A job is never in two hands and never in none:
every change of its place is one script. The outcome of a run counts only while its owner still holds the job.

## What is not

- Exactly once. A process that dies after the work and before its acknowledgement leaves a job that runs again, and a
  process that was frozen for longer than its lease goes on with a job that somebody else has by then. Make jobs
  idempotent; the jid stays the same over all runs, and `current_job().token` tells an old owner from a new one.
- An order over all jobs.
- Writes that the server acknowledged and then forgot: a failover to a replica that was behind, a disk that lost its
  last second (`appendfsync everysec`), a server without persistence.
- That an interrupted job ends: a thread cannot be killed.

## What was measured

`make chaos` breaks things on purpose, again and again, and accounts for every job. This is its published run.

"""

TABLE = """\
| | Fault | Trials | Jobs | Lost | Stranded | Ran again | Recovery: median, max | 95 % bound |
|---|---|---:|---:|---:|---:|---:|---|---|
"""

EXPLAINED = """
- *Trials*: "of" names how many the plan wants where they have not all been played yet.
- *Lost*: a job that was accepted, did not run to its end, and stands nowhere. *Stranded*: it stands somewhere and never
  runs. *Ran again*: more runs than it needed. Each of those was in the hands of a process that the fault killed or
  froze; one that was not counts as an error, and so does a process that lost its lease though nothing had touched it.
- *Recovery*: from the kill, or from the end of the fault where it has one, until the last of the jobs that were in
  flight has started (again). The lease is 1 s here. With the default of 60 s a rescue takes 50 to 80 s where no
  supervisor sees the process die. Where every worker is killed, the clock starts with the next one's join.
- *Bound*: no loss in n independent trials means, with 95 % confidence, a loss in fewer than 3/n of them. It says
  nothing about faults that are not in the table.
"""

METHOD = """
## How a trial goes

A bed has a server (`appendfsync always`), three worker processes that run four jobs each, a producer, and a ledger: a
file outside the blast radius in which every run of every job is noted before anything else and after everything else.
The workers run their jobs on threads or on the loop, or are processes of a supervisor; the producer is Pillion's
client, sync or async, and in every fourth bed Ruby's.

A trial is one fault at a random moment in a bed that keeps running. The jobs are short and long, fail and succeed as a
retry, snooze, hold the interpreter, ignore cancellation, push others, and now and then end their process. The producer
goes on pushing. Then the bed waits until all is quiet, compares what was accepted with the ledger and the server, and
checks:

| | Invariant |
|---|---|
| I1 | every accepted job has run to its end, or stands in a set with its reason |
| I2 | none is lost; looked at all the time |
| I3 | nothing runs that nobody pushed |
| I4 | a second run only of what the fault had touched; no live process loses its lease |
| I5 | at any time a job stands in one place; looked at all the time |
| I6 | what was fenced changes nothing: no claim runs twice, no second copy appears |
| I8 | when all is done nothing is left: no claim, tray, index or lease, no key that outlives its rule |
| I11 | recovery within lease + reaper's round + 2 s |
| I12 | after the fault every worker goes on, and none ended by itself |

I7, I9 and I10 of the plan are about at-most-once queues, batches and periodic jobs, and come with them.

That these checks can fail is tested, too: `tests/crash/test_bed.py` steals, copies, hides and buries jobs, and the bed
says so each time.
"""

RUN = """
## Run it yourself

`make chaos` plays 60 trials of each fault. `ARGS="..."` says more:

| `ARGS` | What it does |
|---|---|
| `--only T1,T4 --trials 300` | these, so many |
| `--only T1 --seed 7 --block 3` | one bed again: its seed decides every plan |
| `--publish --minutes 60` | go on with the published run for an hour, and write this page |
| `--help` | everything else |

Each campaign prints its seed. It decides what is done when and to whom, though not how the machine schedules. What goes
wrong is shown with the story of each job and the folder that has the ledger and the logs. Results are written block by
block, so a run that is stopped goes on where it was. `make test` plays 300 trials of it.
"""


def line(fault: type[Fault], row: Row) -> str:
    """A fault's figures for the terminal."""
    if not row.n:
        return f"{fault.id:4} not played"
    took = "-" if row.median is None else f"{row.median:.2f} s, at most {row.longest:.2f} s"
    return (
        f"{fault.id:4} {row.n} trials, {row.accepted} jobs: {row.lost} lost, {row.stranded} stranded, {row.again} ran "
        f"again, {row.broken} trials wrong; recovery {took}; {fault.title}"
    )


def write(results: Results, page: Path = PAGE) -> None:
    """Write the page."""
    page.write_text(made(results))


def made(results: Results) -> str:
    """The text of the page."""
    faults = sorted(catalogue.FAULTS, key=lambda fault: int(fault.id[1:]))
    rows = "".join(table_row(fault, results.rows.get(fault.id, Row())) for fault in faults)
    parts = [HEAD, stated(results), TABLE, rows, EXPLAINED, *wrong(results), METHOD, soaked(), missing(), RUN]
    return "".join(parts)


def soaked() -> str:
    """What the published soak measured; nothing where there is none."""
    return f"\n{soak.section(json.loads(SOAK.read_text()))}\n" if SOAK.exists() else ""


def stated(results: Results) -> str:
    """What was measured on what."""
    if not results.rows:
        return "No run has been published yet.\n\n"
    version = results.versions
    seeds = ", ".join(str(seed) for seed in results.seeds)
    return (
        f"Pillion {version['pillion']}, Python {version['python']}, {version['servers']}, {version['system']}; "
        f"seed {seeds}.\n\n"
    )


def table_row(fault: type[Fault], row: Row) -> str:
    """A line of the table."""
    if not row.n:
        return f"| {fault.id} | {fault.title} | 0 | | | | | not played yet | |\n"
    took = "" if row.median is None else f"{row.median:.2f} s, {row.longest:.2f} s"
    lost = f"{row.lost}" + f" ({row.excused} forgotten by the server)" * bool(row.excused)
    bound = f"{3 / row.n:.2%}" if not row.lost else ""
    trials = f"{row.n:,}" if row.n >= fault.trials else f"{row.n:,} of {fault.trials:,}"
    cells = (fault.id, fault.title, trials, f"{row.accepted:,}", lost, row.stranded, row.again, took, bound)
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"


def wrong(results: Results) -> Iterator[str]:
    """Every trial in which something was wrong, in its own words."""
    told = [(name, row) for name, row in results.rows.items() if row.broken]
    if told:
        yield "\n## What went wrong\n\n"
    for name, row in told:
        yield f"{name}: {row.broken} of {row.n:,} trials.\n\n"
        yield "".join(f"- {said(story)}\n" for story in row.stories) + "\n"


def said(story: str) -> str:
    """The plan of a trial and what was wrong in it, without the remains."""
    plan, *words = [part for part in story.splitlines() if not part.startswith("remains in")]
    return f"`{plan}`: {' / '.join(words)[:400]}"


def missing() -> str:
    """The rows of the plan that are not played."""
    rows = "".join(f"| {name} | {why} |\n" for name, why in catalogue.MISSING.items())
    return f"\n## What is not in the table\n\n| | Why |\n|---|---|\n{rows}" if rows else ""

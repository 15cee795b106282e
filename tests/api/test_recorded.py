"""What Sidekiq 8.1.7's own API said about a Redis that Pillion had filled, held against what ours says of the same.

No Ruby is needed: `tests/golden/api/` has the state as Pillion wrote it, and the answers. The state is made anew for
each test and must still be the recorded one, byte by byte: so what 8.1.7 read then, it would read now. What beats of
7.3 and 8.1 wrote (`tests/golden/keys/`) is read here, too.

    python -m tests.api.test_recorded path/to/sidekiq/lib redis-url     records afresh, on an empty server
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from pillion import Client, Setup
from pillion.api import (
    LABELS,
    DeadSet,
    Deploy,
    History,
    JobRecord,
    Metrics,
    ProcessSet,
    Queues,
    RetrySet,
    ScheduledSet,
    SortedEntry,
    Stats,
    WorkSet,
)
from pillion.api.metrics import JobResult, Result
from pillion.registry import Registry
from pillion.store import ops
from pillion.worker.stats import Counts, flush_commands
from tests.api.conftest import NOW, Clock
from tests.api.test_processes import INFO_8, ROW_8

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDER = GOLDEN / "api"
IDENTITY = "vm:23985:4bea0fb372db"

JOB = (
    "[_1.jid, _1.klass, _1.queue, _1.args.dup, _1.tags, _1.display_class, _1.display_args, _1.created_at.to_f, "
    "_1.latency]"
)
ENTRY = f"{JOB} + [_1.score, _1.at.to_f, _1.id, _1.error?, _1.failed_at&.to_f, _1['error_message'], _1.error_backtrace]"
RESULT = "[_1.granularity, _1.starts_at.to_f, _1.ends_at.to_f, _1.marks.map { |m| [m.time.to_f, m.label, m.bucket] }]"
CLASS = "[_1.series.dup, _1.totals, _1.hist, _1.total_avg, _1.total_avg('s'), _1.series_avg]"
ONE = "Sidekiq::Metrics::Query.new.for_job"
ASKED = {
    "stats": "Sidekiq::Stats.new.then { |all| %w[processed failed scheduled_size retry_size dead_size enqueued "
    "processes_size workers_size default_queue_latency queues].to_h { [_1, all.public_send(_1)] } }",
    "summaries": "Sidekiq::Stats.new.queue_summaries.map { [_1.name, _1.size, _1.latency, _1.paused] }",
    "history": "Sidekiq::Stats::History.new(3).then { [_1.processed, _1.failed] }",
    "queues": "Sidekiq::Queue.all.map(&:name)",
    "jobs": f"Sidekiq::Queue.all.flat_map {{ |queue| queue.map {{ {JOB} }} }}",
    "schedule": f"Sidekiq::ScheduledSet.new.map {{ {ENTRY} }}",
    "retry": f"Sidekiq::RetrySet.new.map {{ {ENTRY} }}",
    "dead": f"Sidekiq::DeadSet.new.map {{ {ENTRY} }}",
    "processes": "Sidekiq::ProcessSet.new(false).map { |row| [row.identity, row.tag, row.labels, row.queues, "
    "row.weights, row.capsules, row.version, row.embedded?, row.stopping?] + "
    "%w[hostname pid concurrency busy beat quiet rss rtt_us].map { row[_1] } }",
    "totals": "Sidekiq::ProcessSet.new(false).then { [_1.size, _1.total_concurrency, _1.total_rss, _1.leader] }",
    "work": "Sidekiq::WorkSet.new.map { |id, tid, work| "
    "[id, tid, work.queue, work.run_at.to_f, work.job.jid, work.payload] }",
    "minutes": f"Sidekiq::Metrics::Query.new.top_jobs.then {{ {RESULT} }}",
    "hours": f"Sidekiq::Metrics::Query.new.top_jobs(hours: 8).then {{ {RESULT} }}",
    "classes": f"Sidekiq::Metrics::Query.new.top_jobs(minutes: 30).job_results.transform_values {{ {CLASS} }}",
    "matching": "Sidekiq::Metrics::Query.new.top_jobs(class_filter: /Hard/).job_results.keys",
    "class": f"{ONE}('HardWorker', minutes: 5).job_results.transform_values {{ {CLASS} }}",
    "slow": f"{ONE}('HardWorker', hours: 1).job_results.transform_values {{ {CLASS} }}",
    "deploys": "Sidekiq::Deploy.new(Sidekiq::POOL).fetch",
    "labels": "Sidekiq::Metrics::Histogram::LABELS",
}


def fill(url: str, clock: Clock) -> Client:
    """Let Pillion write some of everything, at times and with ids that are always the same."""
    ids = iter(range(1, 1_000))
    setup = Setup(url, clock=clock, registry=Registry(), new_jid=lambda: f"{next(ids):024x}")
    client, run = Client(setup=setup), setup.store.run
    for n in range(60):
        clock.at = NOW - 600 + n
        client.push({"class": "HardWorker", "args": [f"é/<{n}>", n, 1.5, None], "tags": ["slow"] if n % 2 else []})
    wrapper = {"class": "Sidekiq::ActiveJob::Wrapper", "wrapped": "Charge", "queue": "rails"}
    client.push({**wrapper, "args": [{"arguments": [1, {"_aj_globalid": "gid://app/User/5"}]}]})
    client.push({"class": "Secret", "args": [1, "BAhTOhFT"], "encrypt": True, "queue": "rails"})
    clock.at = NOW
    for n in range(3):
        client.push({"class": "Later", "args": [n], "at": NOW + 60 * n + 30.25})
    for n, name in enumerate(("first-failure", "second-failure")):
        raw = (GOLDEN / f"pillion-8-{name}.json").read_bytes().rstrip(b"\n")
        run(ops.command("ZADD", "retry", repr(NOW + 15.125 + n), raw))
        run(ops.command("ZADD", "dead", repr(NOW - 15.5 - n), raw))
    run(
        ops.command(
            "ZADD", "dead", repr(NOW - 99.0), (GOLDEN / "sidekiq-8.1-backtrace.json").read_bytes().rstrip(b"\n")
        )
    )
    for minutes, counts in ((0, counted(12, 2)), (7, counted(3, 1)), (55, counted(5, 5))):
        run(ops.batch(flush_commands(setup.store.keys, counts, NOW - 60 * minutes)))
    row = {"info": msgspec.json.encode(INFO_8), **ROW_8}
    run(ops.command("SADD", "processes", IDENTITY))
    run(ops.command("HSET", IDENTITY, *(word for pair in row.items() for word in pair)))
    payload = run(ops.command("LINDEX", "queue:default", -1)).decode()
    for n, thread in enumerate(("i6t", "i8x")):
        work = {"queue": "default", "payload": payload, "run_at": int(NOW) - 5 - n}
        run(ops.command("HSET", f"{IDENTITY}:work", thread, msgspec.json.encode(work)))
    run(ops.command("SADD", "paused", "rails"))
    Deploy(client).mark("v42", NOW - 1_200)
    return client


def counted(processed: int, failed: int) -> Counts:
    """What a worker counts of so many runs of two classes."""
    counts = Counts()
    counts.processed, counts.failed = processed, failed
    counts.metrics.update(
        {"HardWorker|p": processed, "HardWorker|f": failed, "HardWorker|ms": 125 * processed, "Other|p": 1}
    )
    counts.slots.update({("HardWorker", 3): processed - failed + 1, ("HardWorker", 25): 1})
    return counts


def dump(look: redis.Redis) -> dict[str, Any]:
    """Everything that stands in Redis, but for what only keeps others from doing something twice."""
    found: dict[str, Any] = {}
    for key in sorted(look.keys()):
        name, kind = key.decode(), look.type(key).decode()
        if name.startswith("deploylock-"):
            continue
        readers: dict[str, Callable[[], Any]] = {
            "string": lambda key=key: look.get(key).decode("latin-1"),
            "list": lambda key=key: [raw.decode() for raw in look.lrange(key, 0, -1)],
            "set": lambda key=key: sorted(raw.decode() for raw in look.smembers(key)),
            "zset": lambda key=key: [[raw.decode(), score] for raw, score in look.zrange(key, 0, -1, withscores=True)],
            "hash": lambda key=key: {k.decode(): v.decode() for k, v in sorted(look.hgetall(key).items())},
        }
        found[name] = readers[kind]()
    return found


# --- our answers to the same questions --------------------------------------------------------------------------------


def job_row(job: JobRecord) -> list[Any]:
    created = job.created_at.timestamp() if job.created_at else 0.0
    return [
        job.jid,
        job.klass,
        job.queue,
        job.args,
        job.tags,
        job.display_class,
        job.display_args,
        created,
        job.latency,
    ]


def entry_row(entry: SortedEntry) -> list[Any]:
    failed = entry.failed_at.timestamp() if entry.failed_at else None
    more = [entry.score, entry.at.timestamp(), entry.id, entry.is_error, failed, entry.error_message]
    return [*job_row(entry), *more, entry.error_backtrace or None]


def process_row(process: Any) -> list[Any]:
    own = [process.identity, process.tag, process.labels, process.queues, process.weights, process.capsules]
    fields = ("hostname", "pid", "concurrency", "busy", "beat", "quiet", "rss", "rtt_us")
    return [*own, process.version, process.embedded, process.stopping, *(process[name] for name in fields)]


def result_row(result: Result) -> list[Any]:
    marks = [[mark.time.timestamp(), mark.label, mark.bucket] for mark in result.marks]
    return [result.granularity, result.starts_at.timestamp(), result.ends_at.timestamp(), marks]


def class_rows(result: Result) -> dict[str, Any]:
    def shown(found: JobResult) -> list[Any]:
        averages = [found.total_avg(), found.total_avg("s"), found.series_avg()]
        return [found.series, found.totals, found.hist, *averages]

    return {name: shown(found) for name, found in result.job_results.items()}


OURS: dict[str, Callable[[Client], Any]] = {
    "stats": lambda client: msgspec.to_builtins(Stats(client).read()),
    "summaries": lambda client: [[s.name, s.size, s.latency, s.paused] for s in Stats(client).queue_summaries()],
    "history": lambda client: [History(3, client=client).processed(), History(3, client=client).failed()],
    "queues": lambda client: [queue.name for queue in Queues(client)],
    "jobs": lambda client: [job_row(job) for queue in Queues(client) for job in queue],
    "schedule": lambda client: [entry_row(entry) for entry in ScheduledSet(client)],
    "retry": lambda client: [entry_row(entry) for entry in RetrySet(client)],
    "dead": lambda client: [entry_row(entry) for entry in DeadSet(client)],
    "processes": lambda client: [process_row(process) for process in ProcessSet(clean=False, client=client)],
    "totals": lambda client: [
        getattr(ProcessSet(clean=False, client=client), name)()
        for name in ("size", "total_concurrency", "total_rss", "leader")
    ],
    "work": lambda client: [
        [w.process_id, w.thread_id, w.queue, w.run_at.timestamp(), w.job.jid, w.payload.decode()]
        for w in WorkSet(client)
    ],
    "minutes": lambda client: result_row(Metrics(client).top_jobs()),
    "hours": lambda client: result_row(Metrics(client).top_jobs(hours=8)),
    "classes": lambda client: class_rows(Metrics(client).top_jobs(minutes=30)),
    "matching": lambda client: list(Metrics(client).top_jobs("Hard").job_results),
    "class": lambda client: class_rows(Metrics(client).for_job("HardWorker", minutes=5)),
    "slow": lambda client: class_rows(Metrics(client).for_job("HardWorker", hours=1)),
    "deploys": lambda client: Deploy(client).fetch(),
    "labels": lambda client: [*LABELS],
}


@pytest.fixture
def filled(server: Any, clock: Clock) -> Any:
    client = fill(server.url, clock)
    yield client
    client.close()


@pytest.mark.rule("api.ruby")
def test_pillion_still_writes_what_was_recorded(filled: Client, look: redis.Redis) -> None:
    assert dump(look) == json.loads((FOLDER / "state.json").read_text())


@pytest.mark.rule("api.ruby")
@pytest.mark.parametrize("question", ASKED)
def test_our_answer_is_that_of_sidekiq_8_1(filled: Client, question: str) -> None:
    answers = json.loads((FOLDER / "sidekiq-8.1.json").read_text())
    assert rounded(json.loads(json.dumps(OURS[question](filled)))) == rounded(answers[question])


def rounded(answer: Any) -> Any:
    """Without what Ruby's and Python's arithmetic do differently in the last digits."""
    if isinstance(answer, list):
        return [rounded(each) for each in answer]
    if isinstance(answer, dict):
        return {name: rounded(each) for name, each in answer.items()}
    return round(answer, 3) if isinstance(answer, float) else answer


@pytest.mark.rule("api.ruby", "keys.old-metrics", "api.metrics-job")
@pytest.mark.parametrize("version", ["7.3", "8.1"])
def test_metrics_that_ruby_recorded_are_read(client: Client, clock: Clock, look: redis.Redis, version: str) -> None:
    played(look, f"sidekiq-{version}-metrics")
    clock.at = datetime(2022, 7, 2, 7, 3, 59, tzinfo=UTC).timestamp()
    minute = "2022-07-02T07:03:00Z"
    top = Metrics(client).top_jobs()
    assert set(top.job_results) == {"App::FooJob", "HardWorker"}
    assert top.job_results["HardWorker"].totals == {"p": 4, "f": 1, "ms": 42, "s": 0.042}
    foo = Metrics(client).for_job("App::FooJob").job_results["App::FooJob"]
    assert (foo.totals["p"], foo.totals["ms"], foo.series["p"]) == (8, 401_054, {minute: 8})
    assert {LABELS[::-1][slot]: n for slot, n in enumerate(foo.hist[minute]) if n} == {
        "20ms": 1,
        "65ms": 3,
        "335ms": 3,
        "Slow": 1,
    }


@pytest.mark.rule("api.ruby", "api.process-row")
@pytest.mark.parametrize("version", ["7.3", "8.1"])
def test_beats_that_ruby_recorded_are_read(client: Client, look: redis.Redis, version: str) -> None:
    played(look, f"sidekiq-{version}-beat")
    [process] = ProcessSet(client=client)
    assert (process.identity, process.concurrency, process.busy, process.tag) == (IDENTITY, 2, 1, "app")
    assert (process.version[:3], process.queues[:2]) == (version, ["critical", "default"])
    [work] = WorkSet(client)
    assert (work.process_id, work.thread_id, work.job.klass) == (IDENTITY, "i6t", "OkJob")


def played(look: redis.Redis, name: str) -> None:
    """Send the commands that were recorded."""
    for line in (GOLDEN / "keys" / f"{name}.jsonl").read_text().splitlines():
        words = json.loads(line)
        if words[0] not in ("MULTI", "EXEC"):
            look.execute_command(*words)


def record(lib: str, url: str) -> None:
    """Write `state.json` and `sidekiq-8.1.json`."""
    fill(url, Clock()).close()
    with redis.Redis.from_url(url) as look:
        (FOLDER / "state.json").write_text(json.dumps(dump(look), indent=1, ensure_ascii=False) + "\n")
    words = ["ruby", str(FOLDER / "record.rb"), lib, url]
    asked = json.dumps({"now": NOW, "ask": ASKED})
    done = subprocess.run(words, input=asked, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    (FOLDER / "sidekiq-8.1.json").write_text(done.stdout)


if __name__ == "__main__":
    record(*sys.argv[1:])

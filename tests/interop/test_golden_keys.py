"""The keys of metrics, histograms, `:work` and the process row, against those of Ruby's Sidekiq 8.1 and 7.3.

Debian's 6.4.1 has none of them, so they are compared with recordings: `tests/golden/keys` is played into one server,
Pillion writes the same facts, and what stands there must be equal, with its type and its time to live.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import pillion
from pillion.config import Wire
from pillion.registry import Registry, default
from pillion.setup import Setup
from pillion.store import ops
from pillion.types import Claim, Done, Retry
from pillion.worker import Worker
from pillion.worker.runner import Failure, Finished
from pillion.worker.stats import Stats, flush_commands
from tests.servers import Server
from tests.waiting import wait_until

GOLDEN = Path(__file__).parents[1] / "golden"
FLUSHED_AT = 1656745380.0  # 2022-07-02 07:03 UTC
TIMES = {"App::FooJob": [10, 46, 47, 48, 300, 301, 302, 400_000], "HardWorker": [3, 19, 20]}
IDENTITY = "vm:23985:4bea0fb372db"

Keys = dict[str, tuple[str, Any, int]]

gate = threading.Event()

with default.restored(empty=True):

    @pillion.job(name="OkJob")
    def held_open(*args: object) -> None:
        gate.wait(20)


def play(client: redis.Redis, name: str) -> None:
    """Send the commands of a recording."""
    for line in (GOLDEN / "keys" / f"{name}.jsonl").read_text().splitlines():
        client.execute_command(*json.loads(line))


def seen(client: redis.Redis, *patterns: str) -> Keys:
    """What stands in the keys: type, value, and the seconds that they live, in whole tens."""
    names = sorted(key.decode() for pattern in patterns for key in client.keys(pattern))
    return {
        name: (client.type(name).decode(), READ[client.type(name)](client, name), lives(client, name)) for name in names
    }


def lives(client: redis.Redis, name: str) -> int:
    ttl = client.ttl(name)
    return ttl if ttl < 0 else -(-ttl // 10) * 10


def hash_of(client: redis.Redis, name: str) -> dict[str, str]:
    return {field.decode(): value.decode() for field, value in client.hgetall(name).items()}


READ = {
    b"hash": hash_of,
    b"string": lambda client, name: client.get(name),
    b"set": lambda client, name: {member.decode() for member in client.smembers(name)},
}


# --- metrics ----------------------------------------------------------------------------------------------------------


def written(server: Server, client: redis.Redis, wire: Wire) -> Keys:
    """What Pillion writes for the recorded runs; the server is empty again."""
    stats, claim = Stats(), Claim("owner", 1, "default", b"")
    stats.add(Finished(claim, Done(), (), name, ms / 1000) for name, row in TIMES.items() for ms in row)
    stats.add([failed(claim)])
    setup = Setup(server.url)
    setup.store.run(ops.batch(flush_commands(setup.store.keys, stats.take(), FLUSHED_AT, wire)))
    setup.store.close()
    client.delete(*client.keys("stat:*"))
    found = seen(client, "*")
    server.reset()
    return found


def failed(claim: Claim) -> Finished:
    error = RuntimeError("no")
    failure = Failure(error, None)  # type: ignore[arg-type]  # nobody reads the verdict here
    return Finished(claim, Retry(b"", 0.0), (), "HardWorker", 0.005, failure=failure)


@pytest.mark.rule("keys.minutes", "keys.histogram", "metrics.done", "metrics.failed", "metrics.slots")
def test_metrics_and_histograms_are_those_of_8(server: Server, client: redis.Redis) -> None:
    ours = written(server, client, "8")
    play(client, "sidekiq-8.1-metrics")
    assert ours == seen(client, "*")
    assert len(ours) == 4


@pytest.mark.rule("keys.old-metrics")
@pytest.mark.parametrize("wire", ["7", "6"])
def test_under_an_older_wire_they_are_those_of_7(server: Server, client: redis.Redis, wire: Wire) -> None:
    """And no minute stands under 8's names as well, which would count it twice; tens of minutes only 8 has."""
    ours = written(server, client, wire)
    tens = ours.pop("j|220702|7:0")
    play(client, "sidekiq-7.3-metrics")
    assert ours == seen(client, "*")
    assert tens[:2] == ours["j|20220702|7:3"][:2]


# --- what runs, and the row -------------------------------------------------------------------------------------------


@pytest.fixture
def worker(server: Server, client: redis.Redis, wire: str) -> Iterator[Worker]:
    """A worker like the recorded one, while it runs the recorded job."""
    known = Registry()
    known.register(held_open.definition)
    options: dict[str, Any] = {"queues": ["critical,3", "default,1"], "concurrency": 2, "tag": "app", "heartbeat": 0.05}
    setup = Setup(server.url, registry=known, wire=wire, **options)
    worker = Worker(setup, embedded=True)
    worker.start()
    client.lpush("queue:default", (GOLDEN / "sidekiq-8.1-push.json").read_bytes()[:-1])
    wait_until(lambda: client.hget(worker.identity, "busy") == b"1", what="the job in the row")
    yield worker
    gate.set()
    worker.stop(5)
    gate.clear()
    setup.store.close()


@pytest.mark.rule("keys.work", "keys.process", "process.entry", "process.fields", "process.info")
@pytest.mark.parametrize("wire", ["8", "7"])
@pytest.mark.parametrize("recorded", ["sidekiq-8.1-beat", "sidekiq-7.3-beat"])
def test_work_and_row_are_those_of_8_and_7(worker: Worker, server: Server, client: redis.Redis, recorded: str) -> None:
    ours = seen(client, "processes", f"{worker.identity}*")
    with redis.Redis(unix_socket_path=str(server.socket_path), db=1) as other:
        play(other, recorded)
        golden = seen(other, "*")
    assert {name.replace(IDENTITY, worker.identity) for name in golden} == set(ours)
    assert ours["processes"] == ("set", {worker.identity}, -1)
    assert_same_work(ours[f"{worker.identity}:work"], golden[f"{IDENTITY}:work"])
    assert_same_row(ours[worker.identity], golden[IDENTITY])


def assert_same_work(ours: tuple[str, Any, int], golden: tuple[str, Any, int]) -> None:
    """To the byte, but for the thread's name and the second."""
    assert (ours[0], ours[2]) == (golden[0], golden[2])
    [entry], [expected] = (list(each[1].values()) for each in (ours, golden))
    second = r'"run_at":\d{10}}$'
    assert re.search(second, entry)
    assert re.sub(second, "", entry) == re.sub(second, "", expected)


def assert_same_row(ours: tuple[str, Any, int], golden: tuple[str, Any, int]) -> None:
    """Everything that the recorded version has and reads, in its form; more is allowed."""
    assert (ours[0], ours[2]) == (golden[0], golden[2])
    row, expected = ours[1], golden[1]
    info, expected_info = json.loads(row["info"]), json.loads(expected["info"])
    for name in ("busy", "quiet"):
        assert row[name] == expected[name]
    for name in ("beat", "rtt_us", "rss", *({"concurrency"} & expected.keys())):
        assert form(row[name]) == form(expected[name])
    assert row.keys() - expected.keys() <= {"concurrency"}
    assert info.keys() - expected_info.keys() <= {"capsules", "concurrency"}
    assert {name: type(info[name]) for name in expected_info} == {
        name: type(expected_info[name]) for name in expected_info
    }
    same = expected_info.keys() & {"tag", "concurrency", "capsules", "queues", "weights", "labels"}
    assert {name: info[name] for name in same} == {name: expected_info[name] for name in same}


def form(value: str) -> str:
    """A number with each run of its digits as one."""
    return re.sub(r"\d+", "9", value)

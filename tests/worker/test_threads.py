"""What the threads of a worker are called: by Python, by the system, in the log and in the process's work row."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from pillion.log_format import JsonFormatter
from pillion.worker.title import name_thread, system_name
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

told: SimpleQueue[str] = SimpleQueue()
released = threading.Event()


@pillion.job
def holds_a_thread() -> None:
    logging.getLogger("test.threads").warning("inside")
    told.put(threading.current_thread().name)
    released.wait(20)


@pillion.job
async def holds_nothing() -> None:
    told.put(threading.current_thread().name)


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    released.clear()
    with harness(server) as bed:
        yield bed
        released.set()


def named(name: str, fn: Any) -> Any:
    """What `fn` returns in a thread of this name."""
    found: SimpleQueue[Any] = SimpleQueue()
    thread = threading.Thread(target=lambda: found.put(fn()), name=name)
    thread.start()
    thread.join()
    return found.get()


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("pillion.poller", "poller"),
        ("pillion.heartbeat", "heartbeat"),
        ("pillion.fetcher.default", "fetcher.default"),
        ("pillion.default.1", "default.1"),
        ("pillion.default.64", "default.64"),
        ("pillion.a_capsule_of_reports.12", "a_capsule_of.12"),
        ("pillion.fetcher.a_capsule_of_reports", "fetcher.a_capsu"),
        ("Thread-7", "Thread-7"),
    ],
)
def test_a_system_name_fits_and_keeps_its_number(name: str, short: str) -> None:
    assert named(name, system_name) == short
    assert len(short) <= 15


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names threads this way")
def test_a_thread_tells_the_system_its_name_and_only_its_own() -> None:
    before = Path("/proc/self/comm").read_text()

    def tell() -> str:
        name_thread()
        return Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text()

    assert named("pillion.default.7", tell) == "default.7\n"
    assert Path("/proc/self/comm").read_text() == before


@pytest.mark.rule("life.threads", instead=True)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names threads this way")
def test_every_thread_of_a_worker_is_named_for_the_system(bed: Harness) -> None:
    bed.start()
    bed.push("holds_a_thread")
    bed.push("holds_nothing")
    assert {told.get(timeout=10), told.get(timeout=10)} == {"pillion.default.1", "pillion.loop"}
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("pillion.")]
    names = {Path(f"/proc/self/task/{thread.native_id}/comm").read_text().strip() for thread in ours}
    assert names == {thread.name.removeprefix("pillion.") for thread in ours}
    assert {"default.1", "loop", "fetcher.default", "heartbeat", "poller", "reaper", "watchdog"} <= names


@pytest.mark.rule("log.tid")
@pytest.mark.rule("process.thread")
def test_a_jobs_lines_and_its_work_row_name_the_same_thread(bed: Harness) -> None:
    said = StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("test.threads")
    logger.addHandler(handler)
    try:
        worker = bed.start()
        bed.push("holds_a_thread")
        told.get(timeout=10)
        wait_until(lambda: bed.redis.hkeys(f"{worker.identity}:work"), what="the work row")
        rows = [key.decode() for key in bed.redis.hkeys(f"{worker.identity}:work")]
    finally:
        logger.removeHandler(handler)
    assert rows == [json.loads(said.getvalue())["tid"]]

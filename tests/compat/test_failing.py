"""Jobs and payloads that fail: what is reported, and what a retry is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from tests.waiting import wait_until
from tests.worker.harness import Harness


@pytest.mark.rule("b9.38", "move.malformed")
def test_malformed_json_is_reported_with_its_bytes_and_leaves_its_queue(bed: Harness) -> None:
    heard: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
    bed.setup.error_handlers.append(lambda error, context, config: heard.put(context))
    bed.start()
    bed.raw(b'{"class":')
    context = heard.get(timeout=10)
    assert context["jobstr"] == b'{"class":'
    assert "can never run" in context["context"]
    assert bed.redis.zrange("dead", 0, -1) == [b'{"class":']
    assert bed.redis.keys("queue:*") == []
    wait_until(lambda: not list(bed.redis.scan_iter("pillion:inf:*", _type="list")), what="the claim settled")


@pytest.mark.rule("b9.50", "middleware.changes")
def test_middleware_that_changes_the_arguments_and_raises_leaves_the_retry_alone(bed: Harness) -> None:
    def spoils(job_instance: object, job: dict[str, Any], queue: str) -> Iterator[None]:
        job["args"].append("spoilt")
        job["queue"] = "spoilt"
        raise RuntimeError("after changing them")
        yield

    @pillion.job(name="compat_spoilt")
    def spoilt(n: int) -> None: ...

    bed.setup.server_middleware.add(spoils)
    bed.start()
    bed.push("compat_spoilt", 1)
    wait_until(lambda: bed.members("retry"), what="the retry")
    (retry,) = bed.members("retry")
    assert (retry["args"], retry["queue"], retry["error_message"]) == ([1], "default", "after changing them")

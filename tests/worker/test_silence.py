"""A worker inside another program whose log is switched off."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

import pillion
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import harness


@pillion.job(retry=0)
def fails_aloud() -> None:
    logging.getLogger("pillion.job.fails_aloud").critical("inside")
    raise RuntimeError("loud")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Afterwards, Pillion's logger is as it was."""
    yield
    logging.getLogger("pillion").setLevel(logging.NOTSET)


@pytest.mark.rule("log.off", instead=True)
def test_a_level_from_the_environment_silences_a_worker_in_another_program(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PILLION_LOG_LEVEL", "silent")
    with harness(server) as bed:
        bed.start()
        bed.raw(b"no json")
        bed.push("fails_aloud", retry=0)
        wait_until(lambda: bed.redis.zcard("dead") == 2, what="both to end in the dead set")
    assert [record.getMessage() for record in caplog.records if record.name.startswith("pillion")] == []

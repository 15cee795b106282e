"""A job's own log level, obeyed by the worker that runs it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

import pillion
from tests.worker.harness import Harness

heard, spoken = threading.Event(), threading.Event()
APP = logging.getLogger("shop.compat")


@pytest.fixture(autouse=True)
def log_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever other tests did to logging."""
    monkeypatch.setattr(APP, "disabled", False)
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.WARNING)
    yield
    root.setLevel(before)


@pillion.job(name="compat_speaks")
def speaks(word: str) -> None:
    """Says its word at two levels; the louder of the two jobs goes on until the other has spoken."""
    APP.debug("debug by %s", word)
    if word == "louder":
        heard.set()
        assert spoken.wait(10)
    else:
        assert heard.wait(10)
        APP.debug("debug by %s, meanwhile", word)
        APP.warning("warning by %s", word)
        spoken.set()


@pytest.mark.rule("fields.log_level")
def test_a_jobs_log_level_holds_for_its_own_lines_while_it_runs(bed: Harness, caplog: pytest.LogCaptureFixture) -> None:
    for event in (heard, spoken):
        event.clear()
    bed.push("compat_speaks", "louder", log_level="debug")
    bed.push("compat_speaks", "other")
    bed.start()
    bed.settled(2)
    assert [each.getMessage() for each in caplog.records if each.name == APP.name] == [
        "debug by louder",
        "warning by other",
    ]
    assert logging.getLogger().level == logging.WARNING


@pytest.mark.rule("fields.log_level")
def test_a_higher_level_silences_the_job(bed: Harness, caplog: pytest.LogCaptureFixture) -> None:
    from pillion.log import JobFilter

    caplog.handler.addFilter(quiet := JobFilter())
    try:
        heard.set()
        bed.push("compat_speaks", "other", log_level="error")
        bed.start()
        bed.settled(1)
    finally:
        caplog.handler.removeFilter(quiet)
    assert "warning by other" not in caplog.text

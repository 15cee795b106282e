"""A stored job as pages show it: whoever wrote it, and whatever it holds."""

from __future__ import annotations

import base64
import json
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pillion.api import JobRecord
from tests.api.conftest import NOW, Clock, job

GOLDEN = Path(__file__).parents[1] / "golden"
WRAPPERS = ("Sidekiq::ActiveJob::Wrapper", "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper")


def wrapped(name: str, arguments: list[Any], wrapper: str = WRAPPERS[0]) -> JobRecord:
    """What Rails pushes."""
    return JobRecord(job("j", {"job_class": name, "arguments": arguments}, **{"class": wrapper, "wrapped": name}))


@pytest.mark.rule("api.record")
def test_the_fields_of_a_job(clock: Clock) -> None:
    fields = {"bid": "b", "tags": ["é"], "retry_count": 2, "error_class": "E", "error_message": "no", "own": {"k": 1}}
    times = {
        "created_at": 1_000.0,
        "enqueued_at": int((NOW - 3) * 1000),
        "failed_at": NOW - 2.5,
        "retried_at": NOW - 1.5,
    }
    record = JobRecord(job("j", 1, "two", **fields, **times), clock=clock)
    assert (record.jid, record.klass, record.queue, record.args) == ("j", "Plain", "default", [1, "two"])
    assert (record.bid, record.tags, record.retry_count, record.is_error) == ("b", ["é"], 2, True)
    assert (record.error_class, record.error_message, record["own"], record["nothing"]) == ("E", "no", {"k": 1}, None)
    assert record.created_at == datetime.fromtimestamp(1_000, UTC)
    assert record.failed_at == datetime.fromtimestamp(NOW - 2.5, UTC)
    assert record.retried_at == datetime.fromtimestamp(NOW - 1.5, UTC)
    assert (record.enqueued_at, record.latency) == (datetime.fromtimestamp(NOW - 3, UTC), 3.0)
    assert JobRecord(job("j"), "elsewhere").queue == "elsewhere"
    assert JobRecord(job("j", enqueued_at=NOW)).created_at == datetime.fromtimestamp(NOW, UTC)
    assert JobRecord(job("j")).created_at is None


@pytest.mark.parametrize(
    "fields",
    [
        {"jid": 7, "class": 8, "queue": [], "tags": "slow", "retry_count": "x", "error_backtrace": 5, "args": {}},
        {"jid": None, "class": None, "created_at": "x", "enqueued_at": [], "failed_at": -1, "error_backtrace": "!!"},
        {"display_class": 5, "encrypt": True, "args": [], "wrapped": 9},
        {"class": WRAPPERS[0], "args": []},
        {"class": WRAPPERS[0], "wrapped": "ActionMailer::MailDeliveryJob", "args": [{"arguments": 5}]},
        {"class": WRAPPERS[0], "wrapped": "ActionMailer::MailDeliveryJob", "args": [{"arguments": ["M", "m", "d"]}]},
        {"class": WRAPPERS[0], "wrapped": "ActionMailer::MailDeliveryJob", "args": [{"arguments": [1, 2, 3, []]}]},
        {"class": WRAPPERS[1], "wrapped": {"a": 1}, "args": [[1]]},
    ],
)
def test_whatever_a_job_holds_it_can_be_shown(fields: dict[str, Any]) -> None:
    record = JobRecord(json.dumps({"class": "Plain", "args": [1], "jid": "j", **fields}).encode())
    for name in vars(JobRecord):
        if not name.startswith("_") and name != "touched_at":
            getattr(record, name)
    assert isinstance(record.display_args, list)
    assert isinstance(record.display_class, str)
    assert isinstance(record.touched_at(), float)
    assert record.jid in repr(record)


@pytest.mark.rule("api.display")
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_rails_jobs_show_their_own_class_and_arguments(wrapper: str) -> None:
    arguments = [
        1,
        {"_aj_globalid": "gid://app/User/5"},
        {"k": [{"_aj_globalid": "gid://a/B/1"}], "_aj_symbol_keys": ["k"]},
    ]
    record = wrapped("Billing::Charge", arguments, wrapper)
    assert (record.klass, record.display_class) == (wrapper, "Billing::Charge")
    assert record.display_args == [1, "gid://app/User/5", {"k": ["gid://a/B/1"]}]


@pytest.mark.rule("api.display")
def test_mails_show_mailer_and_method() -> None:
    old = wrapped("ActionMailer::DeliveryJob", ["UserMailer", "welcome", "deliver_now", 1, 2])
    assert (old.display_class, old.display_args) == ("UserMailer#welcome", [1, 2])
    new = wrapped(
        "ActionMailer::MailDeliveryJob",
        ["UserMailer", "welcome", "deliver_now", {"params": {"a": 1}, "args": [2], "_aj_ruby2_keywords": []}],
    )
    assert (new.display_class, new.display_args) == ("UserMailer#welcome", [{"a": 1}, 2])


@pytest.mark.rule("api.display")
def test_a_class_to_show_wins_and_ciphertext_is_not_shown() -> None:
    assert JobRecord(job("j", display_class="Shown")).display_class == "Shown"
    secret = JobRecord(job("j", 1, "BAhTOhFT", encrypt=True))
    assert secret.display_args == [1, "[encrypted data]"]
    assert secret.args == [1, "BAhTOhFT"]


def test_no_argument_shows_where_an_object_is_printed() -> None:
    assert "password" not in repr(JobRecord(job("j", "password")))


@pytest.mark.rule("api.record")
@pytest.mark.parametrize("newline", [b"", b"\n"], ids=["strict", "before-6.5"])
def test_backtraces_of_every_version(newline: bytes) -> None:
    packed = base64.b64encode(zlib.compress(b'["a.rb:1:in x","b.rb:2"]'))
    stored = newline.join(packed[i : i + 60] for i in range(0, len(packed), 60)) + newline
    assert JobRecord(job("j", error_backtrace=stored.decode())).error_backtrace == ["a.rb:1:in x", "b.rb:2"]
    assert JobRecord(job("j", error_backtrace=["a.rb:1"])).error_backtrace == ["a.rb:1"]
    assert JobRecord(job("j")).error_backtrace == []


@pytest.mark.rule("api.record")
@pytest.mark.parametrize("version", ["6.4", "8.1"])
def test_recorded_failures_of_sidekiq_are_read(version: str) -> None:
    record = JobRecord((GOLDEN / f"sidekiq-{version}-second-failure.json").read_bytes().rstrip(b"\n"))
    assert record.fault is None
    assert record.is_error
    assert record.retry_count == 1
    assert record.created_at is not None
    assert record.failed_at is not None
    assert record.retried_at is not None
    assert record.created_at <= record.failed_at <= record.retried_at
    assert record.created_at.year >= 2020

"""The wire format, byte by byte: golden payloads of Ruby's Sidekiq, of other clients, and of Pillion itself.

The files in `tests/golden` are never edited, only added to; its README says where each comes from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from pillion.config import Config, Wire
from pillion.payload import copy_for, decode, encode, normalise, read_time, splice, stamp, verify
from pillion.retry import NO_RULES, decide, unpack_backtrace
from pillion.types import Retry

FOLDER = Path(__file__).parents[1] / "golden"
FILES = sorted(path.stem for path in FOLDER.glob("*.json"))

PUSHED = 1795347718.276
RUBY: dict[str, Any] = {"args": [1, "é/<>", None, 1.5, {"k": [True]}], "class": "OkJob"}
OURS: dict[str, Any] = {
    "class": "HardWorker",
    "args": ["bob", 5, 1.5, None, {"a/b": [True, 2**64]}],
    "customer": 7,
}
OUR_OPTIONS: dict[str, Any] = {"retry": 5, "queue": "mailers", "tags": ["slow", "é"]}
OUR_JID = "aa00bb11cc22dd33ee44ff55"


def golden(name: str) -> bytes:
    raw = (FOLDER / f"{name}.json").read_bytes()
    assert raw.endswith(b"}\n")
    return raw[:-1]


class At(msgspec.Struct, frozen=True):
    """A clock that stands at this time."""

    seconds: float

    def now(self) -> float:
        return self.seconds

    def steady(self) -> float:
        return 0.0


def pushed(
    item: dict[str, Any], options: dict[str, Any], jid: str, wire: Wire, now: float = PUSHED, *, queued: bool = True
) -> bytes:
    """The bytes of a push, made the way the client makes them."""
    config = Config(clock=At(now), new_jid=lambda: jid, wire=wire)
    payload = normalise(item, options=options, config=config)
    verify(payload, config)
    if queued:
        payload["enqueued_at"] = stamp(now, wire)
    return encode(payload)


PUSHES = [
    ("sidekiq-8.1-push", RUBY, {}, "0475b259651ef5988f1bc7ee", "8", PUSHED, True),
    (
        "sidekiq-8.1-schedule",
        {"class": "OkJob", "args": [1]},
        {},
        "37965df7cf20c624448f2c79",
        "8",
        1795347718.278,
        False,
    ),
    (
        "sidekiq-8.1-hard-push",
        {"args": [1], "class": "HardJob"},
        {"retry": 5, "queue": "critical"},
        "137f0e6a9b2c4d58e1f3a7b9",
        "8",
        1795347748.374,
        True,
    ),
    (
        "sidekiq-6.4-schedule",
        {"class": "HardJob", "args": [1]},
        {"retry": 5, "queue": "critical"},
        "9c3a5b0e4f6d7a1b2c8e9f00",
        "6",
        PUSHED,
        False,
    ),
    (
        "pillion-8-kwargs",
        {"class": "send_email", "args": [7], "kwargs": {"template": "welcome"}},
        {},
        OUR_JID,
        "8",
        PUSHED,
        True,
    ),
    *[(f"pillion-{wire}-push", OURS, OUR_OPTIONS, OUR_JID, wire, PUSHED, True) for wire in "876"],
    *[(f"pillion-{wire}-schedule", OURS, OUR_OPTIONS, OUR_JID, wire, PUSHED, False) for wire in "876"],
]


@pytest.mark.rule("server.json", "fields.order", "time.mixed")
@pytest.mark.parametrize(
    ("name", "item", "options", "jid", "wire", "now", "queued"), PUSHES, ids=[str(row[0]) for row in PUSHES]
)
def test_a_push_writes_these_bytes(
    name: str, item: dict[str, Any], options: dict[str, Any], jid: str, wire: Wire, now: float, queued: bool
) -> None:
    assert pushed(item, options, jid, wire, now, queued=queued) == golden(name)


def test_a_bulk_push_writes_the_same_bytes() -> None:
    base = normalise({**OURS, "args": [()]}, options=OUR_OPTIONS, config=Config(clock=At(PUSHED)))
    one = copy_for(base, tuple(OURS["args"]), OUR_JID)
    assert encode(one) == golden("pillion-8-schedule")


FAILURES = [
    ("sidekiq-8.1-hard-push", "sidekiq-8.1-first-failure", "8", RuntimeError("bo\udcc3om"), 1795347748.381),
    ("sidekiq-8.1-first-failure", "sidekiq-8.1-second-failure", "8", "ArgumentError: again", 1795347764.1),
    ("sidekiq-6.4-first-failure", "sidekiq-6.4-second-failure", "6", "ArgumentError: again", 1795347750.5),
    *[
        (f"pillion-{wire}-push", f"pillion-{wire}-first-failure", wire, OSError("no route to host"), 1795347748.381)
        for wire in "876"
    ],
    *[
        (
            f"pillion-{wire}-first-failure",
            f"pillion-{wire}-second-failure",
            wire,
            TimeoutError("timed out"),
            1795347764.1,
        )
        for wire in "876"
    ],
]


@pytest.mark.rule("move.retry")
@pytest.mark.parametrize(("before", "after", "wire", "error", "now"), FAILURES, ids=[str(row[1]) for row in FAILURES])
def test_a_failure_writes_these_bytes(before: str, after: str, wire: Wire, error: Exception | str, now: float) -> None:
    raw = golden(before)
    job = decode(raw)
    verdict = decide(
        raw,
        job,
        job["queue"],
        rubys(error) if isinstance(error, str) else error,
        NO_RULES,
        Config(clock=At(now), wire=wire),
    )
    assert isinstance(verdict.outcome, Retry)
    assert verdict.outcome.payload == golden(after)
    assert encode(verdict.job) == encode(decode(golden(after)))


def rubys(error: str) -> Exception:
    """An error of a class that Python lacks, from "Name: message"."""
    name, _, message = error.partition(": ")
    made: Exception = type(name, (Exception,), {})(message)
    return made


@pytest.mark.parametrize("name", FILES)
def test_every_golden_payload_is_read_and_survives_a_splice(name: str) -> None:
    raw = golden(name)
    job = decode(raw)
    assert splice(raw, {}) == raw
    assert splice(raw, {"queue": "other"}) == raw.replace(f'"queue":"{job["queue"]}"'.encode(), b'"queue":"other"')
    assert {type(job[key]) for key in ("class", "jid", "queue")} == {str}
    assert type(job["args"]) is list
    for key in ("created_at", "enqueued_at", "failed_at", "retried_at"):
        seconds = read_time(job.get(key))
        assert seconds is None if key not in job else seconds is not None and PUSHED <= seconds < PUSHED + 60


@pytest.mark.rule("server.numbers", "backtrace.read")
def test_values_of_other_writers_are_read_as_they_were_meant() -> None:
    assert decode(golden("sidekiq-6.4-push"))["args"] == [1, "é/<>", None, 1.5, 1e20, {"k": [True]}]
    assert decode(golden("mruby-push"))["args"] == ["bob", 5]
    assert unpack_backtrace(decode(golden("sidekiq-8.1-backtrace"))["error_backtrace"]) == [
        "/app/jobs/hard_job.rb:7:in 'charge'",
        "/app/jobs/hard_job.rb:3:in 'HardJob#perform'",
    ]


def test_every_golden_payload_is_accounted_for() -> None:
    written = {str(row[0]) for row in PUSHES} | {name for row in FAILURES for name in row[:2]}
    only_read = {"sidekiq-8.1-backtrace", "sidekiq-6.4-push", "mruby-push"}
    assert sorted(written | only_read) == FILES

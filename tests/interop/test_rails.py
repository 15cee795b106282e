"""What Rails adds to Sidekiq's jobs, between Ruby's Sidekiq and Pillion: wrapped jobs and current attributes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import redis

import pillion
from pillion import activejob
from pillion.contrib import current_attributes
from pillion.payload import decode
from pillion.registry import default
from tests.interop.sides import Console, wait_for_member
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

RAILS = sorted((Path(__file__).parents[1] / "golden" / "rails").glob("*.json"))
WRAPPER = "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper"

user_id: ContextVar[Any] = ContextVar("user_id", default=None)
seen: SimpleQueue[Any] = SimpleQueue()

with default.restored():

    @pillion.job(name="RubyInvoiceJob")
    def ruby_invoice(number: int, *, fail: bool = False) -> None:
        seen.put((number, user_id.get()))
        if fail:
            raise ValueError(f"no invoice {number}")


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    with default.restored(), harness(server, wire="6") as bed:
        default.register(ruby_invoice.definition)
        current_attributes.persist("cattr", user_id, setup=bed.setup)
        yield bed


def push_wrapped(console: Console, **keywords: Any) -> str:
    """What Rails's adapter does, with current attributes that are set."""
    job = {"job_class": "RubyInvoiceJob", "job_id": "0bd7b0b9", "arguments": [17, keywords]}
    item = {"class": WRAPPER, "wrapped": "RubyInvoiceJob", "args": [job], "cattr": {"user_id": 7, "gone_since": [1]}}
    return str(console("Sidekiq::Client.push(args[0])", item))


@pytest.mark.rule("fields.activejob", "fields.cattr")
def test_ruby_pushes_a_wrapped_job_and_it_runs_here(bed: Harness, console: Console) -> None:
    push_wrapped(console, fail=False, _aj_ruby2_keywords=["fail"])
    bed.start()
    assert seen.get(timeout=10) == (17, 7)


@pytest.mark.rule("fields.wrapped", "context.again")
@pytest.mark.parametrize("key", ["Retry", "Dead"])
def test_ruby_sees_a_failed_one_under_its_real_class_and_sends_it_on(
    bed: Harness, console: Console, client: redis.Redis, key: str
) -> None:
    bed.start()
    jid = push_wrapped(console, fail=True, _aj_ruby2_keywords=["fail"])
    assert seen.get(timeout=10) == (17, 7)
    wait_for_member(client, "retry")
    if key == "Dead":
        console("Sidekiq::RetrySet.new.find_job(args[0]).kill", jid)
        wait_for_member(client, "dead")
    job = f"Sidekiq::{key}Set.new.find_job(args[0])"
    cattr = {"user_id": 7, "gone_since": [1]}
    shown = console(f"{job}.then {{ [_1.klass, _1.display_class, _1['cattr']] }}", jid)
    assert shown == [WRAPPER, "RubyInvoiceJob", cattr]
    console(f"{job}.retry", jid)
    assert seen.get(timeout=10) == (17, 7)
    wait_until(lambda: client.zcard("retry"), what="the second failure")
    assert json.loads(client.zrange("retry", 0, -1)[0])["cattr"] == cattr


@pytest.mark.rule("fields.display")
@pytest.mark.parametrize("path", RAILS, ids=lambda path: path.stem)
def test_both_show_the_same_class(console: Console, path: Path) -> None:
    payload = decode(path.read_bytes())
    payload["class"] = WRAPPER  # the one that 6.4 knows
    shown = console("Sidekiq::JobRecord.new(args[0]).display_class", json.dumps(payload))
    assert activejob.shown_class(payload) == shown

"""Jobs that Rails wrapped: run, failed, counted and shown under their real class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import pillion
from pillion import activejob
from pillion.events import JobFailed, JobSettled, JobStarted, JobStopped
from pillion.payload import decode
from tests.servers import Server
from tests.waiting import wait_until
from tests.worker.harness import Harness, harness

GOLDEN = Path(__file__).parents[1] / "golden"
ARGUMENTS = [17, "gid://shop/Customer/5", {"lines": [{"sku": "A-1", "count": 2}]}, "eur"]

seen: SimpleQueue[Any] = SimpleQueue()


def golden(name: str) -> bytes:
    folder = GOLDEN / "rails" if name.startswith("rails") else GOLDEN
    return (folder / f"{name}.json").read_bytes().rstrip(b"\n")


def wrapped(name: str, *arguments: Any, **fields: Any) -> bytes:
    """What Rails writes for a job of this class."""
    job = {"job_class": name, "job_id": "0bd7b0b9", "arguments": list(arguments), "executions": 0}
    payload = {"class": "Sidekiq::ActiveJob::Wrapper", "wrapped": name, "queue": "default", "retry": True, "jid": "j1"}
    return json.dumps(payload | {"args": [job]} | fields).encode()


@pytest.fixture
def bed(server: Server) -> Iterator[Harness]:
    while not seen.empty():
        seen.get()
    with harness(server, capsules={"default": {"queues": ["default", "billing"], "concurrency": 3}}) as bed:
        yield bed


class Invoice(pillion.Job, name="InvoiceJob", retry=3):
    def perform(self, number: int, *details: Any, urgent: bool = False, wait: int = 0) -> None:
        assert self.context is not None
        seen.put((number, list(details), urgent, wait, self.context.name, self.jid))


@pillion.job(name="AsyncInvoiceJob")
async def async_invoice(number: int) -> None:
    seen.put(number)


@pillion.job(
    name="BadInvoiceJob", retry_in=lambda count, error, job: 1000, retries_exhausted=lambda *gone: seen.put(gone)
)
def bad_invoice(number: int) -> None:
    raise ValueError(f"no invoice {number}")


# --- running ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("fields.activejob")
def test_a_job_of_rails_8_runs_with_plain_arguments(bed: Harness) -> None:
    bed.raw(golden("rails-8-activejob"), "billing")
    bed.start()
    number, details, urgent, wait, name, jid = seen.get(timeout=10)
    assert [number, *details] == ARGUMENTS
    assert (urgent, wait) == (True, 90)
    assert (name, jid) == ("InvoiceJob", "5f1d3a7b9c2e4f60718293a4")


@pytest.mark.rule("fields.activejob")
def test_a_job_of_rails_7_runs(bed: Harness) -> None:
    bed.raw(golden("rails-7-activejob"), "billing")
    bed.start()
    assert seen.get(timeout=10)[:5] == (18, [], False, 0, "InvoiceJob")


def test_an_async_definition_runs_on_the_loop(bed: Harness) -> None:
    bed.raw(wrapped("AsyncInvoiceJob", 19))
    bed.start()
    assert seen.get(timeout=10) == 19
    bed.settled(1)
    assert not bed.redis.exists("retry")


def test_server_middleware_sees_the_real_arguments_and_the_wrapper(bed: Harness) -> None:
    def look(instance: object, job: dict[str, Any], queue: str) -> Iterator[None]:
        seen.put((type(instance).__name__, job["class"], job["wrapped"], job["args"], job["kwargs"]))
        yield

    bed.setup.server_middleware.add(look)
    bed.raw(wrapped("InvoiceJob", 20, {"urgent": True, "_aj_ruby2_keywords": ["urgent"]}))
    bed.start()
    assert seen.get(timeout=10) == ("Invoice", "Sidekiq::ActiveJob::Wrapper", "InvoiceJob", [20], {"urgent": True})
    assert seen.get(timeout=10)[:3] == (20, [], True)


def test_a_definition_of_the_wrapper_itself_comes_first(bed: Harness) -> None:
    with pillion.registry.default.restored():

        @pillion.job(name="Sidekiq::ActiveJob::Wrapper")
        def execute(job: dict[str, Any]) -> None:
            seen.put(job["job_class"])

        assert activejob.find(bed.setup.registry, execute.definition.name, "InvoiceJob") is execute.definition
        bed.raw(wrapped("InvoiceJob", 21))
        bed.start()
        assert seen.get(timeout=10) == "InvoiceJob"
        bed.settled(1)


def test_a_reloaded_definition_runs(server: Server) -> None:
    def define(word: str) -> None:
        @pillion.job(name="FreshJob")
        def fresh() -> None:
            seen.put(word)

    @contextmanager
    def reloader() -> Iterator[None]:
        define("loaded again")
        yield

    with pillion.registry.default.restored(), harness(server, reloader=reloader) as bed:
        define("stale")
        bed.raw(wrapped("FreshJob"))
        bed.start()
        assert seen.get(timeout=10) == "loaded again"
        bed.settled(1)


def test_a_due_one_that_middleware_stops_is_announced_under_the_real_class(bed: Harness) -> None:
    def stop(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
        return
        yield

    heard: SimpleQueue[JobStopped] = SimpleQueue()
    bed.setup.events.subscribe(JobStopped, heard.put)
    bed.setup.client_middleware.add(stop)
    bed.redis.zadd("schedule", {wrapped("InvoiceJob", 30): 1})
    bed.start()
    assert heard.get(timeout=10).name == "InvoiceJob"


# --- failing ----------------------------------------------------------------------------------------------------------


def test_a_failed_one_is_stored_as_rails_wrote_it_and_by_the_real_class_rules(bed: Harness) -> None:
    raw = wrapped("BadInvoiceJob", 22)
    bed.raw(raw)
    bed.start()
    wait_until(lambda: bed.members("retry"), what="the retry")
    ((retry, score),) = bed.redis.zrange("retry", 0, -1, withscores=True)
    stored = json.loads(retry)
    assert {name: stored[name] for name in json.loads(raw)} == json.loads(raw)
    assert "kwargs" not in stored
    assert 990 < score - bed.setup.config.clock.now() <= 1110


@pytest.mark.rule("fields.wrapped", "b9.36")
def test_retries_exhausted_of_the_real_class_is_called(bed: Harness) -> None:
    bed.raw(wrapped("BadInvoiceJob", 23, retry=0))
    bed.start()
    job, error = seen.get(timeout=10)
    assert (job["wrapped"], str(error)) == ("BadInvoiceJob", "no invoice 23")
    wait_until(lambda: bed.members("dead"), what="the dead set")


@pytest.mark.rule("fields.wrapped")
def test_the_options_of_the_real_class_say_what_the_payload_does_not(bed: Harness) -> None:
    payload = json.loads(wrapped("InvoiceJob"))
    del payload["retry"]  # the definition says 3, so it is kept; without one it would go to the dead set
    bed.raw(json.dumps(payload))
    bed.start()
    wait_until(lambda: bed.members("retry"), what="the retry")
    assert bed.members("retry")[0]["error_class"] == "ArgumentsError"


def test_an_unknown_one_is_retried_and_the_error_names_the_real_class(bed: Harness) -> None:
    heard: SimpleQueue[JobFailed] = SimpleQueue()
    bed.setup.events.subscribe(JobFailed, heard.put)
    bed.raw(wrapped("InvoicesJob", 24))
    bed.start()
    wait_until(lambda: bed.members("retry"), what="the retry")
    (retry,) = bed.members("retry")
    assert retry["error_class"] == "UnknownJob"
    assert "'InvoicesJob'" in retry["error_message"]
    assert "did you mean 'InvoiceJob'" in retry["error_message"]
    assert heard.get(timeout=10).name == "InvoicesJob"


@pytest.mark.parametrize("args", [[], [1], [{}], [{"arguments": 5}], [{"arguments": []}, 2]])
def test_a_wrapper_without_what_activejob_writes_fails_by_the_real_class_rules(bed: Harness, args: list[Any]) -> None:
    bed.raw(wrapped("BadInvoiceJob", args=args))
    bed.start()
    ((member, score),) = wait_until(lambda: bed.redis.zrange("retry", 0, -1, withscores=True), what="the retry")
    retry = json.loads(member)
    assert (retry["error_class"], retry["args"]) == ("PayloadError", args)
    assert "BadInvoiceJob: expected ActiveJob's hash" in retry["error_message"]
    assert score > bed.setup.config.clock.now() + 900


@pytest.mark.parametrize("real", [None, 5, ["InvoiceJob"], ""])
def test_wrapped_may_be_anything(bed: Harness, real: object) -> None:
    bed.raw(wrapped("InvoiceJob", 25, wrapped=real))
    bed.start()
    wait_until(lambda: bed.members("retry"), what="the retry")
    assert "'Sidekiq::ActiveJob::Wrapper'" in bed.members("retry")[0]["error_message"]


def test_only_the_two_wrappers_are_unwrapped(bed: Harness) -> None:
    bed.raw(wrapped("InvoiceJob", 26, **{"class": "SomeWrapper"}))
    bed.start()
    wait_until(lambda: bed.members("retry"), what="the retry")
    assert bed.members("retry")[0]["error_class"] == "UnknownJob"
    assert seen.empty()


# --- counting and showing ---------------------------------------------------------------------------------------------


@pytest.mark.rule("fields.wrapped")
def test_it_is_announced_and_counted_under_the_real_class(bed: Harness) -> None:
    heard: SimpleQueue[str] = SimpleQueue()
    bed.setup.events.subscribe(JobStarted, lambda event: heard.put(event.name))
    bed.setup.events.subscribe(JobSettled, lambda event: heard.put(event.name))
    bed.raw(wrapped("InvoiceJob", 27))
    bed.raw(wrapped("GoneJob", 28))
    bed.start()
    assert sorted(heard.get(timeout=10) for _ in range(3)) == ["GoneJob", "InvoiceJob", "InvoiceJob"]
    bed.settled(2)
    fields = {field for key in bed.redis.scan_iter("j|*") for field in bed.redis.hkeys(key)}
    assert fields == {b"InvoiceJob|p", b"InvoiceJob|ms", b"GoneJob|p", b"GoneJob|f"}


@pytest.mark.rule("fields.display")
@pytest.mark.parametrize(
    ("name", "shown", "args"),
    [
        ("rails-8-activejob", "InvoiceJob", [*ARGUMENTS, {"urgent": True, "wait": 90}]),
        ("rails-7-activejob", "InvoiceJob", [18]),
        ("rails-8-mail", "UserMailer#welcome", [{"user": "gid://shop/User/7"}, "hello"]),
        ("sidekiq-8.1-push", "OkJob", [1, "é/<>", None, 1.5, {"k": [True]}]),
    ],
)
def test_what_is_shown(name: str, shown: str, args: list[Any]) -> None:
    payload = decode(golden(name))
    before = json.dumps(payload)
    assert (activejob.shown_class(payload), activejob.shown_args(payload)) == (shown, args)
    assert activejob.shown_class(payload | {"display_class": "Say so"}) == "Say so"
    assert activejob.shown_class(payload | {"display_class": 5}) == shown
    assert json.dumps(payload) == before


def test_unwrapping_leaves_the_payload_alone() -> None:
    payload = decode(golden("rails-8-activejob"))
    before = json.dumps(payload)
    assert activejob.unwrap(payload)["kwargs"] == {"urgent": True, "wait": 90}
    assert json.dumps(payload) == before


@pytest.mark.rule("fields.display")
def test_an_old_mail_shows_what_its_method_takes() -> None:
    payload = decode(wrapped("ActionMailer::DeliveryJob", "UserMailer", "bye", "deliver_now", 7, {"a": 1}))
    assert (activejob.shown_class(payload), activejob.shown_args(payload)) == ("UserMailer#bye", [7, {"a": 1}])


@pytest.mark.parametrize("args", [[], [1], [{"arguments": 5}], [{"arguments": ["only"]}]])
def test_what_is_malformed_is_shown_as_it_is(args: list[Any]) -> None:
    payload = decode(wrapped("ActionMailer::MailDeliveryJob", args=args))
    assert activejob.shown_class(payload) == "ActionMailer::MailDeliveryJob"
    assert isinstance(activejob.shown_args(payload), list)


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ({"a": 1, "_aj_hash_with_indifferent_access": True}, {"a": 1}),
        ({"_aj_serialized": "ActiveJob::Serializers::DateSerializer", "value": "2030-01-02"}, "2030-01-02"),
        ({"_aj_serialized": "R", "begin": 1, "end": 2}, {"_aj_serialized": "R", "begin": 1, "end": 2}),
        ([{"_aj_globalid": "gid://a/B/1"}], ["gid://a/B/1"]),
        (None, None),
    ],
)
def test_each_kind_of_argument(sent: Any, taken: Any) -> None:
    assert activejob.plain(sent) == taken

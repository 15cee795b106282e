"""What people bring along from Sidekiq and other libraries: aliases that work, and verbs that say what to write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

import pillion
from pillion import delivery, testing
from pillion import setup as setups
from pillion.registry import default
from pillion.store.ops import Parcel


@pytest.fixture(autouse=True)
def _own_names() -> Iterator[None]:
    with default.restored():
        yield


@pytest.mark.rule("client.inline")
def test_perform_sync_is_perform_inline() -> None:
    class VerbSync(pillion.Job):
        def perform(self, number: int) -> int:
            return number + 1

    @pillion.job
    def verb_sync(number: int) -> int:
        return number * 2

    assert VerbSync.perform_sync(1) == 2
    assert VerbSync.set(queue="other").perform_sync(2) == 3
    assert verb_sync.perform_sync(4) == 8


@pytest.mark.rule("client.delay")
@pytest.mark.parametrize(
    "verb", ["delay", "delay_for", "delay_until", "apply_async", "send", "enqueue", "perform_later"]
)
def test_verbs_of_other_libraries_say_what_to_write(verb: str) -> None:
    class VerbOther(pillion.Job):
        def perform(self) -> None: ...

    @pillion.job
    def verb_other() -> None: ...

    for job in (VerbOther, verb_other, VerbOther.set(queue="x")):
        with pytest.raises(pillion.UsageError, match=r"perform_async\(\.\.\.\)"):
            getattr(job, verb)(1, countdown=3)


@pytest.mark.rule("client.queue_as")
def test_queue_as_changes_the_class_and_not_its_neighbours() -> None:
    class VerbBase(pillion.Job, queue="low"):
        def perform(self) -> None: ...

    class VerbChild(VerbBase): ...

    with testing.fake() as jobs:
        VerbChild.queue_as("critical")
        VerbChild.perform_async()
        VerbBase.perform_async()
        assert [job["queue"] for job in jobs] == ["critical", "low"]
    with pytest.raises(pillion.ConfigError, match="queue"):
        VerbChild.queue_as("no spaces, please")


def test_job_options_tell_what_applies_and_where_it_was_given() -> None:
    class VerbParent(pillion.Job, queue="low", tags=["a"]):
        def perform(self) -> None: ...

    class VerbSon(VerbParent, retry=3): ...

    options = VerbSon.job_options
    assert options["queue"].value == "low"
    assert options["queue"].source.startswith("VerbParent at ")
    assert options["retry"].value == 3
    assert options["retry"].source.startswith("VerbSon at ")
    assert "test_verbs.py" in str(options)
    VerbSon.queue_as("high")
    assert VerbSon.job_options["queue"] == ("high", "changed after the definition")

    @pillion.job(queue="mailers")
    def verb_mail() -> None: ...

    assert verb_mail.job_options["queue"].value == "mailers"
    assert verb_mail.job_options["retry"].value is True


@pytest.mark.rule("client.defaults")
def test_configured_defaults_are_merged_and_named() -> None:
    class VerbPlain(pillion.Job):
        def perform(self) -> None: ...

    before = setups.default._options
    try:
        pillion.configure(default_job_options={"retry": 7, "team": "blue"})
        assert VerbPlain.job_options["retry"] == (7, "code: pillion.configure")
        assert VerbPlain.job_options["team"].value == "blue"
        assert VerbPlain.job_options["queue"].value == "default"
        with testing.fake() as jobs:
            VerbPlain.perform_async()
            (job,) = jobs
            assert (job["retry"], job["team"], job["queue"]) == (7, "blue", "default")
    finally:
        setups.default._options = before
        setups.default._forget()


def test_job_itself_has_no_options() -> None:
    with pytest.raises(AttributeError, match="job class"):
        _ = pillion.Job.job_options


# --- the job class as an argument -------------------------------------------------------------------------------------

FAR = 60.0


@pytest.fixture
def other() -> pillion.Client:
    """A client of another server, with a clock that stands."""
    clock = SimpleNamespace(now=lambda: 1_800_000_000.0, steady=lambda: 0.0)
    return pillion.Client("redis://nobody.invalid/5", clock=clock)


class Noting:
    """Where pushes go in these tests: here."""

    def __init__(self) -> None:
        self.sent: list[tuple[pillion.Client, Parcel, bool]] = []

    def send(self, client: pillion.Client, parcels: Any, *, once: bool, durability: Any) -> None:
        del durability
        self.sent += [(client, parcel, once) for parcel in parcels]

    async def asend(self, client: pillion.Client, parcels: Any, *, once: bool, durability: Any) -> None:
        self.send(client, parcels, once=once, durability=durability)


@pytest.fixture
def noted() -> Iterator[Noting]:
    noting = Noting()
    token = delivery.deliver_here(noting)
    yield noting
    delivery.deliver_as_before(token)


ENQUEUED: list[tuple[str, tuple[Any, ...], str, float | None]] = [
    ("enqueue", (), "low", None),
    ("enqueue_to", ("critical",), "critical", None),
    ("enqueue_in", (FAR,), "low", 1_800_000_060.0),
    ("enqueue_in", (timedelta(minutes=1),), "low", 1_800_000_060.0),
    ("enqueue_in", (1_900_000_000,), "low", 1_900_000_000.0),  # from a thousand million on it is a moment
    ("enqueue_in", (-1,), "low", None),  # due already
    ("enqueue_to_in", ("critical", FAR), "critical", 1_800_000_060.0),
    ("enqueue_to_in", ("critical", 0), "critical", None),
]


@pytest.mark.rule("client.enqueue")
@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize(("verb", "before", "queue", "at"), ENQUEUED)
def test_a_job_class_or_a_function_job_is_enqueued_through_the_client(
    other: pillion.Client, noted: Noting, verb: str, before: tuple[Any, ...], queue: str, at: float | None, twin: bool
) -> None:
    class VerbEnqueued(pillion.Job, queue="low", retry=3, once=True, pool="redis://elsewhere.invalid"):
        def perform(self, name: str, count: int = 1) -> None: ...

    @pillion.job(queue="low")
    def verb_enqueued(name: str, *, count: int = 1) -> None: ...

    def enqueue(job: Any, *args: Any, **kwargs: Any) -> str:
        call = getattr(other, f"a{verb}" if twin else verb)
        jid: str = asyncio.run(call(*before, job, *args, **kwargs)) if twin else call(*before, job, *args, **kwargs)
        return jid

    with pillion.via(pillion.Client("redis://around.invalid")):
        jids = [enqueue(VerbEnqueued, "bob", count=5), enqueue(verb_enqueued, "eve", count=6)]
    (client, first, once), (_, second, not_once) = noted.sent
    assert client is other
    assert [parcel.jid for parcel in (first, second)] == jids
    assert [(parcel.queue, parcel.at) for parcel in (first, second)] == [(queue, at)] * 2
    assert (once, not_once) == (True, False)
    job, function = json.loads(first.raw), json.loads(second.raw)
    assert (job["class"], job["args"], job["queue"], job["retry"]) == ("VerbEnqueued", ["bob", 5], queue, 3)
    assert (function["class"], function["args"], function["kwargs"]) == ("verb_enqueued", ["eve"], {"count": 6})
    assert not {"once", "pool"} & job.keys()


@pytest.mark.rule("client.enqueue")
@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize(
    ("verb", "call", "error", "told"),
    [
        ("enqueue", ("VerbNobody", 1), pillion.UsageError, "got 'VerbNobody'; a job that is known by name only"),
        ("enqueue", (dict,), pillion.UsageError, "expected a job class or a function job, got <class 'dict'>"),
        ("enqueue", (pillion.Job,), pillion.UsageError, "expected a job class"),
        ("enqueue", ("class",), pillion.ArgumentsError, r"expected \(name: str\)"),
        ("enqueue", ("class", 1, 2), pillion.ArgumentsError, r"expected \(name: str\)"),
        ("enqueue", ("class", {1}), pillion.PayloadError, r"args\[0\]"),
        ("enqueue_to", ("no spaces", "class", "x"), pillion.ConfigError, "queue"),
        ("enqueue_to", (None, "class", "x"), pillion.ConfigError, "queue"),
        ("enqueue_in", ("soon", "class", "x"), pillion.PayloadError, "expected an interval"),
        ("enqueue_in", (None, "class", "x"), pillion.PayloadError, "expected an interval"),
        ("enqueue_to_in", ("low", "soon", "class", "x"), pillion.PayloadError, "expected an interval"),
        ("enqueue_to_in", ("a b", 60, "class", "x"), pillion.ConfigError, "queue"),
    ],
)
def test_what_cannot_be_enqueued_is_refused_at_the_call(
    other: pillion.Client, noted: Noting, verb: str, call: tuple[Any, ...], error: type, told: str, twin: bool
) -> None:
    class VerbRefused(pillion.Job):
        def perform(self, name: str) -> None: ...

    given = [VerbRefused if each == "class" else each for each in call]
    call_it = partial(getattr(other, f"a{verb}" if twin else verb), *given)
    with pytest.raises(error, match=told):
        asyncio.run(call_it()) if twin else call_it()
    assert not noted.sent


@pytest.mark.rule("client.enqueue")
def test_enqueue_of_the_class_client_says_that_a_client_is_missing() -> None:
    class VerbOfNobody(pillion.Job):
        def perform(self, name: str) -> None: ...

    with pytest.raises(pillion.UsageError, match=r"write pillion\.Client\(\)\.enqueue"):
        pillion.Client.enqueue(VerbOfNobody, VerbOfNobody, "x")  # type: ignore[arg-type]

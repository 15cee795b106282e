"""Who hears what, what it costs when nobody does, and that a subscriber cannot hurt the one who tells."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import weakref
from typing import Any

import pytest

from pillion.errors import Shutdown
from pillion.events import Event, Events, JobFailed, JobSettled, JobStarted, LeaseLost, StoreBack
from pillion.types import Done


def started(jid: str = "1") -> JobStarted:
    return JobStarted(jid=jid, name="Job", queue="default", attempt=1, payload={})


def settled(kind: type[JobSettled] = JobSettled, **fields: Any) -> JobSettled:
    return kind(jid="1", name="Job", queue="default", attempt=1, payload={}, outcome=Done(), elapsed=0.5, **fields)


def test_subscribers_hear_their_kind_in_the_order_of_subscribing() -> None:
    events, heard = Events(), []
    events.subscribe(JobStarted, lambda event: heard.append(("a", event)))
    events.subscribe(JobStarted, lambda event: heard.append(("b", event)))
    events.subscribe(LeaseLost, lambda event: heard.append(("c", event)))
    event = started()
    events.emit(event)
    assert heard == [("a", event), ("b", event)]
    assert heard[0][1] is event


def test_wanted_tells_whether_anybody_would_hear() -> None:
    events = Events()
    assert events.wanted(JobStarted) is False
    unsubscribe = events.subscribe(JobStarted, print)
    assert events.wanted(JobStarted) is True
    assert events.wanted(JobSettled) is False
    unsubscribe()
    assert events.wanted(JobStarted) is False


def test_who_hears_settled_jobs_hears_failed_ones_and_not_the_other_way_round() -> None:
    events, all_heard, failed_heard = Events(), [], []
    events.subscribe(JobFailed, failed_heard.append)
    assert (events.wanted(JobFailed), events.wanted(JobSettled)) == (True, False)
    events.subscribe(JobSettled, all_heard.append)
    good, bad = settled(), settled(JobFailed, error=ValueError())
    events.emit(good)
    events.emit(bad)
    assert (all_heard, failed_heard) == ([good, bad], [bad])


def test_all_events_can_be_heard_also_of_kinds_that_come_later() -> None:
    events, heard = Events(), []
    events.subscribe(Event, heard.append)

    class Custom(Event, frozen=True):
        pass

    assert events.wanted(Custom)
    events.emit(Custom())
    assert [type(event).__name__ for event in heard] == ["Custom"]


def test_an_event_that_nobody_wants_may_be_emitted() -> None:
    Events().emit(started())


def test_the_same_function_twice_hears_twice_and_each_subscription_ends_alone() -> None:
    events, heard = Events(), []
    first = events.subscribe(StoreBack, heard.append)
    events.subscribe(StoreBack, heard.append)
    events.emit(StoreBack(seconds=1))
    assert len(heard) == 2
    first()
    first()
    events.emit(StoreBack(seconds=1))
    assert len(heard) == 3


def test_unsubscribing_while_being_told_takes_effect_with_the_next_event() -> None:
    events, heard = Events(), []
    ends: list[Any] = []
    events.subscribe(StoreBack, lambda event: [end() for end in ends])
    ends.append(events.subscribe(StoreBack, heard.append))
    events.emit(StoreBack(seconds=1))
    events.emit(StoreBack(seconds=2))
    assert heard == [StoreBack(seconds=1)]


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit("mine"), RecursionError("mine")])
def test_a_subscriber_that_raises_is_logged_and_the_others_still_hear(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: Event) -> None:
        raise error

    events, heard = Events(), []
    events.subscribe(StoreBack, broken)
    events.subscribe(StoreBack, heard.append)
    events.emit(StoreBack(seconds=1))
    assert heard == [StoreBack(seconds=1)]
    [record] = caplog.records
    assert (record.name, record.levelno) == ("pillion", logging.ERROR)
    assert "StoreBack" in record.getMessage()
    assert "broken" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize("error", [Shutdown(), KeyboardInterrupt()])
def test_what_is_meant_for_the_thread_passes(error: BaseException) -> None:
    def interrupted(event: Event) -> None:
        raise error

    events = Events()
    events.subscribe(StoreBack, interrupted)
    with pytest.raises(type(error)):
        events.emit(StoreBack(seconds=1))


@pytest.mark.parametrize("kind", ["JobStarted", dict, started(), None])
def test_what_is_no_kind_of_event_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match="expected a kind of event such as JobSettled, got"):
        Events().subscribe(kind, print)


def test_events_cannot_be_changed() -> None:
    for event in (started(), settled(), StoreBack(seconds=1)):
        with pytest.raises(AttributeError):
            event.jid = "2"  # type: ignore[union-attr]


def test_an_event_in_a_cycle_through_its_errors_traceback_is_collected() -> None:
    class Marker(ValueError):
        pass

    def make() -> weakref.ref[Marker]:
        try:
            raise Marker
        except Marker as error:
            event = settled(JobFailed, error=error)
            return weakref.ref(event.error)

    alive = make()
    gc.collect()
    assert alive() is None


def test_subscribing_and_emitting_from_many_threads_loses_nothing() -> None:
    events, before = Events(), sys.getswitchinterval()
    steady: list[Event] = []
    counts: list[int] = []
    events.subscribe(StoreBack, steady.append)

    def churn() -> None:
        mine: list[Event] = []
        for n in range(300):
            end = events.subscribe(StoreBack, mine.append)
            assert events.wanted(StoreBack)
            events.emit(StoreBack(seconds=n))
            end()
        counts.append(len(mine))

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=churn) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len(steady) == 1200
    assert len(counts) == 4
    assert all(count >= 300 for count in counts)
    heard = len(steady)
    events.emit(StoreBack(seconds=0))
    assert len(steady) == heard + 1

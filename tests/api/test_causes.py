"""Failures by their cause: what counts as one, since when, since which deploy, and what the blanked message is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from pillion import Client
from pillion.api import Causes, Deploy, Search
from pillion.api.causes import blanked, fingerprint
from pillion.api.fingerprint import own_frame
from pillion.api.record import JobRecord
from pillion.retry import pack_backtrace
from tests.api.conftest import NOW, Say, job

HERE = ["/usr/lib/python3.11/json/decoder.py:337:in decode", "/srv/shop/billing.py:41:in Charge.perform"]


def failed(jid: str, message: str = "no user 17", at: float = NOW - 60, **fields: Any) -> bytes:
    """A job that failed."""
    given = {"error_class": "KeyError", "error_message": message, "failed_at": int(at * 1000), "retry_count": 0}
    return job(jid, **{**given, **fields})


def test_without_failures_there_are_no_causes(say: Say, client: Client, look: redis.Redis) -> None:
    look.zadd("dead", {job("never-failed"): NOW, b"not json": NOW})
    assert say(Causes(client).read) == []
    survey = say(Causes(client).survey)
    assert (survey.searched, survey.total) == (2, 2)


def test_what_differs_from_job_to_job_makes_no_other_cause(say: Say, client: Client, look: redis.Redis) -> None:
    look.zadd("dead", {failed(f"d{n}", f"no user {n}", NOW - 1_000 - n): NOW - n for n in range(20)})
    look.zadd("retry", {failed(f"r{n}", f"no user {n}", NOW - n): NOW + n for n in range(1, 6)})
    look.zadd("dead", {failed("other", "no order 7", **{"class": "Ship"}): NOW - 5})
    one, other = say(Causes(client).read)
    assert (one.klass, one.error_class, one.message, one.dead, one.retrying, one.count) == (
        *("Plain", "KeyError", "no user #", 20, 5, 25),
    )
    assert one.first_seen == datetime.fromtimestamp(NOW - 1_019, UTC)
    assert one.last_seen == datetime.fromtimestamp(NOW - 1, UTC)
    assert (one.sample_jid, one.sample_message, one.since_deploy) == ("d0", "no user 0", None)
    assert (other.klass, other.message, other.count) == ("Ship", "no order #", 1)


def test_its_jobs_are_found_by_its_id(say: Say, client: Client, look: redis.Redis) -> None:
    look.zadd("dead", {failed(f"d{n}", f"no user {n}"): NOW - n for n in range(20)})
    look.zadd("dead", {failed("other", "else"): NOW - 5})
    one, other = say(Causes(client).read)
    assert len(say(Search(f"cause:{one.id}", client).page).hits) == 20
    assert [hit.job.jid for hit in say(Search(f"state:dead cause:{other.id[:6]}", client).page).hits] == ["other"]


def test_a_cause_began_after_a_deploy(say: Say, client: Client, look: redis.Redis) -> None:
    deploy = Deploy(client)
    for label, ago in {"v1": 90_000, "v2": 7_200, "v3": 600}.items():
        deploy.mark(label, NOW - ago)
    look.zadd("dead", {failed("a", "a", NOW - 100): NOW, failed("b", "b", NOW - 3_600): NOW})
    look.zadd("dead", {failed("c", "c", NOW - 200_000): NOW, job("d", error_class="KeyError"): NOW})
    found = {cause.message: cause.since_deploy for cause in say(Causes(client).read)}
    assert found == {"a": "v3", "b": "v2", "c": None, "": None}


def test_only_the_last_days(say: Say, client: Client, look: redis.Redis) -> None:
    look.zadd("dead", {failed("new", "new", NOW - 3_600): NOW, failed("old", "old", NOW - 90_000): NOW - 80_000})
    look.zadd("retry", {failed("again", "again", NOW - 900_000, retried_at=int((NOW - 60) * 1000)): NOW + 9})
    assert [cause.message for cause in say(Causes(client).read, 1)] == ["new", "again"]
    assert len(say(Causes(client).read)) == 3
    assert len(say(Causes(client).read, most=2)) == 2


def test_a_budget_is_kept_and_told(say: Say, client: Client, look: redis.Redis) -> None:
    look.zadd("dead", {failed(f"d{n}"): NOW - n for n in range(300)})
    look.zadd("retry", {failed(f"r{n}"): NOW + n for n in range(300)})
    survey = say(Causes(client).survey, budget=350)
    assert (survey.searched, survey.total) == (350, 600)
    assert (survey.causes[0].dead, survey.causes[0].retrying) == (300, 50)


def test_the_first_line_of_the_apps_own_code_counts_and_its_number_does_not() -> None:
    one = fingerprint(JobRecord(failed("a", error_backtrace=pack_backtrace(HERE))))
    moved = [HERE[0], HERE[1].replace(":41:", ":44:")]
    assert fingerprint(JobRecord(failed("b", error_backtrace=pack_backtrace(moved)))) == one
    elsewhere = [HERE[0], "/srv/shop/shipping.py:1:in Ship.perform"]
    assert fingerprint(JobRecord(failed("c", error_backtrace=pack_backtrace(elsewhere)))) != one
    assert fingerprint(JobRecord(failed("d"))) != one


@pytest.mark.parametrize(
    ("lines", "frame"),
    [
        ([], ""),
        (HERE, "/srv/shop/billing.py in Charge.perform"),
        (["/venv/lib/python3.11/site-packages/redis/client.py:3:in get"], ""),
        (["<frozen runpy>:1:in run", "app.py:3:in main"], "app.py in main"),
        (["/gems/sidekiq-8/lib/a.rb:1:in `call'", "/app/jobs/a.rb:9:in 'A#perform'"], "/app/jobs/a.rb in A#perform"),
        ([r"C:\shop\jobs.py:12:in charge"], r"C:\shop\jobs.py in charge"),
        (["no frame at all"], ""),
    ],
)
def test_own_frames(lines: list[str], frame: str) -> None:
    assert own_frame(lines) == frame


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no user 17", "no user #"),
        ("'a' is not 'b'", "'…' is not '…'"),
        ('invalid literal for int() with base 10: "x1"', "invalid literal for int() with base #: '…'"),
        ("<Order object at 0x7f3a12bc>", "<Order object at #>"),
        ("order 550e8400-e29b-41d4-a716-446655440000 is gone", "order # is gone"),
        ("commit a1b2c3d4e5f6 not found", "commit # not found"),
        ("connection to 10.0.0.5:6379 timed out after 1,200.5 s", "connection to # timed out after # s"),
        ("can't add 1 and don't", "can'…'t"),  # a quote is a quote
        ("feedback", "feedback"),
        ("first\nsecond", "first"),
        ("", ""),
        ("x" * 5_000, "x" * 200),
    ],
)
def test_what_a_message_is_without_what_differs(message: str, shown: str) -> None:
    assert blanked(message) == shown


def test_the_words_of_python_group() -> None:
    """What Python says of two jobs that failed alike, with other values."""

    def said(call: Any, *args: Any) -> str:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            call(*args)
        return blanked(str(caught.value))

    assert said(int, "x1") == said(int, "something else")
    assert said({}.__getitem__, "a") == said({}.__getitem__, "b c")
    assert said([].__getitem__, 4) == said([].__getitem__, 5)
    assert said(getattr, 1, "x") == said(getattr, 2, "y")
    assert said(open, "/no/1") == said(open, "/no/such/place")
    assert said(lambda n: n / 0, 1) == said(lambda n: n / 0, 2)
    assert said(bytes.decode, b"\xff") == said(bytes.decode, b"a\xfe")
    assert said(int, "x1") != said(float, "x1")


def test_blanking_takes_no_time_whatever_it_is_given() -> None:
    for text in ("'" * 2_000, "0" * 2_000, "a-" * 1_000, "ab" * 1_000, '"`' * 1_000, "1." * 1_000):
        assert len(blanked(text)) <= 200

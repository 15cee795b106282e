"""The audit: what is noted stands there, newest first, in pages, and only the newest."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import redis

from pillion import Client, UsageError
from pillion.api import Audit
from pillion.store import keys
from tests.api.conftest import Say


def test_nothing_was_done(say: Say, client: Client) -> None:
    page = say(Audit(client).page)
    assert (page.entries, page.next) == ([], None)


def test_a_note_is_kept_as_it_was_given(say: Say, client: Client, look: redis.Redis) -> None:
    audit = Audit(client)
    name = say(audit.note, "pause", by="ann@example.org", filter="mailers")
    say(audit.note, "delete", by="", filter="state:dead é", count=0, result="moved 0", operation="abc")
    newest, first = say(audit.page).entries
    assert first.id == name
    assert (first.by, first.verb, first.filter, first.count, first.result, first.operation) == (
        *("ann@example.org", "pause", "mailers", None, "done", ""),
    )
    assert (newest.by, newest.filter, newest.count, newest.operation) == ("", "state:dead é", 0, "abc")
    assert abs((first.at - datetime.fromtimestamp(look.time()[0], UTC)).total_seconds()) < 60


def test_pages_go_on_where_the_last_one_ended(say: Say, client: Client) -> None:
    audit, seen, after = Audit(client), list[str](), None
    for n in range(25):
        audit.note("pause", by=str(n))
    while True:
        page = say(audit.page, after, 10)
        seen += [note.by for note in page.entries]
        after = page.next
        if after is None:
            break
        audit.note("pause", by="meanwhile")
    assert seen == [str(n) for n in reversed(range(25))]


def test_only_the_newest_are_kept(client: Client, look: redis.Redis) -> None:
    with look.pipeline() as pipe:
        for n in range(keys.MAX_NOTES + 500):
            pipe.xadd("pillion:audit", {"by": str(n)})
        pipe.execute()
    Audit(client).note("pause", by="last")
    assert keys.MAX_NOTES <= look.xlen("pillion:audit") <= keys.MAX_NOTES + 200
    assert Audit(client).page().entries[0].by == "last"


def test_long_texts_are_cut(say: Say, client: Client) -> None:
    say(Audit(client).note, "v" * 9_000, by="b" * 9_000, filter="f" * 9_000, result="r" * 9_000)
    [note] = say(Audit(client).page).entries
    assert [len(text) for text in (note.verb, note.by, note.filter, note.result)] == [200, 200, 2_000, 2_000]


@pytest.mark.parametrize("after", ["", "x", "1", "1-", "1-2-3", "+", "1" * 30 + "-1"])
def test_what_is_no_place_in_it_is_refused(say: Say, client: Client, after: str) -> None:
    with pytest.raises(UsageError, match="begin anew"):
        say(Audit(client).page, after)


def test_what_another_program_has_written_is_shown_as_far_as_it_goes(client: Client, look: redis.Redis) -> None:
    look.xadd("pillion:audit", {"by": b"\xff", "count": "many", "other": "x"})
    [note] = Audit(client).page().entries
    assert (note.by, note.count, note.verb) == ("\ufffd", None, "")

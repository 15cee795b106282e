"""The run log as people read it: pages over both logs, a job's attempts, percentiles, cursors."""

from __future__ import annotations

import pytest
import redis

from pillion import Client, UsageError
from pillion.api.runs import Percentiles, Run, RunCursor, Runs, Times
from pillion.store import run_log
from pillion.store.run_log import Row, State
from tests.api.conftest import NOW, Say

OWNER = "vm:23985:4bea0fb372db/default.1"


def row(
    jid: str, began: float, klass: str = "Mailer", error: str | None = None, *, attempt: int = 1, stands_for: int = 1
) -> Row:
    """A run of 0.25 s that had waited for 2 s; one with an error has failed."""
    outcome = "done" if error is None else "retry"
    times = (int(began * 1000), 250_000, 2_000_000)
    return Row(jid, klass, "default", attempt, *times, outcome, error, error and "it broke", stands_for)


def write(client: Client, state: State, *rows: Row, owner: str = OWNER) -> None:
    """What one process writes with one beat."""
    store = client.store
    for raw in run_log.pack({owner: rows}):
        store.run(run_log.append(store.keys, state, [raw], 10_000_000))


def test_a_run_is_told_in_seconds(say: Say, client: Client) -> None:
    write(client, "failed", row("j1", NOW, error="SMTPServerDisconnected", attempt=3))
    [run] = say.walk(Runs(client))
    assert (run.jid, run.klass, run.queue, run.attempt, run.stands_for) == ("j1", "Mailer", "default", 3, 1)
    assert (run.began, run.seconds, run.ended, run.wait) == (NOW, 0.25, NOW + 0.25, 2.0)
    assert (run.outcome, run.failed, run.error_class, run.error_message) == (
        "retry",
        True,
        "SMTPServerDisconnected",
        "it broke",
    )
    assert (run.identity, run.host) == ("vm:23985:4bea0fb372db", "vm")


def test_an_empty_log_is_one_empty_page(say: Say, client: Client) -> None:
    page = say(Runs(client).page)
    assert (page.entries, page.next) == ([], None)
    assert say(Runs(client).of_job, "j1") == []
    assert say(Runs(client).percentiles, "Mailer") == Percentiles()
    assert say(Runs(client).percentiles_of, []) == {}
    size = say(Runs(client).size)
    assert (size.bytes, size.oldest_done, size.oldest_failed) == (0, None, None)


@pytest.mark.parametrize("most", [1, 3, 50])
def test_pages_go_through_both_logs_newest_first_and_miss_nothing(say: Say, client: Client, most: int) -> None:
    for beat in range(10):
        start = NOW + 10 * beat
        write(client, "done", *(row(f"d{beat}.{n}", start + n) for n in range(5)))
        if beat % 3 == 0:
            write(client, "failed", *(row(f"f{beat}.{n}", start + n + 0.5, error="E") for n in range(5)))
    found: list[Run] = []
    after: RunCursor | None = None
    while True:
        page = say(Runs(client).page, after, most)
        assert len(page.entries) <= most
        found += page.entries
        if page.next is None:
            break
        after = RunCursor.parse(str(page.next))
    assert [run.began for run in found] == sorted((run.began for run in found), reverse=True)
    assert len({run.jid for run in found}) == len(found) == 70
    assert [run.jid for run in say.walk(Runs(client))] == [run.jid for run in found]


def test_a_page_begins_after_any_run(say: Say, client: Client) -> None:
    write(client, "done", *(row(f"d{n}", NOW + n) for n in range(6)))
    write(client, "failed", *(row(f"f{n}", NOW + n + 0.5, error="E") for n in range(6)))
    everything = say(Runs(client).page).entries
    for i, run in enumerate(everything):
        rest = say(Runs(client).page, run.place).entries if run.place != RunCursor(None, None) else []
        assert [each.jid for each in rest] == [each.jid for each in everything[i + 1 :]]


def test_what_is_written_meanwhile_is_not_seen_twice(say: Say, client: Client) -> None:
    write(client, "done", *(row(f"old{n}", NOW + n) for n in range(4)))
    first = say(Runs(client).page, most=2)
    write(client, "done", *(row(f"new{n}", NOW + 10 + n) for n in range(4)))
    write(client, "failed", row("f", NOW + 20, error="E"))
    second = say(Runs(client).page, first.next)
    assert [run.jid for run in first.entries + second.entries] == ["old3", "old2", "old1", "old0"]


def test_only_a_class_a_state_a_job(say: Say, client: Client) -> None:
    write(client, "done", row("a", NOW), row("b", NOW + 1, "Report"), row("a", NOW + 2, "Report"))
    write(client, "failed", row("a", NOW + 3, error="E"))

    def found(**wanted: str) -> list[tuple[str, str, bool]]:
        return [(run.jid, run.klass, run.failed) for run in say(Runs(client).page, **wanted).entries]

    assert found(klass="Report") == [("a", "Report", False), ("b", "Report", False)]
    assert found(state="failed") == [("a", "Mailer", True)]
    assert found(state="done", klass="Mailer") == [("a", "Mailer", False)]
    assert found(jid="b") == [("b", "Report", False)]
    assert found(jid="a", klass="Report") == [("a", "Report", False)]
    assert found(klass="Mail") == []


def test_names_with_quotes_are_found(say: Say, client: Client) -> None:
    odd = 'a "quoted" \\ name ü'
    write(client, "done", row("j", NOW, odd))
    assert [run.klass for run in say(Runs(client).page, klass=odd).entries] == [odd]


def test_the_attempts_of_a_job_oldest_first(say: Say, client: Client) -> None:
    write(client, "failed", row("j1", NOW, error="E", attempt=1), row("j2", NOW, error="E"))
    write(client, "failed", row("j1", NOW + 60, error="F", attempt=2))
    write(client, "done", row("j1", NOW + 120, attempt=3))
    runs = say(Runs(client).of_job, "j1")
    assert [(run.attempt, run.error_class) for run in runs] == [(1, "E"), (2, "F"), (3, None)]
    assert say(Runs(client).of_job, "nobody") == []


def test_a_search_for_a_job_ends_before_the_job_was_made(say: Say, client: Client, look: redis.Redis) -> None:
    filler = [row(f"x{n}", NOW, error="E" * 200) for n in range(20)]
    [raw, *_] = run_log.pack({OWNER: filler})
    for n in range(2_500):
        look.xadd("pillion:runs:failed", {"runs": raw}, id=f"{int(NOW * 1000) + n}-0")
    before = look.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert say(Runs(client).of_job, "missing", since=NOW + 1) == []
    bounded = look.info("commandstats")["cmdstat_evalsha"]["calls"] - before
    assert say(Runs(client).of_job, "missing") == []
    whole = look.info("commandstats")["cmdstat_evalsha"]["calls"] - before - bounded
    assert bounded < whole


def test_a_search_for_a_job_ends_at_its_first_attempt(say: Say, client: Client, look: redis.Redis) -> None:
    [filler, *_] = run_log.pack({OWNER: [row(f"x{n}", NOW, error="E" * 200) for n in range(20)]})
    for n in range(2_500):
        look.xadd("pillion:runs:failed", {"runs": filler}, id=f"{int(NOW * 1000) + n}-0")
    write(client, "failed", row("j", NOW, error="E"))
    before = look.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert len(say(Runs(client).of_job, "j")) == 1
    assert look.info("commandstats")["cmdstat_evalsha"]["calls"] - before == 2


def test_what_the_server_did_not_look_at_yet_comes_before_older_runs_of_the_other_log(say: Say, client: Client) -> None:
    for n in range(120):
        write(client, "failed", *(row(f"f{n}.{i}", NOW + n + i / 100, error="E" * 200) for i in range(20)))
        if n % 40 == 0:
            write(client, "done", row(f"d{n}", NOW + n))
    began, after = list[float](), None
    while True:
        page = say(Runs(client).page, after, 5_000)
        began += [run.began for run in page.entries]
        after = page.next
        if after is None:
            break
    assert len(began) == 120 * 20 + 3
    assert began == sorted(began, reverse=True)


def test_a_page_that_was_trimmed_away_meanwhile_costs_no_other_run(say: Say, client: Client, look: redis.Redis) -> None:
    write(client, "done", *(row(f"old{n}", NOW + n) for n in range(4)))
    write(client, "done", *(row(f"new{n}", NOW + 10 + n) for n in range(4)))
    first = say(Runs(client).page, most=2)
    newest, _ = look.xrevrange("pillion:runs:done", count=1)[0]
    look.xdel("pillion:runs:done", newest)
    assert [run.jid for run in say(Runs(client).page, first.next).entries] == ["old3", "old2", "old1", "old0"]


def test_only_chunks_with_the_text_leave_the_server(client: Client) -> None:
    for n in range(5):
        write(client, "done", row(f"j{n}", NOW))
    found, _ = client.store.run(run_log.page(client.store.keys, "done", containing="j3"))
    assert [stored.chunk.rows[0].jid for stored in found] == ["j3"]


def test_percentiles_weigh_what_a_run_stands_for(say: Say, client: Client) -> None:
    def took(seconds: float, stands_for: int) -> Row:
        times = (int(NOW * 1000), int(seconds * 1e6), None)
        return Row("j", "Weighted", "default", 1, *times, "done", None, None, stands_for)

    write(client, "done", took(0.1, 90), took(1.0, 8), took(10.0, 2), row("r", NOW, "Report"))
    snoozed = Row("s", "Report", "default", 1, int(NOW * 1000), 99_000_000, None, "snoozed", None, None)
    write(client, "done", snoozed)
    found = say(Runs(client).percentiles, "Weighted")
    assert (found.runs, found.sample, found.run, found.wait) == (100, 3, Times(0.1, 1.0, 10.0), None)
    both = say(Runs(client).percentiles_of, ["Weighted", "Report", "Never"])
    assert both["Weighted"] == found
    assert both["Report"] == Percentiles(1, 1, Times(0.25, 0.25, 0.25), Times(2.0, 2.0, 2.0))
    assert both["Never"] == Percentiles()


def test_what_cannot_be_read_spoils_nothing(say: Say, client: Client, look: redis.Redis) -> None:
    write(client, "done", row("good", NOW))
    look.xadd("pillion:runs:done", {"runs": b"not json"})
    look.xadd("pillion:runs:done", {"runs": b'["owner",[[1,2]]]'})
    look.xadd("pillion:runs:done", {"other": "x"})
    assert [run.jid for run in say.walk(Runs(client))] == ["good"]


def test_fields_that_a_later_release_adds_are_passed_over(say: Say, client: Client, look: redis.Redis) -> None:
    newer = b'["vm:1:a/default.1",[["j","C","q",1,1000,5,null,"done",null,null,1,"new"]],"new"]'
    look.xadd("pillion:runs:done", {"runs": newer})
    assert [run.jid for run in say.walk(Runs(client))] == ["j"]


def test_how_much_it_holds(say: Say, client: Client) -> None:
    write(client, "failed", row("j", NOW, error="E"))
    size = say(Runs(client).size)
    assert (size.bytes > 64, size.most, size.oldest_done) == (True, 20 << 20, None)
    assert size.oldest_failed is not None


@pytest.mark.parametrize(
    "text", ["", "~", "-", "1-1.1", "1-1.1~x", "1-1~-", "1-1.1~-\n", "²-1.1~-", "9" * 30 + "-1.1~-"]
)
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected the cursor of a page of runs"):
        RunCursor.parse(text)

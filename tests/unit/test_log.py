"""What is logged about jobs, by whom, at which level, in which form; and that a line cannot be forged."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.config
import os
import pty
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import pillion
from pillion import log
from pillion.config import Config
from pillion.errors import ConfigError, Shutdown
from pillion.events import (
    Events,
    JobFailed,
    JobRescued,
    JobSettled,
    JobStarted,
    JobStopped,
    LeaseLost,
    PayloadRejected,
    StoreBack,
    StoreDown,
)
from pillion.log import JobFilter, JobLines, JsonFormatter, PrettyFormatter, configure, hold_level
from pillion.log_sink import SinkHandler
from pillion.registry import Definition, Place
from pillion.running import RunningJob, enter, leave
from pillion.setup import Setup
from pillion.types import Dead, Discard, Done, Outcome, Requeue, Retry, Snooze

APP = logging.getLogger("app")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
JOB = Definition("HardWorker", print, kind="function", place=Place("app.py", "HardWorker", "app.py:1"))


class FixedClock:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.steadily = 100.0

    def now(self) -> float:
        return 1_800_000_000.0

    def steady(self) -> float:
        return self.steadily


class StartedJob(RunningJob, frozen=True, eq=False):
    """A `RunningJob` that knows when it started."""

    started: float = 100.0


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Afterwards, logging is as it was."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    for handler in root.handlers:
        if isinstance(handler, SinkHandler):
            handler.dispose()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising
    logging.getLogger("pillion").setLevel(logging.NOTSET)
    log._filter.clock = log.SystemClock()


@pytest.fixture
def root() -> logging.Logger:
    """The root logger."""
    return logging.getLogger()


def bare() -> None:
    """Take away the handlers that pytest puts on the root logger while a test runs: a fresh process has none."""
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if "_pytest" not in type(handler).__module__]


class Said(io.StringIO):
    """What was logged to it."""

    def lines(self) -> list[str]:
        return self.getvalue().splitlines()

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]

    def clear(self) -> None:
        self.seek(0)
        self.truncate()


def configured(**options: Any) -> Said:
    """The log of a process configured like this; JSON unless said otherwise."""
    said = Said()
    bare()
    configure(Config(**options), said)
    return said


def payload(**fields: Any) -> dict[str, Any]:
    return {"class": "HardWorker", "jid": "b1", "queue": "default", "args": [], **fields}


@contextmanager
def running(**fields: Any) -> Iterator[RunningJob]:
    """Inside of a job with this payload."""
    job = StartedJob.inline(payload(**fields), JOB)
    token = enter(job)
    try:
        yield job
    finally:
        leave(token)


def record_of(message: object = "hello", *args: object, level: int = logging.INFO, **fields: Any) -> logging.LogRecord:
    record = logging.LogRecord("pillion", level, __file__, 1, message, args, None)
    record.__dict__.update(fields)
    return record


def caught(error: BaseException) -> Any:
    try:
        raise error
    except BaseException:
        return sys.exc_info()


# The context of the running job


def test_every_record_of_a_job_by_any_logger_carries_its_context() -> None:
    clock = FixedClock()
    said = configured(clock=clock)
    with running(tags=["billing", "eu"], bid="batch", retry_count=1):
        clock.steadily = 102.34567
        logging.getLogger("app.billing").warning("one")
        APP.info("two")
    APP.info("three")
    context = {"jid": "b1", "class": "HardWorker", "queue": "default", "attempt": 3, "elapsed": 2.346}
    context |= {"tags": ["billing", "eu"], "bid": "batch"}
    assert [(line["msg"], line.get("ctx")) for line in said.records()] == [
        ("one", context),
        ("two", context),
        ("three", None),
    ]


def test_tasks_and_threads_keep_their_jobs_apart() -> None:
    said = configured()

    async def work(jid: str, first: asyncio.Event, then: asyncio.Event) -> None:
        with running(jid=jid):
            first.set()
            await then.wait()
            APP.info(jid)

    async def main() -> None:
        a, b = asyncio.Event(), asyncio.Event()
        await asyncio.gather(work("a", a, b), work("b", b, a))

    def thread() -> None:
        with running(jid="c"):
            asyncio.run(main())
            APP.info("c")

    one = threading.Thread(target=thread)
    one.start()
    one.join()
    assert sorted((line["msg"], line["ctx"]["jid"]) for line in said.records()) == [("a", "a"), ("b", "b"), ("c", "c")]


def test_a_record_may_bring_the_context_of_a_job_from_elsewhere() -> None:
    said = configured()
    with running(jid="here"):
        APP.info("x", extra={"pillion": {"jid": "elsewhere"}})
    assert said.records()[0]["ctx"] == {"jid": "elsewhere"}


def test_the_context_is_that_of_where_it_was_logged_when_another_thread_formats_it(root: logging.Logger) -> None:
    kept: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    handler = Keeping()
    handler.addFilter(JobFilter())
    root.addHandler(handler)
    with running(jid="a"):
        APP.warning("x")
    with running(jid="b"):
        assert json.loads(JsonFormatter().format(kept[0]))["ctx"]["jid"] == "a"


def test_a_formatter_in_the_apps_own_setup_knows_the_job_without_the_filter(root: logging.Logger) -> None:
    said = Said()
    handler = logging.StreamHandler(said)
    handler.setFormatter(JsonFormatter())
    root.addHandler(handler)
    with running(jid="a"):
        APP.warning("x")
    assert said.records()[0]["ctx"]["jid"] == "a"


@pytest.mark.parametrize("fields", [{"tags": "no list"}, {"tags": [1, None, "ok"]}, {"bid": 7}, {"jid": None}])
def test_a_strange_payload_does_not_break_the_line(fields: dict[str, Any]) -> None:
    said = configured()
    with running(**fields) as job:
        job.payload.pop("jid")
        APP.info("x")
        APP.info("y")
    assert [line["ctx"]["class"] for line in said.records()] == ["HardWorker", "HardWorker"]


def test_tags_are_capped() -> None:
    said = configured()
    with running(tags=["x" * 10_000] * 1_000):
        APP.info("x")
    tags = said.records()[0]["ctx"]["tags"]
    assert len(tags) == 20
    assert {len(tag) for tag in tags} == {256}


# Levels, and a job's own level


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, "info"),
        ({"log_level": "debug"}, "debug"),
        ({"log_level": "warn"}, "warning"),
        ({"log_level": "fatal"}, "critical"),
        ({"log_level": "error", "verbose": True}, "debug"),
    ],
)
def test_the_level_comes_from_the_configuration(options: dict[str, Any], passes: str) -> None:
    said = configured(**options)
    names = ["debug", "info", "warning", "error", "critical"]
    for name in names:
        getattr(APP, name)(name)
    assert [line["msg"] for line in said.records()] == names[names.index(passes) :]


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"log_level: expected one of debug, .* got 'loud'"):
        configure(Config(log_level="loud"), io.StringIO())


@pytest.mark.parametrize(
    ("value", "number"),
    [("debug", 10), ("WARN", 30), ("Fatal", 50), (0, 10), (1, 20), (4, 50), (5, 50), (10, 10), (35, 35), (50, 50)]
    + [(value, None) for value in ("loud", "", 7, -1, 51, True, None, 1.0, [], {})],
)
def test_levels_by_name_by_rubys_number_and_by_pythons(value: object, number: int | None) -> None:
    assert log.level(value) == number


def job_says(own_level: object, hold: bool = True) -> None:
    """Log at each level as a job with this `log_level`, the way a worker runs it."""
    with running(log_level=own_level):
        end = hold_level(own_level) if hold else lambda: None
        try:
            for number, name in [(10, "debug"), (20, "info"), (30, "warning"), (40, "error")]:
                APP.log(number, "job %s", name)
        finally:
            end()


def messages(said: Said) -> list[str]:
    return [line["msg"] for line in said.records()]


def test_a_job_with_a_lower_level_of_its_own_is_heard_and_nobody_else_is(root: logging.Logger) -> None:
    said = configured()
    job_says("debug", hold=False)
    assert messages(said) == ["job info", "job warning", "job error"]
    said.clear()
    with running(jid="other"):
        end = hold_level("debug")
        APP.debug("another job")
        end()
    APP.debug("no job")
    job_says("debug")
    APP.debug("no job any more")
    assert messages(said) == ["job debug", "job info", "job warning", "job error"]
    assert root.level == logging.INFO


def test_a_job_with_a_higher_level_of_its_own_is_silent_below_it(root: logging.Logger) -> None:
    said = configured()
    with running(log_level="error"):
        end = hold_level("error")
        assert root.level == logging.INFO
        APP.warning("job warning")
        APP.error("job error")
        end()
    APP.info("outside")
    assert messages(said) == ["job error", "outside"]


@pytest.mark.parametrize("value", ["loud", None, 99, ["debug"], "info"])
def test_what_is_no_lower_level_changes_nothing(root: logging.Logger, value: object) -> None:
    said = configured()
    end = hold_level(value)
    assert root.level == logging.INFO
    with running(log_level=value):
        APP.info("x")
    end()
    assert messages(said) == ["x"]


def test_the_level_stays_low_until_the_last_such_job_has_ended(root: logging.Logger) -> None:
    configured(log_level="error")
    first, second, third = hold_level("debug"), hold_level("debug"), hold_level("info")
    levels = [root.level]
    for end in (first, first, third, second):
        end()
        levels.append(root.level)
    assert levels == [10, 10, 10, 10, 40]
    first, third = hold_level("debug"), hold_level("info")
    first()
    assert root.level == 20
    third()
    assert root.level == 40


def test_a_logger_with_a_level_of_its_own_keeps_it() -> None:
    said = configured()
    chatty, quiet = logging.getLogger("chatty"), logging.getLogger("quiet")
    chatty.setLevel(logging.DEBUG)
    quiet.setLevel(logging.ERROR)
    try:
        end = hold_level("debug")
        logging.getLogger("chatty.child").debug("chatty")
        with running(log_level="debug"):
            quiet.warning("quiet")
        end()
    finally:
        chatty.setLevel(logging.NOTSET)
        quiet.setLevel(logging.NOTSET)
    assert messages(said) == ["chatty"]


def test_handlers_of_the_app_do_not_get_others_records_while_the_level_is_low(root: logging.Logger) -> None:
    configured()
    said = Said()
    theirs = logging.StreamHandler(said)
    root.addHandler(theirs)
    end = hold_level("debug")
    APP.debug("outside")
    with running(log_level="debug"):
        APP.debug("inside")
    end()
    assert said.lines() == ["inside"]
    assert theirs.filters == []


def test_a_jobs_level_works_without_our_configuration_too(root: logging.Logger) -> None:
    said = Said()
    root.addHandler(logging.StreamHandler(said))
    job_says("debug")
    APP.info("outside")
    assert said.lines() == ["job debug", "job info", "job warning", "job error"]
    assert root.level == logging.WARNING


def test_many_threads_with_levels_of_their_own_leave_the_level_as_it_was(root: logging.Logger) -> None:
    configured()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def churn() -> None:
        for _ in range(1_000):
            hold_level("debug")()

    try:
        threads = [threading.Thread(target=churn) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert root.level == logging.INFO
    assert log._levels.lowered == ()


# Setting up


def test_configuring_twice_writes_once_and_takes_the_newest() -> None:
    old = configured()
    APP.info("old")
    new = configured(log_level="warning")
    APP.info("no")
    APP.warning("new")
    assert (messages(old), messages(new)) == (["old"], ["new"])


def test_configuring_again_and_again_leaves_no_descriptor_open(tmp_path: Any) -> None:
    bare()
    with (tmp_path / "log").open("w") as stream:
        configure(Config(), stream)
        before = len(list(Path("/dev/fd").iterdir()))
        for _ in range(5):
            configure(Config(), stream)
        assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_handler_of_the_app_that_fails_prints_nothing(capfd: pytest.CaptureFixture[str], root: Any) -> None:
    configured()
    closed = io.StringIO()
    closed.close()
    root.addHandler(logging.StreamHandler(closed))
    APP.warning("x")
    assert capfd.readouterr() == ("", "")


@pytest.mark.rule("log.own", instead=True)
def test_handlers_that_the_app_set_up_first_stay_alone_and_learn_the_job(root: logging.Logger) -> None:
    theirs = Said()
    handler = logging.StreamHandler(theirs)
    handler.setFormatter(logging.Formatter("%(message)s %(pillion)s"))
    root.addHandler(handler)
    said = configured(log_level="debug")
    with running(jid="a"):
        APP.warning("x")
        APP.info("the app's level is WARNING")
    assert said.lines() == []
    [line] = theirs.lines()
    assert line.startswith("x {'jid': 'a', 'class': 'HardWorker'")


def test_a_second_call_after_the_apps_dictconfig_repairs_what_that_broke() -> None:
    pillions = logging.getLogger("pillion.worker")
    first = configured()
    logging.config.dictConfig({"version": 1, "loggers": {"app": {"level": "INFO"}}})
    assert pillions.disabled
    pillions.warning("lost")
    second = configured()
    pillions.warning("heard")
    assert (messages(first), messages(second)) == ([], ["heard"])


def test_a_handler_that_logging_shut_down_goes_on_writing(tmp_path: Any) -> None:
    bare()
    path = tmp_path / "log"
    with path.open("w") as stream:
        configure(Config(), stream)
        logging.shutdown()
        APP.info("after")
    assert '"msg":"after"' in path.read_text()


def test_nothing_is_raised_into_the_program_and_nothing_printed(capfd: pytest.CaptureFixture[str]) -> None:
    class Rude:
        def __str__(self) -> str:
            raise ValueError("rude")

        __repr__ = __str__

    said = configured()
    for words, args in [("%d", ("x",)), ("%s %s", ("one",)), ("%s", (Rude(),)), (Rude(), ())]:
        APP.info(words, *args)
    assert messages(said) == [
        "%d (its arguments do not fit)",
        "%s %s (its arguments do not fit)",
        "%s (its arguments do not fit)",
        "(an unreadable message)",
    ]
    APP.info("x", extra={"pillion": {("no", "string"): Rude()}})
    assert said.records()[-1]["ctx"] == {"('no', 'string')": "<Rude>"}
    assert capfd.readouterr() == ("", "")


def terminal_says(monkeypatch: pytest.MonkeyPatch, config: Config, **env: str) -> str:
    """What one warning looks like on a terminal."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    bare()
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        configure(config, stream)
        APP.warning("hello")
        found = os.read(master, 10_000).decode()
    os.close(master)
    return found


def test_a_terminal_gets_pretty_lines_in_colour_and_anything_else_json(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[33mWARN \x1b[0m" in terminal_says(monkeypatch, Config())
    plain = [
        terminal_says(monkeypatch, Config(), NO_COLOR="1"),
        terminal_says(monkeypatch, Config(), TERM="dumb"),
    ]
    for line in plain:
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d\d\d WARN  \[app\] hello\r\n", line)
    assert "\x1b[33m" in terminal_says(monkeypatch, Config(), NO_COLOR="")
    assert json.loads(terminal_says(monkeypatch, Config(log_format="json")))["msg"] == "hello"
    said = configured()
    APP.warning("hello")
    assert said.records()[0]["msg"] == "hello"
    said = configured(log_format="pretty")
    APP.warning("hello")
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d\d\d WARN  \[app\] hello", said.lines()[0])


# Off


def anything_wanted() -> bool:
    """Whether lines about jobs hear of anything at all."""
    events = Events()
    JobLines().attach(events)
    return any(events.wanted(kind) for kind in (JobStarted, JobSettled, JobFailed, StoreDown, PayloadRejected))


@pytest.mark.rule("log.off", instead=True)
def test_a_silent_log_says_nothing_of_ours_and_leaves_the_app_alone(root: logging.Logger) -> None:
    said = configured(log_level="silent", verbose=True)
    assert not any(isinstance(handler, SinkHandler) for handler in root.handlers)
    assert not anything_wanted()
    theirs = Said()
    handler = logging.StreamHandler(theirs)
    root.addHandler(handler)
    for name in ("pillion", "pillion.job.HardWorker", "app"):
        logging.getLogger(name).critical("from %s", name)
    root.removeHandler(handler)
    assert (said.lines(), theirs.lines()) == ([], ["from app"])


def test_a_log_may_be_switched_off_and_on_again(root: logging.Logger) -> None:
    said = configured()
    logging.getLogger("pillion").info("one")
    configure(Config(log_level="silent"), said)
    logging.getLogger("pillion").critical("two")
    configure(Config(), said)
    logging.getLogger("pillion").info("three")
    assert [line["msg"] for line in said.records()] == ["one", "three"]
    assert anything_wanted()


def test_a_level_that_the_app_gave_our_logger_stays() -> None:
    logging.getLogger("pillion").setLevel("ERROR")
    said = configured()
    logging.getLogger("pillion").warning("dropped")
    assert said.lines() == []
    assert logging.getLogger("pillion").level == logging.ERROR


@pytest.mark.rule("log.off", instead=True)
def test_logger_none_holds_in_every_process_from_then_on() -> None:
    setup = Setup(logger=None)
    assert not logging.getLogger("pillion").isEnabledFor(logging.CRITICAL)
    setup.configure(concurrency=3)
    Setup(concurrency=2)
    assert not logging.getLogger("pillion").isEnabledFor(logging.CRITICAL)
    assert setup.config.log_level == "silent"
    setup.configure(log_level="info")
    assert logging.getLogger("pillion").isEnabledFor(logging.CRITICAL)


@pytest.mark.rule("log.level")
def test_the_level_of_the_logger_itself_mutes_too() -> None:
    logging.getLogger("pillion").setLevel(logging.CRITICAL)
    assert not anything_wanted()


# The forms


@pytest.mark.rule("log.plain")
def test_a_plain_line_names_process_and_thread_before_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    said = configured(log_format="plain")
    with running(), pillion.context(order=17):
        APP.warning("hello")
    tid = log_tid(threading.get_ident() ^ os.getpid())
    expected = (
        rf"[\d:]{{8}}\.\d{{3}} WARN  pid={os.getpid()} tid={tid} order=17 jid=b1 class=HardWorker .*: \[app\] hello"
    )
    assert re.fullmatch(expected, said.lines()[0])
    assert "\x1b" not in terminal_says(monkeypatch, Config(log_format="plain"))
    on_heroku = terminal_says(monkeypatch, Config(log_format="plain"), DYNO="web.1")
    assert re.fullmatch(r"WARN  pid=\d+ tid=\w+: \[app\] hello\r\n", on_heroku)


@pytest.mark.rule("log.json")
def test_a_json_line() -> None:
    record = record_of("hello %s", "you", created=1_800_000_000.0456, thread=threading.get_ident())
    record.pillion = {"jid": "a"}
    assert json.loads(JsonFormatter().format(record)) == {
        "ts": "2027-01-15T08:00:00.045Z",
        "pid": os.getpid(),
        "tid": log_tid(threading.get_ident() ^ os.getpid()),
        "lvl": "INFO",
        "logger": "pillion",
        "msg": "hello you",
        "ctx": {"jid": "a"},
    }


def log_tid(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return (log_tid(number // 36) if number >= 36 else "") + digits[number % 36]


def test_times_within_and_across_seconds() -> None:
    formatter = JsonFormatter()
    times = [json.loads(formatter.format(record_of(created=at)))["ts"][-10:] for at in (59.0, 59.9999, 60.0, 59.5)]
    assert times == ["00:59.000Z", "00:59.999Z", "01:00.000Z", "00:59.500Z"]


def test_a_json_line_with_an_exception_has_its_class_message_and_traceback() -> None:
    record = record_of()
    record.exc_info = caught(ValueError("first line\nsecond"))
    error = json.loads(JsonFormatter().format(record))["error"]
    assert (error["class"], error["message"]) == ("ValueError", "first line\nsecond")
    assert error["backtrace"].startswith("Traceback (most recent call last):\n")
    assert "in caught" in error["backtrace"]


def test_what_a_call_passed_as_extra_stands_in_extra() -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)

    def extra(**fields: Any) -> Any:
        return json.loads(JsonFormatter().format(record_of(**fields)))["extra"]

    said = configured()
    APP.info("x")
    APP.info("x", extra={"user": 7})
    assert [line.get("extra") for line in said.records()] == [None, {"user": 7}]
    assert extra(user=7) == {"user": 7}
    assert extra(user=7, name_of={"a": [1, None]}) == {"user": 7, "name_of": {"a": [1, None]}}
    assert extra(what=Config) == {"what": "<class 'pillion.config.Config'>"}
    assert extra(bad=float("nan")) == {"bad": None}
    assert extra(bad=cyclic) == {"bad": "[[...]]"}
    assert extra(bad="\ud800") == {"bad": "\ud800"}
    assert extra(bad="\ud800", worse=float("nan")) == {"bad": "'\\ud800'", "worse": "nan"}
    assert extra(bad={(1, 2): 3}) == {"bad": {"(1, 2)": 3}}


@pytest.mark.rule("log.context")
@pytest.mark.rule("log.pretty", instead=True)
def test_a_pretty_line() -> None:
    record = record_of("hello %s", "you", created=1_800_000_000.0456, level=logging.WARNING)
    record.pillion = {"jid": "a", "class": "Billing::Job", "attempt": 1, "tags": ["x", "y z"], "elapsed": 0.25}
    line = PrettyFormatter().format(record)
    assert re.sub(r"^[\d:]{8}", "T", line) == (
        'T.045 WARN  jid=a class="Billing::Job" attempt=1 tags=x,"y z" elapsed=0.25: hello you'
    )
    assert ANSI.sub("", PrettyFormatter(colour=True).format(record)) == line


def test_a_pretty_traceback_is_indented_below_its_line() -> None:
    record = record_of("failed")
    record.exc_info = caught(ValueError("one\n12:00:00.000 INFO  jid=forged: done"))
    first, *rest = PrettyFormatter().format(record).split("\n")
    assert first.endswith("INFO  failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[1].startswith('      File "')
    assert rest[2].startswith("        ")
    assert rest[-1] == "    12:00:00.000 INFO  jid=forged: done"
    assert all(line.startswith("    ") for line in rest)


FORGING = [
    "x\n12:00:00.000 INFO  jid=forged: done",
    "x\r\ny",
    "x\x1b[2J\x1b[31my",
    "x\x1b]0;title\x07y",
    "x\x00\x07\x08y",
    "x\x85y\x9b31my",
    "x\u2028y\u2029z",
    "x\u202ey\u2066z",
    "x\x7fy",
]


@pytest.mark.parametrize("evil", FORGING, ids=ascii)
@pytest.mark.parametrize("formatter", [PrettyFormatter(), JsonFormatter()], ids=["pretty", "json"])
def test_no_line_can_be_forged(formatter: logging.Formatter, evil: str) -> None:
    record = record_of(evil)
    record.name = evil
    record.pillion = {"class": evil, "tags": [evil]}
    line = formatter.format(record)
    assert line.isprintable()
    record.exc_info = caught(type(evil.replace("\x00", ""), (ValueError,), {"__module__": "m"})(evil))
    record.stack_info = evil
    assert all(part.isprintable() for part in formatter.format(record).split("\n"))


def test_text_that_is_no_unicode_leaves_the_rest_of_a_json_line_as_it_is() -> None:
    record = record_of("\ud800")
    record.pillion = {"jid": "a", "attempt": 1}
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert json.loads(line)["ctx"] == {"jid": "a", "attempt": 1}


@pytest.mark.parametrize("evil", FORGING, ids=ascii)
def test_escapes_in_json_read_back_as_what_they_were(evil: str) -> None:
    assert json.loads(JsonFormatter().format(record_of(evil)))["msg"] == evil
    assert json.loads(JsonFormatter().format(record_of("é 日本 𝄞")))["msg"] == "é 日本 𝄞"
    assert "é 日本 𝄞" in JsonFormatter().format(record_of("é 日本 𝄞"))


def test_a_class_name_cannot_imitate_another_field() -> None:
    record = record_of("m")
    record.pillion = {"class": 'X jid=forged: "done"', "jid": "true"}
    assert PrettyFormatter().format(record).endswith('class="X jid=forged: \\"done\\"" jid=true: m')


@pytest.mark.rule("client.secrets")
@pytest.mark.parametrize("formatter", [PrettyFormatter(), JsonFormatter()], ids=["pretty", "json"])
def test_passwords_are_hidden_wherever_they_stand(formatter: logging.Formatter) -> None:
    url = "redis://user:hunter2@host:6379/0"
    record = record_of("no answer from %s, password=hunter2", url)
    record.address = url
    record.api_token = "hunter2"
    record.other = {"nested": [url], "odd": FixedClock}
    record.exc_info = caught(ValueError(f"cannot reach {url}"))
    record.stack_info = url
    line = formatter.format(record)
    assert "host:6379" in line
    assert "hunter2" not in line


class RudeError(Exception):
    def __str__(self) -> str:
        raise ValueError


def deep_group() -> BaseException:
    error: Exception = ValueError("core")
    for _ in range(10_000):
        error = ExceptionGroup("group", [error])
    return error


@pytest.mark.parametrize("formatter", [PrettyFormatter(), JsonFormatter()], ids=["pretty", "json"])
@pytest.mark.parametrize(
    "make", [RudeError, deep_group, lambda: ValueError("x" * 10_000_000), lambda: ValueError("\ud800")]
)
def test_no_exception_is_too_strange_to_log(formatter: logging.Formatter, make: Callable[[], BaseException]) -> None:
    record = record_of("failed")
    record.exc_info = caught(make())
    line = formatter.format(record)
    assert "failed" in line
    assert 100 < len(line) < 300_000
    line.encode()


# Lines from events


def said_about(*events: Any, level: str = "info", **options: Any) -> list[dict[str, Any]]:
    """The lines that these events make."""
    said = configured(log_level=level, **options)
    hub = Events()
    JobLines().attach(hub)
    for event in events:
        hub.emit(event)
    return said.records()


def started(**fields: Any) -> JobStarted:
    return JobStarted(jid="b1", name="HardWorker", queue="low", attempt=2, payload=payload(**fields))


def settled(outcome: Outcome, error: BaseException | None = None, **fields: Any) -> JobSettled:
    return (JobFailed if error else JobSettled)(
        jid="b1",
        name="HardWorker",
        queue="low",
        attempt=2,
        payload=payload(**fields),
        outcome=outcome,
        elapsed=0.12345,
        error=error,
    )


CONTEXT = {"jid": "b1", "class": "HardWorker", "queue": "low", "attempt": 2}


@pytest.mark.rule("log.context", "log.lines")
def test_start_and_done() -> None:
    first, last = said_about(started(tags=["a"]), settled(Done(), bid="b"))
    assert (first["lvl"], first["msg"], first["ctx"]) == ("INFO", "start", {**CONTEXT, "tags": ["a"]})
    assert (last["lvl"], last["msg"], last["ctx"]) == ("INFO", "done", {**CONTEXT, "bid": "b", "elapsed": 0.123})


@pytest.mark.rule("log.lines")
@pytest.mark.parametrize(
    ("outcome", "error", "level", "message"),
    [
        (Retry(1_800_000_000.7, b""), KeyError("k"), "WARN", "fail, runs again at 2027-01-15T08:00:00Z: KeyError: 'k'"),
        (Retry(1e300, b""), KeyError("k"), "WARN", "fail, runs again at 1e+300: KeyError: 'k'"),
        (Dead(1.0, b""), ValueError("no\nmore"), "WARN", "dead: ValueError: no"),
        (Dead(1.0, b""), ValueError(), "WARN", "dead: ValueError"),
        (Discard("dead=False"), ValueError("no"), "WARN", "discarded (dead=False): ValueError: no"),
        (Discard("account\nwas deleted"), None, "INFO", "discarded (account was deleted)"),
        (Snooze(1_800_000_000.0, b""), None, "INFO", "snoozed until 2027-01-15T08:00:00Z"),
        (Requeue(), None, "INFO", "interrupted, back in its queue"),
        (Requeue(), Shutdown(), "INFO", "interrupted, back in its queue"),
        (Dead(1.0, b""), RudeError(), "WARN", "dead: tests.unit.test_log.RudeError: (the error's own message"),
        (Dead(1.0, b""), ValueError("to redis://u:hunter2@h"), "WARN", "dead: ValueError: to redis://u:***@h"),
        (Dead(1.0, b""), ValueError("x" * 1_000_000), "WARN", "dead: ValueError: xxx"),
    ],
)
def test_each_outcome_has_its_line(outcome: Outcome, error: BaseException | None, level: str, message: str) -> None:
    [line] = said_about(settled(outcome, error))
    assert (line["lvl"], line["msg"][: len(message)]) == (level, message)
    assert len(line["msg"]) < 1_200
    assert line["ctx"] == {**CONTEXT, "elapsed": 0.123}


@pytest.mark.rule("retry.default-handler", instead=True)
def test_a_failed_jobs_line_has_the_traceback_without_our_own_frames_before_it() -> None:
    def job() -> None:
        raise ValueError("no")

    running = compile("def call(job): job()", log.__file__.replace("log.py", "worker/runner.py"), "exec")
    space: dict[str, Any] = {}
    exec(running, space)
    error = ValueError()
    try:
        space["call"](job)
    except ValueError as raised:
        error = raised
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # without this test's frame, as in a worker
    [line] = said_about(settled(Retry(1.0, b""), error))
    assert "in job" in line["error"]["backtrace"]
    assert "runner.py" not in line["error"]["backtrace"]
    assert error.__traceback__ is not None
    assert error.__traceback__.tb_frame.f_code.co_name == "call"


def test_other_facts_have_their_lines() -> None:
    lines = said_about(
        JobStopped(jid="b1", name="HardWorker", queue="low", payload=payload()),
        JobRescued(jid="b1", queue="low", owner="host:1:abc/default.0"),
        JobRescued(jid=None, queue="low", owner="host:1:abc/default.0", rescues=3, dead=True),
        LeaseLost(owner="host:1:abc/default.0", running=2),
        StoreDown(error=OSError("redis://:hunter2@h refused")),
        StoreBack(seconds=2.345),
        PayloadRejected(queue="low", raw=b"{", reason="not JSON\n"),
    )
    assert [(line["lvl"], line["msg"], line.get("ctx")) for line in lines] == [
        ("INFO", "stopped by client middleware when it was due", {"jid": "b1", "class": "HardWorker", "queue": "low"}),
        ("WARN", "rescued from host:1:abc/default.0, to its queue", {"jid": "b1", "queue": "low"}),
        (
            "WARN",
            "rescued from host:1:abc/default.0, to the dead set: it has killed too many processes",
            {"jid": None, "queue": "low"},
        ),
        ("WARN", "lost the lease host:1:abc/default.0: others have its jobs; 2 running here will not count", None),
        ("WARN", "no conversation with Redis: OSError: redis://:***@h refused; trying again", None),
        ("WARN", "Redis is back after 2.3 s", None),
        ("ERROR", "1 bytes that can never run went to the dead set: not JSON", {"queue": "low"}),
    ]


@pytest.mark.parametrize(
    ("level", "wanted"),
    [
        ("debug", {JobStarted, JobSettled, JobFailed, JobStopped, JobRescued, StoreDown, PayloadRejected}),
        ("info", {JobStarted, JobSettled, JobFailed, JobStopped, JobRescued, StoreDown, PayloadRejected}),
        ("warning", {JobFailed, JobRescued, StoreDown, PayloadRejected}),
        ("error", {PayloadRejected}),
        ("fatal", set()),
    ],
)
def test_only_what_will_be_written_is_subscribed_to(level: str, wanted: set[Any]) -> None:
    configured(log_level=level)
    events = Events()
    detach = JobLines().attach(events)
    kinds = {JobStarted, JobSettled, JobFailed, JobStopped, JobRescued, StoreDown, PayloadRejected}
    assert {kind for kind in kinds if events.wanted(kind)} == wanted
    detach()
    assert not any(events.wanted(kind) for kind in kinds)


def test_a_failure_is_written_once_and_at_warning_it_is_all_that_is() -> None:
    events = [started(), settled(Done()), settled(Dead(1.0, b""), ValueError("no"))]
    assert [line["msg"] for line in said_about(*events)] == ["start", "done", "dead: ValueError: no"]
    assert [line["msg"] for line in said_about(*events, level="warning")] == ["dead: ValueError: no"]


def test_the_jobs_own_level_holds_for_its_lines_too() -> None:
    quiet = [started(log_level="error"), settled(Dead(1.0, b""), ValueError(), log_level="warn"), started(log_level=3)]
    assert [line["msg"] for line in said_about(*quiet)] == ["dead: ValueError"]
    assert [line["msg"] for line in said_about(started(log_level="debug"), settled(Done()))] == ["start", "done"]


def test_the_jobs_own_level_holds_where_the_app_has_set_up_the_log(root: logging.Logger) -> None:
    said = Said()
    root.addHandler(logging.StreamHandler(said))
    root.setLevel(logging.INFO)
    events = Events()
    JobLines().attach(events)
    for event in (started(log_level="error"), settled(Done(), log_level="info")):
        events.emit(event)
    assert said.lines() == ["done"]


def test_the_lines_do_not_take_the_context_of_the_job_whose_thread_writes_them() -> None:
    with running(jid="another", log_level="error"):
        [line] = said_about(settled(Done()))
    assert line["ctx"]["jid"] == "b1"


def test_the_lines_go_where_the_pillion_logger_goes() -> None:
    said = configured()
    logger = logging.getLogger("pillion")
    logger.setLevel(logging.ERROR)
    try:
        events = Events()
        JobLines().attach(events)
        assert not events.wanted(JobStarted)
    finally:
        logger.setLevel(logging.NOTSET)
    assert said.lines() == []

"""What a worker says: standard-library logging with the running job's context, and a line per start and end of a job.

`configure` is called by the command line, before and after it imports the app: the first call makes early lines
visible, the second repairs what the app's own logging setup broke. A program that runs a worker inside itself keeps its
logging as it is, and may use the pieces: `JobFilter` on its handlers, the formatters of `log_format.py`.

`JobLines` turns events into lines. It subscribes only to what its logger's level lets through, so that at level
`warning` nobody builds an event for a job that went well. Logging never raises into a job and never blocks it (see
`log_sink.py`); when the process dies, lines already logged are out, except where the sink was blocked.
"""

from __future__ import annotations

import datetime
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

from pillion.clock import Clock, SystemClock
from pillion.config import Config
from pillion.errors import ConfigError
from pillion.events import (
    Event,
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
from pillion.log_format import (
    JsonFormatter,
    PrettyFormatter,
    context_of,
    error_name,
    job_context,
    show_attributes,
)
from pillion.log_sink import SinkHandler
from pillion.mask import mask_secrets
from pillion.plain import one_line, text
from pillion.running import current_job
from pillion.silence import silence
from pillion.types import Dead, Discard, Outcome, Requeue, Retry, Snooze

__all__ = [
    "JobFilter",
    "JobLines",
    "JsonFormatter",
    "PrettyFormatter",
    "configure",
    "hold_level",
    "is_json",
    "job_context",
    "level",
]

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

_LEVELS: Final = {
    "debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40, "fatal": 50, "critical": 50, "unknown": 50,
}  # fmt: skip
_PACKAGE: Final = f"{Path(__file__).parent}{os.sep}"
MAX_WORDS: Final = 1_000
"""Characters of an exception's message in a job's line; the whole of it is in the job and in the traceback."""


def level(value: object) -> int | None:
    """A level as a number: from its name, from Ruby's 0 to 5 or from Python's 10 to 50; None for anything else."""
    if isinstance(value, str):
        return _LEVELS.get(value.lower())
    if type(value) is not int:
        return None
    return min(value * 10 + 10, 50) if 0 <= value <= 5 else value if 10 <= value <= 50 else None


def configure(config: Config, stream: TextIO | None = None) -> None:
    """Set up the root logger, or set it up again: level and format from `config`, lines to `stream` (stderr).

    Where the app has put handlers of its own on the root logger and ours is not there, they and its level stay, and
    only learn which job a record belongs to. Pillion's loggers are enabled again if a `dictConfig` disabled them.
    Where the log is silent, the root logger is left alone, and what the app says on its own loggers is its own affair.

    Raises:
        ConfigError: the level is none.
    """
    off = silence(config)
    number = WARNING if off else DEBUG if config.verbose else level(config.log_level)
    if number is None:
        raise ConfigError(f"log_level: expected one of {', '.join(_LEVELS)}, got {config.log_level!r}")
    logging.raiseExceptions = False
    _filter.clock = config.clock
    show_attributes(config.logged_job_attributes)
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if isinstance(handler, SinkHandler)]
    if ours or not (root.handlers or off):
        _levels.set_base(number)
    if not off and (ours or not root.handlers):
        root.addHandler(_handler(config, stream or sys.stderr))
    for old in ours:
        root.removeHandler(old)
        old.dispose()
    for handler in root.handlers:
        handler.addFilter(_filter)
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "pillion":
            logger.disabled = False


def _handler(config: Config, stream: TextIO) -> SinkHandler:
    handler = SinkHandler(stream)
    terminal, heroku = _is_terminal(stream), bool(os.environ.get("DYNO"))
    if is_json(config, stream):
        handler.setFormatter(JsonFormatter())
    else:
        plain = config.log_format == "plain"
        colour = terminal and not plain and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        handler.setFormatter(PrettyFormatter(colour, timed=not heroku, threads=plain))
    return handler


def is_json(config: Config, stream: TextIO | None = None) -> bool:
    """Whether lines to `stream` (stderr) are for machines, so that nothing else may be written there."""
    if config.log_format is not None:
        return config.log_format == "json"
    return not _is_terminal(stream or sys.stderr) and not os.environ.get("DYNO")


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


class JobFilter(logging.Filter):
    """Goes on a handler: records learn which job they belong to, and a job's own `log_level` holds for them.

    The level a job asks for (key `log_level`) is obeyed here when it is higher than the logger's. When it is lower, the
    record must first be made at all, which is what `hold_level` sees to.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__()
        self.clock = clock or SystemClock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this record is to be written."""
        known = record.__dict__
        if "pillion" not in known:
            known["pillion"] = job_context(self.clock)
        if "pillion_level" not in known:
            running = current_job()
            known["pillion_level"] = level(running.payload.get("log_level")) if running is not None else None
        wanted: int | None = known["pillion_level"]
        if wanted is not None:
            return record.levelno >= wanted
        return record.levelno >= _levels.base or not _levels.lowered or _has_own_level(record.name)


def _has_own_level(name: str) -> bool:
    """Whether a logger would have made a low record anyway, because it or a parent below the root was set to."""
    logger = logging.getLogger(name)
    while logger.parent is not None:
        if logger.level:
            return True
        logger = logger.parent
    return False


class _Levels:
    """The root logger's level: what was configured, or lower while jobs that ask for a lower one are running.

    While it is lowered, every handler of the root logger carries the filter, which lets others' records through only
    from the configured level on. Loggers with a level of their own keep it.
    """

    def __init__(self) -> None:
        self.base = logging.WARNING
        self.lowered: tuple[int, ...] = ()
        self._filtered: list[logging.Handler] = []
        self._lock = threading.Lock()

    def set_base(self, number: int) -> None:
        with self._lock:
            self.base = number
            self._apply()

    def lower(self, number: int) -> bool:
        """Let records of this level be made; False where they are anyway."""
        root = logging.getLogger()
        with self._lock:
            if not self.lowered:
                self.base = root.level
            if number >= self.base:
                return False
            if not self.lowered:
                self._filtered = [handler for handler in root.handlers if _filter not in handler.filters]
                for handler in self._filtered:
                    handler.addFilter(_filter)
            self.lowered = (*self.lowered, number)
            self._apply()
            return True

    def restore(self, number: int) -> None:
        with self._lock:
            place = self.lowered.index(number)
            self.lowered = self.lowered[:place] + self.lowered[place + 1 :]
            self._apply()
            if not self.lowered:
                for handler in self._filtered:
                    handler.removeFilter(_filter)
                self._filtered = []

    def _apply(self) -> None:
        root, wanted = logging.getLogger(), min((self.base, *self.lowered))
        if root.level != wanted:  # setting it empties the caches of all loggers
            root.setLevel(wanted)


_levels: Final = _Levels()
_filter: Final = JobFilter()


def _nothing() -> None:
    pass


def hold_level(value: object) -> Callable[[], None]:
    """Let the records of a job with this `log_level` be made from now on; returns what ends that.

    Called around the run of a job whose payload has the key, and only then: a lower level than the root logger's lowers
    it for as long as such jobs run, which makes every other thread build records that the filter then drops. Anything
    that is no level does nothing.
    """
    number = level(value)
    if number is None or not _levels.lower(number):
        return _nothing
    ended = threading.Lock()

    def end() -> None:
        if ended.acquire(blocking=False):
            _levels.restore(number)

    return end


class JobLines:
    """Writes events as log lines: start, done, fail, dead, and what befalls leases and the connection."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("pillion")

    def attach(self, events: Events, *, only_failures: bool = False) -> Callable[[], None]:
        """Subscribe to what the logger's level lets through now; returns what ends it.

        At `info` that is every job's start and end, at `warning` failed jobs only, as with `only_failures`. A later
        change of level changes nothing here until it is attached again.
        """
        wanted: list[tuple[type[Event], Callable[[Any], None], int]] = [
            (JobStarted, self._started, INFO),
            (JobSettled, self._settled, INFO),
            (JobFailed, self._settled, WARNING),
            (JobStopped, self._stopped, INFO),
            (JobRescued, self._rescued, WARNING),
            (LeaseLost, self._lease_lost, WARNING),
            (StoreDown, self._store_down, WARNING),
            (StoreBack, self._store_back, WARNING),
            (PayloadRejected, self._rejected, ERROR),
        ]
        on = self._logger.isEnabledFor
        if only_failures:
            wanted = wanted[2:]
        elif on(INFO):  # who hears settled jobs hears the failed ones among them
            wanted.pop(2)
        ends = [events.subscribe(kind, fn) for kind, fn, number in wanted if on(number)]

        def detach() -> None:
            for end in ends:
                end()

        return detach

    def _started(self, event: JobStarted) -> None:
        self._about(event, INFO, "start", context_of(event.jid, event.name, event.queue, event.attempt, event.payload))

    def _settled(self, event: JobSettled) -> None:
        shown = context_of(event.jid, event.name, event.queue, event.attempt, event.payload)
        shown["elapsed"] = round(event.elapsed, 3)
        if event.error is None or isinstance(event.outcome, Requeue):
            self._about(event, INFO, _said(event.outcome), shown)
        else:
            self._about(event, WARNING, f"{_said(event.outcome)}: {_why(event.error)}", shown, event.error)

    def _stopped(self, event: JobStopped) -> None:
        shown = {"jid": event.jid, "class": event.name, "queue": event.queue}
        self._about(event, INFO, "stopped by client middleware when it was due", shown)

    def _rescued(self, event: JobRescued) -> None:
        where = "to its queue"
        if event.dead or event.dropped:
            where = f"{'to the dead set' if event.dead else 'and dropped'}: it has killed too many processes"
        shown = {"jid": event.jid, "queue": event.queue}
        self._logger.warning("rescued from %s, %s", event.owner, where, extra={"pillion": shown})

    def _lease_lost(self, event: LeaseLost) -> None:
        words = "lost the lease %s: others have its jobs; %d running here will not count"
        self._logger.warning(words, event.owner, event.running)

    def _store_down(self, event: StoreDown) -> None:
        self._logger.warning("no conversation with Redis: %s; trying again", _why(event.error))

    def _store_back(self, event: StoreBack) -> None:
        self._logger.warning("Redis is back after %.1f s", event.seconds)

    def _rejected(self, event: PayloadRejected) -> None:
        words = "%d bytes that can never run went to the dead set: %s"
        self._logger.error(words, len(event.raw), one_line(event.reason), extra={"pillion": {"queue": event.queue}})

    def _about(
        self,
        event: JobStarted | JobSettled | JobStopped,
        number: int,
        words: str,
        shown: dict[str, Any],
        error: BaseException | None = None,
    ) -> None:
        """Log a line about a job from outside of it: with its context, and obeying its own level."""
        logger = self._logger
        wanted = level(event.payload["log_level"]) if "log_level" in event.payload else None
        if number < wanted if wanted is not None else not logger.isEnabledFor(number):
            return
        exc_info = (type(error), error, _of_the_job(error.__traceback__)) if error is not None else None
        # Not `logger.log`: it would look for the calling line, which costs more than all the rest and says nothing.
        record = logger.makeRecord(logger.name, number, __file__, 0, words, (), exc_info)
        record.pillion = shown
        record.pillion_level = wanted
        logger.handle(record)


def _said(outcome: Outcome) -> str:
    match outcome:
        case Retry(at):
            return f"fail, runs again at {_when(at)}"
        case Dead():
            return "dead"
        case Discard(reason):
            return f"discarded ({one_line(mask_secrets(reason))[:MAX_WORDS]})"
        case Snooze(at):
            return f"snoozed until {_when(at)}"
        case Requeue():
            return "interrupted, back in its queue"
        case _:
            return "done"


def _when(at: float) -> str:
    try:
        return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(at)


def _why(error: BaseException) -> str:
    """An exception in a clause: its class and the first line of its message."""
    said = one_line(mask_secrets(text(error, MAX_WORDS).partition("\n")[0]))
    return f"{error_name(error)}: {said}" if said else error_name(error)


def _of_the_job(traceback: TracebackType | None) -> TracebackType | None:
    """Without the frames of ours that stand before the job's own."""
    found = traceback
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        found = found.tb_next
    return found or traceback

"""How single runs went: the run log, newest first, with the times of a class and every attempt of a job.

Workers write the log with their beat (`worker/run_log.py`): every run that failed, and of those that went well a sample
of each class. `Run.stands_for` says of how many runs it is one, so shares and percentiles are weighted right. It holds
what it holds: at most `run_log_size` bytes and seven days, the oldest go first. All of this only reads, in bounded
steps. What cannot be read is passed over."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, Literal, TypeAlias, cast

import msgspec

from pillion.api.faces import Face, Page, Plan, Walk, ask, faces
from pillion.api.stats import number
from pillion.errors import UsageError
from pillion.store import run_log
from pillion.store.run_log import STATES, Chunk, Row, State, Stored

__all__ = ["LogSize", "Percentiles", "Run", "RunCursor", "RunOutcome", "Runs", "State", "Times"]

RunOutcome: TypeAlias = Literal["done", "retry", "dead", "discarded", "snoozed", "rejected"]

LATELY_BYTES = 256_000
MOST_PAGES = 50
_END = "-"
_PLACE = r"(-|\d{1,20}-\d{1,20}\.\d{1,6})"


class RunCursor(msgspec.Struct, frozen=True):
    """Where a walk through the log stands. `str` gives it for a URL, `RunCursor.parse` takes it back."""

    done: str | None
    failed: str | None

    def __str__(self) -> str:
        return f"{self.done or _END}~{self.failed or _END}"

    @classmethod
    def parse(cls, text: str) -> RunCursor:
        """The cursor that was written so. Raises UsageError for anything else."""
        found = re.fullmatch(f"{_PLACE}~{_PLACE}", text, re.ASCII)
        if found is None:
            raise UsageError(f"expected the cursor of a page of runs, got {text!r:.60}; take it from `page.next`")
        done, failed = (None if place == _END else place for place in found.groups())
        return cls(done, failed)


class Run(msgspec.Struct, frozen=True):
    """One run of a job.

    Attributes:
        jid, klass, queue: which job, by its class on the wire (of a Rails job: the real one), from which queue.
        attempt: 1 for the first run.
        began: when it began, epoch seconds.
        seconds: how long it ran; 0.0 for a job that could not be read.
        wait: seconds from its push (or the last move into its queue) to its beginning; None where that is not known.
        outcome: `done`, `snoozed`, `discarded` (on purpose), `retry` (failed, and will run again), `dead` (failed for
            good), `rejected` (no worker can run it).
        error_class, error_message: what it raised; at most 256 and 500 characters, secrets masked.
        owner: the lease it ran under, `<host>:<pid>:<hex>/<capsule>.<epoch>`.
        stands_for: how many runs it is one of; 1 unless some were left out.
        place: where it stands, for `page(after=...)`.
    """

    jid: str
    klass: str
    queue: str
    attempt: int
    began: float
    seconds: float
    wait: float | None
    outcome: RunOutcome
    error_class: str | None
    error_message: str | None
    owner: str
    stands_for: int
    place: RunCursor

    @property
    def failed(self) -> bool:
        """Whether it raised, or could not be read."""
        return self.error_class is not None

    @property
    def ended(self) -> float:
        """When it ended, epoch seconds."""
        return self.began + self.seconds

    @property
    def identity(self) -> str:
        """The process that ran it, as `ProcessSet` knows it."""
        return self.owner.partition("/")[0]

    @property
    def host(self) -> str:
        """Its host."""
        return self.owner.partition(":")[0]


class Times(msgspec.Struct, frozen=True):
    """Percentiles of a duration, in seconds."""

    p50: float
    p95: float
    p99: float


class Percentiles(msgspec.Struct, frozen=True):
    """How long runs of a class took that went well, and how long they had waited.

    Attributes:
        runs: how many runs the sample stands for.
        sample: how many of them were looked at.
        run, wait: the times; None without a sample.
    """

    runs: int = 0
    sample: int = 0
    run: Times | None = None
    wait: Times | None = None


class LogSize(msgspec.Struct, frozen=True):
    """How much stands in the log.

    Attributes:
        bytes: what its runs need, about.
        most: how much that may be (`run_log_size`).
        oldest_done, oldest_failed: since when it reaches back, epoch seconds; None where there is nothing.
    """

    bytes: int
    most: int
    oldest_done: float | None
    oldest_failed: float | None


class Runs(Face):
    """The run log: `for run in Runs(): ...`, or `async for`, newest first (to within a beat)."""

    def __iter__(self) -> Iterator[Run]:
        return iter(Walk(self, self.plan_page))

    def __aiter__(self) -> AsyncIterator[Run]:
        return Walk(self, self.plan_page).__aiter__()

    def plan_page(
        self,
        after: RunCursor | None = None,
        most: int = 50,
        *,
        klass: str | None = None,
        state: State | None = None,
        jid: str | None = None,
    ) -> Plan[Page[Run, RunCursor]]:
        """The next runs after `after`, which is the `next` of the page before; of a class, a state, a job.

        Two exchanges at most, O(bytes looked at): each looks at 4 MB of the log at most and returns 256 KB. So a page
        may hold fewer than `most`, or none, and not be the last.
        """
        wanted = _wanted(klass, jid)
        tracks = []
        for each in STATES:
            place = "" if after is None else getattr(after, each)
            if place is None or state not in (None, each):
                tracks.append(_Track(each, [], None, 0))
                continue
            at, _, skip = place.partition(".")
            found, more = yield from ask(run_log.page(self.keys, each, at, jid or klass or ""))
            tracks.append(_Track(each, found, more, int(skip or 0) if found and found[0].id == at else 0))
        entries: list[Run] = []
        while len(entries) < most:
            best = max((track for track in tracks if track.head is not None), key=_Track.ended, default=None)
            if best is None or any(track.is_cut for track in tracks):
                break
            row, owner = best.take()
            if wanted(row):
                entries.append(_run(row, owner, RunCursor(*(track.place for track in tracks))))
        cursor = RunCursor(*(track.place for track in tracks))
        return Page(entries, None if cursor == RunCursor(None, None) else cursor)

    page, apage = faces(plan_page)

    def plan_of_job(self, jid: str, since: float | datetime | None = None) -> Plan[list[Run]]:
        """Every logged run of the job with this jid, oldest first.

        It stops at the first attempt, or at what was written before `since`, when the job was made; else O(log), 4 MB
        per exchange.
        """
        start = since.timestamp() if isinstance(since, datetime) else since or 0.0
        found: list[Run] = []
        after: RunCursor | None = None
        for _ in range(MOST_PAGES):
            page = yield from self.plan_page(after, jid=jid)
            found += page.entries
            after = page.next
            if after is None or any(run.attempt == 1 for run in page.entries):
                break
            if all(_written(place) < start for place in (after.done, after.failed) if place):
                break
        return sorted(found, key=lambda run: run.began)

    of_job, aof_job = faces(plan_of_job)

    def plan_percentiles(self, klass: str) -> Plan[Percentiles]:
        """How long runs of a class took and waited lately: 50, 95 and 99 % of those that went well.

        One exchange, O(bytes looked at): 4 MB of the log at most, of which 256 KB are returned.
        """
        return (yield from self._lately([klass], containing=klass))[klass]

    percentiles, apercentiles = faces(plan_percentiles)

    def plan_percentiles_of(self, classes: Sequence[str]) -> Plan[dict[str, Percentiles]]:
        """The same of several classes, from one look at the newest 256 KB of the log. One exchange, O(256 KB)."""
        return (yield from self._lately(classes)) if classes else {}

    percentiles_of, apercentiles_of = faces(plan_percentiles_of)

    def plan_size(self) -> Plan[LogSize]:
        """How much the log holds. O(1), one exchange."""
        sizes, *oldest = yield from ask(run_log.sizes(self.keys))
        times = [_written(each[0][0].decode()) if each else None for each in oldest]
        return LogSize(sum(number(size) for size in sizes or ()), self.config.run_log_size, times[0], times[1])

    size, asize = faces(plan_size)

    def _lately(self, classes: Iterable[str], containing: str = "") -> Plan[dict[str, Percentiles]]:
        chunks, _ = yield from ask(run_log.page(self.keys, "done", "", containing, most_bytes=LATELY_BYTES))
        rows: dict[str, list[Row]] = {klass: [] for klass in classes}
        for row in (row for stored in chunks for row in stored.chunk.rows):
            if row.klass in rows and row.outcome == "done":
                rows[row.klass].append(row)
        return {klass: _percentiles(found) for klass, found in rows.items()}


class _Track:
    """One of the two logs while a page of both is put together: chunks that were read, newest first, and a place."""

    def __init__(self, state: State, found: Sequence[Stored], more: str | None, skip: int) -> None:
        self.state = state
        self._rows = [
            (row, stored.chunk, f"{stored.id}.{i + 1}")
            for stored in found
            for i, row in enumerate(reversed(stored.chunk.rows))
        ][skip:]
        self._at = 0
        self._more = f"{more}.0" if more else None
        self._start = self._rows[0][2] if self._rows else None

    @property
    def head(self) -> Row | None:
        """The next run, if it was read."""
        return self._rows[self._at][0] if self._at < len(self._rows) else None

    @property
    def is_cut(self) -> bool:
        """Whether there is more, which was not read: what the other log has may be older than that."""
        return self._at >= len(self._rows) and self._more is not None

    @property
    def place(self) -> str | None:
        """Where to go on; None at the end."""
        if self._at >= len(self._rows):
            return self._more
        if self._at:
            return self._rows[self._at - 1][2]
        at, _, count = self._rows[0][2].partition(".")
        return f"{at}.{int(count) - 1}"

    def ended(self) -> int:
        """When the next run ended, in microseconds."""
        row = self._rows[self._at][0]
        return row.began * 1000 + row.micros

    def take(self) -> tuple[Row, Chunk]:
        """The next run."""
        row, chunk, _ = self._rows[self._at]
        self._at += 1
        return row, chunk


def _wanted(klass: str | None, jid: str | None) -> Callable[[Row], bool]:
    return lambda row: (klass is None or row.klass == klass) and (jid is None or row.jid == jid)


def _run(row: Row, chunk: Chunk, place: RunCursor) -> Run:
    return Run(
        jid=row.jid,
        klass=row.klass,
        queue=row.queue,
        attempt=row.attempt,
        began=row.began / 1000,
        seconds=row.micros / 1_000_000,
        wait=None if row.wait is None else row.wait / 1_000_000,
        outcome=cast(Any, row.outcome),
        error_class=row.error_class,
        error_message=row.error_message,
        owner=chunk.owner,
        stands_for=row.stands_for,
        place=place,
    )


def _written(place: str) -> float:
    """When the chunk at a place was written, epoch seconds."""
    return int(place.partition("-")[0]) / 1000


def _percentiles(rows: Sequence[Row]) -> Percentiles:
    if not rows:
        return Percentiles()
    waits = [(row.wait, row.stands_for) for row in rows if row.wait is not None]
    runs = [(row.micros, row.stands_for) for row in rows]
    return Percentiles(sum(count for _, count in runs), len(rows), _times(runs), _times(waits))


def _times(pairs: list[tuple[int, int]]) -> Times | None:
    """The percentiles of values in microseconds, each with how often it counts."""
    if not pairs:
        return None
    pairs.sort()
    sums = list(accumulate(count for _, count in pairs))
    return Times(*(pairs[bisect_left(sums, share * sums[-1])][0] / 1_000_000 for share in (0.50, 0.95, 0.99)))

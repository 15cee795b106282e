"""Failures by their cause: what is dead or retrying, grouped by what went wrong.

A cause is a job class, an exception, the first line of the app's own code in the backtrace (where one was kept), and
the message with its numbers, hex digits and quoted parts blanked, so that 10,000 rows of one error are one line. It
reads the newest entries up to a budget and says how many those were."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import msgspec

from pillion.api.deploy import Deploy
from pillion.api.faces import Face, Plan, ask, faces
from pillion.api.fingerprint import blanked, fingerprint, own_frame
from pillion.api.places import LOOK_AT, Cursor, Place
from pillion.api.record import JobRecord
from pillion.store import reads

__all__ = ["Cause", "Causes", "Survey", "blanked", "fingerprint"]

DAY = 86_400.0
MOST_DAYS = 90


class Cause(msgspec.Struct, frozen=True):
    """Jobs that failed for one reason.

    Attributes:
        id: 12 hex digits, stable; `cause:7f3a...` in the search language means its jobs.
        klass: as people know it.
        error_class: "" where the job does not say.
        message: blanked, at most 200 characters.
        frame: the first line of the app's own code, `file in function`; "" where no backtrace was kept.
        dead, retrying: how many jobs.
        first_seen, last_seen: when the first of them failed first, and the last of them last (UTC).
        since_deploy: the label of the deploy after which it began, None where that is not known.
        sample_jid: one of its jobs.
        sample_message: that one's message, in full.
    """

    id: str
    klass: str
    error_class: str
    message: str
    frame: str
    dead: int
    retrying: int
    first_seen: datetime | None
    last_seen: datetime | None
    since_deploy: str | None
    sample_jid: str
    sample_message: str = ""

    @property
    def count(self) -> int:
        """Dead and retrying together."""
        return self.dead + self.retrying


class Survey(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        causes: the largest first.
        searched, total: how many entries were looked at, of how many.
    """

    causes: list[Cause]
    searched: int
    total: int


class Causes(Face):
    """The causes of what is dead or retrying."""

    def plan_read(self, days: float | None = None, most: int = 50, budget: int = 20_000) -> Plan[list[Cause]]:
        """The causes of the last `days` (all), the largest first. O(budget): about so many entries are looked at."""
        return (yield from self.plan_survey(days, most, budget)).causes

    read, aread = faces(plan_read)

    def plan_survey(self, days: float | None = None, most: int = 50, budget: int = 20_000) -> Plan[Survey]:
        """The same, and how much of the two sets that tells of. O(budget), 2,000 entries per exchange."""
        since = 0.0 if days is None else self.config.clock.now() - days * DAY
        groups: dict[str, _Group] = {}
        searched = 0
        for state in ("dead", "retry"):
            searched += yield from self._through(Place(state, "", self.client), since, budget - searched, groups)
        sizes = yield from ask(reads.ask([("ZCARD", self.keys.dead), ("ZCARD", self.keys.retry)]))
        found = sorted(groups.values(), key=lambda group: -group.seen.total())[:most]
        deployed = yield from self._deploys([group.first for group in found])
        causes = [group.cause(deployed) for group in found]
        return Survey(causes, searched, max(searched, sum(int(size or 0) for size in sizes)))

    survey, asurvey = faces(plan_survey)

    def _through(self, place: Place, since: float, budget: int, groups: dict[str, _Group]) -> Plan[int]:
        """Sort the newest entries of a set into groups; returns how many those were."""
        cursor: Cursor | None = None
        looked = 0
        while looked < budget:
            part = yield from place.plan_part(cursor, look_at=min(LOOK_AT, budget - looked))
            looked += part.looked
            for job in part.jobs:
                cause, when = fingerprint(job), _last(job)
                if cause and when >= since:
                    groups.setdefault(cause, _Group(cause, job)).add(place.state, job, when)
            cursor = part.next
            if cursor is None:
                break
        return looked

    def _deploys(self, firsts: list[float]) -> Plan[Callable[[float], str | None]]:
        """Tells the label of the last deploy before a moment. O(days), one exchange."""
        today = datetime.fromtimestamp(self.config.clock.now(), UTC).date()
        oldest = min((_day(first) for first in firsts if first), default=today)
        count = min(MOST_DAYS, max(0, (today - oldest).days + 7))
        listed = yield from Deploy(self.client).plan_fetch_days([today - timedelta(days=n) for n in range(count + 1)])
        marks = sorted((read, label) for day in listed for time, label in day.items() if (read := _minute(time)))
        times = [time for time, _ in marks]

        def before(moment: float) -> str | None:
            at = bisect_right(times, moment) if moment else 0
            return marks[at - 1][1] if at else None

        return before


class _Group:
    """The jobs of one cause while they are counted."""

    def __init__(self, cause: str, sample: JobRecord) -> None:
        self.name = cause
        self.sample = sample
        self.seen: Counter[str] = Counter()
        self.first = self.last = 0.0

    def add(self, state: str, job: JobRecord, when: float) -> None:
        self.seen[state] += 1
        first = job.failed_at.timestamp() if job.failed_at else when
        self.first = min(self.first or first, first)
        self.last = max(self.last, when)

    def cause(self, deployed: Callable[[float], str | None]) -> Cause:
        job, message = self.sample, self.sample.error_message or ""
        return Cause(
            id=self.name,
            klass=job.display_class,
            error_class=job.error_class or "",
            message=blanked(message),
            frame=own_frame(job.error_backtrace),
            dead=self.seen["dead"],
            retrying=self.seen["retry"],
            first_seen=_moment(self.first),
            last_seen=_moment(self.last),
            since_deploy=deployed(self.first),
            sample_jid=job.jid,
            sample_message=message,
        )


def _last(job: JobRecord) -> float:
    """When it last failed, epoch seconds; 0.0 where it does not say."""
    when = job.retried_at or job.failed_at
    return when.timestamp() if when else 0.0


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _day(seconds: float) -> date:
    return datetime.fromtimestamp(seconds, UTC).date()


def _minute(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0

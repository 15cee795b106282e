"""Deploys, marked so that every chart shows when they were: `Deploy().mark("v42")`, or `pillion deploy v42`.

Sidekiq's marks, so both dashboards show both. One mark a minute, and one a minute for each label, so that every machine
of a deploy may mark it. A mark lives for 90 days. It is one script: there is a mark afterwards or none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

from pillion.api.faces import Face, Plan, ask, faces
from pillion.due import check_moment
from pillion.errors import UsageError
from pillion.store import reads, repair
from pillion.store.op import text

GIT = ("git", "log", "-1", "--format=%h %s")
PATIENCE = 10.0
MAX_LABEL = 200


class Deploy(Face):
    """The marks of deploys."""

    def plan_mark(self, label: str | None = None, at: float | datetime | None = None) -> Plan[bool]:
        """Mark a deploy now, or at another time; False where it was marked a moment ago or its minute is taken. O(1).

        Without a label it is the last commit, `<hash> <subject>`, of the git checkout that the process runs in. Raises
        UsageError for an empty label or where there is no checkout.
        """
        label = last_commit() if label is None else label
        if not label.strip() or len(label) > MAX_LABEL:
            raise UsageError(f"expected a label of 1 to {MAX_LABEL} characters, got {label!r:.40}")
        seconds = self.config.clock.now() if at is None else check_moment("a deploy", at)
        time = datetime.fromtimestamp(seconds, UTC)
        return (yield from ask(repair.mark_deploy(self.keys, label, f"{time:%Y%m%d}", f"{time:%Y-%m-%dT%H:%M:00Z}")))

    mark, amark = faces(plan_mark)

    def plan_fetch(self, day: date | None = None) -> Plan[dict[str, str]]:
        """The marks of a day (UTC, today): label by minute (ISO 8601). O(marks)."""
        day = day or datetime.fromtimestamp(self.config.clock.now(), UTC).date()
        return (yield from self.plan_fetch_days([day]))[0]

    fetch, afetch = faces(plan_fetch)

    def plan_fetch_days(self, days: Sequence[date]) -> Plan[list[dict[str, str]]]:
        """The marks of each of these days. O(days + marks), one exchange."""
        answers = yield from ask(reads.ask([("HGETALL", self.keys.marks(f"{day:%Y%m%d}")) for day in days]))
        return [{text(time): text(label) for time, label in reads.mapping(answer).items()} for answer in answers]

    fetch_days, afetch_days = faces(plan_fetch_days)


def last_commit() -> str:
    """The last commit of the checkout that this process runs in. Raises UsageError where there is none."""
    import subprocess  # noqa: PLC0415 - for a deploy that is marked, not for charts that show it

    try:
        done = subprocess.run(GIT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"expected a label or a git checkout, got neither ({error}); name the deploy") from None
    if done.returncode != 0 or not done.stdout.strip():
        raise UsageError("expected a label or a git checkout with a commit, got neither; name the deploy")
    return done.stdout.strip()[:MAX_LABEL]

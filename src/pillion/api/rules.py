"""The rules of the verdict: each looks at a snapshot and says what it holds against it, in words. `verdict.py` judges.

Pure, and simple on purpose: a number, a threshold, and a sentence that a tired person can act on. A finding says itself
since when it holds where the snapshot tells (the oldest job of a queue, a deploy), so that a rule need not remember.
`values` are the figures of the sentence, for those who say it in another language."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from pillion.api.overview import ClassTimes, QueueNow, Snapshot

Level: TypeAlias = Literal["ok", "notice", "alarm"]
Targets: TypeAlias = Mapping[str, float]

TARGET = 60.0
"""Seconds that a job may wait in a queue that has no target of its own."""

RECENT = 600.0
FEWEST_FAILURES, LEAST_SHARE, WORSE = 20, 0.02, 5.0
FEWEST_RUNS, SLOWER, LEAST_MS = 20, 2.0, 100.0
STUCK, STUCK_AFTER, FEWEST_KNOWN = 10.0, 600.0, 10
FULL, NEARLY_FULL, SOON, LONG_ENOUGH = 0.95, 0.85, 3_600.0, 60.0
DEPLOY_BEFORE = 900.0


class Action(msgspec.Struct, frozen=True):
    """What to press.

    Attributes:
        label: in words: "Start a worker for mailers".
        command: the same for a terminal: `pillion worker -q mailers`.
        verb, target: a verb of the API and what it is about (`resume`, "mailers"); "" where a person must do it.
    """

    label: str
    command: str = ""
    verb: str = ""
    target: str = ""


class Finding(msgspec.Struct, frozen=True):
    """What a rule holds against a snapshot.

    Attributes:
        rule, subject: which rule, and about what; together they are the same finding later.
        level: how bad.
        sentence: cause and effect, in the present.
        past: a clause for when it is over: "mailers was behind".
        since: when it began, epoch seconds; None where the snapshot does not tell.
        weight: among findings of one rule and level, the heaviest is told.
        action, link, values: see `Verdict`.
    """

    rule: str
    subject: str
    level: Level
    sentence: str
    past: str
    since: float | None = None
    weight: float = 0.0
    action: Action | None = None
    link: str = ""
    values: Mapping[str, Any] = {}


def findings(now: Snapshot, targets: Targets) -> Iterator[Finding]:
    """All that is wrong, the rules in the order of their weight."""
    for rule in RULES:
        yield from rule(now, targets)


# --- queues -----------------------------------------------------------------------------------------------------------


def no_workers(now: Snapshot, _: Targets) -> Iterator[Finding]:
    """Jobs wait, and nobody runs any."""
    waiting = [queue for queue in now.queues if queue.size and not queue.paused and not queue.fault]
    if not waiting or any(not process.stopping for process in now.processes):
        return
    jobs, longest = sum(queue.size for queue in waiting), max(queue.latency for queue in waiting)
    yield Finding(
        *("no_workers", "", "alarm"),
        f"{_jobs(jobs)}, the oldest for {span(longest)}, and no worker runs.",
        past="no worker ran",
        action=Action("Start a worker", "pillion worker APP"),
        link="workers",
        values={"jobs": jobs, "wait": longest},
    )


def unserved(now: Snapshot, _: Targets) -> Iterator[Finding]:
    """A queue has jobs, and of the workers none serves it."""
    if not any(not process.stopping for process in now.processes):
        return
    for queue in now.queues:
        if queue.size and not queue.processes and not queue.paused and not queue.fault:
            yield Finding(
                *("unserved", queue.name, "alarm"),
                f"No worker serves {queue.name}: {_jobs(queue.size)}, the oldest for {span(queue.latency)}.",
                past=f"no worker served {queue.name}",
                weight=queue.latency,
                action=Action(f"Start a worker for {queue.name}", f"pillion worker APP -q {queue.name}"),
                link=f"queues/{queue.name}",
                values={"queue": queue.name, "jobs": queue.size, "wait": queue.latency},
            )


def unreadable(now: Snapshot, _: Targets) -> Iterator[Finding]:
    """Another program has made something else of a queue's key."""
    for queue in now.queues:
        if queue.fault:
            yield Finding(
                *("unreadable", queue.name, "alarm"),
                f"No worker can take from {queue.name}: its key is no list ({queue.fault}).",
                past=f"{queue.name} could not be read",
                action=Action("Move that key out of the way", f"redis-cli TYPE queue:{queue.name}"),
                link=f"queues/{queue.name}",
                values={"queue": queue.name, "fault": queue.fault},
            )


def behind(now: Snapshot, targets: Targets) -> Iterator[Finding]:
    """The oldest job of a queue has waited longer than it should."""
    for queue in now.queues:
        target = targets.get(queue.name, TARGET)
        if not queue.size or queue.latency <= target or queue.paused or queue.fault or not queue.processes:
            continue
        words = [f"{queue.name} is {span(queue.latency)} behind: {_jobs(queue.size)}, {_slots(now)}."]
        if queue.clear_in is not None and queue.clear_in < 86_400:
            words.append(f"At this rate it is clear in {span(queue.clear_in)}.")
        elif queue.growth is not None and queue.growth > 0:
            words.append(f"It grows by {queue.growth * 60:,.0f} a minute.")
        yield Finding(
            *("behind", queue.name, "alarm" if queue.latency > 2 * target else "notice"),
            " ".join(words),
            past=f"{queue.name} was behind",
            since=now.at - queue.latency + target,
            weight=queue.latency / max(target, 0.001),
            action=Action("Start more workers", f"pillion worker APP -q {queue.name}"),
            link=f"queues/{queue.name}",
            values=_behind(now, queue),
        )


def paused(now: Snapshot, targets: Targets) -> Iterator[Finding]:
    """Somebody paused a queue, and jobs wait there."""
    for queue in now.queues:
        if queue.paused and queue.size and queue.latency > targets.get(queue.name, TARGET):
            yield Finding(
                *("paused", queue.name, "notice"),
                f"{queue.name} is paused: {_jobs(queue.size)}, the oldest for {span(queue.latency)}.",
                past=f"{queue.name} was paused",
                since=now.at - queue.latency,
                weight=queue.size,
                action=Action(f"Resume {queue.name}", f"pillion resume {queue.name}", "resume", queue.name),
                link=f"queues/{queue.name}",
                values={"queue": queue.name, "jobs": queue.size, "wait": queue.latency},
            )


# --- classes ----------------------------------------------------------------------------------------------------------


def failing(now: Snapshot, _: Targets) -> Iterator[Finding]:
    """A class fails five times as often, of its runs, as in the hour before."""
    for each in now.classes:
        runs, failed, _ms = _sum(each, now.at - RECENT, now.at)
        before, failed_before, _ms = _sum(each, 0.0, now.at - RECENT)
        share, usual = failed / max(runs, 1), failed_before / max(before, 1)
        if failed < FEWEST_FAILURES or share < LEAST_SHARE or share < WORSE * usual:
            continue
        began = next(at for at, ran, bad, _ in each.minutes if at > now.at - RECENT and 2 * bad > share * ran)
        label = _deploy(now, began)
        since = f" since deploy {label}" if label else ""
        yield Finding(
            *("failing", each.klass, "alarm"),
            f"{each.klass} fails{since}: {failed:,} of {runs:,} runs in the last 10 min, {usual:.1%} before.",
            past=f"{each.klass} failed often",
            since=began,
            weight=failed,
            action=Action("See why", "pillion failures"),
            link="failures",
            values={"klass": each.klass, "failed": failed, "runs": runs, "usual": usual, "deploy": label},
        )


def slower(now: Snapshot, _: Targets) -> Iterator[Finding]:
    """A class takes twice as long since a deploy."""
    for mark in now.marks[-1:]:
        at = mark.time.timestamp()
        for each in now.classes:
            runs, failed, ms = _sum(each, at, now.at)
            before, failed_before, ms_before = _sum(each, 0.0, at - 60)
            well, well_before = runs - failed, before - failed_before
            if min(well, well_before) < FEWEST_RUNS:
                continue
            took, usual = ms / well, ms_before / well_before
            if took < SLOWER * usual or took - usual < LEAST_MS:
                continue
            ago = span(now.at - at)
            yield Finding(
                *("slower", each.klass, "notice"),
                f"{each.klass} takes {length(took)} on average since deploy {mark.label}, {ago} ago; "
                f"it took {length(usual)} before.",
                past=f"{each.klass} was slow",
                since=at,
                weight=took / max(usual, 0.001),
                action=Action("See the change"),
                link=f"classes/{each.klass}",
                values={"klass": each.klass, "took": took / 1000, "usual": usual / 1000, "deploy": mark.label},
            )


def stuck(now: Snapshot, _: Targets) -> Iterator[Finding]:
    """A job runs ten times as long as nearly all of its class do."""
    for run in now.longest:
        usual = run.usual.run.p95 if run.usual.run and run.usual.sample >= FEWEST_KNOWN else None
        if usual is None or run.seconds < max(STUCK * usual, STUCK_AFTER):
            continue
        yield Finding(
            *("stuck", run.work.job.jid, "notice"),
            f"A {run.klass} has been running for {span(run.seconds)}; nearly all take less than {span(usual)}.",
            past=f"a {run.klass} ran very long",
            since=now.at - run.seconds + max(STUCK * usual, STUCK_AFTER),
            weight=run.seconds / max(usual, 0.001),
            action=Action("Show where it stands", verb="stack", target=run.work.job.jid),
            link="running",
            values={"klass": run.klass, "seconds": run.seconds, "usual": usual, "jid": run.work.job.jid},
        )


# --- the server -------------------------------------------------------------------------------------------------------


def memory(now: Snapshot, _: Targets) -> Iterator[Finding]:
    """The server's memory is full, or soon will be: then no job can be pushed."""
    used, limit = now.server.memory, now.server.limit
    if not limit:
        return
    share, left = used / limit, _full_in(now)
    if share < NEARLY_FULL and (left is None or left > SOON):
        return
    full = f"; at this rate it is full in {span(left)}" if left is not None and left <= SOON else ""
    store = now.server.store or "Redis"
    yield Finding(
        *("memory", "", "alarm" if share >= FULL or full else "notice"),
        f"{store} uses {share:.0%} of its memory{full}. When it is full, no job can be pushed.",
        past=f"{store} was short of memory",
        weight=share,
        action=Action("Give it more memory", "redis-cli CONFIG SET maxmemory ..."),
        link="settings",
        values={"store": store, "share": share, "left": left},
    )


def evicting(now: Snapshot, _: Targets) -> Iterator[Finding]:
    """The server deletes jobs rather than refuse new ones."""
    if now.server.limit and now.server.policy not in ("", "noeviction"):
        yield Finding(
            *("evicting", "", "notice"),
            f"{now.server.store or 'Redis'} deletes jobs when its memory is full: "
            f"maxmemory-policy is {now.server.policy}.",
            past="jobs could have been deleted",
            action=Action("Keep jobs", "redis-cli CONFIG SET maxmemory-policy noeviction"),
            link="settings",
            values={"policy": now.server.policy},
        )


RULES: tuple[Callable[[Snapshot, Targets], Iterator[Finding]], ...] = (
    *(no_workers, memory, unserved, unreadable, behind, failing),
    *(slower, stuck, evicting, paused),
)


# --- words and sums ---------------------------------------------------------------------------------------------------


def span(seconds: float) -> str:
    """A duration as people say it: `45 s`, `4 min`, `6 h`, `3 days`."""
    for unit, size, most in (("s", 1, 90), ("min", 60, 90), ("h", 3_600, 36)):
        if seconds < most * size:
            return f"{max(seconds, 0.0) / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def length(ms: float) -> str:
    """How long something took: `80 ms`, `2.1 s`, or as `span`."""
    if ms < 1_000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s" if ms < 60_000 else span(ms / 1000)


def _jobs(count: int) -> str:
    return "1 job waits" if count == 1 else f"{count:,} jobs wait"


def _slots(now: Snapshot) -> str:
    return f"{now.busy:,} of {now.slots:,} slots are busy"


def _behind(now: Snapshot, queue: QueueNow) -> dict[str, Any]:
    return {
        "queue": queue.name,
        "wait": queue.latency,
        "jobs": queue.size,
        "busy": now.busy,
        "slots": now.slots,
        "clear_in": queue.clear_in,
        "growth": queue.growth,
    }


def _sum(each: ClassTimes, start: float, end: float) -> tuple[int, int, float]:
    """Runs, failures and milliseconds of a class in the minutes that began after `start` and up to `end`."""
    inside = [minute for minute in each.minutes if start < minute[0] <= end]
    return sum(m[1] for m in inside), sum(m[2] for m in inside), sum(m[3] for m in inside)


def _deploy(now: Snapshot, began: float) -> str | None:
    """The label of the last deploy before something began, if it was shortly before."""
    marks = [mark.label for mark in now.marks if began - DEPLOY_BEFORE <= mark.time.timestamp() <= began + 60]
    return marks[-1] if marks else None


def _full_in(now: Snapshot) -> float | None:
    """Seconds until the memory is full, as it grew lately; None where it does not grow, or that is not known."""
    first = now.trail[0] if now.trail else None
    if first is None or now.at - first.at < LONG_ENOUGH or not first.memory:
        return None
    grown = now.server.memory - first.memory
    if grown < now.server.limit / 1_000:
        return None
    return max(now.server.limit - now.server.memory, 0) * (now.at - first.at) / grown

"""Schedule, retry set and dead set: what waits in them, and moving single entries and all of them.

Sidekiq's `ScheduledSet`, `RetrySet` and `DeadSet` with their entries. An entry is moved by one script that finds it by
its exact bytes and score, writes its new place and then takes it out; Sidekiq takes all entries of one score out first
and puts the others back. `reschedule` changes a score and never the bytes. The verbs for all entries are in `bulk.py`.
A crash leaves an entry where it was or where it went; whoever comes second to move it is told so."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from typing import Any

from pillion.api import moving
from pillion.api.bulk import Bulk, Tally
from pillion.api.entry import Entry, OneSet
from pillion.api.faces import Page, Plan, Walk, ask, faces
from pillion.api.record import JobRecord, plain_text
from pillion.due import check_moment
from pillion.payload import encode, verify
from pillion.store import reads, repair
from pillion.store.reads import Spot

SCAN = 1_000
GLOB = re.compile(r"[*?\[\]^-]")


class JobSet(OneSet):
    """The entries of one sorted set, highest score first: `for entry in RetrySet(): ...`, or `async for`.

    Looping reads pages of 50, each O(log N + 50). An entry that stands there all the while is seen once, whatever
    comes, goes or is deleted meanwhile.
    """

    def __iter__(self) -> Iterator[SortedEntry]:
        return iter(Walk(self, self.plan_page))

    def __aiter__(self) -> AsyncIterator[SortedEntry]:
        return Walk(self, self.plan_page).__aiter__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def plan_size(self) -> Plan[int]:
        """How many entries it has. O(1)."""
        return int((yield from ask(reads.count(self.key))))

    size, asize = faces(plan_size)

    def plan_page(
        self, after: Spot | None = None, most: int = 50, *, lowest_first: bool = False
    ) -> Plan[Page[SortedEntry, Spot]]:
        """The next entries after `after`, which is the `next` of the page before. O(log N + most), at most 1 MB."""
        found, after = yield from ask(reads.set_page(self.key, after, most=most, up=lowest_first))
        return Page([SortedEntry(self, spot) for spot in found], after)

    page, apage = faces(plan_page)

    def scan(self, match: str, count: int = SCAN) -> Walk[SortedEntry]:
        """Walk through the entries whose bytes hold `match`, in no order: a text, or a pattern where it has a `*`.

        O(N): the server looks at about `count` per exchange. An entry that stands there all the while is seen, and
        seldom twice. Raises nothing for a pattern that cannot match.
        """
        pattern = match if "*" in match else f"*{match}*"

        def page(cursor: int | None) -> Plan[Page[SortedEntry, int]]:
            cursor, found = yield from ask(reads.scan_set(self.key, cursor or 0, pattern, count))
            return Page([SortedEntry(self, spot) for spot in found], cursor or None)

        return Walk(self, page)

    def plan_fetch(
        self, score: float | datetime | tuple[float | datetime, float | datetime], jid: str | None = None
    ) -> Plan[list[SortedEntry]]:
        """The entries at one time, or between two, and of them those with this jid, lowest first. O(log N + found)."""
        low, high = score if isinstance(score, tuple) else (score, score)
        between = (check_moment(repr(self), low), check_moment(repr(self), high))
        found = [SortedEntry(self, spot) for spot in (yield from ask(reads.at_score(self.key, *between)))]
        return [entry for entry in found if jid is None or entry.jid == jid]

    fetch, afetch = faces(plan_fetch)

    def plan_find_job(self, jid: str) -> Plan[SortedEntry | None]:
        """The entry with this jid, or None. O(N), 1,000 entries per exchange; with its score use `fetch`."""
        cursor, pattern = 0, "*" + GLOB.sub(r"\\\g<0>", plain_text(jid)) + "*"
        while True:
            cursor, found = yield from ask(reads.scan_set(self.key, cursor, pattern, SCAN))
            for entry in (SortedEntry(self, spot) for spot in found):
                if entry.jid == jid:
                    return entry
            if not cursor:
                return None

    find_job, afind_job = faces(plan_find_job)

    def plan_delete_job(self, jid: str, score: float | datetime | None = None) -> Plan[bool]:
        """Delete the entry with this jid; False where there is none. O(log N) with its score, else O(N)."""
        if score is None:
            entry = yield from self.plan_find_job(jid)
            return False if entry is None else (yield from entry.plan_delete())
        found = yield from self.plan_fetch(score, jid)
        return bool(found) and (yield from found[0].plan_delete())

    delete_job, adelete_job = faces(plan_delete_job)

    def plan_schedule(self, at: float | datetime, item: Mapping[str, Any]) -> Plan[str]:
        """Put a job into this set by hand, due at `at`, and return its jid. O(log N).

        `item` needs `class`, `args` and `queue`. No middleware sees it before it is due. Raises PayloadError.
        """
        score = check_moment(repr(self), at)
        payload = {**item, "jid": item.get("jid") or self.config.new_jid()}
        verify(payload, self.config)
        yield from ask(repair.add(self.key, score, encode(payload)))
        return str(payload["jid"])

    schedule, aschedule = faces(plan_schedule)

    def plan_clear(self) -> Plan[int]:
        """Delete every entry; returns how many. O(1), at once, and for good."""
        return (yield from ask(repair.clear_set(self.keys, self.key)))

    clear, aclear = faces(plan_clear)

    def plan_retry_all(self) -> Plan[Tally]:
        """`retry` every entry that stands there now, lowest score first, in batches of 200. O(N log N).

        What fails again and comes back meanwhile is left for its time. One that cannot be moved holds up no other and
        is told in the result. A crash or an error leaves every entry where it was or in its queue; call it again.
        """
        return (yield from Bulk(self).all(lambda entry: moving.to_queue(self, entry, by_hand=True)))

    retry_all, aretry_all = faces(plan_retry_all)

    def plan_add_all_to_queue(self) -> Plan[Tally]:
        """`add_to_queue` every entry that stands there now, as `retry_all` does. O(N log N)."""
        return (yield from Bulk(self).all(lambda entry: moving.to_queue(self, entry)))

    add_all_to_queue, aadd_all_to_queue = faces(plan_add_all_to_queue)

    def plan_kill_all(self, *, notify_failure: bool = False, ex: BaseException | None = None) -> Plan[Tally]:
        """`kill` every entry that stands there now, in batches of 200. O(N log N).

        The dead set keeps its limits: of more than it holds, the oldest are dropped. Death handlers hear of each only
        with `notify_failure`. Raises UsageError for the dead set itself.
        """
        yield from moving.check_killing(self)
        told = moving.killed_by(ex) if notify_failure else None
        return (yield from Bulk(self, told).all(lambda entry: moving.to_dead(self, entry)))

    kill_all, akill_all = faces(plan_kill_all)


class ScheduledSet(JobSet):
    """Jobs for later, by the time they are due."""

    name = "schedule"


class RetrySet(JobSet):
    """Jobs that failed, by the time of their next attempt."""

    name = "retry"


class DeadSet(JobSet):
    """Jobs that will not run again by themselves, by the time of their death; capped by age and number."""

    name = "dead"

    def plan_trim(self) -> Plan[int]:
        """Drop what is older than `dead_timeout_in_seconds`, then the oldest beyond `dead_max_jobs`; returns how many.

        O(log N + dropped). As in Sidekiq, one fewer than `dead_max_jobs` stay.
        """
        config = self.config
        before = config.clock.now() - config.dead_timeout_in_seconds
        return int((yield from ask(repair.trim(self.key, config.dead_max_jobs, before))))

    trim, atrim = faces(plan_trim)

    def plan_kill(
        self,
        value: bytes | Mapping[str, Any],
        *,
        notify_failure: bool = True,
        trim: bool = True,
        ex: BaseException | None = None,
    ) -> Plan[bool]:
        """Put a job, as bytes or as its fields, into the dead set, and tell this process's death handlers. O(log N).

        It is taken out of nowhere: to move an entry of another set, `kill` that entry. Handlers get `ex`, or a
        RuntimeError; what they raise is logged. Returns False where these very bytes stood there already.
        """
        raw = value if isinstance(value, bytes) else encode(value)
        new = yield from ask(repair.add(self.key, self.config.clock.now(), raw))
        if trim:
            yield from self.plan_trim()
        if notify_failure:
            yield from moving.tell_deaths(self, [JobRecord(raw)], moving.killed_by(ex))
        return new

    kill, akill = faces(plan_kill)


class SortedEntry(Entry):
    """An entry of a set, and what can be done with it."""

    def plan_delete(self) -> Plan[bool]:
        """Delete it; False where it does not stand there any more. O(log N)."""
        return (yield from moving.one(self._owner, moving.away(self)))

    delete, adelete = faces(plan_delete)

    def plan_reschedule(self, at: float | datetime) -> Plan[bool]:
        """Let it stand at another time: epoch seconds or an aware datetime. False where it has gone. O(log N)."""
        score = check_moment(repr(self), at)
        moved = yield from moving.one(self._owner, moving.to_time(self, score))
        if moved:
            self._score = score
        return moved

    reschedule, areschedule = faces(plan_reschedule)

    def plan_add_to_queue(self) -> Plan[bool]:
        """Move it to its queue now. True: it is there. O(log N).

        It goes through client middleware, as every job that becomes due. False: somebody else has moved it, or
        middleware stopped it, which removes it. Raises BadPayload where no worker could run it, Refused where the queue
        does not take it, and what a middleware raises; then it stays where it is.
        """
        move = moving.to_queue(self._owner, self)
        return (yield from moving.one(self._owner, move)) and move.verb == "push"

    add_to_queue, aadd_to_queue = faces(plan_add_to_queue)

    def plan_retry(self) -> Plan[bool]:
        """`add_to_queue`, without using up one of its retries: the count goes down by one. O(log N)."""
        move = moving.to_queue(self._owner, self, by_hand=True)
        return (yield from moving.one(self._owner, move)) and move.verb == "push"

    retry, aretry = faces(plan_retry)

    def plan_kill(self, *, notify_failure: bool = True, ex: BaseException | None = None) -> Plan[bool]:
        """Move it to the dead set and tell this process's death handlers, as `DeadSet.kill`. O(log N).

        False where it has gone. Raises UsageError for an entry of the dead set.
        """
        yield from moving.check_killing(self._owner)
        moved = yield from moving.one(self._owner, moving.to_dead(self._owner, self))
        if moved and notify_failure:
            yield from moving.tell_deaths(self._owner, [self], moving.killed_by(ex))
        return moved

    kill, akill = faces(plan_kill)

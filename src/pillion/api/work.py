"""What runs right now, as the processes last said it: `WorkSet` and `Work` are Sidekiq's.

As old as each process's last beat, 10 s at most: a shorter job may never be seen, one that has ended may still be. The
jobs themselves are claimed (those of open-source Sidekiq stand nowhere else); nothing here can change them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from pillion.api.faces import Face, Page, Plan, Walk, ask, faces, names, whole
from pillion.api.record import JobRecord
from pillion.api.stats import number
from pillion.clock import Clock
from pillion.store import reads
from pillion.store.op import text


class Work:
    """A job that a worker runs.

    Attributes:
        process_id: the identity of its process.
        thread_id: the thread, or the task of an async job, within it.
        queue: where it was taken from.
        payload: its bytes.
        job: the same to look at.
    """

    def __init__(self, process_id: str, thread_id: str, row: dict[str, Any], clock: Clock | None = None) -> None:
        payload = row.get("payload")
        self.process_id = process_id
        self.thread_id = thread_id
        self.queue = str(row.get("queue") or "")
        # Before Sidekiq 6.0.2 it was an object.
        self.payload = payload.encode() if isinstance(payload, str) else msgspec.json.encode(payload)
        self.job = JobRecord(self.payload, self.queue, clock)
        self._run_at = number(row.get("run_at"))

    @property
    def run_at(self) -> datetime:
        """When it began, to the second (UTC)."""
        return datetime.fromtimestamp(self._run_at, UTC)

    def __repr__(self) -> str:
        return f"<Work {self.job.display_class} {self.job.jid} on {self.process_id} {self.thread_id}>"


class WorkSet(Face):
    """The jobs that run, longest first: `for work in WorkSet(): ...`, or `async for`. O(processes + jobs)."""

    def __iter__(self) -> Iterator[Work]:
        return iter(Walk(self, self._only_page))

    def __aiter__(self) -> AsyncIterator[Work]:
        return Walk(self, self._only_page).__aiter__()

    def _only_page(self, _: object) -> Plan[Page[Work, object]]:
        return (yield from whole(self.plan_all()))

    def plan_all(self) -> Plan[list[Work]]:
        """All of them, those first that began first. O(processes + jobs), two exchanges."""
        keys, listed = self.keys, (yield from names(self.keys.processes))
        asked = [("HGETALL", key) for name in listed for key in (keys.work(name), keys.workers(name))]
        answers = yield from ask(reads.ask(asked))
        found: list[Work] = []
        for i, name in enumerate(listed):
            # The second is where Sidekiq up to 6.4.1 has them, and Pillion, with `wire="6"`, once more.
            rows = {**reads.mapping(answers[2 * i + 1]), **reads.mapping(answers[2 * i])}
            found += [
                Work(name, text(tid), row, self.config.clock)
                for tid, raw in rows.items()
                if (row := _row(raw)) is not None
            ]
        return sorted(found, key=lambda work: work.run_at)

    all, aall = faces(plan_all)

    def plan_size(self) -> Plan[int]:
        """How many jobs run, as the processes count them. O(processes), two exchanges."""
        listed = yield from names(self.keys.processes)
        return sum(map(number, (yield from ask(reads.ask([("HGET", self.keys.process(n), "busy") for n in listed])))))

    size, asize = faces(plan_size)

    def plan_find_work(self, jid: str) -> Plan[Work | None]:
        """The run of the job with this jid, or None. O(processes + jobs)."""
        return next((work for work in (yield from self.plan_all()) if work.job.jid == jid), None)

    find_work, afind_work = faces(plan_find_work)


def _row(raw: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None

"""Queues: how many wait and for how long, who waits, and taking single ones out.

`Queue` is Sidekiq's, with Pro's pause and deletion. A walk through a queue goes from its newest job to its oldest and
stays in place while workers take jobs and others push. Where Sidekiq is weak, this is not: what cannot be read is shown
raw, a key of the wrong type spoils only its own row, and deleting many jobs costs one walk per page, not one per job. A
crash between two pages leaves done what was done; a job is deleted by its exact bytes or not at all.

What workers have claimed is not in a queue any more: see `WorkSet`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import msgspec

from pillion.activejob import real_name
from pillion.api.faces import Face, Page, Plan, Walk, ask, faces, names, whole
from pillion.api.record import JobRecord, plain_text
from pillion.client import Client
from pillion.payload import check_queue
from pillion.store import reads, repair
from pillion.store.op import Refusal
from pillion.store.reads import Place

BATCH = 500


class QueueSummary(msgspec.Struct, frozen=True):
    """A queue at a glance.

    Attributes:
        name: without prefix.
        size: jobs that wait.
        latency: seconds since the oldest of them was pushed; 0.0 where that is not known.
        paused: no worker takes from it.
        fault: what the server said where the queue's key is no list; a worker cannot take from it.
    """

    name: str
    size: int
    latency: float
    paused: bool
    fault: str | None = None


class Queue(Face):
    """The jobs that wait in one queue, newest first: `for job in Queue("mailers"): ...`, or `async for`.

    Looping reads pages of 50, each O(50) plus the way there. A job that is pushed meanwhile is not seen; one that waits
    all the while is, whatever is taken, deleted or put back around it, and seldom twice.
    """

    def __init__(self, name: str = "default", client: Client | None = None) -> None:
        super().__init__(client)
        self.name = str(name)

    def __iter__(self) -> Iterator[QueuedJob]:
        return iter(Walk(self, self.plan_page))

    def __aiter__(self) -> AsyncIterator[QueuedJob]:
        return Walk(self, self.plan_page).__aiter__()

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    @property
    def key(self) -> str:
        return self.keys.queue(self.name)

    def plan_size(self) -> Plan[int]:
        """How many jobs wait. O(1)."""
        return int((yield from ask(reads.length(self.key))))

    size, asize = faces(plan_size)

    def plan_latency(self) -> Plan[float]:
        """Seconds since the oldest waiting job was pushed; 0.0 for an empty queue. O(1)."""
        raw = yield from ask(reads.oldest(self.key))
        return 0.0 if raw is None else JobRecord(raw, clock=self.config.clock).latency

    latency, alatency = faces(plan_latency)

    def plan_page(
        self, after: Place | None = None, most: int = 50, *, oldest_first: bool = False, containing: str = ""
    ) -> Plan[Page[QueuedJob, Place]]:
        """The next jobs after `after`, which is the `next` of the page before.

        One script, O(jobs looked at) plus the way there; at most 1 MB, or one job. With `containing` only jobs whose
        bytes hold that text, of 2,000 that are looked at: such a page may be empty and not the last. From the oldest
        on, a job may be seen twice if the one that `after` names is gone.
        """
        found, after = yield from ask(
            reads.queue_page(self.key, after, most=most, up=oldest_first, containing=containing)
        )
        return Page([QueuedJob(self, place) for place in found], after)

    page, apage = faces(plan_page)

    def scan(self, text: str) -> Walk[QueuedJob]:
        """Walk through the jobs whose bytes contain `text`, newest first. O(queue), 2,000 jobs per exchange."""
        return Walk(self, lambda after: self.plan_page(after, containing=text))

    def plan_find_job(self, jid: str) -> Plan[QueuedJob | None]:
        """The job with this jid, or None. O(queue): the server compares bytes, 2,000 jobs per exchange."""
        after: Place | None = None
        while True:
            page = yield from self.plan_page(after, containing=plain_text(jid))
            for job in page.entries:
                if job.jid == jid:
                    return job
            after = page.next
            if after is None:
                return None

    find_job, afind_job = faces(plan_find_job)

    def plan_delete_job(self, jid: str) -> Plan[bool]:
        """Delete the job with this jid; False where it does not wait here (any more). O(queue), as `find_job`."""
        job = yield from self.plan_find_job(jid)
        return False if job is None else (yield from job.plan_delete())

    delete_job, adelete_job = faces(plan_delete_job)

    def plan_delete_by_class(self, name: str) -> Plan[int]:
        """Delete the waiting jobs of a class (of a Rails job: the real one); returns how many. O(queue).

        It walks once from the newest to the oldest job that waited when it began, 500 per script; each deletion of a
        page costs one more walk to it. What is pushed meanwhile stays.
        """
        return (yield from self._delete_where(lambda job: real_name(job.klass or "", job["wrapped"]) == name, name))

    delete_by_class, adelete_by_class = faces(plan_delete_by_class)

    def _delete_where(self, wanted: Callable[[JobRecord], bool], containing: str = "") -> Plan[int]:
        count, after = 0, None
        while True:
            found, after = yield from ask(
                reads.queue_page(self.key, after, most=BATCH, containing=plain_text(containing), look_at=BATCH)
            )
            if doomed := [place for place in found if wanted(JobRecord(place.raw))]:
                count += sum((yield from ask(repair.cut(self.key, doomed, self.config.new_jid()))))
            if after is None:
                return count

    def plan_clear(self) -> Plan[int]:
        """Delete every job that waits, and the queue's name; returns how many. O(1), at once.

        A push that is under way just then may end with jobs in a queue that is not on the list of queues until the next
        push, as in Sidekiq; workers find them all the same.
        """
        return (yield from ask(repair.clear_queue(self.keys, self.name)))

    clear, aclear = faces(plan_clear)

    def plan_is_paused(self) -> Plan[bool]:
        """Whether no worker takes from this queue. O(1)."""
        return bool((yield from ask(reads.member(self.keys.paused, self.name))))

    is_paused, ais_paused = faces(plan_is_paused)

    def plan_pause(self) -> Plan[bool]:
        """Let no worker take from this queue, from its next step on. False where it was paused already. O(1).

        Pushing goes on, and so do jobs that run or are claimed. Workers of open-source Sidekiq do not heed it.
        """
        check_queue(self.name)
        return (yield from ask(repair.pause(self.keys, self.name)))

    pause, apause = faces(plan_pause)

    def plan_resume(self) -> Plan[bool]:
        """Let workers take from this queue again; those that idle wake up. False where it was not paused. O(1)."""
        return (yield from ask(repair.resume(self.keys, self.name)))

    resume, aresume = faces(plan_resume)


class QueuedJob(JobRecord):
    """A job that waits in a queue."""

    def __init__(self, owner: Queue, place: Place) -> None:
        super().__init__(place.raw, owner.name, owner.config.clock)
        self._owner = owner
        self._place = place

    @property
    def client(self) -> Client:
        return self._owner.client

    @property
    def position(self) -> int:
        """How many jobs stood between it and a worker, itself included, when it was read."""
        return self._place.n

    @property
    def place(self) -> Place:
        """Where it stood, for `page(after=...)`."""
        return self._place

    def plan_delete(self) -> Plan[bool]:
        """Delete it; False where it does not wait here any more. O(1) plus the way there; O(queue) if it moved far."""
        word = self._owner.config.new_jid()
        [done] = yield from ask(repair.cut(self._owner.key, [self._place], word))
        return done

    delete, adelete = faces(plan_delete)


class Queues(Face):
    """Every queue that was ever pushed to and not cleared, by name: `for queue in Queues(): ...`, or `async for`.

    Two exchanges at most for looping: O(queues).
    """

    def __iter__(self) -> Iterator[Queue]:
        return iter(Walk(self, self._only_page))

    def __aiter__(self) -> AsyncIterator[Queue]:
        return Walk(self, self._only_page).__aiter__()

    def _only_page(self, _: object) -> Plan[Page[Queue, object]]:
        return (yield from whole(self.plan_all()))

    def plan_all(self) -> Plan[list[Queue]]:
        """All of them, sorted by name. O(queues), 1,000 names per exchange."""
        return [Queue(name, self.client) for name in (yield from names(self.keys.queues))]

    all, aall = faces(plan_all)

    def plan_sizes(self) -> Plan[dict[str, int]]:
        """How many jobs wait in each, the largest first. O(queues), two exchanges."""
        listed = yield from names(self.keys.queues)
        sizes = yield from ask(reads.ask([("LLEN", self.keys.queue(name)) for name in listed]))
        found = {name: int(size or 0) for name, size in zip(listed, sizes, strict=True)}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    sizes, asizes = faces(plan_sizes)

    def plan_summaries(self) -> Plan[list[QueueSummary]]:
        """Each at a glance, the largest first. O(queues), two exchanges. What cannot be read spoils only its own."""
        keys, listed = self.keys, (yield from names(self.keys.queues))
        asked = [
            (("LLEN", keys.queue(n)), ("LINDEX", keys.queue(n), -1), ("SISMEMBER", keys.paused, n)) for n in listed
        ]
        answers = yield from ask(reads.ask([command for three in asked for command in three]))
        found = []
        for i, name in enumerate(listed):
            size, raw, paused = answers[3 * i : 3 * i + 3]
            latency = JobRecord(raw, clock=self.config.clock).latency if isinstance(raw, bytes) else 0.0
            fault = str(size) if isinstance(size, Refusal) else None
            found.append(QueueSummary(name, int(size or 0), latency, paused == 1, fault))
        return sorted(found, key=lambda summary: -summary.size)

    summaries, asummaries = faces(plan_summaries)

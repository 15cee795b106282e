"""The jobs that a test has pushed, and running them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from pillion import activejob, inline
from pillion import setup as setups
from pillion.client import Client
from pillion.delivery import Durability
from pillion.errors import EmptyQueueError, UsageError
from pillion.payload import decode, encode
from pillion.registry import Definition, definition_of
from pillion.setup import Setup
from pillion.store.ops import Parcel
from pillion.types import Payload


class Collected:
    """Jobs in the order of their pushes, as they would stand in Redis; those for later have their time in `at`.

    Where a job is asked for by class, the job class, the function job or its name on the wire may be given.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: list[tuple[Client, Parcel]] = []

    def send(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        """Take parcels over, as a delivery does."""
        del durability
        with self._lock:
            known = {parcel.jid for _, parcel in self._jobs} if once else set[str]()
            self._jobs += [(client, parcel) for parcel in parcels if parcel.jid not in known]

    async def asend(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        """`send` for asyncio callers."""
        self.send(client, parcels, once=once, durability=durability)

    def of(self, job: object = None, *, queue: str | None = None) -> list[Payload]:
        """The payloads of one job class, of one queue, or of all."""
        return [_payload(parcel) for _, parcel in self._select(job, queue)]

    def clear(self, job: object = None) -> None:
        """Forget the jobs of one class, or all."""
        with self._lock:
            gone = {id(parcel) for _, parcel in self._select(job)}
            self._jobs = [entry for entry in self._jobs if id(entry[1]) not in gone]

    def perform_one(self, job: object = None) -> object:
        """Run the oldest job, of one class if given, and return what it returned.

        It is taken out first: what it raises reaches the caller, and the job is gone.

        Raises EmptyQueueError if there is none.
        """
        client, parcel = self._take(job)
        return inline.run(client.setup, *runnable(client.setup, parcel.raw))

    async def aperform_one(self, job: object = None) -> object:
        """`perform_one` for asyncio callers."""
        client, parcel = self._take(job)
        return await inline.arun(client.setup, *runnable(client.setup, parcel.raw))

    def process_job(self, payload: Payload, setup: Setup | None = None) -> object:
        """Run one job, given as it would stand in Redis, through the server middleware; return what it returned.

        It needs a `class` and `args`, and need not have been pushed; it stays where it is if it was. One that Rails
        wrapped runs under its real class, as in a worker. What it raises reaches the caller.
        """
        setup, raw = setup or setups.default, _stored(payload)
        return inline.run(setup, *runnable(setup, raw))

    async def aprocess_job(self, payload: Payload, setup: Setup | None = None) -> object:
        """`process_job` for asyncio callers."""
        setup, raw = setup or setups.default, _stored(payload)
        return await inline.arun(setup, *runnable(setup, raw))

    def drain(self, job: object = None) -> int:
        """Run jobs, of one class if given, until none is left, those included that they push. Returns how many ran."""
        count = 0
        while self._select(job):
            self.perform_one(job)
            count += 1
        return count

    async def adrain(self, job: object = None) -> int:
        """`drain` for asyncio callers."""
        count = 0
        while self._select(job):
            await self.aperform_one(job)
            count += 1
        return count

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Payload]:
        return iter(self.of())

    def __bool__(self) -> bool:
        """Always true: an empty collection is still a collection. Ask `len`."""
        return True

    def _select(self, job: object = None, queue: str | None = None) -> list[tuple[Client, Parcel]]:
        name = _name(job)
        return [
            (client, parcel)
            for client, parcel in self._jobs
            if (queue is None or parcel.queue == queue) and (name is None or _is_of(parcel, name))
        ]

    def _take(self, job: object) -> tuple[Client, Parcel]:
        with self._lock:
            for entry in self._select(job):
                self._jobs.remove(entry)
                return entry
        of_what = f" of {_name(job)}" if job else ""
        raise EmptyQueueError(f"expected a pushed job{of_what}, there is none; push one first")


def _name(job: object) -> str | None:
    if job is None or isinstance(job, str):
        return job
    definition = definition_of(job)
    if definition is None:
        raise UsageError(f"expected a job class, a function job or a name, got {job!r}")
    return definition.name


def _stored(payload: Payload) -> bytes:
    """The bytes of a job; a worker knows the queue that it took it from, even where the job does not say."""
    return encode({"queue": "default", **payload})


def _is_of(parcel: Parcel, name: str) -> bool:
    """Whether a job is of this class: under its own name, or wrapped by Rails."""
    payload = decode(parcel.raw)
    return name in (payload["class"], activejob.real_name(payload["class"], payload.get("wrapped")))


def _payload(parcel: Parcel) -> Payload:
    payload = decode(parcel.raw)
    return payload if parcel.at is None else payload | {"at": parcel.at}


def runnable(setup: Setup, raw: bytes) -> tuple[Definition, bytes]:
    """What runs a job in this process, and the job as that takes it: without Rails's wrapper, as in a worker.

    Raises UnknownJob, and PayloadError for a wrapper without what Rails writes.
    """
    registry, payload = setup.registry, decode(raw)
    found = activejob.find(registry, payload["class"], payload.get("wrapped"))
    if found is None:
        raise activejob.unknown(registry, payload)
    return found, raw if registry.get(payload["class"]) is found else encode(activejob.unwrap(payload))

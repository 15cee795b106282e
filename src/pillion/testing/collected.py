"""The jobs that a test has pushed, and running them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from pillion import inline
from pillion import setup as setups
from pillion.client import Client, Durability
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
        return inline.run(client.setup, definition_for(client, parcel), parcel.raw)

    async def aperform_one(self, job: object = None) -> object:
        """`perform_one` for asyncio callers."""
        client, parcel = self._take(job)
        return await inline.arun(client.setup, definition_for(client, parcel), parcel.raw)

    def process_job(self, payload: Payload, setup: Setup | None = None) -> object:
        """Run one job, given as it would stand in Redis, through the server middleware; return what it returned.

        It need not have been pushed, and stays where it is if it was. What it raises reaches the caller.
        """
        setup, raw = setup or setups.default, encode(payload)
        return inline.run(setup, _definition(setup, raw), raw)

    async def aprocess_job(self, payload: Payload, setup: Setup | None = None) -> object:
        """`process_job` for asyncio callers."""
        setup, raw = setup or setups.default, encode(payload)
        return await inline.arun(setup, _definition(setup, raw), raw)

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
            if (queue is None or parcel.queue == queue) and (name is None or decode(parcel.raw)["class"] == name)
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


def _payload(parcel: Parcel) -> Payload:
    payload = decode(parcel.raw)
    return payload if parcel.at is None else payload | {"at": parcel.at}


def definition_for(client: Client, parcel: Parcel) -> Definition:
    """What runs a pushed job in this process. Raises UnknownJob."""
    return _definition(client.setup, parcel.raw)


def _definition(setup: Setup, raw: bytes) -> Definition:
    name = decode(raw)["class"]
    found = setup.registry.get(name)
    if found is None:
        raise setup.registry.unknown(name)
    return found

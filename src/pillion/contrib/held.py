"""Pushes that wait for a database transaction: what is kept until the commit, and what happens at it.

`contrib.sqlalchemy` and `contrib.django` tell when a transaction is open and when it has ended. A push has gone through
middleware and every check when it gets here, and its caller has the jid; only the bytes wait. They wait in memory: a
process that dies between the commit and the push takes them along, as it would have before the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from pillion.bulk import BATCH
from pillion.client import Client
from pillion.delivery import Delivery, Durability
from pillion.payload import splice, stamp
from pillion.store.ops import Parcel

MAX_NAMED = 20


class Held(NamedTuple):
    """One push that waits, and where it would have gone."""

    to: Delivery
    client: Client
    parcels: Sequence[Parcel]
    once: bool
    durability: Durability


class Holding:
    """A delivery that keeps what it is given."""

    def __init__(self, ordinary: Delivery, keep: Callable[[Held], object]) -> None:
        self._ordinary = ordinary
        self._keep = keep

    def send(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        self._keep(Held(self._ordinary, client, parcels, once, durability))

    async def asend(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        self.send(client, parcels, once=once, durability=durability)


def push_all(held: Iterable[Held]) -> None:
    """Push what has waited, in its order, neighbours in one round trip.

    A push that fails holds up none of the others; then the first error is raised, with a note that names its jobs.
    """
    errors: list[Exception] = []
    for push in _joined(held):
        try:
            push.to.send(push.client, _stamped(push), once=push.once, durability=push.durability)
        except Exception as error:
            errors.append(_explained(error, push))
    _raise_first(errors)


async def apush_all(held: Iterable[Held]) -> None:
    """`push_all` for asyncio callers."""
    errors: list[Exception] = []
    for push in _joined(held):
        try:
            await push.to.asend(push.client, _stamped(push), once=push.once, durability=push.durability)
        except Exception as error:
            errors.append(_explained(error, push))
    _raise_first(errors)


def jids(held: Iterable[Held]) -> str:
    """The jobs of these pushes, for people: how many, and the first of their jids."""
    found = [parcel.jid for push in held for parcel in push.parcels]
    named = ", ".join(found[:MAX_NAMED])
    return f"{len(found)} ({named}{', ...' if len(found) > MAX_NAMED else ''})"


def _joined(held: Iterable[Held]) -> Iterator[Held]:
    """Neighbours that go the same way as one push."""
    last: Held | None = None
    for push in held:
        if last is None:
            last = push
        elif _same_way(last, push) and len(last.parcels) + len(push.parcels) <= BATCH:
            last = last._replace(parcels=[*last.parcels, *push.parcels])
        else:
            yield last
            last = push
    if last is not None:
        yield last


def _same_way(one: Held, other: Held) -> bool:
    return one.to is other.to and one.client is other.client and one[3:] == other[3:]


def _stamped(push: Held) -> list[Parcel]:
    """The parcels with the moment at which they really enter their queue: a latency counts from there."""
    config = push.client.setup.config
    now = {"enqueued_at": stamp(config.clock.now(), config.wire)}
    return [
        Parcel(parcel.jid, parcel.queue, splice(parcel.raw, now), None) if parcel.at is None else parcel
        for parcel in push.parcels
    ]


def _explained(error: Exception, push: Held) -> Exception:
    error.add_note(f"pillion: the transaction is committed; this befell the jobs that waited for it: {jids([push])}")
    return error


def _raise_first(errors: Sequence[Exception]) -> None:
    if not errors:
        return
    for other in errors[1:]:
        errors[0].add_note(f"pillion: and also {type(other).__name__}: {other}; {' '.join(other.__notes__)}")
    raise errors[0]

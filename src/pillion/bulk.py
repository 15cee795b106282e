"""Bulk pushes: what is in each round trip, and what became of the earlier ones when one fails.

Called by `Client.push_bulk` and its asyncio twin. A lazy iterable is read batch by batch, so memory stays bounded;
nothing is atomic across batches, and an error lists the jids of those that went through."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice, repeat
from typing import Any, Protocol, TypeAlias

from pillion.errors import MaybeEnqueued, NotReplicated, PartlyEnqueued, PayloadError, StoreError
from pillion.payload import copy_for
from pillion.setup import Setup
from pillion.store.ops import Parcel
from pillion.types import Payload

Item: TypeAlias = Mapping[str, Any]
Jids: TypeAlias = list[str | None]

BATCH = 1_000
BATCH_LATER = 100
SPREAD_MIN = 5.0


class Preparing(Protocol):
    """What a bulk push needs of its client."""

    setup: Setup

    def describe(self, item: Item) -> tuple[object, Payload]: ...

    def parcel(self, job_class: object, payload: Payload) -> Parcel | None: ...


class Bulk:
    """A bulk push under way: what is in each batch, and what became of the earlier ones."""

    def __init__(self, client: Preparing, item: Item) -> None:
        self._client = client
        rows = item.get("args") if isinstance(item, Mapping) else None
        if not isinstance(rows, Iterable) or isinstance(rows, str | bytes | Mapping):
            raise PayloadError(f"expected bulk arguments to be an iterable of lists, got {type(rows).__name__}")
        self._rows: Iterable[Any] = rows
        self._sized = len(rows) if isinstance(rows, Sized) else None
        self._jid = _only_jid(item, self._sized)
        self._times, later = _times(item, self._sized, client)
        self._size = _batch_size(item, later)
        single = {name: value for name, value in item.items() if name not in ("at", "jid")}
        self._job_class, self._base = client.describe({**single, "args": []})
        self._jids: Jids = []
        self._confirmed: list[str] = []
        self._count = 0

    def batches(self) -> Iterator[list[Parcel]]:
        """The parcels of one round trip after another."""
        rows = zip(self._rows, self._times, strict=False)
        while batch := list(islice(rows, self._size)):
            parcels = [self._parcel(row, at) for row, at in batch]
            if self._sized is not None:
                self._jids += [parcel.jid if parcel else None for parcel in parcels]
            if kept := [parcel for parcel in parcels if parcel]:
                yield kept

    def accounting(self, parcels: Sequence[Parcel]) -> _Accounting:
        """Note a batch as pushed when the block ends well; tell about the earlier ones when it does not."""
        return _Accounting(self, parcels)

    def pushed(self, parcels: Sequence[Parcel]) -> None:
        self._count += len(parcels)
        if self._sized is not None:
            self._confirmed += [parcel.jid for parcel in parcels]

    @property
    def confirmed(self) -> Sequence[str]:
        """The jids of the batches that went through; a lazy push keeps none."""
        return self._confirmed

    def result(self) -> Jids | int:
        return self._count if self._sized is None else self._jids

    def _parcel(self, row: Any, at: float | None) -> Parcel | None:
        if not isinstance(row, list | tuple):
            raise PayloadError(
                f"expected bulk arguments to be a list of lists, got {type(row).__name__} in it; "
                "write perform_bulk([(1,), (2,)])"
            )
        jid = self._jid or self._client.setup.config.new_jid()
        return self._client.parcel(self._job_class, copy_for(self._base, row, jid, at))


class _Accounting:
    __slots__ = ("_bulk", "_parcels")

    def __init__(self, bulk: Bulk, parcels: Sequence[Parcel]) -> None:
        self._bulk = bulk
        self._parcels = parcels

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        earlier = self._bulk.confirmed
        if error is None:
            self._bulk.pushed(self._parcels)
        elif isinstance(error, MaybeEnqueued) and earlier:
            confirmed = [*earlier, *error.confirmed]
            raise MaybeEnqueued(confirmed=confirmed, unknown=error.unknown, unsent=error.unsent) from error
        elif isinstance(error, PartlyEnqueued):
            raise PartlyEnqueued(str(error), confirmed=[*earlier, *error.confirmed], unsent=error.unsent) from error
        elif isinstance(error, StoreError) and earlier and not isinstance(error, NotReplicated):
            unsent = [parcel.jid for parcel in self._parcels]
            raise PartlyEnqueued(str(error), confirmed=earlier, unsent=unsent) from error


def _only_jid(item: Item, count: int | None) -> str | None:
    jid = item.get("jid")
    if jid is not None and count != 1:
        raise PayloadError(
            f"expected no explicit jid in a bulk push of {count or 'many'} jobs, got {jid!r}; leave it out"
        )
    return jid


def _times(item: Item, count: int | None, client: Preparing) -> tuple[Iterator[float | None], bool]:
    """One time due per job, without end, and whether there is any."""
    at, spread = item.get("at"), item.get("spread_interval")
    if "at" in item and spread is not None:
        raise PayloadError("expected one of 'at' and 'spread_interval', got both; leave one out")
    if spread is not None:
        if not _is_number(spread) or spread <= 0:
            raise PayloadError(f"expected 'spread_interval' to be a positive number of seconds, got {spread!r}")
        config = client.setup.config
        start, width = config.clock.now(), max(float(spread), SPREAD_MIN)
        return (start + config.rng.random() * width for _ in repeat(None)), True
    if "at" not in item:
        return repeat(None), False
    if isinstance(at, list | tuple):
        return iter(_checked_times(at, count)), True
    if not _is_number(at):
        raise PayloadError(f"expected 'at' to be epoch seconds, or one such number per job, got {at!r}")
    return repeat(float(at or 0.0)), True


def _checked_times(at: Sequence[Any], count: int | None) -> Sequence[float]:
    if not at or not all(map(_is_number, at)):
        raise PayloadError("expected 'at' to be a non-empty list of epoch seconds; pass one number per job")
    if count is None or len(at) != count:
        raise PayloadError(f"expected one 'at' per job, got {len(at)} for {count or 'an unknown number of'} jobs")
    return at


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _batch_size(item: Item, later: bool) -> int:
    size = item.get("batch_size", BATCH_LATER if later else BATCH)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise PayloadError(f"expected 'batch_size' to be a positive whole number, got {size!r}")
    return size

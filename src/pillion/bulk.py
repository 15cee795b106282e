"""Bulk pushes: what is in each round trip, and what became of the earlier ones when one fails.

Called by `Client.push_bulk` and its asyncio twin. A lazy iterable is read batch by batch, so memory stays bounded;
nothing is atomic across batches, and an error tells what went through before it. Where only arguments and jid differ, a
batch is encoded by stencil; each job that is not plain at first sight goes the way of a single push."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from itertools import islice, repeat
from typing import Any, Protocol, TypeAlias, TypeGuard

from pillion.config import random_jid, random_jids
from pillion.errors import MaybeEnqueued, NotReplicated, PartlyEnqueued, PayloadError, PillionError
from pillion.payload import MAX_AT, copy_for, stamp
from pillion.setup import Setup
from pillion.stencil import cut
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
        self._count = 0
        self._unconfirmed: list[NotReplicated] = []

    def batches(self) -> Iterator[list[Parcel]]:
        """The parcels of one round trip after another."""
        rows = zip(self._rows, self._times, strict=False)
        while True:
            with self.accounting(()):  # a row may be malformed, and the caller's iterable may raise
                batch = self._parcels(list(islice(rows, self._size)))
            if not batch:
                return
            if self._sized is not None:
                self._jids += [parcel.jid if parcel else None for parcel in batch]
            if kept := [parcel for parcel in batch if parcel]:
                yield kept

    @contextmanager
    def accounting(self, parcels: Sequence[Parcel]) -> Generator[None]:
        """Note a batch as pushed when the block ends well; tell about the earlier ones when it does not."""
        try:
            yield
        except NotReplicated as error:
            self._unconfirmed.append(error)  # the jobs are in, and the others are not to be held up
        except PillionError as error:
            if not self._count:
                raise
            raise self._with_earlier(error, [parcel.jid for parcel in parcels]) from error
        except BaseException as error:
            if self._count:
                error.add_note(f"pillion: {self._count} jobs of earlier batches are enqueued")
            raise
        self._count += len(parcels)

    def result(self) -> Jids | int:
        """What the caller gets. Raises NotReplicated for the jobs that no replica confirmed."""
        if self._unconfirmed:
            jids = [jid for error in self._unconfirmed for jid in error.jids]
            raise NotReplicated(jids, min(error.replicas for error in self._unconfirmed), self._unconfirmed[0].wanted)
        return self._count if self._sized is None else self._jids

    def _with_earlier(self, error: PillionError, jids: list[str]) -> PillionError:
        """The error of one batch, with the batches before it."""
        earlier = [jid for jid in self._jids if jid is not None][: self._count]
        unlisted = self._count - len(earlier)
        if isinstance(error, MaybeEnqueued):
            confirmed = [*earlier, *error.confirmed]
            return MaybeEnqueued(confirmed=confirmed, unknown=error.unknown, unsent=error.unsent, unlisted=unlisted)
        if isinstance(error, PartlyEnqueued):
            confirmed = [*earlier, *error.confirmed]
            return PartlyEnqueued(error.cause, confirmed=confirmed, unsent=error.unsent, unlisted=unlisted)
        return PartlyEnqueued(str(error), confirmed=earlier, unsent=jids, unlisted=unlisted)

    def _parcels(self, rows: list[tuple[Any, float | None]]) -> list[Parcel | None]:
        setup = self._client.setup
        if len(rows) < 2 or setup.client_middleware or setup.config.new_jid is not random_jid or "at" in self._base:
            return [self._parcel(row, at) for row, at in rows]
        config, queue, now = setup.config, self._base["queue"], setup.config.clock.now()
        later = cut(self._base, config) if rows[-1][1] is not None else None
        soon = cut({**self._base, "enqueued_at": stamp(now, config.wire)}, config)
        batch: list[Parcel | None] = []
        for (row, due), jid in zip(rows, random_jids(len(rows)), strict=True):
            at = due if due is not None and due > now else None
            stencil = soon if at is None else later
            raw = stencil.fill(row, jid) if stencil else None
            batch.append(self._parcel(row, at) if raw is None else Parcel(jid, queue, raw, at))
        return batch

    def _parcel(self, row: Any, at: float | None) -> Parcel | None:
        if not isinstance(row, list | tuple):
            raise PayloadError(
                f"expected bulk arguments to be a list of lists, got {type(row).__name__} in it; "
                "write perform_bulk([(1,), (2,)])"
            )
        jid = self._jid or self._client.setup.config.new_jid()
        return self._client.parcel(self._job_class, copy_for(self._base, row, jid, at))


def _only_jid(item: Item, count: int | None) -> str | None:
    jid = item.get("jid")
    if jid is not None and count != 1:
        jobs = "many" if count is None else count
        raise PayloadError(f"expected no explicit jid in a bulk push of {jobs} jobs, got {jid!r}; leave it out")
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
    if not _is_time(at):
        raise PayloadError(f"expected 'at' to be epoch seconds, or one such number per job, got {at!r}")
    return repeat(at), True


def _checked_times(at: Sequence[Any], count: int | None) -> Sequence[float]:
    if not at or not all(map(_is_time, at)):
        raise PayloadError("expected 'at' to be a non-empty list of epoch seconds; pass one number per job")
    if len(at) != count:
        jobs = "an unknown number of" if count is None else count
        raise PayloadError(f"expected one 'at' per job, got {len(at)} for {jobs} jobs")
    return at


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_time(value: object) -> TypeGuard[float]:
    """Epoch seconds before the year 10000: later is a slip, most often milliseconds."""
    return _is_number(value) and abs(value) < MAX_AT


def _batch_size(item: Item, later: bool) -> int:
    size = item.get("batch_size", BATCH_LATER if later else BATCH)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise PayloadError(f"expected 'batch_size' to be a positive whole number, got {size!r}")
    return size

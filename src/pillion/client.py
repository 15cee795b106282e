"""Pushing jobs: from a plain description to bytes in Redis, in one round trip.

    describe -> normalise -> carry context -> client middleware -> verify -> encode -> deliver

`Client` is what job classes push through and what other programs may use directly. Everything up to the delivery is
shared by both colours. A push is sent once: a crash before the reply leaves the job in Redis or not at all, and a
caller who cannot know is told so (`MaybeEnqueued`). Nothing here runs jobs; `run_inline` hands over to `inline.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextvars import ContextVar
from itertools import islice, repeat
from typing import Any, Literal, Protocol, TypeAlias

from pillion import inline
from pillion import setup as setups
from pillion.errors import Ambiguous, MaybeEnqueued, NotReplicated, PartlyEnqueued, PayloadError, Refused, StoreError
from pillion.middleware import run_client
from pillion.payload import check_size, copy_for, encode, normalise, stamp, verify
from pillion.registry import Definition, definition_of
from pillion.setup import Setup
from pillion.store import ops
from pillion.store.ops import Op, Parcel
from pillion.types import Payload

Item: TypeAlias = Mapping[str, Any]
Durability: TypeAlias = Literal["replicated"] | None
Jids: TypeAlias = list[str | None]

BATCH = 1_000
BATCH_LATER = 100
SPREAD_MIN = 5.0
REPLICAS = 1
REPLICA_WAIT_MS = 1_000
BULK_ONLY = ("batch_size", "spread_interval")


class Delivery(Protocol):
    """Where prepared jobs go. Redis, unless a test says otherwise."""

    def send(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None: ...

    async def asend(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None: ...


class Client:
    """Pushes jobs through one `Setup`: its chains, its options, its Redis.

    Safe to share between threads, event loops and forked children; connections are pooled and opened as needed.

        client = Client("redis://localhost:6379")
        client.push({"class": "HardWorker", "args": ["bob", 5]})
    """

    def __init__(self, redis: Any = None, *, setup: Setup | None = None, **options: Any) -> None:
        fresh = redis is not None or options
        self.setup = setup or (Setup(redis, **options) if fresh else setups.default)

    def push(self, item: Item, *, once: bool = False, durability: Durability = None) -> str | None:
        """Push one job and return its jid, or None where client middleware stopped it.

        Args:
            item: `class` (a name, a job class or a function job) and `args`, and any other field of the payload; `at`
                (epoch seconds) schedules it.
            once: push this jid at most once in ten minutes; such a push is repeated by itself if its reply is lost.
            durability: `"replicated"` waits until a replica has the job.

        Raises:
            PayloadError: the job is malformed; nothing was sent.
            Unavailable, PoolTimeout, Refused, QueueFull: nothing was enqueued.
            MaybeEnqueued: the reply was lost.
            NotReplicated: enqueued, but not confirmed by a replica in time.
        """
        parcel = self._prepare(item)
        if parcel is None:
            return None
        delivery().send(self, (parcel,), once=once, durability=durability)
        return parcel.jid

    async def apush(self, item: Item, *, once: bool = False, durability: Durability = None) -> str | None:
        """`push` for asyncio callers."""
        parcel = self._prepare(item)
        if parcel is None:
            return None
        await delivery().asend(self, (parcel,), once=once, durability=durability)
        return parcel.jid

    def push_bulk(self, item: Item, *, once: bool = False, durability: Durability = None) -> Jids | int:
        """Push many jobs of one class: `args` is an iterable of argument lists.

        `at` is one time for all or one per job; `spread_interval` spreads them over that many seconds from now;
        `batch_size` jobs go out per round trip (1,000, or 100 for later). A lazy iterable is read as it is sent.

        Returns the jids in order, None where middleware stopped a job; for an iterable without a length, how many were
        pushed. Raises as `push`; where earlier batches went through, the error lists their jids as confirmed.
        """
        bulk = Bulk(self, item)
        for parcels in bulk.batches():
            with bulk.accounting(parcels):
                delivery().send(self, parcels, once=once, durability=durability)
        return bulk.result()

    async def apush_bulk(self, item: Item, *, once: bool = False, durability: Durability = None) -> Jids | int:
        """`push_bulk` for asyncio callers."""
        bulk = Bulk(self, item)
        for parcels in bulk.batches():
            with bulk.accounting(parcels):
                await delivery().asend(self, parcels, once=once, durability=durability)
        return bulk.result()

    def run_inline(self, item: Item) -> Any:
        """Run a job here instead of pushing it, through both chains. Returns what it returns, or None if stopped."""
        parcel, definition = self._prepare(item), self._definition(item)
        return None if parcel is None else inline.run(self.setup, definition, parcel.raw)

    async def arun_inline(self, item: Item) -> Any:
        """`run_inline` for asyncio callers."""
        parcel, definition = self._prepare(item), self._definition(item)
        return None if parcel is None else await inline.arun(self.setup, definition, parcel.raw)

    def describe(self, item: Item) -> tuple[object, Payload]:
        """What middleware is given for an item: the job class or its name, and the complete payload."""
        if not isinstance(item, Mapping) or "class" not in item:
            raise PayloadError(f"expected a mapping with 'class' and 'args', got {type(item).__name__}")
        definition = definition_of(item["class"])
        fields = {name: value for name, value in item.items() if name not in BULK_ONLY}
        if definition is None:
            job_class: object = item["class"]
        else:
            job_class, fields["class"] = definition.handle, definition.name
        payload = normalise(fields, options=definition.options if definition else {}, config=self.setup.config)
        if self.setup.carrier:
            self.setup.carrier.dump(payload)
        return job_class, payload

    def parcel(self, job_class: object, payload: Payload) -> Parcel | None:
        """Take one payload through middleware, checks and encoding; None where middleware stopped it."""
        setup = self.setup
        if setup.client_middleware:
            kept = run_client(setup.client_middleware, job_class, payload, payload["queue"], setup.store)
            if kept is None:
                return None
            payload = kept
        config = setup.config
        verify(payload, config)
        now = config.clock.now()
        at: float | None = payload.pop("at", None)
        if at is None or at <= now:
            at, payload["enqueued_at"] = None, stamp(now, config.wire)
        raw = encode(payload)
        check_size(raw, payload["class"], config)
        return Parcel(payload["jid"], payload["queue"], raw, at)

    def _prepare(self, item: Item) -> Parcel | None:
        return self.parcel(*self.describe(item))

    def _definition(self, item: Item) -> Definition:
        found = definition_of(item["class"]) or self.setup.registry.get(item["class"])
        if found is None:
            raise self.setup.registry.unknown(str(item["class"]))
        return found


class Bulk:
    """A bulk push under way: what is in each batch, and what became of the earlier ones."""

    def __init__(self, client: Client, item: Item) -> None:
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


class RedisDelivery:
    """One pipelined round trip for all parcels of a push."""

    def send(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        op = _push_op(client, parcels, once, durability)
        try:
            answer = client.setup.store.run(op)
        except StoreError as error:
            raise _account(parcels, error) from error
        _confirm(parcels, answer, durability)

    async def asend(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        op = _push_op(client, parcels, once, durability)
        try:
            answer = await client.setup.astore.run(op)
        except StoreError as error:
            raise _account(parcels, error) from error
        _confirm(parcels, answer, durability)


_redis = RedisDelivery()
_everywhere: Delivery = _redis
_here: ContextVar[Delivery | None] = ContextVar("pillion_delivery", default=None)


def delivery() -> Delivery:
    """Where pushes of this context go."""
    return _here.get() or _everywhere


def delivery_here() -> Delivery | None:
    """Where this context alone sends its pushes, None where it follows the process."""
    return _here.get()


def deliver_everywhere(other: Delivery | None) -> None:
    """Send the whole process's pushes elsewhere, or with None to Redis again. For `pillion.testing`."""
    global _everywhere
    _everywhere = other or _redis


def deliver_here(other: Delivery | None) -> Any:
    """Send this context's pushes elsewhere; returns the token that puts it back. For `pillion.testing`."""
    return _here.set(other)


def deliver_as_before(token: Any) -> None:
    """Undo `deliver_here`."""
    _here.reset(token)


_default = Client(setup=setups.default)


def default_client() -> Client:
    """The client of the default setup, which job classes push through."""
    return _default


def _push_op(client: Client, parcels: Sequence[Parcel], once: bool, durability: Durability) -> Op[Any]:
    keys = client.setup.store.keys
    if durability not in (None, "replicated"):
        raise PayloadError(f'expected durability to be "replicated" or None, got {durability!r}')
    if once and durability:
        raise PayloadError("expected one of once=True and durability, got both; a push by jid cannot wait for replicas")
    if once:
        return ops.push_once(keys, parcels)
    if durability:
        return ops.push(keys, parcels, replicas=REPLICAS, wait_ms=REPLICA_WAIT_MS)
    return ops.push(keys, parcels)


def _account(parcels: Sequence[Parcel], error: StoreError) -> StoreError:
    """The error as the caller of a push needs it: which jids are in, which are not, which nobody knows."""
    groups = list(ops.parcel_groups(parcels).items())
    if any(name is not None for name, _ in groups):
        groups.insert(0, ("", []))  # the SADD that goes first
    if isinstance(error, Ambiguous):
        count = len(error.replies)
        return MaybeEnqueued(confirmed=_jids(groups[:count]), unknown=_jids(groups[count:]))
    if isinstance(error, Refused) and len(groups) > 2 and any(error.accepted[1:]):
        taken = [group for group, ok in zip(groups, error.accepted, strict=False) if ok]
        refused = [group for group, ok in zip(groups, error.accepted, strict=False) if not ok]
        return PartlyEnqueued(str(error), confirmed=_jids(taken), unsent=_jids(refused))
    return error


def _jids(groups: Iterable[tuple[str | None, Sequence[Parcel]]]) -> list[str]:
    return [parcel.jid for _, group in groups for parcel in group]


def _confirm(parcels: Sequence[Parcel], answer: Any, durability: Durability) -> None:
    if durability and answer < REPLICAS:
        raise NotReplicated([parcel.jid for parcel in parcels], answer, REPLICAS)


def _only_jid(item: Item, count: int | None) -> str | None:
    jid = item.get("jid")
    if jid is not None and count != 1:
        raise PayloadError(
            f"expected no explicit jid in a bulk push of {count or 'many'} jobs, got {jid!r}; leave it out"
        )
    return jid


def _times(item: Item, count: int | None, client: Client) -> tuple[Iterator[float | None], bool]:
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

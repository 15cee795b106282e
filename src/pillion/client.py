"""Pushing jobs: from a plain description to bytes in Redis, in one round trip.

    describe -> normalise -> carry context -> client middleware -> verify -> encode -> deliver

`Client` is what job classes push through and what other programs may use directly. Everything up to the delivery is
shared by both colours. A push is sent once: a crash before the reply leaves the job in Redis or not at all, and a
caller who cannot know is told so (`MaybeEnqueued`). Nothing here runs jobs; `run_inline` hands over to `inline.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Literal, Protocol, TypeAlias

from pillion import inline
from pillion import setup as setups
from pillion.bulk import Bulk, Item, Jids
from pillion.enqueue import Enqueuing
from pillion.errors import (
    Ambiguous,
    ConfigError,
    MaybeEnqueued,
    NotReplicated,
    PartlyEnqueued,
    PayloadError,
    Refused,
    StoreError,
    Unavailable,
)
from pillion.job_options import fresh
from pillion.middleware import run_client
from pillion.payload import check_size, encode, normalise, stamp, verify
from pillion.registry import Definition, definition_of
from pillion.setup import Setup
from pillion.store import ops
from pillion.store.connection import AsyncStore, Store
from pillion.store.exchange import refusal
from pillion.store.ops import Op, Parcel
from pillion.types import Payload

Durability: TypeAlias = Literal["replicated"] | None

REPLICAS = 1
REPLICA_WAIT = 1.0
BULK_ONLY = ("batch_size", "spread_interval")


class Delivery(Protocol):
    """Where prepared jobs go. Redis, unless a test says otherwise."""

    def send(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None: ...

    async def asend(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None: ...


Holder: TypeAlias = Callable[[Delivery], Delivery | None]
"""Given where a push would go, what holds it until a commit, or None where no transaction is open."""


class Client(Enqueuing):
    """Pushes jobs through one `Setup`: its chains, its options, its Redis; without arguments, the default one.

    Safe to share between threads, event loops and forked children; connections are pooled and opened as needed.

        client = Client("redis://localhost:6379")
        client.push({"class": "HardWorker", "args": ["bob", 5]})

    Args:
        redis: a Redis for a setup of its own, as `Setup` takes it, with `options` beside it.
        setup: the setup instead of one of its own.
        pool: another Redis than the setup's, as `Setup` takes it, or a `Client`, whose Redis it is.
    """

    def __init__(self, redis: Any = None, *, setup: Setup | None = None, pool: Any = None, **options: Any) -> None:
        own = redis is not None or options
        if own and (setup is not None or pool is not None):
            raise ConfigError("expected a setup or options of its own, got both; give the options to the setup")
        self.setup = setup or (Setup(redis, **options) if own else setups.default)
        self._place: Setup = self.setup if pool is None else pool._place if isinstance(pool, Client) else Setup(pool)

    @property
    def store(self) -> Store:
        """The Redis that this client pushes to, for threads."""
        return self._place.store

    @property
    def astore(self) -> AsyncStore:
        """The same for asyncio callers."""
        return self._place.astore

    def push(
        self, item: Item, *, once: bool = False, durability: Durability = None, after_commit: bool = True
    ) -> str | None:
        """Push one job and return its jid, or None where client middleware stopped it.

        Args:
            item: `class` (a name, a job class or a function job) and `args`, and any other field of the payload; `at`
                (epoch seconds) schedules it.
            once: push this jid at most once in ten minutes; such a push is repeated by itself if its reply is lost.
            durability: `"replicated"` waits up to a second until a replica has the job.
            after_commit: whether to wait for the database transaction around the push, where the program has asked for
                that (`pillion.contrib.sqlalchemy`, `.django`); its errors are then raised by the commit.

        Raises:
            PayloadError: the job is malformed; nothing was sent.
            Unavailable, PoolTimeout, Refused, QueueFull: nothing was enqueued.
            MaybeEnqueued: the reply was lost.
            PartlyEnqueued: the job is in its queue, but the queue's name could not be added to `queues`.
            NotReplicated: enqueued, but not confirmed by a replica in time.
        """
        parcel = self._prepare(item)
        if parcel is None:
            return None
        delivery(after_commit).send(self, (parcel,), once=once, durability=durability)
        return parcel.jid

    async def apush(
        self, item: Item, *, once: bool = False, durability: Durability = None, after_commit: bool = True
    ) -> str | None:
        """`push` for asyncio callers."""
        parcel = self._prepare(item)
        if parcel is None:
            return None
        await delivery(after_commit).asend(self, (parcel,), once=once, durability=durability)
        return parcel.jid

    def push_bulk(
        self, item: Item, *, once: bool = False, durability: Durability = None, after_commit: bool = True
    ) -> Jids | int:
        """Push many jobs of one class: `args` is an iterable of argument lists.

        `at` is one time for all or one per job; `spread_interval` spreads them over that many seconds from now;
        `batch_size` jobs go out per round trip (1,000, or 100 for later). A lazy iterable is read as it is sent.

        Returns the jids in order, None where middleware stopped a job; for an iterable without a length, how many were
        pushed. Raises as `push`, and PartlyEnqueued where some jobs are in and others not; also where a later job is
        malformed. Jobs after the ones that it lists were not prepared and have no jid. Replicas that do not confirm a
        batch hold up none of the others.
        """
        bulk = Bulk(self, item)
        for parcels in bulk.batches():
            with bulk.accounting(parcels):
                delivery(after_commit).send(self, parcels, once=once, durability=durability)
        return bulk.result()

    async def apush_bulk(
        self, item: Item, *, once: bool = False, durability: Durability = None, after_commit: bool = True
    ) -> Jids | int:
        """`push_bulk` for asyncio callers."""
        bulk = Bulk(self, item)
        for parcels in bulk.batches():
            with bulk.accounting(parcels):
                await delivery(after_commit).asend(self, parcels, once=once, durability=durability)
        return bulk.result()

    def run_inline(self, item: Item) -> Any:
        """Run a job here instead of pushing it, through both chains. Returns what it returns, or None if stopped."""
        parcel, definition = self._prepare(item), self._definition(item)
        return None if parcel is None else inline.run(self.setup, definition, parcel.raw)

    async def arun_inline(self, item: Item) -> Any:
        """`run_inline` for asyncio callers."""
        parcel, definition = self._prepare(item), self._definition(item)
        return None if parcel is None else await inline.arun(self.setup, definition, parcel.raw)

    def close(self) -> None:
        """Close this process's pooled connections. The client can be used again; it then opens new ones."""
        self.store.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a loop that ends as `asyncio.run` ends it does so itself."""
        await self.astore.close()

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
            kept = run_client(setup.client_middleware, job_class, _own(payload), payload["queue"], self.store)
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


class RedisDelivery:
    """One pipelined round trip for all parcels of a push."""

    def send(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        op = _push_op(client, parcels, once, durability)
        try:
            answer = client.store.run(op)
        except StoreError as error:
            raise _account(parcels, error, once, durability) from error
        _confirm(parcels, answer, once, durability)

    async def asend(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        op = _push_op(client, parcels, once, durability)
        try:
            answer = await client.astore.run(op)
        except StoreError as error:
            raise _account(parcels, error, once, durability) from error
        _confirm(parcels, answer, once, durability)


_redis = RedisDelivery()
_everywhere: Delivery = _redis
_here: ContextVar[Delivery | None] = ContextVar("pillion_delivery", default=None)
_holders: tuple[Holder, ...] = ()


def delivery(after_commit: bool = True) -> Delivery:
    """Where a push of this context goes: to what holds it until a commit, or to where pushes go ordinarily."""
    ordinary = _here.get() or _everywhere
    if after_commit:
        for holder in _holders:
            if (holding := holder(ordinary)) is not None:
                return holding
    return ordinary


def hold_with(holder: Holder) -> None:
    """Ask `holder` before each push whether a transaction is open here that it must wait for. For `pillion.contrib`."""
    global _holders
    _holders = (*(known for known in _holders if known is not holder), holder)


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


def _push_op(client: Client, parcels: Sequence[Parcel], once: bool, durability: Durability) -> Op[Any]:
    keys = client.store.keys
    if durability not in (None, "replicated"):
        raise PayloadError(f'expected durability to be "replicated" or None, got {durability!r}')
    if once and durability:
        raise PayloadError("expected one of once=True and durability, got both; a push by jid cannot wait for replicas")
    if once:
        return ops.push_once(keys, parcels)
    if durability:
        patience = min(REPLICA_WAIT, client.store.settings.timeout / 2)
        return ops.push(keys, parcels, replicas=REPLICAS, wait_ms=int(patience * 1000))
    return ops.push(keys, parcels)


def _account(parcels: Sequence[Parcel], error: StoreError, once: bool, durability: Durability) -> StoreError:
    """The error as the caller of a push needs it: which jids are in, which are not, which nobody knows."""
    if not isinstance(error, Refused | Ambiguous):
        return error
    taken, refused, unknown = _sorted(parcels, error.accepted, once)
    if unknown:
        return MaybeEnqueued(confirmed=taken, unknown=unknown, unsent=refused)
    if durability and len(taken) == len(parcels) and not error.accepted[-1]:
        return NotReplicated(taken, 0, REPLICAS)  # only the answer of the WAIT is missing
    if taken:
        return PartlyEnqueued(str(error), confirmed=taken, unsent=refused)
    return error if isinstance(error, Refused) else Unavailable(f"the connection broke before a job had left: {error}")


def _sorted(
    parcels: Sequence[Parcel], accepted: Sequence[bool | None], once: bool
) -> tuple[list[str], list[str], list[str]]:
    """The jids by what became of the commands that carried them: taken, refused, unknown."""
    carried = [list(parcels)] if once else list(ops.parcel_groups(parcels).values())
    if not once and any(parcel.at is None for parcel in parcels):
        carried.insert(0, [])  # the SADD that goes first
    fates = list(zip(carried, accepted, strict=False))
    taken, refused, unknown = (
        [parcel.jid for group, fate in fates if fate is wanted for parcel in group] for wanted in (True, False, None)
    )
    return taken, refused, unknown


def _confirm(parcels: Sequence[Parcel], answer: Any, once: bool, durability: Durability) -> None:
    """Raise for what only the answer of a push tells."""
    jids = [parcel.jid for parcel in parcels]
    if durability and answer < REPLICAS:
        raise NotReplicated(jids, answer, REPLICAS)
    if once and (refused := {jid: said for jid, said in zip(jids, answer, strict=True) if isinstance(said, str)}):
        error = refusal("push_once", next(iter(refused.values())))
        taken = [jid for jid in jids if jid not in refused]
        raise PartlyEnqueued(str(error), confirmed=taken, unsent=list(refused)) if taken else error


def _own(payload: Payload) -> Payload:
    """A payload that middleware may change in place: its nested options are shared with other jobs until here."""
    arguments = {name: payload[name] for name in ("args", "kwargs") if name in payload}
    return fresh({**payload, **dict.fromkeys(arguments)}) | arguments

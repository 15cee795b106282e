"""Pushing jobs: from a plain description to bytes in Redis, in one round trip.

    describe -> normalise -> carry context -> client middleware -> verify -> encode -> deliver
    or, where nothing has a say in the single job: by mould (`mould.py`) -> deliver

`Client` is what job classes push through and what other programs may use directly. Everything up to the delivery is
shared by both colours. A push is sent once: a crash before the reply leaves the job in Redis or not at all, and a
caller who cannot know is told so (`MaybeEnqueued`). Nothing here runs jobs; `run_inline` hands over to `inline.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pillion import setup as setups
from pillion.bulk import Bulk, Item, Jids
from pillion.delivery import Durability, delivery
from pillion.enqueue import Enqueuing
from pillion.errors import ConfigError
from pillion.job_options import fresh
from pillion.middleware import run_client
from pillion.mould import Moulds
from pillion.payload import check_item, check_size, encode, normalise, stamp, verify
from pillion.registry import Definition, definition_of
from pillion.setup import Setup
from pillion.sharding import choose
from pillion.shards import Shard
from pillion.store.ops import Parcel
from pillion.types import Payload

if TYPE_CHECKING:
    from pillion.store.connection import AsyncStore, Store

BULK_ONLY = ("batch_size", "spread_interval")


class Client(Enqueuing):
    """Pushes jobs through one `Setup`: its chains, its options, its Redis; without arguments, the default one.

    Safe to share between threads, event loops and forked children; connections are pooled and opened as needed.

        client = Client("redis://localhost:6379")
        client.push({"class": "HardWorker", "args": ["bob", 5]})

    Args:
        redis: a Redis for a setup of its own, as `Setup` takes it, with `options` beside it.
        setup: the setup instead of one of its own.
        pool: another Redis than the setup's, as `Setup` takes it, or a `Client`, whose Redis it is.
        shard: the one shard to push to, where the setup has several; without it each job goes where `shard_by` says.
    """

    def __init__(
        self,
        redis: Any = None,
        *,
        setup: Setup | None = None,
        pool: Any = None,
        shard: str | None = None,
        **options: Any,
    ) -> None:
        own = redis is not None or options
        if own and (setup is not None or pool is not None):
            raise ConfigError("expected a setup or options of its own, got both; give the options to the setup")
        self.setup = setup or (Setup(redis, **options) if own else setups.default)
        self._place: Setup = self.setup if pool is None else pool._place if isinstance(pool, Client) else Setup(pool)
        self._moulds = Moulds(self.setup)
        self._shard: str | None = pool._shard if isinstance(pool, Client) and shard is None else shard

    @property
    def store(self) -> Store:
        """The Redis that this client pushes to, for threads; the first where there are shards to choose from."""
        return self._home().store

    @property
    def astore(self) -> AsyncStore:
        """The same for asyncio callers."""
        return self._home().astore

    def _homes(self) -> Sequence[Shard]:
        """Where jobs of this client may go."""
        return self._place.shards if self._shard is None else (self._home(),)

    def _home(self) -> Shard:
        return self._place.shards[0] if self._shard is None else self._place.shard(self._shard)

    def by_shard(self, parcels: Sequence[Parcel]) -> list[tuple[Shard, Sequence[Parcel]]]:
        """Which of these jobs go to which shard, in the order of their first."""
        shards = self._place.shards
        if len(shards) == 1 or self._shard is not None:
            return [(self._home(), parcels)]
        names, by = [shard.name for shard in shards], self._place.config.shard_by
        groups: dict[str, list[Parcel]] = {}
        for parcel in parcels:
            groups.setdefault(choose(names, by, parcel.queue, parcel.jid), []).append(parcel)
        return [(self._place.shard(name), group) for name, group in groups.items()]

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
        from pillion import inline  # noqa: PLC0415 - it brings asyncio, which few programs need for this

        parcel, definition = self._prepare(item), self._definition(item)
        return None if parcel is None else inline.run(self.setup, definition, parcel.raw)

    async def arun_inline(self, item: Item) -> Any:
        """`run_inline` for asyncio callers."""
        from pillion import inline  # noqa: PLC0415 - as above

        parcel, definition = self._prepare(item), self._definition(item)
        return None if parcel is None else await inline.arun(self.setup, definition, parcel.raw)

    def close(self) -> None:
        """Close this process's pooled connections. The client can be used again; it then opens new ones."""
        for shard in self._homes():
            shard.store.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a loop that ends as `asyncio.run` ends it does so itself."""
        for shard in self._homes():
            await shard.astore.close()

    def describe(self, item: Item) -> tuple[object, Payload]:
        """What middleware is given for an item: the job class or its name, and the complete payload."""
        check_item(item)
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
        return self._moulds.parcel(item) or self.parcel(*self.describe(item))

    def _definition(self, item: Item) -> Definition:
        found = definition_of(item["class"]) or self.setup.registry.get(item["class"])
        if found is None:
            raise self.setup.registry.unknown(str(item["class"]))
        return found


def _own(payload: Payload) -> Payload:
    """A payload that middleware may change in place: its nested options are shared with other jobs until here."""
    arguments = {name: payload[name] for name in ("args", "kwargs") if name in payload}
    return fresh({**payload, **dict.fromkeys(arguments)}) | arguments

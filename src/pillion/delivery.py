"""Where prepared jobs go: to Redis, in one round trip per shard, unless a transaction or a test holds them.

Called by `Client` for every push. An error tells which jobs are in, which are not and which nobody knows; nothing is
sent again by itself. `hold_with` and `deliver_*` let `pillion.contrib` and `pillion.testing` take pushes over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from pillion.errors import (
    Ambiguous,
    MaybeEnqueued,
    NotReplicated,
    PartlyEnqueued,
    PayloadError,
    Refused,
    StoreError,
    Unavailable,
)
from pillion.shards import Shard
from pillion.store import ops
from pillion.store.ops import Op, Parcel
from pillion.store.refusals import refusal

if TYPE_CHECKING:
    from pillion.client import Client

Durability: TypeAlias = Literal["replicated"] | None

REPLICAS = 1
REPLICA_WAIT = 1.0


class Delivery(Protocol):
    """Where prepared jobs go. Redis, unless a test says otherwise."""

    def send(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None: ...

    async def asend(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None: ...


Holder: TypeAlias = Callable[[Delivery], Delivery | None]
"""Given where a push would go, what holds it until a commit, or None where no transaction is open."""


class RedisDelivery:
    """One pipelined round trip for all parcels of a push, or one for each shard that some of them go to."""

    def send(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        sent: list[tuple[Sequence[Parcel], StoreError | None]] = []
        for shard, group in client.by_shard(parcels):
            op = _push_op(shard, group, once, durability)
            try:
                answer = shard.store.run(op)
            except StoreError as error:
                sent.append((group, _account(group, error, once, durability)))
            else:
                sent.append((group, _objection(group, answer, once, durability)))
        _raise(sent)

    async def asend(self, client: Client, parcels: Sequence[Parcel], *, once: bool, durability: Durability) -> None:
        sent: list[tuple[Sequence[Parcel], StoreError | None]] = []
        for shard, group in client.by_shard(parcels):
            op = _push_op(shard, group, once, durability)
            try:
                answer = await shard.astore.run(op)
            except StoreError as error:
                sent.append((group, _account(group, error, once, durability)))
            else:
                sent.append((group, _objection(group, answer, once, durability)))
        _raise(sent)


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


def _push_op(shard: Shard, parcels: Sequence[Parcel], once: bool, durability: Durability) -> Op[Any]:
    keys = shard.store.keys
    if durability not in (None, "replicated"):
        raise PayloadError(f'expected durability to be "replicated" or None, got {durability!r}')
    if once and durability:
        raise PayloadError("expected one of once=True and durability, got both; a push by jid cannot wait for replicas")
    if once:
        return ops.push_once(keys, parcels)
    if durability:
        patience = min(REPLICA_WAIT, shard.settings.timeout / 2)
        return ops.push(keys, parcels, replicas=REPLICAS, wait_ms=int(patience * 1000))
    return ops.push(keys, parcels)


def _account(parcels: Sequence[Parcel], error: StoreError, once: bool, durability: Durability) -> StoreError:
    """The error as the caller of a push needs it: which jids are in, which are not, which nobody knows."""
    told = _accounted(parcels, error, once, durability)
    if told is not error:
        told.__cause__ = error
    return told


def _accounted(parcels: Sequence[Parcel], error: StoreError, once: bool, durability: Durability) -> StoreError:
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


def _objection(parcels: Sequence[Parcel], answer: Any, once: bool, durability: Durability) -> StoreError | None:
    """What only the answer of a push tells: an error, or None."""
    jids = [parcel.jid for parcel in parcels]
    if durability and answer < REPLICAS:
        return NotReplicated(jids, answer, REPLICAS)
    if once and (refused := {jid: said for jid, said in zip(jids, answer, strict=True) if isinstance(said, str)}):
        error = refusal("push_once", next(iter(refused.values())))
        taken = [jid for jid in jids if jid not in refused]
        return PartlyEnqueued(str(error), confirmed=taken, unsent=list(refused)) if taken else error
    return None


def _raise(sent: Sequence[tuple[Sequence[Parcel], StoreError | None]]) -> None:
    """Raise what went wrong, if anything, for all shards together: one that fails does not hold up the others."""
    errors = [error for _, error in sent if error is not None]
    if not errors:
        return
    if len(sent) == 1:
        raise errors[0]
    confirmed: list[str] = []
    unknown: list[str] = []
    unsent: list[str] = []
    for group, error in sent:
        jids = [parcel.jid for parcel in group]
        if error is None or isinstance(error, NotReplicated):
            confirmed += jids
        elif isinstance(error, MaybeEnqueued | PartlyEnqueued):
            confirmed += error.confirmed
            unknown += getattr(error, "unknown", ())
            unsent += error.unsent
        else:
            unsent += jids
    told = _together(errors, confirmed, unknown, unsent)
    if told not in errors:  # one of them has a cause of its own
        told.__cause__ = errors[0]
    raise told


def _together(errors: list[StoreError], confirmed: list[str], unknown: list[str], unsent: list[str]) -> StoreError:
    if unknown:
        return MaybeEnqueued(confirmed=confirmed, unknown=unknown, unsent=unsent)
    grave = [error for error in errors if not isinstance(error, NotReplicated)]
    if not grave:
        late = [error for error in errors if isinstance(error, NotReplicated)]
        return NotReplicated([jid for error in late for jid in error.jids], min(e.replicas for e in late), REPLICAS)
    return PartlyEnqueued(str(grave[0]), confirmed=confirmed, unsent=unsent) if confirmed else grave[0]

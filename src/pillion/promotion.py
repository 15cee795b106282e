"""What a stored job becomes when it goes to its queue: by the poller when it is due, or by a person's hand.

Client middleware sees it again, and what middleware leaves alone keeps its exact bytes. Nothing here touches Redis: the
move itself is `ops.promote`, which the caller runs. Used by `worker/poller.py` and the API."""

from __future__ import annotations

from typing import NamedTuple

from pillion.errors import BadPayload, MiddlewareError
from pillion.middleware import run_client
from pillion.payload import decode, encode, splice, stamp
from pillion.running import promoting
from pillion.setup import Setup
from pillion.types import Payload

MAX_QUEUE = 128


class Promoted(NamedTuple):
    """A job as it is pushed: `queue` has no prefix."""

    queue: str
    raw: bytes


def promote(raw: bytes, payload: Payload, setup: Setup, pool: object) -> Promoted | None:
    """The job `raw`, which is `payload` decoded, as it is pushed now; None where client middleware stopped it.

    Raises BadPayload where it has no queue that it can go to, MiddlewareError where middleware left it unfit to run,
    and whatever a middleware raises.
    """
    queue = foreign_queue(payload)
    enqueued_at = stamp(setup.config.clock.now(), setup.config.wire)
    if not setup.client_middleware:
        return Promoted(queue, splice(raw, {"enqueued_at": enqueued_at}, remove=("at",)))
    name = payload["class"]
    with promoting(payload):
        kept = run_client(setup.client_middleware, name, payload, queue, pool)
    if kept is None:
        return None
    kept["enqueued_at"] = enqueued_at
    kept.pop("at", None)
    try:
        return Promoted(foreign_queue(kept), _changed(raw, kept))
    except BadPayload as bad:  # which the stored job was not
        raise MiddlewareError(
            f"expected client middleware to leave a job that can run, got {name}: {bad.reason}; see what "
            "it does to a job that is stored already (pillion.is_promotion)"
        ) from None


def foreign_queue(payload: Payload) -> str:
    """The queue of a stored job. Other programs allow names that we would not push to, so this is more lenient.

    Raises BadPayload where there is none.
    """
    queue = payload.get("queue")
    if isinstance(queue, str) and 0 < len(queue) <= MAX_QUEUE and queue.isprintable():
        return queue
    raise BadPayload("`queue` is not a name of 1 to 128 printable characters")


def _changed(raw: bytes, payload: Payload) -> bytes:
    """The stored bytes with what middleware changed. Raises BadPayload where that left none that can run."""
    before = decode(raw)
    changes = {name: value for name, value in payload.items() if name not in before or not _same(before[name], value)}
    changed = splice(raw, changes, remove=[name for name in before if name not in payload])
    decode(changed)
    return changed


def _same(one: object, other: object) -> bool:
    """Whether two values are the same JSON; to Python alone 1, 1.0 and True are equal."""
    return one == other and (isinstance(one, str) or encode({"": one}) == encode({"": other}))

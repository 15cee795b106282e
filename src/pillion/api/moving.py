"""Moving entries of a set by hand: what is asked of `ops.promote`, one by one or many at once, and whom to tell.

The parts of which `sets.py` and `bulk.py` make their verbs. All moves are the poller's own script, so a person and a
poller that reach for the same entry move it once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pillion.api.entry import Entry, OneSet
from pillion.api.faces import Call, Plan, ask
from pillion.api.record import JobRecord
from pillion.errors import Refused, UsageError
from pillion.payload import decode, splice
from pillion.promotion import promote
from pillion.store import ops, reads
from pillion.store.ops import Move

log = logging.getLogger("pillion")


def away(entry: Entry) -> Move:
    """Out of its set."""
    return Move(entry.value, entry.score, "drop", entry.score)


def to_time(entry: Entry, score: float) -> Move:
    """To another score."""
    return Move(entry.value, entry.score, "later", score)


def to_dead(owner: OneSet, entry: Entry) -> Move:
    """To the dead set, as it is."""
    return Move(entry.value, entry.score, "dead", owner.config.clock.now(), payload=entry.value)


def to_queue(owner: OneSet, entry: Entry, *, by_hand: bool = False) -> Move:
    """To its queue, through client middleware; `by_hand` takes one off its retries.

    A move `drop` is one that middleware stopped. Raises BadPayload, and what a middleware raises.
    """
    raw, count = entry.value, entry.retry_count
    if by_hand and count is not None:
        raw = splice(raw, {"retry_count": count - 1})
    promoted = promote(raw, decode(raw), owner.setup, owner.client.store)
    if promoted is None:
        log.info("client middleware stopped a job that was moved by hand: %s %s", entry.display_class, entry.jid)
        return away(entry)
    return Move(entry.value, entry.score, "push", entry.score, promoted.raw, promoted.queue)


def one(owner: OneSet, move: Move) -> Plan[bool]:
    """Carry out one move; False where the entry has gone. Raises Refused where the server will not have it there."""
    [result] = yield from many(owner, [move])
    if isinstance(result, str):
        raise Refused(f"the server refused to put the job into queue {move.queue}: {result}; it stays where it was")
    return result


def many(owner: OneSet, moves: Sequence[Move]) -> Plan[list[bool | str]]:
    """Carry out moves in one script. Per move True, False where it has gone, or the server's words."""
    config = owner.config
    return (
        yield from ask(
            ops.promote(
                owner.keys,
                owner.key,
                moves,
                dead_max=config.dead_max_jobs,
                dead_timeout=config.dead_timeout_in_seconds,
                now=config.clock.now(),
            )
        )
    )


def check_killing(owner: OneSet) -> Plan[None]:
    """Raise UsageError where entries are dead already, and Refused where the dead set's key is no set. O(1)."""
    if owner.name == "dead":
        raise UsageError("expected entries of `schedule` or `retry`, got those of the dead set; retry or delete them")
    yield from ask(reads.count(owner.keys.dead))


def killed_by(ex: BaseException | None) -> BaseException:
    """What death handlers are given."""
    return RuntimeError("Job killed by API") if ex is None else ex


def tell_deaths(owner: OneSet, jobs: Sequence[JobRecord], error: BaseException) -> Plan[None]:
    """Call this process's death handlers for each job. What one raises is logged, and the others are called."""
    for job in jobs:
        for handler in list(owner.setup.death_handlers):
            try:
                yield Call(handler, (dict(job.item), error))
            except Exception:
                log.exception("a death handler raised and is skipped: %r", handler)

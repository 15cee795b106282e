"""One verb for all entries of a set: a walk over a snapshot, in batches, that ends whatever happens meanwhile.

Sidekiq pops until the set is empty: a crash loses the popped job, an error stops half-way, and jobs that fail again at
once are popped again and again. Here the walk goes up by score to the highest score that stood there when it began,
over at most as many entries as there were, and passes over those that say they were made, pushed or failed after that.
Each batch is one script that checks every entry again. So each entry of the snapshot is moved once or told of.

`Progress` is where a walk stands, as a value: whoever runs long operations can keep it, pause between two batches and
go on after a restart. A batch that was done and whose progress was not kept is found gone, not done twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from pillion.api import moving
from pillion.api.entry import Entry, OneSet
from pillion.api.faces import Plan, ask
from pillion.store import reads
from pillion.store.ops import MAX_BATCH, Move
from pillion.store.reads import Spot

MOST_FAULTS = 20

Decide: TypeAlias = Callable[[Entry], Move]


class Fault(msgspec.Struct, frozen=True):
    """An entry that could not be moved, and stays: its jid and one clause."""

    jid: str
    reason: str


class Tally(msgspec.Struct, frozen=True):
    """What became of the entries of a snapshot.

    Attributes:
        moved: they are in their new place.
        stopped: client middleware stopped them, which removed them.
        gone: somebody else moved them first.
        failed: they could not be moved, and stay; `faults` tells of the first 20.
        newer: not counted above: they came after the walk began, or a clock ahead of ours wrote their times.
    """

    moved: int = 0
    stopped: int = 0
    gone: int = 0
    failed: int = 0
    newer: int = 0
    faults: tuple[Fault, ...] = ()


class Progress(msgspec.Struct, frozen=True):
    """Where a walk stands.

    Attributes:
        began: when, epoch seconds.
        left: most entries of the snapshot that are still to come; 0 is the end.
        top: its highest score.
        after: the last entry that was looked at.
        tally: what has become of the others.
    """

    began: float
    left: int
    top: float = 0.0
    after: Spot | None = None
    tally: Tally = Tally()


class Bulk:
    """A walk over the entries of `owner`. With `told`, death handlers hear of each that was moved."""

    def __init__(self, owner: OneSet, told: BaseException | None = None) -> None:
        self._owner = owner
        self._told = told

    def all(self, decide: Decide) -> Plan[Tally]:
        """Every entry of the snapshot, to its end."""
        progress = yield from self.begin()
        while progress.left:
            progress = yield from self.batch(progress, decide)
        return progress.tally

    def begin(self) -> Plan[Progress]:
        """Take the snapshot's bounds. O(log N)."""
        began = self._owner.config.clock.now()
        count, top = yield from ask(reads.highest(self._owner.key))
        return Progress(began, 0 if top is None else count, top or 0.0)

    def batch(self, progress: Progress, decide: Decide) -> Plan[Progress]:
        """The next entries, at most 200 and 1 MB. `decide` says what becomes of each; what it raises is a fault."""
        most = min(MAX_BATCH, progress.left)
        spots, after = yield from ask(reads.set_page(self._owner.key, progress.after, most=most, up=True))
        inside = [Entry(self._owner, spot) for spot in spots if spot.score <= progress.top]
        entries = [entry for entry in inside if entry.touched_at() <= progress.began]
        tally = yield from self._move(entries, decide, progress.tally)
        tally = msgspec.structs.replace(tally, newer=tally.newer + len(inside) - len(entries))
        at_end = after is None or len(inside) < len(spots)
        left = 0 if at_end else progress.left - len(entries)
        return msgspec.structs.replace(progress, left=left, after=after, tally=tally)

    def _move(self, entries: list[Entry], decide: Decide, tally: Tally) -> Plan[Tally]:
        moves: list[tuple[Entry, Move]] = []
        faults: list[Fault] = []
        for entry in entries:
            try:
                moves.append((entry, decide(entry)))
            except Exception as error:
                faults.append(Fault(entry.jid, str(error) or type(error).__name__))
        results = (yield from moving.many(self._owner, [move for _, move in moves])) if moves else []
        done = [(entry, move) for (entry, move), result in zip(moves, results, strict=True) if result is True]
        faults += [Fault(e.jid, r) for (e, _), r in zip(moves, results, strict=True) if isinstance(r, str)]
        if self._told is not None:
            yield from moving.tell_deaths(self._owner, [entry for entry, _ in done], self._told)
        stopped = sum(move.verb == "drop" for _, move in done)
        return Tally(
            moved=tally.moved + len(done) - stopped,
            stopped=tally.stopped + stopped,
            gone=tally.gone + results.count(False),
            failed=tally.failed + len(faults),
            newer=tally.newer,
            faults=(*tally.faults, *faults)[:MOST_FAULTS],
        )

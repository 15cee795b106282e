"""A campaign: blocks of trials, several beds side by side, each in a process of its own.

The blocks of all faults stand in one line, those of the fault that is furthest behind first. Each that has been played
goes into the results at once; one that was interrupted is played again, from the same seed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from tests.crash import catalogue
from tests.crash.fault import Fault, Score
from tests.crash.results import Results, Row
from tests.crash.trial import Block, play_block
from tests.servers import Kind

_context = multiprocessing.get_context("spawn")
LEAST = 4
"""Trials of a block where few are wanted: all beds shall have some."""

MOST_BROKEN = 10
STALLED = 900.0
"""A trial takes seconds, seldom minutes; a bed that says nothing for so long hangs."""


@dataclass
class Order:
    """What is wanted.

    Attributes:
        faults: which.
        trials: how many of each; None for as many as the published run has.
        beds: how many side by side.
        seed: decides all plans.
        minutes: no new block is begun after so many.
        kinds: the servers to use.
        ruby: the Ruby that pushes, too, in some beds; none if empty.
        untimed: see `Block`.
    """

    faults: Sequence[type[Fault]]
    trials: int | None
    beds: int
    seed: int
    minutes: float | None
    kinds: tuple[Kind, ...]
    ruby: str = ""
    untimed: bool = False

    def wanted(self, fault: type[Fault]) -> int:
        return self.trials or fault.trials


class Seat:
    """A process that plays one block after the other, and what it has told of the present one."""

    def __init__(self) -> None:
        self.pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=sit, args=(theirs,))
        self._process.start()
        theirs.close()
        self.block: Block | None = None
        self.row = Row()
        self.heard = time.monotonic()

    def give(self, block: Block) -> None:
        """Have this one played."""
        self.block, self.row, self.heard = block, Row(), time.monotonic()
        self.pipe.send((block.fault.id, block.seed, block.number, block.trials, block.kinds, block.ruby, block.untimed))

    def end(self) -> None:
        """Wait for a process that has nothing to do; nobody waits for one that has."""
        self.pipe.close()
        self._process.join(0.1 if self.block else 10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(10)


class Campaign:
    """Plays what was ordered and adds it to `results`; `saved` is called after each block, `told` after each trial."""

    def __init__(
        self, order: Order, results: Results, saved: Callable[[], None], told: Callable[[Block, Score], None]
    ) -> None:
        self._order = order
        self._results = results
        self._saved = saved
        self._told = told
        self._seats: list[Seat] = []
        self._broken: list[Score] = []
        self._given: dict[str, set[int]] = {
            fault.id: set(results.row(fault.id).blocks) if order.seed in results.seeds else set()
            for fault in order.faults
        }
        self._began = time.monotonic()

    def run(self) -> None:
        """Play everything; Ctrl-C leaves what was played."""
        try:
            while self._give() or any(seat.block for seat in self._seats):
                self._hear()
        finally:
            for seat in self._seats:
                seat.end()

    def _give(self) -> bool:
        """Give each idle seat a block, as long as there are any. Returns whether one was given."""
        gave = False
        while (block := self._next() if self._has_place() else None) is not None:
            seat = next((seat for seat in self._seats if seat.block is None), None)
            if seat is None:
                seat = Seat()
                self._seats.append(seat)
            seat.give(block)
            gave = True
        return gave

    def _has_place(self) -> bool:
        return sum(seat.block is not None for seat in self._seats) < self._order.beds

    def _next(self) -> Block | None:
        """A block of the fault that is furthest behind."""
        order = self._order
        if order.minutes is not None and time.monotonic() - self._began > order.minutes * 60:
            return None
        left = {fault: order.wanted(fault) - self._promised(fault) for fault in order.faults}
        fault = max(left, key=lambda each: left[each] / order.wanted(each))
        if left[fault] <= 0:
            return None
        number = next(n for n in range(1_000_000) if n not in self._given[fault.id])
        self._given[fault.id].add(number)
        size = min(fault.block, left[fault], max(LEAST, order.wanted(fault) // order.beds))
        return Block(order.seed, fault, number, size, order.kinds, order.ruby, order.untimed)

    def _promised(self, fault: type[Fault]) -> int:
        playing = [seat.block.trials for seat in self._seats if seat.block is not None and seat.block.fault is fault]
        return self._results.row(fault.id).n + sum(playing)

    def _hear(self) -> None:
        """Read what the beds tell."""
        busy = [seat for seat in self._seats if seat.block is not None]
        ready = wait([seat.pipe for seat in busy], timeout=5.0)
        for seat in busy:
            if seat.pipe in ready:
                self._read(seat)
            elif time.monotonic() - seat.heard > STALLED:
                self._give_up(seat, f"the bed said nothing for {STALLED:g} s")

    def _read(self, seat: Seat) -> None:
        try:
            score: Score | None = seat.pipe.recv()
        except (EOFError, ConnectionError):
            self._give_up(seat, "the bed's process died")
            return
        if score is not None and not score.played:
            self._broken.append(score)
            say("\n".join([score.plan, *score.wrong]))
            if len(self._broken) > MOST_BROKEN:
                raise SystemExit(f"{len(self._broken)} beds broke; this says nothing about Pillion")
            return
        if score is not None:
            self._count(seat, score)
            return
        assert seat.block is not None
        seat.row.blocks = [seat.block.number]
        self._results.merge(seat.block.fault.id, seat.row, seat.block.seed)
        seat.block = None
        self._saved()

    def _count(self, seat: Seat, score: Score) -> None:
        assert seat.block is not None
        seat.heard = time.monotonic()
        seat.row.add(score)
        self._told(seat.block, score)

    def _give_up(self, seat: Seat, words: str) -> None:
        """A bed that hangs or died: what it had played counts, and this trial is wrong."""
        assert seat.block is not None
        self._count(seat, Score(wrong=[words], plan=str(seat.block)))
        seat.row.blocks = [seat.block.number]
        self._results.merge(seat.block.fault.id, seat.row, seat.block.seed)
        self._saved()
        self._seats.remove(seat)
        seat.end()


def sit(pipe: Connection) -> None:
    """What a seat's process does: play what it is given, and tell each score. It ends when nobody listens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):
        while True:
            fault, *words = pipe.recv()
            play(pipe, Block(words[0], catalogue.by_id(fault), *words[1:]))
            pipe.send(None)


def play(pipe: Connection, block: Block) -> None:
    """Play a block; what breaks the bed itself is told, and is no trial."""
    try:
        for score in play_block(block):
            pipe.send(score)
    except ConnectionError:
        raise
    except Exception:
        pipe.send(Score(wrong=[traceback.format_exc(limit=-8)], plan=f"a bed broke: {block}", played=False))


def default_beds() -> int:
    """Beds wait most of the time: for a lease to run out, mostly."""
    return 4 * (os.cpu_count() or 2)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)

"""The long run: `make fuzz` sends a million inputs through the fuzzed worker; `ARGS="--inputs 5000"` fewer.

Every batch has a chance of its own, made from the seed and its number, so `--seed 7 --first 123 --inputs 1` repeats
one. The first input that breaks an account is told and ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import os
import reprlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from tests.fuzz.bed import Bed
from tests.fuzz.inputs import Inputs
from tests.servers import Server

DOORS = ("consume", "promote", "promote_through", "push")
BATCH = 100
TELL_EVERY = 15.0


def main() -> int:
    options = _options()
    os.nice(10)
    server = Server(options.kind)
    try:
        server.start()
        return run(server, options.seed, options.first, options.inputs)
    finally:
        server.close()


def run(server: Server, seed: int, first: int, inputs: int) -> int:
    """Fuzz with batches from number `first` until so many inputs went through; the exit code."""
    bed, done, batch = Bed(server), Counter[str](), first
    began = told = time.monotonic()
    while done.total() < inputs:
        door = DOORS[batch % len(DOORS)]
        values = draw(door, seed, batch)
        try:
            getattr(bed, door)(values)
        except BaseException as error:
            print(f"\nseed {seed}, batch {batch}: {error!r:.500}", file=sys.stderr)
            blame(server, door, values)
            return 1
        done[door] += len(values)
        batch += 1
        if time.monotonic() - told > TELL_EVERY:
            told = time.monotonic()
            print(f"{done.total():>9,} inputs, {done.total() / (told - began):,.0f} a second", flush=True)
    bed.close()
    shares = ", ".join(f"{count:,} by {door}" for door, count in done.items())
    print(
        f"{done.total():,} inputs in {time.monotonic() - began:.0f} s (seed {seed}): {shares}; every account is right"
    )
    return 0


def draw(door: str, seed: int, batch: int) -> list[Any]:
    """The inputs of one batch."""
    inputs = Inputs(Random(f"{seed}:{batch}"))
    one: Callable[[], Any] = inputs.pushed if door == "push" else inputs.stored
    return [one() for _ in range(BATCH)]


def blame(server: Server, door: str, values: Sequence[Any]) -> None:
    """Send the inputs of a broken batch one by one, each to a fresh bed, and tell those that break it alone."""
    shown = reprlib.Repr()
    shown.maxlevel = shown.maxdict = shown.maxlist = 20
    shown.maxstring = shown.maxother = 2_000
    for value in values:
        server.reset()
        bed = Bed(server)
        try:
            getattr(bed, door)([value])
        except BaseException as error:
            told = f"{value[:4_000]!r} ({len(value)} bytes)" if isinstance(value, bytes) else shown.repr(value)
            print(f"{door} {told}\n  -> {error!r:.1000}", file=sys.stderr)
        else:
            bed.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first batch")
    parser.add_argument("--kind", choices=("valkey", "redis"), default="valkey")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

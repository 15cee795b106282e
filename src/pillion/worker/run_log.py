"""Notes how single runs went, for the run log: every failure, and of what went well a sample of each class.

Fetchers add what the store has agreed to, the heartbeat writes. It must never cost a job anything, so it keeps a few
rows per class in memory, each a few hundred bytes; what the server refuses or cannot take now is dropped and told once.
Lost with a process that dies is what it noted since its last beat: failures of one beat, successes of a few.

Which runs are kept is decided by counting: every run at first, then, whenever a class has twice its share, every second
of those, and from then on every second, fourth, ... So each run of a class is as likely to be kept as another, whatever
the rate, and `stands_for` says of how many it is one. The shares of all processes together make `ROWS_A_BEAT`: with
many classes and processes a share is less than a row a beat, and rows are gathered over several."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable

import msgspec

from pillion.config import Config
from pillion.errors import StoreError
from pillion.mask import mask_secrets
from pillion.payload import read_time
from pillion.store import run_log
from pillion.store.connection import Store
from pillion.store.run_log import Row, State
from pillion.types import Dead, Requeue, Retry, Snooze
from pillion.worker.runner import DONE, Finished

log = logging.getLogger("pillion")

ROWS_A_BEAT = 100
FAILURES_A_BEAT = 100
MOST_BEATS = 30
MOST_CLASSES = 200
MOST_ROWS = 2_000
MOST_SHARE = 50
MOST_NAME = 256
MOST_ATTEMPTS = 1_000_000_000
MOST_MESSAGE = 500
LONGEST_MASKED = 4 * MOST_MESSAGE  # longer than what is kept: a secret that is cut in two would not be known as one


class Sample:
    """Runs of one class. `seen` counts all of them; of these every `mask + 1`th is kept, from `share` to twice that."""

    __slots__ = ("kept", "mask", "seen", "share")

    def __init__(self, share: int) -> None:
        self.seen = 0
        self.mask = 0
        self.share = share
        self.kept: list[tuple[str, Row]] = []

    def keep(self, owner: str, row: Row) -> None:
        """Keep this run; with twice the share, let go of every second."""
        self.kept.append((owner, row))
        if len(self.kept) >= 2 * self.share:
            self.kept = self.kept[1::2]
            self.mask = 2 * self.mask + 1


class RunLog:
    """The notes of one process at one shard.

    Attributes:
        fleet: how many processes share the log.
    """

    def __init__(self, config: Config) -> None:
        self.fleet = 1
        self._config = config
        self._lock = threading.Lock()
        self._done: dict[str, Sample] = {}
        self._failed: dict[str, Sample] = {}
        self._share = MOST_SHARE
        self._beats = 0
        self._told: set[State] = set()

    def add(self, settled: Iterable[Finished]) -> None:
        """Note settled jobs. What was put back has not run to an end, and is not noted. Never raises."""
        try:
            with self._lock:
                samples = self._done
                for item in settled:
                    if item.outcome is not DONE:
                        self._add_other(item)
                        continue
                    sample = samples.get(item.name) or self._sample(samples, item.name, self._share)
                    sample.seen += 1
                    if not sample.seen & sample.mask:
                        sample.keep(item.claim.owner, self._row(item))
        except Exception:  # the fetcher that calls has claims in hand, which a log must not make it drop
            log.exception("the run log could not note a run")

    def flush(self, store: Store, *, everything: bool = False) -> None:
        """Write what is due. Never raises what the store raises: then it is lost."""
        most = self._config.run_log_size // len(run_log.STATES)
        for state, samples in self._due(everything):
            try:
                store.run(run_log.append(store.keys, state, run_log.pack(_by_owner(samples)), most))
                self._told.discard(state)
            except StoreError as error:
                if state not in self._told:
                    log.warning("the run log could not be written, and misses some runs: %s", error)
                self._told.add(state)

    def _due(self, everything: bool) -> list[tuple[State, dict[str, Sample]]]:
        with self._lock:
            due: list[tuple[State, dict[str, Sample]]] = []
            if self._failed:
                due.append(("failed", self._failed))
                self._failed = {}
            self._beats += 1
            wanted = len(self._done) * max(self.fleet, 1) / ROWS_A_BEAT
            if self._done and (everything or self._beats >= min(wanted, MOST_BEATS)):
                due.append(("done", self._done))
                self._share = max(1, min(MOST_SHARE, int(self._beats / wanted)))
                self._done, self._beats = {}, 0
            return due

    def _add_other(self, item: Finished) -> None:
        if type(item.outcome) is Requeue or (item.elapsed < 0 and item.rejected is None):
            return
        failed = item.failure is not None or item.rejected is not None
        samples, share = (self._failed, FAILURES_A_BEAT) if failed else (self._done, self._share)
        sample = samples.get(item.name) or self._sample(samples, item.name, share)
        sample.seen += 1
        if not sample.seen & sample.mask:
            sample.keep(item.claim.owner, self._row(item))

    def _sample(self, samples: dict[str, Sample], name: str, share: int) -> Sample:
        """A new sample; anybody may push jobs of any class, so from some number on all others share one."""
        return samples.setdefault(name if len(samples) < MOST_CLASSES else "", Sample(share))

    def _row(self, item: Finished) -> Row:
        clock, payload = self._config.clock, item.payload or {}
        began = clock.now() - (clock.steady() - item.started if item.elapsed >= 0 else 0.0)
        pushed = read_time(payload.get("enqueued_at"))
        count = payload.get("retry_count")
        error_class, message = _error(item)
        return Row(
            jid=str(payload.get("jid") or "")[:MOST_NAME],
            klass=item.name[:MOST_NAME],
            queue=item.claim.queue[:MOST_NAME],
            attempt=min(max(count, -1), MOST_ATTEMPTS) + 2 if type(count) is int else 1,
            began=int(began * 1000),
            micros=int(max(item.elapsed, 0.0) * 1_000_000),
            wait=None if pushed is None else int(max(began - pushed, 0.0) * 1_000_000),
            outcome=_outcome(item),
            error_class=error_class,
            error_message=message,
        )


def _by_owner(samples: dict[str, Sample]) -> dict[str, list[Row]]:
    """All rows by their owner, with what each stands for; of very many, every second, third, ..."""
    rows: dict[str, list[Row]] = {}
    step = math.ceil(sum(len(sample.kept) for sample in samples.values()) / MOST_ROWS)
    for sample in samples.values():
        kept = sample.kept[::step]
        stands_for = max(round(sample.seen / max(len(kept), 1)), 1)
        for owner, row in kept:
            rows.setdefault(owner, []).append(msgspec.structs.replace(row, stands_for=stands_for))
    for mine in rows.values():
        mine.sort(key=lambda row: row.began * 1000 + row.micros)
    return rows


def _outcome(item: Finished) -> str:
    if item.rejected is not None:
        return "rejected"
    if type(item.outcome) is Retry:
        return "retry"
    if type(item.outcome) is Dead:
        return "dead"
    if type(item.outcome) is Snooze:
        return "snoozed"
    return "done" if item.outcome is DONE else "discarded"


def _error(item: Finished) -> tuple[str | None, str | None]:
    if item.rejected is not None:
        return "BadPayload", mask_secrets(item.rejected[:LONGEST_MASKED])[:MOST_MESSAGE]
    if item.failure is None:
        return None, None
    job = item.failure.verdict.job
    name = str(job.get("error_class") or type(item.failure.error).__name__)
    return name[:MOST_NAME], mask_secrets(str(job.get("error_message") or "")[:LONGEST_MASKED])[:MOST_MESSAGE]

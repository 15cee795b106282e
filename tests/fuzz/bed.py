"""The fuzzed worker: the real registry, runner, tenure, poller and log lines on a real server, in one thread.

Each round takes some inputs through one of four doors and then keeps accounts: nothing raised, nothing was lost or
changed on its way, nothing was imported, no log line was forged, no secret was told. A round that breaks an account
raises AssertionError; `__main__.py` finds out which input it was.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from typing import Any

import msgspec
import redis

from pillion import activejob
from pillion.client import Client
from pillion.errors import PayloadError
from pillion.log import JobLines
from pillion.payload import decode
from pillion.running import Signals
from pillion.setup import Setup
from pillion.store.keys import Keyspace
from pillion.types import Claim, Dead, Retry, Snooze
from pillion.worker.announcer import Announcer
from pillion.worker.head import read_head
from pillion.worker.hooks import Hooks
from pillion.worker.loop import LoopThread
from pillion.worker.poller import Poller
from pillion.worker.runner import Finished, Runner
from pillion.worker.stats import Stats, flush_commands
from pillion.worker.tenure import Tenure
from tests.fuzz import jobs
from tests.fuzz.lines import Lines
from tests.fuzz.witness import depth, runnable
from tests.servers import Server

QUEUE = "fuzz"
LONGEST_NAME = 256
LONGEST_KEY = 1_000
_RAW = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Bed:
    """One worker's rooms, joined to `server`, and the accounts of what went through them."""

    def __init__(self, server: Server) -> None:
        self.redis: redis.Redis = server.client()
        self.setup = Setup(server.url, registry=jobs.registry(), lease=3600.0)
        self.setup.death_handlers.append(lambda job, error: None)
        self.client = Client(setup=self.setup)
        self.config = self.setup.config
        self.store = self.setup.store
        self.stats = Stats()
        self.reported: list[BaseException] = []
        self._runner = Runner(self.setup, self.config, Signals())
        self._tenure = Tenure(self.store, "fuzz:1:0/default", 200, self.config)
        self._poller = Poller(self.store, self.setup, self.config, lambda error, context: self.reported.append(error))
        self._announcer = Announcer(self.setup, self.config, Hooks(self.setup, LoopThread()))
        self._lines = Lines()
        JobLines(self._lines.logger).attach(self.setup.events)
        self._modules: Container[str] = sys.modules
        self.consume([b'{"class":"Fails","args":["warm"],"jid":"j","queue":"low"}'])  # lazy imports happen here
        self.promote([b'{"class":"Echo","args":[],"jid":"j","queue":"low"}'])
        self._modules = set(sys.modules)

    # -- the doors -------------------------------------------------------------------------------------------------

    def consume(self, raws: Sequence[bytes]) -> Counter[str]:
        """Let the worker fetch, run and settle these bytes. Returns how many had which outcome."""
        self.redis.lpush(f"queue:{QUEUE}", *raws)
        finished: list[Finished] = []
        while len(finished) < len(raws):
            claims = self._tenure.step(200, lambda most: ((QUEUE, most),), wake=False).claims
            assert claims, "a step claimed nothing although there are jobs"
            finished += self._settled([self._run(claim) for claim in claims])
        assert Counter(item.claim.raw for item in finished) == Counter(raws)
        for item in finished:
            self._check(item)
        self._check_places(finished)
        self._sweep()
        return Counter(type(item.outcome).__name__ for item in finished)

    def promote(self, raws: Sequence[bytes], source: str = "schedule") -> Counter[str]:
        """Let the poller move these bytes from a set; each must come to its queue or to the dead set."""
        self.redis.zadd(source, {raw: float(score) for score, raw in enumerate(raws, 1)})
        raws = list(dict.fromkeys(raws))
        assert self._poller.poll() == len(raws)
        assert not self.redis.exists(source)
        dead = set(self.redis.zrange("dead", 0, -1))
        queued = [raw for name in self.redis.smembers("queues") for raw in self.redis.lrange(b"queue:" + name, 0, -1)]
        assert dead <= set(raws)
        assert Counter(map(_args, queued)) == Counter(_args(raw) for raw in raws if raw not in dead)
        for raw in raws:
            wrong = runnable(raw) is (raw in dead) and (raw not in dead or _has_queue(raw))
            assert not wrong, "the poller buried a sound job or moved one that can never run"
        self._sweep()
        assert self.reported == []
        return Counter(dead=len(dead), queued=len(queued))

    def promote_through(self, raws: Sequence[bytes]) -> Counter[str]:
        """The same from the retry set, through a client middleware that adds a field."""
        self.setup.client_middleware.add(marks)
        try:
            return self.promote(raws, "retry")
        finally:
            self.setup.client_middleware.remove(marks)

    def push(self, items: Sequence[Any]) -> Counter[str]:
        """Push these values; what is not refused must be a job that everybody can read."""
        found: Counter[str] = Counter()
        for item in items:
            try:
                assert self.client.push(item)
            except PayloadError as error:
                found["refused"] += 1
                self._lines.look_at_refusal(str(error))
            else:
                found["pushed"] += 1
        names = self.redis.smembers("queues")
        stored = [raw for name in names for raw in self.redis.lrange(b"queue:" + name, 0, -1)]
        stored += self.redis.zrange("schedule", 0, -1)
        assert len(stored) == found["pushed"]
        for raw in stored:
            assert runnable(raw)
            assert decode(raw)
            assert depth(raw.decode()) <= 100
        self._sweep()
        return found

    def close(self) -> None:
        self._tenure.leave()
        self._lines.close()
        self.store.close()

    # -- the worker's part -----------------------------------------------------------------------------------------

    def _run(self, claim: Claim) -> Finished:
        head = read_head(claim.raw)
        activejob.find(self.setup.registry, head.name, head.wrapped)
        run = self._runner.begin(claim, 0.0)
        if isinstance(run, Finished):
            return run
        return self._runner.finish(run, *self._runner.perform(run))

    def _settled(self, finished: Sequence[Finished]) -> Sequence[Finished]:
        self._tenure.add(finished)
        turned = self._tenure.step(0, lambda most: (), wake=False)
        assert (turned.refused, turned.lost) == ([], None)
        assert len(turned.written) == len(finished)
        self.stats.add(turned.written)
        self._announcer.settled(turned.written)
        self._announcer.after()
        return turned.written

    # -- the accounts ----------------------------------------------------------------------------------------------

    def _check(self, item: Finished) -> None:
        """What one outcome must be like, whatever the payload was."""
        raw, outcome = item.claim.raw, item.outcome
        if item.rejected is not None:
            assert runnable(raw) is not True, f"a sound job was refused: {item.rejected}"
            assert isinstance(outcome, Dead)
            assert outcome.payload == raw
            assert item.rejected.isprintable()
            return
        assert runnable(raw) is not False, "bytes that no strict reader takes were run"
        assert len(item.name) <= LONGEST_NAME
        assert item.name.isprintable()
        if isinstance(outcome, Retry | Dead | Snooze):
            assert _args(outcome.payload) == _args(raw)
            assert decode(outcome.payload)

    def _check_places(self, finished: Sequence[Finished]) -> None:
        """Redis holds what the outcomes say, and nothing else."""
        for key, kind in (("retry", Retry), ("dead", Dead), ("schedule", Snooze)):
            expected = {item.outcome.payload for item in finished if isinstance(item.outcome, kind)}
            assert set(self.redis.zrange(key, 0, -1)) == expected
        assert not self.redis.exists(f"queue:{QUEUE}")
        counts = self.stats.take()
        assert counts.processed == len(finished)
        for _, key, *rest in flush_commands(Keyspace(), counts, 1e9):
            assert len(str(key)) + len(str(rest)) < LONGEST_KEY

    def _sweep(self) -> None:
        """Empty the places, and look for what must not have happened on the way."""
        names = [b"queue:" + name for name in self.redis.smembers("queues")]
        self.redis.delete("retry", "dead", "schedule", "queues", *names)
        assert self.redis.zcard("pillion:lease") == 1
        assert self.redis.keys("pillion:inf:*/default.*:*") == []
        self._lines.check()
        brought = [name for name in sys.modules if name not in self._modules and not name.startswith("hypothesis.")]
        assert not brought, f"imported: {brought}"


def marks(job_class: object, job: dict[str, Any], queue: str, pool: object) -> Iterator[None]:
    """A client middleware that changes every job."""
    job["tenant"] = queue
    yield


def _args(raw: bytes) -> bytes:
    return bytes(_RAW.decode(raw)["args"])


def _has_queue(raw: bytes) -> bool:
    """Whether the poller can tell where this job belongs."""
    name = json.loads(raw).get("queue")
    return isinstance(name, str) and 0 < len(name) <= 128 and name.isprintable()

"""The producers of the chaos bed: jobs of the mix, pushed one by one and in bulk, sync and async, and from Ruby.

A producer runs in a thread of its own for as long as a trial lasts, so that pushes meet the fault, too. It notes of
each jid whether the push was confirmed, or nobody can know.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pillion import Client
from pillion.config import random_jids
from pillion.errors import MaybeEnqueued, PartlyEnqueued, PoolTimeout, Refused, StoreError
from tests.crash.ledger import now
from tests.crash.mix import MixDeadly, draw

ONCE_SHARE = 0.15
ASYNC_SHARE = 0.25
PAUSE = (0.004, 0.04)
SLOWING = 1.1
"""A long fault needs no more jobs than a short one."""

BURST = (10, 30)
SIZES = (1, 1, 1, 2, 6)


@dataclass
class Pushed:
    """What became of the pushes, by jid: `accepted` with the moment of the confirmation."""

    accepted: dict[str, float] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    unsent: int = 0

    def accept(self, jids: Iterable[str | None], at: float | None = None) -> None:
        """These were confirmed, now or then."""
        moment = now() if at is None else at
        for jid in jids:
            if jid:
                self.accepted.setdefault(jid, moment)

    def before(self, moment: float) -> list[str]:
        """Those that had been confirmed by then."""
        return [jid for jid, at in self.accepted.items() if at < moment]


class Producer:
    """Pushes a burst, and then goes on until `stop`. `deadly` adds one job that ends its process."""

    def __init__(
        self, client: Client, kind: str, pushed: Pushed, rng: Random, *, deadly: bool = False, ruby: Ruby | None = None
    ) -> None:
        self._client, self._kind, self._pushed, self._rng = client, kind, pushed, rng
        self._deadly, self._ruby = deadly, ruby
        self._asyncio = rng.random() < ASYNC_SHARE
        self._over = threading.Event()
        self._standing = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="producer", daemon=True)

    def start(self) -> None:
        """Start, and return when the burst is pushed."""
        self._thread.start()
        self._standing.wait()

    def stop(self) -> None:
        """Push nothing more; returns when the last push has ended."""
        self._over.set()
        self._thread.join(30)
        if self._error is not None:
            raise self._error
        assert not self._thread.is_alive(), "a push has not ended in 30 s"

    def _work(self) -> None:
        try:
            if self._asyncio:
                asyncio.run(self._push_and_close())
            else:
                finish(self._push_all())
        except BaseException as error:  # told by `stop`
            self._error = error
        finally:
            self._standing.set()

    async def _push_and_close(self) -> None:
        await self._push_all()
        await self._client.setup.astore.close()

    async def _push_all(self) -> None:
        left = self._rng.randint(*BURST)
        while left > 0:
            left -= await self._push()
        if self._deadly:
            await self._send({"class": MixDeadly, "queue": "default", "args": [[1]]}, once=False)
        self._standing.set()
        pause = 1.0
        while not self._over.is_set():
            await self._push()
            await self._sleep(self._rng.uniform(*PAUSE) * pause)
            pause *= SLOWING

    async def _push(self) -> int:
        """Push some jobs of one class; how many."""
        job, ms = draw(self._rng, self._kind)
        size, queue = self._rng.choice(SIZES), self._rng.choice(("default", "other"))
        item: dict[str, Any] = {"class": job, "queue": queue, "args": [[ms]] * size}
        await self._send(item, once=self._rng.random() < ONCE_SHARE)
        return size

    async def _send(self, item: dict[str, Any], once: bool) -> None:
        pushed = self._pushed
        try:
            if self._ruby is not None and not once:
                jids, unsure = self._ruby.push(item["class"].__name__, item["queue"], item["args"])
                pushed.unknown.update(unsure)
            elif self._asyncio:
                jids = await self._client.apush_bulk(item, once=once)
            else:
                jids = self._client.push_bulk(item, once=once)
            pushed.accept(jids)
        except MaybeEnqueued as maybe:
            pushed.accept(maybe.confirmed)
            pushed.unknown.update(maybe.unknown)
            pushed.unsent += len(maybe.unsent)
        except PartlyEnqueued as partly:
            pushed.accept(partly.confirmed)
            pushed.unsent += len(partly.unsent)
        except (Refused, PoolTimeout, StoreError):
            pushed.unsent += len(item["args"])

    async def _sleep(self, seconds: float) -> None:
        if self._asyncio:
            await asyncio.sleep(seconds)
        else:
            self._over.wait(seconds)


def finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that awaits nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("the coroutine waits for something")


class Ruby:
    """A Ruby process that pushes what it is told to, one line each. It never sends anything twice by itself."""

    CODE = """
    STDOUT.sync = true
    Sidekiq.configure_client { |config| config.redis = { url: ARGV[0], reconnect_attempts: 0, timeout: 1.0 } }
    STDIN.each_line do |line|
      name, queue, rows = JSON.parse(line)
      told = rows.map do |jid, args|
        Sidekiq::Client.push("class" => name, "queue" => queue, "jid" => jid, "args" => args)
        true
      rescue
        false
      end
      puts JSON.generate(told)
    end
    """

    def __init__(self, path: str, url: str) -> None:
        words = [path, "-rsidekiq", "-rjson", "-e", self.CODE, "--", url]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=nowhere, text=True)

    def push(self, name: str, queue: str, args: list[list[float]]) -> tuple[list[str], list[str]]:
        """Push jobs of one class; the jids of those that were confirmed, and of those that nobody knows about."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        jids = random_jids(len(args))
        self._process.stdin.write(json.dumps([name, queue, list(zip(jids, args, strict=True))]) + "\n")
        self._process.stdin.flush()
        told = list(zip(jids, json.loads(self._process.stdout.readline()), strict=True))
        return [jid for jid, sure in told if sure], [jid for jid, sure in told if not sure]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

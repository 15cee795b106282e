"""A shop's Redis, as its dashboard would find it: queues, runs of the last hours, failures, workers of two languages.

    python -m tests.web.seeding redis://127.0.0.1:6379/0                          what a person looks at
    python -m tests.web.seeding URL --queued 2000000 --scheduled 1000000 ...      what speed is measured on

Everything is made of one seed, so two runs differ by the time only. It writes what workers write, through their own
code where that exists, and never deletes: give it an empty server."""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis

from pillion import Client
from pillion.retry import pack_backtrace
from pillion.store import run_log
from pillion.store.keys import Keyspace
from pillion.store.run_log import Row
from pillion.worker.stats import BOUNDS as SLOTS
from pillion.worker.stats import Counts, bisect_right, flush_commands

KEYS = Keyspace("")
MINUTE = 60.0
HOUR = 3600.0
DAY = 86_400.0
BATCH = 1_000

# class, queue, runs a minute, usual milliseconds, share that fails
CLASSES = (
    ("SendReceipt", "mailers", 46, 180, 0.004),
    ("SendDigest", "mailers", 22, 900, 0.05),
    ("ChargeCard", "critical", 18, 420, 0.012),
    ("SyncStripe", "webhooks", 30, 260, 0.02),
    ("DeliverWebhook", "webhooks", 64, 95, 0.03),
    ("ResizeImage", "default", 26, 1_400, 0.006),
    ("IndexProduct", "search", 80, 35, 0.001),
    ("RebuildIndex", "search", 0.05, 480_000, 0.0),
    ("ImportCatalog", "imports", 0.3, 95_000, 0.08),
    ("NightlyReport", "reports", 0.1, 210_000, 0.0),
    ("ExpireCarts", "low", 4, 60, 0.0),
    ("Billing::InvoiceJob", "critical", 6, 700, 0.01),
)
ERRORS = {
    "SendDigest": (
        "SMTPServerDisconnected",
        "Connection unexpectedly closed by smtp-{n}.mail.example:587 after {m} ms",
        ("mailers/digest.py", 88, "deliver"),
    ),
    "DeliverWebhook": (
        "ReadTimeout",
        "HTTPSConnectionPool(host='hooks.customer-{n}.example', port=443): Read timed out. (read timeout=5)",
        ("webhooks/deliver.py", 41, "post"),
    ),
    "ImportCatalog": (
        "ValidationError",
        "row {n}: price is {m}, expected a number with two decimals",
        ("imports/catalog.py", 132, "parse_row"),
    ),
    "ChargeCard": (
        "stripe.error.CardError",
        "Your card has insufficient funds. (request 'req_{h}')",
        ("billing/charge.py", 57, "charge"),
    ),
    "SyncStripe": (
        "RateLimitError",
        "Request rate limit exceeded, retry in {n} s",
        ("billing/stripe_sync.py", 23, "pull"),
    ),
}
TAGS = ("eu", "us", "vip", "backfill")


@dataclass
class Scale:
    """How much of each."""

    queued: int = 19_737
    scheduled: int = 1_204
    retries: int = 640
    dead: int = 212
    queues: int = 8
    processes: int = 6
    busy: int = 38
    hours: int = 8
    days: int = 180


SMALL = Scale(queued=700, scheduled=60, retries=60, dead=160, hours=1, days=40)
"""Enough to see everything, and quickly made."""


def seed(url: str, scale: Scale | None = None, now: float | None = None, number: int = 7) -> None:
    """Fill the server at `url`."""
    Seed(url, scale or Scale(), now or time.time(), random.Random(number)).all()


class Seed:
    """One filling."""

    def __init__(self, url: str, scale: Scale, now: float, rng: random.Random) -> None:
        self.url = url
        self.server: Any = redis.Redis.from_url(url)
        self.scale = scale
        self.now = now
        self.rng = rng
        self.count = 0

    def all(self) -> None:
        for step in (self.queues, self.sets, self.metrics, self.history, self.processes, self.marks, self.runs):
            step()

    # --- jobs -----------------------------------------------------------------------------------------------------

    def job(self, klass: str, queue: str, made: float, **more: Any) -> dict[str, Any]:
        """A payload as pushed."""
        self.count += 1
        payload: dict[str, Any] = {
            "class": klass,
            "args": self.args(klass),
            "queue": queue,
            "retry": True,
            "jid": f"{self.rng.getrandbits(96):024x}",
            "created_at": int(made * 1000),
            "enqueued_at": int(made * 1000),
            **more,
        }
        if self.rng.random() < 0.15:
            payload["tags"] = [self.rng.choice(TAGS)]
        return payload

    def args(self, klass: str) -> list[Any]:
        one, two = self.rng.randrange(1, 90_000), self.rng.randrange(1, 500)
        known: dict[str, list[Any]] = {
            "SendReceipt": [one, "receipt"],
            "SendDigest": [one, {"period": "weekly", "locale": self.rng.choice(["en", "de", "ja"])}],
            "ChargeCard": [one, two * 100, "EUR"],
            "SyncStripe": [f"evt_{self.rng.getrandbits(64):x}"],
            "DeliverWebhook": [f"https://hooks.customer-{two}.example/in", {"event": "order.paid", "id": one}],
            "ResizeImage": [f"uploads/{one}.jpg", [320, 640, 1280]],
            "ImportCatalog": [f"s3://catalogs/{two}.csv"],
            "Billing::InvoiceJob": [{"order_id": one, "card_token": "tok_not_for_your_eyes"}],
        }
        return known.get(klass, [one])

    def failed(self, klass: str, queue: str, at: float, count: int) -> dict[str, Any]:
        """The payload of a job that failed at that time."""
        name, message, (file, line, function) = ERRORS[klass]
        h = f"{self.rng.getrandbits(48):012x}"
        message = message.format(n=self.rng.randrange(1, 90), m=self.rng.randrange(100, 9_000), h=h)
        trace = [
            f"/srv/shop/{file}:{line}:in `{function}'",
            "/usr/lib/python3.11/site-packages/shop_http/client.py:212:in `request'",
            f"/srv/shop/jobs.py:{30 + len(klass)}:in `perform'",
        ]
        if self.rng.random() < 0.5:
            trace[0], trace[1] = trace[1], trace[0]
        more: dict[str, Any] = {"error_class": name, "error_message": message, "retry_count": count}
        more["error_backtrace"] = pack_backtrace(trace)
        job = self.job(klass, queue, at - self.rng.uniform(30, 4_000), failed_at=int((at - 900) * 1000), **more)
        if count:
            job["retried_at"] = int(at * 1000)
        return job

    def queues(self) -> None:
        names = [f"tenant-{i:03}" for i in range(max(0, self.scale.queues - 8))]
        shares = {"mailers": 0.93, "webhooks": 0.04, "default": 0.015, "search": 0.01, "imports": 0.003, "low": 0.002}
        self.server.sadd("queues", *{queue for _, queue, *_ in CLASSES}, *names)
        by_queue = {queue: klass for klass, queue, *_ in reversed(CLASSES)}
        for queue, share in [*shares.items(), *((name, 0.0002) for name in names)]:
            waiting = max(1, int(self.scale.queued * share))
            spread = 251.0 if queue == "mailers" else 12.0
            klass = by_queue.get(queue, "SendDigest")
            self.pushes(queue, klass, waiting, spread)
        self.server.sadd("paused", "imports")

    def pushes(self, queue: str, klass: str, count: int, spread: float) -> None:
        """Jobs that were pushed over the last `spread` seconds, the oldest first."""
        for start in range(0, count, BATCH):
            some = range(start, min(count, start + BATCH))
            jobs = [json.dumps(self.job(klass, queue, self.now - spread * (1 - i / count))) for i in some]
            self.server.lpush(f"queue:{queue}", *jobs)

    def sets(self) -> None:
        queue_of = {klass: queue for klass, queue, *_ in CLASSES}
        weights = {"SendDigest": 70, "DeliverWebhook": 45, "ImportCatalog": 14, "ChargeCard": 9, "SyncStripe": 22}

        def failed(age: float, counts: tuple[int, int]) -> tuple[dict[str, Any], float]:
            klass = self.rng.choices([*weights], [*weights.values()])[0]
            if klass == "SendDigest":  # it fails since the last deploy
                age = min(age, self.rng.uniform(60, 20 * MINUTE))
            return self.failed(klass, queue_of[klass], self.now - age, self.rng.randint(*counts)), age

        def died() -> tuple[dict[str, Any], float]:
            job, age = failed(self.rng.uniform(60, 9 * DAY), (3, 25))
            return job, -age

        def waits() -> tuple[dict[str, Any], float]:
            return failed(self.rng.uniform(10, HOUR), (0, 7))[0], self.rng.uniform(5, 4 * HOUR)

        self.zadd("dead", (died() for _ in range(self.scale.dead)))
        self.zadd("retry", (waits() for _ in range(self.scale.retries)))
        self.zadd("schedule", (self.planned() for _ in range(self.scale.scheduled)))

    def planned(self) -> tuple[dict[str, Any], float]:
        klass, queue, *_ = self.rng.choice(CLASSES)
        uniform, gauss = self.rng.uniform, self.rng.gauss
        ahead = self.rng.choice([uniform(20, DAY), gauss(9.5 * HOUR, 900), uniform(DAY, 9 * DAY)])
        job = self.job(klass, queue, self.now - 300)
        del job["enqueued_at"]
        return job, max(5.0, ahead)

    def zadd(self, name: str, found: Iterator[tuple[dict[str, Any], float]] | Any) -> None:
        part: dict[str, float] = {}
        for job, ahead in found:
            part[json.dumps(job)] = self.now + ahead
            if len(part) == BATCH:
                self.server.zadd(name, part)
                part = {}
        if part:
            self.server.zadd(name, part)

    # --- what ran -------------------------------------------------------------------------------------------------

    def metrics(self) -> None:
        """Every minute of the last hours, with a slower SendDigest since the last deploy."""
        for back in range(self.scale.hours * 60):
            at = self.now - back * MINUTE
            pipe = self.server.pipeline(transaction=False)
            for command in flush_commands(KEYS, self.minute(back), at):
                pipe.execute_command(*command)
            pipe.execute()

    def minute(self, back: int) -> Counts:
        counts = Counts()
        wave = 1 + 0.2 * math.sin(back / 11) + 0.08 * math.sin(back / 2.3) + self.rng.uniform(-0.05, 0.05)
        for klass, _, rate, usual, share in CLASSES:
            slow = 2.4 if klass == "SendDigest" and back < 40 else 1.0
            failing = share * (4 if klass == "SendDigest" and back < 40 else 1)
            for _ in range(self.some(rate * wave)):
                counts.processed += 1
                counts.metrics[f"{klass}|p"] += 1
                if self.rng.random() < failing:
                    counts.failed += 1
                    counts.metrics[f"{klass}|f"] += 1
                    continue
                ms = self.rng.lognormvariate(0, 0.5) * usual * slow
                counts.metrics[f"{klass}|ms"] += round(ms)
                counts.slots[klass, bisect_right(SLOTS, ms)] += 1
        return counts

    def some(self, rate: float) -> int:
        return int(rate) + (self.rng.random() < rate % 1)

    def history(self) -> None:
        pipe = self.server.pipeline(transaction=False)
        for back in range(1, self.scale.days):
            day = datetime.fromtimestamp(self.now - back * DAY, UTC)
            runs = int(430_000 * (0.55 if day.weekday() >= 5 else 1) * self.rng.uniform(0.9, 1.1))
            pipe.set(f"stat:processed:{day:%Y-%m-%d}", runs)
            pipe.set(f"stat:failed:{day:%Y-%m-%d}", int(runs * self.rng.uniform(0.002, 0.02)))
        pipe.incrby("stat:processed", 71_304_511)
        pipe.incrby("stat:failed", 402_118)
        pipe.execute()

    def marks(self) -> None:
        for minutes, label in ((39, "a1f3c9 Render digests with inline images"), (205, "9e2b11 Upgrade stripe to 9.4")):
            at = datetime.fromtimestamp(self.now - minutes * MINUTE, UTC)
            self.server.hset(f"{at:%Y%m%d}-marks", f"{at:%Y-%m-%dT%H:%M:00Z}", label)

    def runs(self) -> None:
        """The run log of the last hour."""
        owner = f"{self.identity(0)}/default.1"
        queue_of = {klass: queue for klass, queue, *_ in CLASSES}
        done, failed = list[Row](), list[Row]()
        for i in range(1_200):
            klass, queue, _, usual, _ = self.rng.choice(CLASSES[:6] + CLASSES[6:7] * 2 + CLASSES[7:])
            slow = 2.4 if klass == "SendDigest" else 1.0
            micros = int(self.rng.lognormvariate(0, 0.5) * usual * slow * 1000)
            began = int((self.now - HOUR + i * 3 - micros / 1e6) * 1000)
            jid = f"{self.rng.getrandbits(96):024x}"
            done.append(
                Row(jid, klass, queue, 1, began, micros, self.rng.randrange(1_000, 900_000), "done", None, None, 4)
            )
        for i in range(60):
            klass = self.rng.choice([*ERRORS])
            job = self.failed(klass, queue_of[klass], self.now, 0)
            began = int((self.now - HOUR + i * 60) * 1000)
            words = job["error_class"], job["error_message"]
            outcome = self.rng.choice(["retry", "retry", "retry", "dead"])
            attempt = self.rng.randrange(1, 6)
            micros = self.rng.randrange(9_000, 5_000_000)
            failed.append(Row(job["jid"], klass, queue_of[klass], attempt, began, micros, 12_000, outcome, *words))
        store = Client(self.url).store
        for state, rows in (("done", done), ("failed", failed)):
            store.run(run_log.append(KEYS, state, run_log.pack({owner: rows}), 10_000_000))
        store.close()

    # --- workers --------------------------------------------------------------------------------------------------

    def identity(self, i: int) -> str:
        return f"worker-{i % 4 + 1}.shop.example:{4_100 + i}:{(i * 7919 + 271_828) % 2**48:012x}"

    def processes(self) -> None:
        busy = self.scale.busy
        for i in range(self.scale.processes):
            ruby = i == self.scale.processes - 1 and i > 0
            queues = (
                ["critical", "mailers", "webhooks", "default"]
                if i % 2 == 0
                else ["search", "default", "low", "imports"]
            )
            concurrency = 10 if ruby else 8
            mine = min(busy, concurrency - (i == 1))
            busy -= mine
            self.process(i, ["critical", "reports"] if ruby else queues, concurrency, mine, ruby=ruby)
        self.server.set("dear-leader", self.identity(0), ex=3600)

    def process(self, i: int, queues: list[str], concurrency: int, busy: int, *, ruby: bool) -> None:
        identity = self.identity(i)
        info: dict[str, Any] = {
            "hostname": identity.partition(":")[0],
            "started_at": self.now - self.rng.uniform(2_200, 2_400),
            "pid": 4_100 + i,
            "tag": "shop",
            "concurrency": concurrency,
            "queues": queues,
            "weights": [dict.fromkeys(queues, 1)],
            "labels": ["reliable"] if ruby else ["python3.11"],
            "identity": identity,
            "version": "8.1.7" if ruby else "0.1.0",
            "embedded": i == 3,
        }
        if not ruby:
            weights = {name: 4 - n for n, name in enumerate(queues)}
            info["capsules"] = {"default": {"concurrency": concurrency, "mode": "weighted", "weights": weights}}
        row = {
            "info": json.dumps(info),
            "concurrency": concurrency,
            "busy": busy,
            "beat": repr(self.now - self.rng.uniform(0.5, 8)),
            "quiet": "true" if i == 4 else "false",
            "rss": self.rng.randrange(61_000, 240_000),
            "rtt_us": self.rng.randrange(180, 900),
        }
        self.server.sadd("processes", identity)
        self.server.hset(identity, mapping=row)
        self.server.expire(identity, 3_600)
        for n in range(busy):
            klass, queue, _, usual, _ = CLASSES[(n * 5 + i) % len(CLASSES)]
            age = min(usual / 1000 * self.rng.uniform(0.1, 1.6), 1_500)
            payload = json.dumps(self.job(klass, queue, self.now - age - 2))
            work = json.dumps({"queue": queue, "payload": payload, "run_at": int(self.now - age)})
            self.server.hset(f"{identity}:work", f"{n:x}{i:x}k3z", work)
        self.server.expire(f"{identity}:work", 3_600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    for name, default in vars(Scale()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = vars(parser.parse_args())
    began = time.monotonic()
    seed(given.pop("url"), Scale(**given))
    print(f"seeded in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()

"""The data model: every Redis key Pillion reads or writes, with its type, its writer and how long it lives.

This file is the only one that spells a key. `Keyspace("")` is Sidekiq's own layout; another prefix moves everything,
e.g. `Keyspace("{s0}")` for one shard of a Redis Cluster.

Sidekiq's keys (layout and meaning are Sidekiq 8.1's):

| key                          | type   | holds                                        | lives                      |
|------------------------------|--------|----------------------------------------------|----------------------------|
| `queues`                     | set    | names of queues ever pushed to               | for ever                   |
| `queue:<q>`                  | list   | payloads; pushed left, taken right           | while it holds a job       |
| `schedule`                   | zset   | payload by time due                          | while it holds a job       |
| `retry`                      | zset   | failed payload by time of the next attempt   | while it holds a job       |
| `dead`                       | zset   | payload by time of death                     | capped by age and count    |
| `paused`                     | set    | names of paused queues                       | while one is paused        |
| `processes`                  | set    | identities of live processes                 | pruned                     |
| `<identity>`                 | hash   | process row: info, busy, beat, quiet, ...    | 60 s, renewed by each beat |
| `<identity>:work`            | hash   | thread -> job it runs                        | 60 s                       |
| `<identity>:workers`         | hash   | the same, where `wire` is "6"                | 60 s                       |
| `<identity>-signals`         | list   | TERM, TSTP, TTIN sent by a dashboard         | 60 s                       |
| `process_cleanup`            | string | at most one pruning of `processes` a minute  | 60 s                       |
| `stat:processed`, `:failed`  | string | counters, in all                             | for ever                   |
| `stat:processed:<day>`, ...  | string | counters of one UTC day                      | 5 years                    |
| `j|<date>|<h:mm>`, `j|..|h:m`| hash   | metrics of one minute, of ten minutes        | 8 hours, 3 days            |
| `h|<class>-<d>-<h:m>`        | string | histogram of one minute, 26 counters of u16  | 8 hours                    |
| `j|<yyyymmdd>|<h:m>`         | hash   | metrics of one minute, where `wire` is not "8" | 8 hours                  |
| `<class>-<dd>-<hh:m>`        | string | histogram of one, where `wire` is not "8"    | 8 hours                    |
| `<day>-marks`                | hash   | minute -> label of a deploy                  | 90 days                    |
| `deploylock-<label>`         | string | this deploy was marked a moment ago          | 60 s                       |
| `dear-leader`                | string | identity of the leading process; only read   | set by who leads           |

Pillion's keys:

| key                          | type   | holds                                        | lives                      |
|------------------------------|--------|----------------------------------------------|----------------------------|
| `pillion:lease`              | zset   | owner -> expiry, ms of the server's clock    | one entry per live owner   |
| `pillion:pulse`              | hash   | `last` renewal, unbroken `since`, ms         | while an owner lives       |
| `pillion:fenced`             | zset   | owner -> time it was fenced, ms              | entries trimmed at 7 days  |
| `pillion:salvage`            | zset   | fenced owner whose claims are still to be returned | until they are |
| `pillion:inf:<owner>`        | hash   | index: tray -> states, queue; `g`, `c`, `s:` | until its owner has left   |
| `pillion:inf:<owner>:<tray>` | list   | tray: payloads that the owner holds          | until all of it is settled |
| `pillion:once:<jid>`         | string | this jid was pushed with `once=True`         | 600 s                      |
| `pillion:rescued:<jid>`      | string | how often a crash took this job along        | 72 h                       |
| `pillion:suspects`           | zset   | jid -> expiry of its suspicion, s            | entries trimmed at 72 h    |
| `pillion:runs:<state>`       | stream | run log: runs in chunks, `done` or `failed`  | capped by bytes and 7 days |
| `pillion:runs`               | hash   | state -> bytes that stand in its log         | 7 days after the last run  |
| `pillion:ask:<identity>`     | list   | questions about stacks, for this process     | 30 s                       |
| `pillion:stacks:<number>`    | list   | the answer to one of them                    | 60 s                       |
| `pillion:operations`         | zset   | id of an operation of people -> when it began, s | newest 200, 7 days     |
| `pillion:operations:open`    | set    | ids of those that wait for a driver          | while there are any        |
| `pillion:operation:<id>`     | hash   | what it does and how far it is               | 7 days after it moved last |
| `pillion:parked:<id>`        | list   | jobs that it took away, for an undo          | 600 s after its end        |
| `pillion:parked:<id>:<n>`    | any    | a queue or a set that it has cleared         | 600 s after its end        |
| `pillion:audit`              | stream | who did what                                 | newest 10,000              |

In an index, `g` is the generation, `c` the owner's concurrency and `s:<n>` marks a suspect that was started alone. Work
never stands under a key that expires; what is parked a person has deleted, or stands elsewhere too.
"""

from __future__ import annotations

ONCE_TTL = 600
RESCUED_TTL = 72 * 3600
FENCED_TTL = 7 * 24 * 3600
PROCESS_TTL = 60
CLEANUP_TTL = 60
STAT_TTL = 5 * 365 * 24 * 3600
MINUTE_TTL = 8 * 3600
TEN_MINUTES_TTL = 3 * 24 * 3600
SIGNALS_TTL = 60
MARKS_TTL = 90 * 24 * 3600
DEPLOY_LOCK_TTL = 60
OPERATION_TTL = 7 * 24 * 3600
UNDO_TTL = 600
MAX_OPERATIONS = 200
MAX_NOTES = 10_000
RUNS_TTL = 7 * 24 * 3600
ASK_TTL = 30
STACKS_TTL = 60


class Keyspace:
    """Key names under one prefix. Every script touches keys of one keyspace only."""

    __slots__ = (
        "audit",
        "dead",
        "fenced",
        "leader",
        "lease",
        "open_operations",
        "operations",
        "paused",
        "prefix",
        "process_cleanup",
        "processes",
        "pulse",
        "queues",
        "retry",
        "run_sizes",
        "salvage",
        "schedule",
        "suspects",
    )

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.queues = prefix + "queues"
        self.schedule = prefix + "schedule"
        self.retry = prefix + "retry"
        self.dead = prefix + "dead"
        self.paused = prefix + "paused"
        self.processes = prefix + "processes"
        self.process_cleanup = prefix + "process_cleanup"
        self.leader = prefix + "dear-leader"
        self.lease = prefix + "pillion:lease"
        self.pulse = prefix + "pillion:pulse"
        self.fenced = prefix + "pillion:fenced"
        self.salvage = prefix + "pillion:salvage"
        self.suspects = prefix + "pillion:suspects"
        self.operations = prefix + "pillion:operations"
        self.open_operations = prefix + "pillion:operations:open"
        self.audit = prefix + "pillion:audit"
        self.run_sizes = prefix + "pillion:runs"

    def queue(self, name: str) -> str:
        return f"{self.prefix}queue:{name}"

    def process(self, identity: str) -> str:
        return self.prefix + identity

    def work(self, identity: str) -> str:
        return f"{self.prefix}{identity}:work"

    def workers(self, identity: str) -> str:
        """Where Sidekiq up to 6.4.1 reads what `work` holds."""
        return f"{self.prefix}{identity}:workers"

    def signals(self, identity: str) -> str:
        return f"{self.prefix}{identity}-signals"

    def stat(self, counter: str, day: str | None = None) -> str:
        """`counter` is `processed` or `failed`; `day` is `YYYY-MM-DD` in UTC."""
        return f"{self.prefix}stat:{counter}" if day is None else f"{self.prefix}stat:{counter}:{day}"

    def minute(self, date: str, hour_minute: str) -> str:
        """Metrics of a minute (`H:MM`) or, with the last digit cut, of ten; `date` is `YYMMDD` in UTC.

        Sidekiq 7 writes the date as `YYYYMMDD` and the minute without a leading zero, and keeps no tens of minutes.
        """
        return f"{self.prefix}j|{date}|{hour_minute}"

    def histogram(self, name: str, day: int, hour: int, minute: int) -> str:
        return f"{self.prefix}h|{name}-{day}-{hour}:{minute}"

    def old_histogram(self, name: str, day: str, hour: str, minute: int) -> str:
        """Where Sidekiq 7 keeps a histogram: day and hour have two digits, the minute has not."""
        return f"{self.prefix}{name}-{day}-{hour}:{minute}"

    def marks(self, day: str) -> str:
        """`day` is `YYYYMMDD` in UTC."""
        return f"{self.prefix}{day}-marks"

    def deploylock(self, label: str) -> str:
        return f"{self.prefix}deploylock-{label}"

    def index(self, owner: str) -> str:
        return f"{self.prefix}pillion:inf:{owner}"

    def tray(self, owner: str, tray: int) -> str:
        return f"{self.prefix}pillion:inf:{owner}:{tray}"

    def once(self, jid: str) -> str:
        return f"{self.prefix}pillion:once:{jid}"

    def rescued(self, jid: str) -> str:
        return f"{self.prefix}pillion:rescued:{jid}"

    def runs(self, state: str) -> str:
        """`state` is `done` or `failed`."""
        return f"{self.prefix}pillion:runs:{state}"

    def ask(self, identity: str) -> str:
        return f"{self.prefix}pillion:ask:{identity}"

    def stacks(self, number: str) -> str:
        return f"{self.prefix}pillion:stacks:{number}"

    def operation(self, id: str) -> str:  # noqa: A002 - as the data model calls it
        return f"{self.prefix}pillion:operation:{id}"

    def parked(self, id: str) -> str:  # noqa: A002
        return f"{self.prefix}pillion:parked:{id}"

    def cleared(self, id: str, n: int) -> str:  # noqa: A002
        return f"{self.prefix}pillion:parked:{id}:{n}"

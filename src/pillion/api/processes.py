"""The worker processes, Pillion's and Ruby's alike: what they say of themselves, and asking them to be quiet or stop.

`ProcessSet` and `Process` are Sidekiq's. A row is as old as the process's last beat, 10 s at most; one that died stays
on the list until its row has expired after a minute and somebody prunes the list. A signal is heard with the next beat
and is nothing but a wish: no job depends on it. What cannot be read of a row is left out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from pillion.api.faces import Face, Page, Plan, Walk, ask, faces, names, whole
from pillion.api.stats import number
from pillion.client import Client
from pillion.errors import UsageError
from pillion.store import reads, repair
from pillion.store.op import Command, Refusal, text

FIELDS = ("info", "concurrency", "busy", "beat", "quiet", "rss", "rtt_us")


class ProcessSet(Face):
    """The worker processes that have a row, by identity: `for process in ProcessSet(): ...`, or `async for`.

    Looping is O(processes) in two exchanges. Before, unless `clean` is false, those whose row is gone are struck off
    the list, once a minute whoever asks.
    """

    def __init__(self, clean: bool = True, client: Client | None = None) -> None:
        super().__init__(client)
        self._clean = clean

    def __iter__(self) -> Iterator[Process]:
        return iter(Walk(self, self._only_page))

    def __aiter__(self) -> AsyncIterator[Process]:
        return Walk(self, self._only_page).__aiter__()

    def _only_page(self, _: object) -> Plan[Page[Process, object]]:
        return (yield from whole(self.plan_all()))

    def plan_all(self) -> Plan[list[Process]]:
        """All of them, sorted by identity. O(processes), two exchanges."""
        if self._clean:
            yield from self.plan_cleanup()
        listed = yield from names(self.keys.processes)
        rows = yield from ask(reads.ask([self._row(identity) for identity in listed]))
        found = [self._process(identity, row) for identity, row in zip(listed, rows, strict=True)]
        return [process for process in found if process is not None]

    all, aall = faces(plan_all)

    def plan_find(self, identity: str) -> Plan[Process | None]:
        """The process with this identity, or None. O(1)."""
        member, row = yield from ask(reads.ask([("SISMEMBER", self.keys.processes, identity), self._row(identity)]))
        return self._process(identity, row) if member else None

    find, afind = faces(plan_find)

    def plan_size(self) -> Plan[int]:
        """How many are on the list, the dead of the last minute included. O(1)."""
        return int((yield from ask(reads.members(self.keys.processes))))

    size, asize = faces(plan_size)

    def plan_total_concurrency(self) -> Plan[int]:
        """Jobs that all of them can run at once. O(processes)."""
        return sum(process.concurrency for process in (yield from self.plan_all()))

    total_concurrency, atotal_concurrency = faces(plan_total_concurrency)

    def plan_total_rss(self) -> Plan[int]:
        """Resident memory of all of them, in KB. O(processes)."""
        return sum(process.rss for process in (yield from self.plan_all()))

    total_rss, atotal_rss = faces(plan_total_rss)
    total_rss_in_kb, atotal_rss_in_kb = total_rss, atotal_rss

    def plan_leader(self) -> Plan[str]:
        """The identity of the leading process, "" where nobody leads. O(1)."""
        [leader] = yield from ask(reads.ask([("GET", self.keys.leader)]))
        return text(leader or "")

    leader, aleader = faces(plan_leader)

    def plan_cleanup(self) -> Plan[int]:
        """Strike processes without a row off the list; returns how many. O(processes), once a minute over everybody."""
        if not (yield from ask(repair.may_prune(self.keys))):
            return 0
        listed = yield from names(self.keys.processes)
        infos = yield from ask(reads.ask([("HGET", self.keys.process(name), "info") for name in listed]))
        gone = [name for name, info in zip(listed, infos, strict=True) if info is None]
        return number((yield from ask(repair.prune(self.keys, gone)))) if gone else 0

    cleanup, acleanup = faces(plan_cleanup)

    def _row(self, identity: str) -> Command:
        return ("HMGET", self.keys.process(identity), *FIELDS)

    def _process(self, identity: str, row: Any) -> Process | None:
        if isinstance(row, Refusal) or row[0] is None:
            return None
        return Process(identity, dict(zip(FIELDS, row, strict=True)), self.client)


class Process(Face):
    """A worker process, as it last described itself. `process["hostname"]` is any field of its row or its `info`."""

    def __init__(self, identity: str, row: Mapping[str, bytes | None], client: Client | None = None) -> None:
        super().__init__(client)
        self.identity = identity
        self._row = row
        self._info = _object(row["info"])

    def __getitem__(self, name: str) -> Any:
        given: dict[str, Any] = {field: getattr(self, field) for field in FIELDS[1:] if field != "quiet"}
        given["quiet"] = text(self._row["quiet"] or "")
        return given[name] if name in given else self._info.get(name)

    def __repr__(self) -> str:
        return f"<Process {self.identity}>"

    @property
    def row(self) -> Mapping[str, bytes | None]:
        """The fields that were read of its row."""
        return self._row

    @property
    def concurrency(self) -> int:
        """Jobs it can run at once. Sidekiq before 8 has that in `info` only."""
        return number(self._row["concurrency"]) or number(self._info.get("concurrency"))

    @property
    def busy(self) -> int:
        """Jobs it runs."""
        return number(self._row["busy"])

    @property
    def rss(self) -> int:
        """Its resident memory, in KB."""
        return number(self._row["rss"])

    @property
    def rtt_us(self) -> int:
        """How long the server took to answer it, in microseconds."""
        return number(self._row["rtt_us"])

    @property
    def beat(self) -> float:
        """When it last beat, epoch seconds."""
        return _seconds(self._row["beat"])

    @property
    def started_at(self) -> datetime:
        """When it started (UTC)."""
        return datetime.fromtimestamp(_seconds(self._info.get("started_at")), UTC)

    @property
    def stopping(self) -> bool:
        """Whether it is quiet or about to stop."""
        return self._row["quiet"] == b"true"

    @property
    def embedded(self) -> bool:
        """Whether it is part of another program, which is not to be stopped from outside."""
        return bool(self._info.get("embedded"))

    @property
    def tag(self) -> str:
        return str(self._info.get("tag") or "")

    @property
    def version(self) -> str:
        """The version of Pillion or Sidekiq; "" where it does not say."""
        return str(self._info.get("version") or "")

    @property
    def labels(self) -> list[str]:
        return _names(self._info.get("labels"))

    @property
    def capsules(self) -> dict[str, Any]:
        """Its capsules by name: `concurrency`, `mode`, `weights`. None of them before Sidekiq 8.0.6."""
        found = self._info.get("capsules")
        return found if isinstance(found, dict) else {}

    @property
    def queues(self) -> list[str]:
        """The queues it serves, each once."""
        return list(self._weights()) if self.capsules else _names(self._info.get("queues"))

    @property
    def weights(self) -> Any:
        """The weight of each queue; as `info` has it where there are no capsules."""
        return self._weights() if self.capsules else self._info.get("weights")

    def plan_leads(self) -> Plan[bool]:
        """Whether it is the leading process. O(1)."""
        return (yield from ProcessSet(clean=False, client=self.client).plan_leader()) == self.identity

    leads, aleads = faces(plan_leads)

    def plan_quiet(self) -> Plan[None]:
        """Ask it to take no new jobs; it hears with its next beat, up to 10 s later. O(1). Raises UsageError.

        An embedded one cannot be told: it is part of another program.
        """
        self._refuse_embedded("quieted")
        yield from ask(repair.signal(self.keys, self.identity, "TSTP"))

    quiet, aquiet = faces(plan_quiet)

    def plan_stop(self) -> Plan[None]:
        """Ask it to stop; it hears with its next beat, then has its `timeout`. O(1). Raises UsageError, as `quiet`."""
        self._refuse_embedded("stopped")
        yield from ask(repair.signal(self.keys, self.identity, "TERM"))

    stop, astop = faces(plan_stop)

    def plan_dump_threads(self) -> Plan[None]:
        """Ask it to log what all its threads do; it hears with its next beat. O(1)."""
        yield from ask(repair.signal(self.keys, self.identity, "TTIN"))

    dump_threads, adump_threads = faces(plan_dump_threads)

    def _weights(self) -> dict[str, Any]:
        weights = [capsule.get("weights") for capsule in self.capsules.values() if isinstance(capsule, dict)]
        return {name: weight for each in weights if isinstance(each, dict) for name, weight in each.items()}

    def _refuse_embedded(self, done: str) -> None:
        if self.embedded:
            raise UsageError(
                f"expected a worker process of its own, got {self.identity}, which is embedded in another program and "
                f"cannot be {done} from outside; stop that program"
            )


def _object(raw: bytes | None) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(raw or b"{}")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _names(found: object) -> list[str]:
    return [str(name) for name in found] if isinstance(found, Sequence) and not isinstance(found, str) else []


def _seconds(found: Any) -> float:
    try:
        return float(found or 0.0)
    except (TypeError, ValueError):
        return 0.0

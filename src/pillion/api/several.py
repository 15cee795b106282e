"""The reading verbs of the API over several shards at once, merged, or over those that were picked.

    several = Several.of()                 # every shard of the default client's setup
    several.stats().value.enqueued         # all of them together
    several.pick("b").client               # one

Each verb answers with a `Merged`: what the shards that answered say together, and in `away` what the others said
instead, so that one shard that is away spoils no page; where none answers, the first error is raised. Every verb `x`
has its twin `ax`. For threads the shards are asked one after the other, for asyncio at once. Nothing here writes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from math import ceil
from typing import Any, Concatenate, Generic, Literal, NamedTuple, ParamSpec, TypeAlias, TypeVar

import msgspec

from pillion.api.causes import Cause, Causes
from pillion.api.faces import Page, Plan, arun, dress, run
from pillion.api.overview import Overview, Snapshot
from pillion.api.processes import Process, ProcessSet
from pillion.api.query import STATES, Query, parse
from pillion.api.queue import Queues, QueueSummary
from pillion.api.runs import Run, RunCursor, Runs, State
from pillion.api.search import UP, Found, Hit, Search
from pillion.api.sets import DeadSet, JobSet, RetrySet, ScheduledSet, SortedEntry
from pillion.api.stats import Figures, Stats
from pillion.api.work import Work, WorkSet
from pillion.client import Client
from pillion.errors import StoreError, UsageError
from pillion.routing import default_client, via_client

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")
SetName: TypeAlias = Literal["schedule", "retry", "dead"]
Cursors: TypeAlias = Mapping[str, Any]
"""Where a walk stands on each shard, by its name: None at the beginning. A shard that is not among them has no more."""

SETS: Mapping[str, type[JobSet]] = {"schedule": ScheduledSet, "retry": RetrySet, "dead": DeadSet}


class Merged(msgspec.Struct, Generic[T], frozen=True):
    """What the shards answered together, and why some did not: the error by the shard's name."""

    value: T
    away: Mapping[str, StoreError] = {}


class Sharded(msgspec.Struct, Generic[T], frozen=True):
    """Something and the shard that it is on."""

    shard: str
    value: T


class ManyPage(msgspec.Struct, Generic[T], frozen=True):
    """A merged page.

    Attributes:
        entries: what was found, each with its shard; may be none although there is more.
        next: the `after` of the next page; None at the end.
        searched, total: of a search, how many jobs were looked at, of how many.
    """

    entries: list[Sharded[T]]
    next: Cursors | None
    searched: int = 0
    total: int = 0


class Round(NamedTuple, Generic[R]):
    """A question to each shard, and what to make of the answers. `only` are the shards to ask; None means all."""

    each: Callable[[str, Client], Plan[Any]]
    merge: Callable[[dict[str, Any]], R]
    only: Cursors | None = None


def _verbs(
    ask: Callable[Concatenate[Several, P], Round[R]],
) -> tuple[
    Callable[Concatenate[Several, P], Merged[R]], Callable[Concatenate[Several, P], Coroutine[Any, Any, Merged[R]]]
]:
    """The two methods of `ask_verb`: `verb` for threads, `averb` for asyncio."""

    def sync(self: Several, /, *args: P.args, **kwargs: P.kwargs) -> Merged[R]:
        question = ask(self, *args, **kwargs)
        answers: dict[str, Any] = {}
        for name, client in self.asked(question.only):
            try:
                answers[name] = run(client.store, question.each(name, client))
            except StoreError as error:
                answers[name] = error
        return _together(answers, question.merge)

    async def twin(self: Several, /, *args: P.args, **kwargs: P.kwargs) -> Merged[R]:
        import asyncio  # noqa: PLC0415 - costs 20 ms, and only event loops need it

        question = ask(self, *args, **kwargs)

        async def one(name: str, client: Client) -> Any:
            try:
                return await arun(client.astore, question.each(name, client))
            except StoreError as error:
                return error

        asked = self.asked(question.only)
        found = await asyncio.gather(*(one(name, client) for name, client in asked))
        return _together(dict(zip((name for name, _ in asked), found, strict=True)), question.merge)

    name = ask.__name__.removeprefix("ask_")
    shape = inspect.signature(ask)
    shape = shape.replace(return_annotation=str(shape.return_annotation).replace("Round[", "Merged[", 1))
    dress(sync, ask, name, shape)
    dress(twin, ask, f"a{name}", shape, f"`{name}` for asyncio callers.")
    return sync, twin


def _together(answers: Mapping[str, Any], merge: Callable[[dict[str, Any]], R]) -> Merged[R]:
    away = {name: answer for name, answer in answers.items() if isinstance(answer, StoreError)}
    if away and len(away) == len(answers):
        raise next(iter(away.values()))
    return Merged(merge({name: answer for name, answer in answers.items() if not isinstance(answer, StoreError)}), away)


class Several:
    """Some shards, each a client with its name."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        """Raises UsageError for none."""
        if not clients:
            raise UsageError("expected at least one client by name, got none; Several.of() takes those of the setup")
        self.clients = dict(clients)

    @classmethod
    def of(cls, client: Client | None = None) -> Several:
        """Every shard of a client's setup; without shards, the client as `default`."""
        client = client or via_client() or default_client()
        shards = client.setup.shards
        if len(shards) == 1:
            return cls({shards[0].name: client})
        return cls({shard.name: Client(setup=client.setup, shard=shard.name) for shard in shards})

    def __repr__(self) -> str:
        return f"Several({', '.join(self.clients)})"

    @property
    def names(self) -> list[str]:
        """The shards, in the order of their configuration."""
        return list(self.clients)

    def pick(self, *names: str) -> Several:
        """Only these. Raises UsageError for a name that is no shard's."""
        return Several({name: self.client_of(name) for name in names})

    def client_of(self, name: str) -> Client:
        """The client of one shard. Raises UsageError for a name that is no shard's."""
        if name not in self.clients:
            raise UsageError(f"expected a shard of {', '.join(self.clients)}, got {name!r:.60}")
        return self.clients[name]

    @property
    def client(self) -> Client:
        """The only shard's client. Raises UsageError where there are several: pick one."""
        if len(self.clients) > 1:
            raise UsageError(f"expected one shard, got {', '.join(self.clients)}; `pick` one of them")
        return next(iter(self.clients.values()))

    def ask_stats(self) -> Round[Figures]:
        """`Stats.read`, summed; of the latencies the longest. A process of several shards counts once on each."""
        return Round(lambda _, client: Stats(client).plan_read(), _sum_of_figures)

    stats, astats = _verbs(ask_stats)

    def ask_queue_summaries(self) -> Round[list[QueueSummary]]:
        """`Queues.summaries`: a queue on several shards is one, with the longest latency, paused if it is so on any."""
        return Round(lambda _, client: Queues(client).plan_summaries(), _sum_of_queues)

    queue_summaries, aqueue_summaries = _verbs(ask_queue_summaries)

    def ask_processes(self) -> Round[list[Sharded[Process]]]:
        """`ProcessSet.all`, each process once, on the first shard that has it, with what it runs from all of them."""
        return Round(lambda _, client: ProcessSet(client=client).plan_all(), _processes)

    processes, aprocesses = _verbs(ask_processes)

    def ask_work(self) -> Round[list[Sharded[Work]]]:
        """`WorkSet.all`: what runs, those first that began first."""
        return Round(
            lambda _, client: WorkSet(client).plan_all(),
            lambda found: sorted(_sharded(found), key=lambda each: each.value.run_at),
        )

    work, awork = _verbs(ask_work)

    def ask_set_page(
        self, name: SetName, after: Cursors | None = None, most: int = 50, *, lowest_first: bool = False
    ) -> Round[ManyPage[SortedEntry]]:
        """A page of a set over all shards, in the order of scores. Cursors hold the bytes of entries. See `JobSet`."""
        sign, start = 1 if lowest_first else -1, self._from(after)
        return Round(
            lambda shard, client: SETS[name](client).plan_page(start[shard], most, lowest_first=lowest_first),
            lambda pages: _merge(pages, start, most, lambda entry: sign * entry.score, lambda entry: entry.spot),
            start,
        )

    set_page, aset_page = _verbs(ask_set_page)

    def ask_runs_page(
        self,
        after: Cursors | None = None,
        most: int = 50,
        *,
        klass: str | None = None,
        state: State | None = None,
        jid: str | None = None,
    ) -> Round[ManyPage[Run]]:
        """A page of all run logs, newest first; its cursors are texts. Raises UsageError for a cursor that is none."""
        start = {name: None if at is None else RunCursor.parse(str(at)) for name, at in self._from(after).items()}
        return Round(
            lambda shard, client: Runs(client).plan_page(start[shard], most, klass=klass, state=state, jid=jid),
            lambda pages: _texts(_merge(pages, start, most, lambda run: -run.ended, lambda run: run.place)),
            start,
        )

    runs_page, aruns_page = _verbs(ask_runs_page)

    def ask_search_page(
        self, query: Query | str, after: Cursors | None = None, most: int = 50, budget: int = 10_000
    ) -> Round[ManyPage[Hit]]:
        """A page of a search on all shards; its cursors are texts. Each shard gives its part of `most` and `budget`.

        In the order of a single search within the page. Raises QuerySyntax, and UsageError as `Search.page`.
        """
        query, start = parse(query) if isinstance(query, str) else query, self._from(after)
        share = max(1, len(start))
        return Round(
            lambda shard, client: Search(query, client).plan_page(start[shard], ceil(most / share), budget // share),
            lambda found: _hits(found, start),
            start,
        )

    search_page, asearch_page = _verbs(ask_search_page)

    def ask_causes(self, days: float | None = None, most: int = 50) -> Round[list[Cause]]:
        """`Causes.read` of all shards, the same cause summed, the largest first."""
        return Round(lambda _, client: Causes(client).plan_read(days, most), lambda found: _sum_of_causes(found)[:most])

    causes, acauses = _verbs(ask_causes)

    def ask_overview(self, before: Mapping[str, Snapshot] | None = None) -> Round[dict[str, Snapshot]]:
        """`Overview.read` of each shard, by its name. `before` are the snapshots of a moment ago."""
        return Round(lambda shard, client: Overview(client).plan_read((before or {}).get(shard)), dict)

    overview, aoverview = _verbs(ask_overview)

    def _from(self, after: Cursors | None) -> dict[str, Any]:
        """Where a page begins on each of the shards that have more."""
        return {name: (after or {}).get(name) for name in self.clients if after is None or name in after}

    def asked(self, only: Cursors | None = None) -> list[tuple[str, Client]]:
        """The shards that are among `only`, each with its client; all without it."""
        return [(name, client) for name, client in self.clients.items() if only is None or name in only]


def _sharded(found: Mapping[str, list[T]]) -> list[Sharded[T]]:
    return [Sharded(shard, each) for shard, some in found.items() for each in some]


def _merge(
    pages: Mapping[str, Page[T, Any]],
    start: Cursors,
    most: int,
    order: Callable[[T], float],
    place: Callable[[T], Any],
) -> ManyPage[T]:
    """The first `most` of several pages, each of which is in order, and where to go on with each."""
    taken = dict.fromkeys(pages, 0)
    entries: list[Sharded[T]] = []
    while len(entries) < most:
        if any(taken[name] == len(page.entries) and page.next is not None for name, page in pages.items()):
            break  # what that shard has next may come before all that is left here
        heads = {name: page.entries[taken[name]] for name, page in pages.items() if taken[name] < len(page.entries)}
        if not heads:
            break
        first = min(heads, key=lambda name: order(heads[name]))
        taken[first] += 1
        entries.append(Sharded(first, heads[first]))
    left = dict(start)
    for name, page in pages.items():
        count = taken[name]
        left.pop(name, None)
        if count == len(page.entries):
            left |= {} if page.next is None else {name: page.next}
        else:
            left[name] = place(page.entries[count - 1]) if count else start[name]
    return ManyPage(entries, left or None)


def _texts(page: ManyPage[T]) -> ManyPage[T]:
    """With cursors that fit into an address."""
    after = page.next and {name: None if at is None else str(at) for name, at in page.next.items()}
    return msgspec.structs.replace(page, next=after)


def _hits(found: Mapping[str, Found], start: Cursors) -> ManyPage[Hit]:
    entries = _sharded({shard: each.hits for shard, each in found.items()})
    left = {name: at for name, at in start.items() if name not in found}
    left |= {shard: each.next for shard, each in found.items() if each.next is not None}
    searched, total = sum(each.searched for each in found.values()), sum(each.total for each in found.values())
    return ManyPage(sorted(entries, key=lambda each: _rank(each.value)), left or None, searched, total)


def _rank(hit: Hit) -> tuple[int, float]:
    """What sorts hits as a search of one shard does."""
    record = hit.record
    if isinstance(record, Work):
        at = record.run_at.timestamp()
    else:
        at = record.score if isinstance(record, SortedEntry) else record.touched_at()
    return STATES.index(hit.state), at if hit.state in UP else -at


def _sum_of_figures(found: Mapping[str, Figures]) -> Figures:
    every = list(found.values())
    queues: dict[str, int] = {}
    for figures in every:
        for name, size in figures.queues.items():
            queues[name] = queues.get(name, 0) + size
    summed = (name for name in Figures.__struct_fields__ if name not in ("queues", "default_queue_latency"))
    return Figures(
        **{name: sum(getattr(figures, name) for figures in every) for name in summed},
        default_queue_latency=max((figures.default_queue_latency for figures in every), default=0.0),
        queues=dict(sorted(queues.items(), key=lambda item: -item[1])),
    )


def _sum_of_queues(found: Mapping[str, list[QueueSummary]]) -> list[QueueSummary]:
    sums: dict[str, QueueSummary] = {}
    for each in (summary for summaries in found.values() for summary in summaries):
        other = sums.get(each.name, each)
        sums[each.name] = QueueSummary(
            each.name,
            each.size + (0 if other is each else other.size),
            max(each.latency, other.latency),
            each.paused or other.paused,
            other.fault or each.fault,
        )
    return sorted(sums.values(), key=lambda summary: -summary.size)


def _sum_of_causes(found: Mapping[str, list[Cause]]) -> list[Cause]:
    sums: dict[str, Cause] = {}
    for each in (cause for causes in found.values() for cause in causes):
        other = sums.get(each.id)
        sums[each.id] = each if other is None else _add(other, each)
    return sorted(sums.values(), key=lambda cause: -cause.count)


def _add(one: Cause, other: Cause) -> Cause:
    first, last = _times(one.first_seen, other.first_seen), _times(one.last_seen, other.last_seen)
    earlier = other if first and other.first_seen == min(first) else one
    return msgspec.structs.replace(
        one,
        dead=one.dead + other.dead,
        retrying=one.retrying + other.retrying,
        first_seen=min(first, default=None),
        last_seen=max(last, default=None),
        since_deploy=earlier.since_deploy,
    )


def _times(*given: datetime | None) -> list[datetime]:
    return [time for time in given if time is not None]


def _processes(found: Mapping[str, list[Process]]) -> list[Sharded[Process]]:
    rows: dict[str, Sharded[Process]] = {}
    for each in _sharded(found):
        name = each.value.identity
        seen = rows.get(name)
        rows[name] = each if seen is None else Sharded(seen.shard, _beside(seen.value, each.value))
    return sorted(rows.values(), key=lambda row: row.value.identity)


def _beside(one: Process, other: Process) -> Process:
    """A process with what it runs on another shard, too, whose row is `other`."""
    return Process(one.identity, {**one.row, "busy": b"%d" % (one.busy + other.busy)}, one.client)

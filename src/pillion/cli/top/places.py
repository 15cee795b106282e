"""The places of `pillion top`: what each lists, under which heads, and how it reads that. Nothing is drawn here.

Each reads one bounded page through the asyncio verbs of `pillion.api.several`. What comes out of Redis goes through
`draw.safe`, so nothing in a job can steer the terminal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from pillion.api.query import parse
from pillion.api.several import Cursors, Merged, Several
from pillion.cli import draw
from pillion.cli.jobs import error_of, time_of
from pillion.cli.queues import serving
from pillion.cli.status import state_of

__all__ = ["PLACES", "RIGHT", "Listing", "Place", "Row", "now_of"]

PAGE = 100
BUDGET = 10_000
RIGHT = {"SIZE", "LATENCY", "PROCS", "SLOTS", "BUSY", "RSS", "BEAT", "TIME", "TOOK", "JOBS", "DEAD", "RETRY", "LAST"}


class Row(NamedTuple):
    """One line: a key that is the same as long as it is the same thing, what is shown, and the thing itself."""

    key: str
    cells: tuple[str, ...]
    item: Any
    shard: str = ""


class Listing(NamedTuple):
    """What a place shows now. `after` is where the next page begins; `away` are shards that do not answer."""

    rows: list[Row]
    note: str = ""
    after: Cursors | None = None
    away: Mapping[str, Any] = {}


Fetch: TypeAlias = Callable[[Several, str, Cursors | None], Awaitable[Listing]]


class Place(NamedTuple):
    """One of the nine. `state` is what its jobs are, for those that list jobs by the search language."""

    name: str
    short: str
    heads: tuple[str, ...]
    fetch: Fetch | None
    state: str | None = None

    @property
    def searches(self) -> bool:
        """Whether its filter is a query."""
        return self.state is not None

    def query(self, words: str) -> str:
        """The query that a filter means here."""
        return f"state:{self.state} {words}".strip() if self.state else words


def now_of(several: Several) -> float:
    """The time, by the clock of the setup."""
    return float(next(iter(several.clients.values())).setup.config.clock.now())


def passes(words: str, *texts: str) -> bool:
    """Whether a plain filter lets these through: a text that one holds, or with `!` in front none."""
    wanted = words.removeprefix("!").casefold()
    return any(wanted in text.casefold() for text in texts) != words.startswith("!") if wanted else True


async def queues(several: Several, words: str, _: Cursors | None) -> Listing:
    """Every queue, the largest first."""
    found: Merged[Any] = await several.aqueue_summaries()
    served = serving([row.value for row in (await several.aprocesses()).value])
    rows = []
    for each in found.value:
        processes, slots = served.get(each.name, (0, 0))
        figures = (draw.number(each.size), draw.span(each.latency), str(processes), str(slots))
        state = each.fault or ("paused" if each.paused else "unserved" if each.size and not processes else "")
        if passes(words, each.name, state):
            rows.append(Row(each.name, (draw.safe(each.name), *figures, draw.safe(state)), each))
    return Listing(rows, f"{len(rows)} queues", None, found.away)


async def running(several: Several, words: str, _: Cursors | None) -> Listing:
    """What runs, longest first."""
    found = await several.awork()
    query, now = parse(words), now_of(several)
    rows = [
        Row(
            f"{row.shard}|{row.value.process_id}|{row.value.thread_id}|{row.value.job.jid}",
            (
                draw.span(now - row.value.run_at.timestamp()),
                *map(draw.safe, (row.value.job.display_class, row.value.queue, row.value.job.jid)),
                draw.safe(row.value.process_id, 40),
            ),
            row.value,
            row.shard,
        )
        for row in found.value
        if query.matches("running", row.value, now)
    ]
    return Listing(rows, f"{len(rows)} jobs run", None, found.away)


def jobs(state: str, detail: bool = True) -> Fetch:
    """A search in one state, or with "" in all."""

    async def fetch(several: Several, words: str, after: Cursors | None) -> Listing:
        query = parse(f"state:{state} {words}" if state else words)
        found = await several.asearch_page(query, after, PAGE, BUDGET)
        page, now = found.value, now_of(several)
        rows = []
        for row in page.entries:
            hit = row.value
            head = (draw.about(time_of(hit), now), draw.safe(hit.job.display_class), draw.safe(hit.job.queue or ""))
            where = () if state else (hit.state,)
            last = (draw.safe(error_of(hit), 80),) if detail else ()
            key = f"{row.shard}|{hit.state}|{hit.job.jid}"
            rows.append(Row(key, (*where, *head, *last, draw.safe(hit.job.jid)), hit, row.shard))
        total = max(page.total, page.searched)
        looked = "all" if page.next is None else f"the newest {page.searched:,} of"
        return Listing(rows, f"{len(rows)} shown, searched {looked} {total:,}", page.next, found.away)

    return fetch


async def failures(several: Several, words: str, _: Cursors | None) -> Listing:
    """What is dead or retrying, by cause."""
    found = await several.acauses(None, PAGE)
    now = now_of(several)
    rows = [
        Row(
            each.id,
            (
                *(draw.number(each.count), draw.number(each.dead), draw.number(each.retrying)),
                *(draw.about(each.last_seen.timestamp() if each.last_seen else None, now), draw.safe(each.klass)),
                draw.safe(f"{each.error_class}: {each.message}", 80),
            ),
            each,
        )
        for each in found.value
        if passes(words, each.klass, each.error_class, each.message)
    ]
    return Listing(rows, f"{len(rows)} causes", None, found.away)


async def workers(several: Several, words: str, _: Cursors | None) -> Listing:
    """The worker processes."""
    found = await several.aprocesses()
    now = now_of(several)
    rows = [
        Row(
            each.identity,
            (
                draw.safe(each.identity.rpartition(":")[0] or each.identity, 34),
                *(str(each.busy), str(each.concurrency), draw.size(each.rss * 1024), draw.about(each.beat, now)),
                *(state_of(each), draw.safe(",".join(each.queues), 60)),
            ),
            each,
            row.shard,
        )
        for row in found.value
        for each in (row.value,)
        if passes(words, each.identity, each.tag, *each.queues)
    ]
    return Listing(rows, f"{len(rows)} processes", None, found.away)


HEADS = ("TIME", "CLASS", "QUEUE", "JID")
ERROR_HEADS = ("TIME", "CLASS", "QUEUE", "ERROR", "JID")
PLACES = (
    Place("Overview", "Home", (), None),
    Place("Queues", "Queues", ("QUEUE", "SIZE", "LATENCY", "PROCS", "SLOTS", "STATE"), queues),
    Place("Running", "Running", ("TOOK", "CLASS", "QUEUE", "JID", "PROCESS"), running, "running"),
    Place("Jobs", "Jobs", ("STATE", *ERROR_HEADS), jobs(""), ""),
    Place("Failures", "Failed", ("JOBS", "DEAD", "RETRY", "LAST", "CLASS", "ERROR"), failures),
    Place("Scheduled", "Due", HEADS, jobs("scheduled", detail=False), "scheduled"),
    Place("Retries", "Retries", ERROR_HEADS, jobs("retry"), "retry"),
    Place("Dead", "Dead", ERROR_HEADS, jobs("dead"), "dead"),
    Place("Workers", "Workers", ("PROCESS", "BUSY", "SLOTS", "RSS", "BEAT", "STATE", "QUEUES"), workers),
)
"""In the order of the keys 1 to 9."""

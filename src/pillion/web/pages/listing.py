"""Lists of jobs, wherever they are: what Jobs, Scheduled, Retries, Dead and a queue's page have in common.

Each is a search: the page's own terms and whatever the reader adds. A `Listing` says how much was looked at and never
pretends to have seen all. A text that is no query gives a listing with the fault and where it is, not an error page."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from pillion.api.query import QuerySyntax, parse
from pillion.api.record import JobRecord
from pillion.api.search import Hit, Search
from pillion.api.work import Work
from pillion.errors import UsageError
from pillion.web.context import BadInput, View
from pillion.web.pages.base import several

MOST = 50
LONGEST_CURSOR = 4_000


class Row(msgspec.Struct, frozen=True):
    """One job of a list.

    Attributes:
        state: `running`, `queued`, `retry`, `scheduled` or `dead`.
        job: what to show.
        ref: names it in forms and addresses; "" for one that runs.
        at: the time that it stands at: due, died, began; None for a queued one.
        shard: where several are shown.
    """

    state: str
    job: JobRecord
    ref: str
    at: float | None
    shard: str | None


class Listing(msgspec.Struct, frozen=True):
    """One page of a list.

    Attributes:
        rows: the jobs.
        text: what the reader wrote.
        query: the canonical text of all terms, for bulk actions; None where it is no query.
        fault: why it is no query, with `pointer()`.
        searched, total: how many jobs were looked at, of how many; None where several shards were asked.
        next: cursor of the next page.
        more_running: jobs that run and are left out, since they have a page of their own.
    """

    rows: list[Row]
    text: str
    query: str | None
    fault: QuerySyntax | None = None
    searched: int | None = None
    total: int | None = None
    next: str | None = None
    more_running: int = 0


async def search(view: View, fixed: str = "") -> Listing:
    """The jobs that `fixed` and the reader's `?q=` mean, from `?after=` on."""
    text = view.text("q").strip()
    try:
        query = parse(f"{fixed} {text}".strip())
    except QuerySyntax as fault:
        return Listing([], text, None, _shifted(fault, text, len(fixed)))
    after = view.text("after", most=LONGEST_CURSOR) or None
    try:
        if len(view.clients) == 1:
            found = await Search(query, view.client).apage(after, most=MOST)
            running = [row_of(hit) for hit in found.hits if hit.state == "running"]
            rows = [*running[:MOST], *(row_of(hit) for hit in found.hits if hit.state != "running")]
            more = max(0, len(running) - MOST)
            return Listing(rows, text, str(query), None, found.searched, found.total, found.next, more)
        merged = await several(view).asearch_page(query, unpack(after), most=MOST)
    except UsageError as error:
        raise BadInput(str(error)) from None
    rows = [row_of(each.value, each.shard) for each in merged.value.entries]
    return Listing(rows, text, str(query), next=pack(merged.value.next))


def row_of(hit: Hit, shard: str | None = None) -> Row:
    """A hit as a row."""
    record = hit.record
    if isinstance(record, Work):
        return Row(hit.state, record.job, "", record.run_at.timestamp(), shard)
    return Row(hit.state, record, str(hit.ref or ""), getattr(record, "score", None), shard)


def pack(cursor: Any) -> str | None:
    """Cursors of several shards as text for an address."""
    return None if cursor is None else base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def unpack(text: str | None) -> Any:
    """The cursors again. Raises BadInput for a text that is none."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, msgspec.MsgspecError, RecursionError):
        raise BadInput("expected the cursor of a page of this list; go back to its first page") from None


def _shifted(fault: QuerySyntax, text: str, fixed: int) -> QuerySyntax:
    """The fault, its place counted in what the reader wrote."""
    place = max(0, min(fault.position - (fixed + 1 if fixed else 0), len(text)))
    return QuerySyntax(text, place, fault.length, fault.reason)

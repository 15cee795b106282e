"""Running: what the workers do now, longest first, and the stack of one of them on demand."""

from __future__ import annotations

import msgspec

from pillion.api import JobRecord
from pillion.api.runs import Percentiles, Runs
from pillion.api.stacks import Stacks
from pillion.web.context import Forbidden, NotThere, Page, View
from pillion.web.pages.base import answers, several

SILENT = 25.0
MOST = 100
LONGEST_NUMBER = 100


class Running(msgspec.Struct, frozen=True):
    """A running job.

    Attributes:
        job: what runs.
        queue, identity, thread: from where, and where.
        began, seconds: since when, and for how long.
        usual: how long its class takes.
        silent: seconds since its process was last heard of, where that is too long.
        shard: where several are shown.
    """

    job: JobRecord
    queue: str
    identity: str
    thread: str
    began: float
    seconds: float
    usual: Percentiles | None
    silent: float | None
    shard: str | None

    @property
    def share(self) -> float | None:
        """Elapsed time as a share of the class's p95."""
        p95 = self.usual.run.p95 if self.usual and self.usual.run else 0.0
        return self.seconds / p95 if p95 else None

    @property
    def host(self) -> str:
        return self.identity.partition(":")[0]


async def running(view: View) -> Page:
    """`/running`"""
    many = several(view)
    work, processes = (await many.awork()).value, (await many.aprocesses()).value
    beats = {each.value.identity: each.value.beat for each in processes}
    shown = work[:MOST]
    usual = await _usual(view, sorted({each.value.job.display_class for each in shown}))
    rows = [
        Running(
            job=each.value.job,
            queue=each.value.queue,
            identity=each.value.process_id,
            thread=each.value.thread_id,
            began=each.value.run_at.timestamp(),
            seconds=max(0.0, view.now - each.value.run_at.timestamp()),
            usual=usual.get(each.value.job.display_class),
            silent=_silence(view.now, beats.get(each.value.process_id)),
            shard=each.shard if len(view.clients) > 1 else None,
        )
        for each in shown
    ]
    return view.page(
        "running.html",
        ("list",),
        rows=rows,
        count=len(work),
        slots=sum(each.value.concurrency for each in processes),
        processes=len(processes),
    )


async def stack(view: View) -> Page:
    """`/stack/NUMBER`: what a worker answered when it was asked for its stacks."""
    if not view.may("stack"):
        raise Forbidden("stacks are for operators")
    number, identity = view.segment("number"), view.text("process", most=500)
    if not number.isascii() or len(number) > LONGEST_NUMBER:
        raise NotThere(view.t("trouble.404"))
    read = await answers(view, lambda client: Stacks(client).aread(number))
    answer = next((each for each in read if each is not None), None)
    return view.page(
        "stack.html", ("answer",), answer=answer, identity=identity, jid=view.text("jid", most=200), number=number
    )


async def _usual(view: View, classes: list[str]) -> dict[str, Percentiles]:
    found: dict[str, Percentiles] = {}
    for some in await answers(view, lambda client: Runs(client).apercentiles_of(classes)) if classes else []:
        found |= {name: times for name, times in some.items() if times.run}
    return found


def _silence(now: float, beat: float | None) -> float | None:
    return None if beat is None or now - beat < SILENT else now - beat

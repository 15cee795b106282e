"""`pillion job JID`: everything that is known of one job: where it is, its fields, its failure, its runs, its stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from pillion.cli import draw, say
from pillion.cli.exits import Exit
from pillion.cli.jobs import arguments, error_of, hit_data, time_of
from pillion.cli.looking import View, read_query, reading_options, several_of, show
from pillion.cli.workers import stack_lines

if TYPE_CHECKING:
    from pillion.api.runs import Run
    from pillion.api.search import Hit
    from pillion.api.several import Several
    from pillion.api.stacks import Answer

WORDS = {"running": "began", "queued": "pushed", "retry": "next attempt", "scheduled": "due", "dead": "died"}


@click.command("job")
@click.argument("jid")
@click.argument("query", nargs=-1, metavar="[QUERY...]")
@click.option("--stack", is_flag=True, help="If it runs, ask its process where it stands.")
@reading_options
def command(jid: str, query: tuple[str, ...], stack: bool, **options: Any) -> int:
    """Show one job. It is looked for everywhere, which may take a while; QUERY says where to look.

    \b
    pillion job 5d41402abc4b2a76b9719d91 state:dead
    """
    read_query(query)
    several = several_of(options)
    return show(options, lambda: look(several, jid, query, stack))


def look(several: Several, jid: str, query: tuple[str, ...], stack: bool) -> View:
    """The job, on the first shard that has it; else what the run log remembers."""
    from pillion.api.runs import Runs
    from pillion.api.search import Search

    remembered: list[Run] = []
    for name, client in several.clients.items():
        hit = Search(" ".join(query), client).job(jid)
        runs = Runs(client).of_job(jid, hit.job.created_at if hit else None)
        if hit is not None:
            answer = _stack(several, name, hit, jid) if stack else None
            shown = None if len(several.names) == 1 else name
            return described(hit, runs, answer, client.setup.config.clock.now(), shown)
        remembered += runs
    data = {"state": None, "job": None, "runs": msgspec.to_builtins(remembered)}
    if remembered:
        return View(data, f"not there any more; {len(remembered)} run(s) are remembered\n\n{_runs(remembered)}")
    return View(data, f"no job {draw.safe(jid, 60)} was found", Exit.UNHEALTHY)


def _stack(several: Several, shard: str, hit: Hit, jid: str) -> Answer | None:
    from pillion.api.stacks import Stacks
    from pillion.api.work import Work

    if not isinstance(hit.record, Work):
        say.note(f"it does not run, it is {hit.state}")
        return None
    return Stacks(several.client_of(shard)).show(hit.record.process_id, jid)


def described(hit: Hit, runs: list[Run], answer: Answer | None, now: float, shard: str | None) -> View:
    """Everything about a job that was found."""
    from pillion.api.work import Work

    job, at = hit.job, time_of(hit)
    rows: list[tuple[str, object]] = [
        ("class", job.display_class),
        ("jid", job.jid),
        ("state", hit.state),
        *([("shard", shard)] if shard else []),
        ("queue", job.queue or draw.NONE),
        (WORDS[hit.state], f"{draw.moment(at)} ({draw.ago(at, now)})"),
        ("made", draw.moment(job.created_at)),
        ("arguments", draw.safe(arguments(hit), 2_000)),
        *([("tags", " ".join(job.tags))] if job.tags else []),
        *([("retries", job.retry_count + 1)] if job.retry_count is not None else []),
        *([("process", f"{hit.record.process_id} {hit.record.thread_id}")] if isinstance(hit.record, Work) else []),
        *([("fault", job.fault)] if job.fault else []),
        *([("error", draw.safe(error_of(hit), 2_000))] if job.error_class else []),
    ]
    parts = [draw.pairs(rows)]
    if job.error_backtrace:
        parts.append("\n".join(f"  {draw.safe(line)}" for line in job.error_backtrace))
    if answer is not None:
        parts.append("\n".join(stack_lines(answer)))
    if runs:
        parts.append(_runs(runs))
    data = {**hit_data(hit, shard), "runs": msgspec.to_builtins(runs)}
    if answer is not None:
        data["stacks"] = msgspec.to_builtins(answer.stacks)
    return View(data, "\n\n".join(parts), Exit.DONE, _next(hit))


def _runs(runs: list[Run]) -> str:
    rows = [
        (
            *(each.attempt, draw.moment(each.began), draw.span(each.seconds), draw.span(each.wait), each.outcome),
            *(each.host, draw.safe(f"{each.error_class}: {each.error_message}" if each.error_class else "", 60)),
        )
        for each in runs
    ]
    heads = ("RUN", "BEGAN", "TOOK", "WAITED", "OUTCOME", "HOST", "ERROR")
    return draw.table(heads, rows, right=("RUN", "TOOK", "WAITED"))


def _next(hit: Hit) -> str:
    """What could be done with it."""
    import shlex

    from pillion.api.terms import Term

    verbs = {"dead": ("retry", "delete"), "retry": ("retry", "kill", "delete"), "scheduled": ("retry", "delete")}
    query = shlex.quote(f"state:{hit.state} {Term('jid', (hit.job.jid,))}")
    return "\n".join(f"pillion {verb} {draw.safe(query)}" for verb in verbs.get(hit.state, ()))

"""`pillion workers`: the worker processes, Pillion's and Ruby's, and with `--stacks` the line each job stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from pillion.cli import draw, say
from pillion.cli.looking import View, answered, reading_options, several_of, show
from pillion.cli.status import process_data, process_table

if TYPE_CHECKING:
    from pillion.api.several import Several
    from pillion.api.stacks import Answer


@click.command("workers")
@click.argument("identity", nargs=-1, metavar="[TEXT...]")
@click.option("--stacks", is_flag=True, help="Ask each what its jobs are doing just now.")
@reading_options
def command(identity: tuple[str, ...], stacks: bool, **options: Any) -> int:
    """Show the worker processes; with TEXT those whose identity or tag holds it."""
    several = several_of(options)
    return show(options, lambda: look(several, identity, stacks))


def look(several: Several, texts: tuple[str, ...], stacks: bool) -> View:
    """The processes that are meant."""
    listed, code = answered(several.processes())
    found = [row for row in listed if not texts or any(t in f"{row.value.identity} {row.value.tag}" for t in texts)]
    now = next(iter(several.clients.values())).setup.config.clock.now()
    data = [process_data(row.value) for row in found]
    lines = [process_table([row.value for row in found], now)]
    if stacks:
        for row, each in zip(found, data, strict=True):
            answer = _stacks(several, row.shard, row.value.identity)
            each["stacks"] = None if answer is None else msgspec.to_builtins(answer.stacks)
            lines += ["", f"{draw.safe(row.value.identity)}", *stack_lines(answer)]
    return View(data, "\n".join(lines), code, "" if found else "no worker process is alive")


def _stacks(several: Several, shard: str, identity: str) -> Answer | None:
    from pillion.api.stacks import Stacks

    answer = Stacks(several.client_of(shard)).show(identity)
    if answer is None:
        say.warning(f"{identity} does not answer: it is gone, hangs as a whole, or is Ruby's")
    return answer


def stack_lines(answer: Answer | None) -> list[str]:
    """The stacks of an answer, innermost line last."""
    if answer is None:
        return ["  no answer"]
    lines: list[str] = []
    for stack in answer.stacks:
        lines.append(f"  {draw.safe(stack.klass)} {draw.safe(stack.jid)}   {draw.span(stack.seconds)}")
        lines += [
            f"  {'  ' * (line.depth + 1)}{draw.safe(line.file)}:{line.line} in {draw.safe(line.function)}"
            + (f"   {draw.safe(line.source.strip(), 100)}" if line.source else "")
            for line in stack.lines
        ]
    return lines or ["  runs nothing"]

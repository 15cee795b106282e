"""What `retry`, `kill`, `delete` and `move` have in common: preview, confirmation, progress, result, the way back.

Each is an operation of the API (`pillion.api.operations`), one on each shard. It is written down in Redis before the
first job moves, so it survives this process: Ctrl-C pauses it between two batches and says how to go on; after a crash
`--op ID` goes on with it, and so does a process that serves the dashboard."""

from __future__ import annotations

import getpass
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from pillion.cli import draw, say
from pillion.cli.exits import Exit
from pillion.cli.jobs import hit_table
from pillion.cli.looking import Searching, as_json, read_query, server_options, several_of
from pillion.errors import UsageError

if TYPE_CHECKING:
    from pillion.api.operation import Operation, Verb
    from pillion.api.operations import Preview
    from pillion.api.several import Several
    from pillion.client import Client

MANY = 100
"""More jobs than this need their number typed."""
BUDGET = 200_000
SHOWN = ("verb", "filter", "count", "exact", "queues", "undoable", "reason", "searched", "total")
PAST = {"retry": "retried", "kill": "killed", "delete": "deleted", "move": "moved"}

OPTIONS = (
    click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    click.option("-y", "--yes", is_flag=True, help="Do not ask."),
    click.option("--rate", metavar="N", type=click.FloatRange(0, min_open=True), help="At most N jobs a second."),
    click.option("--by", metavar="NAME", help="Who does it, for the audit; otherwise user@host."),
    click.option("--op", "operations", metavar="ID", multiple=True, help="Go on with an operation that was paused."),
    click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout."),
)


def changing(verb: Verb, help_: str, *more: Any) -> click.Command:
    """The command of one verb."""

    def command(selector: tuple[str, ...], **options: Any) -> int:
        return act(verb, selector, options)

    fn: Any = server_options(command)
    for option in reversed((*more, *OPTIONS)):
        fn = option(fn)
    fn = click.argument("selector", nargs=-1, metavar="SELECTOR...")(fn)
    return click.command(verb, cls=Searching, help=help_)(fn)


def act(verb: Verb, selector: Sequence[str], options: dict[str, Any]) -> int:
    """Carry out one command line."""
    several = several_of(options)
    if options["operations"]:
        return _go_on(several, verb, options)
    if not selector:
        raise UsageError(f"expected a SELECTOR, got none; to mean all dead jobs: pillion {verb} state:dead")
    query, more = read_query(selector), _more(options)
    from pillion.api.operations import Operations

    previews = {
        name: Operations(client).preview(verb, query, budget=BUDGET, **more) for name, client in several.clients.items()
    }
    _tell(previews, several, options)
    count = sum(preview.count for preview in previews.values())
    if options["dry_run"] or not count:
        if options["as_json"]:
            click.echo(as_json({"count": count, "previews": [_preview_data(*each) for each in previews.items()]}))
        return Exit.DONE
    refused = _ask(verb, count, options)
    if refused is not None:
        return refused
    by, rate = who(options), options["rate"] or 0.0
    started = [
        (several.client_of(name), Operations(several.client_of(name)).start(verb, query, by=by, rate=rate, **more))
        for name, preview in previews.items()
        if preview.count
    ]
    return finish(verb, [(client, operation.id) for client, operation in started], options["as_json"])


def _more(options: Mapping[str, Any]) -> dict[str, Any]:
    """What only `move` has."""
    if "to" not in options:
        return {}
    if options["to"] is None:
        raise UsageError("expected the queue to move to, got none; name it: --to QUEUE")
    return {"to": options["to"]}


def who(options: Mapping[str, Any]) -> str:
    """Who is at the keyboard, for the audit."""
    if options["by"]:
        return str(options["by"])
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


# --- preview and confirmation -----------------------------------------------------------------------------------------


def _tell(previews: Mapping[str, Preview], several: Several, options: Mapping[str, Any]) -> None:
    """The preview for people: on stderr, or where it is the answer on stdout."""
    if options["as_json"]:
        return
    to_stdout = bool(options["dry_run"])
    for name, preview in previews.items():
        head = f"shard {name}: " if len(previews) > 1 else ""
        now = several.client_of(name).setup.config.clock.now()
        click.echo(head + preview_text(preview, now), err=not to_stdout)


def preview_text(preview: Preview, now: float) -> str:
    """What would be done, in a few lines."""
    least = "" if preview.exact else "at least "
    jobs = "job" if preview.count == 1 else "jobs"
    lines = [f"{preview.verb} {least}{preview.count:,} {jobs}: {draw.safe(preview.filter, 200)}"]
    if not preview.exact:
        lines.append(f"  looked at {preview.searched:,} of {preview.total:,}; all that match are meant")
    if not preview.count:
        return "\n".join(lines)
    queues = [f"{draw.safe(name) or draw.NONE} {count:,}" for name, count in list(preview.queues.items())[:5]]
    lines.append(f"  queues: {', '.join(queues)}{' ...' if len(preview.queues) > 5 else ''}")
    if preview.oldest and preview.newest:
        lines.append(f"  from {draw.moment(preview.oldest)} to {draw.moment(preview.newest)}")
    lines += [f"  {row}" for row in hit_table(preview.samples, now).splitlines()]
    if preview.count > len(preview.samples):
        lines.append("  ...")
    lines.append("  can be undone for ten minutes" if preview.undoable else f"  {preview.reason}")
    return "\n".join(lines)


def _preview_data(shard: str, preview: Preview) -> dict[str, Any]:
    return {
        "shard": shard,
        **{name: getattr(preview, name) for name in SHOWN},
        "samples": [{"state": hit.state, "jid": hit.job.jid, "class": hit.job.klass} for hit in preview.samples],
    }


def _ask(verb: str, count: int, options: Mapping[str, Any]) -> Exit | None:
    """None where it may be done, else the exit code."""
    if options["yes"]:
        return None
    if not sys.stdin.isatty():
        cures = [f"look first: pillion {verb} ... --dry-run", "then say so: --yes"]
        say.error(f"nobody is there to confirm that {count:,} jobs are {PAST[verb]}; nothing was done", cures)
        return Exit.REFUSED
    if verb == "delete" or count > MANY:
        typed = click.prompt(f"type {count} to {verb}", default="", show_default=False, err=True)
        sure = typed.replace(",", "").strip() == str(count)
    else:
        sure = click.confirm(f"{verb} {count:,}?", err=True)
    if sure:
        return None
    say.note("nothing was done")
    return Exit.REFUSED


# --- doing it ---------------------------------------------------------------------------------------------------------


def finish(verb: str, started: Sequence[tuple[Client, str]], as_json_: bool) -> int:
    """Drive operations to their end, one after the other, and say what became of them."""
    done: list[Operation] = []
    try:
        for client, name in started:
            done.append(_drive(verb, client, name))
    except KeyboardInterrupt:
        return _pause(verb, started[len(done) :])
    if as_json_:
        click.echo(as_json([operation_data(each) for each in done]))
    for each in done:
        _report(verb, each, as_json_)
    fine = all(each.state in ("done", "undone") and not each.failed for each in done)
    return Exit.DONE if fine else Exit.UNHEALTHY


def _drive(verb: str, client: Client, name: str) -> Operation:
    from pillion.api.driver import drive
    from pillion.cli.progress import Progress

    with Progress(verb, client.setup.config.clock) as bar:
        return drive(name, client, lambda now: bar.show(*_how_far(now)))


def _how_far(now: Operation) -> tuple[int, int]:
    return (now.restored + now.lost, now.moved) if now.state in ("undoing", "undone") else (now.looked, now.total)


def _pause(verb: str, left: Sequence[tuple[Client, str]]) -> int:
    """Ctrl-C: nobody goes on with what is not done, until somebody says so."""
    from pillion.api.operations import Operations

    names = []
    for client, name in left:
        try:
            now = Operations(client).pause(name)
        except UsageError:  # it has ended just now, or it is an undo, which nobody should stop half way
            continue
        names.append(name)
        say.note(f"paused at {now.looked:,} of {now.total:,}: {now.result()}")
    if names:
        say.note(f"go on with: pillion {verb} {' '.join(f'--op {name}' for name in names)}")
    return Exit.INTERRUPTED


def _report(verb: str, done: Operation, as_json_: bool) -> None:
    if not as_json_:
        click.echo(result_text(verb, done))
    for fault in done.faults:
        say.warning(f"{draw.safe(fault.jid)} stays where it is: {draw.safe(fault.reason)}")
    if done.state == "failed":
        say.error(f"it could not be finished: {draw.safe(done.error)}", [f"pillion {verb} --op {done.id}"])
    if done.undo_until is not None and done.moved and done.state != "undone":
        say.note(f"undo until {done.undo_until:%H:%M} UTC: pillion undo {done.id}")


def result_text(verb: str, done: Operation) -> str:
    """`deleted 17, gone 1`."""
    if done.state == "undone":
        return f"brought back {done.restored:,}" + (f", lost {done.lost:,}" if done.lost else "")
    names = [(PAST.get(verb, "moved"), done.moved)]
    names += [(name, getattr(done, name)) for name in ("stopped", "gone", "failed", "newer")]
    return ", ".join(f"{name} {count:,}" for i, (name, count) in enumerate(names) if count or not i)


def operation_data(done: Operation) -> dict[str, Any]:
    """An operation for programs."""
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(done)
    return found


def find(several: Several, name: str) -> tuple[Client, Operation]:
    """An operation and the client of its shard. Raises UsageError where there is none of this id."""
    from pillion.api.operations import Operations

    for client in several.clients.values():
        found = Operations(client).read(name)
        if found is not None:
            return client, found
    raise UsageError(f"expected the id of an operation of the last seven days, got {name!r:.60}; see: pillion undo")


def _go_on(several: Several, verb: str, options: Mapping[str, Any]) -> int:
    """`--op ID`: let it go on, and do so."""
    from pillion.api.operations import Operations

    started = []
    for name in options["operations"]:
        client, found = find(several, name)
        if found.verb != verb:
            raise UsageError(
                f"expected the id of a {verb}, got that of a {found.verb}; pillion {found.verb} --op {name}"
            )
        if found.state == "paused":
            Operations(client).resume(name)
        started.append((client, name))
    return finish(verb, started, options["as_json"])

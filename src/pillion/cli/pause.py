"""`pillion pause QUEUE`: let no worker take from it. `resume.py` is its other half and shares what is here.

It holds for Pillion's workers; those of open-source Sidekiq do not heed it. Who did it stands in the audit."""

from __future__ import annotations

from typing import Any

import click

from pillion.cli import draw, say
from pillion.cli.acting import who
from pillion.cli.exits import Exit
from pillion.cli.looking import as_json, server_options, several_of
from pillion.cli.settings import JSON

OPTIONS = (
    click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    click.option("--by", metavar="NAME", help="Who does it, for the audit; otherwise user@host."),
    JSON,
)
WORDS = {"pause": ("paused", "was paused already"), "resume": ("resumed", "was not paused")}


def complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:  # noqa: ARG001 - click's
    """The queues whose names begin so, for the shell; none where Redis does not answer."""
    try:
        from pillion.api.queue import Queues
        from pillion.cli.settings import use
        from pillion.client import Client

        return [name for name in Queues(Client(setup=use())).sizes() if name.startswith(begun)]
    except Exception:  # whatever is wrong: a shell that completes must not print it
        return []


def pausing(verb: str, help_: str) -> click.Command:
    """`pause` or `resume`."""

    def command(queues: tuple[str, ...], **options: Any) -> int:
        return switch(verb, queues, options)

    fn: Any = server_options(command)
    for option in reversed(OPTIONS):
        fn = option(fn)
    fn = click.argument("queues", nargs=-1, required=True, metavar="QUEUE...", shell_complete=complete)(fn)
    return click.command(verb, help=help_)(fn)


def switch(verb: str, names: tuple[str, ...], options: dict[str, Any]) -> int:
    """Pause or resume queues, on every shard."""
    from pillion.api.audit import Audit
    from pillion.api.queue import Queue, Queues

    several, by = several_of(options), who(options)
    known = {name for client in several.clients.values() for name in Queues(client).sizes()}
    rows = []
    for name in names:
        if name not in known:
            say.warning(f"nothing was ever pushed to the queue {draw.safe(name, 60)}", ["see: pillion queues"])
        if options["dry_run"]:
            rows.append({"queue": name, "result": f"would be {WORDS[verb][0]}"})
            continue
        done = []
        for client in several.clients.values():
            queue = Queue(name, client)
            changed = queue.pause() if verb == "pause" else queue.resume()
            if changed:
                Audit(client).note(verb, by=by, filter=name)
            done.append(changed)
        rows.append({"queue": name, "result": WORDS[verb][not any(done)]})
    click.echo(as_json(rows) if options["as_json"] else "\n".join(f"{row['queue']} {row['result']}" for row in rows))
    return Exit.DONE


command = pausing(
    "pause",
    """Let no worker take from the queues, from its next step on. Pushing goes on, and so do jobs that run.

    \b
    pillion pause imports
    """,
)

"""The group of commands, and the one place where errors become sentences and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from pillion.cli import say
from pillion.cli.exits import Exit
from pillion.errors import PillionError

COMMANDS = {
    "worker": "run jobs until told to stop",
    "dev": "embedded server, worker, dashboard and reload in one terminal",
    "push": "enqueue one job by its name",
    "web": "serve the dashboard",
    "top": "the dashboard in this terminal",
    "status": "show how things are: what is wrong, figures, processes, queues",
    "jobs": "search jobs",
    "job": "show one job, its failure and its runs",
    "queues": "show queues, and who serves them",
    "workers": "show worker processes, and what their jobs are doing",
    "failures": "show why jobs fail",
    "retry": "put dead, failed and scheduled jobs into their queues",
    "kill": "put jobs into the dead set",
    "delete": "delete jobs",
    "move": "move jobs to another queue",
    "undo": "bring back what was deleted, killed or moved",
    "pause": "let no worker take from a queue",
    "resume": "let workers take from it again",
    "health": "say whether anything is wrong, for probes",
    "deploy": "mark a deploy, for the charts",
    "config": "show every option, its value and where it came from",
    "doctor": "check configuration, server, queues and workers",
    "acl": "print users for a Redis with access control",
    "load": "fill and drain your Redis, and print the rates",
    "completion": "print a script that makes the shell complete commands",
}

SECTIONS = {
    "Run jobs": ("worker", "dev", "push"),
    "Look": ("web", "top", "status", "jobs", "job", "queues", "workers", "failures", "health"),
    "Act": ("retry", "kill", "delete", "move", "undo", "pause", "resume", "deploy"),
    "Set up": ("config", "doctor", "acl", "load", "completion"),
}
WIDEST = max(map(len, COMMANDS))
COMPLETION = "_PILLION_COMPLETE"
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Commands(click.Group):
    """Loads a command's file only when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"pillion.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from difflib import get_close_matches

        close = get_close_matches(args[0], COMMANDS, n=1)
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            cure = f"did you mean `pillion {close[0]}`?" if close else f"known are {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command `{args[0]}`; {cure}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, listed in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{WIDEST}}", COMMANDS[name]) for name in listed])


@click.group(cls=Commands, context_settings=SETTINGS, no_args_is_help=False, invoke_without_command=True)
@click.option("-V", "--version", is_flag=True, help="Show the version and exit.")
@click.pass_context
def pillion(ctx: click.Context, version: bool) -> None:
    """Background jobs on Redis and Valkey, wire-compatible with Ruby's Sidekiq.

    \b
    Start here:  pillion dev app.py       then push from your program, or:
                 pillion push MyJob 1 2
    """
    if version:
        from pillion.cli.version import show_version

        ctx.exit(show_version())
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit code. What a command raises is explained on stderr."""
    try:
        code = _invoke(words)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        return _misused(error)
    except (click.Abort, KeyboardInterrupt):
        say.note("interrupted")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        return _left_alone()
    except PillionError as error:
        from pillion.cli.trouble import explain

        return explain(error)
    except Exception as error:
        from pillion.cli.trouble import blame

        return blame(error)
    return code if isinstance(code, int) else Exit.DONE


def _invoke(words: Sequence[str]) -> object:
    """What click's own `main` does, without its answers to Ctrl-C and to a reader that leaves."""
    if COMPLETION in os.environ:
        pillion.main(args=list(words), prog_name="pillion")
    with pillion.make_context("pillion", list(words)) as context:
        code = pillion.invoke(context)
        sys.stdout.flush()
        return code


def _misused(error: click.ClickException) -> int:
    """A command line that cannot be read: say so in our own form, and point at the help."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "pillion"
    message = error.format_message().rstrip(".")
    say.error(message[:1].lower() + message[1:], [f"{path} --help"])
    return Exit.USAGE


def _left_alone() -> int:
    """Whoever read our output has seen enough (`pillion config | head`): no complaint now, nor at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return Exit.DONE

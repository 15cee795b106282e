"""`pillion doctor`: every check there is, one line each, with what to do where something is wrong.

It only reads, and it goes on after a failed check as far as it can: without a configuration there is no server to ask,
without a server there are no queues to look at. An app that is named is imported as a worker would, and its jobs are
looked at as well. Exit 0: nothing is wrong (warnings included, unless --strict).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pillion.checks import Check
from pillion.cli import say
from pillion.cli.exits import Exit
from pillion.cli.settings import ENVIRONMENT, FILE, JSON, QUEUES, use
from pillion.errors import ConfigError, PillionError, StoreError, UsageError

if TYPE_CHECKING:
    from pillion.setup import Setup

MARKS = {True: ("ok", "green"), None: ("warn", "yellow"), False: ("fail", "red")}


@click.command("doctor")
@click.argument("app", nargs=-1, metavar="[APP...]")
@ENVIRONMENT
@QUEUES
@FILE
@JSON
@click.option("--strict", is_flag=True, help="Let warnings fail as well.")
def command(
    app: tuple[str, ...],
    environment: str | None,
    queues: tuple[str, ...],
    file: Path | None,
    as_json: bool,
    strict: bool,
) -> int:
    """Check configuration, server, queues and workers; with APP, also whether the queues of its jobs are served.

    Exit code 0: nothing is wrong; 1: a check failed; 2: the configuration is wrong; 3: Redis cannot be reached; 4: APP
    could not be imported.
    """
    setup = use(file=file, environment=environment, queues=queues, require=app)
    answers: list[Check] = []
    code = Exit.DONE
    try:
        for answer in examine(setup, app):
            answers.append(answer)
            if not as_json:
                click.echo(_line(answer))
    except PillionError as error:
        answers.append(_failure(error, setup))
        code = _code(error)
        if not as_json:
            click.echo(_line(answers[-1]))
    if as_json:
        click.echo(_json(answers))
    unhealthy = any(check.ok is False or (strict and check.ok is None) for check in answers)
    return code or (Exit.UNHEALTHY if unhealthy else Exit.DONE)


def _code(error: PillionError) -> Exit:
    if isinstance(error, ConfigError):
        return Exit.USAGE
    return Exit.IMPORT if isinstance(error, UsageError) else Exit.UNREACHABLE


def examine(setup: Setup, app: Sequence[str] = ()) -> Iterator[Check]:
    """All answers in the order in which they build on each other.

    Raises:
        ConfigError: the configuration is wrong.
        AppError: the app could not be imported.
        StoreError: the server cannot be reached.
    """
    from pillion import checks
    from pillion.store.address import describe

    if app:
        _import(setup)
    changed = len(setup.resolved.sources)
    yield Check("config", True, f"the configuration can be read; {changed} option(s) differ from the defaults")
    if app:
        yield checks.jobs(setup.registry, setup.config)
    for shard, found in checks.each_shard(setup.shards, setup.config):
        answers = found
        if found[0].name != "reachable":  # as one says that is away
            there = Check("reachable", True, f"Redis at {describe(shard.store.settings)} answers")
            fleet = checks.fleet(shard.store.run, checks.of_shard(setup.config, shard))
            answers = [there, *found, *fleet]
        yield from checks.named(shard, answers, alone=len(setup.shards) == 1)


def _import(setup: Setup) -> None:
    """Import what is named, as a worker would."""
    import sys
    from contextlib import redirect_stdout

    from pillion import setup as setups
    from pillion.cli.worker import import_app

    setups.be_server()
    with redirect_stdout(sys.stderr):  # what the app prints is no answer
        import_app(setup, Path.cwd())


def _failure(error: PillionError, setup: Setup) -> Check:
    from pillion.cli.trouble import diagnose
    from pillion.config import RedisSettings

    settings = setup.config.redis if isinstance(error, StoreError) else RedisSettings()
    trouble = diagnose(error, settings)
    name = "reachable" if isinstance(error, StoreError) else "config" if isinstance(error, ConfigError) else "app"
    if shown := getattr(error, "shown", ""):
        say.note(shown)
    return Check(name, False, trouble.sentence, "; ".join(trouble.cures))


def _line(check: Check) -> str:
    import sys

    word, style = MARKS[check.ok]
    mark = say.styled(f"{word:<4}", style, colour=say.wants_colour(sys.stdout.isatty()))
    cure = f"\n                 do: {check.cure}" if check.cure and check.ok is not True else ""
    return f"{mark} {check.name:<11} {check.detail}{cure}"


def _json(answers: list[Check]) -> str:
    import msgspec

    words = {True: "ok", None: "warning", False: "failed"}
    rows = [{"name": c.name, "status": words[c.ok], "detail": c.detail, "cure": c.cure} for c in answers]
    return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode()

"""The options that several commands share, and how a command takes them over into the default setup."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pillion.setup import Setup

F = TypeVar("F", bound=Callable[..., Any])

ENVIRONMENT = click.option("-e", "--environment", metavar="NAME", help="development, production, ...")
FILE = click.option(
    "-C", "--config", "file", metavar="FILE", type=click.Path(path_type=Path), help="TOML, or a sidekiq.yml."
)
QUEUES = click.option(
    "-q", "--queue", "queues", metavar="NAME[,WEIGHT]", multiple=True, help="A queue; repeat for more."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")

WORKER = (
    click.option("-c", "--concurrency", metavar="N", help="Jobs at once."),
    ENVIRONMENT,
    click.option("-g", "--tag", metavar="TAG", help="Shown beside the process."),
    QUEUES,
    click.option("-r", "--require", metavar="APP", multiple=True, help="As APP; repeat for more."),
    click.option("-t", "--timeout", metavar="SECONDS", help="How long stopping waits for running jobs."),
    click.option("-v", "--verbose", is_flag=True, default=None, help="Debug lines, and both middleware chains."),
    FILE,
    click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
)

PROCESSES = (
    click.option("--processes", metavar="N|auto", help="Worker processes; auto is one per usable core."),
    click.option("--max-memory", metavar="SIZE", help="Replace a process that has grown so far, such as 512M."),
    click.option("--max-jobs", metavar="N", help="Replace a process that has run so many jobs."),
)


def worker_options(fn: F) -> F:
    """Add the options that a worker takes, in the order of the help page."""
    for option in reversed(WORKER):
        fn = option(fn)
    return fn


def process_options(fn: F) -> F:
    """Add the options of `pillion worker` that are about several processes."""
    for option in reversed(PROCESSES):
        fn = option(fn)
    return fn


def use(file: Path | None = None, **flags: Any) -> Setup:
    """Give the command line's options to the default setup and return it; they are checked when it is asked."""
    from pillion import setup

    given = {name: list(value) if isinstance(value, tuple) else value for name, value in flags.items()}
    setup.default.use_flags({name: value for name, value in given.items() if value not in (None, [])}, file)
    return setup.default


def use_for_worker(app: tuple[str, ...], options: Mapping[str, Any]) -> Setup:
    """`use` for what `worker_options` collected, with the apps in front of those of `-r`."""
    flags = {name: value for name, value in options.items() if name not in ("file", "require")}
    return use(options["file"], require=(*app, *options["require"]), **flags)

"""`pillion worker APP`: import the app, check the server, say so, and run jobs until told to stop.

The order matters. The kind of process is fixed first, because the app's `configure_server` blocks run while it is
imported; the configuration is read before that for the list of what to import, and again afterwards, because the app
may set options. What a kill leaves behind is the engine's story (`pillion.worker`); this file holds nothing.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from pillion.cli import say
from pillion.cli.exits import Exit
from pillion.cli.settings import use_for_worker, worker_options

if TYPE_CHECKING:
    from pillion.checks import Check
    from pillion.setup import Setup


@click.command("worker")
@click.argument("app", nargs=-1, metavar="[APP...]")
@worker_options
@click.option("-V", "--version", is_flag=True, help="Show the version and exit.")
@click.option("--all-queues", is_flag=True, hidden=True)  # `pillion dev` says so to its child
def command(app: tuple[str, ...], version: bool, all_queues: bool, **options: Any) -> int:
    """Run jobs until told to stop.

    APP is the module that defines your jobs (shop.tasks) or its path (shop/tasks.py). Without one, `require` in the
    configuration says what to import.

    \b
    Signals:  INT, TERM  stop; a second INT stops now
              TSTP       finish what runs, take nothing new
              TTIN       write what every thread does to the log
    """
    if version:
        from pillion.cli.version import show_version

        return show_version()
    return serve(app, options, all_queues=all_queues)


def serve(app: tuple[str, ...], options: dict[str, Any], *, all_queues: bool = False) -> int:
    """Boot a worker and run it to its end; returns the exit code.

    With `all_queues`, it serves the queue of every job that the app defines, where nobody has configured queues.
    """
    from pillion import log, setup
    from pillion.clock import SystemClock

    started = SystemClock().steady()
    setup.be_server()
    with leaving_at_once():
        chosen = use_for_worker(app, options)
        log.configure(chosen.config)
        _calm_asyncio()
        modules = import_app(chosen, Path.cwd())
        if all_queues and not any(name.rpartition(".")[2] == "queues" for name in chosen.resolved.sources):
            chosen = use_for_worker(app, {**options, "queues": _all_queues(chosen)})
        answers = _boot(chosen)
    return _run(chosen, modules, answers, started)


def _all_queues(setup: Setup) -> tuple[str, ...]:
    """What the default capsule serves, and the other queues of the jobs that are defined."""
    from pillion import checks

    served = (name for name, _ in setup.config.capsules[0].queues)
    return (*served, *checks.unserved(setup.registry, setup.config))


@contextmanager
def leaving_at_once() -> Generator[None]:
    """While the worker boots, TERM ends it with exit code 0: it has claimed nothing that it would have to give back."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        os._exit(Exit.DONE)  # not an exception: the app's import would see it

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is leave:  # else the app has one of its own, which is to be called, too
            signal.signal(signal.SIGTERM, before)


def import_app(setup: Setup, cwd: Path) -> list[str]:
    """Import what the command line or the configuration names.

    Raises:
        ConfigError: nothing is named.
        AppError: an import failed.
    """
    from pillion.cli.loading import load
    from pillion.errors import ConfigError

    named = setup.config.require
    if not named:
        raise ConfigError(
            "expected the module that defines your jobs, got none; name it: pillion worker app.py, "
            'or set require = ["app"] in [tool.pillion]'
        )
    modules = load(named, cwd)
    if not len(setup.registry):
        cure = "define jobs there (class X(pillion.Job) or @pillion.job), or import the module that does"
        say.warning(f"no jobs are registered after importing {', '.join(modules)}", [cure])
    return modules


def _calm_asyncio() -> None:
    """Keep asyncio's debug lines (which selector it uses) out of ours, unless somebody asked for them."""
    logger = logging.getLogger("asyncio")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def _boot(setup: Setup) -> list[Check]:
    """Configure the log, check the server and show what is odd about it. Raises BootError where it must not be used."""
    from pillion import checks, log

    config = setup.config
    log.configure(config)  # again: the app may have set the level, or broken the log with a set-up of its own
    log.JobLines().attach(setup.events, only_failures=config.skip_default_job_logging)
    answers = checks.server(setup.store.run, config)
    for odd in checks.insist([*answers, checks.jobs(setup.registry, config)]):
        say.warning(odd.detail, [odd.cure])
    if config.redis.insecure_skip_verify:
        say.warning("certificates are not verified (redis.insecure_skip_verify)", ["set redis.ca_file instead"])
    return answers


def _show_chains(setup: Setup) -> None:
    """Write both middleware chains: as lines for people, or as one line of a log that machines read."""
    from pillion import log
    from pillion.cli import banner

    chains = banner.chains(setup)
    if log.is_json(setup.config):
        logging.getLogger("pillion").info("middleware chains", extra=chains)
    else:
        say.note(banner.shown(chains))


def _run(setup: Setup, modules: list[str], answers: list[Check], started: float) -> int:
    from pillion.cli import banner
    from pillion.worker import Worker

    if setup.config.verbose:
        _show_chains(setup)
    if say.on_terminal() and setup.config.log_format != "json":
        setup.on("startup")(lambda: say.note(banner.banner(setup, modules, answers, started)))
    return Worker(setup, setup.config).run() or Exit.DONE

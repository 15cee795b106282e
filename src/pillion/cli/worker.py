"""`pillion worker APP`: import the app, check the server, say so, and run jobs until told to stop.

The order matters. The kind of process is fixed first, because the app's `configure_server` blocks run while it is
imported; the configuration is read before that for the list of what to import, and again afterwards, because the app
may set options. What a kill leaves behind is the engine's story (`pillion.worker`); this file holds nothing.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from pillion.cli import say
from pillion.cli.exits import Exit
from pillion.cli.settings import process_options, use_for_worker, worker_options

if TYPE_CHECKING:
    from pillion.checks import Check
    from pillion.setup import Setup
    from pillion.worker import Worker
    from pillion.worker.forking.forker import Birth
    from pillion.worker.isolated.pool import Pool

THREADS_AT_EXIT = 3.0
"""Seconds that threads of the app or of a job have to end, when all else has."""


@click.command("worker")
@click.argument("app", nargs=-1, metavar="[APP...]")
@worker_options
@process_options
@click.option("-V", "--version", is_flag=True, help="Show the version and exit.")
@click.option("--all-queues", is_flag=True, hidden=True)  # `pillion dev` says so to its child
@click.option("--zygote", type=int, hidden=True)  # a supervisor says so: the descriptor of its channel
def command(app: tuple[str, ...], version: bool, all_queues: bool, zygote: int | None, **options: Any) -> int:
    """Run jobs until told to stop.

    APP is the module that defines your jobs (shop.tasks) or its path (shop/tasks.py). Without one, `require` in the
    configuration says what to import.

    \b
    Signals:  INT, TERM  stop; a second INT stops now
              TSTP       finish what runs, take nothing new
              TTIN       write what every thread does to the log
              USR2       with --processes: load the app anew and replace the processes one by one
    """
    if version:
        from pillion.cli.version import show_version

        return show_version()
    return serve(app, options, all_queues=all_queues, zygote=zygote)


def serve(app: tuple[str, ...], options: dict[str, Any], *, all_queues: bool = False, zygote: int | None = None) -> int:
    """Boot a worker and run it to its end; returns the exit code.

    With `all_queues`, it serves the queue of every job that the app defines, where nobody has configured queues. Where
    several processes are asked for, this becomes their supervisor, or with `zygote` what forks them.
    """
    from pillion import log, setup
    from pillion.cli import banner, processes
    from pillion.clock import SystemClock

    started = SystemClock().steady()
    setup.be_server()
    with leaving_at_once():
        chosen = use_for_worker(app, options)
        log.configure(chosen.config)
        _calm_asyncio()
        if zygote is None and processes.is_wanted(chosen.config):
            return processes.supervise(chosen.config)
        modules = import_app(chosen, Path.cwd(), lambda *words: banner.warning(chosen.config, *words))
        if zygote is None:
            processes.warn_of_code(chosen.config)
        if all_queues and not any(name.rpartition(".")[2] == "queues" for name in chosen.resolved.sources):
            chosen = use_for_worker(app, {**options, "queues": _all_queues(chosen)})
        birth = None if zygote is None else processes.fork(chosen, zygote)
        if zygote is not None and birth is None:
            return Exit.DONE
        pool = processes.pool(chosen, birth)
        answers = _boot(chosen, aloud=birth is None or birth.herald)
    return _run(chosen, modules, answers, started, birth, pool)


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


def import_app(setup: Setup, cwd: Path, warn: Callable[[str, list[str]], None] = say.warning) -> list[str]:
    """Import what the command line or the configuration names; `warn` says so where that defines no jobs.

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
        warn(f"no jobs are registered after importing {', '.join(modules)}", [cure])
    return modules


def _calm_asyncio() -> None:
    """Keep asyncio's debug lines (which selector it uses) out of ours, unless somebody asked for them."""
    logger = logging.getLogger("asyncio")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def _boot(setup: Setup, *, aloud: bool = True) -> list[Check]:
    """Configure the log, check the server and, `aloud`, show what is odd about it.

    Raises BootError where it must not be used.
    """
    from pillion import checks, log

    config = setup.config
    log.configure(config)  # again: the app may have set the level, or broken the log with a set-up of its own
    log.JobLines().attach(setup.events, only_failures=config.skip_default_job_logging)
    answers = checks.shards(setup.shards, config)
    odd = checks.insist([*answers, checks.jobs(setup.registry, config)])
    if aloud:
        _warn(setup, odd)
    return answers


def _warn(setup: Setup, odd: Iterable[Check]) -> None:
    """Say what is odd about the configuration, the server and the app, all of it once."""
    from pillion.cli.banner import warning

    config = setup.config
    for note in setup.resolved.notes:
        warning(config, note)
    for check in odd:
        warning(config, check.detail, [check.cure])
    if any(shard.settings.insecure_skip_verify for shard in setup.shards):
        warning(config, "certificates are not verified (redis.insecure_skip_verify)", ["set redis.ca_file instead"])


def _show_chains(setup: Setup) -> None:
    """Write both middleware chains: as lines for people, or as one line of a log that machines read."""
    from pillion import log
    from pillion.cli import banner
    from pillion.options import SILENT

    chains = banner.chains(setup)
    if log.is_json(setup.config):
        logging.getLogger("pillion").info("middleware chains", extra=chains)
    elif setup.config.log_level != SILENT:
        say.note(banner.shown(chains))


def _run(
    setup: Setup, modules: list[str], answers: list[Check], started: float, birth: Birth | None, pool: Pool | None
) -> int:
    from pillion.cli import banner, processes

    if birth is None or birth.herald:
        if setup.config.verbose:
            _show_chains(setup)
        if say.on_terminal() and setup.config.log_format != "json":
            swarm = processes.for_banner(setup.config, birth)
            setup.on("startup")(lambda: say.note(banner.banner(setup, modules, answers, started, **swarm)))
    worker = _worker(setup, birth)
    if pool is not None:
        worker.use(pool)
    code = worker.run() or Exit.DONE
    threading.Thread(target=_leave_behind, args=(code,), name="pillion.exit", daemon=True).start()
    return code


def _leave_behind(code: int) -> None:
    """A thread that a job has left running must not keep the process: after a few seconds it leaves without it."""
    threading.Event().wait(THREADS_AT_EXIT)
    others = (thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread())
    if left := ", ".join(thread.name for thread in others):
        logging.getLogger("pillion").warning("leaving without threads that did not end: %s", left)
        logging.shutdown()
        os._exit(code)


def _worker(setup: Setup, birth: Birth | None) -> Worker:
    """A worker on its own, or one that a supervisor watches."""
    from pillion.worker import Worker

    if birth is None:
        return Worker(setup, setup.config)
    from pillion.worker.forking.channel import Channel
    from pillion.worker.supervisor.child import SupervisedWorker

    return SupervisedWorker(setup, setup.config, Channel.of(birth.descriptor))

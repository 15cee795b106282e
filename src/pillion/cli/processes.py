"""`pillion worker --processes N`: the same command line makes three kinds of process.

    pillion worker app --processes 4              the supervisor: reads the options, imports no app
    pillion worker --zygote FD app --processes 4  the zygote, which it starts: imports the app, forks
    (forked)                                      a worker: goes on as `pillion worker app` does

So all three see the same options in the same places, and a worker that cannot boot explains itself as any other. What
the kinds do stands in `pillion.worker.supervisor`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pillion.config import Config
    from pillion.setup import Setup
    from pillion.worker.forking.forker import Birth
    from pillion.worker.isolated.pool import Pool


def is_wanted(config: Config) -> bool:
    """Whether a supervisor is asked for. Recycling needs one, too, if only over a single process."""
    return config.processes is not None or config.max_memory is not None or config.max_jobs is not None


def warn_of_code(config: Config) -> None:
    """Say so where the app's own code asks for a supervisor, which imports no app and so cannot know."""
    from pillion.cli import banner

    if is_wanted(config):
        what = "the app's code asks for several processes, or for recycling, which is too late"
        banner.warning(config, what, ["set processes, max_memory and max_jobs by flag, environment or file"])


def supervise(config: Config) -> int:
    """Run the supervisor; returns the exit code."""
    from pillion.worker.supervisor.supervisor import Supervisor
    from pillion.worker.title import name_process

    name_process("supervisor")
    return Supervisor(_zygotes_command, os.environ, config.clock).run()


def _zygotes_command(descriptor: int) -> list[str]:
    """The command that starts a zygote: our own words, `worker ...`, and the descriptor of its channel."""
    worker, *words = sys.argv[1:]
    return [sys.executable, "-P", "-m", "pillion", worker, "--zygote", str(descriptor), *words]


def for_banner(config: Config, birth: Birth | None) -> dict[str, int]:
    """What the banner says about the supervisor, if there is one."""
    from pillion.worker.supervisor.cores import wanted

    return {} if birth is None else {"processes": wanted(config.processes), "pid": birth.asked_by}


def fork(setup: Setup, control: int) -> Birth | None:
    """Be the zygote. Returns the `Birth` in each forked worker, and None at the zygote's end."""
    from pillion.worker.supervisor import zygote
    from pillion.worker.title import name_process

    name_process("zygote")
    return zygote.serve(setup, control)


def pool(setup: Setup, birth: Birth | None) -> Pool | None:
    """What runs jobs with `isolation="process"`, if there are any. Made before the first thread and connection."""
    if not any(definition.isolation for definition in setup.registry):
        return None
    from pillion.worker.isolated import helper

    return helper.start(setup, () if birth is None else (birth.descriptor,))

"""What a worker says while it boots: what is odd, with -v its chains, and on a terminal the banner when it is ready."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pillion.cli import say
from pillion.clock import SystemClock
from pillion.options import SILENT
from pillion.version import __version__

if TYPE_CHECKING:
    from pillion.chain import Chain
    from pillion.checks import Check
    from pillion.config import Capsule, Config
    from pillion.setup import Setup

MOST_QUEUES = 8


def banner(
    setup: Setup, modules: Sequence[str], answers: Iterable[Check], started: float, *, processes: int = 0, pid: int = 0
) -> str:
    """The lines to show when the worker is ready; `started` is the steady time at which the process began.

    With a supervisor, `processes` is how many it runs and `pid` is the one to send signals to.
    """
    from pillion.store.address import describe

    config = setup.config
    details = {check.name: check.detail for check in answers}
    policy = details.get("eviction", "").rpartition("maxmemory-policy is ")[2]
    server = f"{details.get('version', 'server')} at {describe(setup.redis_settings())}"
    several = len(setup.shards) > 1
    where = f"{len(setup.shards)} shards" if several else _with(server, policy)
    head = (f"pillion {__version__}", f"python {platform.python_version()}", where)
    took = SystemClock().steady() - started
    stop = f"Ctrl-C finishes running jobs ({config.timeout:g} s), again to stop now"
    return "\n".join(
        (
            "   ".join((*head, f"pid {pid or os.getpid()}")),
            f"app      {', '.join(modules)}   {_many(len(setup.registry), 'job')}",
            *(f"shard    {each.name}   {describe(each.store.settings)}" for each in setup.shards if several),
            *(_capsule(capsule, alone=len(config.capsules) == 1, processes=processes) for capsule in config.capsules),
            f"ready in {took:.2f} s - {stop}",
        )
    )


def warning(config: Config, sentence: str, cures: Iterable[str] = ()) -> None:
    """Say what is odd but does not stop anything: for people, or as a line of a log that machines read."""
    from pillion import log

    if log.is_json(config):
        logging.getLogger("pillion").warning("%s", sentence, extra={"help": list(cures)})
    elif config.log_level != SILENT:
        say.warning(sentence, cures)


def chains(setup: Setup) -> dict[str, list[str]]:
    """Both middleware chains in the order in which they run, options included.

    The server's stands there once per capsule, and so does the client's of each capsule that has one of its own.
    """
    found = {"client middleware": setup.client_middleware}
    for capsule in setup.config.capsules:
        if capsule.name in setup.own_capsules:
            found[f"client middleware, capsule {capsule.name}"] = setup.capsule(capsule.name).client_middleware
        found[f"server middleware, capsule {capsule.name}"] = setup.server_chain(capsule.name)
    return {name: _entries(chain) for name, chain in found.items()}


def shown(chains: dict[str, list[str]]) -> str:
    """Chains for people, one entry per line."""
    lines = []
    for name, entries in chains.items():
        lines += [f"{name}:", *(f"  {number}. {entry}" for number, entry in enumerate(entries, 1))]
        lines += [] if entries else ["  none"]
    return "\n".join(lines)


def _entries(chain: Chain) -> list[str]:
    return [entry.describe() for entry in chain]


def _capsule(capsule: Capsule, *, alone: bool, processes: int) -> str:
    shown = [f"{name} x{weight}" if weight else name for name, weight in capsule.queues[:MOST_QUEUES]]
    more = len(capsule.queues) - MOST_QUEUES
    queues = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    order = f" ({capsule.mode})" if len(capsule.queues) > 1 else ""
    name = "" if alone else f"   capsule {capsule.name}"
    each = f" in each of {_many(processes, 'process', 'processes')}" if processes else ""
    return f"queues   {queues}{order}   slots {capsule.concurrency}{each}{name}"


def _with(text: str, extra: str) -> str:
    return f"{text} ({extra})" if extra else text


def _many(count: int, noun: str, plural: str = "") -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"

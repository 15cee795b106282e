"""What a worker says on a terminal when it is ready: versions, server, app, queues, slots; with -v, its chains."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pillion.clock import SystemClock
from pillion.version import __version__

if TYPE_CHECKING:
    from pillion.chain import Chain
    from pillion.checks import Check
    from pillion.config import Capsule
    from pillion.setup import Setup

MOST_QUEUES = 8


def banner(setup: Setup, modules: Sequence[str], answers: Iterable[Check], started: float) -> str:
    """The lines to show when the worker is ready; `started` is the steady time at which the process began."""
    from pillion.store.address import describe

    config = setup.config
    details = {check.name: check.detail for check in answers}
    policy = details.get("eviction", "").rpartition("maxmemory-policy is ")[2]
    server = f"{details.get('version', 'server')} at {describe(setup.redis_settings())}"
    head = (f"pillion {__version__}", f"python {platform.python_version()}", _with(server, policy))
    took = SystemClock().steady() - started
    stop = f"Ctrl-C finishes running jobs ({config.timeout:g} s), again to stop now"
    return "\n".join(
        (
            "   ".join((*head, f"pid {os.getpid()}")),
            f"app      {', '.join(modules)}   {_many(len(setup.registry), 'job')}",
            *(_capsule(capsule, alone=len(config.capsules) == 1) for capsule in config.capsules),
            f"ready in {took:.2f} s - {stop}",
        )
    )


def chains(setup: Setup) -> dict[str, list[str]]:
    """Both middleware chains in the order in which they run, the server's once per capsule, options included."""
    servers = {f"server middleware, capsule {it.name}": setup.server_chain(it.name) for it in setup.config.capsules}
    return {name: _entries(chain) for name, chain in {"client middleware": setup.client_middleware, **servers}.items()}


def shown(chains: dict[str, list[str]]) -> str:
    """Chains for people, one entry per line."""
    lines = []
    for name, entries in chains.items():
        lines += [f"{name}:", *(f"  {number}. {entry}" for number, entry in enumerate(entries, 1))]
        lines += [] if entries else ["  none"]
    return "\n".join(lines)


def _entries(chain: Chain) -> list[str]:
    return [entry.describe() for entry in chain]


def _capsule(capsule: Capsule, *, alone: bool) -> str:
    shown = [f"{name} x{weight}" if weight else name for name, weight in capsule.queues[:MOST_QUEUES]]
    more = len(capsule.queues) - MOST_QUEUES
    queues = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    order = f" ({capsule.mode})" if len(capsule.queues) > 1 else ""
    name = "" if alone else f"   capsule {capsule.name}"
    return f"queues   {queues}{order}   slots {capsule.concurrency}{name}"


def _with(text: str, extra: str) -> str:
    return f"{text} ({extra})" if extra else text


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

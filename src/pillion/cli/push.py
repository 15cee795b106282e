"""`pillion push NAME ARGS...`: enqueue one job by its name, or with `-r APP` by its definition.

Each argument is read as JSON, and as plain text where it is none: `5` is a number, `bob` a string, `'"5"'` the
string 5. One that begins as JSON's lists, objects and strings do, and is none, is refused. The jid goes to stdout,
alone; where the job went, and that nobody serves that queue, to stderr. A push that ends without an answer is not
repeated; the error names the jid.
"""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pillion.cli import say
from pillion.cli.exits import Exit
from pillion.cli.settings import ENVIRONMENT, FILE, use
from pillion.errors import ConfigError, StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pillion.registry import Definition
    from pillion.setup import Setup
    from pillion.shards import Shard
    from pillion.store.ops import Parcel

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
BRACKETS = ("[", "{", '"')
LONGEST_SHOWN = 40
SPAN = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")


@click.command("push")
@click.argument("name")
@click.argument("args", nargs=-1)
@click.option("--in", "delay", metavar="SPAN", help="Run after a while: 90, 5m, 1h30m, 2d.")
@click.option("--at", "moment", metavar="TIME", help="Run at a time: 2030-01-31T09:00Z, or seconds since 1970.")
@click.option("-q", "--queue", metavar="NAME", help="The queue; else the definition's, or `default`.")
@click.option("-r", "--require", metavar="APP", multiple=True, help="Import APP, and push as the job is defined there.")
@ENVIRONMENT
@FILE
def command(
    name: str,
    args: tuple[str, ...],
    delay: str | None,
    moment: str | None,
    queue: str | None,
    require: tuple[str, ...],
    environment: str | None,
    file: Path | None,
) -> int:
    """Enqueue one job by its name, and print its jid.

    Each of ARGS is read as JSON, else as text. Put -- before arguments that begin with a dash.

    Unless -r APP is given, this knows nothing of the job's definition: the queue is `default` or that of -q, no option
    of the job holds, and neither its name nor its arguments are checked.
    """
    from pillion.shards import DEFAULT

    if delay is not None and moment is not None:
        raise ConfigError("--in and --at: expected one of them, got both; leave one out")
    setup = use(file=file, environment=environment)
    definition = find(setup, name, require) if require else None
    at = setup.config.clock.now() + read_span(delay) if delay is not None else moment and read_time(moment)
    options: dict[str, Any] = {"queue": queue} if queue is not None else {}
    jid, chosen, shard = send(setup, definition or name, [read_argument(arg) for arg in args], at or None, options)
    if jid is None or shard is None:
        say.error("client middleware stopped this job; nothing was pushed")
        return Exit.UNHEALTHY
    click.echo(jid)
    place = "" if shard.name == DEFAULT else f" on shard {shard.name}"
    say.note(f"{definition.name if definition else name} -> queue {chosen}{place}")
    _warn_if_lonely(shard, chosen)
    return Exit.DONE


def find(setup: Setup, name: str, require: tuple[str, ...]) -> Definition:
    """Import the apps and find the definition that answers to `name`. Raises AppError, ConfigError and UsageError."""
    from pillion.cli.loading import load

    with redirect_stdout(sys.stderr):  # what the app prints is not the jid
        load(require, Path.cwd())
        setup.resolved  # noqa: B018 - runs the app's `configure_client` blocks
    definition = setup.registry.get(name)
    if definition is None:
        raise UsageError(str(setup.registry.unknown(name)))
    return definition


def send(
    setup: Setup, job: Definition | str, args: list[Any], at: float | None, options: dict[str, Any]
) -> tuple[str | None, str, Shard | None]:
    """Push one job, by its definition where it is known; returns its jid, the queue it went to, and the shard."""
    from pillion.client import Client
    from pillion.setter import Setter

    class Noting(Client):
        """Remembers queue and shard, which the definition, the configuration and middleware may choose."""

        queue = ""
        shard: Shard | None = None

        def by_shard(self, parcels: Sequence[Parcel]) -> list[tuple[Shard, Sequence[Parcel]]]:
            homes = super().by_shard(parcels)
            [(self.shard, [parcel])] = homes
            self.queue = parcel.queue
            return homes

    if isinstance(job, str):
        client = Noting(setup=setup)
        jid = client.push({"class": job, "args": args, **options, **({} if at is None else {"at": at})})
        return jid, client.queue, client.shard
    own = job.transport.get("client")
    client = Noting(setup=own.setup if own is not None else setup)
    setter: Setter[..., Any] = Setter(job).set(client=client, **options)
    jid = setter.perform_async(*args) if at is None else setter.perform_at(at, *args)
    return jid, client.queue, client.shard


def _warn_if_lonely(shard: Shard, queue: str) -> None:
    """Say so where no live process serves the queue. The job is pushed: that this cannot be asked is no failure."""
    from pillion import checks

    try:
        serving, _ = checks.served(shard.store.run, shard.store.keys)
    except StoreError:
        return
    if queue not in serving:
        say.warning(f"no live worker serves the queue {queue}", [f"start one: pillion worker APP -q {queue}"])


def read_argument(text: str) -> Any:
    """One argument: what it is as JSON, or the text itself. Raises UsageError for what only begins as JSON."""
    import msgspec

    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogateescape"))
    except msgspec.DecodeError as error:
        if text[:1] in BRACKETS:
            raise UsageError(
                f"expected JSON where an argument begins with {text[0]}, got {text[:LONGEST_SHOWN]!r} ({error}); "
                f"close it, or for text write {quoted(text)}"
            ) from None
        return text


def quoted(text: str) -> str:
    """An argument as a shell takes it that stands for this text."""
    import json
    import shlex

    return shlex.quote(json.dumps(text, ensure_ascii=False)) if len(text) <= LONGEST_SHOWN else """'"..."'"""


def read_span(text: str) -> float:
    """Seconds out of `90`, `5m` or `1h30m`. Raises ConfigError."""
    compact = text.replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        return float(compact)
    if SPAN.fullmatch(compact):
        return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhdw])", compact))
    raise ConfigError(f"--in: expected a span of time, got {text!r}; write 90, 5m, 1h30m or 2d")


def read_time(text: str) -> float:
    """Seconds since 1970 out of an ISO 8601 time with its zone, or out of that number. Raises ConfigError."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--at: expected a time, got {text!r}; write 2030-01-31T09:00Z or seconds since 1970"
        ) from None
    if moment.tzinfo is None:
        raise ConfigError(f"--at: expected a time with its zone, got {text!r}; write {text}Z, or {text}+02:00")
    return moment.timestamp()

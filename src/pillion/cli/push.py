"""`pillion push NAME ARGS...`: enqueue one job by its name, without importing the app.

Each argument is read as JSON, and as plain text where it is none: `5` is a number, `bob` a string, `'"5"'` the
string 5. The jid goes to stdout. A push that ends without an answer is not repeated; the error names the jid.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from pillion.cli import say
from pillion.cli.exits import Exit
from pillion.cli.settings import ENVIRONMENT, FILE, use
from pillion.errors import ConfigError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
SPAN = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")


@click.command("push")
@click.argument("name")
@click.argument("args", nargs=-1)
@click.option("--in", "delay", metavar="SPAN", help="Run after a while: 90, 5m, 1h30m, 2d.")
@click.option("--at", "moment", metavar="TIME", help="Run at a time: 2030-01-31T09:00Z, or seconds since 1970.")
@click.option("-q", "--queue", metavar="NAME", help="The queue; `default` unless told otherwise.")
@ENVIRONMENT
@FILE
def command(
    name: str,
    args: tuple[str, ...],
    delay: str | None,
    moment: str | None,
    queue: str | None,
    environment: str | None,
    file: Path | None,
) -> int:
    """Enqueue one job by its name, and print its jid.

    Each of ARGS is read as JSON, else as text. Put -- before arguments that begin with a dash.
    """
    from pillion.client import Client

    if delay is not None and moment is not None:
        raise ConfigError("--in and --at: expected one of them, got both; leave one out")
    setup = use(file=file, environment=environment)
    item: dict[str, Any] = {"class": name, "args": [read_argument(arg) for arg in args]}
    if queue is not None:
        item["queue"] = queue
    if delay is not None:
        item["at"] = setup.config.clock.now() + read_span(delay)
    elif moment is not None:
        item["at"] = read_time(moment)
    jid = Client(setup=setup).push(item)
    if jid is None:
        say.error("client middleware stopped this job; nothing was pushed")
        return Exit.UNHEALTHY
    click.echo(jid)
    return Exit.DONE


def read_argument(text: str) -> Any:
    """One argument: what it is as JSON, or the text itself."""
    import msgspec

    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogateescape"))
    except msgspec.DecodeError:
        return text


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

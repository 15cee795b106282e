"""`pillion config`: every option, its value without secrets, and the place it came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pillion.cli import say
from pillion.cli.exits import Exit
from pillion.cli.settings import JSON, use_for_worker, worker_options

if TYPE_CHECKING:
    from pillion.resolve import Line

EMBEDDED = "(the embedded server)"


@click.command("config")
@click.argument("app", nargs=-1, metavar="[APP...]")
@worker_options
@JSON
def command(app: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Show every option, its value and where it came from.

    Takes the flags of `pillion worker`. With APP, it is imported as a worker would, so that what your code sets is
    included. Passwords are masked.
    """
    from pillion import setup
    from pillion.cli.worker import import_app
    from pillion.resolve import listing

    if app:
        setup.be_server()
    chosen = use_for_worker(app, options)
    if app:
        import_app(chosen, Path.cwd())
    lines = listing(chosen.resolved)
    for note in chosen.resolved.notes:
        say.warning(note)
    if as_json:
        click.echo(_json(lines))
        return Exit.DONE
    click.echo(_table(lines))
    if not app:
        say.note("(what your code sets is not included; to see it too: pillion config APP)")
    return Exit.DONE


def _json(lines: list[Line]) -> str:
    import msgspec

    table = {line.name: {"value": line.value, "source": line.source} for line in lines}
    return msgspec.json.format(msgspec.json.encode(table), indent=2).decode()


def _table(lines: list[Line]) -> str:
    values = {line.name: line.value for line in lines}
    embedded = not any(values[f"redis.{name}"] for name in ("url", "client", "sentinels"))
    shown = {**{name: _shown(value) for name, value in values.items()}, **({"redis.url": EMBEDDED} if embedded else {})}
    rows = [(line.name, shown[line.name], line.source) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}" for name, value, source in rows)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return " ".join(str(item) for item in value) or "-"
    if isinstance(value, float):
        return f"{value:g}" if value < 1e6 else f"{value:.0f}"
    return str(value)

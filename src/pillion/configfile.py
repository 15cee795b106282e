"""Reading a configuration file into plain options: TOML (`pyproject.toml` or one of our own), or a `sidekiq.yml`.

Only `resolve.py` calls this. What comes out is nested plain data with our option names, not yet checked, and a way to
tell on which line an option stands, so that an error can point at it. Nothing in a file is executed; `yamlfile.py` and
`erb.py` tell how a `sidekiq.yml` is read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pillion import yamlfile
from pillion.errors import ConfigError
from pillion.given import closest

TOML_SUFFIXES = (".toml",)
YAML_SUFFIXES = (".yml", ".yaml", ".yml.erb", ".yaml.erb")
ENCODING = "utf-8-sig"
"""UTF-8, and the mark that some editors put in front of it."""

ENVIRONMENTS = frozenset({"development", "test", "production", "staging"})
RENAMED = {"on_complex_arguments": "strict_args"}
RUBYS = frozenset(
    "strict pidfile logfile daemon index fetch_class fetch_setup job_logger scheduled_enq max_iteration_runtime "
    "schedule scheduler dynamic listened_queues_only limits process_limits blocking concurrent_schedule".split()
)
"""What Sidekiq, older releases of it or its plug-ins (scheduler, limit_fetch) read, and nothing here does."""


class ConfigFile(msgspec.Struct, frozen=True):
    """One file's options as plain data.

    Attributes:
        label: how the file is called in messages.
        options: our option names, nested; Sidekiq's symbols are plain names here.
        sections: options for one environment only, by its name.
        text: the TOML file as it stands.
        table: the TOML tables above the options: `("tool", "pillion")` in a `pyproject.toml`.
        lines: where the keys of a YAML file stand.
        ruby: where those stand that only Ruby's Sidekiq reads.
    """

    label: str
    options: Mapping[str, Any]
    sections: Mapping[str, Mapping[str, Any]] = {}
    text: str = ""
    table: tuple[str, ...] = ()
    lines: yamlfile.Lines = {}
    ruby: tuple[tuple[str, ...], ...] = ()

    def where(self, *path: str) -> str:
        """`file:line` of the option at `path`, or only the file where the line cannot be told."""
        line = _yaml_line(self.lines, path) or _toml_line(self.text, (*self.table, *path))
        return f"{self.label}:{line}" if line else self.label

    def notes(self, environment: str) -> Iterator[str]:
        """What a person should know about this file though it is no mistake; `environment` is the chosen one."""
        if self.ruby:
            keys = ", ".join(f"{path[-1]} (line {_yaml_line(self.lines, path)})" for path in self.ruby)
            yield f"{self.label}: passed over what only Ruby's Sidekiq reads: {keys}; remove it, or leave it for Ruby"
        for name in self.sections:
            meant = None if name in {*ENVIRONMENTS, environment} else closest(name, ENVIRONMENTS)
            if meant:
                where = self.where(name)
                yield f"{where}: the section `{name}` is for an environment of that name; did you mean {meant}?"


def find_pyproject(cwd: Path) -> Path | None:
    """The nearest `pyproject.toml` at or above `cwd` that has a `[tool.pillion]` table."""
    for folder in (cwd, *cwd.parents):
        path = folder / "pyproject.toml"
        if path.is_file() and re.search(
            r"^\s*\[+\s*tool\s*\.\s*pillion\b", path.read_text(ENCODING, "replace"), re.MULTILINE
        ):
            return path
    return None


def read(path: Path, cwd: Path, known: Sequence[str], env: Mapping[str, str]) -> ConfigFile:
    """The options in the file at `path`.

    Args:
        path: a `.toml`, `.yml` or `.yaml` file, relative to `cwd` or absolute; the latter two also with `.erb`.
        cwd: where the user stands; messages name the file from there.
        known: our top-level option names, to tell an environment's section in a `sidekiq.yml` from a typing mistake.
        env: the variables that ERB in a `sidekiq.yml` may ask for.

    Raises:
        ConfigError: the file is missing, unreadable, of another kind, or not valid; it names the file and the line.
    """
    label = _label(path, cwd)
    if not path.name.endswith(TOML_SUFFIXES + YAML_SUFFIXES):
        kinds = ", ".join(TOML_SUFFIXES + YAML_SUFFIXES)
        raise ConfigError(f"configuration file: expected one that ends in {kinds}, got {label}; rename or convert it")
    try:
        text = (cwd / path).read_text(ENCODING)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file: cannot read {label} ({_reason(error)}); {_cure(error)}") from None
    return _read_toml(label, path.name, text) if path.suffix in TOML_SUFFIXES else _read_yaml(label, text, known, env)


def _label(path: Path, cwd: Path) -> str:
    try:
        return str((cwd / path).relative_to(cwd))
    except ValueError:
        return str(path)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    line = error.object.count(b"\n", 0, error.start) + 1
    return f"it is not UTF-8 text, from line {line}"


def _cure(error: OSError | UnicodeDecodeError) -> str:
    return "check the path" if isinstance(error, OSError) else "save it as UTF-8"


def _read_toml(label: str, name: str, text: str) -> ConfigFile:
    try:
        data: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        double = str(error).startswith("Cannot")  # overwrite a value, declare twice, mutate
        cure = "a name stands there twice: keep one" if double else "text wants quotes, lists want [ ]"
        raise ConfigError(f"configuration file: {label} is not valid TOML: {error}; {cure}") from None
    except (ValueError, RecursionError):
        raise ConfigError(
            f"configuration file: {label} holds a number of thousands of digits or endless nesting; write it smaller"
        ) from None
    tool = data.get("tool", {})
    inside = name == "pyproject.toml" or (isinstance(tool, dict) and "pillion" in tool)
    options = tool.get("pillion", {}) if inside and isinstance(tool, dict) else data
    if not isinstance(options, dict):
        raise ConfigError(f"tool.pillion: expected a table, got {_kind(options)} ({label}); write it as [tool.pillion]")
    return ConfigFile(label, options, text=text, table=("tool", "pillion") if inside else ())


def _read_yaml(label: str, text: str, known: Sequence[str], env: Mapping[str, str]) -> ConfigFile:
    data, lines = yamlfile.load(label, text, env)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"configuration file: expected options, got {_kind(data)} ({label}); write `timeout: 25`")
    rubys = RUBYS.difference(known)
    named = {key: value for key, value in data.items() if _is_section(key, value, {*known, *rubys})}
    options = {key: value for key, value in data.items() if key not in named}
    lines = {tuple(RENAMED.get(name, name) for name in path): line for path, line in lines.items()}
    ruby = [path for path in lines if path[-1] in rubys and (len(path) == 1 or (len(path) == 2 and path[0] in named))]
    return ConfigFile(
        label,
        _ours(options, rubys),
        {name: _ours(section, rubys) for name, section in named.items()},
        lines=lines,
        ruby=tuple(ruby),
    )


def _ours(options: Mapping[str, Any], rubys: Iterable[str]) -> dict[str, Any]:
    """The options that mean something here, by their names here."""
    return {RENAMED.get(name, name): value for name, value in options.items() if name not in rubys}


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def _is_section(key: str, value: object, known: Iterable[str]) -> bool:
    """Is this one environment's section? Any table is, unless its name is an option's, or nearly one."""
    if not isinstance(value, dict) or key in known:
        return False
    return key in ENVIRONMENTS or not closest(key, known)


def _toml_line(text: str, path: Sequence[str]) -> int | None:
    """The line of a TOML key, looked for under each table that may hold it; close enough for a message."""
    lines = text.splitlines()
    for depth in range(len(path) - 1, -1, -1):
        start = _header_line(lines, path[:depth]) if depth else 0
        if start is None:
            continue
        key = r"\s*\.\s*".join(rf"[\"']?{re.escape(part)}[\"']?" for part in path[depth:])
        for number in range(start, len(lines)):
            if re.match(rf"\s*{key}\s*=", lines[number]):
                return number + 1
            if lines[number].lstrip().startswith("["):
                break
    return _header_line(lines, path)


def _header_line(lines: Sequence[str], table: Sequence[str]) -> int | None:
    """The number (from one) of the line that opens a TOML table, which is the index of the line after it."""
    name = r"\s*\.\s*".join(rf"[\"']?{re.escape(part)}[\"']?" for part in table)
    for number, line in enumerate(lines, 1):
        if re.match(rf"\s*\[+\s*{name}\s*\]+", line):
            return number
    return None


def _yaml_line(lines: yamlfile.Lines, path: Sequence[str]) -> int | None:
    """The line of a YAML key, or of the nearest one above it."""
    while path and tuple(path) not in lines:
        path = path[:-1]
    return lines.get(tuple(path))

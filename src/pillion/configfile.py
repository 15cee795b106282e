"""Reading a configuration file into plain options: TOML (`pyproject.toml` or one of our own), or a `sidekiq.yml`.

Only `resolve.py` calls this. What comes out is nested plain data with our option names, not yet checked, and a way to
tell on which line an option stands, so that an error can point at it. Nothing in a file is executed: YAML is loaded
with `safe_load`, and ERB is refused rather than half understood.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pillion.errors import ConfigError
from pillion.options import closest

TOML_SUFFIXES = (".toml",)
YAML_SUFFIXES = (".yml", ".yaml")
ENVIRONMENTS = frozenset({"development", "test", "production", "staging"})
SIDEKIQ_ONLY = frozenset({"strict", "pidfile", "logfile", "daemon", "index"})


class ConfigFile(msgspec.Struct, frozen=True):
    """One file's options as plain data.

    Attributes:
        label: how the file is called in messages.
        options: our option names, nested; Sidekiq's symbols are plain names here.
        sections: options for one environment only, by its name.
        text: the file as it stands.
        table: the TOML tables above the options: `("tool", "pillion")` in a `pyproject.toml`.
    """

    label: str
    options: Mapping[str, Any]
    sections: Mapping[str, Mapping[str, Any]]
    text: str
    table: tuple[str, ...] = ()

    def where(self, *path: str) -> str:
        """`file:line` of the option at `path`, or only the file where the line cannot be told."""
        line = _toml_line(self.text, (*self.table, *path)) or _yaml_line(self.text, path)
        return f"{self.label}:{line}" if line else self.label


def find_pyproject(cwd: Path) -> Path | None:
    """The nearest `pyproject.toml` at or above `cwd` that has a `[tool.pillion]` table."""
    for folder in (cwd, *cwd.parents):
        path = folder / "pyproject.toml"
        if path.is_file() and re.search(
            r"^\s*\[+\s*tool\s*\.\s*pillion\b", path.read_text("utf-8", "replace"), re.MULTILINE
        ):
            return path
    return None


def read(path: Path, cwd: Path, known: Sequence[str]) -> ConfigFile:
    """The options in the file at `path`.

    Args:
        path: a `.toml`, `.yml` or `.yaml` file, relative to `cwd` or absolute.
        cwd: where the user stands; messages name the file from there.
        known: our top-level option names, to tell an environment's section in a `sidekiq.yml` from a typing mistake.

    Raises:
        ConfigError: the file is missing, unreadable, of another kind, or not valid; it names the file and the line.
    """
    label = _label(path, cwd)
    if path.suffix not in TOML_SUFFIXES + YAML_SUFFIXES:
        kinds = ", ".join(TOML_SUFFIXES + YAML_SUFFIXES)
        raise ConfigError(f"configuration file: expected one that ends in {kinds}, got {label}; rename or convert it")
    try:
        text = (cwd / path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file: cannot read {label} ({_reason(error)}); check the path") from error
    return _read_toml(label, path.name, text) if path.suffix in TOML_SUFFIXES else _read_yaml(label, text, known)


def _label(path: Path, cwd: Path) -> str:
    try:
        return str((cwd / path).relative_to(cwd))
    except ValueError:
        return str(path)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or type(error).__name__).lower() if isinstance(error, OSError) else "it is not UTF-8 text"


def _read_toml(label: str, name: str, text: str) -> ConfigFile:
    try:
        data: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration file: {label} is not valid TOML: {error}") from error
    tool = data.get("tool", {})
    inside = name == "pyproject.toml" or (isinstance(tool, dict) and "pillion" in tool)
    options = tool.get("pillion", {}) if inside else data
    if not isinstance(options, dict):
        raise ConfigError(f"tool.pillion: expected a table, got {options!r} ({label}); write it as [tool.pillion]")
    return ConfigFile(label, options, {}, text, ("tool", "pillion") if inside else ())


def _read_yaml(label: str, text: str, known: Sequence[str]) -> ConfigFile:
    _refuse_erb(label, text)
    try:
        import yaml
    except ImportError as error:
        raise ConfigError(f"configuration file: {label} needs PyYAML; run `pip install 'pillion[yaml]'`") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it could not be parsed"
        raise ConfigError(f"configuration file: {label}{line} is not valid YAML: {problem}") from error
    data = _plain(data) if data is not None else {}
    if not isinstance(data, dict):
        kind = type(data).__name__
        raise ConfigError(f"configuration file: expected options, got a {kind} ({label}); write `timeout: 25`")
    sections = {key: value for key, value in data.items() if _is_section(key, value, known)}
    options = {key: value for key, value in data.items() if key not in sections and key not in SIDEKIQ_ONLY}
    return ConfigFile(label, options, sections, text)


def _refuse_erb(label: str, text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if "<%" in line and not line.lstrip().startswith("#"):
            raise ConfigError(
                f"configuration file: {label}:{number} holds ERB, which only Ruby can run; write the value itself, "
                "or leave the option out and set it in the environment (PILLION_CONCURRENCY, REDIS_URL, ...)"
            )


def _plain(value: Any) -> Any:
    """The same data with Ruby's symbols (`:queues`, `:critical`) as plain words."""
    if isinstance(value, dict):
        return {_unsymbol(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return _unsymbol(value) if isinstance(value, str) else value


def _unsymbol(text: str) -> str:
    return text[1:] if re.fullmatch(r":[A-Za-z_]\w*", text) else text


def _is_section(key: str, value: object, known: Sequence[str]) -> bool:
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


def _yaml_line(text: str, path: Sequence[str]) -> int | None:
    """The line of a YAML key below its parents; close enough for a message."""
    lines, start, found = text.splitlines(), 0, None
    for part in path:
        key = re.compile(rf"\s*[\"']?:?{re.escape(part)}[\"']?\s*:")
        found = next((number for number in range(start, len(lines)) if key.match(lines[number])), None)
        if found is None:
            return None
        start = found + 1
    return None if found is None else found + 1

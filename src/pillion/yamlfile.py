"""A `sidekiq.yml` as plain data, and the line of each of its keys.

Only `configfile.py` calls this. The text is composed into YAML's nodes, which are checked and filled before anything is
made of them: the values of ERB tags go into scalars alone, a key that stands twice is an error, and so is what contains
itself. Data is made with PyYAML's safe loader, which knows no classes. Needs the extra `yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn, TypeAlias

from pillion.erb import Erb
from pillion.errors import ConfigError

Lines: TypeAlias = Mapping[tuple[str, ...], int]
"""From the names that lead to a key to the number of its line."""

MOST_DIGITS: Final = 100
DEPTH: Final = 4
"""How deep lines are told: section, `capsules`, name, option."""

_TAG: Final = "tag:yaml.org,2002:"
_TYPED: Final = frozenset(f"{_TAG}{name}" for name in ("null", "bool", "int", "float"))
_FOREIGN_WORD: Final = re.compile(r""":?\s*(['"])(?!<|\\t)[^'"]{2,}\1""")


def load(label: str, text: str, env: Mapping[str, str]) -> tuple[Any, Lines]:
    """The file's data, with Ruby's symbols as plain words, and where its keys stand.

    Raises:
        ConfigError: it is not valid, or PyYAML is not installed; the message names file and line, and holds no value.
    """
    try:
        import yaml
    except ImportError as error:
        raise ConfigError(f"configuration file: {label} needs PyYAML; run `pip install 'pillion[yaml]'`") from error
    erb = Erb(label, env)
    hidden = erb.hide(text)
    try:
        loader = yaml.SafeLoader(hidden)
        try:
            root = loader.get_single_node()
            if root is None:
                return {}, {}
            _Check(label, erb, loader).visit(root)
            data = _plain(loader.construct_document(root))
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        _invalid(label, hidden, error)
    except RecursionError:
        raise ConfigError(f"configuration file: {label} is nested too deep; write it flatter") from None
    except ConfigError:
        raise
    except ValueError:
        raise ConfigError(f"configuration file: {label} holds a value that YAML cannot read; quote it") from None
    lines: dict[tuple[str, ...], int] = {}
    _note_lines(root, (), lines)
    return data, lines


class _Check:
    """Goes over a file's nodes once, in order: fills scalars, refuses doubles and circles."""

    def __init__(self, label: str, erb: Erb, loader: Any) -> None:
        self._label = label
        self._erb = erb
        self._loader = loader
        self._open: set[int] = set()
        self._done: set[int] = set()

    def visit(self, node: Any) -> None:
        if id(node) in self._open:
            raise ConfigError(f"configuration file: {self._at(node)} contains itself; take the alias (*) away")
        if id(node) in self._done:
            return
        self._open.add(id(node))
        if node.id == "scalar":
            self._fill(node)
        for item in _items(node):
            self.visit(item)
        if node.id == "mapping":
            self._refuse_doubles(node)
        self._open.remove(id(node))
        self._done.add(id(node))

    def _fill(self, node: Any) -> None:
        filled = self._erb.fill(node.value)
        if filled != node.value:
            node.value = filled
            if node.style is None:  # unquoted: 5 is a number and nothing at all is null, as for Ruby
                tag = self._loader.resolve(type(node), filled, (True, False))
                node.tag = tag if tag in _TYPED else f"{_TAG}str"
        if node.tag == f"{_TAG}timestamp" or (node.tag in _TYPED and len(node.value) > MOST_DIGITS):
            node.tag = f"{_TAG}str"

    def _refuse_doubles(self, node: Any) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if key.id != "scalar" or key.tag == f"{_TAG}merge":
                continue
            name, line = unsymbol(key.value), key.start_mark.line + 1
            if name in seen:
                raise ConfigError(
                    f"configuration file: {self._at(key)} has `{name}` a second time; the first stands on line "
                    f"{seen[name]}; keep one of them"
                )
            seen[name] = line

    def _at(self, node: Any) -> str:
        return f"{self._label}:{node.start_mark.line + 1}"


def _items(node: Any) -> list[Any]:
    if node.id == "mapping":
        return [item for pair in node.value for item in pair]
    return list(node.value) if node.id == "sequence" else []


def _invalid(label: str, text: str, error: Any) -> NoReturn:
    """Say what PyYAML found, without the words of the file: they may be a password that nobody quoted."""
    mark = getattr(error, "problem_mark", None)
    position = getattr(error, "position", None)
    line = mark.line + 1 if mark else text.count("\n", 0, position) + 1 if isinstance(position, int) else None
    said = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "it could not be parsed")
    cure = "indent with spaces" if r"'\t'" in said else "quote what has signs such as * & ! % @ : # in it"
    place = f"{label}:{line}" if line else label
    raise ConfigError(f"configuration file: {place} is not valid YAML: {_FOREIGN_WORD.sub('', said)}; {cure}") from None


def _plain(value: Any) -> Any:
    """The same data with Ruby's symbols (`:queues`, `:critical`) as plain words."""
    if isinstance(value, dict):
        return {unsymbol(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return unsymbol(value) if isinstance(value, str) else value


def unsymbol(text: str) -> str:
    """A symbol's word; any other text as it is."""
    return text[1:] if re.fullmatch(r":[A-Za-z_]\w*", text) else text


def _note_lines(node: Any, path: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> None:
    """By now merged keys (`<<: *defaults`) stand in the mapping as well, in front of its own."""
    if node.id != "mapping" or len(path) >= DEPTH:
        return
    for key, value in node.value:
        if key.id == "scalar":
            below = (*path, unsymbol(key.value))
            lines[below] = key.start_mark.line + 1
            _note_lines(value, below, lines)

"""The ERB that a `sidekiq.yml` holds in practice, such as `<%= ENV.fetch("CONCURRENCY", 5) %>`, read and not run.

Only `yamlfile.py` calls this: `hide` puts a mark in the place of each tag before the YAML is parsed, and `fill` puts
the values in the place of the marks, scalar by scalar, afterwards. What a variable holds never passes the YAML parser,
so it can change a value, but neither a name's place nor the shape of the file.

    expression = operand { "||" operand }
    operand    = atom { ".to_i" | ".to_f" | ".to_s" }
    atom       = ENV["NAME"] | ENV.fetch("NAME" [, expression]) | ENV.fetch("NAME") { expression }
               | Integer(expression) | Float(expression) | String(expression) | ( expression )
               | number | "text" | 'text' | true | false | nil

Each means what it means in Ruby. Everything else is refused with its line. No message holds a variable's value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

from pillion.errors import ConfigError

MOST_SIGNS: Final = 500
CURE: Final = (
    'understood are ENV["NAME"], ENV.fetch("NAME", 5), `||` and .to_i; write it with these, write the value itself, or '
    "leave the option out and set it in the environment (PILLION_CONCURRENCY, REDIS_URL, ...)"
)

_TAG: Final = re.compile(r"<%(?P<kind>[=#]?)(?P<code>.*?)-?%>")
_MARK: Final = re.compile("\ue000(\\d+)\ue001")  # private-use characters: part of a scalar wherever they stand
_TOKEN: Final = re.compile(
    r"""\s*(?: (?P<number>-?\d+(?:\.\d+)?) | (?P<text>"[^"\\]*"|'[^'\\]*') | (?P<word>[A-Za-z_]\w*) """
    r"""| (?P<sign>\|\||[\[\](){},.]) )\s*""",
    re.VERBOSE,
)
_INTERPOLATED: Final = re.compile(r"#[{$@]")
_WHOLE: Final = re.compile(r"\s*([+-]?\d{1,100}(?:_\d{1,100})*)")
_NUMBER: Final = re.compile(r"\s*([+-]?\d{1,100}(?:_\d{1,100})*(?:\.\d{1,100})?)")
_OCTAL: Final = re.compile(r"\s*[+-]?0\d")
_CONSTANTS: Final[Mapping[str, Any]] = {"true": True, "false": False, "nil": None}


class Erb:
    """The tags of one file, and the environment that they ask."""

    def __init__(self, label: str, env: Mapping[str, str]) -> None:
        self._label = label
        self._env = env
        self._found: list[tuple[int, str]] = []

    def hide(self, text: str) -> str:
        """`text` with a mark for each tag. Line numbers stay. Raises ConfigError for code that is not `<%= ... %>`."""
        lines = text.split("\n")
        return "\n".join(self._hide(line, number) for number, line in enumerate(lines, 1))

    def fill(self, text: str) -> str:
        """`text` with values for the marks. Raises ConfigError for what is not understood, and unset variables."""
        return _MARK.sub(lambda mark: self._value(int(mark[1])), text)

    def _hide(self, line: str, number: int) -> str:
        if "<%" not in line or line.lstrip().startswith("#"):
            return line
        hidden = _TAG.sub(lambda tag: self._mark(tag, number), line)
        return _refuse(f"{self._label}:{number}") if "<%" in hidden else hidden

    def _mark(self, tag: re.Match[str], number: int) -> str:
        if not tag["kind"]:
            _refuse(f"{self._label}:{number}")
        if tag["kind"] == "#":
            return ""
        self._found.append((number, tag["code"]))
        return f"\ue000{len(self._found) - 1}\ue001"

    def _value(self, index: int) -> str:
        if index >= len(self._found):  # signs of the file's own that look like a mark
            return ""
        number, code = self._found[index]
        place = f"{self._label}:{number}"
        value = _Reader(code, self._env, place).read()
        if isinstance(value, _Missing):
            raise ConfigError(
                f"configuration file: {place} expected the environment variable {value.name} to be set, got nothing; "
                f'set it, or give a default: ENV.fetch("{value.name}", 5)'
            )
        return _spelled(value)


class _Missing:
    """What `ENV.fetch` gives without a default: an error, unless nobody uses it."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Reader:
    """Reads one expression by recursive descent; its value is worked out on the way."""

    def __init__(self, code: str, env: Mapping[str, str], place: str) -> None:
        self._env = env
        self._place = place
        self._tokens = list(self._split(code))

    def read(self) -> Any:
        try:
            value = self._expression()
        except RecursionError:
            self._refuse()
        return self._refuse() if self._tokens else value

    def _split(self, code: str) -> Iterator[tuple[str, str]]:
        at = 0
        while at < len(code) and code[at:].strip():
            token = _TOKEN.match(code, at) if len(code) <= MOST_SIGNS else None
            if token is None or not token.lastgroup:
                self._refuse()
            yield token.lastgroup, token[token.lastgroup]
            at = token.end()

    def _expression(self) -> Any:
        value = self._operand()
        while self._took("||"):
            other = self._operand()
            value = other if value is None or value is False else value
        return value

    def _operand(self) -> Any:
        value = self._atom()
        while self._took("."):
            value = self._converted(value, self._next("word"))
        return value

    def _atom(self) -> Any:
        kind, token = self._tokens.pop(0) if self._tokens else self._refuse()
        if kind == "number":
            return float(token) if "." in token else int(token)
        if kind == "text":
            return self._literal(token)
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if token == "ENV":
            return self._variable()
        if token == "(":
            return self._closed(")")
        if token in ("Integer", "Float", "String"):
            self._insist("(")
            return self._insist_on_number(token, self._closed(")"))
        return self._refuse()

    def _variable(self) -> Any:
        if self._took("["):
            name = self._literal(self._next("text"))
            self._insist("]")
            return self._env.get(name)
        for token in (".", "fetch", "("):
            self._insist(token)
        name = self._literal(self._next("text"))
        default = self._expression() if self._took(",") else _Missing(name)
        self._insist(")")
        default = self._closed("}") if self._took("{") else default
        return self._env.get(name, default)

    def _converted(self, value: Any, method: str) -> Any:
        if isinstance(value, _Missing):
            return value
        if method == "to_s":
            return _spelled(value)
        if isinstance(value, bool) or method not in ("to_i", "to_f"):
            self._refuse()
        pattern, make = (_WHOLE, int) if method == "to_i" else (_NUMBER, float)
        number = pattern.match(_spelled(value))
        return make(number[1] if number else 0)

    def _insist_on_number(self, function: str, value: Any) -> Any:
        if isinstance(value, _Missing) or function == "String":
            return value
        whole = function == "Integer"
        pattern, said = (_WHOLE, "a whole number") if whole else (_NUMBER, "a number")
        words = _spelled(value).rstrip()
        number = None if whole and _OCTAL.match(words) else pattern.fullmatch(words)
        if number is None:
            raise ConfigError(
                f"configuration file: {self._place} expected {said} in {function}(...), got something else; "
                "check the variables that it names"
            )
        return int(number[1]) if whole else float(number[1])

    def _literal(self, token: str) -> str:
        return self._refuse() if token[0] == '"' and _INTERPOLATED.search(token) else token[1:-1]

    def _closed(self, end: str) -> Any:
        value = self._expression()
        self._insist(end)
        return value

    def _next(self, kind: str) -> str:
        found, token = self._tokens.pop(0) if self._tokens else self._refuse()
        return token if found == kind else self._refuse()

    def _took(self, sign: str) -> bool:
        if self._tokens and self._tokens[0] == ("sign", sign):
            del self._tokens[0]
            return True
        return False

    def _insist(self, token: str) -> None:
        if not self._tokens or self._tokens.pop(0)[1] != token:
            self._refuse()

    def _refuse(self) -> NoReturn:
        _refuse(self._place)


def _spelled(value: Any) -> str:
    """A value as ERB writes it."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse(place: str) -> NoReturn:
    raise ConfigError(f"configuration file: {place} holds ERB that only Ruby can run; {CURE}")

"""Looks at every log line that the fuzzed worker writes, in both formats: whole, printable, without secrets."""

from __future__ import annotations

import json
import logging

from pillion.log_format import JsonFormatter, PrettyFormatter

CANARY = "canary-7f3a"
LONGEST = 250_000
LONGEST_REFUSAL = 2_000


class Lines(logging.Handler):
    """Formats each record twice and keeps what is wrong with it; `check` raises for that."""

    def __init__(self) -> None:
        super().__init__()
        self._json, self._pretty = JsonFormatter(), PrettyFormatter()
        self._faults: list[str] = []
        self.logger = logging.getLogger("pillion")
        self._before = (self.logger.level, self.logger.propagate)
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR and "can never run" not in record.msg % record.args:
            self._faults.append(f"an error of our own: {record.getMessage()!r:.500} {record.exc_info}")
        line = self._json.format(record)
        if not line.isprintable() or len(line) > LONGEST or not isinstance(json.loads(line), dict):
            self._faults.append(f"not one sound line of JSON: {line!r:.500}")
        first, *more = self._pretty.format(record).split("\n")
        if not all(part.isprintable() for part in (first, *more)) or not all(part.startswith("    ") for part in more):
            self._faults.append(f"not one line with an indented traceback: {first!r:.500}")
        for text in (line, first, *more):
            self.look_for_secrets(text)

    def look_for_secrets(self, text: str) -> None:
        if CANARY in text:
            self._faults.append(f"a secret was told: {text!r:.500}")

    def look_at_refusal(self, text: str) -> None:
        """What the caller of a push is told."""
        if len(text) > LONGEST_REFUSAL:
            self._faults.append(f"a refusal of {len(text)} characters: {text!r:.500}")
        self.look_for_secrets(text)

    def check(self) -> None:
        faults, self._faults = self._faults, []
        assert not faults, faults

    def close(self) -> None:
        self.logger.removeHandler(self)
        level, self.logger.propagate = self._before
        self.logger.setLevel(level)
        super().close()

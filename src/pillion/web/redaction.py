"""What of a job a person may see, in one function: `Redaction.shown`. Pages, JSON and live stacks all go through it.

A value whose name says that it is secret becomes `***`, at any depth; so does a password inside a text. Viewers see no
arguments at all unless the dashboard lets them. `visible` is for every text that is drawn: signs that cannot be seen or
turn the line around are written as escapes. Nothing here changes what is stored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate
from typing import Any

from pillion.api.record import JobRecord
from pillion.mask import HIDDEN, mask_secrets
from pillion.web.access import Role

SECRETS = (
    *("*password*", "*passwd*", "*passphrase*", "*secret*", "*token*", "*authorization*", "*api_key*", "*apikey*"),
    *(
        "*api-key*",
        "*private_key*",
        "*credential*",
        "cookie",
        "set-cookie",
        "ssn",
        "*card_number*",
        "cvc",
        "cvv",
        "iban",
    ),
)
DEEPEST = 20
LONGEST = 20_000
WITHHELD = "[hidden]"

# Controls but for tab and line end, zero-width and bidirectional signs, lone surrogates, and what ends lines elsewhere.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)


class Redaction:
    """The rules of one dashboard.

    Args:
        names: more patterns for names whose values are secret, such as `*_pin`.
        see_args: the lowest role that sees arguments.
    """

    def __init__(self, names: Iterable[str] = (), see_args: Role = Role.OPERATOR) -> None:
        self._secret = re.compile("|".join(translate(name.lower()) for name in (*SECRETS, *names)))
        self._see_args = see_args

    def shown(self, value: Any, depth: int = 0) -> Any:
        """The same value with what is secret replaced; of a text the first 20,000 signs."""
        if isinstance(value, str):
            return mask_secrets(value[:LONGEST])
        if depth > DEEPEST:
            return WITHHELD
        if isinstance(value, Mapping):
            return {
                str(name): HIDDEN if self.is_secret(str(name)) else self.shown(each, depth + 1)
                for name, each in value.items()
            }
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
            return [self.shown(each, depth + 1) for each in value]
        return value

    def is_secret(self, name: str) -> bool:
        """Whether a value of that name is not to be shown."""
        return self._secret.match(name.lower()) is not None

    def sees_args(self, role: Role) -> bool:
        """Whether somebody in this role sees arguments."""
        return role >= self._see_args

    def args(self, record: JobRecord, role: Role) -> list[Any] | None:
        """The arguments as this role may see them; None where it may not."""
        if not self.sees_args(role):
            return None
        found: list[Any] = self.shown(record.display_args)
        return found

    def text(self, text: str | None, role: Role) -> str | None:
        """A text that jobs wrote, such as an error's message, without passwords."""
        del role  # a message is no argument; every role needs it to see what is wrong
        return None if text is None else mask_secrets(text[:LONGEST])


def visible(text: str) -> str:
    """The text with signs that cannot be seen written as escapes (`\\u202e`)."""
    return _UNSEEN.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

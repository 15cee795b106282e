"""A second opinion on stored bytes: can they ever run? Told from the rules in the documentation and Python's own JSON.

It shares nothing with the code it judges. Where Python's reader is of no use (nesting that it cannot follow, values
that are overwritten by a second of the same name) it says that it does not know.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any

MAX_DEPTH = 512
MAX_BYTES = 16 * 1024 * 1024
MAX_NAME = 256
ODD_JID = 200
"""From here on it does not say how long a `jid` that is no text would be as text."""

_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_BRACKET = re.compile(r"[\[\]{}]")


def runnable(raw: bytes) -> bool | None:
    """Whether these bytes are a job that can run; None where it cannot tell."""
    twice = False

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        found = dict(pairs)
        twice = twice or len(found) < len(pairs)
        return found

    try:
        text = raw.decode()
        job = json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=members)
        json.dumps(job, ensure_ascii=False).encode()  # halves of surrogate pairs
    except RecursionError:
        return None
    except ValueError:
        return False
    if len(raw) > MAX_BYTES or not isinstance(job, dict) or depth(text) > MAX_DEPTH:
        return False
    name, args, jid = job.get("class"), job.get("args"), job.get("jid")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        return False
    if not isinstance(args, list):
        return False
    if jid is None or isinstance(jid, str):
        fits = len((jid or "").encode()) <= MAX_NAME
        return None if fits and twice else fits
    return True if len(json.dumps(jid)) <= ODD_JID and not twice else None


def depth(text: str) -> int:
    """How many containers stand inside each other in a sound JSON text, those of overwritten keys included."""
    steps = accumulate(1 if sign in "[{" else -1 for sign in _BRACKET.findall(_STRING.sub("", text)))
    return max(steps, default=0)


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError(literal)
    return number


def _refuse(literal: str) -> None:
    raise ValueError(literal)

"""Many jobs that differ in arguments and jid alone, encoded once but for these.

Called by `bulk.py`. `cut` checks and encodes what the jobs share, `fill` puts in what is a job's own; the bytes are
those of `payload.verify`, `encode` and `check_size`. Whatever is not plain at first sight is left to these (None), and
they refuse it or know better; so nothing is refused here, and no sentence stands twice. Pure, as `payload.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pillion.config import Config
from pillion.errors import PayloadError
from pillion.payload import MAX_DEPTH_PUSH, MAX_READ_BYTES, check_size, encode, verify
from pillion.plain import is_plain
from pillion.types import Payload

_GAP = b"\0"
"""What JSON text never holds."""
_LEVELS = MAX_DEPTH_PUSH - 2
_encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


class Stencil:
    """What jobs share, around the gaps for their arguments and their jid."""

    __slots__ = ("_after", "_before", "_between", "_room")

    def __init__(self, before: bytes, between: bytes, after: bytes, limit: int) -> None:
        self._before = before
        self._between = between + b'"'
        self._after = b'"' + after
        self._room = limit - len(self._before) - len(self._between) - len(self._after)

    def fill(self, args: object, jid: str, more: bytes = b"") -> bytes | None:
        """The bytes of one job, or None where `args` are not plain, or too large. `jid` is letters and digits only.

        `more` are fields to put at the end, encoded, each after a comma; the jid must be the last one before them.
        """
        kind = type(args)
        if (kind is not list and kind is not tuple) or not is_plain(args, _LEVELS):  # type: ignore[arg-type]
            return None
        try:
            raw = _encode(args)
        except Exception:  # half of a surrogate pair; `payload.encode` names its place
            return None
        if len(raw) + len(jid) + len(more) > self._room:
            return None
        after = b'"%b}' % more if more else self._after
        return b"%b%b%b%b%b" % (self._before, raw, self._between, jid.encode(), after)


def cut(job: Payload, config: Config) -> Stencil | None:
    """A stencil for jobs like `job`, or None where what they share is not plain."""
    if [key for key in job if key in ("args", "jid")] != ["args", "jid"]:
        return None
    if config.strict_args == "warn" and "kwargs" in job:
        return None  # each job warns
    try:
        verify(job, config)
        check_size(encode(job), job["class"], config)
    except PayloadError:
        return None
    pieces = _encode({**job, "args": msgspec.Raw(_GAP), "jid": msgspec.Raw(_GAP)}).split(_GAP)
    if len(pieces) != 3:
        return None
    before, between, after = pieces
    return Stencil(before, between, after, min(config.max_payload, MAX_READ_BYTES))

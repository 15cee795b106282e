"""One exchange with Redis without its I/O: which bytes go out, when the replies are complete, and what they mean.

`connection.py` drives it over blocking sockets and asyncio streams alike. Error replies are values here, so a
pipeline's other answers are never lost to an exception."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import hiredis

from pillion.store.ops import Command, Op
from pillion.store.refusals import refusal

T = TypeVar("T")

# Refusals that pass: the server executed nothing, and a new connection may reach one that does.
TRANSIENT = ("READONLY", "NOREPLICAS", "LOADING", "UNBLOCKED", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "MOVED")

PIECE = 65_536
"""Bytes handed to a socket at a time, so that it is known how much of a large pipeline left at most."""

_MORE = object()
_NONE_YET = object()


class Exchange(Generic[T]):
    """The life of one op on the wire.

    Drive it so: while it is `asking()`, send what is `outgoing()`, and `feed()` it what arrives for as long as it is
    `waiting()`. Then `again()` says whether to reconnect and start over with what was refused; `result()` ends it. When
    the connection breaks, `accepted()` tells what is known.
    """

    __slots__ = (
        "_changed",
        "_has_errors",
        "_left",
        "_must_spell_out",
        "_op",
        "_packed",
        "_reader",
        "_replies",
        "_unsent",
        "_waiting",
    )

    def __init__(self, op: Op[T], reader: hiredis.Reader | None = None, changed: set[bytes] | None = None) -> None:
        self._op = op
        self._reader = reader or new_reader()
        self._changed = changed
        self._replies: list[Any] = [_NONE_YET] * len(op.commands)
        self._unsent = list(range(len(op.commands)))
        self._waiting: list[int] = []
        self._packed: list[tuple[int, bytes]] = []
        self._left = 0
        self._has_errors = False
        self._must_spell_out = False

    def asking(self) -> bool:
        """Whether there is something to send."""
        return bool(self._unsent)

    def outgoing(self) -> Iterator[bytes]:
        """The bytes to send now, in pieces; a piece counts as gone when it was given out."""
        commands = self._in_full() if self._must_spell_out else self._op.commands
        self._packed = [(i, pack(commands[i])) for i in self._unsent]
        self._waiting, self._unsent = self._unsent, []
        for i in self._waiting:
            self._replies[i] = _NONE_YET
        data = b"".join([packed for _, packed in self._packed])
        for start in range(0, len(data), PIECE):
            self._left = start + PIECE
            yield data[start : start + PIECE]

    def waiting(self) -> bool:
        """Whether replies are still to come."""
        return bool(self._waiting)

    def feed(self, data: bytes) -> None:
        """Take in what the server sent."""
        self._reader.feed(data)
        while self._waiting:
            reply = self._reader.gets()
            if reply is _MORE:
                return
            if isinstance(reply, hiredis.PushNotification):
                note(reply, self._changed)
            else:
                self._take(self._waiting.pop(0), reply)

    def again(self) -> bool:
        """Whether refused commands should go out over a new connection; `outgoing()` then has them. Ask once."""
        if not self._has_errors:
            return False
        refused = {i for i, reply in enumerate(self._replies) if is_error(reply) and _code(reply) in TRANSIENT}
        if not refused:
            return False
        # A WAIT answers for the connection that it is sent on, so it goes along with what is sent again.
        self._unsent = [i for i, words in enumerate(self._op.commands) if i in refused or words[0] == "WAIT"]
        self._reader = new_reader()
        return True

    def result(self) -> T:
        """The op's result. Raises Refused for the first error among the replies."""
        for reply in self._replies if self._has_errors else ():
            if is_error(reply):
                accepted = [not is_error(other) for other in self._replies]
                raise refusal(self._op.name, str(reply), accepted, self._op.script)
        return self._op.parse(self._replies)

    def accepted(self) -> list[bool | None]:
        """For each command whether the server took it; None where the connection broke before that was known."""
        known = [None if reply is _NONE_YET else not is_error(reply) for reply in self._replies]
        end = 0
        for i, packed in self._packed:
            end += len(packed)
            if known[i] is None and end > self._left:
                known[i] = False  # it did not leave whole, so no server can have run it
        return known

    def _in_full(self) -> list[Command]:
        """The commands with their script spelled out."""
        text = self._op.script.text if self._op.script else ""
        return [("EVAL", text, *words[2:]) if words[0] == "EVALSHA" else words for words in self._op.commands]

    def _take(self, i: int, reply: Any) -> None:
        self._replies[i] = reply
        if not is_error(reply):
            return
        self._has_errors = True
        if self._op.script is not None and _code(reply) == "NOSCRIPT":
            # All of it again: what stands before the script, such as CLIENT CACHING, was for that one command.
            self._must_spell_out, self._unsent = True, list(range(len(self._replies)))


# Its own annotation asks for a tuple of one word.
pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]


def new_reader() -> hiredis.Reader:
    return hiredis.Reader(notEnoughData=_MORE)


def news(reader: hiredis.Reader, changed: set[bytes]) -> None:
    """Take the pushed messages that stand in a reader between two exchanges."""
    while (message := reader.gets()) is not _MORE:
        note(message, changed)


def note(message: Any, changed: set[bytes] | None) -> None:
    """Keep the keys of an invalidation; a flush of the whole server is the empty key."""
    if changed is not None and isinstance(message, list) and message and message[0] == b"invalidate":
        changed.update(message[1] if message[1] is not None else (b"",))


def is_error(reply: Any) -> bool:
    return isinstance(reply, hiredis.ReplyError)


def _code(reply: Any) -> str:
    """The error's code, its first word; an error inside a script keeps the code of the command that met it."""
    return str(reply).partition(" ")[0]

"""An `Op`: one exchange with Redis as a value. What is asked stands in `ops.py`; `connection.py` carries it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from pillion.store.refusals import is_forbidden, refusal
from pillion.store.scripts import Script, script

T = TypeVar("T")
Word: TypeAlias = str | bytes | int | float
Command: TypeAlias = tuple[Word, ...]


class Op(msgspec.Struct, Generic[T], frozen=True):
    """One exchange with Redis: commands that go out in one pipeline, and how to read their replies.

    Attributes:
        name: for logs and errors.
        commands: what to send, in order.
        parse: makes the result from the replies; error replies were raised before.
        script: the script behind an EVALSHA, sent in full where the server does not know it.
        safe: may be sent again when the reply was lost.
    """

    name: str
    commands: tuple[Command, ...]
    parse: Callable[[Sequence[Any]], T]
    script: Script | None = None
    safe: bool = False


class Refusal(str):
    """What the server said instead of an answer, such as WRONGTYPE. It is false: `answer or 0` reads as expected."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


def told(reply: Any) -> Any:
    """One of a script's several replies: the answer, or a `Refusal`."""
    return Refusal(reply) if isinstance(reply, Exception) else reply


def permitted(verb: Word, reply: Any) -> Any:
    """`told`, but what this user may not do at all is raised: it is no answer like another."""
    if isinstance(reply, Exception) and is_forbidden(str(reply)):
        raise refusal(str(verb), str(reply))
    return told(reply)


def command(*words: Word, safe: bool = True) -> Op[Any]:
    """One plain command, answered as the server answers it."""
    return Op(str(words[0]), (words,), _first, safe=safe)


def pipeline(name: str, commands: Iterable[Command], *, safe: bool = True) -> Op[list[Any]]:
    """Several plain commands in one round trip (no transaction)."""
    return Op(name, tuple(commands), list, safe=safe)


def _first(replies: Sequence[Any]) -> Any:
    return replies[0]


def call(
    name: str,
    keys: Sequence[Word],
    args: Sequence[Word],
    parse: Callable[[Any], T],
    *,
    safe: bool = True,
) -> Op[T]:
    """A script of `lua/` by its name; `parse` gets its reply."""
    body = script(name)
    words: Command = ("EVALSHA", body.sha, len(keys), *keys, *args)
    return Op(name, (words,), lambda replies: parse(replies[0]), script=body, safe=safe)


def text(value: Any) -> str:
    """A reply that is a name, as text; bytes that are no UTF-8 keep their place as U+FFFD."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def moment(now: float | None, scale: int) -> Word:
    """`now` (s) for a script that counts in 1/`scale` seconds; empty where it is to read the server's clock."""
    return "" if now is None else (int(now * scale) if scale > 1 else now)
